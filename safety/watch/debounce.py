"""A fault counts after so many bad ticks in a row, and is over after so many good ones."""


class Debounce:
    """Args: ``trip_ticks`` bad ones in a row make a fault, ``clear_ticks`` good ones in a row end it."""

    def __init__(self, trip_ticks: int, clear_ticks: int = 1) -> None:
        self._trip_ticks, self._clear_ticks = trip_ticks, clear_ticks
        self._bad = self._good = 0
        self.tripped = False

    def step(self, bad: bool) -> bool:
        """Whether there is a fault after this tick."""
        self._bad = self._bad + 1 if bad else 0
        self._good = 0 if bad else self._good + 1
        if self._bad >= self._trip_ticks:
            self.tripped = True
        elif self._good >= self._clear_ticks:
            self.tripped = False
        return self.tripped
