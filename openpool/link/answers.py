"""What the worker port answers on its own, whichever version of HTTP it is spoken to in.

Every text is one sentence for the peer: what is wrong and what to do.
"""

import logging
from dataclasses import dataclass, field

from openpool.core.errors import (
    BadMessage,
    OpenPoolError,
    PeerError,
    Refusal,
    Unauthorized,
    Unavailable,
)
from openpool.link.http2 import Http2Limits
from openpool.link.interface import Ended, GrpcStatus, Reply
from openpool.link.line_stream import CLIENT_LIMITS
from openpool.wire.results import BODY_BYTES_MAX, BadUpload

log = logging.getLogger(__name__)

REPLY_CHARS_MAX = 4096
_OUR_MISTAKE = "the server made a mistake; it is written down there, please try again"
_SHUTTING_DOWN = "the server is shutting down; connect again"


@dataclass(frozen=True, slots=True, kw_only=True)
class PortLimits:
    """What one worker port puts up with."""

    http2: Http2Limits = field(default_factory=Http2Limits)
    line: Http2Limits = CLIENT_LIMITS
    """Of a worker that is called, see `link.line`."""
    body_bytes_max: int = BODY_BYTES_MAX
    request_bytes_max: int = 1 << 20
    """Of a registration message."""
    connections_max: int = 20_000
    connections_per_ip_max: int = 0
    """0 does not restrict."""
    uploads_max: int = 128
    """At once, over all connections; times the stream window (512 MiB) it bounds the memory that
    uploads take while their handlers do not read."""
    uploads_per_connection_max: int = 32
    handshake_s: float = 10.0
    headers_s: float = 20.0
    """For a new connection to send a whole request; also how long HTTP/1.1 is kept alive."""
    idle_s: float = 120.0
    """How long an HTTP/2 connection without a request is kept."""
    body_idle_s: float = 30.0
    """How long an upload may pause."""
    body_s: float = 300.0
    """How long an upload may take altogether."""
    linger_s: float = 10.0
    """How long the rest of a refused upload is read and thrown away."""
    drain_s: float = 10.0
    """How long uploads may go on once the port closes."""


def refusal_of(error: BaseException) -> Reply:
    """The answer to a request whose handler raised this."""
    if not isinstance(error, Exception):
        return Reply(503, _SHUTTING_DOWN)
    if isinstance(error, BadUpload):
        return Reply(error.status, str(error))
    if not isinstance(error, OpenPoolError):
        log.error("a request handler failed", exc_info=error)
        return Reply(500, _OUR_MISTAKE)
    for kind, status in _STATUS_OF.items():
        if isinstance(error, kind):
            return Reply(status, str(error))
    return Reply(500, str(error))


_STATUS_OF: dict[type[OpenPoolError], int] = {
    Unauthorized: 401,
    PeerError: 400,
    Refusal: 503,
    Unavailable: 503,
}


def ending_of(error: BaseException | None) -> Ended:
    """The end of a registration stream whose handler returned or raised this."""
    match error:
        case None:
            return Ended(GrpcStatus.OK)
        case Ended():
            return error
        case BadMessage():
            return Ended(GrpcStatus.UNKNOWN, str(error))
        case OpenPoolError():
            return Ended(GrpcStatus.INTERNAL, str(error))
        case Exception():
            log.error("a registration handler failed", exc_info=error)
            return Ended(GrpcStatus.INTERNAL, _OUR_MISTAKE)
        case _:
            return Ended(GrpcStatus.UNAVAILABLE, _SHUTTING_DOWN)


def too_large(limit: int) -> BadUpload:
    return BadUpload(413, f"the body is larger than {limit} bytes; send smaller renditions")


def too_slow() -> BadUpload:
    return BadUpload(408, "the body came too slowly; try again over a faster line")


def too_many_uploads() -> Reply:
    return Reply(503, "too many uploads are under way at the moment; try again in a second")


def bad_method(method: str) -> Reply:
    return Reply(405, f"{method[:20]} is not offered here; use GET or POST")
