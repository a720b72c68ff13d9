"""OpenTelemetry traces, one for each round: from its prompts to the gate's decision, across processes and hosts.

The ids of a round's trace and of its root span follow from the run's key and the round's number. So the coordinator and
the workers, on any host and after any restart, add to the same trace without exchanging ids. Unless
`runtime.traces_url` is set, nothing is traced and OpenTelemetry is not imported.
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
"""The ids (trace, span) of the next span. A round's root span is made last, with the ids that its parts name."""


def check_traces(url: str) -> None:
    """Raise MissingExtraError if an endpoint is set and the packages are missing."""
    if url:
        try:
            import opentelemetry.exporter.otlp.proto.http
            import opentelemetry.sdk  # noqa: F401
        except ImportError as error:
            raise MissingExtraError(feature="runtime.traces_url", extra="telemetry") from error


@contextmanager
def tracing(url: str, exporter: SpanExporter | None = None) -> Iterator[None]:
    """Send spans to the OTLP endpoint `url` (http://host:4318), or to `exporter`, while the block lasts.

    With an empty `url` and no exporter, nothing is traced. Spans that are left when the block ends are sent then. If
    the endpoint is away, spans are lost, but the run continues. Raises MissingExtraError.
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
    """Return whether spans are sent or exported."""
    return _TRACER is not None


@contextmanager
def span(name: str, run_key: str, round_index: int, **attributes: AttributeValue) -> Iterator[None]:
    """Record the block as a span of a round's trace. The span is recorded as failed if the block raises."""
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
    """Record the root span of a round, after its beginning and its end are known."""
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
    """Return (trace id, id of the root span) of a round."""
    digest = hashlib.sha256(f"{run_key}/{round_index}".encode()).digest()
    return int.from_bytes(digest[:16], "big"), int.from_bytes(digest[16:24], "big")


def _named(attributes: dict[str, AttributeValue]) -> dict[str, AttributeValue]:
    return {f"illume.{name}": value for name, value in attributes.items()}


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1e9)
