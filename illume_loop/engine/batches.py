"""Work on many rows in batches that fit into memory; a batch that does not fit is halved, and the work goes on.

The number of rows that fit is predicted from free memory and the sizes of keys and values. On a GPU it is measured with
the first batch. It is remembered for each model. Rows are sorted, so that rows of one length and of one prefix come
together.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from illume_loop.engine.protocol import EngineModel, Prefix
from illume_loop.engine.sampler import sample_image_ids, sample_scored_ids
from illume_loop.protocols import ImageIds, LogProbs, Sampling

T = TypeVar("T")
SHARE_OF_FREE = 0.7
"""The share of free memory to plan with; the rest is for what a prediction leaves out, and for other processes."""

_ROW_SLOTS: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
"""Rows times positions that fit, for each model for which this was measured or learned from running out of memory."""


def draw_batches(
    model: EngineModel,
    prefixes: Sequence[Prefix],
    unconditional: Sequence[Prefix],
    seeds: Sequence[int],
    sampling: Sampling,
    num_tokens: int,
) -> Iterator[tuple[list[int], ImageIds]]:
    """Draw rows and yield each batch: its rows, and their codebook ids (b, L). See `sample_image_ids`."""

    def draw(rows: list[int]) -> ImageIds:
        ids = sample_image_ids(
            model,
            [prefixes[row] for row in rows],
            [unconditional[row] for row in rows],
            [seeds[row] for row in rows],
            sampling,
            num_tokens,
        )
        ids_BL: ImageIds = ids.cpu().numpy().astype(np.int32)
        model.on_progress()
        return ids_BL

    yield from in_batches(model.body, *_order(prefixes, sampling, num_tokens), draw)


def draw_scored(
    model: EngineModel,
    prefixes: Sequence[Prefix],
    unconditional: Sequence[Prefix],
    seeds: Sequence[int],
    sampling: Sampling,
    num_tokens: int,
) -> tuple[ImageIds, LogProbs]:
    """Draw rows in batches; return codebook ids and their log-probabilities, both (B, L), in the order of the rows.

    See `sample_scored_ids`.
    """

    def draw(rows: list[int]) -> tuple[Tensor, Tensor]:
        drawn = sample_scored_ids(
            model,
            [prefixes[row] for row in rows],
            [unconditional[row] for row in rows],
            [seeds[row] for row in rows],
            sampling,
            num_tokens,
        )
        model.on_progress()
        return drawn

    ids_BL = np.empty((len(prefixes), num_tokens), dtype=np.int32)
    log_probs_BL = np.empty((len(prefixes), num_tokens), dtype=np.float32)
    for rows, (ids, log_probs) in in_batches(model.body, *_order(prefixes, sampling, num_tokens), draw):
        ids_BL[rows], log_probs_BL[rows] = ids.cpu().numpy(), log_probs.cpu().numpy()
    return ids_BL, log_probs_BL


def assembled(batches: Iterator[tuple[list[int], ImageIds]], num_rows: int) -> ImageIds:
    """Return the batches of `draw_batches` as one array (B, L), in the order of the rows."""
    by_row = {row: ids_L for rows, ids_BL in batches for row, ids_L in zip(rows, ids_BL, strict=True)}
    return np.stack([by_row[row] for row in range(num_rows)])


def in_batches(
    body: nn.Module, rows: Sequence[int], num_slots: int, work: Callable[[list[int]], T]
) -> Iterator[tuple[list[int], T]]:
    """Do `work` on rows of `num_slots` positions each, in batches as even as they fit; yield rows and result.

    If a batch of one row runs out of memory, its error is raised.
    """
    start = 0
    while start < len(rows):
        left = len(rows) - start
        num_batches = -(-left // rows_that_fit(body, num_slots))
        batch = list(rows[start : start + -(-left // num_batches)])
        with _MemoryProbe(body) as gauge:
            done = _unless_out_of_memory(partial(work, batch))
        if done is None:
            if len(batch) == 1:
                work(batch)  # this raises the error with its own message
            _ROW_SLOTS[body] = max(1, len(batch) // 2) * num_slots
            continue
        gauge.remember(len(batch) * num_slots)
        yield batch, done[0]
        start += len(batch)


def rows_that_fit(body: nn.Module, num_slots: int) -> int:
    """Return how many rows of `num_slots` positions go through a body at once, at least one."""
    row_slots = _ROW_SLOTS.get(body)
    if row_slots is None:
        free = free_bytes(next(body.parameters()).device)
        row_slots = int(SHARE_OF_FREE * free / bytes_per_slot(body)) if free is not None else num_slots << 20
    return max(1, row_slots // num_slots)


def bytes_per_slot(body: nn.Module) -> int:
    """Return the predicted memory of one position of one row: keys, values, and two layers' hidden states."""
    config: Any = body.config
    weight = next(body.parameters())
    kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    numbers = 2 * config.num_hidden_layers * kv_heads * head_dim + 2 * config.hidden_size
    return int(numbers) * weight.element_size()


def free_bytes(device: torch.device) -> int | None:
    """Return the free memory of a device; None if the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return None
    fields = dict(line.split(":", 1) for line in meminfo.read_text(encoding="utf-8").splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a tensor found no room, on a GPU or in main memory."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def _unless_out_of_memory(work: Callable[[], T]) -> tuple[T] | None:
    """Return the result of `work`, or None if memory ran out.

    Memory is freed after the error is gone, because the error holds on to tensors.
    """
    try:
        return (work(),)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


class _MemoryProbe:
    """A gauge of the peak memory of a model's first batch on a GPU.

    The peak includes what a prediction leaves out.
    """

    def __init__(self, body: nn.Module) -> None:
        device = next(body.parameters()).device
        self._body, self._device = body, device
        self._measures = device.type == "cuda" and body not in _ROW_SLOTS

    def __enter__(self) -> _MemoryProbe:
        if self._measures:
            self._free = free_bytes(self._device) or 0
            self._before = torch.cuda.memory_allocated(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def remember(self, row_slots: int) -> None:
        """Remember that a batch of `row_slots` rows times positions went well, and how much memory it took."""
        if self._measures:
            taken = torch.cuda.max_memory_allocated(self._device) - self._before
            _ROW_SLOTS[self._body] = max(row_slots, int(SHARE_OF_FREE * self._free * row_slots / max(1, taken)))


def _order(prefixes: Sequence[Prefix], sampling: Sampling, num_tokens: int) -> tuple[list[int], int]:
    """Return the rows in drawing order, and the positions that one row takes."""
    order = sorted(range(len(prefixes)), key=lambda row: _place(prefixes[row]))
    num_slots = max(map(len, prefixes), default=0) + num_tokens
    return order, num_slots * (1 if sampling.guidance_scale == 1.0 else 2)


def _place(prefix: Prefix) -> tuple[int, tuple[int, ...]]:
    return len(prefix), (id(prefix),) if isinstance(prefix, Tensor) else tuple(prefix)
