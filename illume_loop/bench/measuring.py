"""The measuring of two ways to do the same work in turns, with a control that is one way twice.

A ratio is the median over repeats of the ratio within a repeat, in which both ways met the same machine. The control is
the ratio of two runs of our own way in each repeat. A ratio is uncertain by as much as the control strays from 1.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from illume_loop.runtime import release_freed_memory

PROBE_BYTES = 1 << 28
PROBE_SIDE = {"cpu": 1024, "cuda": 8192}
"""The side of the squares that are multiplied; a GPU is done with small ones before they keep it busy."""
PROBES = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a benchmark; rates are in `unit`, and higher is better."""

    setting: str
    ours: float
    unit: str = "images/s"
    reference: float | None = None
    ratio: float | None = None
    control: float | None = None
    limit_share: float | None = None
    memory_mib: float | None = None
    predicted_mib: float | None = None

    def as_json(self) -> dict[str, object]:
        """Return all fields, rounded to four digits."""
        return {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Compared:
    """Median seconds of both ways, our speed over the reference's, and our second run's speed over our first's."""

    ours: float
    reference: float
    ratio: float
    control: float


def compare(ours: Callable[[], object], reference: Callable[[], object], repeats: int) -> Compared:
    """Run ours, the reference and ours again, `repeats` times; the caller has warmed both up."""
    rounds = [(seconds(ours), seconds(reference), seconds(ours)) for _ in range(repeats)]
    return Compared(
        statistics.median(first for first, _, _ in rounds),
        statistics.median(other for _, other, _ in rounds),
        statistics.median(2 * other / (first + second) for first, other, second in rounds),
        statistics.median(first / second for first, _, second in rounds),
    )


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of one run, with the work that a GPU still has to finish."""
    _synchronise()
    started = time.perf_counter()
    work()
    _synchronise()
    return time.perf_counter() - started


@dataclass(frozen=True, slots=True)
class Limits:
    """The machine's limits with the present threads: bytes read, and operations of a large product, each a second."""

    bytes_per_second: float
    flops_per_second: float

    @classmethod
    def measured(cls, device: str) -> Limits:
        """Measure the limits; take the best of several probes."""
        dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
        read = torch.ones(PROBE_BYTES // 4, device=device)
        side = PROBE_SIDE["cuda" if device.startswith("cuda") else "cpu"]
        square = torch.ones(side, side, device=device, dtype=dtype)
        read_seconds = min(seconds(read.sum) for _ in range(PROBES))
        product_seconds = min(seconds(lambda: square @ square) for _ in range(PROBES))
        return cls(PROBE_BYTES / read_seconds, 2 * side**3 / product_seconds)

    def least_seconds(self, num_bytes: float, flops: float) -> float:
        """Return the least time of any program that reads so many bytes and does so many operations."""
        return max(num_bytes / self.bytes_per_second, flops / self.flops_per_second)


def peak_memory_mib(work: Callable[[], object], device: str) -> float | None:
    """Return the peak memory of `work` above what was taken before; None if the system does not say."""
    if device.startswith("cuda"):
        allocated = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return (torch.cuda.max_memory_allocated() - allocated) / 2**20
    status, forget = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not (status.is_file() and forget.is_file()):
        return None
    try:
        release_freed_memory()  # or memory that earlier runs gave back to glibc would not be counted
        forget.write_text("5", encoding="utf-8")  # this resets the peak
    except OSError:
        return None
    before = _status_mib(status, "VmRSS")
    work()
    return _status_mib(status, "VmHWM") - before


def machine(device: str, limits: dict[int, Limits]) -> dict[str, Any]:
    """Return what a result was measured on; `limits` are by number of threads."""
    import transformers

    return {
        "processor": _processor(),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "limits": {
            str(threads): {"gb_per_s": limit.bytes_per_second / 1e9, "gflop_per_s": limit.flops_per_second / 1e9}
            for threads, limit in limits.items()
        },
    }


def in_words(num_threads: int) -> str:
    """Return the number of threads as a setting's name has it."""
    return f"{num_threads} thread{'s' * (num_threads != 1)}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _status_mib(status: Path, field: str) -> float:
    line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) / 1024


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
