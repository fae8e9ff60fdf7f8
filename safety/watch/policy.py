"""Watches over a policy's output. Their word is advice: the robot is safe behind the monitor, but badly driven."""

import enum

from contracts.robot import RobotModel
from safety.config import WatchConfig
from safety.watch.debounce import Debounce

Pair = tuple[float, float]
SAME = 1e-6


class Advice(enum.Enum):
    """Why the policy should not drive on; the ladder drops to the rules. Values are never reused.

    No numbers to compare: a Reason of the same value is something else.
    """

    NONE = 0
    CHATTERING = 1
    SATURATED = 2
    UNFAMILIAR = 3


class PolicyWatch:
    """Chattering, saturated or constant output, observations unlike those of training."""

    def __init__(self, config: WatchConfig, model: RobotModel) -> None:
        self._config = config
        self._low = (-model.reverse_max_mps, -model.turn_rate_max_radps)
        self._span = (model.speed_max_mps + model.reverse_max_mps, 2.0 * model.turn_rate_max_radps)
        self._last: Pair | None = None
        self._step, self._saturated_s = 0.0, 0.0
        self._chatter = Debounce(1, config.advice_clear_ticks)
        self._flat = Debounce(1, config.advice_clear_ticks)
        self._unfamiliar = Debounce(config.novelty_ticks, config.advice_clear_ticks)

    def step(
        self,
        command: Pair | None,
        from_policy: bool,
        scan_changed: bool,
        novelty: float | None,
        elapsed_s: float,
    ) -> Advice:
        """The advice after this tick.

        Args:
            command: what was proposed, finite, or None.
            from_policy: whether a policy proposed it and the robot may follow; nothing else is judged.
            scan_changed: whether the policy saw something new.
            novelty: how far the observation is from a reference drive's; None = not known.
            elapsed_s: since the last tick.
        """
        config = self._config
        if command is None or not from_policy:
            self._last, self._step, self._saturated_s = None, 0.0, 0.0
        else:
            self._judge(command, scan_changed, elapsed_s)
        if self._chatter.step(self._step > config.chatter_share):
            return Advice.CHATTERING
        if self._flat.step(self._saturated_s > config.saturated_after_s):
            return Advice.SATURATED
        strange = novelty is not None and not novelty <= config.novelty_max
        return Advice.UNFAMILIAR if self._unfamiliar.step(strange) else Advice.NONE

    def _judge(self, command: Pair, scan_changed: bool, elapsed_s: float) -> None:
        config = self._config
        share = [(command[k] - self._low[k]) / self._span[k] for k in range(2)]
        last = self._last or command
        change = [abs(command[k] - last[k]) / self._span[k] for k in range(2)]
        keep = max(0.0, 1.0 - elapsed_s / config.chatter_window_s)
        self._step = keep * self._step + (1.0 - keep) * 0.5 * sum(change)
        edge = 1.0 - config.saturated_share
        at_limits = all(each <= edge or each >= 1.0 - edge for each in share)
        if not at_limits and (max(change) > SAME or self._last is None):
            self._saturated_s = 0.0
        elif scan_changed:
            self._saturated_s += elapsed_s
        self._last = command
