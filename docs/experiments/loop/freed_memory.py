"""What keeping freed memory (illume_loop/runtime.py) gains: seconds of sampling and reading with it and without.

    python docs/experiments/loop/freed_memory.py [PAIRS]

Each measurement is a process of its own, since the setting lasts for a process; they alternate, so that a busy machine
slows both alike.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from illume_loop.domains import get_domain
from illume_loop.models.registry import load_model
from illume_loop.models.shipped import shipped_base
from illume_loop.protocols import Sampling
from illume_loop.runtime import prepare
from illume_loop.settings import RuntimeSettings

IMAGES, READS = 256, 4


def measure(keep: bool) -> None:
    """Print the seconds of drawing and of reading a batch."""
    if keep:
        prepare(RuntimeSettings())
    model = load_model(shipped_base())
    prompts = [prompt.text for prompt in get_domain("shapes").prompts("train", IMAGES, 0)]
    began = time.perf_counter()
    images = model.decode(model.sample(prompts, list(range(IMAGES)), Sampling(1.5)))
    drawn = time.perf_counter()
    for _ in range(READS):
        model.log_likelihood(images, prompts)
    print(drawn - began, (time.perf_counter() - drawn) / READS)


def main(pairs: int) -> None:
    """Alternate, and print medians with their ratio."""
    seconds: dict[str, list[tuple[float, float]]] = {"returned": [], "kept": []}
    for _ in range(pairs):
        for name, found in seconds.items():
            line = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=True).stdout
            draw, read = map(float, line.split())
            found.append((draw, read))
    for index, what in enumerate(("sampling", "reading")):
        returned, kept = (statistics.median(pair[index] for pair in seconds[name]) for name in seconds)
        print(
            f"{what} {IMAGES} images: {returned:.2f} s returned, {kept:.2f} s kept, {returned / kept:.2f} times as fast"
        )


if __name__ == "__main__":
    argument = sys.argv[1] if len(sys.argv) > 1 else "5"
    if argument in ("returned", "kept"):
        measure(argument == "kept")
    else:
        main(int(argument))
