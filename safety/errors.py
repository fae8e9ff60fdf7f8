"""The errors of the safety monitor's set-up. At run time it raises nothing: it stops the robot."""


class SafetyError(Exception):
    """Root of every error raised by ``safety``."""


class MonitorConfigError(SafetyError):
    """A setting would weaken or disable a protection."""


class ZoneError(SafetyError):
    """A zone of the map has no area, an impossible number, or lacks one."""
