"""A terminal that says it can is sent the image itself; any other is told the path."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios

import pytest

CODE = """
from PIL import Image
from rich.console import Console
from illume_loop.cli.images import print_picture
print_picture(Console(), Image.new("RGB", (48, 48), "red"), "/run/images/ab.png")
"""
NO_SIXEL, KITTY = b"\x1b[?62;22c", b"\x1b_Gi=1;OK\x1b\\"
PATH = b"/run/images/ab.png"


def _shown_in(answers: bytes) -> bytes:
    """What a terminal that gives these answers is sent. They lie ready, so that no clock decides."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 1000, 800))
    os.write(master, answers)
    environ = {**os.environ, "TERM": "xterm-256color"}
    process = subprocess.Popen([sys.executable, "-c", CODE], stdin=slave, stdout=slave, stderr=slave, env=environ)
    os.close(slave)
    seen = b""
    try:
        while select.select([master], [], [], 60)[0]:
            try:
                seen += os.read(master, 65_536)
            except OSError:  # its end
                break
    finally:
        assert process.wait(timeout=60) == 0, seen
        os.close(master)
    return seen


@pytest.mark.parametrize(("answers", "sent"), [(b"\x1b[?62;4;22c", b"\x1bP"), (NO_SIXEL + KITTY, b"\x1b_G")])
def test_a_terminal_that_can_is_sent_the_image(answers: bytes, sent: bytes) -> None:
    seen = _shown_in(answers)
    assert PATH not in seen
    asked = 1 if sent == b"\x1b_G" else 0  # kitty's question begins as its images do
    assert seen.count(sent) > asked


def test_a_terminal_that_cannot_is_told_the_path() -> None:
    assert PATH in _shown_in(NO_SIXEL)
