"""The errors of the firmware interface. One root; a subclass per condition."""


class FirmwareError(Exception):
    """Root of every error raised by ``firmware_interface``."""


class FieldRangeError(FirmwareError, ValueError):
    """A field of a frame to be sent is out of its range, not finite, or of another length."""


class PortMissingError(FirmwareError):
    """There is no such port, or nothing listens there."""


class PortDeniedError(FirmwareError):
    """The port is there, but this user may not open it."""


class PortBusyError(FirmwareError):
    """Another program holds the port."""


class NoBoardError(FirmwareError):
    """What is on the port does not answer as a board of ours."""


class SchemaMismatchError(FirmwareError):
    """Board and host were made from different schemas."""


class LinkLostError(FirmwareError):
    """The link broke, or the board fell silent, while something was asked of it."""


class RefusedError(FirmwareError):
    """The board answered, and said no. ``result`` is its reason, ``value`` what came with it."""

    def __init__(self, message: str, result: int, value: int) -> None:
        super().__init__(message)
        self.result, self.value = result, value


class ParameterError(FirmwareError):
    """No such parameter, or a value that is out of its range."""


class ImageError(FirmwareError):
    """A firmware image is missing, damaged, too large, or not signed by a trusted key."""


class BuildError(FirmwareError):
    """The reference firmware could not be compiled."""


class EmulatorError(FirmwareError):
    """The emulator did not start, or ended."""
