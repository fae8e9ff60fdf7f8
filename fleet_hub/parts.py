"""What a hub is made of: its keys, its stores, its desks; put together here, used by ``server``."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from contracts.keyring import CURVE_FILE, TRUSTED_FILE, CurvePair, party_folder, read_key_file
from contracts.plan import RobotCard
from contracts.provenance import TrustedKeys
from contracts.trust import TRUST_FOLDER
from fleet_hub.access import Access
from fleet_hub.catalogue.catalogue import Catalogue
from fleet_hub.desks import OperatorDesk, RobotDesk
from fleet_hub.enrolment import EnrolmentDesk
from fleet_hub.intake.intake import Intake
from fleet_hub.members import Members
from fleet_hub.people import People, read_cards
from fleet_hub.rollout.evidence import EvidenceRoom
from fleet_hub.rollout.rollouts import Rollouts
from fleet_hub.rollout.trip_store import TripStore
from fleet_hub.store.audit import AuditLog
from fleet_hub.store.database import Database
from fleet_hub.store.erasure_orders import ErasureOrders
from fleet_hub.store.folder import DataFolder
from fleet_hub.transfers import Transfers
from fleet_hub.trust.keys import passphrase
from fleet_hub.trust.room import TrustRoom


class OwnKeys:
    """The hub's key folder, read once."""

    def __init__(self, keys: Path) -> None:
        """Raises KeyFileError."""
        self.folder = party_folder(keys, "hub")
        self.pair = read_key_file(self.folder / CURVE_FILE, CurvePair, private=True)
        self.access = Access.load(self.folder)
        self.trusted = TrustedKeys.load(self.folder / TRUSTED_FILE)
        self.cards: dict[str, tuple[bytes, RobotCard]] = {
            name: card
            for name, card in read_cards(self.folder, self.trusted).items()
            if name in self.access.robots
        }


class Stores:
    """What is kept, and who changes it."""

    def __init__(
        self,
        own: OwnKeys,
        data: Path,
        folder: DataFolder,
        database: Database,
        closing: ExitStack,
        wall_ns: Callable[[], int],
    ) -> None:
        """Go on from what is on disk; ``closing`` closes what was opened."""
        self.database = database
        self.audit = AuditLog(database, wall_ns)
        self.catalogue = Catalogue(database, folder, own.trusted, wall_ns)
        closing.callback(self.catalogue.close)
        self.intake = Intake(folder.telemetry, lambda event: self.audit.append("hub", event))
        closing.callback(self.intake.close)
        self.trips = TripStore(database, folder.telemetry)
        people = People(own.folder, own.trusted)
        self.members = Members(database, self.audit, own.access, people, own.cards, own.trusted, wall_ns)
        self.rollouts = Rollouts(
            database, self.audit, self.catalogue, people, own.cards, EvidenceRoom(self.trips), wall_ns
        )
        self.trust = TrustRoom(
            data / TRUST_FOLDER, own.folder / TRUST_FOLDER, self.catalogue, self.rollouts, self.members.robots,
            wall_ns, passphrase(),
        )  # fmt: skip
        self.rollouts.fleet_changed()
        self.erasures = ErasureOrders(
            data,
            database,
            self.audit,
            people,
            self.members.robots,
            own.cards,
            self.intake,
            self.trips,
            wall_ns,
        )


class Desks:
    """Who answers whom."""

    def __init__(
        self, own: OwnKeys, stores: Stores, transfers: Transfers, wall_ns: Callable[[], int]
    ) -> None:
        """No state of their own but attempts of enrolment."""
        self.enrolment = EnrolmentDesk(
            stores.members, stores.audit, own.access, own.trusted, stores.trust.roots, wall_ns
        )
        self.robots = RobotDesk(
            stores.database, stores.catalogue, stores.rollouts, stores.intake, stores.trips, stores.trust,
            transfers, stores.erasures,
        )  # fmt: skip
        self.operators = OperatorDesk(
            stores.database, stores.catalogue, stores.rollouts, stores.intake, stores.audit, stores.members,
            stores.trust, stores.erasures,
        )  # fmt: skip
