"""The stages of one robot's control path, put together. No ROS, no process."""

from collections import deque
from pathlib import Path

from contracts.errors import ContractError
from contracts.keyring import party_folder
from contracts.ring import RingWriter
from contracts.robot import ROBOT_MODELS
from edge_agent.actuate.sink import CommandSink
from edge_agent.config import ControlConfig
from edge_agent.errors import AgentError, ConfigError
from edge_agent.guard.gate import Gate
from edge_agent.guard.modes import Modes
from edge_agent.guard.zones import zones_of
from edge_agent.infer.ladder import Ladder
from edge_agent.infer.loader import PolicyLoader
from edge_agent.loop import ControlLoop
from edge_agent.observe.intake import Intake
from edge_agent.observe.routes import RouteKeeper
from edge_agent.observe.slots import Slots
from edge_agent.tick import TickCore
from navigation.controllers.dwa import DwaController
from navigation.errors import NavigationError
from navigation.route import cell_costs
from navigation.warehouse import load_warehouse
from safety.errors import SafetyError
from safety.inputs import NS
from safety.monitor import SafetyMonitor

EVENTS_MAX = 64
STANDING_MAX_MPS, STANDING_MAX_RADPS = 0.02, 0.05
REFUSED = (AgentError, ContractError, NavigationError, SafetyError, OSError)
"""What the process ends on with one clear line."""


class Control:
    """One robot's control path, ready to tick, without ROS.

    Args:
        config: checked settings.
        sink: where commands go.
        ring: where decisions go; kept open by its owner.

    Raises:
        AgentError, ContractError, NavigationError, SafetyError: it cannot be made of these settings.
    """

    def __init__(self, config: ControlConfig, sink: CommandSink, ring: RingWriter) -> None:
        model = ROBOT_MODELS.get(config.robot_model)
        if model is None:
            raise ConfigError(f"no robot model {config.robot_model!r}; known: {', '.join(ROBOT_MODELS)}")
        warehouse = load_warehouse(Path(config.layout_path))
        costs = cell_costs(warehouse)
        monitor = SafetyMonitor(model, zones=zones_of(warehouse))
        self.config, self.model = config, model
        self.events: deque[str] = deque(maxlen=EVENTS_MAX)
        self.slots = Slots()
        self.gate = Gate(monitor)
        tick_s = 1.0 / config.rate_hz
        self.ladder = Ladder(DwaController(model, tick_s), config.period_ns, tick_s, config.trial)
        self.modes = Modes(Path(config.state_dir))
        if self.modes.fault:
            self.events.append(self.modes.fault)
        self.core = TickCore(
            model, config.rate_hz, config.real_time_factor, self.slots, self.ladder, self.gate, sink, ring,
            modes=self.modes, stamped=not config.sim_time and config.real_time_factor == 1.0,
        )  # fmt: skip
        self.loop = ControlLoop(self.core, config.period_ns)
        keys = party_folder(Path(config.keys_dir), "robots", config.robot_id)
        self.loader = PolicyLoader(
            Path(config.state_dir), keys, model, monitor.config.hash(), self.ladder, self.events.append
        )
        self.loader.load_committed()
        self.routes = RouteKeeper(costs, self.slots, self.events.append)
        self.intake = Intake(self.slots, model, self.routes.want)
        self.loader.start()

    def take_events(self) -> list[str]:
        """What happened since the last call, in words; at most a few queues full."""
        taken = []
        for queue in (self.events, self.ladder.events, self.core.events):
            while queue:
                taken.append(queue.popleft())
        return taken

    def set_mode(self, mode: int, reason: str, now_ns: int) -> str:
        """Change who drives; "" or why not."""
        return self.modes.switch(mode, reason, self._moves(now_ns))

    def approve(self, seconds: float, now_ns: int) -> str:
        """Let the policy drive for so long, in assist mode; "" or why not."""
        if not self.gate.armed:
            return "the robot is not armed; arm it first"
        policy = self.ladder.policy
        return self.modes.approve(seconds, policy.digest if policy else "", now_ns)

    def _moves(self, now_ns: int) -> str:
        """Empty where the robot stands still or is disarmed, else what it does."""
        if not self.gate.armed:
            return ""
        odometry, latest = self.slots.odometry, self.core.latest
        stale_ns = self.gate.monitor.config.odometry_stale_max_s * NS / self.config.real_time_factor
        if odometry is None or not odometry.finite or now_ns - odometry.arrived_ns > stale_ns:
            return "is armed, and its odometry does not say that it stands"
        if abs(odometry.velocity[0]) > STANDING_MAX_MPS or abs(odometry.velocity[1]) > STANDING_MAX_RADPS:
            return "moves"
        return "has just been told to move" if latest is None or latest.ruling.command != (0.0, 0.0) else ""

    def close(self) -> None:
        """End the threads; the loop must have been stopped."""
        self.loader.close()
        self.routes.close()
