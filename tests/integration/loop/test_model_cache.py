"""A cache with room for one model frees the old one before it loads the next."""

from __future__ import annotations

import weakref
from pathlib import Path

from illume_loop.artifacts.checkpoints import CheckpointStore
from illume_loop.files import Root
from illume_loop.loop.context import ModelCache, Toolbox
from tests.support.canned_model import CannedModel, load_canned, save_canned, train_canned


def test_one_model_at_a_time(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(Root(str(tmp_path / "store")), tmp_path / "cache")
    digests = [checkpoints.publish(save_canned(tmp_path / f"base{i}", i / 4)).sha256 for i in range(2)]
    alive: weakref.WeakSet[CannedModel] = weakref.WeakSet()
    most: list[int] = []

    def load(path: Path, device: str) -> CannedModel:
        most.append(len(alive))
        model = load_canned(path, device)
        alive.add(model)
        return model

    heard: list[str] = []
    cache = ModelCache(checkpoints, Toolbox(load, train_canned), "cpu", capacity=1, on_load=heard.append)
    for number in (0, 0, 1, 0):
        cache.take(digests[number])
    assert heard == [digests[0], digests[1], digests[0]]
    assert most == [0, 0, 0]
