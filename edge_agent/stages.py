"""The stages of one robot's control path, put together. No ROS, no process."""

from collections import deque
from pathlib import Path

import numpy as np

from contracts.errors import ContractError
from contracts.keyring import party_folder
from contracts.ring import RingWriter
from contracts.robot import ROBOT_MODELS
from edge_agent.actuate.sink import CommandSink
from edge_agent.config import ControlConfig
from edge_agent.effective import EffectiveConfig, keep_config
from edge_agent.errors import AgentError, ConfigError
from edge_agent.guard.gate import Gate
from edge_agent.guard.modes import Modes
from edge_agent.guard.settings import load_safety
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
from safety.monitor import SafetyMonitor
from safety.settings import SafetySettings

EVENTS_MAX = 64
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
        keys = party_folder(Path(config.keys_dir), "robots", config.robot_id)
        self.config, self.model = config, model
        self.events: deque[str] = deque(maxlen=EVENTS_MAX)
        settings = self._settings(keys, warehouse.hash())
        zones = (*zones_of(warehouse), *settings.zones)
        monitor = SafetyMonitor(model, settings.monitor, settings.watch, zones, settings.fields)
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
        self._stamp(EffectiveConfig.of(config, model, warehouse.hash(), settings))
        self.loop = ControlLoop(self.core, config.period_ns)
        self.loader = PolicyLoader(
            Path(config.state_dir), keys, model, monitor.config.hash(), self.ladder, self.events.append
        )
        self.loader.load_committed()
        self.routes = RouteKeeper(costs, self.slots, self.events.append)
        self.intake = Intake(self.slots, model, self.routes.want)
        self.loader.start()

    def _stamp(self, effective: EffectiveConfig) -> None:
        """Every decision from here on says by its digest with which settings it was made; no tick writes it again."""
        try:
            digest = keep_config(Path(self.config.state_dir), effective)
        except OSError as error:
            self.events.append(
                f"the settings in force cannot be kept ({error.strerror}): decisions name none"
            )
            return
        self.core.record["config_digest"][0] = np.frombuffer(digest, np.uint8)

    def _settings(self, keys: Path, floor_hash: str) -> SafetySettings:
        """What the safety officer set, else what is built in."""
        path, model = self.config.safety_path, self.model.name
        if not path:
            return SafetySettings(model)
        settings, names = load_safety(Path(path), keys, model, floor_hash)
        self.events.append(
            f"safety settings {path} in force, signed by {', '.join(names)}: "
            f"{', '.join(settings.changes()) or 'nothing changed'}"
        )
        return settings

    def take_events(self) -> list[str]:
        """What happened since the last call, in words; at most a few queues full."""
        taken = []
        for queue in (self.events, self.ladder.events, self.core.events):
            while queue:
                taken.append(queue.popleft())
        return taken

    def set_mode(self, mode: int, reason: str) -> str:
        """Change who drives, of a robot that stands; "" or why not."""
        moves, latest = self.gate.moves(), self.core.latest
        if not moves and self.gate.armed and (latest is None or latest.ruling.command != (0.0, 0.0)):
            moves = "has just been told to move"
        return self.modes.switch(mode, reason, moves)

    def approve(self, seconds: float, now_ns: int) -> str:
        """Let the policy drive for so long, in assist mode; "" or why not."""
        if not self.gate.armed:
            return "the robot is not armed; arm it first"
        policy = self.ladder.policy
        return self.modes.approve(seconds, policy.digest if policy else "", now_ns)

    def close(self) -> None:
        """End the threads; the loop must have been stopped."""
        self.loader.close()
        self.routes.close()
