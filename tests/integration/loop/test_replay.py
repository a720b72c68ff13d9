"""Prompts drawn in vain are drawn again, and pairs that differ in one attribute, the same after every cut."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select

from illume_db.tables import Event, Example, Prompt, Round, RoundPrompt, Sample
from illume_loop.loop.run_directory import open_run
from tests.support.canned_run import result, small_settings, start, table

VALUES: dict[str, object] = {
    "run__rounds": 3,
    "sampling__prompts_per_round": 24,
    "sampling__replay_share": 0.5,
    "sampling__minimal_pairs": 0.5,
    "assess__assessor": "checker",
}


def test_prompts_without_an_accepted_sample_are_drawn_again(tmp_path: Path) -> None:
    """The checker accepts nothing wrong, so some prompts of few samples have none."""
    start(small_settings(tmp_path / "base", **VALUES), tmp_path / "run")
    with open_run(tmp_path / "run") as run:
        drawn = {
            index: set(
                run.session.scalars(
                    select(RoundPrompt.prompt_id)
                    .join(Round, Round.id == RoundPrompt.round_id)
                    .where(Round.index == index)
                )
            )
            for index in (1, 2, 3)
        }
        accepted = {
            (index, prompt_id)
            for index, prompt_id in run.session.execute(
                select(Round.index, Example.prompt_id)
                .join(Sample, Sample.id == Example.sample_id)
                .join(Round, Round.id == Sample.round_id)
            )
        }
        messages = list(run.session.scalars(select(Event.message).where(Event.kind == "planned").order_by(Event.id)))
        splits = set(run.session.scalars(select(Prompt.split).join(RoundPrompt, RoundPrompt.prompt_id == Prompt.id)))
    unsolved = {prompt for prompt in drawn[1] if (1, prompt) not in accepted}
    again = drawn[1] & drawn[2]
    assert again
    assert again <= unsolved, "only those of which nothing was accepted"
    for message, number in zip(messages, (0, len(again)), strict=False):
        assert f"; {number} prompts again, " in message
    assert splits == {"train"}
    counts = [row["curation"]["drawn_again"] for row in table(tmp_path / "run")]
    assert counts == [0, len(again), len(drawn[3] & (drawn[1] | drawn[2]))]


def test_the_same_run_on_postgres_and_with_other_batches(tmp_path: Path, postgres_url: str) -> None:
    start(small_settings(tmp_path / "base", **VALUES), tmp_path / "run")
    other = {"store__database_url": postgres_url, "sampling__batch_size": 100, "assess__batch_size": 2}
    start(small_settings(tmp_path / "base", **VALUES, **other), tmp_path / "other")
    one, two = result(tmp_path / "run"), result(tmp_path / "other", database_url=postgres_url)
    assert [row["manifest_sha256"] for row in one["rounds"]] == [row["manifest_sha256"] for row in two["rounds"]]
    assert one["samples"] == two["samples"]
