"""The Compose files say what they mean: valid by the specification, pinned, private, and about commands that exist."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from compose_spec import PyCompose, parse_duration

from illume_loop.cli.main import app
from illume_loop.config import ClusterSettings, load_settings
from tests.support.compose import BASE, FILES, GPU, HOSTS, NEEDED, S3, MissingVariableError, compose, variables
from tests.support.golden import ROOT

WORKERS = ("generator", "assessor", "trainer")
OURS = ("migrate", "loop", *WORKERS, "dashboard")
STORES = ("postgres", "redis")
MONITORING = ("prometheus", "grafana")
PROFILES = {"dashboard": ["dashboard"], "prometheus": ["monitoring"], "grafana": ["monitoring"]}
"""These start only where somebody asks for them."""
OVERRIDES = [*itertools.chain.from_iterable(itertools.combinations((GPU, HOSTS, S3), count) for count in range(4))]


def _services(*overrides: str) -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = compose(BASE, *overrides, environ=NEEDED)["services"]
    return services


@pytest.mark.parametrize("overrides", OVERRIDES, ids=lambda files: "+".join(files) or "alone")
def test_the_files_follow_the_specification(overrides: tuple[str, ...]) -> None:
    PyCompose.from_json(json.dumps(compose(BASE, *overrides, environ=NEEDED))).validate()


def test_the_specification_is_asked() -> None:
    model = compose(BASE)
    model["services"]["loop"]["helthcheck"] = {}
    with pytest.raises(ValueError, match="helthcheck"):
        PyCompose.from_json(json.dumps(model))
    model = compose(BASE)
    del model["volumes"]["data"]
    with pytest.raises(ValueError, match="data"):
        PyCompose.from_json(json.dumps(model)).validate()


def test_there_are_the_services_of_the_design() -> None:
    assert set(_services()) == {*STORES, *OURS, *MONITORING}
    found = {name: service["profiles"] for name, service in _services().items() if "profiles" in service}
    assert found == PROFILES


def test_one_host_needs_no_variable_and_several_need_the_address() -> None:
    compose(BASE, GPU)
    with pytest.raises(MissingVariableError, match="STORES_HOST"):
        compose(BASE, HOSTS)
    with pytest.raises(MissingVariableError, match="ARTIFACTS_URL"):
        compose(BASE, S3)


def test_every_variable_is_explained_and_none_is_idle() -> None:
    explained = set(re.findall(r"(?m)^(?:# )?([A-Z][A-Z0-9_]*)=", (ROOT / ".env.example").read_text(encoding="utf-8")))
    assert set().union(*map(variables, FILES)) == explained


def test_the_example_changes_nothing() -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    example = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert compose(BASE, environ=example) == compose(BASE)


@pytest.mark.parametrize("name", [*STORES, *OURS, *MONITORING])
def test_images_are_pinned(name: str) -> None:
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+(\.\d+)?(-\w+)?", _services()[name]["image"])


def test_nothing_is_published_and_everything_scales() -> None:
    """But for what is on this host's loopback, asks for a password, and starts only when asked for."""
    for name, service in _services().items():
        assert not {"container_name", "network_mode", "hostname"} & service.keys()
        if name not in PROFILES:
            assert not {"ports", "profiles"} & service.keys()
    dashboard, grafana = _services()["dashboard"], _services()["grafana"]
    assert (dashboard["ports"], grafana["ports"]) == (["127.0.0.1:8420:8420"], ["127.0.0.1:3000:3000"])
    assert dashboard["environment"]["ILLUME_DASHBOARD__ADMIN_PASSWORD_FILE"] == "/run/secrets/dashboard_password"
    assert grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana_password"


def test_several_hosts_publish_the_stores_on_the_private_address_only() -> None:
    services = _services(HOSTS)
    assert {
        name: service["ports"] for name, service in services.items() if "ports" in service and name != "grafana"
    } == {
        "postgres": ["10.0.0.1:5432:5432"],
        "redis": ["10.0.0.1:6379:6379"],
        "dashboard": ["127.0.0.1:8420:8420"],
    }
    for name in OURS:
        environment = services[name]["environment"]
        assert environment["ILLUME_STORE__DATABASE_URL"].endswith("?sslmode=verify-full&sslrootcert=/tls/ca.crt")
        assert environment["ILLUME_CLUSTER__REDIS_URL"].startswith("rediss://10.0.0.1:6379/0?ssl_cert_reqs=required")


def test_every_service_that_stays_up_tells_its_health() -> None:
    for name, service in _services().items():
        if name != "migrate":
            check = service["healthcheck"]
            assert check["test"][0] in ("CMD", "CMD-SHELL"), name
            assert parse_duration(check["timeout"]) <= parse_duration(check["interval"]), name


def test_services_wait_for_healthy_stores_and_a_migrated_database() -> None:
    services = _services()
    for name in OURS:
        expected = {"postgres": "service_healthy"}
        if name != "migrate":
            expected |= {"redis": "service_healthy", "migrate": "service_completed_successfully"}
        assert {store: wait["condition"] for store, wait in services[name]["depends_on"].items()} == expected


def test_nobody_waits_for_the_loop_or_a_worker() -> None:
    """Each may be started, scaled and stopped alone."""
    for service in _services().values():
        assert set(service.get("depends_on", {})) <= {*STORES, "migrate"}


def test_a_worker_is_given_the_time_to_drain() -> None:
    deadline = ClusterSettings().drain_deadline_s
    for name in WORKERS:
        assert parse_duration(_services()[name]["stop_grace_period"]) >= deadline + 10


@pytest.mark.parametrize("overrides", OVERRIDES, ids=lambda files: "+".join(files) or "alone")
def test_our_services_are_confined(overrides: tuple[str, ...]) -> None:
    services = _services(*overrides)
    for name in (*OURS, "redis"):
        service = services[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service.get("privileged") is None
    assert services["redis"]["user"] == "redis"


@pytest.mark.parametrize("overrides", OVERRIDES, ids=lambda files: "+".join(files) or "alone")
def test_secrets_are_files_and_nothing_else(overrides: tuple[str, ...]) -> None:
    model = compose(BASE, *overrides, environ=NEEDED)
    assert all(set(secret) == {"file"} for secret in model["secrets"].values())
    for name, service in model["services"].items():
        mounted = {f"/run/secrets/{secret}" for secret in service.get("secrets", ())}
        environment = service.get("environment", {})
        named = {str(value) for value in environment.values() if str(value).startswith("/run/secrets/")}
        # The migration speaks to the database alone, but reads the settings whole.
        assert named == mounted, name
        for variable, value in environment.items():
            assert not re.search("PASSWORD|SECRET|KEY", variable) or variable.endswith("_FILE"), (name, variable)
            assert "@" not in str(value).replace("illume@", ""), (name, variable)


@pytest.mark.parametrize("overrides", OVERRIDES, ids=lambda files: "+".join(files) or "alone")
@pytest.mark.parametrize("name", OURS)
def test_the_environment_is_one_that_the_settings_accept(tmp_path: Any, name: str, overrides: tuple[str, ...]) -> None:
    (tmp_path / "secret").write_text("hunter22hunter22")
    environment = _services(*overrides)[name]["environment"].items()
    files = {key: str(tmp_path / "secret") if key.endswith("_FILE") else value for key, value in environment}
    settings = load_settings(environ={key: value for key, value in files.items() if value is not None})
    assert ":hunter22hunter22@" in settings.store.database_url
    assert ":hunter22hunter22@" in settings.cluster.redis_url
    assert settings.store.artifacts_url


def _our_commands() -> Iterator[Any]:
    for name, service in _services().items():
        for part, words in (
            ("command", service.get("command", [])),
            ("health", service.get("healthcheck", {}).get("test", [])),
        ):
            words = words[1:] if part == "health" else words
            if words[:1] == ["illume-loop"]:
                yield pytest.param(words[1:], id=f"{name}-{part}")


@pytest.mark.parametrize("words", list(_our_commands()))
def test_commands_are_ours(words: list[str]) -> None:
    """The command line accepts each as it stands."""
    command: Any = typer.main.get_command(app)
    words = list(words)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    assert not getattr(command, "commands", {}), f"no command in {words}"
    command.make_context(command.name, words)


def test_each_worker_has_one_role() -> None:
    assert [_services()[name]["command"] for name in WORKERS] == [
        ["illume-loop", "worker", f"--role={name}"] for name in WORKERS
    ]


@pytest.mark.parametrize("overrides", [(), (HOSTS,)], ids=["one", "several"])
def test_scripts_are_valid_shell(overrides: tuple[str, ...]) -> None:
    services = _services(*overrides)
    scripts = [services["redis"]["command"][2], services["redis"]["healthcheck"]["test"][1]]
    scripts += [services["postgres"]["entrypoint"][2]] if overrides else []
    for script in scripts:
        subprocess.run(["sh", "-n", "-c", script], check=True, timeout=10)


def test_gpus_are_reserved_for_workers_only() -> None:
    reserved = {name for name, service in _services(GPU).items() if "deploy" in service}
    assert reserved == set(WORKERS)
    for name in WORKERS:
        (device,) = _services(GPU)[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
        assert _services(GPU)[name]["image"] != _services()[name]["image"]


def _dockerfile() -> list[list[str]]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def test_the_image_runs_as_nobody_special() -> None:
    lines = _dockerfile()
    last_stage = lines[max(index for index, line in enumerate(lines) if line[0] == "FROM") :]
    assert [line[1] for line in last_stage if line[0] == "USER"] == ["10001:10001"]
    assert not [line for line in lines if line[0] == "ADD"]
    assert all(re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", line[1]) for line in lines if line[0] == "FROM")


def test_the_image_has_what_the_build_needs_and_no_more() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source for line in _dockerfile() if line[0] == "COPY" and "--from" not in line[1] for source in line[1:-1]
    }
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    assert set(packages) < copied


def test_the_image_installs_extras_that_exist() -> None:
    (extras,) = [line[1].removeprefix("EXTRAS=") for line in _dockerfile() if line[1].startswith("EXTRAS=")]
    assert set(extras.split(",")) < set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    )
