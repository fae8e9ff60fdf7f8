"""Writes that wait for their transaction's end and go to PostgreSQL together: one round trip, not one each.

A turn of the hub's loop holds the reports of many robots in one transaction, and no report is answered before its
commit. So nobody waits for a single statement of it, and psycopg's pipeline sends them all before it reads the first
answer.
"""

from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

PENDING_MAX = 500
"""Statements that wait; then they are sent, though the transaction goes on."""


class Pipeline:
    """The writes of one connection's open transaction, in their order."""

    def __init__(self, connection: Connection) -> None:
        """Nothing waits."""
        self._connection = connection
        self._pending: list[tuple[str, tuple[Any, ...]]] = []

    def add(self, statement: str, values: tuple[Any, ...]) -> None:
        """Let a write wait; raises OperationalError for one before it where the list is full."""
        self._pending.append((statement, values))
        if len(self._pending) >= PENDING_MAX:
            self.flush()

    def flush(self) -> None:
        """Send what waits, before anything that reads or commits; raises OperationalError."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        import psycopg

        connection: Any = self._connection.connection.driver_connection
        try:
            with connection.pipeline():
                for statement, values in pending:
                    connection.execute(statement, values)
        except psycopg.Error as error:
            raise OperationalError(f"{len(pending)} writes", None, error) from None

    def forget(self) -> None:
        """The transaction is rolled back."""
        self._pending = []
