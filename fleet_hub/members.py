"""Who belongs to the fleet, while the hub runs: the key folder's list, what people have changed since, and cards.

Kept in the database; a change is durable and in the audit log before anybody is let in or cut off by it. What was
revoked stays revoked, also when the key folder still names it.
"""

import sys
from collections.abc import Callable, Set
from dataclasses import dataclass, field

from contracts.canonical import digest_hex
from contracts.errors import RobotCardError
from contracts.messages import MEMBERS_MAX as SHOWN_MAX
from contracts.messages import MembersView, MemberView
from contracts.papers import FleetAct, open_card, open_fleet_act
from contracts.plan import RobotCard
from contracts.provenance import TrustedKeys
from fleet_hub.access import OPERATOR, ROBOT, Access
from fleet_hub.enrolment import Tokens
from fleet_hub.errors import MembershipError
from fleet_hub.people import People
from fleet_hub.rollout import events as ev
from fleet_hub.store.audit import AuditLog
from fleet_hub.store.database import Database

MEMBERS_MAX = 100_000
IN, OUT = "in", "out"
_COLUMNS = "key, role, name, state, card, since_wall_ns"
_NOTE = (
    f"INSERT INTO member ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
    "role = excluded.role, name = excluded.name, state = excluded.state, card = excluded.card, "
    "since_wall_ns = excluded.since_wall_ns"
)


@dataclass
class Changes:
    """Who has come and gone since it was asked last."""

    come: list[str] = field(default_factory=list)
    gone: list[tuple[str, str]] = field(default_factory=list)
    """(role, name)."""


class Members:
    """The live allow-list of one hub, and the cards of its robots."""

    def __init__(
        self,
        database: Database,
        audit: AuditLog,
        access: Access,
        people: People,
        cards: dict[str, tuple[bytes, RobotCard]],
        trusted: TrustedKeys,
        wall_ns: Callable[[], int],
    ) -> None:
        """Apply what the database says to ``access`` and ``cards``, which change with it from now on."""
        self._database, self._audit, self._access, self._people = database, audit, access, people
        self._cards, self._trusted, self._wall_ns = cards, trusted, wall_ns
        self.tokens = Tokens(database, access, wall_ns)
        self._changes = Changes()
        # As they came: a name that was revoked may have come again.
        for key, role, name, state, card, _ in database.rows(f"SELECT {_COLUMNS} FROM member ORDER BY rowid"):
            if state == OUT:
                self._take_out(role, name)
                continue
            try:
                self._take_in(role, name, key, bytes(card))
            except RobotCardError as error:
                # Its owner's release key is not trusted any more: it may talk, plans leave it out.
                print(f"outrider hub: {name}: {error}", file=sys.stderr, flush=True)
        for name in set(cards) - set(access.robots):
            del cards[name]
        self._changes = Changes()

    @property
    def robots(self) -> Set[str]:
        """Names of the robots that may connect; changes as the list does."""
        return self._access.robots

    def changes(self) -> Changes:
        """Who has come and gone since the last call."""
        found, self._changes = self._changes, Changes()
        return found

    def act(self, paper: bytes, voucher: bytes) -> MembersView:
        """Do what a person signed; what is known of whom it is about. Raises OrderError, HubError."""
        act = open_fleet_act(paper, self._people.access()[1], self._wall_ns())
        digest = digest_hex(paper)
        if self._database.rows(
            "SELECT 1 FROM audit WHERE who = ? AND body LIKE ?", act.person, f"%{digest}%"
        ):
            raise MembershipError("that very order has been carried out before; sign a new one")
        if act.action == "enrol":
            self._issue(act, digest, voucher)
        elif act.action == "allow":
            self._allow(act, digest)
        else:
            self._revoke(act, digest)
        return self.view(act.role, act.name)

    def enrolled(self, robot: str, key: str, card: bytes, token: str, binding: bytes) -> None:
        """A robot has come with a token: use the token up and let the robot in, both or neither."""
        opened = open_card(card, self._trusted)
        with self._database.transaction():
            self.tokens.use(token, binding)
            self._note(ROBOT, robot, key, IN, card)
            event = ev.RobotEnrolled(robot, token[:16], key, opened.public_hex)
            self._audit.append(robot, event)
        self._take_in(ROBOT, robot, key, card)

    def is_answer(self, robot: str, card: bytes) -> bool:
        """Whether that very card is the one by which the robot is in the fleet."""
        return robot in self.robots and self._cards.get(robot, (b"",))[0] == card

    def has_card(self, robot: str) -> bool:
        """Whether that is a robot with a card of its own, and no mirror."""
        return robot in self._cards

    def was_listed(self, key: str) -> bool:
        """Whether that key (Z85) has ever been taken in or cut off."""
        return bool(self._database.rows("SELECT 1 FROM member WHERE key = ?", key))

    def view(self, role: str = "", name: str = "") -> MembersView:
        """Who may connect, who no longer may, which tokens are out; all, or what is known of one."""
        rows = {
            row[0]: row
            for row in self._database.rows(
                f"SELECT {_COLUMNS} FROM member ORDER BY rowid LIMIT ?", MEMBERS_MAX
            )
        }
        found = [
            MemberView(role_, name_, key, IN, int(rows[key][5]) if key in rows else 0)
            for role_, name_, key in self._access.parties(role, name)
        ]
        here = {(one.role, one.name, one.key) for one in found}
        found += [
            MemberView(row[1], row[2], key, OUT, int(row[5]))
            for key, row in rows.items()
            if (*row[1:3], key) not in here
        ]
        wanted = [one for one in found if (not role or one.role == role) and (not name or one.name == name)]
        return MembersView(tuple(wanted[:SHOWN_MAX]), self.tokens.view(name), max(0, len(wanted) - SHOWN_MAX))

    def _issue(self, act: FleetAct, digest: str, voucher: bytes) -> None:
        if act.role != ROBOT:
            raise MembershipError(
                "tokens are for robots; an operator's key is let in with `outrider fleet allow`"
            )
        if act.name in self.robots:
            raise MembershipError(
                f"{act.name} is in the fleet; to give it new keys revoke it first: outrider fleet revoke {act.name}"
            )
        if digest_hex(voucher) != act.voucher:
            raise MembershipError(f"{act.person} signed for another voucher; issue the token again")
        opened = self.tokens.check(voucher, self._trusted, act.name)
        with self._database.transaction():
            self.tokens.add(opened, voucher, act.person)
            self._audit.append(
                act.person,
                ev.TokenIssued(
                    act.name,
                    opened.token[:16],
                    opened.site,
                    opened.model,
                    opened.expires_wall_ns,
                    act.why,
                    digest,
                ),
            )
        self.tokens.admit(opened.token, act.name)

    def _allow(self, act: FleetAct, digest: str) -> None:
        if act.role != OPERATOR or not act.key:
            raise MembershipError(
                "to let an operator in give its CURVE public key; a robot comes with a token"
            )
        if self._access.listed(act.key) or self.was_listed(act.key):
            raise MembershipError("that key is or was somebody's; make a new one: outrider keys operator")
        with self._database.transaction():
            self._note(OPERATOR, act.name, act.key, IN)
            self._audit.append(act.person, ev.OperatorAllowed(act.name, act.key, act.why, digest))
        self._take_in(OPERATOR, act.name, act.key, b"")

    def _revoke(self, act: FleetAct, digest: str) -> None:
        keys = [party.key for party in self._access.parties(act.role, act.name)]
        open_tokens = act.role == ROBOT and self.tokens.open_for(act.name)
        if not keys and not open_tokens:
            raise MembershipError(f"no {act.role} {act.name} in the allow-list; see `outrider fleet members`")
        operators = {party.name for party in self._access.parties(OPERATOR)}
        if act.role == OPERATOR and operators == {act.name}:
            raise MembershipError(
                f"{act.name} is the last operator: nobody could undo it; let another in first"
            )
        with self._database.transaction():
            for key in keys:
                self._note(act.role, act.name, key, OUT)
            if act.role == ROBOT:
                self.tokens.void(act.name)
            self._audit.append(act.person, ev.MemberRevoked(act.role, act.name, tuple(keys), act.why, digest))
        self._take_out(act.role, act.name)

    def _note(self, role: str, name: str, key: str, state: str, card: bytes = b"") -> None:
        if state == IN and len(self._access) >= MEMBERS_MAX:
            raise MembershipError(f"a hub knows {MEMBERS_MAX} keys at most; revoke what is not used")
        self._database.run(_NOTE, key, role, name, state, card, self._wall_ns())

    def _take_in(self, role: str, name: str, key: str, card: bytes) -> None:
        self._access.put(role, name, key)
        if role == ROBOT:
            self._cards[name] = (card, open_card(card, self._trusted))
            self._changes.come.append(name)

    def _take_out(self, role: str, name: str) -> None:
        self._access.drop(role, name)
        if role == ROBOT:
            self._cards.pop(name, None)
        self._changes.gone.append((role, name))
