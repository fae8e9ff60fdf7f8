"""The errors of the agent. One root; a subclass per condition."""


class AgentError(Exception):
    """Root of every error raised by ``edge_agent``."""


class ConfigError(AgentError):
    """A configuration file is missing, or says what cannot be."""


class SlotError(AgentError):
    """The policy slots on disk are not as they must be."""


class GoldenReplayError(AgentError):
    """The golden vectors could not be replayed."""


class LogFolderError(AgentError):
    """A folder holds no log, or a foreign one."""
