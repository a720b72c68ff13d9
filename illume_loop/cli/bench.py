"""`illume-loop bench`: the engine's speed, compared with transformers and with the machine's limits."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from illume_loop.cli.options import AsJson
from illume_loop.cli.output import hint, print_json, print_table

if TYPE_CHECKING:
    from illume_loop.bench.measuring import Limits, Row
    from illume_loop.bench.sizes import Size
    from illume_loop.models.illume.sizes import Size as IllumeSize


class Name(StrEnum):
    """The benchmark to run."""

    SAMPLING = "sampling"
    ASSESS = "assess"
    ROUND = "round"
    TRAIN = "train"


def bench(
    name: Annotated[Name, typer.Argument(metavar="NAME", help="sampling, assess, round or train.")],
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="SIZE",
            help="Size of the random Janus: tiny, small (default) or janus-pro-1b. With train, of the random ILLUME: "
            "tiny (default), illume-0.5b or illume-7b.",
        ),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", metavar="N", min=1, max=4096, help="Images or rows per batch.")] = 8,
    ids: Annotated[
        int | None, typer.Option("--ids", metavar="N", min=1, max=4096, help="Ids per image. Default: the size's.")
    ] = None,
    prompt_ids: Annotated[int, typer.Option("--prompt-ids", metavar="N", min=3, max=2048, help="Ids per prompt.")] = 22,
    questions: Annotated[int, typer.Option("--questions", metavar="N", min=1, max=64, help="Questions per image.")] = 6,
    repeats: Annotated[int, typer.Option("--repeats", metavar="N", min=1, max=100, help="Runs of each variant.")] = 3,
    threads: Annotated[
        str, typer.Option("--threads", metavar="N,...", help="Numbers of CPU threads; one row each.")
    ] = "1,2",
    device: Annotated[str, typer.Option("--device", metavar="DEVICE", help="Device, such as cpu or cuda.")] = "cpu",
    grow: Annotated[bool, typer.Option("--grow", help="With sampling: measure how time and memory grow.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare the engine with transformers on the same random weights, in alternation and with a control."""
    from illume_loop.errors import UsageError
    from illume_loop.runtime import prepare
    from illume_loop.settings import RuntimeSettings

    counts = _counts(threads)
    prepare(RuntimeSettings(threads=max(counts)))
    from illume_loop.bench.measuring import machine

    if grow and name is not Name.SAMPLING:
        raise UsageError(f"--grow works with sampling only, not with {name.value}")
    if ids is not None and name is Name.TRAIN:
        raise UsageError("--ids is for random Janus models, not for train")
    rows: list[Row] = []
    limits: dict[int, Limits] = {}
    common = {"batch": batch, "repeats": repeats, "threads": counts}
    hint(f"illume-loop: bench {name.value} on {device}; {repeats} repeats of each variant may take minutes")
    if grow:
        from illume_loop.bench.sampling import bench_growth

        rows = list(bench_growth(_sized(size or "small", ids), device, prompt_ids=prompt_ids, num_threads=max(counts)))
    else:
        if name is Name.TRAIN:
            from illume_loop.bench.training import bench_train

            measured = bench_train(_illume(size or "tiny"), device, **common)  # type: ignore[arg-type]
        else:
            measured = _measured(name, _sized(size or "small", ids), device, prompt_ids, questions, common)
        for row, num_threads, limit in measured:
            rows.append(row)
            limits[num_threads] = limit
    found = {"name": name.value, "rows": [row.as_json() for row in rows], "machine": machine(device, limits)}
    if as_json:
        print_json(found)
    else:
        _print(name.value, rows)


def _measured(
    name: Name, size: Size, device: str, prompt_ids: int, questions: int, common: dict[str, object]
) -> Iterator[tuple[Row, int, Limits]]:
    if name is Name.SAMPLING:
        from illume_loop.bench.sampling import bench_sampling

        return bench_sampling(size, device, prompt_ids=prompt_ids, **common)  # type: ignore[arg-type]
    if name is Name.ASSESS:
        from illume_loop.bench.assessing import bench_assess

        return bench_assess(size, device, num_questions=questions, **common)  # type: ignore[arg-type]
    from illume_loop.bench.rounds import bench_round

    return bench_round(size, device, prompt_ids=prompt_ids, num_questions=questions, **common)  # type: ignore[arg-type]


def _sized(name: str, ids: int | None) -> Size:
    from dataclasses import replace

    from illume_loop.bench.sizes import SIZES
    from illume_loop.errors import UsageError

    if name not in SIZES:
        raise UsageError(f"unknown size {name}; choose one of {', '.join(SIZES)}")
    return SIZES[name] if ids is None else replace(SIZES[name], ids=ids)


def _illume(name: str) -> IllumeSize:
    from illume_loop.bench.training import TINY
    from illume_loop.models.illume.sizes import named_size

    return TINY if name == "tiny" else named_size(name)


def _counts(text: str) -> list[int]:
    from illume_loop.errors import UsageError

    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise UsageError(f"--threads {text} is not a list of numbers from 1 on; write it like 1,2")
    return counts


def _print(name: str, rows: list[Row]) -> None:
    def cell(value: float | None, form: str = ".3g") -> str | None:
        return None if value is None else format(value, form)

    print_table(
        f"bench {name}",
        (
            "setting",
            "ours",
            "all logits" if name == "train" else "transformers",
            "ratio",
            "ours/ours",
            "of the limit",
            "MiB",
            "predicted",
        ),
        [
            (
                row.setting,
                f"{row.ours:.3g} {row.unit}",
                cell(row.reference),
                cell(row.ratio, ".2f"),
                cell(row.control, ".2f"),
                cell(row.limit_share, ".0%"),
                cell(row.memory_mib, ".0f"),
                cell(row.predicted_mib, ".0f"),
            )
            for row in rows
        ],
    )
