"""A study's results as Markdown: the table, a table of single seeds, and every gate's decision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from textwrap import wrap

from illume_loop.ablate.results import Results, Row
from illume_loop.ablate.study import Study, flat
from illume_loop.charts.numbers import MISSING, gain, number, percent
from illume_loop.evals.statistics import SeedsEstimate

WIDTH = 120
GAINS = "Gains are differences to the run's base, in points; diversity is a share of the base's. "
INTERVALS = (
    "Brackets are 95 % intervals: where there are two, the first is over draws (paired bootstrap); the last is over "
    "seeds (Student's t), which includes what another seed would change."
)


def markdown(results: Results) -> str:
    """Return the Markdown page of a study."""
    study = results.study
    measure = study.measure
    seeds = sorted({cell.seed for cell in results.cells})
    subject = "the version in use" if study.subject == "active" else "the round's candidate, whatever the gate said"
    lines = [
        f"# {study.title}",
        "",
        *wrap(study.question, WIDTH),
        "",
        *_arms(study),
        "",
        f"    illume-loop ablate {study.name} --seeds {','.join(map(str, seeds))}",
        "",
        *wrap(
            f"Held-out: share of {measure.heldout_prompts * measure.draws:,} draws ({measure.heldout_prompts} held-out "
            f"prompts, {measure.draws} draws each) that the exact checker accepts, with noise that no gate draws. "
            f"Measured is {subject}. {GAINS if study.num_rounds else ''}{INTERVALS}",
            WIDTH,
        ),
        "",
        *_lines(*table_of(results)),
        *_failures(results),
        "",
        "## Seed by seed",
        "",
        *_by_seed(results),
        *_gates(results),
    ]
    return "\n".join(lines) + "\n"


def _arms(study: Study) -> Iterator[str]:
    for arm in study.arms:
        changed = flat(arm.settings)
        if arm.pretrain is not None:
            changed |= {f"pretrain.{key}": value for key, value in arm.pretrain.model_dump().items()}
        settings = [f"{key} = {value}" for key, value in changed.items()]
        told = "; ".join(filter(None, (arm.note, ", ".join(settings))))
        yield f"- `{arm.name}`: {told or 'the default settings'}"


def table_of(results: Results) -> tuple[list[str], list[list[str]]]:
    """Return the study's table as text: its columns, and its rows of cells."""
    study = results.study
    guidances = list(results.rows[0].heldout) if results.rows else []
    columns = ["arm"]
    if len(study.after) > 1:
        columns.append("after round")
    columns += [f"held-out, guidance {g}" for g in guidances]
    if study.num_rounds:
        columns += [f"gain, guidance {g}" for g in guidances]
    if study.baseline:
        columns += [f"against {study.baseline}, guidance {g}" for g in guidances]
    columns.append("reads")
    if study.baseline:
        columns.append(f"reads against {study.baseline}")
    columns.append("diversity")
    if study.num_rounds:
        columns += ["judge AUC", "promoted"]
    return columns, [list(_cells(row, results, guidances)) for row in results.rows]


def _cells(row: Row, results: Results, guidances: Sequence[str]) -> Iterator[str]:
    study = results.study
    yield row.arm
    if len(study.after) > 1:
        yield str(row.after)
    for guidance in guidances:
        yield percent(row.heldout[guidance].mean)
    if study.num_rounds:
        yield from (_points(row.gain[g] if row.gain else None) for g in guidances)
    if study.baseline:
        yield from (_points(row.against[g] if row.against else None) for g in guidances)
    change = f" ({_points(row.understanding_gain)})" if row.understanding_gain else ""
    yield percent(row.understanding.mean) + change
    if study.baseline:
        yield _points(row.understanding_against)
    yield _plain(row.diversity, 2 if row.gain else 3)
    if study.num_rounds:
        yield _plain(row.judge_auc, 3)
        yield f"{row.promoted} of {row.decided}" if row.decided else MISSING


def _by_seed(results: Results) -> Iterator[str]:
    guidances = list(results.rows[0].heldout) if results.rows else []
    columns = ["arm", "seed", "after round", "version", *(f"held-out, guidance {g}" for g in guidances)]
    columns += [*(f"gain, guidance {g}" for g in guidances), "reads", "diversity"]

    def cells() -> Iterator[list[str]]:
        for row in results.rows:
            for index, seed in enumerate(row.seeds):
                cell = next(cell for cell in results.cells if (cell.arm, cell.seed) == (row.arm, seed))
                gains = [gain({"mean": row.gain[g].by_seed[index]}) if row.gain else MISSING for g in guidances]
                shares = [percent(row.heldout[g].by_seed[index]) for g in guidances]
                rest = [percent(row.understanding.by_seed[index]), f"{row.diversity.by_seed[index]:.3f}"]
                yield [row.arm, str(seed), str(row.after), cell.versions[row.after], *shares, *gains, *rest]

    yield from _lines(columns, cells())


def _gates(results: Results) -> Iterator[str]:
    rounds = [(cell, row) for cell in results.cells for row in cell.rounds]
    if not rounds:
        return
    yield from ("", "## What the gates said", "")
    columns = ["arm", "seed", "round", "gain at the gate", "reads", "judge AUC", "accepted", "decision"]

    def cells() -> Iterator[list[str]]:
        for cell, row in rounds:
            reads = " → ".join(percent(row["understanding"][side]) for side in ("parent", "candidate"))
            decision = f"{row['decision'] or row['state']}: {'; '.join(row['reasons'])}"
            counts = f"{row['accepted']} of {row['samples']}"
            found = [gain(row["heldout"]["delta"]), reads, number(row["judge_auc"]), counts, decision]
            yield [cell.arm, str(cell.seed), str(row["index"]), *found]

    yield from _lines(columns, cells())


def _failures(results: Results) -> Iterator[str]:
    if results.failed:
        yield ""
        yield from (f"- **{cell.key} failed:** {cell.failed}" for cell in results.failed)


def _lines(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for cells in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _points(estimate: SeedsEstimate | None) -> str:
    """Return points with the intervals over draws and over seeds: "+6.0 [+3.0, +9.0] [+1.0, +11.0]"."""
    if estimate is None:
        return MISSING
    shown = [f"[{100 * low:+.1f}, {100 * high:+.1f}]" for low, high in filter(None, (estimate.draws, estimate.seeds))]
    return " ".join([f"{100 * estimate.mean:+.1f}", *shown])


def _plain(estimate: SeedsEstimate | None, digits: int) -> str:
    """Return a number with its interval over seeds."""
    if estimate is None:
        return MISSING
    shown = f"{estimate.mean:.{digits}f}"
    if estimate.seeds is None:
        return shown
    return f"{shown} [{estimate.seeds[0]:.{digits}f}, {estimate.seeds[1]:.{digits}f}]"
