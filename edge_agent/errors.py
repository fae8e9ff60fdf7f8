"""The errors of the agent. One root; a subclass per condition."""


class AgentError(Exception):
    """Root of every error raised by ``edge_agent``."""


class ConfigError(AgentError):
    """A configuration file is missing, or says what cannot be."""


class SlotError(AgentError):
    """The policy slots on disk are not as they must be."""


class TransferFailedError(AgentError):
    """A bundle cannot be fetched, however often it is asked for. ``code`` is what the robot reports to the hub."""

    def __init__(self, reason: str, code: str) -> None:
        super().__init__(reason)
        self.code = code


class LogFolderError(AgentError):
    """A folder holds no log, or a foreign one."""


class PolicyRejectedError(AgentError):
    """A policy's network does not load, does not answer in the agreed form, or not as it did when made."""


class AgentRunningError(AgentError):
    """Another agent already runs this robot."""


class SafetyFileError(AgentError):
    """Safety settings are unsigned, signed by somebody else, looser than what is built in, or for another robot."""


class RosUnavailableError(AgentError):
    """ROS 2, or this project's interfaces for it, cannot be imported."""


class RobotSilentError(AgentError):
    """The robot's agent did not answer over ROS in time."""


class LogQueryError(AgentError):
    """A condition on log records cannot be read."""


class ToolMissingError(AgentError):
    """A package that only a field tech's computer has is not installed here."""
