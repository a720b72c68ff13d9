"""Plugs the backends of these tests into any process: an installed distribution of their own, put on its path."""

from __future__ import annotations

import os

from tests.support.golden import ROOT

PLUGIN = ROOT / "tests" / "support" / "plugin"
"""Holds a dist-info folder with entry points, as pip would have written it."""


def plugged(**more: str) -> dict[str, str]:
    """Environment variables, to be added to a process's own, with which it knows the backends of these tests."""
    paths = [str(ROOT), str(PLUGIN), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(path for path in paths if path), **more}
