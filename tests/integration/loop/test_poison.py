"""What was spoiled comes to no good end, and the round says what was wrong: candidates, trainings, manifests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import text

from illume_db.curation import examples_of
from illume_db.sessions import open_engine
from illume_loop.domains.shapes.domain import ShapesDomain
from illume_loop.domains.shapes.grammar import parse, words
from illume_loop.errors import RoundFailedError, TrainingDivergedError
from illume_loop.loop.canonical import manifest_sha256
from illume_loop.loop.context import Toolbox
from illume_loop.loop.run_directory import database_url, open_run
from illume_loop.protocols import ImageIds, RealPair, Sampling, Scores, Split
from illume_loop.settings import Settings
from tests.support.canned_model import CannedModel, canned_toolbox, load_canned
from tests.support.canned_run import small_settings, start, table

TOOLS = canned_toolbox()
BASE_SKILL = 0.4


class Illiterate(CannedModel):
    """Draws better than the base, and no longer tells a true caption from a false one."""

    def log_likelihood(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Scores:
        return np.array(
            [float(hash((image.tobytes(), text)) % 1000) for image, text in zip(images, texts, strict=True)]
        )


class Unreadable(CannedModel):
    """Draws better than the base; its likelihoods are no numbers, as those of weights that are none."""

    def log_likelihood(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Scores:
        return np.full(len(images), math.nan)


class Monotone(CannedModel):
    """Draws each prompt right, and always the same image."""

    def sample(self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> ImageIds:
        return super().sample(prompts, [0] * len(prompts), sampling)


def _spoiled(kind: type[CannedModel]) -> Toolbox:
    """All but the base are of this kind."""

    def load(path: Path, device: str) -> CannedModel:
        model = load_canned(path, device)
        return model if model.skill == BASE_SKILL else kind(1.0)

    return replace(TOOLS, load_model=load)


def _phrase(prompt: str) -> str:
    """The words of a prompt without its opening."""
    return words(parse(prompt))


def _settings(tmp_path: Path, **values: object) -> Settings:
    return small_settings(tmp_path / "base", run__rounds=1, gate__heldout_prompts=128, gate__min_gain=0.0, **values)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Illiterate, "understanding changed by -"),
        (Unreadable, "understanding changed by -100.0 points from the base's 100.0, a loss of more than 4.0"),
        (Monotone, "diversity fell from the base's "),
    ],
)
def test_what_was_spoiled_is_named_though_the_gain_is_great(
    tmp_path: Path, kind: type[CannedModel], reason: str
) -> None:
    start(_settings(tmp_path), tmp_path / "run", _spoiled(kind))
    (row,) = table(tmp_path / "run")
    assert row["decision"] == "rejected"
    assert row["heldout"]["delta"]["low"] > 0.2
    assert row["heldout"]["candidate"]["n"] == 64, "nothing more is drawn of what is refused anyway"
    (objection,) = row["reasons"][1:]
    assert objection.startswith(reason)


def test_a_training_that_diverges_is_named_tried_once_and_never_reaches_the_gate(tmp_path: Path) -> None:
    calls: list[int] = []

    def train(*_: Any) -> None:
        calls.append(1)
        raise TrainingDivergedError(what="loss", value=math.nan)

    with pytest.raises(RoundFailedError, match=r"Round 1 failed: .*failed 1 times.*TrainingDivergedError.*same way"):
        start(_settings(tmp_path), tmp_path / "run", replace(TOOLS, train=train))
    (row,) = table(tmp_path / "run")
    assert (row["state"], row["candidate"], row["decision"]) == ("failed", None, None)
    assert "nan" in row["reasons"][0]
    assert len(calls) == 1, "another attempt would diverge too"
    start(_settings(tmp_path), tmp_path / "run", rounds=2)
    assert table(tmp_path / "run")[1]["parent"] == "v0001"


@pytest.mark.parametrize("split", ["heldout", "probe"])
def test_a_held_out_caption_fails_the_round_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: Split
) -> None:
    """Slipped in by a domain, in a wording that the database has never seen."""
    domain = ShapesDomain()
    (prompt,) = domain.prompts(split, 1, 77)
    honest = domain.real_pairs

    def real_pairs(_: ShapesDomain, count: int, seed: int) -> list[RealPair]:
        first, *others = honest(count, seed)
        return [*others, RealPair(first.image, f"An image with {_phrase(prompt.text)}")]

    monkeypatch.setattr(ShapesDomain, "real_pairs", real_pairs)
    with pytest.raises(RoundFailedError, match="manifest of round 1 is refused"):
        start(_settings(tmp_path), tmp_path / "run")
    (row,) = table(tmp_path / "run")
    assert (row["state"], row["manifest_sha256"], row["candidate"]) == ("failed", None, None)
    assert f"({split})" in row["error"]
    assert _phrase(prompt.text) in row["error"]


def test_a_held_out_prompt_slipped_into_a_stored_manifest_is_refused_and_named(tmp_path: Path) -> None:
    """By hand, past the triggers, with a hash that fits: the trainer looks once more, and only once."""
    calls: list[int] = []

    def train(*_: Any) -> None:
        calls.append(1)
        raise KeyboardInterrupt

    toolbox, settings = replace(TOOLS, train=train), _settings(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        start(settings, tmp_path / "run", toolbox)
    prompt = ShapesDomain().prompts("heldout", 1, 0)[0]
    with open_run(tmp_path / "run") as run:
        examples = examples_of(run.session, 1)
    poisoned = [*examples[:-1], replace(examples[-1], text=prompt.text)]
    engine = open_engine(database_url(tmp_path / "run"))
    with engine.begin() as connection:
        for trigger in ("examples_are_immutable", "manifests_are_immutable"):
            connection.execute(text(f"DROP TRIGGER {trigger}"))
        last, sha256 = len(examples) - 1, manifest_sha256(poisoned)
        connection.execute(text(f"UPDATE examples SET text = '{prompt.text}' WHERE position = {last}"))
        connection.execute(text(f"UPDATE manifests SET sha256 = '{sha256}'"))
    engine.dispose()
    with pytest.raises(RoundFailedError, match=rf"1 of its rows .*'{prompt.text}' \(heldout\).*same way"):
        start(settings, tmp_path / "run", toolbox)
    assert len(calls) == 1, "what was poisoned came to no trainer"
