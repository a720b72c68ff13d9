"""Reading: a branch is worth what it is worth alone, and its prefix goes through once for all."""

from __future__ import annotations

import pytest
import torch

from illume_loop.engine.scorer import Branch, LogOddsBranch, Scored, score_branches
from tests.unit.engine.conftest import SmallModel

YES, NO = [4, 14], [5]


def alone(model: SmallModel, prefix: torch.Tensor, branch: Branch) -> float:
    """The value from one forward pass over prefix and branch."""
    embeds = torch.cat([prefix, model.embed_text(torch.tensor(branch.ids, dtype=torch.long))])
    hidden = model.body(inputs_embeds=embeds.unsqueeze(0)).last_hidden_state[0]
    log_probs = torch.log_softmax(model.text_logits(hidden), dim=-1)
    if isinstance(branch, LogOddsBranch):
        first, second = (log_probs[-1, answers].logsumexp(-1) for answers in branch.answers)
        return float(first - second)
    start = len(prefix) + len(branch.ids) - branch.num_scored
    return sum(float(log_probs[start + i - 1, branch.ids[i - branch.num_scored]]) for i in range(branch.num_scored))


@pytest.fixture
def branches() -> list[list[Branch]]:
    return [
        [
            Scored([6, 7, 8, 2], 4),
            LogOddsBranch([9, 10, 11], (YES, NO)),
            LogOddsBranch([12], (YES, NO)),
            Scored([6, 7, 8, 2], 2),
        ],
        [],
        [LogOddsBranch([9, 9], (YES, NO)), Scored([2], 1)],
        [LogOddsBranch([], (YES, NO))],
    ]


@torch.inference_mode()
def test_every_branch_has_the_value_it_has_alone(branches: list[list[Branch]]) -> None:
    model = SmallModel()
    prefixes = [torch.randn(5, 48), torch.randn(3, 48), torch.randn(7, 48), torch.randn(7, 48)]
    values = score_branches(model, prefixes, branches)
    assert [len(of_prefix) for of_prefix in values] == [4, 0, 2, 1]
    for prefix, of_prefix, asked in zip(prefixes, values, branches, strict=True):
        for value, branch in zip(of_prefix, asked, strict=True):
            assert value == pytest.approx(alone(model, prefix, branch), abs=2e-4)


def test_a_prefix_goes_through_once_for_all_its_branches(branches: list[list[Branch]]) -> None:
    model = SmallModel()
    image = torch.randn(6, 48)
    score_branches(model, [image, [1, 3], image, [1, 3]], branches)
    assert model.shapes == [(2, 6), (4, 10)], "two prefixes, and then four rows as long as the most that is asked"


def test_what_does_not_fit_is_read_in_parts(branches: list[list[Branch]], monkeypatch: pytest.MonkeyPatch) -> None:
    model = SmallModel()
    prefixes = [[1, 3], [1, 7, 3], [1, 3], [1, 9, 9, 3]]
    together = score_branches(model, prefixes, branches)
    monkeypatch.setattr("illume_loop.engine.batches.rows_that_fit", lambda body, num_slots: 1)
    model.shapes.clear()
    parts = score_branches(model, prefixes, branches)
    assert [rows for rows, _ in model.shapes if rows > 1] == []
    for whole, part in zip(together, parts, strict=True):
        assert whole == pytest.approx(part, abs=1e-4)


def test_nothing_asked_costs_nothing(small_model: SmallModel) -> None:
    assert [len(values) for values in score_branches(small_model, [[1], [1]], [[], []])] == [0, 0]
    assert small_model.shapes == []
