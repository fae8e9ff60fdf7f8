"""Spans of an update's way, for OpenTelemetry: hub and robot reckon the same ids, so that neither has to send them.

One trace for each robot and rollout: ``release -> order -> download -> check -> swap -> probation -> commit``. The hub
tells release and order, the robot the rest, under the order's span. Without a target nothing of it is made.

    file   one line a span, OTLP's JSON (``{"resourceSpans": ...}``), as the collector's ``otlpjsonfile`` reads it
    URL    OTLP over HTTP, where ``pip install 'outrider[otel]'`` is there
"""

import os
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import msgspec

from contracts.errors import TraceTargetError

SPAN_FILE_MAX_BYTES = 16 * 1024**2
"""A full file becomes FILE.1, in the place of the one before it."""
ATTRIBUTE_MAX_CHARS = 200
QUEUE_MAX, EXPORT_MAX_S = 1024, 5.0
_KIND_INTERNAL, _STATUS_ERROR = 1, 2
Attributes = dict[str, str | int]


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of an update's way; wall time in ns."""

    trace_id: str
    span_id: str
    parent_id: str = ""
    name: str
    start_ns: int
    end_ns: int
    attributes: Attributes = {}
    error: str = ""


def trace_id(rollout: int, release: str, robot: str) -> str:
    """32 hexadecimal digits: of one robot in one rollout (its number at the hub, and the release's digest)."""
    return sha256(f"outrider update 1\0{rollout}\0{release}\0{robot}".encode()).hexdigest()[:32]


def span_id(trace: str, name: str, stage: int, start_ns: int = 0) -> str:
    """16 hexadecimal digits; without a start, those that both sides can reckon."""
    return sha256(f"{trace}\0{name}\0{stage}\0{start_ns}".encode()).hexdigest()[:16]


class SpanSink(Protocol):
    """Where spans go. ``write`` neither waits nor raises: a trace is never worth an update."""

    lost: int

    def write(self, span: Span) -> None:
        """Take one."""

    def close(self) -> None:
        """Write out what waits."""


def open_sink(target: str, service: str) -> SpanSink | None:
    """The sink for a file's path or an http(s) URL; None for "".

    Raises:
        TraceTargetError: the file cannot be written, or the URL's packages are missing.
    """
    if not target:
        return None
    if target.startswith(("http://", "https://")):
        return _OtlpSink(target, service)
    return SpanFile(Path(target), service)


class SpanFile:
    """Appends lines, each in one write; not synced."""

    def __init__(self, path: Path, service: str) -> None:
        """Open or make it; raises TraceTargetError."""
        self._path, self._service = path, service
        self.lost = 0
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise TraceTargetError(f"cannot write traces to {path}: {error.strerror}") from None

    def write(self, span: Span) -> None:
        """One line; counted as lost when the disk refuses."""
        line = msgspec.json.encode(otlp_json(span, self._service)) + b"\n"
        try:
            if os.fstat(self._file).st_size + len(line) > SPAN_FILE_MAX_BYTES:
                self._turn()
            os.write(self._file, line)
        except OSError:
            self.lost += 1

    def _turn(self) -> None:
        self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        fresh = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        os.close(self._file)
        self._file = fresh

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def otlp_json(span: Span, service: str) -> dict[str, Any]:
    """A span as OTLP's JSON encoding has it: ids in hexadecimal, times as decimal strings."""
    value: dict[str, Any] = {
        "traceId": span.trace_id, "spanId": span.span_id, "name": span.name, "kind": _KIND_INTERNAL,
        "startTimeUnixNano": str(span.start_ns), "endTimeUnixNano": str(span.end_ns),
        "attributes": [_attribute(name, item) for name, item in span.attributes.items()],
    }  # fmt: skip
    if span.parent_id:
        value["parentSpanId"] = span.parent_id
    if span.error:
        value["status"] = {"code": _STATUS_ERROR, "message": span.error[:ATTRIBUTE_MAX_CHARS]}
    scope = {"scope": {"name": "outrider"}, "spans": [value]}
    resource = {"attributes": [_attribute("service.name", service)]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]}


def _attribute(name: str, item: str | int) -> dict[str, Any]:
    if isinstance(item, int):
        return {"key": name, "value": {"intValue": str(item)}}
    return {"key": name, "value": {"stringValue": item[:ATTRIBUTE_MAX_CHARS]}}


class _OtlpSink:
    """OTLP over HTTP by OpenTelemetry's own exporter, in its own thread, behind a bounded queue."""

    lost = 0

    def __init__(self, endpoint: str, service: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise TraceTargetError(
                f"traces to {endpoint} need more packages ({error}): pip install 'outrider[otel]', or give a file"
            ) from None
        self._resource = Resource({"service.name": service})
        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_MAX_S)
        self._processor = BatchSpanProcessor(exporter, max_queue_size=QUEUE_MAX)

    def write(self, span: Span) -> None:
        """Queue it."""
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

        def context(span_id: str) -> SpanContext:
            ids = int(span.trace_id, 16), int(span_id, 16)
            return SpanContext(*ids, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

        status = Status(StatusCode.ERROR, span.error[:ATTRIBUTE_MAX_CHARS]) if span.error else Status()
        self._processor.on_end(
            ReadableSpan(
                span.name, context(span.span_id), context(span.parent_id) if span.parent_id else None,
                self._resource, span.attributes, status=status, start_time=span.start_ns, end_time=span.end_ns,
            )
        )  # fmt: skip

    def close(self) -> None:
        """Send what waits, for EXPORT_MAX_S at most."""
        self._processor.force_flush(int(EXPORT_MAX_S * 1000))
        self._processor.shutdown()  # type: ignore[no-untyped-call]
