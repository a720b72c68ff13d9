"""A worker's settings: the run's where a result depends on them, its own for where things are and for its key."""

from __future__ import annotations

from illume_loop.settings import load_settings
from illume_workers.contexts import merged


def test_a_worker_asks_the_runs_teacher_with_its_own_key() -> None:
    of_run = load_settings(
        overrides={"assess.assessor": "teacher", "teacher.url": "http://seer/v1", "teacher.model": "seer"},
        environ={"ILLUME_TEACHER__KEY": "sk-coordinator"},
    ).resolved()
    own = load_settings(environ={"ILLUME_TEACHER__KEY": "sk-worker", "ILLUME_TEACHER__MODEL": "another"})
    settings = merged(own, of_run)
    assert (settings.teacher.url, settings.teacher.model) == ("http://seer/v1", "seer")
    assert settings.teacher.key == "sk-worker"
    assert "sk-" not in str(of_run)
