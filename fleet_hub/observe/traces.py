"""The hub's part of an update's trace, out of the audit log: the release, and the order until the robot's last word."""

from collections.abc import Iterable

from contracts.messages import AuditEntry
from contracts.tracing import Attributes, Span, SpanSink, span_id, trace_id
from fleet_hub.rollout import events as ev

LAST_WORDS = frozenset({"active", "shadowed", "refused", "failed", "reverted"})
"""Reports that end what a robot was told."""
WITHOUT_FAULT = frozenset({"active", "shadowed"})


def spans_of(
    rollout: int, release: str, released_wall_ns: int, entries: Iterable[AuditEntry], robot: str
) -> list[Span]:
    """Spans of a robot's newest last word in a rollout: the update whole, its release, its order; none before it.

    Args:
        rollout: its number.
        release: digest of its bundle.
        released_wall_ns: since when it is in the catalogue.
        entries: of the audit log about that rollout, in order.
        robot: whose update.
    """
    started_ns = ordered_ns = ended_ns = before_ns = stage = 0
    last: ev.Reported | None = None
    for entry in entries:
        event = ev.decode_entry(entry.body)
        if isinstance(event, ev.Started):
            started_ns = entry.wall_ns
        elif isinstance(event, ev.Ordered) and event.robot == robot:
            ordered_ns, stage, last, before_ns = entry.wall_ns, event.stage, None, 0
        elif isinstance(event, ev.Reported) and event.robot == robot and event.state in LAST_WORDS:
            before_ns = ended_ns if last is not None else 0
            last, ended_ns = event, entry.wall_ns
    if last is None or not ordered_ns:
        return []
    trace = trace_id(rollout, release, robot)
    root = span_id(trace, "update", stage)
    about: Attributes = {
        "outrider.robot": robot, "outrider.rollout": rollout, "outrider.stage": stage, "outrider.release": release,
        "outrider.state": last.state,
    }  # fmt: skip
    error = "" if last.state in WITHOUT_FAULT else f"{last.state} {last.code}: {last.reason}"
    begins_ns = min(released_wall_ns or started_ns, started_ns)

    def span(name: str, start_ns: int, end_ns: int, parent: str, error: str = "") -> Span:
        return Span(
            trace_id=trace, span_id=span_id(trace, name, stage), parent_id=parent, name=name, start_ns=start_ns,
            end_ns=max(end_ns, start_ns), attributes=about, error=error,
        )  # fmt: skip

    if before_ns:  # an active release failed, or was taken back: the order's spans have been told
        return [span(last.state, before_ns, ended_ns, root, error)]
    return [
        span("update", begins_ns, ended_ns, "", error),
        span("release", begins_ns, started_ns, root),
        span("order", ordered_ns, ended_ns, root, error),
    ]


def write_all(sink: SpanSink, spans: Iterable[Span]) -> None:
    """Hand them on."""
    for span in spans:
        sink.write(span)
