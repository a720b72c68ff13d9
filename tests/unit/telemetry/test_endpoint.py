"""The endpoint takes the next free port, ends with its block, and tells what is missing before anything begins."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import pytest

from illume_loop.errors import MissingExtraError, SettingsError, UsageError
from illume_loop.settings import RuntimeSettings, load_settings
from illume_loop.telemetry import endpoint
from illume_loop.telemetry.collectors import ProcessCollector
from illume_loop.telemetry.endpoint import serving_metrics
from illume_loop.telemetry.observing import Watch, check_telemetry
from illume_loop.telemetry.tally import TALLY, Tally


def _read(port: int | None) -> str:
    with build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_counts_are_served_until_the_block_ends(taken: int) -> None:
    tally = Tally()
    tally.attempted("sample", "done", 2.5, 8)
    tally.attempted("sample", "failed", 0.5, 8)
    tally.drew(8, 128)
    with serving_metrics(f"127.0.0.1:{taken}", [ProcessCollector(tally)]) as port:
        text = _read(port)
        assert port is not None
        assert port > taken, "the first one was taken"
        for line in (
            'illume_unit_attempts_total{kind="sample",outcome="done"} 1.0',
            'illume_unit_attempts_total{kind="sample",outcome="failed"} 1.0',
            'illume_unit_seconds_total{kind="sample"} 3.0',
            'illume_unit_items_total{kind="sample"} 8.0',
            "illume_images_drawn_total 8.0",
            "illume_image_tokens_drawn_total 128.0",
        ):
            assert line in text.splitlines()
        tally.drew(1, 16)
        assert "illume_images_drawn_total 9.0" in _read(port)
    with pytest.raises(URLError):
        _read(port)


def test_no_address_serves_nothing_and_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with serving_metrics("", []) as port:
        assert port is None
    with pytest.raises(MissingExtraError, match=r"pip install 'illume-loop\[telemetry\]'"):
        check_telemetry(RuntimeSettings(metrics_address="127.0.0.1:9464"))
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    with pytest.raises(MissingExtraError, match=r"runtime\.traces_url"):
        check_telemetry(RuntimeSettings(traces_url="http://127.0.0.1:4318"))


def test_no_free_port_is_told(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "PORTS", 1)
    with pytest.raises(UsageError, match="none of 1 ports"), serving_metrics(f"127.0.0.1:{taken}", []):
        pass
    with pytest.raises(UsageError, match=r"192\.0\.2\.1:9464' cannot be served"), serving_metrics("192.0.2.1:9464", []):
        pass


@pytest.mark.parametrize("address", ["9464", "host:", "host:0", "http://host:1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match=r"runtime\.metrics_address"):
        load_settings(None, {"runtime.metrics_address": address}, environ={})


def test_a_watch_counts_how_attempts_ended() -> None:
    before = TALLY.counts().attempts
    with Watch("k", 1, "assess", "assess/0", 4):
        pass
    with pytest.raises(RuntimeError), Watch("k", 1, "assess", "assess/0", 4):
        raise RuntimeError
    after = TALLY.counts().attempts
    assert [after["assess", how] - before["assess", how] for how in ("done", "failed")] == [1, 1]
