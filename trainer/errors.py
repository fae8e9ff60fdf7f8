"""The errors of the trainer."""


class TrainerError(Exception):
    """Root of every error raised by ``trainer``."""


class RunError(TrainerError):
    """A run folder cannot be started, read or resumed."""


class TrainConfigError(TrainerError):
    """A training config has an unknown key or a value out of range."""


class ExportError(TrainerError):
    """The exported network does not answer as the trained one does."""
