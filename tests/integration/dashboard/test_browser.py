"""The dashboard in a real browser: a run is started, watched, looked at, reviewed by keyboard, promoted, rolled back.

Screenshots of every page at two widths are written to the folder that SCREENSHOTS names, or to a temporary one.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from illume_db.reviews import NewReview, put_review
from illume_db.samples import samples_page
from illume_db.sessions import open_engine, transaction
from illume_loop.loop.run_directory import open_run
from tests.support.canned_run import small_settings, start
from tests.support.dashboard import RUN, dashboard_over, served
from tests.support.held_model import HELD, save_held
from tests.support.plugged import plugged

CHROMIUM = shutil.which("chromium")
WIDTHS = (1440, 390)
PATIENCE_MS = 60_000
PAGES = {
    "runs": "/",
    "rounds": RUN,
    "round": f"{RUN}/rounds/1",
    "gallery": f"{RUN}/gallery",
    "best-and-worst": f"{RUN}/gallery?view=extremes",
    "parent-and-candidate": f"{RUN}/gallery?view=pairs",
    "sample": f"{RUN}/samples/1",
    "review": f"{RUN}/review",
    "judge": f"{RUN}/judge",
    "models": f"{RUN}/models?a=v0001&b=v0002",
    "promote": f"{RUN}/models/v0001/promote",
    "continue": f"{RUN}/start",
    "workers": "/workers",
    "login": "/login",
    "missing": f"{RUN}/samples/999999",
}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium; apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that fails the test when a script or the content security policy complains."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    found, complaints = context.new_page(), []
    found.on("pageerror", lambda error: complaints.append(str(error)))
    found.on("console", lambda told: complaints.append(told.text) if "Content Security Policy" in told.text else None)
    yield found
    context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def reviewed_run(seen_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run of which bob has reviewed enough samples of the first round for a calibration."""
    copy = Path(shutil.copytree(seen_run, tmp_path_factory.mktemp("browser") / "run"))
    with open_run(copy) as run:
        rows = samples_page(run.session, run.run_id, round_index=1, limit=1000)
    chosen = [row for row in rows if row["passed"]][:12] + [row for row in rows if not row["passed"]][:12]
    engine = open_engine(f"sqlite:///{copy / 'loop.sqlite'}")
    with transaction(engine) as session:
        for row in chosen:
            verdict = "agree" if row["passed"] else "disagree"
            put_review(session, row["id"], NewReview("bob", verdict, reason="random"), replace=False)
    engine.dispose()
    return copy


@pytest.fixture(scope="module")
def url(reviewed_run: Path) -> Iterator[str]:
    with dashboard_over(reviewed_run) as app, served(app) as found:
        yield found


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = os.environ.get("SCREENSHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _shoot(page: Page, path: Path) -> None:
    """A picture of the whole page, with the images that it would load only when somebody scrolls to them."""
    page.evaluate("Promise.all([...document.images].map(one => (one.loading = 'eager', one.decode())))")
    page.screenshot(path=path, full_page=True)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_accessible_and_fits_at_both_widths(page: Page, url: str, shots: Path, name: str) -> None:
    page.goto(url + PAGES[name])
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        _shoot(page, shots / f"{name}-{width}.png")
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow <= 0, f"{name} is {overflow} pixels too wide at {width}"
    # Once, on the narrow page, which is the harder one.
    found = Axe().run(page).response["violations"]
    serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
    assert serious == []


def test_dark_pages_have_contrast_too(browser: Browser, url: str, shots: Path) -> None:
    context = browser.new_context(color_scheme="dark", viewport={"width": 1440, "height": 900})
    page = context.new_page()
    for name in ("rounds", "sample", "judge"):
        page.goto(url + PAGES[name])
        _shoot(page, shots / f"{name}-dark.png")
        found = Axe().run(page).response["violations"]
        assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
    context.close()


def test_a_run_is_started_and_goes_on_before_ones_eyes(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The button starts a process; the page shows its stages and its gate's decision and is never loaded anew."""
    hold, run_dir = tmp_path / "hold", tmp_path / "run"
    start(small_settings(save_held(tmp_path / "base", 0.4), run__rounds=1), run_dir, HELD)
    hold.touch()
    for name, value in plugged(HOLD_DRAWING=str(hold)).items():
        monkeypatch.setenv(name, value)
    with dashboard_over(run_dir) as app, served(app) as found:
        page.goto(found + "/")
        page.get_by_role("link", name="shapes").click()
        expect(page.get_by_text("No round is open.")).to_be_visible()
        page.get_by_role("link", name="Continue").click()
        page.get_by_label("Rounds in all").fill("2")
        page.get_by_role("button", name="Continue the run").click()
        expect(page.get_by_text("ann continued the run from this page, up to round 2")).to_be_visible()
        page.evaluate("window.sameDocument = true")
        expect(page.get_by_role("heading", name="Round 2 sampling")).to_be_visible()
        expect(page.get_by_role("button", name="Stop the loop")).to_be_visible()
        hold.unlink()
        expect(page.get_by_text("No round is open.")).to_be_visible()
        expect(page.locator("tr", has=page.get_by_role("link", name="2", exact=True)).locator(".badge")).to_have_text(
            re.compile("promoted|rejected")
        )
        expect(page.get_by_role("link", name="Continue")).to_be_visible()
        assert page.evaluate("window.sameDocument"), "the page was loaded anew"
        assert app.state.starter.last_loop().code == 0


def test_the_gallery_is_filtered_and_leads_to_a_sample_and_its_lineage(page: Page, url: str) -> None:
    page.goto(url + RUN)
    page.get_by_role("link", name="Gallery").click()
    expect(page.get_by_role("heading", name="Gallery")).to_be_visible()
    everything = page.locator("#results article").count()
    page.get_by_label("Checker says").select_option("wrong")
    expect(page.locator("#results .good")).to_have_count(0)
    assert 0 < page.locator("#results article").count() < everything
    assert "verdict=wrong" in page.url
    page.get_by_role("link", name="Best and worst").click()
    expect(page.get_by_role("heading", name="Highest scores")).to_be_visible()
    page.get_by_role("link", name="Samples", exact=True).click()
    page.locator("#results article a").first.click()
    expect(page.get_by_role("heading", name="Lineage")).to_be_visible()
    expect(page.get_by_role("img", name="log-odds").first).to_be_visible()


def test_a_filter_chosen_before_the_scripts_listen_takes_effect_and_back_undoes_it(page: Page, url: str) -> None:
    held: list[Route] = []
    page.route("**/htmx.min.js", lambda route: held.append(route))
    page.goto(url + RUN + "/gallery", wait_until="commit")
    everything = page.locator("#results article")
    expect(page.locator("#results .good")).not_to_have_count(0)
    count = everything.count()
    page.get_by_label("Checker says").select_option("wrong")
    held[0].continue_()
    expect(page.locator("#results .good")).to_have_count(0)
    assert "verdict=wrong" in page.url
    page.go_back()
    expect(everything).to_have_count(count)
    expect(page.get_by_label("Checker says")).to_have_value("")


def test_ten_reviews_by_keyboard_alone_change_the_calibration(page: Page, url: str) -> None:
    page.goto(f"{url}{RUN}/judge")
    before = page.locator("#people .labels").inner_text()
    page.goto(f"{url}{RUN}/review?round=1")
    for number in range(10):
        expect(page.locator("#done")).to_have_text(str(number))
        # Keys are heard once the page's script has run.
        page.wait_for_load_state()
        if number == 3:
            page.keyboard.press("1")
            expect(page.locator("[data-criterion]").first).to_contain_text("wrong")
            page.keyboard.press("c")
            page.keyboard.type("a comment with an a, a d and an s")
            page.keyboard.press("Escape")
        page.keyboard.press("d" if number % 2 else "a")
    expect(page.locator("#done")).to_have_text("10")
    page.wait_for_load_state()
    page.keyboard.press("u")
    page.wait_for_url(f"{url}{RUN}/review?round=1")
    expect(page.locator("#done")).to_have_text("9")
    page.wait_for_load_state()
    page.keyboard.press("s")
    expect(page.locator("#done")).to_have_text("10")
    page.goto(f"{url}{RUN}/judge")
    assert int(page.locator("#people .labels").inner_text()) > int(before)
    expect(page.get_by_text("Cohen's kappa")).to_be_visible()


def test_a_model_is_promoted_and_rolled_back(page: Page, url: str) -> None:
    page.goto(f"{url}{RUN}/models")
    row = page.locator(".tree li", has_text="v0002")
    if row.locator(".badge.active").count():
        page.get_by_role("link", name="Promote v0001").click()
        page.get_by_role("button", name="Make v0001 active").click()
    page.get_by_role("link", name="Promote v0002").click()
    expect(page.get_by_role("heading", name="Make v0002 the active version?")).to_be_visible()
    page.get_by_role("button", name="Make v0002 active").click()
    expect(row.locator(".badge.active")).to_be_visible()
    page.get_by_role("link", name="Roll back").click()
    page.get_by_role("button", name="Make v0001 active").click()
    expect(page.locator(".tree li", has_text="v0001").locator(".badge.active")).to_be_visible()
