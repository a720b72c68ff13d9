"""What libraries say goes to the log, and never to the terminal of a command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

NOISE = """
import logging, sys, warnings

def noise():
    warnings.warn("old argument", FutureWarning)
    warnings.warn_explicit("goes in 5.40", DeprecationWarning, "/x/site-packages/lib.py", 3, module="__main__")
    logging.warning("said to the root")
    own = logging.getLogger("library")
    own.addHandler(logging.StreamHandler())
    own.addHandler(logging.StreamHandler(sys.stdout))
    own.propagate = False
    own.warning("said with a handler of its own")
    own.getChild("part").error("said by a part of it")
    from tqdm import tqdm
    from tqdm.auto import tqdm as automatic
    for bar in (tqdm, automatic):
        list(bar(range(3), desc="Loading weights"))
"""
MAIN = (
    NOISE
    + """
import illume_loop.cli.main as main

def run(app):
    {before}
    noise()
    logging.getLogger("illume_loop.judge").warning("one of ours")
    return 0

main.exit_codes.run_app = run
main.main()
"""
)
SAID = ("old argument", "goes in 5.40", "said to the root", "said with a handler of its own", "said by a part of it")


def _main(before: str = "pass", *flags: str, **more: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONWARNINGS", "TQDM_DISABLE")}
    code = MAIN.format(before=before)
    return subprocess.run(
        [sys.executable, *flags, "-c", code], env=env | more, capture_output=True, text=True, check=True, timeout=120
    )


def test_a_command_shows_its_own_lines_alone() -> None:
    done = _main()
    assert done.stdout == ""
    assert done.stderr == "one of ours\n"


def test_the_log_has_it_all(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    done = _main(f"main.libraries.log_to(logging.FileHandler({str(log)!r}), 'INFO')")
    assert (done.stdout, done.stderr) == ("", "")
    written = log.read_text(encoding="utf-8")
    for said in (*SAID, "one of ours"):
        assert written.count(said) == 1, said


def test_debug_shows_what_libraries_say() -> None:
    done = _main("main.exit_codes.ERROR_OPTIONS.debug = True")
    for said in SAID:
        assert said in done.stderr


def test_who_asks_python_for_warnings_gets_them() -> None:
    assert "old argument" in _main("pass", "-W", "always").stderr
    assert "old argument" in _main("pass", PYTHONWARNINGS="always").stderr


def test_a_library_that_was_there_before_is_silenced_too() -> None:
    code = NOISE + (
        "from illume_loop.telemetry.libraries import silence\n"
        "early = logging.getLogger('early'); early.addHandler(logging.StreamHandler()); early.propagate = False\n"
        "silence(); early.warning('said'); noise()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stderr == ""
