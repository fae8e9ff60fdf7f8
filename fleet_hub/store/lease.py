"""Who serves the fleet, where hubs share a database: a lease in it, with a number that only rises.

The database's clock alone says when a lease has run out, so that hubs need not agree on the time. A transaction of the
hub that serves begins by reading its lease's number under a lock (``fence``): who has lost the lease can write nothing
any more, however long it was stopped and whatever it believes.
"""

from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from fleet_hub.errors import LeaseHeldError

LEASE_S = 10.0
RENEW_S = 2.0
_TAKE = """
INSERT INTO hub_lease VALUES ('fleet', %s, 1, clock_timestamp() + make_interval(secs => %s))
ON CONFLICT (fleet) DO UPDATE SET holder = excluded.holder, epoch = hub_lease.epoch + 1, until = excluded.until
WHERE hub_lease.until <= clock_timestamp() RETURNING epoch"""
_WHO = "SELECT holder, EXTRACT(EPOCH FROM until - clock_timestamp()) FROM hub_lease"
_FENCE = "SELECT 1 FROM hub_lease WHERE fleet = 'fleet' AND epoch = %s FOR SHARE"
_RENEW = """
UPDATE hub_lease SET until = clock_timestamp() + make_interval(secs => %s) WHERE epoch = %s RETURNING epoch"""


class FencedError(SQLAlchemyError):
    """Another hub has taken the lease; not a HubError, so that no desk answers it and goes on."""


class Lease:
    """The lease of one hub, taken when this object is made."""

    def __init__(self, connection: Connection, holder: str) -> None:
        """Take it; raises LeaseHeldError while another hub holds it."""
        self._connection = connection
        taken = self._rows(_TAKE, holder, LEASE_S)
        if not taken:
            who, left_s = self._rows(_WHO)[0]
            raise LeaseHeldError(
                f"hub {who} serves this fleet (its lease ends in {max(float(left_s), 0.0):.0f} s unless it goes on); "
                "this one stands by"
            )
        self.epoch = int(taken[0][0])

    def fence(self) -> None:
        """First in a transaction: holds the lease in place until its end; raises FencedError."""
        if not self._rows(_FENCE, self.epoch):
            raise FencedError("another hub has taken over")

    def renew(self) -> None:
        """Hold it for LEASE_S from now on; raises FencedError."""
        if not self._rows(_RENEW, LEASE_S, self.epoch):
            raise FencedError("another hub has taken over")

    def give_up(self) -> None:
        """Let the next hub take it at once."""
        self._rows(_RENEW, -1.0, self.epoch)

    def _rows(self, statement: str, *values: Any) -> list[Any]:
        return list(self._connection.exec_driver_sql(statement, values).fetchall())
