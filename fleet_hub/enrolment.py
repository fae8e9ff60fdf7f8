"""One-time tokens of new robots, and what is answered to whoever brings one. The hub knows tokens by a hash alone.

A robot connects with a key made from its token (the ZAP handler knows its hash) and may then say one thing: which keys
are its own. What counts is what is in the database: a token is used up, durably, in the transaction that lets the
robot in. The same robot with the same keys may ask again, so that a lost answer does not cost a token.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from contracts.canonical import canonical_json
from contracts.enrolment import LIFE_MAX_S, EnrolCode, EnrolmentError
from contracts.errors import OrderError
from contracts.messages import TOKENS_MAX, Enrol, Enrolled, TokenView, short
from contracts.papers import EnrolledCard, Voucher, open_binding, open_voucher
from contracts.provenance import TrustedKeys
from fleet_hub.access import Access
from fleet_hub.errors import MembershipError
from fleet_hub.rollout.events import Denied
from fleet_hub.store.audit import AuditLog
from fleet_hub.store.database import Database

if TYPE_CHECKING:
    from fleet_hub.members import Members

TOKENS_OPEN_MAX = 4096
REMEMBERED_S = 7 * 86400.0
"""So long after its end a token is refused by name; later its bearer is a stranger."""
ATTEMPTS_MAX = 5
"""Of one token within ATTEMPTS_S; refused attempts beyond it are neither looked at nor audited."""
ATTEMPTS_S = 60.0
NS = 1_000_000_000


class Tokens:
    """Tokens that were issued; only hashes and public halves."""

    def __init__(self, database: Database, access: Access, wall_ns: Callable[[], int]) -> None:
        """Let bearers of tokens in that are remembered."""
        self._database, self._access, self._wall_ns = database, access, wall_ns
        oldest = wall_ns() - int(REMEMBERED_S * NS)
        for token, robot in database.rows("SELECT token, robot FROM token WHERE expires_wall_ns > ?", oldest):
            self.admit(token, robot)

    def check(self, voucher: bytes, trusted: TrustedKeys, robot: str) -> Voucher:
        """A voucher for that robot whose token may still come; raises MembershipError, RobotCardError."""
        opened, now = open_voucher(voucher, trusted), self._wall_ns()
        if opened.robot != robot:
            raise MembershipError(
                f"the voucher is for {opened.robot}, not for {robot}; issue the token again"
            )
        if not now < opened.expires_wall_ns <= now + LIFE_MAX_S * NS:
            raise MembershipError(
                f"a token lives for at most {LIFE_MAX_S / 86400:g} days from now on; issue another"
            )
        if self._row(opened.token):
            raise MembershipError("that token has been issued before; issue another")
        (count,) = self._database.rows(
            "SELECT COUNT(*) FROM token WHERE binding = ? AND expires_wall_ns > ?", b"", now
        )[0]
        if count >= TOKENS_OPEN_MAX:
            raise MembershipError(f"{count} tokens are out; at most {TOKENS_OPEN_MAX} may be")
        return opened

    def add(self, voucher: Voucher, paper: bytes, person: str) -> None:
        """Write a token down, in the caller's transaction."""
        self._database.run(
            "INSERT INTO token (token, robot, voucher, issued_by, expires_wall_ns, binding) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            voucher.token, voucher.robot, paper, person, voucher.expires_wall_ns, b"",
        )  # fmt: skip

    def admit(self, token: str, robot: str) -> None:
        """Let its bearer connect."""
        self._access.put_token(token, robot)

    def use(self, token: str, binding: bytes) -> None:
        """Use it up, in the caller's transaction."""
        self._database.run("UPDATE token SET binding = ? WHERE token = ?", binding, token)

    def void(self, robot: str) -> None:
        """End every token of a robot, in the caller's transaction."""
        now = self._wall_ns()
        self._database.run(
            "UPDATE token SET expires_wall_ns = ? WHERE robot = ? AND expires_wall_ns > ?",
            now,
            robot,
            now,
        )

    def open_for(self, robot: str) -> bool:
        """Whether somebody may still come as that robot."""
        return any(token.state == "open" for token in self.view(robot))

    def view(self, robot: str = "") -> tuple[TokenView, ...]:
        """Tokens, newest first."""
        now = self._wall_ns()
        return tuple(
            TokenView(
                name, token, "used" if binding else "open" if now < expires else "expired", person, expires
            )
            for token, name, person, expires, binding in self._database.rows(
                "SELECT token, robot, issued_by, expires_wall_ns, binding FROM token WHERE ? IN ('', robot) "
                "ORDER BY rowid DESC LIMIT ?",
                robot,
                TOKENS_MAX,
            )
        )

    def find(self, token: str) -> tuple[bytes, int, bytes]:
        """(voucher, expiry, binding that used it); raises EnrolmentError."""
        row = self._row(token)
        if row is None:
            raise EnrolmentError(EnrolCode.UNKNOWN, "no such token; have one issued: outrider fleet enrol")
        return row

    def _row(self, token: str) -> tuple[bytes, int, bytes] | None:
        rows = self._database.rows(
            "SELECT voucher, expires_wall_ns, binding FROM token WHERE token = ?", token
        )
        return (bytes(rows[0][0]), int(rows[0][1]), bytes(rows[0][2])) if rows else None


class EnrolmentDesk:
    """Answers who comes with a token."""

    def __init__(
        self,
        members: "Members",
        audit: AuditLog,
        access: Access,
        trusted: TrustedKeys,
        roots: Callable[[], tuple[bytes, bytes]],
        wall_ns: Callable[[], int],
    ) -> None:
        """``roots`` gives the newest roots of image and director repository."""
        self._members, self._audit, self._access, self._trusted = members, audit, access, trusted
        self._roots, self._wall_ns = roots, wall_ns
        self._attempts: dict[str, list[int]] = {}

    def answer(self, robot: str, token: str, message: Enrol) -> Enrolled:
        """Take the robot in; raises EnrolmentError with its code, and nothing has changed but the audit log."""
        if self._too_many(token):
            raise EnrolmentError(EnrolCode.TOO_MANY, f"{ATTEMPTS_MAX} attempts within {ATTEMPTS_S:g} s; wait")
        try:
            return self._enrol(robot, token, message.binding)
        except EnrolmentError as error:
            self._audit.append(f"enrolment:{robot}", Denied("Enrol", error.code, short(error)))
            raise

    def _enrol(self, robot: str, token: str, paper: bytes) -> Enrolled:
        voucher_paper, expires_ns, used_by = self._members.tokens.find(token)
        try:
            voucher = open_voucher(voucher_paper, self._trusted)
        except OrderError as error:
            raise EnrolmentError(EnrolCode.UNKNOWN, f"{error}; its signer is not trusted any more") from None
        card = canonical_json(EnrolledCard(voucher_paper, paper))
        if used_by == paper and self._members.is_answer(robot, card):
            return self._enrolled(card)  # the answer was lost on its way: nothing is taken in twice
        if used_by:
            raise EnrolmentError(EnrolCode.USED, f"the token of {robot} has been used; have another issued")
        if self._wall_ns() >= expires_ns:
            raise EnrolmentError(EnrolCode.EXPIRED, f"the token of {robot} has expired; have another issued")
        try:
            binding = open_binding(paper, voucher)
        except OrderError as error:
            raise EnrolmentError(EnrolCode.FORGED, str(error)) from None
        if binding.robot != robot:
            raise EnrolmentError(
                EnrolCode.OTHER_ROBOT, f"the token is for {robot}, the robot says it is {binding.robot}"
            )
        self._check_new(robot, binding.curve_public)
        answer = self._enrolled(card)
        self._members.enrolled(robot, binding.curve_public, card, token, paper)
        return answer

    def _check_new(self, robot: str, key: str) -> None:
        if robot in self._members.robots:
            raise EnrolmentError(EnrolCode.NAME_TAKEN, f"{robot} is in the fleet already; revoke it first")
        try:
            taken = self._access.listed(key) or self._members.was_listed(key)
        except MembershipError as error:
            raise EnrolmentError(EnrolCode.FORGED, str(error)) from None
        if taken:
            raise EnrolmentError(EnrolCode.KEY_TAKEN, "that CURVE key is or was somebody's; make new keys")

    def _enrolled(self, card: bytes) -> Enrolled:
        return Enrolled(card, canonical_json(self._trusted), *self._roots())

    def _too_many(self, token: str) -> bool:
        since = self._wall_ns() - int(ATTEMPTS_S * NS)
        recent = [at for at in self._attempts.get(token, []) if at > since]
        self._attempts = {key: at for key, at in self._attempts.items() if at[-1] > since}
        if len(recent) >= ATTEMPTS_MAX:
            return True
        self._attempts[token] = [*recent, self._wall_ns()]
        return False
