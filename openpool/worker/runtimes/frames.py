"""What the worker and its runtime processes say to each other over a socket pair.

A frame is a kind, the number of a call, and bytes. Several calls share a socket: each side sends
data of a call only as far as the other has given credit, so that nobody ever has to stop reading.
The worker's side is `worker.runtimes.process`, the other `worker.runtimes.child`.
"""

import socket
from collections.abc import Iterator
from enum import IntEnum
from struct import Struct as Layout
from typing import NamedTuple

import msgspec
from msgspec import Struct

HEADER = Layout("<BII")
FRAME_BYTES_MAX = 80 << 20
PIECE_BYTES = 64 << 10
WINDOW_BYTES = 1 << 20
"""Credit that a call has at its beginning, in both directions."""
RECEIVE_BYTES = 256 << 10


class Kind(IntEnum):
    """What a frame says. First the words of the worker, then those of the process."""

    CALL = 1
    """A `Call`: begin."""
    CANCEL = 2
    """Nobody wants the rest; END comes once it has stopped."""
    DATA = 3
    """Bytes of a session's input, or of an answer's body."""
    END = 4
    """Of a session's input, or of a call."""
    CREDIT = 5
    """So many more bytes may be sent."""
    READY = 10
    """The model is loaded; how many MB of graphics memory it takes."""
    MISSING = 11
    """The model cannot be loaded, and why."""
    HEAD = 12
    """The `Head` of an answer."""
    REFUSED = 13
    """The request is at fault, and why; ends the call."""
    BROKEN = 14
    """The runtime is at fault, and why; ends the call."""


ENDINGS = frozenset({Kind.END, Kind.REFUSED, Kind.BROKEN})


class Frame(NamedTuple):
    """One message."""

    kind: Kind
    call: int
    data: bytes


class Setup(Struct, frozen=True, kw_only=True):
    """Which runtime a process is to be: handed over on its command line."""

    runtime: str
    """`module:Class`."""
    model: str
    options: dict[str, str]
    cache: str
    parallel: int = 1
    nice: int = 5


class Call(Struct, frozen=True, kw_only=True):
    """A request, or the beginning of a session. The body is inline or in a file."""

    path: str
    content_type: str
    body: bytes = b""
    body_file: str = ""
    session: bool = False
    options: dict[str, str] = {}
    """What the client asked for in its query string."""


class Head(Struct, frozen=True, kw_only=True):
    """How an answer begins."""

    status: int
    content_type: str
    length: int | None = None
    """Size of the body where it is known."""


def pack(kind: Kind, call: int, data: bytes = b"") -> bytes:
    """The frame as it is sent."""
    return HEADER.pack(kind, call, len(data)) + data


def pack_number(kind: Kind, call: int, number: int) -> bytes:
    """A frame whose data is a number."""
    return pack(kind, call, number.to_bytes(8, "little"))


def number_of(frame: Frame) -> int:
    """The number in such a frame."""
    return int.from_bytes(frame.data, "little")


def encode(value: Struct) -> bytes:
    """A `Call` or `Head` as the data of a frame."""
    return msgspec.msgpack.encode(value)


class Unpacker:
    """Finds the frames in bytes that arrive in pieces. ValueError for what is no frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete with this piece."""
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            kind, call, size = HEADER.unpack_from(self._buffer)
            if size > FRAME_BYTES_MAX:
                raise ValueError("the frame is too large")
            end = HEADER.size + size
            if len(self._buffer) < end:
                return
            payload = bytes(memoryview(self._buffer)[HEADER.size : end])
            del self._buffer[:end]
            yield Frame(Kind(kind), call, payload)


def receive(sock: socket.socket) -> bytes:
    """What has arrived, blocking; empty when the other side has hung up."""
    try:
        return sock.recv(RECEIVE_BYTES)
    except ConnectionError:
        return b""
