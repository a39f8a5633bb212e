"""The messages of the registration stream: protobuf ⇄ core values, with every limit checked.

See docs/protocol.md for the fields. `encode` and `decode` are inverse on all that is carried.
"""

from msgspec import Struct

from openpool.core.model import Segment


class RegisterRequest(Struct, frozen=True, kw_only=True):
    """A transcoder offers itself."""

    secret: str
    capacity: int
    capabilities: int | None
    """Bit set, or None where the message was absent: then defaults and our version are assumed."""
    version: str = ""


class Notification(Struct, frozen=True, kw_only=True):
    """A task (`url` set), the end of a session (`url` empty), or a cancelled task."""

    url: str = ""
    task_id: int = 0
    session: str = ""
    """Session id as the receiver knows it; a worker's is opaque."""
    manifest: str = ""
    segment: Segment | None = None
    cancelled_task_id: int | None = None
