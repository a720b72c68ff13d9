"""The Compose files say what they mean: valid by the specification, pinned, private, and about commands that exist."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import typer
from compose_spec import PyCompose, parse_duration

from illume_loop.cli.main import app
from illume_loop.settings import ClusterSettings, load_settings
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
    read_by_compose_itself = {"COMPOSE_FILE", "COMPOSE_PROFILES"}
    assert set().union(*map(variables, FILES)) == explained - read_by_compose_itself


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


def test_each_certificate_is_mounted_by_itself() -> None:
    """The folder around them is one that nobody but its owner may enter, and a missing file is an error."""
    services = _services(HOSTS)
    for name in (*STORES, *OURS):
        mounts = [volume for volume in services[name]["volumes"] if isinstance(volume, dict)]
        files = ["ca.crt", "server.crt", "server.key"] if name in STORES else ["ca.crt"]
        assert [mount["source"] for mount in mounts] == [f"./tls/{file}" for file in files], name
        assert [mount["target"] for mount in mounts] == [f"/tls/{file}" for file in files], name
        for mount in mounts:
            assert mount["read_only"] is True
            assert mount["bind"] == {"create_host_path": False}
        named = [str(volume) for volume in services[name]["volumes"] if not isinstance(volume, dict)]
        assert not [volume for volume in named if "tls" in volume], name


@pytest.mark.parametrize("overrides", OVERRIDES, ids=lambda files: "+".join(files) or "alone")
def test_one_service_builds_the_image_and_the_others_never_ask_a_registry(overrides: tuple[str, ...]) -> None:
    """Several builds of one tag replace each other, and each `up --build` would start all services anew."""
    services = _services(*overrides)
    assert [name for name, service in services.items() if "build" in service] == ["migrate"]
    assert len({services[name]["image"] for name in OURS}) == 1
    assert {services[name]["pull_policy"] for name in OURS} == {"never"}


def test_workers_stay_down_only_when_they_were_drained() -> None:
    """`on-failure` starts a container again after any exit code but 0, also when the daemon comes back."""
    services = _services()
    assert {services[name]["restart"] for name in (*WORKERS, "loop")} == {"on-failure"}
    assert {services[name]["restart"] for name in (*STORES, "dashboard", *MONITORING)} == {"unless-stopped"}


def test_the_numbers_of_workers_outlast_any_up() -> None:
    environ = {"GENERATORS": "4", "ASSESSORS": "2", "TRAINERS": "0"}
    services = compose(BASE, environ=environ)["services"]
    assert {name: services[name]["scale"] for name in WORKERS} == {"generator": 4, "assessor": 2, "trainer": 0}
    assert {_services()[name]["scale"] for name in WORKERS} == {1}


def test_workers_are_listed_under_the_name_of_their_host() -> None:
    for name in OURS:
        assert _services()[name]["uts"] == "host"
        assert _services()[name]["environment"]["ILLUME_RUNTIME__HOST_NAME"] == ""


@pytest.mark.parametrize("name", [*STORES, *OURS, *MONITORING])
def test_no_health_check_starts_python(name: str) -> None:
    """Starting it takes a second of CPU, every half a minute, in each container."""
    words = " ".join(_services()[name].get("healthcheck", {}).get("test", []))
    assert not re.search(r"python|illume-loop\b", words)


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
        words = service.get("command", [])
        if words[:1] == ["illume-loop"]:
            yield pytest.param(words[1:], id=name)


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
    scripts = [services["redis"]["command"][2]]
    checks = {name: service["healthcheck"]["test"] for name, service in services.items() if "healthcheck" in service}
    scripts += [check[1] for check in checks.values() if check[0] == "CMD-SHELL"]
    scripts += [services["postgres"]["entrypoint"][2]] if overrides else []
    for script in scripts:
        subprocess.run(["sh", "-n", "-c", script], check=True, timeout=10)
    subprocess.run(["bash", "-n", "-c", checks["dashboard"][3]], check=True, timeout=10)


def test_gpus_are_reserved_for_workers_only() -> None:
    reserved = {name for name, service in _services(GPU).items() if "deploy" in service}
    assert reserved == set(WORKERS)
    for name in WORKERS:
        (device,) = _services(GPU)[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    for name in OURS:
        assert _services(GPU)[name]["image"] != _services()[name]["image"]


def _dockerfile() -> list[list[str]]:
    """The instructions, without the scripts that some of them carry."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    text = re.sub(r"(?ms)(<<'END'.*?)\n.*?^END$", r"\1", text)
    return [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def test_the_image_runs_as_nobody_special() -> None:
    lines = _dockerfile()
    last_stage = lines[max(index for index, line in enumerate(lines) if line[0] == "FROM") :]
    assert [line[1] for line in last_stage if line[0] == "USER"] == ["10001:10001"]
    assert not [line for line in lines if line[0] == "ADD"]
    stages = [line for line in lines if line[0] == "FROM"]
    named = {line[3] for line in stages if line[2:3] == ["AS"]}
    bases = {line[1] for line in stages} - named
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", bases.pop())


def test_the_image_does_not_forbid_the_hub() -> None:
    """A base that is named by its id is fetched; what forbids that is a variable of docker-compose.yml."""
    assert "OFFLINE" not in (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert compose(BASE)["services"]["loop"]["environment"]["HF_HUB_OFFLINE"] == "0"
    assert compose(BASE, environ={"HF_HUB_OFFLINE": "1"})["services"]["loop"]["environment"]["HF_HUB_OFFLINE"] == "1"
    assert "HF_HOME=/cache/huggingface" in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_the_requirements_are_installed_before_the_source_comes() -> None:
    """A change of the source must not install them again."""
    lines = _dockerfile()
    last_stage = max(index for index, line in enumerate(lines) if line[0] == "FROM")
    (installs,) = [index for index, line in enumerate(lines) if "requirements.txt" in line and "install" in line]
    sources = [index for index, line in enumerate(lines) if line[0] == "COPY" and "illume_loop" in line]
    assert installs < min(sources) < last_stage
    package = [index for index, line in enumerate(lines) if line[:2] == ["COPY", "--from=package"]]
    needs = [index for index, line in enumerate(lines) if line[:2] == ["COPY", "--from=needs"]]
    assert last_stage < needs[0] < package[0]


def test_the_image_has_what_the_build_needs_and_no_more() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source for line in _dockerfile() if line[0] == "COPY" and "--from" not in line[1] for source in line[1:-1]
    }
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {Path(package).parts[0] for package in [*wheel["packages"], *wheel["force-include"]]} < copied


def test_the_image_installs_extras_that_exist() -> None:
    (extras,) = [line[1].removeprefix("EXTRAS=") for line in _dockerfile() if line[1].startswith("EXTRAS=")]
    assert set(extras.split(",")) < set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    )


PRIVATE = (
    ".env",
    ".env.gpu",
    "secrets/a",
    "tls/server.key",
    "ca.key",
    "ca.crt",
    "ca.srl",
    "server.csr",
    "configs/a.pem",
)


@pytest.mark.parametrize("path", PRIVATE)
def test_what_is_private_is_neither_committed_nor_sent_to_the_builder(path: str) -> None:
    committed = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines()]
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    sent = [line.removeprefix("**/") for line in lines if line.startswith("**/")]
    for patterns in (committed, sent):
        assert any(fnmatch(part, pattern) for part in path.split("/") for pattern in patterns)


def test_what_the_how_to_makes_is_private() -> None:
    """Every file that a command of the how-tos makes in the checkout."""
    for page in ("run-the-service.md", "use-several-gpu-hosts.md"):
        text = (ROOT / "docs" / "how-to" / page).read_text(encoding="utf-8")
        made = re.findall(r"-(?:keyout|out|CAserial) (\S+)", text)
        assert [path for path in made if re.search(r"ca\.(key|srl)", path) and not path.startswith("~/")] == []


def test_documented_ends_take_every_profile_along() -> None:
    """`down` alone leaves the dashboard running, and with it the volumes that it has mounted."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *map(ROOT.joinpath, FILES)]
    for page in pages:
        for line in page.read_text(encoding="utf-8").splitlines():
            for command in re.findall(r"docker compose[^`|;]*", line):
                assert not re.search(r"\bdown\b", command) or "--profile '*'" in command, f"{page}: {command}"
                assert not re.search(r"--profile (dashboard|monitoring)", command), f"{page}: {command}"
