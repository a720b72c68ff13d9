"""A whole run on the canned backend: what it writes, how it is continued, and what each judge does to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from illume_db.curation import examples_of
from illume_db.evaluations import kept_draws
from illume_db.rounds_table import round_detail
from illume_db.runs import events, run_row
from illume_db.samples import lineage, sample_detail, samples_page
from illume_db.tables import Assessment, Example, Manifest, Prompt, Sample
from illume_db.versions import model_detail, models_table
from illume_loop.loop.canonical import manifest_sha256
from illume_loop.loop.coordinator import StageProgress
from illume_loop.loop.run_directory import open_run
from illume_loop.start import start_run
from illume_loop.telemetry.tally import TALLY
from tests.support.canned_model import canned_toolbox
from tests.support.canned_run import Heard, result, small_settings, start, table

KEYS_OF_THE_CONTRACT = {
    "index",
    "state",
    "parent",
    "candidate",
    "heldout",
    "judge_auc",
    "diversity",
    "understanding",
    "samples",
    "accepted",
    "dead_units",
    "manifest_sha256",
    "decision",
    "reasons",
    "seconds",
}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three rounds; read only."""
    folder = tmp_path_factory.mktemp("run")
    outcome, heard = start(small_settings(folder / "base", run__rounds=3), folder / "run")
    assert [(index, state) for index, state, _ in heard.ended] == [(1, "promoted"), (2, "promoted"), (3, "promoted")]
    assert outcome.page.read_text().startswith("<!")
    return folder / "run"


def test_the_table_keeps_the_contract(run_dir: Path) -> None:
    rows = table(run_dir)
    assert [row["index"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert row.keys() >= KEYS_OF_THE_CONTRACT
        assert row["heldout"]["parent"].keys() == row["heldout"]["candidate"].keys() == {"mean", "low", "high", "n"}
        assert row["heldout"]["delta"].keys() == {"mean", "low", "high"}
        assert row["seconds"].keys() == {"sampling", "assessing", "training", "gating"}
        assert (row["samples"], row["dead_units"], row["error"]) == (18, 0, None)
        assert row["reasons"][0].startswith("heldout gain ")
    assert [(row["parent"], row["candidate"]) for row in rows] == [
        ("v0001", "v0002"),
        ("v0002", "v0003"),
        ("v0003", "v0004"),
    ]


def test_the_loop_improves_a_model_that_can_judge(tmp_path: Path) -> None:
    values = {"sampling__prompts_per_round": 40, "gate__heldout_prompts": 200, "gate__min_gain": 0.0}
    start(small_settings(tmp_path / "base", **values), tmp_path / "run")
    rows = table(tmp_path / "run")
    assert rows[0]["decision"] == "promoted"
    assert rows[0]["heldout"]["delta"]["low"] > 0.03
    assert rows[0]["judge_auc"] == 1.0


def test_a_parent_draws_anew_in_each_round_and_is_read_once(run_dir: Path) -> None:
    """An unlucky draw of the parent must not count for every candidate that meets it."""
    rows = table(run_dir)
    assert rows[1]["heldout"]["parent"] != rows[0]["heldout"]["candidate"]
    assert rows[1]["understanding"]["parent"] == rows[0]["understanding"]["candidate"]
    with open_run(run_dir) as run:
        measured = [
            [unit["key"] for unit in detail["units"] if unit["kind"] == "evaluate"]
            for detail in (round_detail(run.session, run.run_id, index) for index in (1, 2))
            if detail
        ]
    suites = ("heldout-1", "understanding", "diversity")
    assert measured[0] == [f"evaluate/{suite}/{name}" for name in ("v0001", "v0002") for suite in suites]
    assert measured[1] == ["evaluate/heldout-1/v0002", *(f"evaluate/{suite}/v0003" for suite in suites)]


def test_rounds_draw_other_prompts(run_dir: Path) -> None:
    with open_run(run_dir) as run:
        details = [round_detail(run.session, run.run_id, index) for index in (1, 2, 3)]
        assert round_detail(run.session, run.run_id, 4) is None
    assert len({prompt["text"] for detail in details if detail for prompt in detail["prompts"]}) == 18


def test_the_manifest_is_the_union_of_all_that_was_accepted(run_dir: Path) -> None:
    rows = table(run_dir)
    accepted = 0
    with open_run(run_dir) as run:
        for manifest, row in zip(run.session.scalars(select(Manifest).order_by(Manifest.id)), rows, strict=True):
            accepted += row["accepted"]
            examples = examples_of(run.session, manifest.id)
            kinds = [(example.kind, example.sample is None) for example in examples]
            assert kinds == [
                *[("draw", False)] * accepted,
                *[("read", False)] * accepted,
                *[("read", True)] * 3,
                *[("draw", True)] * 3,
            ]
            assert manifest_sha256(examples) == manifest.sha256 == row["manifest_sha256"]
            assert manifest.num_rows == row["manifest_rows"] == len(examples)


def test_no_other_split_is_in_a_manifest(run_dir: Path) -> None:
    with open_run(run_dir) as run:
        splits = run.session.scalars(select(Prompt.split).join(Example, Example.prompt_id == Prompt.id))
        assert set(splits) == {"train"}


def test_every_sample_is_assessed_by_the_model_and_by_the_checker(run_dir: Path) -> None:
    with open_run(run_dir) as run:
        said = run.session.execute(select(Assessment.sample_id, Assessment.assessor, Assessment.state))
        samples = list(run.session.scalars(select(Sample.id)))
        assert sorted(map(tuple, said)) == sorted((id_, name, "ok") for id_ in samples for name in ("checker", "self"))


def test_pages_of_samples(run_dir: Path) -> None:
    with open_run(run_dir) as run:
        read = lambda **filters: samples_page(run.session, run.run_id, **filters)  # noqa: E731
        everything = read(limit=1000)
        assert len(everything) == 54
        pages: list[dict[str, Any]] = []
        while page := read(after=pages[-1]["id"] if pages else 0, limit=20):
            pages += page
        assert pages == everything
        assert {row["round"] for row in read(round_index=2, limit=1000)} == {2}
        accepted, rejected = read(accepted=True, limit=1000), read(accepted=False, limit=1000)
        assert len(accepted) == sum(row["accepted"] for row in table(run_dir))
        assert len(accepted) + len(rejected) == 54
        assert all(row["accepted"] for row in accepted)
        assert all(run.images.read(row["image_sha256"]).mode == "RGB" for row in everything[:3])


def test_one_sample_and_its_lineage(run_dir: Path) -> None:
    with open_run(run_dir) as run:
        accepted = samples_page(run.session, run.run_id, round_index=2, accepted=True)[0]
        detail = sample_detail(run.session, run.run_id, accepted["id"])
        trace = lineage(run.session, run.run_id, accepted["id"])
        assert sample_detail(run.session, run.run_id, 10_000) is None
        assert lineage(run.session, run.run_id, 10_000) is None
    assert detail is not None
    assert detail.items() >= accepted.items()
    assert [said["assessor"] for said in detail["assessments"]] == ["checker", "self"]
    assert len(detail["image_ids"]) == 8
    assert trace is not None
    assert (trace["from"]["model"], trace["from"]["ancestors"]) == ("v0002", ["v0001"])
    assert [(to["round"], to["model"], to["kinds"]) for to in trace["to"]] == [
        (2, "v0003", ["draw", "read"]),
        (3, "v0004", ["draw", "read"]),
    ]


def test_model_versions(run_dir: Path) -> None:
    with open_run(run_dir) as run:
        rows = models_table(run.session, run.run_id)
        detail = model_detail(run.session, run.run_id, "v0002")
        assert model_detail(run.session, run.run_id, "v0009") is None
        active = run.checkpoint()
        assert run.checkpoint("v0004") == active
    assert [(row["name"], row["state"], row["parent"], row["round"]) for row in rows] == [
        ("v0001", "retired", None, None),
        ("v0002", "retired", "v0001", 1),
        ("v0003", "retired", "v0002", 2),
        ("v0004", "active", "v0003", 3),
    ]
    assert detail is not None
    assert [evaluation["suite"] for evaluation in detail["evaluations"]] == [
        *("heldout", "understanding", "diversity"),
        "heldout",
    ]
    assert active[0] == "v0004"


def test_held_out_draws_are_kept_side_by_side(run_dir: Path) -> None:
    with open_run(run_dir) as run:
        draws = kept_draws(run.session, run.run_id, 2)
        assert len(draws) == 24
        passed = [draw["candidate"]["passed"] for draw in draws]
        assert sum(passed) / 24 == table(run_dir)[1]["heldout"]["candidate"]["mean"]
        run.images.read(draws[0]["parent"]["image_sha256"])


def test_the_event_log_tells_the_story(run_dir: Path) -> None:
    with open_run(run_dir) as run:
        lines = events(run.session, run.run_id)
        assert events(run.session, run.run_id, after=lines[3]["id"], limit=2) == lines[4:6]
        assert run_row(run.session, run.run_id)["settings"]["run"]["rounds"] == 3
    assert [line["kind"] for line in lines][:2] == ["started", "planned"]
    assert lines[-1]["message"] == "round 3 is promoted"


def test_progress_reaches_its_totals(tmp_path: Path) -> None:
    _, heard = start(small_settings(tmp_path / "base", run__rounds=1), tmp_path / "run")
    last = {event.stage: (event.done, event.total) for event in heard.stages}
    assert last == {"sampling": (18, 18), "assessing": (18, 18), "training": (2, 2), "gating": (84, 84)}
    stages = [event.stage for event in heard.stages]
    assert stages.index("assessing") < len(stages) - 1 - stages[::-1].index("sampling"), "assessing must stream"


def test_the_same_seed_gives_the_same_run_and_another_another(tmp_path: Path, run_dir: Path) -> None:
    start(small_settings(tmp_path / "base", run__rounds=3), tmp_path / "same")
    assert result(tmp_path / "same") == result(run_dir)
    start(small_settings(tmp_path / "base", run__rounds=1, run__seed=1), tmp_path / "other")
    assert table(tmp_path / "other")[0]["manifest_sha256"] != table(run_dir)[0]["manifest_sha256"]


def test_a_run_grows(tmp_path: Path, run_dir: Path) -> None:
    """One round, then three in all: as if it had been three from the start."""
    start(small_settings(tmp_path / "base", run__rounds=1), tmp_path / "run")
    start(small_settings(tmp_path / "base"), tmp_path / "run", rounds=3)
    assert result(tmp_path / "run") == result(run_dir)
    _, heard = start(small_settings(tmp_path / "base"), tmp_path / "run")
    assert heard.ended == []


def test_the_batch_size_changes_nothing(tmp_path: Path, run_dir: Path) -> None:
    settings = small_settings(tmp_path / "base", run__rounds=1, sampling__batch_size=100, assess__batch_size=2)
    start(settings, tmp_path / "run")
    assert table(tmp_path / "run")[0]["manifest_sha256"] == table(run_dir)[0]["manifest_sha256"]


def test_the_checker_accepts_nothing_wrong(tmp_path: Path) -> None:
    start(small_settings(tmp_path / "base", assess__assessor="checker", curate__drop_lowest=0.0), tmp_path / "run")
    with open_run(tmp_path / "run") as run:
        accepted = samples_page(run.session, run.run_id, accepted=True, limit=1000)
        assert accepted
        assert all(row["passed"] for row in accepted)
        assert set(run.session.scalars(select(Assessment.assessor))) == {"checker"}


def test_shuffled_scores_teach_nothing(tmp_path: Path) -> None:
    values = {"sampling__prompts_per_round": 40, "run__rounds": 1}
    for assessor in ("self", "shuffled"):
        start(small_settings(tmp_path / "base", assess__assessor=assessor, **values), tmp_path / assessor)
    honest, control = table(tmp_path / "self")[0], table(tmp_path / "shuffled")[0]
    assert 0.35 < control["judge_auc"] < 0.65
    assert honest["judge_auc"] == 1.0
    assert control["accepted"] == honest["accepted"]

    def share_right(name: str) -> float:
        with open_run(tmp_path / name) as run:
            rows = samples_page(run.session, run.run_id, accepted=True, limit=1000)
        return sum(row["passed"] for row in rows) / len(rows)

    assert share_right("shuffled") < 0.55 < share_right("self")


def test_a_candidate_that_is_no_better_is_rejected_and_the_parent_draws_on(tmp_path: Path) -> None:
    start(small_settings(tmp_path / "base", gate__min_gain=0.9), tmp_path / "run")
    rows = table(tmp_path / "run")
    assert [row["decision"] for row in rows] == ["rejected", "rejected"]
    assert [row["parent"] for row in rows] == ["v0001", "v0001"]
    assert "the lower end of the gain is not above 90.0" in rows[0]["reasons"]
    assert rows[1]["manifest_rows"] > rows[0]["manifest_rows"], "what a rejected round accepted stays in the union"
    with open_run(tmp_path / "run") as run:
        states = [row["state"] for row in models_table(run.session, run.run_id)]
    assert states == ["active", "rejected", "rejected"]


def test_without_auto_promotion_a_candidate_waits(tmp_path: Path) -> None:
    start(small_settings(tmp_path / "base", gate__auto_promote=False, run__rounds=1), tmp_path / "run")
    (row,) = table(tmp_path / "run")
    assert row["decision"] == "rejected"
    assert row["reasons"][-1] == "the gate would promote it, but gate.auto_promote is off"
    with open_run(tmp_path / "run") as run:
        assert [row["state"] for row in models_table(run.session, run.run_id)] == ["active", "candidate"]


@pytest.mark.parametrize(("start_from", "expected"), [("base", "v0001"), ("parent", "v0002")])
def test_where_training_starts(tmp_path: Path, start_from: str, expected: str) -> None:
    settings = small_settings(tmp_path / "base", **{"train__from": start_from})
    seen: list[Path] = []
    toolbox = canned_toolbox()

    def train(base: Path, *rest: Any) -> None:
        seen.append(base)
        toolbox.train(base, *rest)

    start(settings, tmp_path / "run", replace(toolbox, train=train))
    with open_run(tmp_path / "run") as run:
        assert seen[1] == run.checkpoint(expected)[1]


def test_the_same_run_on_postgres_and_an_object_store(tmp_path: Path, run_dir: Path, postgres_url: str) -> None:
    stores = {"database_url": postgres_url, "artifacts_url": f"memory://{tmp_path}"}
    values = {f"store__{name}": url for name, url in stores.items()}
    start(small_settings(tmp_path / "base", run__rounds=3, **values), tmp_path / "run")
    assert result(tmp_path / "run", **stores) == result(run_dir)
    assert not (tmp_path / "run" / "checkpoints").exists()
    with open_run(tmp_path / "run", **stores) as run:
        assert (run.checkpoint()[1] / "config.json").exists()


LOOKS = {
    "assess__assessor": "shuffled",
    "gate__heldout_prompts": 256,
    "gate__min_gain": 0.0,
    "run__rounds": 3,
    "run__seed": 1,
    "sampling__batch_size": 64,
}
"""With these the canned loop's gate looks once in round 1 and more often in the others."""


class Cut(BaseException):
    """An interruption, which no unit counts as its failure."""


def test_a_gate_that_is_cut_off_between_looks_goes_on_as_if_it_was_not(tmp_path: Path) -> None:
    """Cut off again and again, each time a little further on."""

    class Cutting(Heard):
        def advanced(self, event: StageProgress) -> None:
            self.stages.append(event)
            if event.stage == "gating" and sum(heard.stage == "gating" for heard in self.stages) > 2:
                raise Cut

    settings = small_settings(tmp_path / "base", **LOOKS)
    cuts = 0
    while True:
        try:
            start_run(settings, tmp_path / "run", progress=Cutting(), toolbox=canned_toolbox())
        except Cut:
            cuts += 1
            continue
        break
    start(settings, tmp_path / "undisturbed")
    assert cuts > 6
    assert result(tmp_path / "run") == result(tmp_path / "undisturbed")
    sizes = [row["heldout"]["candidate"]["n"] for row in table(tmp_path / "run")]
    assert sizes[0] == 64
    assert 256 in sizes
    with open_run(tmp_path / "run") as run:
        detail = round_detail(run.session, run.run_id, 1 + sizes.index(256))
        told = [line["message"] for line in events(run.session, run.run_id) if line["kind"] == "looked"]
    assert detail is not None
    looks = [unit["key"].split("/")[1] for unit in detail["units"] if unit["key"].startswith("evaluate/heldout")]
    assert looks == [f"heldout-{look}" for look in (1, 1, 2, 2, 3, 3)]
    assert f"round {1 + sizes.index(256)}: not clear after 2 looks at the gate" in told


def test_the_metrics_count_all_tokens_of_all_images(tmp_path: Path) -> None:
    before = TALLY.counts()
    start(small_settings(tmp_path / "base", run__rounds=1), tmp_path / "run")
    with open_run(tmp_path / "run") as run:
        drawn = run.session.scalars(select(Sample)).all()
        num_tokens = sum(sample.image_ids.size for sample in drawn)
    after = TALLY.counts()
    assert after.images - before.images == len(drawn) > 0
    assert after.tokens - before.tokens == num_tokens
