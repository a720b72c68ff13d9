"""The policy: it learns the log-probabilities it drew with, nothing from equal rewards, and climbs a known optimum."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from illume_loop.models.registry import load_model
from illume_loop.protocols import Sampling
from illume_loop.settings import GrpoSettings, TrainSettings
from illume_loop.train.advantages import group_advantages
from illume_loop.train.grpo import Policy, Rollout, kl_estimate, policy_loss
from tests.support.tiny_janus import save_tiny_janus

PROMPTS = ["a red circle", "two blue squares", "a green ring left of a red cross", "a red circle"]
RATE = 2e-3


def policy_of(
    base: Path, *, rank: int = 0, decode: Sampling | None = None, rate: float = RATE, **values: object
) -> Policy:
    train = TrainSettings(lora_rank=rank, learning_rate=rate, batch_size=16)
    return Policy(base, train, GrpoSettings(**values), decode or Sampling(1.5, 0.7), 3)  # type: ignore[arg-type]


def rollouts_of(policy: Policy, advantages: list[float], seed: int = 0) -> list[Rollout]:
    ids_BL, log_probs_BL = policy.draw(PROMPTS, range(seed, seed + 4))
    return [Rollout(*one) for one in zip(PROMPTS, ids_BL, log_probs_BL, advantages, strict=True)]


def weights_of(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in policy.model.model.named_parameters()}


@pytest.fixture(scope="module", params=["illume", "janus"])
def any_base(request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "illume":
        return base
    folder = save_tiny_janus(tmp_path_factory.mktemp("janus") / "base")
    model = load_model(folder).model  # type: ignore[attr-defined]
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(8.0)  # as initialised, its distributions are so flat that a wrong one is not seen
    sharp: Path = folder.parent / "sharp"
    loaded = load_model(folder)
    loaded.model.load_state_dict(model.state_dict())  # type: ignore[attr-defined]
    loaded.save(sharp)  # type: ignore[attr-defined]
    return sharp


@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize("decode", [Sampling(), Sampling(1.0, 0.7), Sampling(2.0, 0.6)])
def test_the_policy_learns_the_log_probabilities_that_it_drew_with(any_base: Path, rank: int, decode: Sampling) -> None:
    """Also after a step, when an adapter is no longer zero."""
    policy = policy_of(any_base, rank=rank, decode=decode)
    for seed in (0, 10):
        rollouts = rollouts_of(policy, [1.0, -1.0, 0.5, -0.5], seed)
        ids_BL = torch.from_numpy(np.stack([one.image_ids for one in rollouts])).long()
        drawn_BL = np.stack([one.log_probs for one in rollouts])
        learned_BL = policy.log_probs(PROMPTS, ids_BL).detach().numpy()
        np.testing.assert_allclose(learned_BL, drawn_BL, atol=1e-4, rtol=0)
        assert -drawn_BL.mean() < 3.9, "a flat distribution over 64 ids would agree with anything"
        assert policy.learn(rollouts).gap < 1e-4


def test_the_log_probability_is_that_of_the_uncached_distribution(base: Path) -> None:
    """An independent computation from the model's own forward, without guidance and at temperature 1."""
    policy = policy_of(base, decode=Sampling())
    (rollout, *_) = rollouts_of(policy, [0.0] * 4)
    row = policy.model.sequences.draw(rollout.prompt, rollout.image_ids.tolist())
    logits_TV = policy.model.model(input_ids=torch.tensor([row.input_ids])).logits[0]
    num_text_ids = policy.model.model.config.num_text_ids
    first = row.input_ids.index(num_text_ids + int(rollout.image_ids[0]))
    of_images = logits_TV[first - 1 : first - 1 + len(rollout.image_ids), num_text_ids:].log_softmax(-1)
    expected = of_images.gather(1, torch.from_numpy(rollout.image_ids).long().unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(torch.from_numpy(rollout.log_probs), expected.detach(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("rank", [0, 4])
def test_equal_rewards_have_a_gradient_of_exactly_zero(base: Path, rank: int) -> None:
    policy = policy_of(base, rank=rank, kl=0.0)
    before = weights_of(policy)
    assert policy.learn(rollouts_of(policy, [0.0] * 4)).grad_norm == 0.0
    for name, weight in weights_of(policy).items():
        assert torch.equal(weight, before[name]), name
    assert policy.learn(rollouts_of(policy, [1.0, -1.0, 1.0, -1.0])).grad_norm > 0.0


def test_without_rollouts_nothing_moves_not_even_by_momentum_or_kl(base: Path) -> None:
    policy = policy_of(base, kl=1.0)
    policy.learn(rollouts_of(policy, [1.0, -1.0, 1.0, -1.0]))
    before = weights_of(policy)
    assert policy.learn([]).kl is None, "what was not measured is no value"
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(policy).items())


def climb(policy: Policy, reward: Callable[[np.ndarray], float], num_updates: int) -> float:
    """Return the mean reward of the last update's samples."""
    prompts = [prompt for prompt in PROMPTS[:2] for _ in range(16)]
    values = np.zeros((2, 16))
    for update in range(num_updates):
        ids_BL, log_probs_BL = policy.draw(prompts, range(100 * update, 100 * update + 32))
        values = np.array([reward(ids_L) for ids_L in ids_BL]).reshape(2, 16)
        advantages = group_advantages({"self": values}, {"self": 1.0}, normalise=True)
        rows = zip(prompts, ids_BL, log_probs_BL, advantages.values.ravel(), strict=True)
        policy.learn([Rollout(*row) for row in rows if np.isfinite(row[3])])
    return float(values.mean())


def test_a_toy_with_a_known_optimum_is_climbed(base: Path) -> None:
    """The reward is the share of ids below 16 of 64; the optimum is 1."""
    policy = policy_of(base, decode=Sampling(1.5, 1.0), kl=0.0, rate=1e-2)
    share = lambda ids_L: float((ids_L < 16).mean())  # noqa: E731
    assert climb(policy, share, 1) < 0.5
    assert climb(policy, share, 18) >= 0.95


@pytest.mark.parametrize("rank", [0, 4])
def test_a_saved_state_continues_as_the_one_in_memory_bit_by_bit(base: Path, tmp_path: Path, rank: int) -> None:
    policy = policy_of(base, rank=rank, steps_per_update=2)
    policy.learn(rollouts_of(policy, [1.0, -1.0, 0.5, -0.5]))
    policy.save(tmp_path / "state")
    resumed = policy_of(base, rank=rank, steps_per_update=2)
    resumed.load(tmp_path / "state")
    reports = []
    for one in (policy, resumed):
        rollouts = rollouts_of(one, [0.3, -1.0, 0.5, 0.2], 50)
        reports.append(one.learn(rollouts))
    assert reports[0] == reports[1]
    assert reports[0].kl is not None
    assert reports[0].kl > 0
    for name, weight in weights_of(policy).items():
        assert torch.equal(weight, weights_of(resumed)[name]), name


def test_a_published_policy_draws_as_the_policy_does(base: Path, tmp_path: Path) -> None:
    policy = policy_of(base, rank=4)
    for seed in range(3):
        policy.learn(rollouts_of(policy, [1.0, -1.0, 0.5, -0.5], seed))
    ids_BL, log_probs_BL = policy.draw(PROMPTS, range(4))
    policy.publish(tmp_path / "out")
    published = load_model(tmp_path / "out")
    again_BL, again_log_probs_BL = published.sample_scored(PROMPTS, range(4), Sampling(1.5, 0.7))  # type: ignore[attr-defined]
    assert (ids_BL == again_BL).all()
    np.testing.assert_allclose(log_probs_BL, again_log_probs_BL, atol=1e-3)


def test_ratios_are_clipped_asymmetrically_and_old_samples_weigh_less() -> None:
    settings = GrpoSettings(clip_low=0.2, clip_high=0.3, importance_cap=2.0)
    ratios = torch.tensor([[0.5, 1.0, 1.25, 2.0]])
    zero = torch.zeros(1, 4)
    gains, clipped = policy_loss(ratios.log(), zero, zero, torch.tensor([1.0]), settings)
    torch.testing.assert_close(-gains, torch.tensor([[0.5, 1.0, 1.25, 1.3]]))
    assert clipped.tolist() == [[False, False, False, True]]
    losses, clipped = policy_loss(ratios.log(), zero, zero, torch.tensor([-1.0]), settings)
    torch.testing.assert_close(losses, torch.tensor([[0.8, 1.0, 1.25, 2.0]]))
    assert clipped.tolist() == [[True, False, False, False]]
    drawn = -torch.tensor([[0.5, 1.0, 1.5, 9.0]]).log()
    weighted, _ = policy_loss(zero, zero, drawn, torch.tensor([1.0]), settings)
    torch.testing.assert_close(-weighted, torch.tensor([[0.5, 1.0, 1.5, 2.0]]))


def test_the_estimate_of_kl_is_zero_at_the_reference_and_nowhere_negative() -> None:
    log_probs = torch.linspace(-3, 0, 20).unsqueeze(0)
    assert float(kl_estimate(log_probs, log_probs).abs().max()) == 0.0
    assert float(kl_estimate(log_probs, log_probs.flip(1)).min()) >= 0.0
