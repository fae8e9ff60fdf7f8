"""Carries out the fleet's orders for erasure while the robot drives: checked here, whatever the hub says.

An order is one person's signature (``contracts.erasure``); the hub only brings it, now or after days. What it names
goes from the log in small steps between the other work of comms, and nothing is sent to the hub meanwhile. Then the
robot signs what it did. A kill at any moment leaves a log that is whole, and the hub brings the order again. The
receipt in the log names the order that was carried out: shown again, it takes nothing.
"""

import zlib
from collections import deque
from collections.abc import Callable, Generator
from pathlib import Path

import msgspec

from contracts.canonical import digest_hex
from contracts.erasure import (
    ERASED_TYPE,
    EraseAct,
    Receipt,
    RobotErased,
    SignedReceipt,
    open_erase_act,
    receipt_digest,
)
from contracts.errors import (
    AccessFileError,
    ContractError,
    NotNamedError,
    OrderError,
    OrderReplayedError,
)
from contracts.keyring import TRUSTED_FILE
from contracts.messages import RECEIPT_PACKED_MAX_BYTES, EraseOrder, EraseReport, FromRobot, short
from contracts.papers import open_access
from contracts.provenance import TrustedKeys
from edge_agent.errors import AgentError
from edge_agent.recorder.erasure import Request, erasing
from edge_agent.recorder.key import load_or_make_key
from edge_agent.recorder.receipts import receipt_of
from edge_agent.recorder.recorder import Recorder
from edge_agent.update.orders import OrderBook
from edge_agent.update.witness import sign_as_robot

ORDERS_MAX = 16
"""Waiting here; the hub brings those for which there was no room again."""
REPORTS_MAX = 2 * ORDERS_MAX
"""For the hub, until the connection takes them; beyond it the oldest go, and the order comes again."""
RETRY_S = 60.0
"""After a disk that refused."""
REFUSED, FAILED = "erasure_refused", "erasure_failed"
CANNOT_ERASE = "cannot_erase"
"""Code of a failure after which it is tried again."""
Steps = Generator[None, None, tuple[Receipt, Path]]


class Erasures:
    """Of one comms process.

    Args:
        recorder: the robot's log.
        state_dir: STATE.
        keys: the robot's own key folder.
        send: to the hub.
    """

    def __init__(
        self, recorder: Recorder, state_dir: Path, keys: Path, send: Callable[[FromRobot], bool]
    ) -> None:
        self._recorder, self._state, self._keys, self._send = recorder, state_dir, keys, send
        self._book = OrderBook(state_dir, keys, recorder.robot)
        self._public = load_or_make_key(state_dir).public
        self._waiting: deque[tuple[str, Request]] = deque()
        self._steps: Steps | None = None
        self._retry_ns: int | None = None
        self._told = ""
        self._reports: deque[EraseReport] = deque(maxlen=REPORTS_MAX)

    @property
    def busy(self) -> bool:
        """Whether something is being erased: nothing is sent until then. A disk that refuses holds nothing up."""
        return bool(self._waiting) and self._retry_ns is None

    def on_order(self, message: EraseOrder) -> None:
        """Check an order and take it up; refused, it changes nothing."""
        order = digest_hex(message.act)
        if any(order == known for known, _ in self._waiting):
            return
        try:
            act = self._check(message)
            if (found := receipt_of(self._recorder.folder, order, self._public)) is not None:
                self._answer(order, found[1], OrderReplayedError.code)
                raise OrderReplayedError(f"that order has been carried out here: {found[0]}")
        except OrderError as error:
            self._refuse(order, error)
            return
        if len(self._waiting) < ORDERS_MAX:
            self._waiting.append(
                (order, Request(act.since_ns, act.until_ns, act.person, act.why, act.events, order))
            )

    def _check(self, message: EraseOrder) -> EraseAct:
        """Signature, role, span, and that it names this robot; raises OrderError."""
        try:
            trusted = TrustedKeys.load(self._keys / TRUSTED_FILE)
        except ContractError as error:
            raise AccessFileError(str(error)) from None
        access, known = open_access(message.access, trusted), self._book.standing().access_version
        if access.version < known:
            raise AccessFileError(
                f"access file {access.version} is older than {known}, which this robot knows"
            )
        act = open_erase_act(message.act, access)
        if act.robot != self._recorder.robot:
            raise NotNamedError(f"the order is for {act.robot}, this robot is {self._recorder.robot}")
        return act

    def _refuse(self, order: str, error: OrderError) -> None:
        self._recorder.event(REFUSED, order=order, code=error.code, why=short(error))
        if not isinstance(error, OrderReplayedError):  # which has been answered with the receipt
            self._reports.append(EraseReport(order, error.code, short(error)))

    def step(self, now_ns: int) -> bool:
        """Do a little; True when an order has been carried out."""
        while self._reports and self._send(self._reports[0]):
            self._reports.popleft()
        if not self._waiting or (self._retry_ns is not None and now_ns < self._retry_ns):
            return False
        self._retry_ns = None
        order, request = self._waiting[0]
        try:
            if self._steps is None:
                self._steps = erasing(self._recorder, self._state, request)
            next(self._steps)
            return False
        except StopIteration as done:
            path: Path = done.value[1]
        except (OSError, AgentError, ContractError) as error:
            self._steps, self._retry_ns = None, now_ns + int(RETRY_S * 1e9)
            self._fail(order, str(error))
            return False
        self._steps, self._told = None, ""
        self._waiting.popleft()
        self._answer(order, msgspec.json.decode(path.read_bytes(), type=SignedReceipt), "")
        return True

    def _fail(self, order: str, why: str) -> None:
        """Say once, until it changes, why it does not go on."""
        if why != self._told:
            self._told = why
            self._recorder.event(FAILED, order=order, why=short(why))
            again = f"{why}; tried again every {RETRY_S:g} s"
            self._reports.append(EraseReport(order, CANNOT_ERASE, short(again)))

    def _answer(self, order: str, signed: SignedReceipt, code: str) -> None:
        """Tell the hub, signed with the robot's key; where that cannot be, the order comes again."""
        digest = receipt_digest(signed.receipt).hex()
        done = RobotErased(order, self._recorder.robot, digest, signed.receipt.records, self._public.hex())
        try:
            paper = sign_as_robot(done, ERASED_TYPE, self._recorder.robot, self._keys)
        except ContractError as error:
            self._fail(order, str(error))
            return
        packed = zlib.compress(msgspec.json.encode(signed))
        receipt = packed if len(packed) <= RECEIPT_PACKED_MAX_BYTES else b""
        self._reports.append(EraseReport(order, code, "", paper, receipt))
