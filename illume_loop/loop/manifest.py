"""The rows of a manifest: from samples, preferences and replayed real pairs to canonical lines, and to what trains.

The lines name samples by their natural key (round, prompt, sample index) and by the hash of their image-token ids,
never by ids of the database, paths or times: equal runs have equal lines, and equal manifests have equal hashes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from illume_db.curation import SampleRow
from illume_db.manifests import ExampleRow, NewExample
from illume_loop.assess import instructions
from illume_loop.config import CurateSettings
from illume_loop.domains.protocol import RealPair, Split
from illume_loop.errors import HeldOutError, InconsistentRunError
from illume_loop.models.protocol import ImageIds
from illume_loop.train.rows import CorrectRow, DrawRow, EditRow, PairRow, ReadRow, TrainingRow

ENCODE_BATCH = 256
Preference = tuple[SampleRow, SampleRow]
"""Two samples of one prompt: the chosen one and the rejected one."""
Encode = Callable[[Sequence[Image.Image]], ImageIds]


def manifest_rows(
    accepted: Sequence[SampleRow],
    pairs: Sequence[RealPair],
    settings: CurateSettings,
    preferences: Sequence[Preference] = (),
    assessments: Sequence[ExampleRow] = (),
) -> list[ExampleRow]:
    """Preferences, other accepted samples to draw or edit and to read, assessments, then replayed pairs to read and to
    draw.

    A sample that a preference chose is no row to draw besides.
    """
    chosen_ids = {chosen.sample_id for chosen, _ in preferences}
    rows = [ExampleRow("pair", chosen.text, None, chosen, rejected) for chosen, rejected in preferences]
    rows += [
        ExampleRow("edit" if sample.source_sha256 else "draw", sample.text, None, sample)
        for sample in accepted
        if sample.sample_id not in chosen_ids
    ]
    if settings.self_captions:
        rows += [ExampleRow("read", sample.text, None, sample) for sample in accepted]
    rows += assessments
    num_read = round(settings.caption_share * len(pairs))
    return rows + [
        ExampleRow("read" if index < num_read else "draw", pair.caption, index, None)
        for index, pair in enumerate(pairs)
    ]


def check_splits(rows: Sequence[ExampleRow], split_of: Callable[[str], Split | None], round_index: int) -> None:
    """Raise HeldOutError, naming the first, where rows are of compositions that are held out, or are probes.

    The database refuses the prompts that it knows by their texts. This asks the domain, which knows every wording of
    every composition, also of those that were never drawn.
    """
    splits = [(row.text, split_of(row.text)) for row in rows]
    strangers = [(text, split) for text, split in splits if split not in ("train", None)]
    if strangers:
        text, split = strangers[0]
        raise HeldOutError(index=round_index, count=len(strangers), text=text, split=split)


def manifest_sha256(rows: Sequence[ExampleRow]) -> str:
    """The hash over the canonical JSON lines of all rows, in order."""
    digest = hashlib.sha256()
    for row in rows:
        line = json.dumps(_canonical(row), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def new_examples(rows: Sequence[ExampleRow]) -> list[NewExample]:
    """The rows as the database takes them."""
    return [_new_example(row) for row in rows]


def training_rows(
    rows: Sequence[ExampleRow],
    pairs: Sequence[RealPair],
    encode: Encode,
    read_image: Callable[[str], Image.Image],
) -> list[TrainingRow]:
    """The rows with their images and ids, in order. `encode` gives the ids of real images that are to be drawn."""
    to_encode = [row.real_index for row in rows if row.kind == "draw" and row.real_index is not None]
    real_ids = _encode_all([pairs[index].image for index in to_encode], encode)
    ids_of_pair = dict(zip(to_encode, real_ids, strict=True))
    return [_training_row(row, pairs, ids_of_pair, read_image) for row in rows]


def ids_sha256(image_ids_L: NDArray[np.int32]) -> str:
    """The hash of image-token ids, whatever width they are stored in."""
    return hashlib.sha256(image_ids_L.astype("<i4").tobytes()).hexdigest()


def _new_example(row: ExampleRow) -> NewExample:
    sample, rejected = row.sample, row.rejected
    if sample is None:
        return NewExample(row.kind, row.text, real_index=row.real_index)
    of_sample = NewExample(
        row.kind, row.text, sample.sample_id, sample.prompt_id, ids_sha256(sample.image_ids), answer=row.answer
    )
    if rejected is None:
        return of_sample
    return replace(of_sample, rejected_id=rejected.sample_id, rejected_sha256=ids_sha256(rejected.image_ids))


def _training_row(
    row: ExampleRow,
    pairs: Sequence[RealPair],
    ids_of_pair: dict[int, NDArray[np.int32]],
    read_image: Callable[[str], Image.Image],
) -> TrainingRow:
    if row.sample is not None:
        if row.answer is not None:
            instruction = instructions.critique(row.sample.claim)
            if row.rejected is None:
                return ReadRow(read_image(row.sample.image_sha256), row.answer, instruction)
            worse = read_image(row.rejected.image_sha256)
            return CorrectRow(worse, instruction, row.answer, row.sample.image_ids)
        if row.rejected is not None:
            return PairRow(row.text, row.sample.image_ids, row.rejected.image_ids)
        if row.kind == "draw":
            return DrawRow(row.text, row.sample.image_ids)
        if row.kind == "edit":
            if row.sample.source_sha256 is None:
                raise InconsistentRunError(what=f"sample {row.sample.sample_id} is an edit and has no source image")
            source = read_image(row.sample.source_sha256)
            return EditRow(source, row.sample.instruction or "", row.sample.image_ids)
        return ReadRow(read_image(row.sample.image_sha256), row.sample.claim)
    if row.real_index is None:
        raise InconsistentRunError(what=f"a row of a manifest, '{row.text}', is of no sample and of no real pair")
    if row.kind == "draw":
        return DrawRow(row.text, ids_of_pair[row.real_index])
    return ReadRow(pairs[row.real_index].image, row.text)


def _encode_all(images: Sequence[Image.Image], encode: Encode) -> list[NDArray[np.int32]]:
    batches = (images[start : start + ENCODE_BATCH] for start in range(0, len(images), ENCODE_BATCH))
    return [ids_L for batch in batches for ids_L in encode(batch)]


def _canonical(row: ExampleRow) -> dict[str, object]:
    line: dict[str, object] = {"kind": row.kind, "text": row.text}
    if row.sample is None:
        return line | {"real": row.real_index}
    sample, rejected = row.sample, row.rejected
    line |= {
        "round": sample.round_index,
        "prompt": sample.prompt_key,
        "sample": sample.sample_index,
        "ids_sha256": ids_sha256(sample.image_ids),
    }
    if row.kind == "edit":
        line["source_sha256"] = sample.source_sha256
    if row.answer is not None:
        line["answer"] = row.answer
    if rejected is None:
        return line
    return line | {
        "rejected_round": rejected.round_index,
        "rejected_sample": rejected.sample_index,
        "rejected_sha256": ids_sha256(rejected.image_ids),
    }
