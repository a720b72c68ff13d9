"""Draw the images of a unit and store them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from illume_db.leases import Lease
from illume_db.prompts import PromptRow
from illume_db.rounds import round_of
from illume_db.samples import NewSample, add_samples
from illume_db.sessions import transaction
from illume_db.versions import version_of
from illume_loop.engine.drawing import draw_images
from illume_loop.loop.context import RunContext
from illume_loop.loop.unit_inputs import Effect, OnItems, decode_of, rows_of_unit, sample_seed
from illume_loop.protocols import ImageIds, Sampling, UnifiedModel
from illume_loop.telemetry.tally import TALLY


def sample(context: RunContext, lease: Lease, on_items: OnItems) -> Effect:
    """Draw the rows of a unit, and store their images. The version that draws was fixed when the round was planned."""
    settings = context.settings.sampling
    with transaction(context.engine) as session:
        round_ = round_of(session, lease.round_id)
        version = version_of(session, round_.drawing_version_id)
        rows = rows_of_unit(session, lease, settings.samples_per_prompt)
    model = context.models.take(version.sha256)
    seeds = [sample_seed(context.settings.run.seed, round_.index, prompt.text, index) for prompt, index in rows]
    decode = decode_of(settings)
    ids_BL, images, names = _drawn(context, model, [prompt for prompt, _ in rows], seeds, decode, on_items)
    TALLY.drew(len(ids_BL), ids_BL.size)
    context.fresh_images.update(zip(names, images, strict=True))
    drawn = [
        NewSample(prompt.id, index, seed, ids_L, name)
        for (prompt, index), seed, ids_L, name in zip(rows, seeds, ids_BL, names, strict=True)
    ]
    return lambda session: add_samples(
        session, lease.round_id, version.id, drawn, at=context.clock(), staleness=round_.staleness
    )


def _drawn(
    context: RunContext,
    model: UnifiedModel,
    prompts: Sequence[PromptRow],
    seeds: Sequence[int],
    sampling: Sampling,
    on_items: OnItems,
) -> tuple[ImageIds, list[Image.Image], list[str]]:
    """Return the ids (B, L), the image and the name of the image of each prompt.

    The images of edits are made from their source images; the others are drawn from the text alone.
    """
    drawn: dict[int, tuple[NDArray[np.int32], Image.Image, str]] = {}
    plain = [i for i, prompt in enumerate(prompts) if prompt.source_sha256 is None]
    if plain:
        texts = [prompts[i].text for i in plain]
        parts = draw_images(
            model,
            texts,
            [seeds[i] for i in plain],
            sampling,
            context.images.write_all,
            lambda num_drawn: on_items(num_drawn, len(prompts)),
        )
        drawn |= zip(plain, zip(*parts, strict=True), strict=True)
    edits = [(i, prompt, prompt.source_sha256) for i, prompt in enumerate(prompts) if prompt.source_sha256 is not None]
    if edits:
        # The samples of one prompt are neighbours and share one source, so each source is read once.
        sources = {name: context.images.read(name) for name in dict.fromkeys(name for _, _, name in edits)}
        shown, instructions = [sources[name] for _, _, name in edits], [p.instruction or "" for _, p, _ in edits]
        edited = model.edit(shown, instructions, [seeds[i] for i, _, _ in edits], sampling)
        images = model.decode(edited)
        of_edits = zip(edited, images, context.images.write_all(images), strict=True)
        drawn |= zip((i for i, _, _ in edits), of_edits, strict=True)
        on_items(len(drawn), len(prompts))
    ids, all_images, names = zip(*(drawn[i] for i in range(len(prompts))), strict=True)
    return np.stack(ids), list(all_images), list(names)
