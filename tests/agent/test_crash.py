"""A policy that ends the control process: tried twice, then remembered, and the last good one drives."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.canonical import digest_hex
from edge_agent.infer.dropped import DROPPED_FILE
from edge_agent.infer.starts import KEPT_MAX, STARTS_FILE, TRIES_MAX, StartStore
from edge_agent.update.mailbox import CommsMailbox, new_candidate
from edge_agent.update.slots import BundleFacts, SlotStore
from safety.config import MonitorConfig
from tests.support.agent import ROOT
from tests.support.fleet import make_bundle

WHOLE_TRIAL = 1000
"""More calls than the trial makes: it never crashes."""


def staged(state: Path, keys: Path, version: str, counter: int) -> BundleFacts:
    """A bundle in the spare slot."""
    data = make_bundle(keys, version=version, release_counter=counter, monitor_hash=MonitorConfig().hash())
    path = state / f"{version}.outrider"
    path.write_bytes(data)
    return BundleFacts(digest_hex(data), "routing", version, counter)


@pytest.mark.parametrize(
    ("how", "at_call", "code"),
    [("segfault", 1, -11), ("exit", 15, 0), ("segfault", 30, -11), ("segfault", 40, -11)],
    ids=["first warm run", "warm run", "shadow", "probation"],
)
def test_a_candidate_that_ends_the_process_is_tried_twice(
    tmp_path: Path, keys: Path, how: str, at_call: int, code: int
) -> None:
    slots = SlotStore(tmp_path)
    good = staged(tmp_path, keys, "v1", 1)
    slots.commit(slots.stage(tmp_path / "v1.outrider", good))
    facts = staged(tmp_path, keys, "v2", 2)
    mailbox = CommsMailbox(tmp_path)
    candidate = new_candidate(slots.stage(tmp_path / "v2.outrider", facts), 1)
    mailbox.offer(candidate)
    marks = tmp_path / "slots" / STARTS_FILE

    def control(at_call: int) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "tests.support.crashing_control", str(tmp_path)]
        command += [str(keys / "robots" / "robot_1"), how, str(at_call)]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=100)

    for tried in range(1, TRIES_MAX + 1):
        ended = control(at_call)
        assert (ended.returncode, ended.stdout) == (code, ""), ended.stderr
        assert json.loads(marks.read_bytes()) == {facts.digest: tried}
        assert mailbox.answer_to(candidate) is None
    third = control(at_call)
    assert third.returncode == 0
    assert "candidate v2 refused: the control process ended without a word in 2 of 2" in third.stdout
    assert third.stdout.endswith("drives v1\n")
    answer = mailbox.answer_to(candidate)
    assert answer is not None
    assert not answer.accepted
    assert json.loads(marks.read_bytes()) == {}
    assert [entry["digest"] for entry in json.loads((marks.parent / DROPPED_FILE).read_bytes())] == [
        facts.digest
    ]

    mailbox.offer(new_candidate(candidate.entry, 2))  # offered anew: it does not even run
    fourth = control(1)
    assert "has failed on this robot" in fourth.stdout, fourth
    assert fourth.stdout.endswith("drives v1\n")


def test_one_crash_is_forgiven_when_the_next_trial_passes(tmp_path: Path, keys: Path) -> None:
    slots, mailbox = SlotStore(tmp_path), CommsMailbox(tmp_path)
    facts = staged(tmp_path, keys, "v2", 2)
    candidate = new_candidate(slots.stage(tmp_path / "v2.outrider", facts), 1)
    mailbox.offer(candidate)
    marks = tmp_path / "slots" / STARTS_FILE
    command = [sys.executable, "-m", "tests.support.crashing_control", str(tmp_path)]
    command += [str(keys / "robots" / "robot_1"), "segfault"]
    for at_call, code in ((35, -11), (WHOLE_TRIAL, 0)):
        ended = subprocess.run(
            [*command, str(at_call)], capture_output=True, text=True, cwd=ROOT, timeout=100
        )
        assert ended.returncode == code, ended.stderr
    assert "policy v2 accepted" in ended.stdout
    assert json.loads(marks.read_bytes()) == {}
    answer = mailbox.answer_to(candidate)
    assert answer is not None
    assert answer.accepted


def test_a_committed_policy_that_ends_the_process_gives_way_to_the_one_before(
    tmp_path: Path, keys: Path
) -> None:
    slots = SlotStore(tmp_path)
    for version, counter in (("v1", 1), ("v2", 2)):
        facts = staged(tmp_path, keys, version, counter)
        slots.commit(slots.stage(tmp_path / f"{version}.outrider", facts))
    command = [sys.executable, "-m", "tests.support.crashing_control", str(tmp_path)]
    command += [str(keys / "robots" / "robot_1"), "segfault", "1", "0.2"]
    codes = []
    for _ in range(TRIES_MAX + 1):
        ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=100)
        codes.append(ended.returncode)
    assert codes == [-11, -11, 0]
    assert "committed policy v2 is not used: the control process ended" in ended.stdout
    assert ended.stdout.endswith("drives v1\n")


def test_where_no_mark_can_be_written_no_candidate_runs_and_the_committed_one_does(
    tmp_path: Path, keys: Path
) -> None:
    slots, mailbox = SlotStore(tmp_path), CommsMailbox(tmp_path)
    slots.commit(slots.stage(tmp_path / "v1.outrider", staged(tmp_path, keys, "v1", 1)))
    candidate = new_candidate(slots.stage(tmp_path / "v3.outrider", staged(tmp_path, keys, "v3", 3)), 1)
    mailbox.offer(candidate)
    (tmp_path / "slots" / STARTS_FILE / "in_the_way").mkdir(parents=True)
    command = [sys.executable, "-m", "tests.support.crashing_control", str(tmp_path)]
    command += [str(keys / "robots" / "robot_1"), "exit", str(WHOLE_TRIAL)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert ended.returncode == 0, ended.stderr
    assert "candidate v3 refused: its start cannot be noted" in ended.stdout
    assert ended.stdout.endswith("drives v1\n")


def test_marks_are_bounded_and_a_damaged_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "slots").mkdir()
    told: list[str] = []
    store = StartStore(tmp_path, told.append)
    for number in range(KEPT_MAX + 1):
        assert store.begin(f"{number:064x}") == ""
    again = StartStore(tmp_path, told.append)
    assert again.begin(f"{KEPT_MAX:064x}") == ""
    assert "2 of 2" in StartStore(tmp_path, told.append).begin(f"{KEPT_MAX:064x}")
    assert again.begin(f"{0:064x}") == "", "the oldest gave way"
    assert told == []
    (tmp_path / "slots" / STARTS_FILE).write_text('{"short": 1}')
    assert StartStore(tmp_path, told.append).begin(f"{KEPT_MAX:064x}") == ""
    assert "unreadable" in told[0]
