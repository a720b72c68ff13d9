"""Which settings of a run may differ when it is continued."""

from __future__ import annotations

from illume_loop.loop.opening import changed_settings
from illume_loop.settings import Settings, load_settings

NOW = Settings().resolved()


def _without(section: str, name: str) -> dict[str, dict[str, object]]:
    return NOW | {section: {key: value for key, value in NOW[section].items() if key != name}}


def test_a_run_of_a_release_without_a_setting_goes_on_with_its_default() -> None:
    assert changed_settings(_without("assess", "questions"), NOW) == []
    other = load_settings(None, {"assess.questions": "self"}, environ={}).resolved()
    assert changed_settings(_without("assess", "questions"), other) == ["assess.questions"]


def test_what_matters_must_stay_and_the_rest_may_change() -> None:
    other = load_settings(None, {"run.rounds": 9, "assess.reading": "yes-no"}, environ={}).resolved()
    assert changed_settings(NOW, other) == ["assess.reading"]
