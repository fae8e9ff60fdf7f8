"""Rollout plans: what is refused before anybody signs, and who belongs to which stage."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import PlanError
from contracts.plan import (
    Gate,
    Plan,
    Release,
    RobotCard,
    Stage,
    Who,
    Window,
    decode_plan,
    encode_plan,
    share_of,
    stages_of,
)

RELEASE = Release("a" * 64, "routing", "v1", 1, 1000)
NOW = datetime(2026, 7, 14, 9, tzinfo=UTC)
GATE = Gate("contacts", 0.05)
KEY = "b" * 64


def stage(name: str = "all", kind: str = "full", **fields: Any) -> Stage:
    values: dict[str, Any] = {"who": Who(rest=True), "soak_s": 1.0, "deadline_s": 60.0}
    return Stage(name=name, kind=kind, **(values | fields))  # type: ignore[arg-type]


def plan(*stages: Stage, **fields: Any) -> Plan:
    values: dict[str, Any] = {"name": "p", "issued": NOW, "expires": NOW + timedelta(days=1)}
    return Plan(release=RELEASE, stages=stages or (stage(),), **(values | fields))


def canary(who: Who, name: str = "canary", **fields: Any) -> Stage:
    return stage(name, "canary", who=who, **fields)


BAD = {
    "no stage at all": lambda: msgspec.convert(
        msgspec.to_builtins(plan()) | {"stages": []}, Plan, strict=False
    ),
    "names nobody": lambda: plan(stage(who=Who())),
    "more than one way": lambda: plan(stage(who=Who(robots=("r1",), percent=3.0))),
    "more than one way ": lambda: plan(stage(who=Who(sites=("north",), rest=True))),
    "lists a robot twice": lambda: plan(stage(who=Who(robots=("r1", "r1")))),
    "r1 is in two driving": lambda: plan(canary(Who(robots=("r1", "r2"))), stage(who=Who(robots=("r1",)))),
    "add up to 101": lambda: plan(canary(Who(percent=51.0)), stage(who=Who(percent=50.0))),
    "nothing is left": lambda: plan(
        canary(Who(percent=50.0)), stage("b", "cohort", who=Who(percent=50.0)), stage()
    ),
    "only the last": lambda: plan(canary(Who(rest=True)), stage("b", "cohort", who=Who(percent=5.0))),
    "have one name": lambda: plan(canary(Who(percent=1.0), "all"), stage()),
    "stages go": lambda: plan(stage(who=Who(percent=50.0)), canary(Who(percent=1.0))),
    "less than deadline_s": lambda: plan(stage(soak_s=60.0)),
    "two gates": lambda: plan(canary(Who(percent=1.0), gates=(GATE, GATE), minimum_trips=1)),
    "say minimum_trips": lambda: plan(canary(Who(percent=1.0), gates=(GATE,))),
    "no robot to compare": lambda: plan(stage(gates=(GATE,), minimum_trips=1)),
    "in shadow": lambda: plan(stage("s", "shadow", who=Who(percent=1.0), gates=(GATE,), minimum_trips=1)),
    "a shadow lasts": lambda: plan(stage("s", "shadow", soak_s=601.0, deadline_s=700.0)),
    "expires after": lambda: plan(expires=NOW),
    "within 90 days": lambda: plan(expires=NOW + timedelta(days=91)),
}


@pytest.mark.parametrize("hint", BAD)
def test_what_a_plan_cannot_say(hint: str) -> None:
    with pytest.raises(
        (PlanError, msgspec.ValidationError), match=hint.strip().replace("no stage at all", "length")
    ):
        encode_plan(BAD[hint]())


def test_at_its_limits_a_plan_is_good() -> None:
    encode_plan(plan(canary(Who(percent=50.0)), stage(who=Who(percent=50.0))))
    encode_plan(plan(stage(soak_s=59.9), expires=NOW + timedelta(days=90)))
    encode_plan(plan(stage("s", "shadow", who=Who(robots=("r1",)), soak_s=600.0, deadline_s=601.0),
                     canary(Who(robots=("r1",))), stage()))  # fmt: skip


def test_one_encoding_and_its_digest() -> None:
    data, digest = encode_plan(plan())
    assert decode_plan(data) == plan()
    assert encode_plan(plan(name="q"))[1] != digest
    for other in (data + b" ", data.replace(b'"on_stop":', b'"unknown":1,"on_stop":'), data[:-1], b""):
        with pytest.raises(PlanError):
            decode_plan(other)


@pytest.mark.parametrize("metric", ["delivery_time", "speed", ""])
def test_an_unknown_gate(metric: str) -> None:
    data, _ = encode_plan(plan(canary(Who(percent=1.0), gates=(GATE,), minimum_trips=1)))
    with pytest.raises(PlanError, match="no rollout plan"):
        decode_plan(data.replace(b'"contacts"', f'"{metric}"'.encode()))


def test_names_go_before_shares() -> None:
    made = plan(
        stage("s", "shadow", who=Who(robots=("r2",))),
        canary(Who(robots=("r1",))),
        stage("north", "cohort", who=Who(sites=("north",), models=("tugger",))),
        stage("half", "cohort", who=Who(percent=50.0)),
        stage(),
    )
    _, digest = encode_plan(made)
    at = lambda name, **labels: stages_of(made, digest, RobotCard(name, KEY, **labels))  # noqa: E731
    assert at("r1") == (1,)
    assert at("r2")[0] == 0
    assert len(at("r2")) == 2
    assert at("r7", site="north", model="tugger") == (2,)
    assert at("r7", site="north")[0] in (3, 4)
    assert at("r1", site="north", model="tugger") == (1, 2)  # a robot in two: who checks the fleet refuses


def test_shares_are_even_and_nobody_is_left_out() -> None:
    made = plan(canary(Who(percent=10.0)), stage("half", "cohort", who=Who(percent=40.0)), stage())
    _, digest = encode_plan(made)
    found = Counter(stages_of(made, digest, RobotCard(f"robot_{n}", KEY))[0] for n in range(2000))
    assert abs(found[0] - 200) < 5 * 13.4  # five standard deviations
    assert abs(found[1] - 800) < 5 * 21.9
    assert sum(found.values()) == 2000


@given(st.text("0123456789abcdef", min_size=64, max_size=64), st.text("abc_-0", min_size=1, max_size=20))
def test_a_share_is_one_number_in_range(digest: str, robot: str) -> None:
    assert 0.0 <= share_of(digest, robot) < 100.0
    assert share_of(digest, robot) == share_of(digest, robot)


@pytest.mark.parametrize(
    ("window", "hour", "is_open"),
    [
        (Window("08:00", "17:00"), 8, True),
        (Window("08:00", "17:00"), 17, False),
        (Window("22:00", "05:00"), 23, True),
        (Window("22:00", "05:00"), 4, True),
        (Window("22:00", "05:00"), 5, False),
    ],
)
def test_windows_go_over_midnight(window: Window, hour: int, is_open: bool) -> None:
    assert window.open(NOW.replace(hour=hour)) is is_open
