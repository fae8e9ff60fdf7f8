"""The errors of the trainer."""


class TrainerError(Exception):
    """Root of every error raised by ``trainer``."""


class RunError(TrainerError):
    """A run folder cannot be started, read or resumed."""


class TrainConfigError(TrainerError):
    """A training config has an unknown key or a value out of range."""


class ExportError(TrainerError):
    """The exported network does not answer as the trained one does."""


class ScaleOutError(TrainerError):
    """Ray is missing, its cluster cannot be reached, or its actors do not collect."""


class FragmentError(ScaleOutError):
    """A rollout fragment is not what was asked for, or damaged; nothing is learned from it."""
