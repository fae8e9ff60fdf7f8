"""A node's settings as read-only ROS parameters: what ``ros2 param list`` and ``describe`` show.

A parameter given at the start (``-p rate_hz:=50``, a parameter file) wins over the configuration file; one out of
its range, of another type, or that is settled before the node exists is refused by name. None changes later.
"""

from typing import Any, TypeVar

import msgspec
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException

from edge_agent.errors import ConfigError

Config = TypeVar("Config", bound=msgspec.Struct)
DESCRIPTIONS = {
    "robot_id": "the robot's name, which is its namespace",
    "state_dir": "the robot's own folder",
    "keys_dir": "folder of the keys that bundles are checked with",
    "layout_path": "the floor's YAML file",
    "safety_path": "signed settings of the monitor; none: as built in",
    "ring_name": "shared memory that decisions go through",
    "robot_model": "shape, limits and lidar of the robot",
    "rate_hz": "ticks in a second",
    "real_time_factor": "robot seconds in a second, against a faster simulator",
    "serial_port": "where the motor controller is; none: commands go to ROS alone",
    "autostart": "configure and activate at start; arming is always explicit",
    "sim_time": "the sensors' stamps are a simulator's: not compared with arrivals; use_sim_time sets it",
    "trial.shadow_ticks": "ticks that a new policy runs beside the old one",
    "trial.probation_ticks": "ticks that a new policy drives before it is accepted",
    "trial.drives": "whether a new policy drives after its shadow",
    "trial.stage_max_s": "wall time after which shadow or probation is over, s",
    "trial.slow_max": "slow answers forgiven in each stage",
    "trial.late_extra": "late ticks forgiven beyond what is usual here",
    "trial.interventions_extra": "interventions forgiven beyond what is usual here",
    "trial.advice_max": "times that the monitor may advise against a new policy on probation",
    "realtime": "SCHED_FIFO and locked memory, where permitted",
    "cpus": "cores to run on; none: all",
    "command_stale_max_s": "an older command is none, s",
}
SETTLED = frozenset(
    {"robot_id", "state_dir", "keys_dir", "layout_path", "safety_path", "ring_name"}
    | {"autostart", "realtime", "cpus"}
)
"""In force before the node exists: the process was started with them."""


def declare_settings(node: Any, config: Config) -> Config:
    """Declare every setting; returns the configuration with what ROS was given at the start.

    Raises:
        ConfigError: naming the parameter.
    """
    values = msgspec.to_builtins(config)
    for name, (kind, value) in _flat(type(config), values).items():
        _store(values, name, _declare(node, name, kind, value))
    values["sim_time"] = values["sim_time"] or node.get_parameter("use_sim_time").value
    try:
        changed = msgspec.convert(values, type(config))
    except msgspec.ValidationError as error:
        raise ConfigError(f"ROS parameters: {error}; `ros2 param describe` has the ranges") from None
    return changed.check()  # type: ignore[attr-defined, no-any-return]


def _declare(node: Any, name: str, kind: msgspec.inspect.Type, value: Any) -> Any:
    descriptor = _describe(name, kind)
    # ROS has no empty list without a type: cores are told as text.
    shown = ",".join(map(str, value)) if isinstance(value, list) else value
    try:
        given = node.declare_parameter(name, shown, descriptor).value
    except ParameterException as error:
        raise ConfigError(f"ROS parameter {name}: {error}; `ros2 param describe` has its range") from None
    if name in SETTLED and given != shown:
        raise ConfigError(
            f"ROS parameter {name} is {given!r}, and the process was started with {shown!r}; leave it out, or "
            "change what the process is started with"
        )
    return value if name in SETTLED else given


def _describe(name: str, kind: msgspec.inspect.Type) -> Any:
    """The descriptor with the range that the configuration's type has; an open lower end is told as closed."""
    descriptor = ParameterDescriptor(description=DESCRIPTIONS[name], read_only=True)
    if not isinstance(kind, msgspec.inspect.IntType | msgspec.inspect.FloatType) or kind.le is None:
        return descriptor
    low = kind.ge if kind.ge is not None else kind.gt
    assert low is not None, f"{name} has no lower end"
    if isinstance(kind, msgspec.inspect.FloatType):
        descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(kind.le))]
    else:
        descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(kind.le), step=1)]
    return descriptor


def _flat(kind: Any, values: dict[str, Any], prefix: str = "") -> dict[str, tuple[msgspec.inspect.Type, Any]]:
    """``name: (type, value)``, with the fields of a nested struct as ``name.field``."""
    found: dict[str, tuple[msgspec.inspect.Type, Any]] = {}
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    for field in info.fields:
        name, value = prefix + field.name, values[field.name]
        if isinstance(field.type, msgspec.inspect.StructType):
            found |= _flat(field.type.cls, value, f"{name}.")
        else:
            found[name] = (field.type, value)
    return found


def _store(values: dict[str, Any], name: str, value: Any) -> None:
    *parents, last = name.split(".")
    for parent in parents:
        values = values[parent]
    values[last] = value
