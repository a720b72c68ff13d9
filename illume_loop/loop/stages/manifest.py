"""Write the manifest of a round. Its rows come from samples, preferences, assessments and replayed real pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy.orm import Session

from illume_db.curation import ExampleRow, SampleRow
from illume_db.manifests import NewExample, add_manifest
from illume_db.tables import Round
from illume_db.units import NewUnit, add_units
from illume_loop.errors import HeldOutError
from illume_loop.loop.canonical import check_splits, ids_sha256, manifest_sha256
from illume_loop.loop.context import RunContext
from illume_loop.loop.curated import Curated, Preference
from illume_loop.loop.moves import move
from illume_loop.loop.states import RoundState
from illume_loop.loop.unit_inputs import real_seed
from illume_loop.protocols import RealPair
from illume_loop.settings import CurateSettings, Settings


def manifest_rows(
    accepted: Sequence[SampleRow],
    pairs: Sequence[RealPair],
    settings: CurateSettings,
    preferences: Sequence[Preference] = (),
    assessments: Sequence[ExampleRow] = (),
) -> list[ExampleRow]:
    """Return the rows of a manifest, in this order:

    1. Preferences.
    2. Accepted samples to draw or to edit, without those that a preference chose.
    3. Accepted samples to read, if `self_captions` is on.
    4. Assessments.
    5. Replayed pairs to read, then replayed pairs to draw.
    """
    chosen_ids = {chosen.sample_id for chosen, _ in preferences}
    rows = [ExampleRow("pair", chosen.prompt.text, None, chosen, rejected) for chosen, rejected in preferences]
    rows += [
        ExampleRow("edit" if sample.prompt.source_sha256 else "draw", sample.prompt.text, None, sample)
        for sample in accepted
        if sample.sample_id not in chosen_ids
    ]
    if settings.self_captions:
        rows += [ExampleRow("read", sample.prompt.text, None, sample) for sample in accepted]
    rows += assessments
    num_read = round(settings.caption_share * len(pairs))
    return rows + [
        ExampleRow("read" if index < num_read else "draw", pair.caption, index, None)
        for index, pair in enumerate(pairs)
    ]


def new_examples(rows: Sequence[ExampleRow]) -> list[NewExample]:
    """Return the rows as the database stores them."""
    return [_new_example(row) for row in rows]


def _new_example(row: ExampleRow) -> NewExample:
    sample, rejected = row.sample, row.rejected
    if sample is None:
        return NewExample(row.kind, row.text, real_index=row.real_index)
    of_sample = NewExample(
        row.kind, row.text, sample.sample_id, sample.prompt.id, ids_sha256(sample.image_ids), answer=row.answer
    )
    if rejected is None:
        return of_sample
    return replace(of_sample, rejected_id=rejected.sample_id, rejected_sha256=ids_sha256(rejected.image_ids))


def write_manifest(
    context: RunContext, session: Session, round_: Round, curated: Curated, assessments: Sequence[ExampleRow]
) -> bool:
    """Store the manifest over all samples that were ever accepted, and plan the training.

    If there is nothing to learn from, or a row is held out, it fails the round and returns False.
    """
    settings = context.settings
    union, values = curated.earlier + curated.accepted, curated.values
    lacking = _lacking(settings, curated.counts, union=union, preferences=curated.preferences, assessments=assessments)
    if lacking is not None:
        move(context, session, round_, RoundState.FAILED, error=lacking, **values)
        return False
    pairs = context.domain.real_pairs(settings.curate.real_rows, real_seed(settings.run.seed, round_.index))
    rows = manifest_rows(union, pairs, settings.curate, curated.preferences, assessments)
    try:
        check_splits(rows, context.domain.split_of, round_.index)
    except HeldOutError as error:
        move(context, session, round_, RoundState.FAILED, error=str(error), **values)
        return False
    add_manifest(
        session, round_.id, manifest_sha256(rows), new_examples(rows), at=context.clock(), counts=curated.counts
    )
    add_units(session, round_.id, [NewUnit("train", "train", {})])
    move(context, session, round_, RoundState.TRAINING, **values)
    return True


def _lacking(
    settings: Settings,
    counts: Mapping[str, int],
    *,
    union: Sequence[object],
    preferences: Sequence[object],
    assessments: Sequence[object],
) -> str | None:
    """Return which rows the objective lacks and how to get them; None if it lacks none."""
    if not union:
        return (
            "no sample was accepted in this or an earlier round; lower curate.margin or curate.min_score, or raise "
            "samples_per_prompt"
        )
    if settings.train.learns_from_pairs and not preferences:
        return (
            f"no clean pair in this or an earlier round ({counts['ambiguous']} ambiguous, {counts['ties']} ties); "
            "lower curate.pair_margin or raise samples_per_prompt"
        )
    if settings.train.learns_assessments and not assessments:
        return (
            f"no assessment of this or an earlier round can be learned ({counts['not_critiqued']} samples without a "
            f"critique, {counts['contradicted']} whose critique contradicts the score); see `samples show`"
        )
    return None
