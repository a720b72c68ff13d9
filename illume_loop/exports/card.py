"""The dataset card of an export: its content, its origin, and the code that loads it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from datasets import Features, Image, List, Value

from illume_loop.charts.numbers import gain, interval
from illume_loop.exports.formats import Format
from illume_loop.exports.tables import TABLES

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
LARGEST = "1M<n<10M"


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of the rows: the run's row, its rounds as in `rounds ls`, and sentences on what was left out."""

    run: Mapping[str, Any]
    rounds: Sequence[Mapping[str, Any]]
    limits: Sequence[str]


def card(origin: Origin, format_: Format, num_rows: Mapping[str, int]) -> str:
    """Return the card as Markdown. `num_rows` gives each table's rows; a table without rows has no files."""
    held = {name: count for name, count in num_rows.items() if count}
    return "\n".join([*_front(origin, format_, held), *_body(origin, format_, num_rows)]) + "\n"


def _front(origin: Origin, format_: Format, held: Mapping[str, int]) -> Iterator[str]:
    yield "---"
    yield f"pretty_name: {json.dumps('illume-loop run ' + origin.run['name'])}"
    yield "task_categories: [text-to-image, image-to-text, reinforcement-learning]"
    most = max(held.values(), default=0)
    yield f"size_categories: ['{next((told for size, told in SIZES if most < size), LARGEST)}']"
    yield "tags: [illume-loop, synthetic, preference, trl]"
    if held and format_.name != "datasets":
        yield "configs:"
        for index, name in enumerate(held):
            yield f"- config_name: {name}"
            yield f"  data_files: '{name}/*{format_.ending}'"
            if index == 0:
                yield "  default: true"
    if held and format_.name == "jsonl":
        # Other formats carry their types. In JSON lines, the type of a column that begins empty would be a guess.
        infos = [{"config_name": name, "features": _columns_in_lines(TABLES[name].features)} for name in held]
        yield yaml.safe_dump({"dataset_info": infos}, sort_keys=False).rstrip()
    yield "---"


def _columns_in_lines(features: Features) -> list[dict[str, Any]]:
    """Return the columns as the card lists them; an image is a string, because JSON lines hold its path."""
    found: list[dict[str, Any]] = Features({name: _lined(column) for name, column in features.items()})._to_yaml_list()
    return found


def _lined(column: Any) -> Any:
    if isinstance(column, Image):
        return Value("string")
    return List(_lined(column.feature)) if isinstance(column, List) else column


def _body(origin: Origin, format_: Format, num_rows: Mapping[str, int]) -> Iterator[str]:
    run, settings = origin.run, origin.run["settings"]
    yield from ("", f"# Run {run['name']} of illume-loop", "")
    yield (
        f"Images that the model `{settings['run']['base']}` and its successors drew for prompts of the domain "
        f"`{settings['run']['domain']}`, the judges' assessments, and the training rows of the successors."
    )
    yield "Models and programs made all of it, except the rows whose `assessor` is `human`, and the table `reviews`."
    yield from ("", "| table | rows | content |", "| --- | --- | --- |")
    for name, count in num_rows.items():
        yield f"| `{name}` | {count:,} | {TABLES[name].told} |"
    yield from ("", *(f"- {limit}" for limit in origin.limits))
    held = [name for name, count in num_rows.items() if count]
    if held:
        read_back = format_.loaded.format(path="PATH", table=held[0])
        yield from ("", "```python", "import datasets", "", read_back, "```")
    yield from ("", "## The run", "", f"- key `{run['key']}`, seed {run['seed']}, begun {run['created_at']}")
    yield f"- judge: `{settings['assess']['assessor']}`, reading `{settings['assess']['reading']}`"
    sampling = settings["sampling"]
    yield (
        f"- drawn with guidance {sampling['guidance_scale']:g}, temperature {sampling['temperature']:g}, "
        f"top-k {sampling['top_k']}"
    )
    if origin.rounds:
        yield from ("", "| round | parent | candidate | gain, points | samples | accepted | decision |")
        yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row in origin.rounds:
        heldout = row["heldout"]
        yield (
            f"| {row['index']} | {row['parent']} {interval(heldout['parent'])} | {row['candidate'] or '-'} "
            f"{interval(heldout['candidate'])} | {gain(heldout['delta'])} | {row['samples']} | {row['accepted']} "
            f"| {row['decision'] or row['state']} |"
        )
