"""The errors of the hub. One root; a subclass per condition."""


class HubError(Exception):
    """Root of every error raised by ``fleet_hub``. ``code`` is what a client gets to see."""

    code = "refused"


class AddressBusyError(HubError):
    """Somebody else listens at the hub's address, or it cannot be listened at."""


class DataFolderError(HubError):
    """Another hub uses the data folder, or it cannot be written."""


class UploadError(HubError):
    """A bundle upload does not fit what was announced."""

    code = "upload"


class ReleaseRefusedError(HubError):
    """The bundle is not one that this fleet may release."""

    code = "release_refused"


class NotTrustedError(HubError):
    """Signed image targets are missing, or not what trainer and release manager may sign."""

    code = "not_trusted"


class UnknownReleaseError(HubError):
    """No release, or more than one, goes by that name."""

    code = "unknown_release"


class UnknownRolloutError(HubError):
    """There is no such rollout."""

    code = "unknown_rollout"


class DataFolderBusyError(DataFolderError):
    """Another hub holds the data folder's lock."""


class LeaseHeldError(HubError):
    """Another hub serves the fleet whose database this one shares."""


class DatabaseLostError(HubError):
    """The database that hubs share cannot be reached, or another hub has taken over."""


class NotAllowedError(HubError):
    """The client's key does not allow what it asked for."""

    code = "not_allowed"


class RevokedError(HubError):
    """The key that this connection was made with is no longer in the allow-list."""

    code = "revoked"


class MembershipError(HubError):
    """Who may connect cannot be changed like that."""

    code = "membership"


class ErasureError(HubError):
    """An order for erasure, or what a robot says of one, does not fit."""

    code = "erasure"


class IntakeError(HubError):
    """Records do not continue the robot's log, or are damaged."""

    code = "records_refused"


class HubUnreachableError(HubError):
    """No answer from the hub."""


class RefusedByHubError(HubError):
    """The hub answered no; the message is the hub's reason."""


class RolloutRefusedError(HubError):
    """What a person asked of a rollout does not fit its state, or the plan does not fit the fleet."""

    code = "rollout_refused"


class AuditBrokenError(HubError):
    """The audit log's chain has been tampered with."""

    code = "audit_broken"


class StoreBusyError(HubError):
    """Another process writes the replay store."""


class RetentionError(HubError):
    """Rules of what is kept are missing, or are none."""


class QueryRefusedError(HubError):
    """The SQL is not one reading statement, is wrong, or takes too long."""

    code = "query_refused"
