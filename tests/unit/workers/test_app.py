"""The Celery app says what its module promises."""

from __future__ import annotations

import pytest

from illume_loop.errors import UsageError
from illume_loop.settings import ClusterSettings
from illume_workers.app import FIRST_PAUSE_S, configuration, make_app, tries_within
from illume_workers.messages import KINDS_OF_ROLE, checked_roles, queue_of


def test_json_only_late_acknowledgement_and_one_message_at_a_time() -> None:
    app = make_app(ClusterSettings(redis_url="redis://:secret@localhost:1/2", visibility_timeout_s=77))
    assert app.conf.accept_content == ["json"]
    assert app.conf.task_serializer == "json"
    assert app.conf.task_acks_late
    assert app.conf.task_reject_on_worker_lost
    assert app.conf.worker_prefetch_multiplier == 1
    assert app.conf.worker_pool == "solo"
    assert app.conf.result_backend is None
    assert app.conf.broker_transport_options["visibility_timeout"] == 77
    assert not app.conf.worker_enable_remote_control


def test_tls_is_passed_through() -> None:
    url = "rediss://redis.example:6380/0?ssl_cert_reqs=required&ssl_ca_certs=/etc/ca.pem"
    assert configuration(ClusterSettings(redis_url=url))["broker_url"] == url
    connection = make_app(ClusterSettings(redis_url=url)).connection_for_read()
    assert connection.ssl


@pytest.mark.parametrize("seconds", [0.1, 1, 2, 5.9, 60, 3600])
def test_the_tries_to_connect_last_as_long_as_is_set(seconds: float) -> None:
    tries = tries_within(seconds)
    spent = sum(FIRST_PAUSE_S * number for number in range(1, tries))
    assert spent >= seconds
    assert spent - FIRST_PAUSE_S * (tries - 1) < seconds


def test_roles_are_those_of_the_design() -> None:
    assert KINDS_OF_ROLE == {
        "generator": ("sample",),
        "assessor": ("assess", "evaluate"),
        "trainer": ("train",),
    }
    assert queue_of("trainer") == "illume.trainer"
    assert checked_roles(["trainer", "generator", "trainer"]) == ("generator", "trainer")


@pytest.mark.parametrize("roles", [[], ["driver"], ["generator", "Trainer"]])
def test_other_roles_are_refused(roles: list[str]) -> None:
    with pytest.raises(UsageError, match="--role generator"):
        checked_roles(roles)
