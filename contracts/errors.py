"""The errors of what two rooms agree on. One root; a subclass per condition."""


def reason_of(error: Exception) -> str:
    """Why something failed, for a message that names the file itself: without error number and file name."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


class ContractError(Exception):
    """Root of every error raised by ``contracts``."""


class ObservationContractError(ContractError):
    """An observation layout, or an array said to follow it, is not what was agreed."""


class BundleError(ContractError):
    """Root of every reason to refuse a bundle. ``code`` is what a robot reports to the hub."""

    code = "refused"


class BundleUnreadableError(BundleError):
    """The file is missing or cannot be read."""

    code = "unreadable"


class BundleTooLargeError(BundleError):
    """The file, or one member of it, is larger than its limit."""

    code = "too_large"


class BundleDamagedError(BundleError):
    """The file ends early, a checksum does not fit, or it is no zip file at all."""

    code = "damaged"


class BundleWrongMembersError(BundleError):
    """The file holds other members than the four of a bundle: extra, missing, twice, or with a path."""

    code = "wrong_members"


class BundleNotCanonicalError(BundleError):
    """The same members in another encoding: compressed, padded, prefixed or with other time stamps."""

    code = "not_canonical"


class BundleManifestInvalidError(BundleError):
    """The manifest is no manifest of ours, or says what cannot be."""

    code = "manifest_invalid"


class BundleProvenanceInvalidError(BundleError):
    """The provenance is no signed in-toto statement about exactly these files."""

    code = "provenance_invalid"


class BundleContentChangedError(BundleError):
    """A member's hash is not the one that was signed."""

    code = "content_changed"


class BundleSignatureRefusedError(BundleError):
    """Fewer trusted signatures than the threshold asks for."""

    code = "signature_refused"


class BundleWrongLayoutError(BundleError):
    """The policy was made for another observation layout."""

    code = "wrong_layout"


class BundleWrongRobotError(BundleError):
    """The policy was not made for this robot model."""

    code = "wrong_robot"


class BundleWrongMonitorError(BundleError):
    """The policy was trained behind another safety monitor."""

    code = "wrong_monitor"


class BundleLimitsExceededError(BundleError):
    """The policy's command limits are beyond the robot's."""

    code = "limits_exceeded"


class BundleNetworkRefusedError(BundleError):
    """The ONNX network uses an operator, a domain or outside data that is not allowed."""

    code = "network_refused"


class BundleGoldenInvalidError(BundleError):
    """The golden vectors are not two finite float32 arrays of the agreed shapes."""

    code = "golden_invalid"


class BundleGoldenMismatchError(BundleError):
    """Replayed on this machine, the policy answers something else than where it was made."""

    code = "golden_mismatch"


class BundleCounterTooLowError(BundleError):
    """The release counter is below what this robot or hub has already accepted."""

    code = "counter_too_low"


class KeyFileError(ContractError):
    """A key file is missing, unreadable, open to others, or holds no key of the expected kind."""


class RingError(ContractError):
    """The shared-memory ring is missing, or is of another version."""


class LogFormatError(ContractError):
    """A log segment is not ours, is of another version, or is damaged where it must not be."""


class TraceTargetError(ContractError):
    """Traces cannot be written where they should go."""


class MessageError(ContractError):
    """Bytes from the wire are no message of ours."""


class OrderError(ContractError):
    """Root of every reason to refuse a rollout's papers. ``code`` is what is logged and reported."""

    code = "order_refused"


class PlanError(OrderError):
    """A rollout plan is none, or says what cannot be."""

    code = "plan_invalid"


class AccessFileError(OrderError):
    """The list of people and their roles is unsigned, unreadable, or older than the one known."""

    code = "access_refused"


class AccessDeniedError(OrderError):
    """Nobody of the access file has signed this, or somebody whose role does not allow it."""

    code = "access_denied"


class NotApprovedError(OrderError):
    """Two different people of the right roles have not signed this very plan."""

    code = "not_approved"


class NotNamedError(OrderError):
    """The stage does not name this robot."""

    code = "not_named"


class StageOrderError(OrderError):
    """A stage is out of its order: an earlier one has not been witnessed, or a later one is under way."""

    code = "stage_out_of_order"


class WrongReleaseError(OrderError):
    """The order is for another bundle than the plan."""

    code = "wrong_release"


class PlanExpiredError(OrderError):
    """The plan is not valid at this time."""

    code = "plan_expired"


class OrderReplayedError(OrderError):
    """The order belongs to a plan, or a part of one, that is over."""

    code = "order_replayed"


class RobotCardError(OrderError):
    """A robot's card is missing, unsigned or another robot's."""

    code = "card_refused"


class ErasureSpanError(OrderError):
    """An order for erasure is about a time that ends before it begins, or was not over when it was signed."""

    code = "erasure_span"


class StoreFormatError(ContractError):
    """A replay store is missing, foreign, damaged or of another version."""
