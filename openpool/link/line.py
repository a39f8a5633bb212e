"""The reverse path: calls of the pool to a worker that only ever dials out.

The worker opens a TLS connection to the worker port with a protocol name of its own, shows nothing
before it has checked the pool's certificate, and then the roles turn round: the pool is the
HTTP/2 client, the worker the server. A call is therefore an ordinary HTTP/2 request, with its flow
control, its streaming in both directions and its cancellation. See docs/protocol.md.
"""

from openpool.link.line_client import Answer, Call, Hello, Line
from openpool.link.line_server import Handler, LineAnswer, LineRequest, OfferBoard, serve_line
from openpool.link.line_stream import CALLS_MAX, Body, BrokenOff, NotAnswered

__all__ = [
    "CALLS_MAX",
    "Answer",
    "Body",
    "BrokenOff",
    "Call",
    "Handler",
    "Hello",
    "Line",
    "LineAnswer",
    "LineRequest",
    "NotAnswered",
    "OfferBoard",
    "serve_line",
]
