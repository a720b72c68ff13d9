from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from illume_loop.errors import CorruptArtifactError, NotFoundError
from illume_loop.models.registry import load_model
from illume_loop.settings import TrainSettings
from illume_loop.train.candidates import train_candidate
from tests.support.canned_model import load_canned, save_canned
from tests.support.plugged import plugged
from tests.support.process import environment

TRAINS = """
import sys
from pathlib import Path
import numpy as np
from illume_loop.settings import TrainSettings
from illume_loop.loop.context import default_toolbox
from illume_loop.protocols import DrawRow

base, out = map(Path, sys.argv[1:])
tools = default_toolbox()
steps = []
rows = [DrawRow("a red circle", np.zeros(8, np.int32))]
tools.train(base, rows, out, TrainSettings(), 0, lambda done, total: steps.append((done, total)))
print(steps, tools.load_model(out, "cpu").skill, "torch" in sys.modules)
"""


def test_a_plugged_backend_loads_and_trains_in_another_process_without_torch(tmp_path: Path) -> None:
    base, out = save_canned(tmp_path / "base", 0.5), tmp_path / "out"
    command = [sys.executable, "-c", TRAINS, str(base), str(out)]
    done = subprocess.run(command, env=environment(**plugged()), capture_output=True, text=True, check=True)
    skill = load_canned(out, "cpu").skill
    assert skill != 0.5
    assert done.stdout == f"[(1, 2), (2, 2)] {skill} False\n"


def test_a_type_that_no_backend_serves_is_named(tmp_path: Path) -> None:
    base = save_canned(tmp_path / "base", 0.5)
    with pytest.raises(NotFoundError, match="backend for model type 'canned'"):
        load_model(base)
    with pytest.raises(NotFoundError, match="backend for model type 'canned'"):
        train_candidate(base, [], tmp_path / "out", TrainSettings(), 0, lambda *_: None)


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_config_that_names_no_type_is_a_damaged_checkpoint(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CorruptArtifactError, match=str(tmp_path)):
        load_model(tmp_path)
