"""The host's state machine by itself: what it believes, and what it does not."""

from firmware_interface.link.machine import (
    GREETING_MAX_NS,
    HEARTBEAT_EVERY_NS,
    HELLO_EVERY_NS,
    MS,
    SILENT_MAX_NS,
    TIME_EVERY_NS,
    TIME_FIRST_EVERY_NS,
    TIME_SAMPLES_MIN,
    Event,
    LinkMachine,
    LinkState,
    Lost,
    Mismatch,
    Opened,
)
from firmware_interface.protocol import codec, frames
from firmware_interface.protocol.frames import AnyFrame

SESSION = 0x10001
NONCE = 77
BOARD_US = 5_000_000
"""What the board's clock shows more."""


class Host:
    """A machine, what it sent, and the time."""

    def __init__(self) -> None:
        self.sent: list[AnyFrame] = []
        self.now_ns = 1000 * MS
        self.machine = LinkMachine(lambda: NONCE + 2**32, self._take)
        self._reader = codec.Reader()

    def _take(self, data: bytes) -> bool:
        self.sent += self._reader.feed(data)
        return True

    def after(self, ns: int) -> list[Event]:
        """Time passes at once."""
        self.now_ns += ns
        return self.machine.poll(self.now_ns)

    def hear(self, *came: AnyFrame) -> list[Event]:
        """Frames come."""
        return self.machine.receive(b"".join(map(codec.encode, came)), self.now_ns)

    def greet(self) -> None:
        """As far as the answered hello."""
        self.machine.start(self.now_ns)
        assert self.after(0) == []
        assert self.hear(hello()) == []
        assert self.machine.state is LinkState.SYNCING

    def answer_time(self) -> list[Event]:
        """Answer the newest question about the time."""
        asked = next(f for f in reversed(self.sent) if isinstance(f, frames.TimeRequest))
        board_us = self.now_ns // 1000 + BOARD_US
        return self.hear(frames.TimeReply(asked.host_us, board_us, board_us))

    def opened(self) -> "Host":
        """As far as an open link."""
        self.greet()
        for count in range(1, TIME_SAMPLES_MIN + 1):
            assert self.after(TIME_FIRST_EVERY_NS) == []
            found = self.answer_time()
            assert found == ([Opened(SESSION, 5)] if count == TIME_SAMPLES_MIN else [])
        assert self.machine.state is LinkState.OPEN
        self.hear(
            frames.Heartbeat(SESSION, 0)
        )  # the time that it tells is no sign of life, for anybody may ask it
        return self

    def count(self, kind: type[AnyFrame]) -> int:
        """How many of a kind were sent."""
        return sum(isinstance(frame, kind) for frame in self.sent)


def hello(session: int = SESSION, schema: int = frames.SCHEMA_HASH, nonce: int = NONCE) -> frames.Hello:
    """The board's answer."""
    return frames.Hello(frames.SCHEMA_REVISION, schema, nonce, session, 5)


def test_it_greets_at_its_pace_and_gives_up() -> None:
    host = Host()
    host.machine.start(host.now_ns)
    for _ in range(3):
        host.after(0)
        host.after(HELLO_EVERY_NS - 1)
        host.after(1)
    assert host.sent == [frames.Hello(frames.SCHEMA_REVISION, frames.SCHEMA_HASH, NONCE, 0, 0)] * 4
    left_ns = GREETING_MAX_NS - 3 * HELLO_EVERY_NS
    assert host.after(left_ns) == []
    assert host.after(1) == [Lost("no answer to hello", False)]
    assert host.machine.state is LinkState.CLOSED
    assert host.after(HELLO_EVERY_NS) == []
    assert host.count(frames.Hello) == 5


def test_it_opens_with_the_boards_session_and_clock() -> None:
    host = Host().opened()
    assert (host.machine.session, host.machine.capabilities) == (SESSION, 5)
    # The best answer is the first, 30 ms old: 200 ppm of that are 6 us.
    assert host.machine.stamp_us(host.now_ns) == host.now_ns // 1000 + BOARD_US - 6
    host.machine.close()
    assert (host.machine.state, host.machine.session) == (LinkState.CLOSED, 0)


def test_before_the_first_session_there_is_none() -> None:
    machine = Host().machine
    assert (machine.state, machine.session, machine.capabilities) == (LinkState.CLOSED, 0, 0)
    assert Host().hear(frames.Heartbeat(0, 1)) == []


def test_before_a_clock_is_known_commands_are_stamped_zero() -> None:
    host = Host()
    assert host.machine.stamp_us(host.now_ns) == 0
    host.opened()
    host.machine.start(host.now_ns)
    assert host.machine.stamp_us(host.now_ns) == 0, "of another session it is not known either"


def test_nothing_counts_before_the_hello_and_none_of_a_strangers() -> None:
    host = Host()
    assert host.hear(hello(), frames.Heartbeat(SESSION, 1)) == []
    assert host.machine.state is LinkState.CLOSED
    host.machine.start(host.now_ns)
    early = frames.Heartbeat(SESSION, 1), frames.TimeReply(0, 1, 2), frames.Bumper(1, 0, 0)
    assert host.hear(*early, hello(nonce=NONCE + 1)) == []
    assert host.machine.state is LinkState.GREETING


def test_another_schema_is_said_once_and_no_session_is_none() -> None:
    for wrong in (hello(schema=1), hello(session=0)):
        host = Host()
        host.machine.start(host.now_ns)
        found = host.hear(wrong, wrong)
        assert found == [Mismatch(frames.SCHEMA_REVISION, frames.SCHEMA_REVISION, wrong.schema)]
        # It says why for as long as the line is there, and asks for nothing else.
        assert host.after(GREETING_MAX_NS + 1) == []
        assert host.machine.state is LinkState.GREETING
        host.machine.start(host.now_ns)
        assert len(host.hear(wrong)) == 1, "a new line, a new answer"


def test_a_new_line_begins_anew() -> None:
    host = Host().opened()
    host.machine.start(host.now_ns)
    assert (host.machine.state, host.machine.session) == (LinkState.GREETING, 0)
    assert host.hear(frames.Heartbeat(SESSION, 1)) == []


def test_a_repeated_hello_is_nothing_and_another_session_ends_it() -> None:
    host = Host().opened()
    assert host.hear(hello()) == []
    assert host.machine.state is LinkState.OPEN
    assert host.hear(hello(session=SESSION + 1)) == [Lost("the board opened another session", True)]


def test_feedback_of_this_session_is_passed_on_of_none_ignored_of_another_the_end() -> None:
    host = Host().opened()
    mine, none, other = (frames.Heartbeat(session, 3) for session in (SESSION, 0, SESSION + 1))
    battery = frames.Battery(1, 24.0, 1.0, 0.5)
    assert host.hear(mine, battery, none) == [mine, battery]
    found = host.hear(other, mine)
    assert [type(event) for event in found] == [Lost]
    assert host.machine.state is LinkState.CLOSED


def test_silence_ends_it_and_what_is_not_of_the_session_is_silence() -> None:
    host = Host().opened()
    assert host.after(SILENT_MAX_NS) == []
    host.hear(frames.Heartbeat(0, 1), frames.TimeReply(1, 2, 3))
    assert host.after(1) == [Lost("nothing came for 500 ms", True)]
    for sign in (hello(), frames.Heartbeat(SESSION, 1), frames.Bumper(1, 0, 0)):
        host = Host().opened()
        host.after(SILENT_MAX_NS)
        host.hear(sign)
        assert host.after(1) == []


def test_a_bare_greeting_does_not_time_out_as_silence() -> None:
    host = Host()
    host.machine.start(host.now_ns)
    assert host.after(SILENT_MAX_NS + 1) == []
    host.hear(hello())
    assert host.after(SILENT_MAX_NS) == []
    assert host.after(1) == [Lost("nothing came for 500 ms", True)]


def test_the_time_is_asked_often_at_first_then_now_and_then() -> None:
    host = Host()
    host.greet()
    for count in range(1, 4):
        host.after(0)
        assert host.count(frames.TimeRequest) == count
        host.answer_time()
        host.after(TIME_FIRST_EVERY_NS - 1)
        assert host.count(frames.TimeRequest) == count
        host.now_ns += 1
    host = Host().opened()
    asked = host.count(frames.TimeRequest)
    host.after(TIME_EVERY_NS - 1)
    assert host.count(frames.TimeRequest) == asked
    host.after(1)
    assert host.count(frames.TimeRequest) == asked + 1


def test_only_the_answer_to_the_last_question_sets_the_clock_and_once() -> None:
    host = Host().opened()
    samples = len(host.machine.clock)
    host.after(TIME_EVERY_NS)
    asked = next(f for f in reversed(host.sent) if isinstance(f, frames.TimeRequest))
    right = frames.TimeReply(asked.host_us, 1_000_000, 1_000_000)
    host.hear(right._replace(host_us=asked.host_us - 1))
    assert len(host.machine.clock) == samples
    host.hear(right, right)
    assert len(host.machine.clock) == samples + 1


def test_answers_to_what_was_never_asked_set_no_clock() -> None:
    host = Host()
    host.greet()
    for host_us in (0, 1, 2):
        assert host.hear(frames.TimeReply(host_us, 9, 9)) == []
    assert len(host.machine.clock) == 0
    host.opened()
    for host_us in (0, 1, 2):
        assert host.hear(frames.TimeReply(host_us, 9, 9)) == []
    assert len(host.machine.clock) == TIME_SAMPLES_MIN


def test_heartbeats_go_out_at_their_pace_and_count_up() -> None:
    host = Host().opened()
    before = [f for f in host.sent if isinstance(f, frames.Heartbeat)]
    host.after(HEARTBEAT_EVERY_NS)
    host.after(HEARTBEAT_EVERY_NS - 1)
    host.after(1)
    beats = [f for f in host.sent if isinstance(f, frames.Heartbeat)][len(before) :]
    assert [beat.session for beat in beats] == [SESSION] * 2
    assert beats[1].beat == beats[0].beat + 1
    host.machine._heartbeats = 2**32 - 1
    host.after(HEARTBEAT_EVERY_NS)
    assert host.sent[-1] == frames.Heartbeat(SESSION, 0), "it wraps"


def test_advice_names_the_older_side() -> None:
    for board, words in ((1, "the board is older"), (3, "this host is older"), (2, "same revision")):
        assert words in Mismatch(2, board, 0xBAD).advice()
        assert f"revision {board} (schema 00000BAD)" in Mismatch(2, board, 0xBAD).advice()


def test_a_line_with_a_slow_answer_opens_too() -> None:
    """As a serial adapter's does that hands bytes over every 16 ms."""
    host, delay_ns = Host(), 16 * MS
    host.greet()
    asked_ns: list[int] = []
    for _ in range(TIME_SAMPLES_MIN * (delay_ns // MS + 1)):
        before = host.count(frames.TimeRequest)
        assert host.after(MS) == []
        asked_ns += [host.now_ns] * (host.count(frames.TimeRequest) - before)
        if host.now_ns - asked_ns[-1] == delay_ns:
            host.answer_time()
    assert host.machine.state is LinkState.OPEN
    assert len(asked_ns) == TIME_SAMPLES_MIN


def test_a_lost_question_is_asked_again_and_no_answer_at_all_ends_the_session() -> None:
    host = Host()
    host.greet()
    host.after(TIME_FIRST_EVERY_NS)
    assert host.count(frames.TimeRequest) == 1
    host.after(TIME_EVERY_NS - 1)
    assert host.count(frames.TimeRequest) == 1
    host.after(1)
    assert host.count(frames.TimeRequest) == 2
    waited_ns = TIME_FIRST_EVERY_NS + TIME_EVERY_NS
    while waited_ns < GREETING_MAX_NS:
        step_ns = min(HELLO_EVERY_NS, GREETING_MAX_NS - waited_ns)
        host.hear(frames.Heartbeat(SESSION, 1))
        assert host.after(step_ns) == []
        waited_ns += step_ns
    host.hear(frames.Heartbeat(SESSION, 1))
    assert host.after(1) == [Lost("no answer to the time within 200 ms", True)]
    assert host.machine.state is LinkState.CLOSED


def test_an_open_link_is_not_ended_by_its_age() -> None:
    host = Host().opened()
    for _ in range(2 * GREETING_MAX_NS // HELLO_EVERY_NS):
        host.hear(frames.Heartbeat(SESSION, 1))
        assert host.after(HELLO_EVERY_NS) == []
    assert host.machine.state is LinkState.OPEN


def test_a_question_of_the_session_before_does_not_hold_up_the_next() -> None:
    host = Host().opened()
    host.hear(frames.Heartbeat(SESSION, 1))
    host.after(TIME_EVERY_NS)
    host.greet()
    before = host.count(frames.TimeRequest)
    host.after(0)
    assert host.count(frames.TimeRequest) == before + 1
    host.answer_time()
    host.after(TIME_FIRST_EVERY_NS)
    assert host.count(frames.TimeRequest) == before + 2
