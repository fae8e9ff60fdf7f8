"""The errors of the simulator."""


class SimError(Exception):
    """Root of every error raised by ``sim``."""


class GenerateError(SimError):
    """No valid floor came out of these settings."""


class SimConfigError(SimError):
    """The simulation cannot be set up as asked."""


class CommandError(SimError, ValueError):
    """An action or command that is not finite or has the wrong shape; the simulation has not moved."""
