"""Scoring of texts by likelihood: several texts after one prefix, such as an image, which goes through the model once.

Invariants:

- A branch sees its prefix and itself, never another branch, so its value is the one that it has alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache

from illume_loop.engine.batches import in_batches
from illume_loop.engine.cache import as_argument
from illume_loop.engine.prefixes import PrefixBatch, batch_prefixes
from illume_loop.engine.protocol import EngineModel, Prefix
from illume_loop.protocols import Scores

LOGIT_ROWS = 1024
"""Positions whose logits over the whole text vocabulary are held at a time."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A branch whose value is the log-probability, in nats, of its last `num_scored` ids, at least one."""

    ids: Sequence[int]
    num_scored: int

    @property
    def inputs(self) -> Sequence[int]:
        """The ids that go through the model: all but the last, as nothing is asked after it."""
        return self.ids[:-1]


@dataclass(frozen=True, slots=True)
class LogOddsBranch:
    """A branch whose value is log p(first) - log p(second) for the id after it.

    Each of the two answers may have several ids that spell it.
    """

    ids: Sequence[int]
    answers: tuple[Sequence[int], Sequence[int]]

    @property
    def inputs(self) -> Sequence[int]:
        """The ids that go through the model."""
        return self.ids


Branch = Scored | LogOddsBranch


@torch.inference_mode()
def score_branches(
    model: EngineModel, prefixes: Sequence[Prefix], branches: Sequence[Sequence[Branch]]
) -> list[Scores]:
    """Return the value of each branch after its prefix, one array for each prefix.

    All branches of a prefix stand in one row, behind the prefix's keys and values, and are masked from each other.
    Logits are computed only at positions that are scored. Rows are cut into batches that fit into memory.
    """
    if not any(branches):
        return [np.zeros(0) for _ in branches]
    num_asked = max(sum(len(branch.inputs) for branch in of_row) for of_row in branches)
    values: dict[int, Scores] = {}
    for rows, of_rows in in_batches(
        model.body,
        range(len(branches)),
        max(map(len, prefixes)) + num_asked,
        lambda rows: _scored(model, [prefixes[row] for row in rows], [branches[row] for row in rows]),
    ):
        values.update(zip(rows, of_rows, strict=True))
        model.on_progress()
    return [values[row] for row in range(len(branches))]


def _scored(model: EngineModel, prefixes: Sequence[Prefix], branches: Sequence[Sequence[Branch]]) -> list[Scores]:
    states = _states(model, batch_prefixes(model, prefixes), branches)
    places = [*_places(branches)]
    values = np.zeros(len(places))
    scored = {at: (row, slot, told) for at, (row, slot, told) in enumerate(places) if isinstance(told, Scored)}
    if scored:
        values[list(scored)] = _log_probs(model, states, [*scored.values()])
    asked = {at: (row, slot, told) for at, (row, slot, told) in enumerate(places) if isinstance(told, LogOddsBranch)}
    if asked:
        values[list(asked)] = _log_odds(model, states, [*asked.values()])
    return np.split(values, np.cumsum([len(of_row) for of_row in branches])[:-1])


def _states(model: EngineModel, batch: PrefixBatch, branches: Sequence[Sequence[Branch]]) -> Tensor:
    """Return hidden states (N, 1 + Q, H): after the prefix, and after each id of the row's branches in turn."""
    cache = DynamicCache()
    hidden: Tensor = model.body(
        inputs_embeds=batch.embeds,
        attention_mask=batch.mask,
        position_ids=batch.positions,
        use_cache=True,
        **as_argument(model.body, cache),
    ).last_hidden_state
    after_prefix = hidden[batch.row_of, -1:]
    packed = [[i for branch in of_row for i in branch.inputs] for of_row in branches]
    length = max(map(len, packed))
    if length == 0:
        return after_prefix
    device = hidden.device
    if len(batch.row_of) != len(batch.embeds):
        cache.batch_select_indices(batch.row_of)
    trunk_mask = batch.mask[batch.row_of].bool()
    # The padding of a row is branch -1. It sees itself, so that no attention is over nothing.
    owner = torch.tensor([_padded(_owners(of_row), length, -1) for of_row in branches], device=device)
    offset = torch.tensor([_padded(_offsets(of_row), length, 0) for of_row in branches], device=device)
    own = (owner[:, :, None] == owner[:, None, :]) & torch.ones(length, length, dtype=torch.bool, device=device).tril()
    seen = torch.cat([trunk_mask[:, None, :].expand(-1, length, -1), own], dim=-1)
    mask = torch.zeros(seen.shape, dtype=hidden.dtype, device=device)
    mask.masked_fill_(~seen, torch.finfo(hidden.dtype).min)
    ids = torch.tensor([_padded(row, length, 0) for row in packed], device=device)
    after_branches: Tensor = model.body(
        inputs_embeds=model.embed_text(ids),
        attention_mask=mask[:, None],
        position_ids=trunk_mask.sum(1, keepdim=True) + offset,
        use_cache=True,
        **as_argument(model.body, cache),
    ).last_hidden_state
    return torch.cat([after_prefix, after_branches], dim=1)


def _places(branches: Sequence[Sequence[Branch]]) -> Iterator[tuple[int, int, Branch]]:
    """Yield (row, slot, branch); `slot` is the number of the row's states before the branch's own."""
    for row, of_row in enumerate(branches):
        slot = 0
        for branch in of_row:
            yield row, slot, branch
            slot += len(branch.inputs)


def _log_probs(model: EngineModel, states: Tensor, places: Sequence[tuple[int, int, Scored]]) -> Scores:
    """Return the sum of log p over the scored ids of each place."""
    rows: list[int] = []
    slots: list[int] = []
    targets: list[int] = []
    for row, slot, branch in places:
        first = len(branch.ids) - branch.num_scored
        for at in range(first, len(branch.ids)):
            rows.append(row)
            slots.append(slot + at if at else 0)
            targets.append(branch.ids[at])
    target = torch.tensor(targets, device=states.device)
    picked = states[torch.tensor(rows, device=states.device), torch.tensor(slots, device=states.device)]
    losses = [
        F.cross_entropy(model.text_logits(some).float(), of_some, reduction="none")
        for some, of_some in zip(picked.split(LOGIT_ROWS), target.split(LOGIT_ROWS), strict=True)
    ]
    ends = np.cumsum([branch.num_scored for *_, branch in places])[:-1]
    parts = np.split(-torch.cat(losses).double().cpu().numpy(), ends)
    return np.array([part.sum() for part in parts])


def _log_odds(model: EngineModel, states: Tensor, places: Sequence[tuple[int, int, LogOddsBranch]]) -> Scores:
    """Return log p(first answer) - log p(second answer) after each place; all places have the same answers."""
    first, second = places[0][2].answers
    rows = torch.tensor([row for row, *_ in places], device=states.device)
    slots = torch.tensor([slot + len(branch.ids) if branch.ids else 0 for _, slot, branch in places])
    logits = model.text_logits(states[rows, slots.to(states.device)], [*first, *second]).float()
    log_odds = logits[:, : len(first)].logsumexp(-1) - logits[:, len(first) :].logsumexp(-1)
    values: Scores = log_odds.double().cpu().numpy()
    return values


def _owners(of_row: Sequence[Branch]) -> list[int]:
    return [number for number, branch in enumerate(of_row) for _ in branch.inputs]


def _offsets(of_row: Sequence[Branch]) -> list[int]:
    return [offset for branch in of_row for offset in range(len(branch.inputs))]


def _padded(row: list[int], length: int, filling: int) -> list[int]:
    return row + [filling] * (length - len(row))
