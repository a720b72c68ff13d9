"""`illume-loop prompts`: import prompt sets from files of benchmarks or your own, and list them."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from illume_loop.cli.options import DEFAULT_RUN_DIR, AsJson, RunDir
from illume_loop.cli.output import hint, print_json, print_table, say

if TYPE_CHECKING:
    from illume_loop.domains.text.prompt_set import LostPrompt, PromptSet
    from illume_loop.protocols import Prompt, Split

app = typer.Typer(help="Import prompt files into a prompt set, or count the prompts of a set.", no_args_is_help=True)


class Format(StrEnum):
    """The format of a prompt file."""

    AUTO = "auto"
    GENEVAL = "geneval"
    T2I_COMPBENCH = "t2i-compbench"
    DPG = "dpg"
    PARTIPROMPTS = "partiprompts"
    TEXT = "text"
    JSONL = "jsonl"
    CSV = "csv"
    TSV = "tsv"
    JSON = "json"
    YAML = "yaml"
    PARQUET = "parquet"


class SplitName(StrEnum):
    """The split that prompts belong to."""

    TRAIN = "train"
    HELDOUT = "heldout"
    PROBE = "probe"


@app.command("import")
def import_prompts(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Prompt files, or DPG-Bench's folder.")],
    split: Annotated[
        SplitName | None, typer.Option("--split", help="Split of the prompts. Default: the split in each JSON line.")
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="Format of the files; auto detects it.")] = Format.AUTO,
    category: Annotated[
        str | None, typer.Option("--category", metavar="NAME", help="Category of all prompts. Default: from the file.")
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="SET", help="Prompt set (JSON lines) to add to.")] = Path(
        "prompts.jsonl"
    ),
    column: Annotated[
        str | None,
        typer.Option(
            "--column", metavar="NAME", help="Column or key of the prompts. Default: prompt, text or caption."
        ),
    ] = None,
    category_column: Annotated[
        str | None,
        typer.Option("--category-column", metavar="NAME", help="Column or key of the categories. Default: category."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add the prompts of FILE... to a prompt set; a run uses the set through the setting run.prompts.

    A held-out prompt is never added to the train split; such prompts are listed.
    """
    from dataclasses import asdict

    from illume_loop.domains.text.detecting import detected
    from illume_loop.domains.text.formats import Source, read_prompts
    from illume_loop.domains.text.prompt_set import PromptSet, merged, read_prompt_set, write_prompt_set

    prompts = read_prompt_set(out) if out.exists() else PromptSet()
    kinds = [detected(path) if format_ is Format.AUTO else format_.value for path in files]
    sources = [Source(path, kind, category, column, category_column) for path, kind in zip(files, kinds, strict=True)]
    found = [(source, read_prompts(source)) for source in sources]
    num_added = num_known = 0
    kept_out: list[LostPrompt] = []
    for source, of_source in found:
        for name, of_split in _by_split(of_source, split, source.path):
            step = merged(prompts, name, of_split)
            prompts, num_added, num_known = step.prompts, num_added + step.num_added, num_known + step.num_known
            kept_out += step.kept_out
    write_prompt_set(out, prompts)
    if as_json:
        files_read = [{"path": str(s.path), "format": s.format, "prompts": len(read)} for s, read in found]
        told = [asdict(one) for one in kept_out]
        counts = {"added": num_added, "known": num_known, "kept_out": told, "counts": _rows(prompts)}
        print_json({"set": str(out), "files": files_read, **counts})
        return
    for source, read in found:
        say(f"{source.path}: {source.format}, {len(read)} prompts")
    for one in kept_out:
        say(f"not added to {one.split}: '{one.text}', because {one.other_split} has '{one.other_text}'")
    say(f"{out}: {num_added} added, {num_known} already there, {len(kept_out)} not added")
    _print_counts(str(out), prompts)
    hint(f"next: ILLUME_RUN__DOMAIN=text ILLUME_RUN__PROMPTS={out} illume-loop start --run-dir NEW")


@app.command("ls")
def ls(
    prompt_set: Annotated[
        Path | None, typer.Argument(metavar="SET", help="Prompt set. Default: the prompts of the run.")
    ] = None,
    run_dir: RunDir = DEFAULT_RUN_DIR,
    as_json: AsJson = False,
) -> None:
    """Count the prompts of a set or a run by split and category.

    A run in a domain with its own prompts lists only prompts that it has drawn.
    """
    from illume_loop.cli.runs import open_run
    from illume_loop.domains.text.prompt_set import read_prompt_set
    from illume_loop.loop.prompts import kept_prompts

    if prompt_set is not None:
        name, prompts = str(prompt_set), read_prompt_set(prompt_set)
    else:
        with open_run(run_dir) as run:
            name, prompts = f"the run in {run_dir}", kept_prompts(run.session, run.run_id)
    if as_json:
        print_json(_rows(prompts))
    else:
        _print_counts(name, prompts)


def _by_split(
    found: Iterable[tuple[Split | None, Prompt]], wanted: SplitName | None, path: Path
) -> Iterable[tuple[Split, list[Prompt]]]:
    """Group the prompts by the split of the option or else of their line. Raises UsageError if neither gives one."""
    from illume_loop.errors import UsageError

    of_split: dict[Split, list[Prompt]] = {}
    for own, prompt in found:
        name = wanted.value if wanted is not None else own
        if name is None:
            raise UsageError(f"{path} does not say the split of its prompts; give --split train, heldout or probe")
        of_split.setdefault(name, []).append(prompt)
    return of_split.items()


def _rows(prompts: PromptSet) -> list[dict[str, Any]]:
    keys = ("split", "category", "prompts", "with_spec")
    return [dict(zip(keys, row, strict=True)) for row in prompts.counts()]


def _print_counts(name: str, prompts: PromptSet) -> None:
    cells = ([str(cell) for cell in row] for row in prompts.counts())
    print_table(f"prompts of {name}", ("split", "category", "prompts", "with questions"), cells)
