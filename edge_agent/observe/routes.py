"""Routes are worked out beside the tick, and kept: goals come again."""

import threading
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edge_agent.observe.slots import Goal, Slots, Way
from navigation.errors import RouteError
from navigation.route import Route

CACHED_CELLS_MAX = 400_000
CACHED_ROUTES_MIN = 2
JOIN_MAX_S = 5.0


class RouteKeeper:
    """One background thread that puts the way to the newest goal into its slot.

    Args:
        costs: of the floor, from ``navigation.route.cell_costs``.
        slots: where goals are and ways go.
        tell: told in words of a goal that cannot be reached.
    """

    def __init__(self, costs: npt.NDArray[np.float32], slots: Slots, tell: Callable[[str], None]) -> None:
        self._costs, self._slots, self._tell = costs, slots, tell
        self._cache: OrderedDict[tuple[float, float], Route] = OrderedDict()
        self._cached_max = max(CACHED_ROUTES_MIN, CACHED_CELLS_MAX // costs.shape[-2] * costs.shape[-1])
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._wanted: Goal | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="routes", daemon=True)
        self._thread.start()

    def want(self, goal: Goal) -> None:
        """The way to ``goal``: at once when it is known, else as soon as it has been worked out."""
        with self._lock:
            route = self._cache.get((goal.x_m, goal.y_m))
        if route is not None:
            self._slots.way = Way(goal, route)
            return
        self._wanted = goal
        self._wake.set()

    def close(self) -> None:
        """End the thread."""
        self._stopping = True
        self._wake.set()
        self._thread.join(JOIN_MAX_S)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._stopping:
                return
            goal, self._wanted = self._wanted, None
            if goal is not None:
                self._work_out(goal)

    def _work_out(self, goal: Goal) -> None:
        try:
            route = Route(self._costs, goal.x_m, goal.y_m)
        except RouteError as error:
            self._slots.count("goal_unreachable")
            self._tell(str(error))
            return
        except Exception as error:
            self._slots.count("route_failed")
            self._tell(f"no route to ({goal.x_m:.2f}, {goal.y_m:.2f}): {error!r}")
            return
        with self._lock:
            self._cache[goal.x_m, goal.y_m] = route
            while len(self._cache) > self._cached_max:
                self._cache.popitem(last=False)
        self._slots.way = Way(goal, route)
