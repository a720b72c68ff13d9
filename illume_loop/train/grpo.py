"""The policy of online reinforcement learning: it draws, it scores what was drawn, and it learns from rewards.

Invariants:

- The log-probability that is learned is that of the decode at which the policy draws: log softmax((unconditional +
  guidance x (conditional - unconditional)) / temperature), in float32, over image ids only. The sampler tells the same.
- A sample without an advantage has no part in a step, and an update without any such sample changes nothing.
- The same start, rollouts and settings on the same machine give the same weights, bit by bit. A state that was saved
  and loaded continues as the one in memory does.

A placement of the work (in one process, on Ray, on workers) draws with `draw`, sends rollouts as `Rollout` and calls
`learn` where the optimiser lives. TRL's GRPOTrainer is not used; docs/decisions/0043 says why.

Shape suffixes: `_B` samples, `_L` image tokens, `_K` codebook, `_H` hidden.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel, get_peft_model
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from illume_loop.errors import TrainingDivergedError
from illume_loop.hooks import OnProgress, ignore
from illume_loop.models.sequences import collate
from illume_loop.protocols import DrawsScored, ImageIds, LogProbs, Sampling
from illume_loop.settings import GrpoSettings, TrainSettings
from illume_loop.train.fitting import lora_config
from illume_loop.train.trainable import Trainable, load_trainable

MAX_GRAD_NORM = 1.0
"""The norm to which a step's gradient is cut."""

STATE_FILE, STEPS_FILE, WEIGHTS_FILE = "state.safetensors", "steps.json", "weights.safetensors"


class PolicyModel(Trainable, DrawsScored, Protocol):
    """A loaded checkpoint that can be trained and that tells the log-probabilities of what it draws."""

    def decode(self, image_ids_BL: ImageIds) -> list[Image.Image]:
        """Return the RGB images of ids."""
        ...


@dataclass(frozen=True, slots=True)
class Rollout:
    """One drawn image to learn from: its ids (L,), and their log-probabilities (L,) by the policy that drew it.

    `advantage` says how much better it was than its group.
    """

    prompt: str
    image_ids: NDArray[np.int32]
    log_probs: LogProbs
    advantage: float


@dataclass(frozen=True, slots=True)
class LearnReport:
    """The measurements of one update's learning; `kl` and `grad_norm` are those before its first step.

    `kl` is the mean KL divergence from the base per token, in nats; None if the settings leave it out, or without
    rollouts. `clipped` is the share of tokens whose ratio was clipped, over all steps. `gap` is the largest difference
    between a log-probability of the sampler and that of the policy before its first step: rounding, and staleness where
    there is any.
    """

    kl: float | None
    clipped: float
    grad_norm: float
    gap: float


def decoded_log_probs(model: Trainable, prompts: Sequence[str], ids_BL: Tensor, sampling: Sampling) -> Tensor:
    """Return the log-probability (B, L) of each image id at a decode, in nats, with a gradient in the weights.

    The decode is guidance and temperature; top-k and top-p would give ids that the policy leaves no probability.
    """
    guided = sampling.guidance_scale != 1.0
    hidden_BLH, head_KH, bias_K = _image_hidden(model, prompts, ids_BL, guided=guided)
    logits_BLK = F.linear(hidden_BLH.float(), head_KH.float(), None if bias_K is None else bias_K.float())
    if guided:
        conditional, unconditional = logits_BLK.chunk(2)
        logits_BLK = torch.lerp(unconditional, conditional, sampling.guidance_scale)
    log_probs_BLK = (logits_BLK / sampling.temperature).log_softmax(dim=-1)
    return log_probs_BLK.gather(-1, ids_BL.unsqueeze(-1)).squeeze(-1)


def _image_hidden(
    model: Trainable, prompts: Sequence[str], ids_BL: Tensor, *, guided: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the hidden states before each image id, and the rows of the head for image ids: weight and bias.

    The states are (B, L, H), or (2B, L, H) with guidance: the unconditional rows follow the conditional ones.
    """
    sequences, ids = model.sequences, ids_BL.tolist()
    rows = [sequences.draw(prompt, image) for prompt, image in zip(prompts, ids, strict=True)]
    if guided:
        rows += [sequences.draw(prompt, image, prompt_dropped=True) for prompt, image in zip(prompts, ids, strict=True)]
    batch = {name: tensor.to(model.device) for name, tensor in collate(rows, sequences.pad).items()}
    body = cast(Any, model.model).base_model
    output = body(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
    config: Any = model.model.config
    num_text_ids = int(getattr(config, "num_text_ids", config.get_text_config().vocab_size))
    before_image = batch["labels"][:, 1:] >= num_text_ids
    hidden = output.last_hidden_state[:, :-1][before_image]
    head: Any = model.model.get_output_embeddings()
    bias = getattr(head, "bias", None)
    return (
        hidden.view(len(rows), ids_BL.shape[1], -1),
        head.weight[num_text_ids:],
        None if bias is None else bias[num_text_ids:],
    )


def policy_loss(
    log_probs_BL: Tensor, old_BL: Tensor, drawn_BL: Tensor, advantages_B: Tensor, settings: GrpoSettings
) -> tuple[Tensor, Tensor]:
    """Return the loss (B, L) of each token without its KL term, and which tokens were clipped (B, L).

    `old_BL` are the log-probabilities of the policy before the update's first step, and `drawn_BL` those of the policy
    that drew. The ratio to the old policy is clipped (PPO, arXiv 1707.06347, with the asymmetric bound of DAPO, arXiv
    2503.14476). The ratio of the old policy to the one that drew weights the token, and is cut at `importance_cap`.
    """
    advantages = advantages_B.unsqueeze(1)
    ratio = (log_probs_BL - old_BL).exp()
    bounded = ratio.clamp(1.0 - settings.clip_low, 1.0 + settings.clip_high)
    gains, bounded_gains = ratio * advantages, bounded * advantages
    weight = (old_BL - drawn_BL).exp().clamp(max=settings.importance_cap)
    return -weight * torch.minimum(gains, bounded_gains), bounded_gains < gains


def kl_estimate(log_probs_BL: Tensor, reference_BL: Tensor) -> Tensor:
    """Return the k3 estimate (B, L) of the KL divergence from the reference, in nats.

    It is never negative and has no bias (Schulman 2020, "Approximating KL divergence").
    """
    difference = reference_BL - log_probs_BL
    return difference.exp() - difference - 1.0


class Policy:
    """A model that is trained by reinforcement learning, with its optimiser and the base that it is held to."""

    def __init__(
        self,
        base: Path,
        train: TrainSettings,
        settings: GrpoSettings,
        sampling: Sampling,
        seed: int,
        on_progress: OnProgress = ignore,
    ) -> None:
        """Load the checkpoint `base` as the policy and as the reference of the KL term.

        With LoRA the reference is the policy without its adapter; otherwise it is a frozen copy. `seed` fixes the first
        weights of an adapter.
        """
        self._train, self._settings, self._sampling = train, settings, sampling
        self.model = _loaded(base, seed, on_progress, every_weight=train.lora_rank == 0)
        self._base, self._seed, self._on_progress = base, seed, on_progress
        self._frozen: PolicyModel | None = None
        lora = lora_config(train)
        self._adapter = None if lora is None else cast(PeftModel, get_peft_model(self.model.model, lora))
        self.model.model.train(False)
        self._weights = {name: one for name, one in self.model.model.named_parameters() if one.requires_grad}
        self._optimizer = torch.optim.AdamW(self._weights.values(), lr=train.learning_rate, weight_decay=0.0)

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[ImageIds, LogProbs]:
        """Draw one image per (prompt, seed) at the decode; return ids and their log-probabilities, both (B, L)."""
        return self.model.sample_scored(prompts, seeds, self._sampling)

    def decode(self, image_ids_BL: ImageIds) -> list[Image.Image]:
        """Return the RGB images of ids."""
        return self.model.decode(image_ids_BL)

    def log_probs(self, prompts: Sequence[str], ids_BL: Tensor) -> Tensor:
        """Return the log-probabilities (B, L) of image ids at the decode; see `decoded_log_probs`."""
        return decoded_log_probs(self.model, prompts, ids_BL, self._sampling)

    def learn(self, rollouts: Sequence[Rollout]) -> LearnReport:
        """Take the steps of one update; without rollouts, take none.

        Raises TrainingDivergedError if the gradient is not finite.
        """
        if not rollouts:
            return LearnReport(None, 0.0, 0.0, 0.0)
        batches = [_Batch(batch, self.model.device) for batch in _cut(rollouts, self._train.batch_size)]
        num_tokens = sum(batch.ids_BL.numel() for batch in batches)
        kl = clipped = 0.0
        first_norm = 0.0
        for step in range(self._settings.steps_per_update):
            self._optimizer.zero_grad(set_to_none=True)
            for batch in batches:
                kl_sum, num_clipped = self._backward(batch, num_tokens)
                kl += kl_sum if step == 0 else 0.0
                clipped += num_clipped
                self._on_progress()
            norm = float(torch.nn.utils.clip_grad_norm_(self._weights.values(), MAX_GRAD_NORM))
            if not math.isfinite(norm):
                raise TrainingDivergedError(what="gradient", value=norm)
            first_norm = norm if step == 0 else first_norm
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return LearnReport(
            kl / num_tokens if self._settings.kl else None,
            clipped / (num_tokens * self._settings.steps_per_update),
            first_norm,
            max(batch.gap for batch in batches),
        )

    def _backward(self, batch: _Batch, num_tokens: int) -> tuple[float, int]:
        """Add the gradient of a batch's share of the loss; return its sum of KL, and its number of clipped tokens."""
        log_probs = self.log_probs(batch.prompts, batch.ids_BL)
        # At the first step the policy is still the old one, so its forward pass need not be repeated.
        old = batch.remember(log_probs)
        loss, is_clipped = policy_loss(log_probs, old, batch.drawn_BL, batch.advantages_B, self._settings)
        divergence = 0.0
        if self._settings.kl:
            estimate = kl_estimate(log_probs, self._reference(batch))
            divergence = float(estimate.detach().sum())
            loss = loss + self._settings.kl * estimate
        (loss.sum() / num_tokens).backward()
        return divergence, int(is_clipped.sum())

    @torch.no_grad()
    def _reference(self, batch: _Batch) -> Tensor:
        """Return the log-probabilities (B, L) of the base, which are computed once for each batch."""
        if batch.reference_BL is None:
            model = self.model
            without_adapter: AbstractContextManager[Any] = nullcontext()
            if self._adapter is not None:
                without_adapter = self._adapter.disable_adapter()
            else:
                model = self._frozen = self._frozen or _loaded(
                    self._base, self._seed, self._on_progress, every_weight=True
                )
                model.model.train(False)
            with without_adapter:
                batch.reference_BL = decoded_log_probs(model, batch.prompts, batch.ids_BL, self._sampling)
        return batch.reference_BL

    def save(self, folder: Path) -> None:
        """Write the trained weights and the optimiser's state to a new folder."""
        folder.mkdir(parents=True)
        tensors = {f"weight/{name}": one.detach() for name, one in self._weights.items()}
        steps: dict[str, int] = {}
        for name, one in self._weights.items():
            state = self._optimizer.state.get(one, {})
            if state:
                steps[name] = int(state["step"])
                tensors |= {f"{key}/{name}": state[key] for key in ("exp_avg", "exp_avg_sq")}
        save_file({name: one.contiguous().cpu() for name, one in tensors.items()}, folder / STATE_FILE)
        (folder / STEPS_FILE).write_text(json.dumps(steps, sort_keys=True), encoding="utf-8")

    def save_weights(self, folder: Path) -> None:
        """Write the trained weights alone to a new folder, for a process that only draws: with LoRA, the adapter."""
        folder.mkdir(parents=True)
        save_file({name: one.detach().contiguous().cpu() for name, one in self._weights.items()}, folder / WEIGHTS_FILE)

    @torch.no_grad()
    def load_weights(self, folder: Path) -> None:
        """Take over the weights that `save_weights` wrote. The caller has verified the file."""
        with safe_open(folder / WEIGHTS_FILE, framework="pt", device=str(self.model.device)) as weights:
            for name, one in self._weights.items():
                one.copy_(weights.get_tensor(name))

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Take over the state of a folder that `save` wrote. The caller has verified its files."""
        steps: dict[str, int] = json.loads((folder / STEPS_FILE).read_text(encoding="utf-8"))
        with safe_open(folder / STATE_FILE, framework="pt", device=str(self.model.device)) as state:
            for name, one in self._weights.items():
                one.copy_(state.get_tensor(f"weight/{name}"))
                if name in steps:
                    moments = {key: state.get_tensor(f"{key}/{name}") for key in ("exp_avg", "exp_avg_sq")}
                    self._optimizer.state[one] = {"step": torch.tensor(float(steps[name]))} | moments

    def publish(self, out: Path) -> None:
        """Write the policy as a complete checkpoint in float32, with LoRA merged. The policy is of no use afterwards.

        Raises TrainingDivergedError if a weight is not finite.
        """
        torch.nn.Module.to(self.model.model, device="cpu", dtype=torch.float32)
        if self._adapter is not None:
            # Merge and unload in two steps: in one step, peft unties tied embeddings if the head is wider.
            self._adapter.merge_adapter()
            self._adapter.unload()
        if not all(bool(torch.isfinite(one).all()) for one in self.model.model.parameters()):
            raise TrainingDivergedError(what="weights", value=math.nan)
        self.model.model.config.dtype = torch.float32
        self.model.save(out)


def _loaded(base: Path, seed: int, on_progress: OnProgress, *, every_weight: bool) -> PolicyModel:
    # The preflight has asked whether the model is a `DrawsScored`.
    return cast(PolicyModel, load_trainable(base, seed, on_progress, every_weight=every_weight))


class _Batch:
    """Rollouts that go through the model together, with what has been computed of them."""

    def __init__(self, rollouts: Sequence[Rollout], device: torch.device) -> None:
        self.prompts = [rollout.prompt for rollout in rollouts]
        self.ids_BL = torch.from_numpy(np.stack([rollout.image_ids for rollout in rollouts])).long().to(device)
        self.drawn_BL = torch.from_numpy(np.stack([rollout.log_probs for rollout in rollouts])).to(device)
        self.advantages_B = torch.tensor(
            [rollout.advantage for rollout in rollouts], dtype=torch.float32, device=device
        )
        self.reference_BL: Tensor | None = None
        self._old_BL: Tensor | None = None
        self.gap = 0.0

    def remember(self, log_probs_BL: Tensor) -> Tensor:
        """Return the log-probabilities of the policy before its first step: those of the first call."""
        if self._old_BL is None:
            self._old_BL = log_probs_BL.detach()
            self.gap = float((self._old_BL - self.drawn_BL).abs().max())
        return self._old_BL


def _cut(rollouts: Sequence[Rollout], size: int) -> Iterator[Sequence[Rollout]]:
    return (rollouts[start : start + size] for start in range(0, len(rollouts), size))
