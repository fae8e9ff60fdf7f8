"""What somebody says about a network of their own: its tensors, how observations go in and actions come out."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import yaml

from contracts.observation import COMMAND_SIZE, ROUTING_LAYOUT
from contracts.robot import RobotModel
from navigation.action import decode_action
from trainer.errors import TrainerError

Floats = npt.NDArray[np.float32]
SPEC_MAX_BYTES = 1_000_000
CHOICES_MAX = 1024
NO_LIMIT = float(np.finfo(np.float32).max)
SHAPES = (("features",), ("batch", "features"), ("batch", "time", "features"), ("time", "batch", "features"))
Values = float | tuple[float, ...]
TensorName = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class CustomPackError(TrainerError):
    """A network or its description is nothing that can be made into a bundle."""


class FieldSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One field of the observation layout, as the network wants it.

    ``(x - mean) / std`` or ``x * scale + offset``, then ``clip``; numbers are for the whole field or one each.
    """

    name: str
    mean: Values | None = None
    std: Values | None = None
    scale: Values | None = None
    offset: Values | None = None
    clip: tuple[float, float] | None = None


class Unit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="unit"):
    """Two numbers in [-1, 1], clipped and decoded as ``navigation.action`` does."""


class Tanh(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="tanh"):
    """The same after a tanh that the network leaves to its user."""


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="command"):
    """Speed in m/s and turn rate in rad/s, clipped to the robot's limits."""


class Gaussian(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="gaussian"):
    """Two means, then two numbers about the spread, which are left out; the means go on as ``squash`` says."""

    squash: Literal["none", "tanh"] = "none"


class Discrete(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="discrete"):
    """One number for each command of a table (m/s, rad/s); the largest wins, the first of equals."""

    commands: Annotated[tuple[tuple[float, float], ...], msgspec.Meta(min_length=2, max_length=CHOICES_MAX)]


Action = Unit | Tanh | Command | Gaussian | Discrete


class CustomSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything needed to wrap a network; see docs/bring-your-own-policy.md."""

    input: TensorName
    output: TensorName
    fields: Annotated[tuple[FieldSpec, ...], msgspec.Meta(min_length=1, max_length=64)]
    action: Action
    dims: tuple[str, ...] = ("batch", "features")

    @property
    def size(self) -> int:
        """How many numbers the network is given."""
        return sum(_size_of(field.name) for field in self.fields)

    @property
    def width(self) -> int:
        """How many numbers the network must answer for one observation."""
        if isinstance(self.action, Discrete):
            return len(self.action.commands)
        return 2 * COMMAND_SIZE if isinstance(self.action, Gaussian) else COMMAND_SIZE

    def columns(self) -> list[tuple[int, int]]:
        """First and last + 1 index of each field in the observation."""
        starts = [ROUTING_LAYOUT.offset(field.name) for field in self.fields]
        return [
            (start, start + _size_of(field.name)) for start, field in zip(starts, self.fields, strict=True)
        ]

    def vector(self, name: Literal["mean", "std", "scale", "offset"], default: float) -> Floats:
        """One of the normalisation's numbers for every network input, float32[size]."""
        parts = [_spread(field, getattr(field, name), default) for field in self.fields]
        return np.concatenate(parts)

    def bounds(self) -> tuple[Floats, Floats]:
        """Lower and upper clip for every network input, float32[size]."""
        clips = [field.clip or (-NO_LIMIT, NO_LIMIT) for field in self.fields]
        low, high = (
            np.concatenate([_spread(f, clip[side], 0.0) for f, clip in zip(self.fields, clips, strict=True)])
            for side in (0, 1)
        )
        return low, high

    def inputs(self, observations: Floats) -> Floats:
        """What the network is given for observations float32[n, 83]: float32[n, size]. The wrapped graph agrees."""
        picked = np.concatenate([observations[:, first:last] for first, last in self.columns()], axis=1)
        normal = (picked - self.vector("mean", 0.0)) / self.vector("std", 1.0)
        scaled = normal * self.vector("scale", 1.0) + self.vector("offset", 0.0)
        limited: Floats = np.clip(scaled, *self.bounds())
        return limited

    def commands(self, answers: Floats, robot: RobotModel) -> Floats:
        """Commands float32[n, 2] for the network's answers float32[n, width]. The wrapped graph agrees."""
        action = self.action
        if isinstance(action, Discrete):
            table: Floats = np.array(action.commands, dtype=np.float32)
            chosen: Floats = table[answers.argmax(axis=1)]
            return chosen
        if isinstance(action, Command):
            low = (-robot.reverse_max_mps, -robot.turn_rate_max_radps)
            high = (robot.speed_max_mps, robot.turn_rate_max_radps)
            limited: Floats = np.clip(answers, low, high).astype(np.float32)
            return limited
        if isinstance(action, Gaussian):
            answers = answers[:, :COMMAND_SIZE]
        squashed = isinstance(action, Tanh) or (isinstance(action, Gaussian) and action.squash == "tanh")
        return decode_action(np.tanh(answers) if squashed else answers, robot).astype(np.float32)


def load_spec(path: Path, robot: RobotModel) -> CustomSpec:
    """Read and check a description in YAML.

    Raises:
        CustomPackError: not readable, unknown keys, fields that do not exist, numbers that cannot be.
    """
    try:
        with path.open("rb") as stream:
            text = stream.read(SPEC_MAX_BYTES + 1)
        if len(text) > SPEC_MAX_BYTES:
            raise CustomPackError(
                f"{path}: larger than {SPEC_MAX_BYTES} bytes; this is no description of a network"
            )
        spec = msgspec.convert(yaml.safe_load(text), CustomSpec)
        check_spec(spec, robot)
    except OSError as error:
        raise CustomPackError(f"{path}: cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise CustomPackError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except (msgspec.ValidationError, CustomPackError) as error:
        raise CustomPackError(f"{path}: {error}") from None
    return spec


def check_spec(spec: CustomSpec, robot: RobotModel) -> None:
    """Whether the numbers and names make sense; raises CustomPackError."""
    if spec.dims not in SHAPES:
        known = "; ".join(", ".join(shape) for shape in SHAPES)
        raise CustomPackError(f"dims: expected one of [{known}], came {list(spec.dims)}")
    names = [field.name for field in spec.fields]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CustomPackError(f"fields: {', '.join(twice)} given twice")
    for field in spec.fields:
        _check_field(field)
    if isinstance(spec.action, Discrete):
        for row, (speed, turn) in enumerate(spec.action.commands):
            if not (
                -robot.reverse_max_mps <= speed <= robot.speed_max_mps
                and abs(turn) <= robot.turn_rate_max_radps
            ):
                raise CustomPackError(
                    f"action.commands[{row}] is {speed} m/s, {turn} rad/s; {robot.name} drives"
                    f" {-robot.reverse_max_mps} to {robot.speed_max_mps} m/s, turns {robot.turn_rate_max_radps} rad/s"
                )


def _check_field(field: FieldSpec) -> None:
    if (field.mean is not None or field.std is not None) and (
        field.scale is not None or field.offset is not None
    ):
        raise CustomPackError(f"field {field.name}: give mean and std or scale and offset, not both")
    for name in ("mean", "std", "scale", "offset"):
        numbers = _spread(field, getattr(field, name), 1.0)
        if not np.isfinite(numbers).all() or (name == "std" and (numbers <= 0.0).any()):
            wanted = "above zero" if name == "std" else "finite"
            raise CustomPackError(f"field {field.name}: {name} must be {wanted}, came {getattr(field, name)}")
    if field.clip is not None and not -NO_LIMIT <= field.clip[0] < field.clip[1] <= NO_LIMIT:
        raise CustomPackError(
            f"field {field.name}: clip must be [low, high] with low < high, came {list(field.clip)}"
        )


def _size_of(name: str) -> int:
    for field in ROUTING_LAYOUT.observation:
        if field.name == name:
            return field.size
    known = ", ".join(field.name for field in ROUTING_LAYOUT.observation)
    raise CustomPackError(f"the observation has no field {name!r}; there are {known}")


def _spread(field: FieldSpec, given: Values | None, default: float) -> Floats:
    size = _size_of(field.name)
    numbers = np.atleast_1d(np.array(default if given is None else given, dtype=np.float64))
    if numbers.size not in (1, size):
        raise CustomPackError(f"field {field.name} has {size} values; came {numbers.size} numbers for it")
    with np.errstate(over="ignore"):
        return np.broadcast_to(numbers, (size,)).astype(np.float32)
