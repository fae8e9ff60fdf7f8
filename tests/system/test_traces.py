"""An update's way as one trace: a real hub, a real robot's comms, and what each wrote joined by ids alone."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from contracts.canonical import canonical_json
from contracts.decision import DECISION_DTYPE, FLAG_PROBATION, FLAG_SWAPPED
from contracts.errors import TraceTargetError
from contracts.messages import AuditEntry
from contracts.tracing import SPAN_FILE_MAX_BYTES, Span, SpanFile, open_sink, span_id, trace_id
from edge_agent.update.tracing import UpdateTrace
from fleet_hub.observe.traces import spans_of
from fleet_hub.rollout import events as ev
from fleet_hub.store.audit import FIRST
from tests.support.fleet import Fleet, make_bundle, make_keys
from tests.support.waiting import wait_for

WAY = ["release", "order", "download", "check", "swap", "probation", "commit"]


def spans_in(path: Path) -> list[dict[str, Any]]:
    """The spans of a file, with their service."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        (resource,) = json.loads(line)["resourceSpans"]
        (attribute,) = resource["resource"]["attributes"]
        (span,) = resource["scopeSpans"][0]["spans"]
        found.append({**span, "service": attribute["value"]["stringValue"]})
    return found


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Two robots' keys, nothing running."""
    made = Fleet(tmp_path, make_keys(tmp_path / "keys"))
    yield made
    made.close()


def push_swap(fleet: Fleet) -> None:
    """What control would decide: the flip, and probation after it."""
    record = np.zeros(1, DECISION_DTYPE)
    for flags in (FLAG_SWAPPED | FLAG_PROBATION, FLAG_PROBATION, FLAG_PROBATION):
        record["tick"], record["flags"], record["wall_ns"] = fleet.pushed + 1, flags, time.time_ns()
        fleet.pushed += 1
        assert fleet.ring().push(record)
        time.sleep(0.05)


def test_release_to_commit_is_one_trace_in_two_files(fleet: Fleet) -> None:
    hub_file, robot_file = fleet.folder / "hub.jsonl", fleet.folder / "robot.jsonl"
    fleet.start_hub("--no-ingest", "--traces", str(hub_file))
    fleet.ring()
    fleet.start_comms(traces=str(robot_file))
    digest = fleet.release(make_bundle(fleet.keys))
    view = fleet.start_rollout(digest, "robot_1")
    candidate = wait_for(fleet.mailbox().poll, "a candidate for control")
    push_swap(fleet)
    wait_for(lambda: [s for s in spans_in(robot_file) if s["name"] == "swap"], "the swap's span")
    fleet.mailbox().answer(candidate, True)
    wait_for(lambda: len(spans_in(hub_file)) == 3, "the hub's spans")
    wait_for(lambda: len(spans_in(robot_file)) == 5, "the robot's spans")
    spans = {span["name"]: span for span in spans_in(hub_file) + spans_in(robot_file)}
    assert list(spans) == ["update", *WAY]
    assert {span["traceId"] for span in spans.values()} == {trace_id(view.rollout, digest, "robot_1")}
    assert {spans[name]["parentSpanId"] for name in WAY[:2]} == {spans["update"]["spanId"]}
    assert {spans[name]["parentSpanId"] for name in WAY[2:]} == {spans["order"]["spanId"]}
    assert "parentSpanId" not in spans["update"]
    assert {spans[name]["service"] for name in WAY[2:]} == {"outrider-agent"}
    starts = [int(spans[name]["startTimeUnixNano"]) for name in WAY]
    assert starts == sorted(starts)
    for span in spans.values():
        assert int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"])
        assert "status" not in span
    assert spans["swap"]["endTimeUnixNano"] == spans["probation"]["startTimeUnixNano"]


class ListSink:
    """Keeps every span."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.lost = 0

    def write(self, span: Span) -> None:
        self.spans.append(span)

    def close(self) -> None:
        pass


def test_a_refusal_ends_the_trace_with_its_reason() -> None:
    sink, clock = ListSink(), iter(range(10, 100, 10))
    trace = UpdateTrace(sink, "r1", lambda: next(clock))
    trace.phase(3, 0, "d" * 64, "download")
    trace.phase(3, 0, "d" * 64, "download")  # the connection was lost in between
    trace.phase(3, 0, "d" * 64, "check")
    trace.done("refused", "golden_mismatch", "by 0.2")
    trace.done("active")  # of an order that began before this process: nothing to tell
    trace.phase(4, 1, "e" * 64, "download")
    assert [(s.name, s.start_ns, s.end_ns, s.error) for s in sink.spans] == [
        ("download", 10, 30, ""), ("check", 30, 40, "golden_mismatch: by 0.2"),
    ]  # fmt: skip
    assert sink.spans[1].attributes["outrider.state"] == "refused"
    assert {s.parent_id for s in sink.spans} == {span_id(trace_id(3, "d" * 64, "r1"), "order", 0)}


def entries_of(*told: tuple[int, str, ev.RolloutEvent]) -> list[AuditEntry]:
    return [
        AuditEntry(n + 1, wall_ns, 3, who, canonical_json(event).decode(), FIRST, FIRST)
        for n, (wall_ns, who, event) in enumerate(told)
    ]


def test_what_comes_after_active_is_a_span_of_its_own() -> None:
    started = (100, "boris", ev.Started("p" * 64, "plan", "routing@v1", "why", ("anna",), "a" * 64))
    ordered, active = (110, "hub", ev.Ordered("r1", 0)), (150, "r1", ev.Reported("r1", 0, "active"))
    failed = (190, "r1", ev.Reported("r1", 0, "failed", "dropped", "five failures"))
    other = (120, "r2", ev.Reported("r2", 0, "refused", "disk", "full"))
    args = 3, "d" * 64, 50
    assert spans_of(*args, entries_of(started, ordered, other), "r1") == []
    update, release, order = spans_of(*args, entries_of(started, ordered, other, active), "r1")
    assert [(s.start_ns, s.end_ns) for s in (update, release, order)] == [(50, 150), (50, 100), (110, 150)]
    (late,) = spans_of(*args, entries_of(started, ordered, active, other, failed), "r1")
    assert (late.name, late.start_ns, late.end_ns, late.parent_id) == ("failed", 150, 190, update.span_id)
    assert "five failures" in late.error


def test_nothing_is_told_or_imported_when_traces_are_off() -> None:
    trace = UpdateTrace(None, "robot_1")
    trace.phase(1, 0, "d" * 64, "download")
    trace.done("active")
    assert trace._open is None
    asked = "import sys, edge_agent.comms, fleet_hub.server; assert not [m for m in sys.modules if 'opentele' in m]"
    subprocess.run([sys.executable, "-c", asked], check=True, timeout=100)


def test_a_full_file_is_turned_and_a_bad_target_refused(tmp_path: Path) -> None:
    path = tmp_path / "spans.jsonl"
    path.write_bytes(b"x" * (SPAN_FILE_MAX_BYTES - 10))
    sink = SpanFile(path, "hub")
    ids = trace_id(1, "d" * 64, "r"), span_id("t", "n", 0)
    sink.write(Span(trace_id=ids[0], span_id=ids[1], name="n", start_ns=1, end_ns=2))
    sink.close()
    assert (tmp_path / "spans.jsonl.1").stat().st_size == SPAN_FILE_MAX_BYTES - 10
    assert len(spans_in(path)) == 1
    with pytest.raises(TraceTargetError, match="cannot write traces"):
        open_sink(str(tmp_path / "no" / "folder"), "hub")


class Collector(BaseHTTPRequestHandler):
    """An OTLP receiver that keeps what it is sent."""

    came: ClassVar[list[ExportTraceServiceRequest]] = []

    def do_POST(self) -> None:
        """Take a batch."""
        request = ExportTraceServiceRequest()
        request.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).came.append(request)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quietly."""


def test_otlp_carries_the_same_ids() -> None:
    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        sink = open_sink(f"http://127.0.0.1:{server.server_port}/v1/traces", "outrider-hub")
        assert sink is not None
        trace = trace_id(1, "d" * 64, "robot_1")
        parent, own = span_id(trace, "order", 0), span_id(trace, "check", 0, 5)
        sink.write(
            Span(
                trace_id=trace, span_id=own, parent_id=parent, name="check", start_ns=5, end_ns=9,
                attributes={"outrider.robot": "robot_1"}, error="golden_mismatch: by 0.2",
            )
        )  # fmt: skip
        sink.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    (request,) = Collector.came
    (span,) = request.resource_spans[0].scope_spans[0].spans
    assert (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()) == (trace, own, parent)
    assert (span.start_time_unix_nano, span.end_time_unix_nano, span.status.code) == (5, 9, 2)
