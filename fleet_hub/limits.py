"""Every named maximum of the hub in one place."""

from contracts.messages import MESSAGE_MAX_BYTES

SOCKET_MESSAGE_MAX_BYTES = MESSAGE_MAX_BYTES
HANDSHAKE_MAX_MS = 30_000
"""As the robots': 4,000 handshakes take many seconds, and one that is cut off has to be made again."""
SEND_QUEUE_MAX = 64
"""Messages waiting for one slow peer; beyond it a message for that peer is dropped, and counted."""
RECEIVE_QUEUE_MAX = 256
BACKLOG_MAX = 8192
"""A whole fleet that comes back at once: whom the kernel drops here tries again after seconds that double."""
HEARTBEAT_MS = 2_000
HEARTBEAT_TIMEOUT_MS = 6_000
POLL_MS = 200
DRAIN_MAX = 256
DRAIN_MAX_BYTES = 4 * 1024 * 1024
"""Messages taken from the socket, and about how many bytes, before acknowledgements go out and the next sync begins."""
SESSIONS_MAX = 8_192
STRANGERS_AUDIT_S = 60.0
"""Between two entries of the audit log about connections with unknown keys."""
SILENT_MAX_S = 5.0
"""A robot that said nothing for this long counts as offline."""
SESSION_MAX_SILENCE_S = 60.0
UPLOAD_CHUNK_BYTES = 128 * 1024
DOWNLOAD_CHUNK_BYTES = 128 * 1024
FILE_CHUNK_BYTES = 32 * 1024
"""Of a repository's file; what a robot's pipe to its checking process holds twice."""
OPEN_BUNDLES_MAX = 8
DATABASE_BUSY_MS = 5_000
DIGEST_PREFIX_MIN = 8
"""Shortest beginning of a digest that names a release."""
PROOF_PAUSE_S = 1.0
"""Between two proofs of storage for one connection: each reads a segment, some milliseconds."""
ROLLOUT_STEP_S = 0.5
"""How often rollouts are looked at when nothing happens."""
ROLLOUT_STEP_MIN_S = 0.05
"""How often at most: every report of a thousand robots asks for a look at all of them."""
STEP_POLL_MS = 50
"""So that a look that is due is not late."""
CHUNKS_KEPT_MAX = 256
"""Encoded chunks in memory, 32 MB: a release is read and encoded once, however many robots fetch it."""
ROBOT_MESSAGES_PER_S = 1000.0
ROBOT_MESSAGES_BURST = 3000.0
"""What one robot may say; beyond it messages are dropped unread and counted. 512 records fit into one message."""
