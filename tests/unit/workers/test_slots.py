"""A slot belongs to one worker of a host at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from illume_workers.slots import device_for, held_slot, num_visible_devices


def test_each_worker_has_a_slot_and_a_clean_folder(tmp_path: Path) -> None:
    with held_slot(tmp_path) as first:
        (first.scratch / "half-made").touch()
        with held_slot(tmp_path) as second:
            assert (first.number, second.number) == (0, 1)
        with held_slot(tmp_path) as third:
            assert third.number == 1
    with held_slot(tmp_path) as again:
        assert again.number == 0
        assert list(again.scratch.iterdir()) == []


def test_devices_are_taken_in_turn() -> None:
    assert [device_for("auto", slot, 2) for slot in range(4)] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert device_for("auto", 3, 0) == "cpu"
    assert device_for("cuda:5", 0, 2) == "cuda:5"


@pytest.mark.parametrize(("visible", "number"), [("", 0), ("-1", 0), ("0", 1), ("2,3", 2)])
def test_only_visible_devices_count(monkeypatch: pytest.MonkeyPatch, visible: str, number: int) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert num_visible_devices() == number
