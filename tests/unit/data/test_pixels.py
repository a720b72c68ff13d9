"""Images of strangers: what is decoded, what is refused, and how they become square."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from PIL import Image

from illume_loop.data.pixels import Fit, open_image
from illume_loop.data.rows import BadRow
from tests.support.sources import encoded


def _bomb(side: int) -> bytes:
    """A PNG of a few bytes that says it is large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "unreadable image"),
        (b"<svg/>", "unreadable image"),
        (encoded(Image.new("RGB", (9, 9)))[:-30], "unreadable image"),
        (encoded(Image.new("RGB", (9, 9)), "TIFF"), "unreadable image"),
        (_bomb(8_000), "too many pixels"),
        (_bomb(12_000), "too many pixels"),
        (_bomb(60_000), "too many pixels"),
    ],
)
def test_what_is_no_image_for_us_has_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadRow) as caught:
        open_image(data)
    assert caught.value.reason == reason


def test_images_come_in_rgb_upright_and_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert open_image(encoded(clear)).getpixel((0, 0)) == (255, 255, 255)
    assert open_image(encoded(Image.new("L", (4, 4), 7))).getpixel((0, 0)) == (7, 7, 7)
    turned = Image.new("RGB", (8, 4))
    exif = turned.getexif()
    exif[0x0112] = 6
    buffer = encoded(turned, "JPEG")
    assert open_image(buffer).size == (8, 4)

    file = io.BytesIO()
    turned.save(file, "JPEG", exif=exif)
    assert open_image(file.getvalue()).size == (4, 8)


def test_a_crop_is_of_the_centre_and_its_share_is_counted() -> None:
    image = Image.new("RGB", (120, 60), "blue")
    image.paste("red", (25, 0, 95, 60))
    square = Fit("crop").square(image, 12)
    assert square.size == (12, 12)
    assert set(square.get_flattened_data()) == {(255, 0, 0)}
    assert Fit("crop").cuts(120, 60) == 0.5
    assert [Fit("crop").accepts(*size) for size in ((100, 80), (80, 100), (100, 79))] == [True, True, False]
    assert Fit("crop", max_crop=0.5).accepts(120, 60)


def test_padding_keeps_all_and_adds_white() -> None:
    square = Fit("pad").square(Image.new("RGB", (120, 60), "red"), 12)
    assert [square.getpixel((6, y)) for y in (0, 6, 11)] == [(255, 255, 255), (255, 0, 0), (255, 255, 255)]
    assert Fit("pad").accepts(1000, 1)
