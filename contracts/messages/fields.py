"""What messages are made of: the limits of their fields, and the fields' own types."""

from typing import Annotated

import msgspec

from contracts.papers import ACCESS_MAX_BYTES
from contracts.plan import PLAN_MAX_BYTES
from contracts.trust import NONCE_BYTES, ROOT_MAX_BYTES, TARGETS_MAX_BYTES

CHUNK_MAX_BYTES = 256 * 1024
RECORDS_MAX_BYTES = 256 * 1024
RECORDS_MAX_COUNT = 512
MESSAGE_MAX_BYTES = 512 * 1024
LIST_MAX = 4096
MEMBERS_MAX, TOKENS_MAX = 2000, 1000
"""As many as fit into a message."""
REASON_MAX_CHARS = 500
HELLO_FIRST = "hello_first"
WAIT_MAX_MS = 60_000
RECEIPT_PACKED_MAX_BYTES = 256 * 1024
ERASURES_MAX = 500
"""As many as fit into a message."""

Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Reason = Annotated[str, msgspec.Meta(max_length=REASON_MAX_CHARS)]
Label = Annotated[str, msgspec.Meta(max_length=128)]
OptionalDigest = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")]
ChunkBytes = Annotated[bytes, msgspec.Meta(max_length=CHUNK_MAX_BYTES)]
RecordBytes = Annotated[bytes, msgspec.Meta(max_length=RECORDS_MAX_BYTES)]
ReportedState = Annotated[
    str, msgspec.Meta(pattern="^(downloading|staged|active|soaked|shadowed|refused|failed|reverted)$")
]
OrderAction = Annotated[str, msgspec.Meta(pattern="^(run|shadow|revert)$")]
AccessPaper = Annotated[bytes, msgspec.Meta(max_length=ACCESS_MAX_BYTES)]
PlanBytes = Annotated[bytes, msgspec.Meta(max_length=PLAN_MAX_BYTES)]
TrustName = Annotated[str, msgspec.Meta(max_length=128)]
"""Name of a file in a TUF repository (``contracts.trust.check_name``)."""
TargetsBytes = Annotated[bytes, msgspec.Meta(max_length=TARGETS_MAX_BYTES)]
RootBytes = Annotated[bytes, msgspec.Meta(max_length=ROOT_MAX_BYTES)]
ReceiptBytes = Annotated[bytes, msgspec.Meta(max_length=RECEIPT_PACKED_MAX_BYTES)]
Nonce = Annotated[bytes, msgspec.Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]


class Message(msgspec.Struct, frozen=True, tag=True, array_like=True, forbid_unknown_fields=True):
    """One message: its name first, then its fields in order; unknown ones are refused."""


def short(reason: object) -> str:
    """A reason cut to what a message may carry."""
    text = str(reason)
    return text if len(text) <= REASON_MAX_CHARS else text[: REASON_MAX_CHARS - 3] + "..."
