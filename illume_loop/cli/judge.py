"""`illume-loop judge`: fit and show calibrations, which map a judge's readings to probabilities."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from illume_loop.cli.options import DEFAULT_RUN_DIR, AsJson, Model, RunDir, Seed
from illume_loop.cli.output import hint, print_json, print_table, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from illume_loop.cli.progress import View
    from illume_loop.judge.calibration import Calibration, Fit
    from illume_loop.judge.fitting import DrawnImage, Label, Labeller
    from illume_loop.protocols import Domain, UnifiedModel
    from illume_loop.settings import Settings

app = typer.Typer(help="Calibrate a judge, or show a calibration.", no_args_is_help=True)

Plot = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="Write a reliability plot (SVG) of the whole answer.")
]


class Labels(StrEnum):
    """The source of the labels."""

    CHECKER = "checker"
    TEACHER = "teacher"
    HUMAN = "human"


@app.command("fit")
def fit(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="File for the calibration (JSON).")],
    labels: Annotated[Labels, typer.Option("--labels", help="Source of the labels.")] = Labels.CHECKER,
    model: Model = None,
    prompts: Annotated[int, typer.Option("--prompts", min=5, max=100_000, help="Train prompts to draw.")] = 192,
    samples: Annotated[int, typer.Option("--samples", min=1, max=256, help="Images per prompt.")] = 4,
    guidance: Annotated[
        float | None,
        typer.Option(
            "--guidance", metavar="G", min=0.0, max=20.0, help="Guidance scale. Default: sampling.guidance_scale."
        ),
    ] = None,
    seed: Seed = 0,
    plot: Plot = None,
    run_dir: RunDir = DEFAULT_RUN_DIR,
    as_json: AsJson = False,
) -> None:
    """Calibrate a model as judge: it draws train prompts and judges the images; labels say which are right.

    With human labels, the model judges the reviewed samples of the run instead; it is then the run's base by default.
    """
    from illume_loop.cli.loading import BASE, load_named, open_domain_of_suites
    from illume_loop.cli.progress import open_view
    from illume_loop.cli.runs import settings_for
    from illume_loop.files import write_atomically
    from illume_loop.judge.calibration import Source
    from illume_loop.judge.fitting import calibrate, read_set

    settings = settings_for(run_dir)
    domain = open_domain_of_suites(run_dir, model)
    domain.prompts("train", prompts, seed)  # Raise for too many prompts before the model loads.
    reviewed = _reviewed(run_dir, domain) if labels is Labels.HUMAN else []
    label = _labeller(labels, domain, settings)
    # A run's calibration belongs to its base, even if another version is active when people have reviewed.
    name, sha256, judge = load_named(model or (BASE if reviewed else None), run_dir)
    scale = settings.sampling.guidance_scale if guidance is None else guidance
    with open_view() as view:
        shown = [one for one, _ in reviewed] or _draw(judge, domain, prompts, samples, seed, scale, view)
        reads = read_set(judge, domain, shown, lambda done, total: view.update("reading", done, total))
    source = Source(judge=sha256, domain=domain.name, labels=labels.value, seed=seed, guidance_scale=scale)
    calibration = calibrate(source, domain, shown, reads, [told for _, told in reviewed] or label(shown))
    write_atomically(out, calibration.canonical())
    _show(calibration, f"calibration of {name}", plot, as_json)
    hint(f"next: ILLUME_ASSESS__CALIBRATION={out} illume-loop start --run-dir calibrated-run")


@app.command("show")
def show(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Calibration, as `judge fit` wrote it. Default: the run's.")
    ] = None,
    plot: Plot = None,
    run_dir: RunDir = DEFAULT_RUN_DIR,
    as_json: AsJson = False,
) -> None:
    """Show a calibration: its quality on prompts outside the fit, for the whole answer and by criterion."""
    from illume_loop.judge.calibration import read_calibration

    if file is None:
        _show(_of_run(run_dir), f"calibration of the run in {run_dir}", plot, as_json)
    else:
        _show(read_calibration(file), f"calibration {file}", plot, as_json)


def _of_run(run_dir: Path) -> Calibration:
    from illume_loop.cli.runs import found, open_run
    from illume_loop.loop.context import calibration_in

    with open_run(run_dir) as run:
        return found("calibration of the run in", run_dir, calibration_in(run.session, run.run_id))


def _reviewed(run_dir: Path, domain: Domain) -> list[tuple[DrawnImage, Label]]:
    """Return the reviewed samples of the run with their labels. Raises TooFewLabelsError if there are none."""
    from illume_db.reviews import reviews_of_run
    from illume_loop.cli.runs import open_run
    from illume_loop.errors import TooFewLabelsError
    from illume_loop.judge.fitting import DrawnImage
    from illume_loop.judge.reviews import review_label
    from illume_loop.loop.prompts import prompt_of

    with open_run(run_dir) as run:
        rows = [row for row in reviews_of_run(run.session, run.run_id) if row.agrees is not None]
        if not rows:
            raise TooFewLabelsError(what="the judge", reason=f"{run_dir} has no reviews")
        prompts = [prompt_of(row.prompt).claim for row in rows]
        return [
            (
                DrawnImage(prompt, run.images.read(row.image_sha256)),
                review_label(bool(row.agrees), row.criteria, domain.questions(prompt)),
            )
            for row, prompt in zip(rows, prompts, strict=True)
        ]


def _draw(
    judge: UnifiedModel, domain: Domain, prompts: int, samples: int, seed: int, guidance_scale: float, view: View
) -> list[DrawnImage]:
    from illume_loop.judge.fitting import draw_set

    return draw_set(
        judge,
        domain,
        num_prompts=prompts,
        samples_per_prompt=samples,
        seed=seed,
        guidance_scale=guidance_scale,
        on_items=lambda done, total: view.update("drawing", done, total),
    )


def _labeller(labels: Labels, domain: Domain, settings: Settings) -> Labeller:
    from illume_loop.errors import NoCheckerError
    from illume_loop.judge.fitting import checker_labels, teacher_labels
    from illume_loop.judge.teacher import Teacher, fixed_budget

    if labels is Labels.CHECKER and not domain.exact:
        instead = "give --labels teacher or --labels human"
        raise NoCheckerError(domain=domain.name, what="--labels checker", instead=instead)
    if labels is Labels.TEACHER:
        return teacher_labels(domain, Teacher(settings.teacher, fixed_budget(settings.teacher.max_calls)))
    return checker_labels(domain)


def _show(calibration: Calibration, title: str, plot: Path | None, as_json: bool) -> None:
    from illume_loop.charts.reliability import reliability_plot

    if plot is not None:
        plot.write_text(reliability_plot(calibration.overall.reliability, title), encoding="utf-8")
    if as_json:
        print_json({"sha256": calibration.sha256, **calibration.model_dump(mode="json")})
        return
    fits = {"whole answer": calibration.overall, **calibration.criteria}
    columns = ("answer", "labels", "right, %", "AUC", "Brier", "ECE", "log-odds =")
    print_table(f"{title}, {calibration.sha256[:12]}", columns, (_cells(name, fit) for name, fit in fits.items()))
    for name, reason in calibration.unfitted.items():
        say(f"{name}: {reason}")


def _cells(name: str, fit: Fit) -> Sequence[str]:
    from illume_loop.charts.numbers import number, percent

    found, logistic = fit.reliability, fit.logistic
    terms = [f"{logistic.intercept:.3g}"]
    pairs = zip(logistic.coefficients, logistic.readings, strict=True)
    terms += [f"{coefficient:+.3g} {reading}" for coefficient, reading in pairs]
    shares = percent(found.share_true), number(found.auc), number(found.brier), number(found.ece)
    return name, str(found.n), *shares, " ".join(terms)
