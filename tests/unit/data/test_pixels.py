"""Images of strangers: what is decoded, what is refused, and how they become square."""

from __future__ import annotations

import io
import struct
import zlib
from random import Random

import numpy as np
import pytest
from PIL import Image, ImageOps

from illume_loop.data.fields import BadRow
from illume_loop.data.pixels import Fit, open_image
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


def _odd_rational() -> bytes:
    """A JPEG of 6 x 4 pixels, turned, whose EXIF has a rational that Pillow reads and cannot write."""
    offset = 8 + 2 + 12 * 2 + 4
    entries = [(0x0112, 3, struct.pack("<HH", 6, 0)), (0x011A, 10, struct.pack("<I", offset))]
    body = b"".join(struct.pack("<HHI", tag, kind, 1) + value for tag, kind, value in entries)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + body + b"\0\0\0\0" + struct.pack("<ii", -1, 0)
    file = io.BytesIO()
    Image.new("RGB", (6, 4)).save(file, "JPEG", exif=exif)
    return file.getvalue()


def test_damaged_metadata_cost_neither_the_image_nor_its_orientation() -> None:
    assert open_image(_odd_rational()).size == (4, 6)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation_is_pillows(kind: str, orientation: int) -> None:
    image = Image.fromarray(np.arange(32 * 16 * 3, dtype=np.uint16).reshape(16, 32, 3).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, kind, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    assert np.array_equal(np.asarray(open_image(file.getvalue())), np.asarray(expected))


def test_wide_greys_keep_their_range_and_animations_show_their_first_frame() -> None:
    greys = Image.fromarray(np.array([[0, 128 * 257, 65535]], np.uint16))
    assert [open_image(encoded(greys)).getpixel((x, 0))[0] for x in range(3)] == [0, 128, 255]  # type: ignore[index]
    file = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(file, "PNG", save_all=True, append_images=[Image.new("RGB", (4, 4), "blue")])
    assert open_image(file.getvalue()).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_whatever_bytes_hold_they_are_an_image_or_a_bad_row(kind: str) -> None:
    rng = Random(kind)
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, 72.5
    file = io.BytesIO()
    Image.effect_noise((24, 24), 50).convert("RGB").save(file, kind, exif=exif)
    num_bad = 0
    for _ in range(300):
        data = bytearray(file.getvalue())
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            assert open_image(bytes(data[: rng.randrange(len(data) // 2, len(data) + 1)])).mode == "RGB"
        except BadRow:
            num_bad += 1
    assert num_bad
