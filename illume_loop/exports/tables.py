"""The tables that an export holds: their columns, and how their rows are read, a batch at a time.

The first four are the database's. The others are what TRL's trainers take: `sft` (prompt and completion),
`preference` (prompt, chosen, rejected), where an image stands as the text of its token ids, one `<image_N>` for the id
N of the codebook; and `vision-sft`, whose rows read an image. They hold one manifest, because each holds all rows of
the manifests before it, and of its rows those whose image the loop drew: a replayed real pair is not the run's data.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Features, Image, List, Value
from sqlalchemy.orm import Session

from illume_db.exports import assessments_after, examples_after, reviews_after, samples_after
from illume_loop.judge.instructions import critique

IMAGE_TOKEN = "<image_{}>"
"""How an image-token id is written; a tokenizer that is given these as added tokens brings the ids back."""

Row = dict[str, Any]
Key = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ImageOf:
    """An image in a row: the sha256 of its PNG, which is read when the row is written."""

    sha256: str


@dataclass(frozen=True, slots=True)
class Scope:
    """What of a run is exported. `until` are the highest ids; `manifest` is the round whose rows TRL's tables hold."""

    run_id: int
    until: Mapping[str, int]
    manifest: int | None
    round_index: int | None = None
    accepted: bool | None = None


Read = Callable[[Session, Scope, Key, int], list[tuple[Key, Row]]]


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its rows in the order of their keys, which all lie above `first`."""

    name: str
    told: str
    features: Features
    first: Key
    read: Read


def image_text(ids: Sequence[int]) -> str:
    """Image-token ids as a text."""
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
    """The image that an edit was made of."""
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
    """Reads all manifests' rows as they are, or, of one manifest, what `make` makes of the rows of samples."""

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
        return [((row["round"], row["position"]), make(row) if make else row) for row in rows]

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
    """A caption, an assessment, an assessment of the worse image that ends with the better one, or an edit."""
    asked = [{"type": "image", "text": None}]
    # What an edit has to show is its target; its own text is a name.
    claim = row["target"] or row["text"]
    shown, answer = row["image"], claim
    if row["kind"] == "edit":
        shown, answer = row["source_sha256"], image_text(row["image_ids"])
        asked.append({"type": "text", "text": row["instruction"]})
    elif row["answer"] is not None:
        answer = row["answer"]
        asked.append({"type": "text", "text": critique(claim)})
    if row["kind"] == "correct":
        shown, answer = row["rejected_image"], answer + image_text(row["image_ids"])
    return {
        "images": [ImageOf(shown)],
        "prompt": [{"role": "user", "content": asked}],
        "completion": [{"role": "assistant", "content": [{"type": "text", "text": answer}]}],
        "kind": row["kind"],
        **_place(row),
    }


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
            "every image with prompt, seed, token ids, the judge's score, the checker's verdict; of an edit its source",
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
            "what each assessor said of each sample; `details` and `critique` are JSON",
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
            "what each person said of a sample, by name; `criteria` is JSON, `reason` says why it was shown to them",
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
            "the training rows of every round, pairs and replayed real rows among them",
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
            "TRL's layout for SFT, prompt and completion: accepted images to draw, those that pairs prefer among them",
            Features(prompt=_TEXT, completion=_TEXT, **_PLACE),
            (0, -1),
            _examples(("draw", "pair"), _sft, once=True),
        ),
        Table(
            "vision-sft",
            "TRL's layout for SFT on images: captions, assessments, assessments with a corrected image, edits",
            Features(images=List(Image()), prompt=_MESSAGES, completion=_MESSAGES, kind=_TEXT, **_PLACE),
            (0, -1),
            _examples(("read", "assess", "correct", "edit"), _vision),
        ),
        Table(
            "preference",
            "TRL's preference layout, prompt, chosen and rejected",
            Features(prompt=_TEXT, chosen=_TEXT, rejected=_TEXT, **_PLACE, rejected_sample=_INT),
            (0, -1),
            _examples(("pair",), _preference),
        ),
    )
}
