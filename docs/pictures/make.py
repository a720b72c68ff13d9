"""Make the two pictures of README.md from a run of the default configuration.

    python docs/pictures/make.py illume-run

before-and-after.png    what the base and the run's active model draw for the same prompts and seeds
dashboard.png           the run's page in the dashboard, in chromium

Nothing is chosen by hand: the prompts are the first held-out prompt of each category that the domain gives for SEED,
and the images are drawn with seeds 0 to 2, at the run's guidance and temperature. A tick or a cross is the checker's
verdict.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import sync_playwright

from illume_loop.cli.decodes import setting_for
from illume_loop.cli.loading import guidance_for, load
from illume_loop.domains import get_domain
from illume_loop.evals.suites import alignment
from illume_loop.protocols import Prompt

FOLDER = Path(__file__).resolve().parent
ILLUME_LOOP = Path(sys.executable).with_name("illume-loop")
DOMAIN = get_domain("shapes")
SEED = 0
DRAWS = 3
"""Images of each prompt."""
COLUMNS = 3
"""Prompts side by side."""
SCALE = 4
"""Pixels of the picture for a pixel of an image, as a whole number: nothing is blurred."""
IMAGE = 48 * SCALE
GAP, MARGIN, LABEL, HEAD, FOOT, LINE = 12, 28, 132, 92, 30, 38
FONT = ImageFont.load_default(32)
PAPER, INK, RIGHT, WRONG = "#ffffff", "#1d1d1f", "#0b7a4b", "#b3341f"
DASHBOARD_SIZE = {"width": 1280, "height": 960}
PATIENCE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Drawn:
    """An image that a model drew, and whether the checker finds it right."""

    image: Image.Image
    right: bool


@dataclass(frozen=True, slots=True)
class Block:
    """A prompt with what the base (above) and the trained model (below) drew for it."""

    prompt: str
    before: Sequence[Drawn]
    after: Sequence[Drawn]


def main(run_dir: Path) -> None:
    """Write both pictures into this folder, and print how many of the images are right."""
    prompts = _prompts()
    base, active = _versions(run_dir)
    before, after = _draw(run_dir, base, prompts), _draw(run_dir, active, prompts)
    blocks = [Block(p.text, old, new) for p, old, new in zip(prompts, before, after, strict=True)]
    _save(strip(blocks), FOLDER / "before-and-after.png")
    for name, rows in ((base, before), (active, after)):
        print(f"{name}: {sum(one.right for row in rows for one in row)} of {len(rows) * DRAWS} right")
    with _dashboard(run_dir) as url:
        _save(_screenshot(f"{url}/runs/1"), FOLDER / "dashboard.png")


def strip(blocks: Sequence[Block]) -> Image.Image:
    """Return one picture of all blocks, COLUMNS side by side, the rows labelled at their left."""
    num_rows = -(-len(blocks) // COLUMNS)
    row_height = IMAGE + FOOT
    block_width, block_height = DRAWS * (IMAGE + GAP), HEAD + 2 * row_height
    size = (LABEL + COLUMNS * (block_width + MARGIN), num_rows * (block_height + MARGIN))
    picture = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(picture)
    for place, block in enumerate(blocks):
        left = LABEL + place % COLUMNS * (block_width + MARGIN)
        top = place // COLUMNS * (block_height + MARGIN)
        lines = _wrapped(block.prompt, block_width - GAP)
        for number, line in enumerate(lines):
            pen.text((left, top + HEAD - 18 - LINE * (len(lines) - 1 - number)), line, INK, FONT, anchor="ls")
        for row, (label, draws) in enumerate((("before", block.before), ("after", block.after))):
            y = top + HEAD + row * row_height
            if left == LABEL:
                pen.text((LABEL - 20, y + IMAGE // 2), label, INK, FONT, anchor="rm")
            for column, drawn in enumerate(draws):
                x = left + column * (IMAGE + GAP)
                picture.paste(drawn.image.resize((IMAGE, IMAGE), Image.Resampling.NEAREST), (x, y))
                _mark(pen, x + IMAGE // 2, y + IMAGE + FOOT // 2 - 1, drawn.right)
    return picture


def _mark(pen: ImageDraw.ImageDraw, x: int, y: int, right: bool) -> None:
    """Draw a tick or a cross around (x, y)."""
    if right:
        pen.line([(x - 9, y), (x - 3, y + 7), (x + 10, y - 8)], RIGHT, 4, joint="curve")
    else:
        for slope in (-1, 1):
            pen.line([(x - 7, y - 7 * slope), (x + 7, y + 7 * slope)], WRONG, 4)


def _wrapped(text: str, width: int) -> list[str]:
    """Break a text into lines of at most `width` pixels."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and FONT.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _prompts() -> list[Prompt]:
    """Return the first held-out prompt of each category."""
    first: dict[str, Prompt] = {}
    for prompt in DOMAIN.prompts("heldout", 512, SEED):
        first.setdefault(prompt.category, prompt)
    return list(first.values())


def _versions(run_dir: Path) -> tuple[str, str]:
    """Return the names of the base and of the active version. Exits where they are the same."""
    listed = subprocess.run(
        [ILLUME_LOOP, "models", "ls", "--json", "--run-dir", run_dir], check=True, stdout=subprocess.PIPE
    )
    versions = json.loads(listed.stdout)
    [active] = [version["name"] for version in versions if version["state"] == "active"]
    if active == versions[0]["name"]:
        sys.exit(f"{run_dir} has promoted no version; make the pictures from another run")
    return versions[0]["name"], active


def _draw(run_dir: Path, version: str, prompts: Sequence[Prompt]) -> list[list[Drawn]]:
    """Draw each prompt with the first seeds: the images that `illume-loop sample -n 3` draws of it."""
    _, model = load(version, run_dir)
    wanted = [(prompt, seed) for prompt in prompts for seed in range(DRAWS)]
    sampling = setting_for(guidance_for(None, run_dir), run_dir)
    found = alignment(model, DOMAIN, [p for p, _ in wanted], [seed for _, seed in wanted], sampling, len(wanted))
    drawn = [Drawn(image.convert("RGB"), right) for image, right in zip(found.images, found.passed, strict=True)]
    return [drawn[start : start + DRAWS] for start in range(0, len(drawn), DRAWS)]


@contextmanager
def _dashboard(run_dir: Path) -> Iterator[str]:
    """Serve the dashboard while the block runs; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [ILLUME_LOOP, "dashboard", "--run-dir", run_dir, "--port", str(port)]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"LOGNAME": "ann"})
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not _answers(url):
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit("the dashboard did not start")
            time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait(PATIENCE_SECONDS)


def _answers(url: str) -> bool:
    try:
        with urlopen(url) as answer:
            return bool(answer.status == 200)
    except URLError:
        return False


def _screenshot(url: str) -> Image.Image:
    """Return the upper part of a page as chromium shows it, with its images."""
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport=DASHBOARD_SIZE, color_scheme="light")
        page.goto(url)
        page.evaluate("Promise.all([...document.images].map(one => (one.loading = 'eager', one.decode())))")
        path = Path(folder) / "page.png"
        page.screenshot(path=path)
        browser.close()
        return Image.open(path).convert("RGB")


def _save(picture: Image.Image, path: Path) -> None:
    """Write a PNG of at most 256 colours, which these pictures need no more of."""
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {picture.width} x {picture.height}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/pictures/make.py RUN_DIR")
    main(Path(sys.argv[1]))
