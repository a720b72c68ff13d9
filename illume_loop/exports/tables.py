"""The tables of an export: their columns, and the functions that read their rows in batches.

The first four tables are those of the database. The others have the layouts of TRL's trainers: `sft` (prompt,
completion), `preference` (prompt, chosen, rejected) and `vision-sft`, whose rows hold an image. In `sft` and
`preference` an image is the text of its token ids, with one `<image_N>` for id N of the codebook. TRL's tables export
the latest manifest only, because it contains the rows of all earlier ones, and they leave out replayed pretraining
pairs, because these are not the run's data.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Features, Image, List, Value
from sqlalchemy.orm import Session

from illume_db.exports import assessments_after, examples_after, reviews_after, samples_after
from illume_loop.judge.instructions import correction, critique

IMAGE_TOKEN = "<image_{}>"
"""The text of an image-token id; a tokenizer with these as added tokens recovers the ids."""

Row = dict[str, Any]
Key = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ImageOf:
    """A reference to an image: the sha256 of its PNG, which is read when the row is written."""

    sha256: str


@dataclass(frozen=True, slots=True)
class Scope:
    """The part of a run to export: `until` gives each table's highest id, `manifest` the round for TRL's tables."""

    run_id: int
    until: Mapping[str, int]
    manifest: int | None
    tokenizer: str = ""
    """The digest of the tokenizer of the image ids; empty if `data tokenize` knows no such tokenizer."""
    round_index: int | None = None
    accepted: bool | None = None


Read = Callable[[Session, Scope, Key, int], list[tuple[Key, Row]]]


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the export: `read` returns its rows in the order of their keys, which are all above `first`."""

    name: str
    told: str
    features: Features
    first: Key
    read: Read


def image_text(ids: Sequence[int]) -> str:
    """Return image-token ids as text."""
    return "".join(IMAGE_TOKEN.format(token) for token in ids)


def _samples(session: Session, scope: Scope, after: Key, limit: int) -> list[tuple[Key, Row]]:
    rows = samples_after(
        session,
        scope.run_id,
        after[0],
        limit,
        until=scope.until["samples"],
        round_index=scope.round_index,
        accepted=scope.accepted,
    )
    return [((row["id"],), row | {"image": ImageOf(row["image_sha256"]), "source": _source(row)}) for row in rows]


def _source(row: Row) -> ImageOf | None:
    """Return the source image of an edit; None for other samples."""
    return ImageOf(row["source_sha256"]) if row["source_sha256"] else None


def _assessments(session: Session, scope: Scope, after: Key, limit: int) -> list[tuple[Key, Row]]:
    until = scope.until["assessments"]
    rows = assessments_after(session, scope.run_id, after[0], limit, until=until, round_index=scope.round_index)
    return [
        ((row["id"],), row | {"details": _json(row["details"]), "critique": row["critique"] and _json(row["critique"])})
        for row in rows
    ]


def _reviews(session: Session, scope: Scope, after: Key, limit: int) -> list[tuple[Key, Row]]:
    until = scope.until["reviews"]
    rows = reviews_after(session, scope.run_id, after[0], limit, until=until, round_index=scope.round_index)
    return [((row["id"],), row | {"criteria": _json(row["criteria"])}) for row in rows]


def _examples(kinds: tuple[str, ...], make: Callable[[Row], Row] | None = None, *, once: bool = False) -> Read:
    """Return a reader of manifest rows: all manifests' rows as stored, or with `make`, one manifest's sample rows."""

    def read(session: Session, scope: Scope, after: Key, limit: int) -> list[tuple[Key, Row]]:
        if make is not None and scope.manifest is None:
            return []
        rows = examples_after(
            session,
            scope.run_id,
            (after[0], after[1]),
            limit,
            round_index=scope.manifest if make else scope.round_index,
            kinds=kinds,
            of_samples=make is not None,
            once=once,
        )
        made = [make(row) | {"tokenizer": scope.tokenizer} for row in rows] if make is not None else rows
        return [((row["round"], row["position"]), one) for row, one in zip(rows, made, strict=True)]

    return read


def _place(row: Row) -> Row:
    return {"round": row["round"], "position": row["position"], "sample": row["sample"]}


def _sft(row: Row) -> Row:
    return {"prompt": row["text"], "completion": image_text(row["image_ids"]), **_place(row)}


def _preference(row: Row) -> Row:
    chosen, rejected = image_text(row["image_ids"]), image_text(row["rejected_image_ids"])
    of_worse = {"rejected_sample": row["rejected"]}
    return {"prompt": row["text"], "chosen": chosen, "rejected": rejected, **_place(row), **of_worse}


def _vision(row: Row) -> Row:
    """Return a row to read an image: a caption, an assessment, an assessment with a corrected image, or an edit.

    An assessment with a corrected image has two turns, so its completion has the user's request between two answers.
    """
    asked = [{"type": "image", "text": None}]
    # An edit must show its target; its `text` is only a name.
    claim = row["target"] or row["text"]
    shown, told = row["image"], [_by_model(claim)]
    if row["kind"] == "edit":
        shown, told = row["source_sha256"], [_by_model(image_text(row["image_ids"]))]
        asked.append({"type": "text", "text": row["instruction"]})
    elif row["answer"] is not None:
        told = [_by_model(row["answer"])]
        asked.append({"type": "text", "text": critique(claim)})
    if row["kind"] == "correct":
        shown = row["rejected_image"]
        told += [_by_user({"type": "text", "text": correction(claim)}), _by_model(image_text(row["image_ids"]))]
    return {
        "images": [ImageOf(shown)],
        "prompt": [_by_user(*asked)],
        "completion": told,
        "kind": row["kind"],
        **_place(row),
    }


def _by_user(*parts: Row) -> Row:
    return {"role": "user", "content": list(parts)}


def _by_model(text: str) -> Row:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


_INT, _FLOAT, _TEXT, _BOOL = Value("int64"), Value("float64"), Value("string"), Value("bool")
_IDS = List(Value("int32"))
_MESSAGES = List({"role": _TEXT, "content": List({"type": _TEXT, "text": _TEXT})})
_PLACE = {"round": _INT, "position": _INT, "sample": _INT}

TABLES: Mapping[str, Table] = {
    table.name: table
    for table in (
        Table(
            "samples",
            "every image with prompt, seed, token ids, judge's score and checker's verdict; for edits also the source",
            Features(
                id=_INT,
                round=_INT,
                model=_TEXT,
                prompt=_TEXT,
                key=_TEXT,
                category=_TEXT,
                sample_index=_INT,
                seed=_INT,
                staleness=_INT,
                score=_FLOAT,
                passed=_BOOL,
                failed=List(_TEXT),
                accepted=_BOOL,
                image_sha256=_TEXT,
                image_ids=_IDS,
                image=Image(),
                instruction=_TEXT,
                target=_TEXT,
                source_sha256=_TEXT,
                source=Image(),
            ),
            (0,),
            _samples,
        ),
        Table(
            "assessments",
            "the assessments of each sample by each assessor; `details` and `critique` are JSON",
            Features(
                id=_INT,
                sample=_INT,
                round=_INT,
                assessor=_TEXT,
                model=_TEXT,
                state=_TEXT,
                score=_FLOAT,
                failed=List(_TEXT),
                error=_TEXT,
                probability=_FLOAT,
                details=_TEXT,
                critique=_TEXT,
            ),
            (0,),
            _assessments,
        ),
        Table(
            "reviews",
            "people's reviews with the reviewer's name; `criteria` is JSON, `reason` is why the sample was chosen",
            Features(
                id=_INT,
                sample=_INT,
                round=_INT,
                reviewer=_TEXT,
                verdict=_TEXT,
                criteria=_TEXT,
                comment=_TEXT,
                reason=_TEXT,
                created_at=_TEXT,
            ),
            (0,),
            _reviews,
        ),
        Table(
            "manifests",
            "the training rows of every round, including preference pairs and replayed real rows",
            Features(
                **_PLACE,
                kind=_TEXT,
                text=_TEXT,
                rejected=_INT,
                real_index=_INT,
                ids_sha256=_TEXT,
                rejected_sha256=_TEXT,
                answer=_TEXT,
                manifest_sha256=_TEXT,
            ),
            (0, -1),
            _examples(()),
        ),
        Table(
            "sft",
            "TRL's SFT layout (prompt, completion): accepted images to draw, including the preferred images of pairs",
            Features(prompt=_TEXT, completion=_TEXT, **_PLACE),
            (0, -1),
            _examples(("draw", "pair"), _sft, once=True),
        ),
        Table(
            "vision-sft",
            "TRL's SFT layout with images: captions, assessments, assessments with a corrected image, edits; "
            "`tokenizer` made the image ids",
            Features(
                images=List(Image()), prompt=_MESSAGES, completion=_MESSAGES, kind=_TEXT, tokenizer=_TEXT, **_PLACE
            ),
            (0, -1),
            _examples(("read", "assess", "correct", "edit"), _vision),
        ),
        Table(
            "preference",
            "TRL's preference layout (prompt, chosen, rejected)",
            Features(prompt=_TEXT, chosen=_TEXT, rejected=_TEXT, **_PLACE, rejected_sample=_INT),
            (0, -1),
            _examples(("pair",), _preference),
        ),
    )
}
