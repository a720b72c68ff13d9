"""The pages as text: what they show, that nothing in them is executed, and that reviews and promotions have effects."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urljoin

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, text, update

from illume_db import gallery
from illume_db.judging import add_calibration
from illume_db.rounds import add_round, set_candidate
from illume_db.sessions import open_engine, transaction
from illume_db.tables import Assessment, ModelVersion, Review, Update
from illume_db.versions import add_version, models_table
from illume_loop.judge.calibration import Source
from illume_loop.judge.fitting import Labelled, fit_calibration
from illume_loop.loop.run_directory import open_run
from tests.support.dashboard import RUN

PAGES = (
    "/",
    "/workers",
    RUN,
    f"{RUN}/rounds/1",
    f"{RUN}/gallery",
    f"{RUN}/gallery?view=extremes",
    f"{RUN}/gallery?view=pairs",
    f"{RUN}/samples/1",
    f"{RUN}/judge",
    f"{RUN}/models",
    f"{RUN}/models?a=v0001&b=v0002",
    f"{RUN}/review",
)
NASTY = '<script>alert(1)</script><img src=x onerror="alert(2)">{{ 7*7 }}'


def _csrf(client: TestClient) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', client.get(f"{RUN}/review").text)
    assert found
    return found[1]


def _shown_ids(page: str) -> list[int]:
    return [int(found) for found in re.findall(rf'href="(?:\.\./)+{RUN[1:]}/samples/(\d+)"', page)]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_there_and_tells_browsers_to_load_nothing_from_elsewhere(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text[-500:]
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert not re.search(r'(?:src|href)="(?:https?:)?//', answer.text)
    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on[a-z]+=", answer.text)


def test_a_run_shows_its_curves_and_its_gates_reasons(client: TestClient) -> None:
    page = client.get(RUN).text
    for title in ("Held-out alignment", "Judge&#39;s AUC against the checker", "Diversity", "Understanding"):
        assert f"<h2>{title}</h2>" in page
    assert page.count('class="curve"') == 4
    assert "heldout gain" in client.get(f"{RUN}/rounds/2").text


def test_a_round_shows_its_updates_as_curves(client: TestClient, run_dir: Path) -> None:
    assert "<h2>Updates</h2>" not in client.get(f"{RUN}/rounds/1").text
    counts = {"num_samples": 8, "num_learned": 6, "num_groups": 4, "num_without_variance": 1, "num_with_too_few": 0}
    measured = {"entropy": 1.5, "kl": None, "clipped": 0.0, "grad_norm": 1.0, "gap": 0.0, "staleness": 0, "seconds": {}}
    with open_run(run_dir, writing=True) as run:
        for index, right in ((1, 0.25), (2, 0.75)):
            rewards = {"self": -1.0, NASTY: 0.5}
            values = {"index": index, "rewards": rewards, "checked": right, "created_at": datetime.now(UTC)}
            run.session.add(Update(round_id=1, **values, **counts, **measured))
        run.session.commit()
    page = client.get(f"{RUN}/rounds/1").text
    assert "25 in update 1, 75 in update 2" in page
    assert page.count('class="trend" points') == 5, "two rewards, right images, equal groups and entropy"
    assert NASTY not in page


def test_filters_keep_what_they_ask_for_and_pages_follow_each_other(client: TestClient) -> None:
    everything, path = [], f"{RUN}/gallery?round=1"
    while path:
        page = client.get(path).text
        everything += _shown_ids(page)
        following = re.search(r'rel="next" href="([^"]+)"', page)
        path = urljoin(path, following[1].replace("&amp;", "&")) if following else ""
    assert everything == sorted(set(everything))
    assert len(everything) == 72
    right = _shown_ids(client.get(f"{RUN}/gallery?round=1&verdict=right").text)
    wrong = _shown_ids(client.get(f"{RUN}/gallery?round=1&verdict=wrong").text)
    assert set(right) | set(wrong) <= set(everything)
    assert not set(right) & set(wrong)
    assert _shown_ids(client.get(f"{RUN}/gallery?round=1&text=zebra").text) == []
    both = client.get(f"{RUN}/gallery?round=1&low=0&high=100&category=&text=&kept=yes").text
    assert 0 < len(_shown_ids(both)) < 72
    assert client.get(f"{RUN}/gallery?round=9").status_code == 404


def test_an_empty_gallery_page_tells_how_much_was_searched(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "SCAN", 30)
    path = f"{RUN}/gallery?round=1&text=zebra"
    for searched in ("30", "60"):
        page = client.get(path).text
        assert f"No matches yet ({searched} of 72 searched)." in page
        following = re.search(r'rel="next" href="([^"]+)"', page)
        assert following
        path = urljoin(path, following[1].replace("&amp;", "&"))
    assert "No matches.</p>" in client.get(path).text


def test_a_gallery_page_with_matches_counts_as_searched(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{RUN}/gallery?round=1"
    following = re.search(r'rel="next" href="([^"]+)"', client.get(path).text)
    assert following
    path = urljoin(path, following[1].replace("&amp;", "&"))
    monkeypatch.setattr(gallery, "SCAN", 10)
    assert "No matches yet (58 of 72 searched)." in client.get(f"{path}&text=zebra").text


def test_prompts_critiques_comments_and_names_are_shown_and_never_run(client: TestClient, run_dir: Path) -> None:
    engine = open_engine(f"sqlite:///{run_dir / 'loop.sqlite'}")
    with transaction(engine) as session:
        # Prompts are immutable to the loop; the test does what a foreign importer might have done.
        session.execute(text("DROP TRIGGER prompts_stay_what_they_are"))
        session.execute(text("UPDATE prompts SET text = :t || id, category = :t"), {"t": NASTY})
        session.execute(text("UPDATE assessments SET error = :t"), {"t": NASTY})
        for row in session.scalars(select(Assessment).where(Assessment.assessor == "self")):
            row.critique = {"color": {"verdict": NASTY, "evidence": NASTY}, "analysis": NASTY}
            row.details = {
                "readings": {NASTY: 1.0},
                "questions": [{"criterion": NASTY, "question": NASTY, "log_odds": 1.0}],
            }
    engine.dispose()
    review = {"csrf": _csrf(client), "sample": 1, "round": 1, "verdict": "agree", "comment": NASTY}
    assert client.post(f"{RUN}/review", data=review).status_code == 200
    for path in PAGES:
        page = client.get(path).text
        assert "<script>alert" not in page, path
        assert "<img src=x" not in page, path
    assert "&lt;script&gt;alert(1)" in client.get(f"{RUN}/samples/1").text
    searched = client.get(f"{RUN}/gallery", params={"text": NASTY}).text
    assert "<script>alert" not in searched
    assert "{{ 7*7 }}" in searched


@pytest.mark.parametrize(
    "path",
    [
        "/images/../../run.json",
        "/images/..%2f..%2frun.json",
        "/thumbs/%2e%2e%2f%2e%2e%2floop.sqlite",
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/images/" + "0" * 63 + "/",
        "/images/" + "A" * 64,
        "//etc/passwd",
    ],
)
def test_no_path_leads_out_of_the_images(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (404, 422)
    assert "sqlite" not in answer.text.lower()
    assert "import" not in answer.text


def test_images_and_thumbnails_are_kept_for_good_by_browsers(client: TestClient, run_dir: Path) -> None:
    found = re.search(r"/thumbs/([0-9a-f]{64})", client.get(f"{RUN}/gallery").text)
    assert found
    for kind in ("images", "thumbs"):
        answer = client.get(f"/{kind}/{found[1]}")
        assert answer.content.startswith(b"\x89PNG")
        assert "immutable" in answer.headers["cache-control"]
    assert client.get(f"/images/{'0' * 64}").status_code == 404
    (run_dir / "images" / found[1][:2] / f"{found[1]}.png").write_bytes(b"damaged")
    assert client.get(f"/images/{found[1]}").status_code == 404


def test_a_review_is_kept_undone_and_never_taken_from_another_site(client: TestClient, run_dir: Path) -> None:
    form = {"csrf": _csrf(client), "sample": 5, "round": 1, "verdict": "disagree", "criterion": "object=disagree"}
    refused = client.post(f"{RUN}/review", data=form | {"csrf": "x"})
    assert refused.status_code == 403
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert client.post(f"{RUN}/review", data=form, headers=headers).status_code == 403
    assert client.post(f"{RUN}/review", data=form, follow_redirects=False).status_code == 303
    with open_run(run_dir) as run:
        kept = run.session.scalars(select(Review)).one()
        said = run.session.scalars(select(Assessment).where(Assessment.assessor == "human")).one()
        assert (kept.reviewer, kept.verdict, kept.criteria) == ("ann", "disagree", {"object": False})
        assert (said.sample_id, said.state, said.score, said.failed_criteria) == (5, "ok", 0.0, ["object"])
    contradiction = client.post(f"{RUN}/review", data=form | {"verdict": "agree"})
    assert contradiction.status_code == 422
    assert "lacks no criterion" in contradiction.text
    client.post(f"{RUN}/review/undo", data={"csrf": form["csrf"]})
    with open_run(run_dir) as run:
        assert run.session.scalars(select(Review)).all() == []
        assert run.session.scalars(select(Assessment).where(Assessment.assessor == "human")).all() == []


def test_people_who_differ_make_the_assessment_abstain_and_their_agreement_is_shown(client: TestClient) -> None:
    csrf = _csrf(client)
    form = {"round": 1, "verdict": "agree"}
    for sample in range(1, 5):
        client.post(f"{RUN}/review", data=form | {"csrf": csrf, "sample": sample})
    client.post("/login", data={"name": "bob"})
    csrf = _csrf(client)
    for sample in range(1, 5):
        verdict = "agree" if sample < 4 else "disagree"
        client.post(f"{RUN}/review", data={"csrf": csrf, "round": 1, "sample": sample, "verdict": verdict})
    page = client.get(f"{RUN}/judge").text
    assert "ann and bob: 4 samples in common" in page
    assert "abstained" in client.get(f"{RUN}/samples/4").text


def test_a_version_is_promoted_and_rolled_back_after_a_confirmation(client: TestClient, run_dir: Path) -> None:
    with open_run(run_dir) as run:
        before = {row["name"]: row["state"] for row in models_table(run.session, run.run_id)}
    active = next(name for name, state in before.items() if state == "active")
    assert active != "v0001"
    assert "Make v0001 the active version?" in client.get(f"{RUN}/models/v0001/promote").text
    assert client.post(f"{RUN}/models/v0001/promote", data={"csrf": "x"}).status_code == 403
    csrf = _csrf(client)
    client.post(f"{RUN}/models/v0001/promote", data={"csrf": csrf})
    assert client.get(f"{RUN}/models/v0001/promote").status_code == 409
    assert client.get(f"{RUN}/models/rollback").status_code == 409
    client.post(f"{RUN}/models/{active}/promote", data={"csrf": csrf})
    stale = client.post(f"{RUN}/models/rollback", data={"csrf": csrf, "active": "v0001"})
    assert stale.status_code == 409
    client.post(f"{RUN}/models/rollback", data={"csrf": csrf, "active": active})
    with open_run(run_dir) as run:
        versions = run.session.scalars(select(ModelVersion)).all()
        parent = next(version for version in versions if version.name == active).parent_id
        assert [version.id for version in versions if version.state == "active"] == [parent]
    page = client.get(RUN).text
    assert "ann promoted v0001" in page
    assert f"ann rolled back from {active}" in page


def test_a_version_under_trial_is_not_offered_and_not_promoted(client: TestClient, run_dir: Path) -> None:
    with open_run(run_dir, writing=True) as run:
        at = datetime.now(UTC)
        values = {"sha256": "0" * 64, "num_bytes": 1, "origin": "round 3", "at": at}
        candidate = add_version(run.session, run.run_id, parent_id=1, state="candidate", **values)  # type: ignore[arg-type]
        round_ = add_round(run.session, run.run_id, 3, parent_version_id=1, prompt_ids=[1], at=at)
        set_candidate(run.session, round_.id, candidate.id)
        name = candidate.name
        run.session.commit()
    page = client.get(f"{RUN}/models").text
    assert "under trial" in page
    assert f"models/{name}/promote" not in page
    for answer in (
        client.get(f"{RUN}/models/{name}/promote"),
        client.post(f"{RUN}/models/{name}/promote", data={"csrf": _csrf(client)}),
    ):
        assert answer.status_code == 409
        assert "under trial in round 3" in answer.text
        assert "illume-loop rounds cancel 3" in answer.text


def test_a_run_without_an_active_version_is_told_and_mended(client: TestClient, run_dir: Path) -> None:
    with open_run(run_dir, writing=True) as run:
        run.session.execute(update(ModelVersion).where(ModelVersion.state == "active").values(state="retired"))
        run.session.commit()
    assert client.get(f"{RUN}/models").status_code == 200
    told = client.get(f"{RUN}/models/rollback")
    assert told.status_code == 503
    assert "doctor --repair" in told.text
    csrf = _csrf(client)
    assert client.post(f"{RUN}/models/rollback", data={"csrf": csrf, "active": "v0002"}).status_code == 503
    assert "No version is active" in client.get(f"{RUN}/models/v0001/promote").text
    client.post(f"{RUN}/models/v0001/promote", data={"csrf": csrf})
    with open_run(run_dir) as run:
        assert [row["name"] for row in models_table(run.session, run.run_id) if row["state"] == "active"] == ["v0001"]


def test_a_page_hears_of_news(client: TestClient) -> None:
    marks = [client.get(f"{RUN}/live?once=true").text for _ in range(2)]
    client.post(f"{RUN}/review", data={"csrf": _csrf(client), "sample": 1, "round": 1, "verdict": "skip"})
    marks.append(client.get(f"{RUN}/live?once=true").text)
    assert marks[0] == marks[1] != marks[2]
    assert "event: mark" in marks[0]
    assert re.search(r"data: (.*)", marks[2])[1] in client.get(RUN).text  # type: ignore[index]
    assert "event: mark" in client.get("/live?once=true").text


def test_versions_are_compared_on_the_same_prompts_and_seeds_only(client: TestClient) -> None:
    """v0002 was measured in both rounds, on different prompts; with v0001 only those of the first count."""
    page = client.get(f"{RUN}/models?a=v0001&b=v0002").text
    first_round = client.get(f"{RUN}/rounds/1").text
    assert "The gate compared them in" in page
    gain = re.search(r"heldout gain ([+-][0-9.]+)", first_round)
    shown = re.search(
        r'>heldout, %</b></td>.*?data-label="items">(\d+)<.*?data-label="difference"><b>([+-][0-9.]+) \[',
        page,
        re.DOTALL,
    )
    assert gain
    assert shown
    assert int(shown[1]) == 24
    assert float(shown[2]) == pytest.approx(float(gain[1]), abs=0.1)
    assert "judged by checker, guidance 1, temperature 1" in page
    assert "in round 1" in page
    assert client.get(f"{RUN}/models?a=v0001&b=v9999").status_code == 404
    assert "The two versions share no measurement" not in page


def test_versions_that_never_met_are_compared_by_their_headlines(client: TestClient) -> None:
    page = client.get(f"{RUN}/models?a=v0001&b=v0003").text
    shown = re.search(r'>heldout, %</b></td>.*?data-label="difference"><b>([+-][0-9.]+) \[', page, re.DOTALL)
    assert shown
    assert "No gate compared the two" in page
    assert "the difference is not paired" in page
    assert page.count("held-out ") >= 3, "each version has its headline in the tree"


def test_the_calibration_of_a_run_is_drawn_and_its_plot_may_do_nothing_but_look(
    client: TestClient, run_dir: Path
) -> None:
    assert client.get(f"{RUN}/judge/calibration.svg").status_code == 404
    assert client.get(f"{RUN}/judge/people.svg").status_code == 404
    source = Source(judge="0" * 64, domain="shapes", labels="checker", seed=0, guidance_scale=1.0)
    rows = [Labelled(f"k{n % 9}", {"yes-no": float(n % 7 - 3)}, n % 2 == 0) for n in range(60)]
    calibration = fit_calibration(source, rows, {}, ["yes-no"])
    engine = open_engine(f"sqlite:///{run_dir / 'loop.sqlite'}")
    with transaction(engine) as session:
        content = calibration.model_dump(mode="json")
        add_calibration(session, 1, sha256=calibration.sha256, content=content, at=datetime.now(UTC))
    engine.dispose()
    assert f"{RUN}/judge/calibration.svg" in client.get(f"{RUN}/judge").text
    plot = client.get(f"{RUN}/judge/calibration.svg")
    assert plot.headers["content-type"] == "image/svg+xml"
    assert plot.headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'"
    assert f"AUC {calibration.overall.reliability.auc:.3f}" in plot.text
