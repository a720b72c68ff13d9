"""Sources in rising precedence, unknown keys refused in every source, every value within its bounds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from illume_loop import redaction
from illume_loop.errors import SettingsError, SettingsFileError
from illume_loop.settings import Settings, field_names, fields, load_settings

ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "configs").glob("*.toml"))


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_each_source_overrides_the_one_before(tmp_path: Path) -> None:
    file = _write(tmp_path / "run.toml", "[run]\nseed = 1\nrounds = 1\n[train]\nepochs = 1\n")
    environ = {"ILLUME_RUN__SEED": "2", "ILLUME_RUN__ROUNDS": "2", "HOME": "/"}

    settings = load_settings(file, {"run.seed": 3, "run.name": None}, environ=environ)

    assert (settings.run.seed, settings.run.rounds, settings.train.epochs) == (3, 2, 1)
    assert settings.run.name == "shapes"
    sources = {key: source for key, source in settings.provenance.items() if source != "default"}
    assert sources == {"run.seed": "flag", "run.rounds": "ILLUME_RUN__ROUNDS", "train.epochs": str(file)}


def test_a_run_keeps_its_settings_but_not_its_machine(tmp_path: Path) -> None:
    url = "postgresql+psycopg://me:secret@db.example/illume"
    started = load_settings(overrides={"run.seed": 3, "runtime.threads": 8, "store.database_url": url}, environ={})
    stored = started.resolved()

    resumed = load_settings(overrides={"run.rounds": 5}, environ={"ILLUME_TRAIN__EPOCHS": "4"}, stored=stored)

    assert (resumed.run.seed, resumed.run.rounds, resumed.train.epochs) == (3, 5, 4)
    assert (resumed.runtime.threads, resumed.store.database_url) == (0, "")
    assert resumed.provenance["run.seed"] == "the run"


def test_a_keyword_of_python_is_written_as_in_the_file() -> None:
    settings = load_settings(environ={"ILLUME_TRAIN__FROM": "parent"})
    assert settings.train.from_ == "parent"
    assert settings.resolved()["train"]["from"] == "parent"


def test_image_ids_are_fitted_at_the_temperature_they_are_drawn_at_unless_another_is_given() -> None:
    assert load_settings(environ={"ILLUME_SAMPLING__TEMPERATURE": "0.6"}).fitting.image_temperature == 0.6
    given = {"ILLUME_SAMPLING__TEMPERATURE": "0.6", "ILLUME_TRAIN__IMAGE_TEMPERATURE": "1.0"}
    assert load_settings(environ=given).fitting.image_temperature == 1.0


def test_weights_that_are_spread_are_fitted_at_temperature_one_only() -> None:
    spread = {"ILLUME_TRAIN__BACKEND": "ray", "ILLUME_TRAIN__STRATEGY": "zero3"}
    with pytest.raises(SettingsError, match=r"'zero3' needs train\.image_temperature = 1"):
        load_settings(environ=spread)
    assert load_settings(environ=spread | {"ILLUME_TRAIN__IMAGE_TEMPERATURE": "1"}).train.strategy == "zero3"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[run]\nsede = 1\n", "unknown key 'run.sede'"),
        ("[run]\nsede = 1\n", "did you mean 'run.seed'"),
        ("[nonsense]\na = 1\n", "unknown key 'nonsense'"),
        ("seed = 1\n", "unknown key 'seed'"),
        ("[train]\nfrom_ = 'base'\n", "unknown key 'train.from_'"),
        ("[train]\nlearning_rate = 2.0\n", "train.learning_rate = 2.0"),
        ("[train]\nlearning_rate = nan\n", "train.learning_rate"),
        ("[run]\nrounds = 'many'\n", "run.rounds = 'many'"),
        ("[curate]\nkeep_per_prompt = 9\n", "keep_per_prompt cannot exceed"),
        (
            "[train]\nobjective = 'dpo'\n[sampling]\nsamples_per_prompt = 1\n[curate]\nkeep_per_prompt = 1\n",
            "train.objective = 'dpo' needs sampling.samples_per_prompt of 2",
        ),
        (
            "[train]\nobjective = 'kto'\n[assess]\nassessor = 'checker'\n[curate]\npair_margin = 2\n",
            "curate.pair_margin cannot exceed 1 with the checker",
        ),
        ("[assess]\nassessor = 'teacher'\n[teacher]\nmodel = 'x'\n", "needs teacher.url and teacher.model"),
        ("[train]\nobjective = 'ppo'\n", "train.objective = 'ppo'"),
        ("[gate]\nguidances = '1, 2'\n", "gate.guidances = '1, 2'"),
        ("[gate]\nguidances = '1,21'\n", "a guidance scale is from 0 to 20"),
        ("[gate]\ntemperatures = '1,0'\n", "a temperature is above 0 and at most 10"),
        ("[gate]\ntemperatures = '1,1.0'\n", "it names a value twice"),
        ("[grpo]\nmax_staleness = 1\n", "grpo.max_staleness above 0 needs grpo.rollouts = 'workers'"),
        ("[train]\nobjective = 'grpo'\n[sampling]\ntop_k = 50\n", "'grpo' needs sampling.top_k = 0"),
        ("[train]\nobjective = 'grpo'\n[sampling]\nreplay_share = 0.1\n", "'grpo' needs sampling.replay_share = 0"),
        ("[train]\nobjective = 'grpo'\nsavings = 'bf16'\n", "'grpo' needs train.savings to be empty"),
        ("[grpo]\nscorers = 'self=1,self=2'\n", "grpo.scorers must name each scorer once"),
        ("[grpo]\nscorers = 'clip=1'\n", "grpo.scorers"),
    ],
)
def test_a_wrong_file_is_refused_and_named(tmp_path: Path, text: str, named: str) -> None:
    file = _write(tmp_path / "run.toml", text)
    with pytest.raises(SettingsError, match="not valid") as caught:
        load_settings(file, environ={})
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "text"), [("absent.toml", None), ("bad.toml", "[run\n"), (".", None)])
def test_an_unreadable_file_is_refused(tmp_path: Path, name: str, text: str | None) -> None:
    path = tmp_path / name
    if text is not None:
        _write(path, text)
    with pytest.raises(SettingsFileError, match="Cannot read the settings file"):
        load_settings(path, environ={})


@pytest.mark.parametrize("variable", ["ILLUME_RUN__SEDE", "ILLUME_SEED", "ILLUME_", "ILLUME_RUN__SEED__X"])
def test_an_unknown_variable_is_refused(variable: str) -> None:
    with pytest.raises(SettingsError, match=f"unknown environment variable '{variable}'"):
        load_settings(environ={variable: "1"})


def test_an_unknown_override_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"unknown key 'run\.sede' in flag"):
        load_settings(overrides={"run.sede": 1}, environ={})


def test_settings_do_not_change() -> None:
    settings = load_settings(environ={})
    with pytest.raises(ValueError, match="frozen"):
        settings.run.seed = 5  # type: ignore[misc]


def test_resolved_is_json_and_loads_again() -> None:
    settings = load_settings(environ={}, overrides={"run.seed": 7})
    assert Settings.model_validate(json.loads(json.dumps(settings.resolved()))).resolved() == settings.resolved()


def test_passwords_are_not_shown() -> None:
    url = "postgresql+psycopg://me:secret@db.example/illume"
    settings = load_settings(environ={"ILLUME_STORE__DATABASE_URL": url})
    assert settings.store.database_url == url
    assert settings.resolved()["store"]["database_url"] == "postgresql+psycopg://me:***@db.example/illume"


def test_the_teachers_key_is_shown_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in what is stored with a run, nor in a text that holds it."""
    monkeypatch.setattr(redaction, "_learned", set())
    held = _write(tmp_path / "key", "sk-from-a-file\n")
    for environ, key in (
        ({"ILLUME_TEACHER__KEY": "sk-variable"}, "sk-variable"),
        ({"ILLUME_TEACHER__KEY_FILE": str(held)}, "sk-from-a-file"),
    ):
        settings = load_settings(environ=environ)
        assert settings.teacher.key == key
        assert settings.resolved()["teacher"]["key"] == "***"
        assert key not in repr(settings)
        assert redaction.redact(f"Bearer {key}") == "Bearer ***"
        assert load_settings(environ={}, stored=settings.resolved()).teacher.key == ""


def test_the_teachers_key_comes_from_no_shared_place(tmp_path: Path) -> None:
    file = _write(tmp_path / "run.toml", '[teacher]\nkey = "sk-secret"\n')
    for path, overrides in ((file, {}), (None, {"teacher.key": "sk-secret"})):
        with pytest.raises(SettingsError, match="set ILLUME_TEACHER__KEY or ILLUME_TEACHER__KEY_FILE") as caught:
            load_settings(path, overrides, environ={})
        assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["host/v1", "ftp://host", "https://", "https://me:pass@host/v1"])
def test_a_teachers_url_is_one_without_a_password(url: str) -> None:
    with pytest.raises(SettingsError, match=r"teacher\.url"):
        load_settings(environ={"ILLUME_TEACHER__URL": url})


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_loads(path: Path) -> None:
    settings = load_settings(path, environ={})
    assert settings.run.name


def test_the_default_config_is_the_defaults() -> None:
    default = load_settings(ROOT / "configs" / "default.toml", environ={})
    assert default.resolved() == load_settings(environ={}).resolved()


def test_the_controls_differ_in_the_judge_only() -> None:
    default = load_settings(environ={}).resolved()
    for name in ("shuffled", "checker"):
        control = load_settings(ROOT / "configs" / f"control-{name}.toml", environ={}).resolved()
        assert control["assess"].pop("assessor") == name
        assert control["run"].pop("name") == f"control-{name}"
        expected = {table: dict(values) for table, values in default.items()}
        del expected["assess"]["assessor"], expected["run"]["name"]
        assert control == expected


def test_every_setting_has_a_sentence_and_a_bound() -> None:
    for key, section, attribute in fields():
        description = section.model_fields[attribute].description
        assert description, key
        assert description.endswith("."), key
    assert len(field_names()) <= 127


def test_setting_names_are_frozen() -> None:
    golden = (ROOT / "tests" / "golden" / "settings.txt").read_text(encoding="utf-8").split()
    assert field_names() == golden, "change tests/golden/settings.txt on purpose"


def test_config_needs_no_torch() -> None:
    code = "import sys, illume_loop.settings; sys.exit('torch' in sys.modules or 'sqlalchemy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_critiques_need_a_model_that_judges() -> None:
    with pytest.raises(SettingsError, match=r"assess\.critiques needs a model as judge"):
        load_settings(None, {"assess.critiques": True, "assess.assessor": "checker"}, environ={})
    load_settings(
        None, {"assess.critiques": True, "assess.assessor": "checker", "assess.also_frozen": True}, environ={}
    )


@pytest.mark.parametrize("setting", [("assess.reading", "combined"), ("assess.abstain_band", 0.1)])
def test_what_needs_a_calibration_says_so(setting: tuple[str, object]) -> None:
    with pytest.raises(SettingsError, match=rf"{setting[0]}.* needs assess\.calibration"):
        load_settings(None, dict([setting]), environ={})
    load_settings(None, dict([setting, ("assess.calibration", "auto")]), environ={})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_settings_file_may_be_saved_by_any_editor(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes("[run]\r\nseed = 7\r\n".encode(encoding))
    assert load_settings(path, environ={}).run.seed == 7


def test_a_shipped_file_is_found_by_its_name_and_a_file_of_that_name_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings(Path("dpo"), environ={}).train.objective == "dpo"
    Path("dpo").write_text("[run]\nseed = 5\n")
    assert load_settings(Path("dpo"), environ={}).run.seed == 5
    with pytest.raises(SettingsFileError, match=r"none of assess-sft, .*janus-pro-7b"):
        load_settings(Path("dpos"), environ={})
