"""Whom the hub believes: the signed access file and the robots' signed cards in its key folder."""

from pathlib import Path

from contracts.errors import AccessFileError, RobotCardError
from contracts.keyring import ACCESS_FILE, CARDS_FOLDER
from contracts.papers import ACCESS_MAX_BYTES, PAPER_MAX_BYTES, AccessFile, open_access, open_card
from contracts.plan import RobotCard
from contracts.provenance import TrustedKeys


class People:
    """The access file as it is now: read anew whenever it has been replaced."""

    def __init__(self, keys: Path, trusted: TrustedKeys) -> None:
        """``keys`` is the hub's own key folder; nothing is read yet."""
        self._path, self._trusted = keys / ACCESS_FILE, trusted
        self._seen = (0, 0)
        self._known: tuple[bytes, AccessFile] | None = None

    def access(self) -> tuple[bytes, AccessFile]:
        """The signed file and what it says; an older one than known is not taken. Raises AccessFileError."""
        try:
            found = self._path.stat()
            if self._known is None or (found.st_ino, found.st_mtime_ns) != self._seen:
                with self._path.open("rb") as file:
                    data = file.read(ACCESS_MAX_BYTES + 1)
                access = open_access(data, self._trusted)
                if self._known and access.version < self._known[1].version:
                    raise AccessFileError(
                        f"{self._path} is version {access.version}, known is {self._known[1].version}"
                    )
                self._seen, self._known = (found.st_ino, found.st_mtime_ns), (data, access)
        except OSError as error:
            raise AccessFileError(
                f"no access file at {self._path} ({error.strerror}): nobody may approve anything yet; "
                "name people with `outrider keys person`"
            ) from None
        return self._known


def read_cards(keys: Path, trusted: TrustedKeys) -> dict[str, tuple[bytes, RobotCard]]:
    """The signed cards of the fleet's robots by name; raises RobotCardError for one that is not what it says."""
    cards = {}
    for path in sorted((keys / CARDS_FOLDER).glob("*.dsse.json")):
        with path.open("rb") as file:
            data = file.read(PAPER_MAX_BYTES + 1)
        card = open_card(data, trusted)
        if path.name != f"{card.robot}.dsse.json":
            raise RobotCardError(f"{path} is the card of {card.robot}; put it where it belongs")
        cards[card.robot] = (data, card)
    return cards
