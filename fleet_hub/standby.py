"""One hub serves, others stand by: taking over when it is gone, and waiting out a database that is away.

A hub that has lost its database or its lease closes everything, so that nothing of what it believed is left, and
begins again from what is stored, as after ``kill -9``.
"""

from collections.abc import Callable
from threading import Event

from fleet_hub.errors import DatabaseLostError, DataFolderBusyError, HubError, LeaseHeldError
from fleet_hub.server import Hub

RETRY_S = 1.0


class Service:
    """Serves as a hub whenever it may, until ``stop``."""

    def __init__(self, make: Callable[[], Hub], shared: bool, say: Callable[[str], None]) -> None:
        """``make`` opens the hub; with ``shared`` its database may be served by another, or be away."""
        self._make, self._shared, self._say = make, shared, say
        self._stopping = Event()
        self._hub: Hub | None = None
        self._said = ""

    def stop(self) -> None:
        """Let ``run`` return; safe in a signal handler."""
        self._stopping.set()
        if self._hub is not None:
            self._hub.stop()

    def run(self, listening: Callable[[str], None]) -> None:
        """Serve or stand by until stopped; ``listening`` is told each address that is served.

        Raises:
            HubError: What waiting does not mend; without a shared database, everything.
        """
        while not self._stopping.is_set():
            try:
                self._serve(listening)
            except (LeaseHeldError, DatabaseLostError, DataFolderBusyError) as error:
                self._hub = None
                if not self._shared:
                    raise
                self._tell(error)
                self._stopping.wait(RETRY_S)

    def _serve(self, listening: Callable[[str], None]) -> None:
        self._hub = hub = self._make()
        if self._stopping.is_set():  # between the two lines before
            hub.close()
            return
        self._said = ""
        listening(hub.endpoint)
        hub.run()

    def _tell(self, error: HubError) -> None:
        """Once each kind of trouble: the seconds in it change."""
        if type(error).__name__ != self._said:
            self._said = type(error).__name__
            away = isinstance(error, DatabaseLostError)
            self._say(f"{'the database is lost' if away else 'hub stands by'}: {error}")
