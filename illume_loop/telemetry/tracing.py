"""OpenTelemetry traces, one for each round: from its prompts to the gate's decision, across processes and hosts.

The trace of a round, and the span that is its root, have ids that follow from the run's key and the round's number. So
coordinator and workers, on any host and after any restart, add to the same trace without telling each other anything.
Nothing here does anything, or is imported, unless `runtime.traces_url` is set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from illume_loop.errors import MissingExtraError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer
    from opentelemetry.util.types import AttributeValue

SERVICE = "illume-loop"
_TRACER: Tracer | None = None
_FORCED: list[tuple[int, int]] = []
"""The ids (trace, span) of the next span: the root of a round is made last and has the ids that its parts name."""


def check_traces(url: str) -> None:
    """Raises MissingExtraError where an endpoint is set and the packages are not there."""
    if url:
        try:
            import opentelemetry.exporter.otlp.proto.http
            import opentelemetry.sdk  # noqa: F401
        except ImportError as error:
            raise MissingExtraError(feature="runtime.traces_url", extra="telemetry") from error


@contextmanager
def tracing(url: str, exporter: SpanExporter | None = None) -> Iterator[None]:
    """Send spans to the OTLP endpoint `url` (http://host:4318), or to `exporter`, while the block lasts.

    An empty `url` without an exporter traces nothing. Raises MissingExtraError. What is not sent when the block ends
    is sent then; an endpoint that is away costs spans and never the run.
    """
    global _TRACER
    if not url and exporter is None:
        yield
        return
    provider = _provider(url, exporter)
    _TRACER = provider.get_tracer(SERVICE)
    try:
        yield
    finally:
        _TRACER = None
        provider.shutdown()


def _provider(url: str, exporter: SpanExporter | None) -> TracerProvider:
    check_traces(url)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Ids(RandomIdGenerator):
        def generate_trace_id(self) -> int:
            return _FORCED[-1][0] if _FORCED else super().generate_trace_id()

        def generate_span_id(self) -> int:
            return _FORCED[-1][1] if _FORCED else super().generate_span_id()

    provider = TracerProvider(resource=Resource.create({"service.name": SERVICE}), id_generator=Ids())
    processor = (
        SimpleSpanProcessor(exporter)
        if exporter is not None
        else BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{url.rstrip('/')}/v1/traces", timeout=5))
    )
    provider.add_span_processor(processor)
    return provider


def is_tracing() -> bool:
    """Whether spans go anywhere."""
    return _TRACER is not None


@contextmanager
def span(name: str, run_key: str, round_index: int, **attributes: AttributeValue) -> Iterator[None]:
    """A span of a round's trace around the block, which is recorded as failed where the block raises."""
    if _TRACER is None:
        yield
        return
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    trace_id, root_id = round_ids(run_key, round_index)
    root = SpanContext(trace_id, root_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    about = {"illume.run": run_key, "illume.round": round_index, **_named(attributes)}
    context = set_span_in_context(NonRecordingSpan(root))
    with _TRACER.start_as_current_span(name, context, attributes=about):
        yield


def round_ended(run_key: str, round_index: int, began: datetime, ended: datetime, **attributes: AttributeValue) -> None:
    """The root span of a round, made when its beginning and its end are known."""
    if _TRACER is None:
        return
    from opentelemetry.context import Context

    about = {"illume.run": run_key, "illume.round": round_index, **_named(attributes)}
    _FORCED.append(round_ids(run_key, round_index))
    try:
        root = _TRACER.start_span("round", Context(), attributes=about, start_time=_nanoseconds(began))
    finally:
        _FORCED.pop()
    root.end(_nanoseconds(ended))


def round_ids(run_key: str, round_index: int) -> tuple[int, int]:
    """(trace id, id of the root span) of a round."""
    digest = hashlib.sha256(f"{run_key}/{round_index}".encode()).digest()
    return int.from_bytes(digest[:16], "big"), int.from_bytes(digest[16:24], "big")


def _named(attributes: dict[str, AttributeValue]) -> dict[str, AttributeValue]:
    return {f"illume.{name}": value for name, value in attributes.items()}


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1e9)
