"""Images that people give: any mode becomes RGB, and what cannot be read is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from illume_loop.cli.images import read_image
from illume_loop.data.pixels import open_image
from illume_loop.errors import UnreadableImageError
from tests.support.golden import ROOT


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("image.tiff" if mode == "CMYK" else "image.png")
    Image.new(mode, (4, 4)).save(path)
    assert read_image(path).mode == "RGB"


def _broken(path: Path, kind: str) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("no image")
    elif kind != "missing":
        Image.effect_noise((64, 64), 50).save(path, format="PNG")
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] if kind == "cut" else data[:300] + b"\0" * 200 + data[500:])


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "cut", "damaged"])
def test_what_is_no_image_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "image.png"
    _broken(path, kind)
    with pytest.raises(UnreadableImageError, match=r"Cannot read .*image\.png as an image: .+; give a PNG"):
        read_image(path)


def test_a_photo_is_read_as_it_is_seen_and_as_data_reads_it(tmp_path: Path) -> None:
    turned = Image.new("RGBA", (8, 4), (255, 0, 0, 0))
    turned.putpixel((0, 0), (0, 0, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 3
    turned.save(tmp_path / "turned.png", exif=exif)
    found = read_image(tmp_path / "turned.png")
    assert found.getpixel((7, 3)) == (0, 0, 255), "upside down, as its metadata says"
    assert found.getpixel((0, 0)) == (255, 255, 255), "on white"
    assert found.tobytes() == open_image((tmp_path / "turned.png").read_bytes()).tobytes()


def test_only_one_place_decodes_images_of_people() -> None:
    """Whoever opens an image file otherwise reads one that illume-loop itself wrote."""
    own = {"artifacts/images.py", "bench/rounds.py", "dashboard/thumbnails.py", "evals/geneval.py"}
    found = {
        str(path.relative_to(ROOT / "illume_loop"))
        for path in (ROOT / "illume_loop").rglob("*.py")
        if "Image.open(" in path.read_text(encoding="utf-8")
    }
    assert found == own | {"data/pixels.py"}
