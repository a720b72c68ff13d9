"""A run that is looked at: metrics are what the database holds, traces lead from the prompts to the decision."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest

from illume_db.rounds_table import rounds_table
from illume_db.samples import samples_page
from illume_db.sessions import open_engine
from illume_loop.loop.run_directory import open_run
from illume_loop.telemetry import tracing
from illume_loop.telemetry.collectors import RunCollector
from tests.support.canned_model import save_canned
from tests.support.canned_run import result, small_settings, start
from tests.support.plugged import plugged
from tests.support.process import run, tiny_config


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[ReadableSpan]]:
    """A run of two rounds and its spans."""
    folder = tmp_path_factory.mktemp("traced")
    exporter = InMemorySpanExporter()
    with tracing.tracing("", exporter):
        start(small_settings(folder / "base"), folder / "run")
    return folder / "run", list(exporter.get_finished_spans())


def test_a_round_is_one_trace_from_its_prompts_to_the_decision(traced: tuple[Path, list[ReadableSpan]]) -> None:
    run_dir, spans = traced
    key = json.loads((run_dir / "run.json").read_text())["key"]
    for index in (1, 2):
        trace_id, root_id = tracing.round_ids(key, index)
        of_round = [span for span in spans if span.context and span.context.trace_id == trace_id]
        [root] = [span for span in of_round if span.parent is None]
        assert root.context is not None
        assert (root.name, root.context.span_id) == ("round", root_id)
        assert root.attributes is not None
        assert root.attributes["illume.state"] in ("promoted", "rejected")
        assert root.attributes["illume.samples"] == 18
        parts = sorted((span for span in of_round if span.parent), key=lambda span: span.start_time or 0)
        names = [span.name for span in parts]
        assert all(span.parent is not None and span.parent.span_id == root_id for span in parts)
        assert names[0] == "plan round"
        for name in ("unit sample", "unit assess", "curate", "unit train", "plan gate", "unit evaluate", "decide"):
            assert name in names, names
        assert names.index("curate") < names.index("unit train") < names.index("plan gate") < names.index("decide")
        assert sum(span.attributes["illume.items"] for span in parts if span.name == "unit sample") == 18  # type: ignore


def test_a_failed_unit_is_a_failed_span() -> None:
    exporter = InMemorySpanExporter()
    with tracing.tracing("", exporter), pytest.raises(RuntimeError), tracing.span("unit sample", "k", 1):
        raise RuntimeError("no")
    [span] = exporter.get_finished_spans()
    assert not span.status.is_ok
    assert span.events[0].name == "exception"


def test_a_run_that_is_traced_is_the_same_run(traced: tuple[Path, list[ReadableSpan]], tmp_path: Path) -> None:
    start(small_settings(tmp_path / "base"), tmp_path / "run")
    assert result(tmp_path / "run") == result(traced[0])
    with tracing.span("nobody looks", "k", 1):
        assert not tracing.is_tracing()


def test_metrics_are_what_the_database_holds(traced: tuple[Path, list[ReadableSpan]]) -> None:
    run_dir, _ = traced
    registry = CollectorRegistry()
    engine = open_engine(f"sqlite:///{run_dir / 'loop.sqlite'}", read_only=True)
    with open_run(run_dir) as run:
        registry.register(RunCollector(engine, run.run_id))
        rows = rounds_table(run.session, run.run_id)
        num_samples = len(samples_page(run.session, run.run_id, limit=1000))
    lines = generate_latest(registry).decode().splitlines()
    engine.dispose()
    assert f'illume_samples{{run="shapes"}} {num_samples}.0' in lines
    assert f'illume_accepted_samples{{run="shapes"}} {sum(row["accepted"] for row in rows)}.0' in lines
    for decision in {row["decision"] for row in rows}:
        count = sum(row["decision"] == decision for row in rows)
        assert f'illume_gate_decisions{{decision="{decision}",run="shapes"}} {count}.0' in lines
    mean = rows[-1]["heldout"]["candidate"]["mean"]
    assert f'illume_heldout_share{{model="candidate",run="shapes"}} {mean}' in lines
    assert 'illume_units{kind="train",run="shapes",state="done"} 2.0' in lines
    assert 'illume_queue_depth{role="generator"} 0.0' in lines


def test_a_database_that_is_away_costs_one_look(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'none' / 'loop.sqlite'}", read_only=True)
    registry = CollectorRegistry()
    registry.register(RunCollector(engine, 1))
    assert generate_latest(registry) == b""


@pytest.fixture
def collector() -> Iterator[tuple[str, list[Span]]]:
    """What an OpenTelemetry collector is over HTTP: its URL, and the spans that it was sent."""
    spans: list[Span] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
            sent = ExportTraceServiceRequest.FromString(body)
            spans.extend(span for of in sent.resource_spans for scope in of.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", spans
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_start_logs_json_serves_its_metrics_and_sends_its_traces(
    tmp_path: Path, collector: tuple[str, list[Span]]
) -> None:
    url, spans = collector
    base = save_canned(tmp_path / "base", 0.4)
    environ = plugged(
        ILLUME_RUN__BASE=str(base),
        ILLUME_RUNTIME__LOG_FORMAT="json",
        ILLUME_RUNTIME__METRICS_ADDRESS="127.0.0.1:29464",
        ILLUME_RUNTIME__TRACES_URL=url,
    )
    ended = run("start", "--config", tiny_config(tmp_path), "--run-dir", "r", cwd=tmp_path, **environ)
    assert ended.code == 0, ended.err
    lines = [json.loads(line) for line in (tmp_path / "r" / "run.log").read_text().splitlines()]
    served = [line["message"] for line in lines if line["logger"] == "illume_loop.telemetry.endpoint"]
    assert len(served) == 1
    assert served[0].startswith("metrics at http://127.0.0.1:294")
    key = json.loads((tmp_path / "r" / "run.json").read_text())["key"]
    done = [line for line in lines if "unit" in line]
    assert {line["run"] for line in done} == {key}
    assert {line["round"] for line in done} == {1, 2}
    roots = [span for span in spans if not span.parent_span_id]
    assert [span.name for span in roots] == ["round", "round"]
    assert {span.trace_id for span in spans} == {span.trace_id for span in roots}
    assert {span.parent_span_id for span in spans} == {b""} | {span.span_id for span in roots}
    assert {"unit sample", "unit assess", "unit train", "unit evaluate", "decide"} <= {span.name for span in spans}
