"""Commands as real processes that need not load their libraries first: forked from one that has loaded them.

Each has its own environment, working directory, output and exit code, and ends as the installed command does; what it
does not show is that the command loads what it needs by itself, for which a few tests start it cold. A line of JSON on
standard input asks for a process, a line on standard output tells its exit code.

    python -m tests.support.warm
"""

from __future__ import annotations

import atexit
import gc
import io
import json
import os
import select
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[2]
STARTING_SECONDS = 240


def run_warm(args: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float) -> tuple[int, str, str]:
    """Run `illume-loop` to its end; its exit code (negative for a signal), standard output and standard error."""
    server = _server()
    assert server.stdin is not None
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        asked = {"args": list(args), "cwd": str(cwd.absolute()), "env": dict(env), "out": str(out), "err": str(err)}
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        code = _answer(server, timeout)["code"]
        return code, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8")


@cache
def _server() -> subprocess.Popen[str]:
    """One for this process; it ends when its standard input does."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.support.warm"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert _answer(server, STARTING_SECONDS) == {"ready": True}
    return server


def _answer(server: subprocess.Popen[str], timeout: float) -> dict[str, Any]:
    assert server.stdout is not None
    ready, _, _ = select.select([server.stdout], [], [], timeout)
    if not ready:
        server.kill()
        server.wait()
        _server.cache_clear()
        raise TimeoutError("the command did not end")
    answer: dict[str, Any] = json.loads(server.stdout.readline())
    return answer


def serve() -> None:
    """Fork a process for each line, until there is none."""
    from illume_loop.telemetry.libraries import QUIET

    os.environ.update(QUIET)
    import illume_loop.models.illume.backend
    import illume_loop.report.page
    import illume_loop.start
    import illume_loop.train.sft  # noqa: F401

    gc.freeze()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(asked)
            _command()
        _, status = os.waitpid(child, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status)}), flush=True)


def _command() -> NoReturn:
    """The command line, to its end. Libraries are not taken apart, which would take longer than most commands."""
    from illume_loop.cli.main import main

    code: object = 1
    try:
        main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1 if code else 0)


def _become(asked: Mapping[str, Any]) -> None:
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.argv = ["illume-loop", *asked["args"]]
    # As of a script: help would name the way in which this module was started.
    sys.modules["__main__"].__package__ = ""
    added = [path for path in asked["env"].get("PYTHONPATH", "").split(os.pathsep) if path and path not in sys.path]
    sys.path[1:1] = added
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, asked["out"], os.O_WRONLY | os.O_CREAT),
        (2, asked["err"], os.O_WRONLY | os.O_CREAT),
    ):
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    # Python reads this variable at its start alone.
    encoding = asked["env"].get("PYTHONIOENCODING", "utf-8")
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper)
        stream.reconfigure(encoding=encoding)


if __name__ == "__main__":
    serve()
