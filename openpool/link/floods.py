"""Counts HTTP/2 frames before they are parsed, and says when a peer sends absurdly many.

HTTP/2 libraries answer every ping, settings frame and reset that they are sent, which costs them
far more than the sender. Looking at the nine bytes before each frame costs next to nothing.
"""

from collections.abc import Mapping

PREFACE_BYTES = 24
"""Length of the fixed text with which a client opens a connection."""

DATA, HEADERS, PRIORITY, RESET, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
_UNKNOWN = 10
_HEAD_BYTES = 9
_END_STREAM = 1
_SMALL_DATA_BYTES = 64

PERIOD_S = 10.0
FRAMES_MAX: Mapping[int, int] = {
    DATA: 5_000,  # only those nearly empty count
    HEADERS: 5_000,
    PRIORITY: 200,
    RESET: 200,
    SETTINGS: 50,
    PUSH: 0,
    PING: 1_000,  # gRPC clients measure the line with pings while they receive
    GOAWAY: 10,
    WINDOW: 4_000,
    CONTINUATION: 100,
    _UNKNOWN: 100,
}
"""Frames of each type that a peer may send within `PERIOD_S`."""

_NAMES = "nearly empty DATA,HEADERS,PRIORITY,RST_STREAM,SETTINGS,PUSH_PROMISE,PING,GOAWAY"
_TYPE_NAMES = [*_NAMES.split(","), "WINDOW_UPDATE", "CONTINUATION", "unknown"]


class Flood(Exception):
    """The peer sends more frames of one type than any honest one would."""


class FrameMeter:
    """Follows the frame boundaries of one direction of one connection."""

    __slots__ = ("_counts", "_frames_max", "_skip", "_started", "_tail")

    def __init__(
        self, now: float, *, skip: int = 0, frames_max: Mapping[int, int] = FRAMES_MAX
    ) -> None:
        self._frames_max = frames_max
        self._skip = skip
        self._tail = b""
        self._started = now
        self._counts = [0] * len(_TYPE_NAMES)

    def feed(self, data: bytes, now: float) -> None:
        """Count the frames that begin in `data`; Flood if they are too many."""
        if now - self._started > PERIOD_S:
            self._started = now
            self._counts = [0] * len(_TYPE_NAMES)
        if self._tail:
            data = self._tail + data
        position, size = self._skip, len(data)
        while position + _HEAD_BYTES <= size:
            length = int.from_bytes(data[position : position + 3], "big")
            self._count(data[position + 3], data[position + 4], length)
            position += _HEAD_BYTES + length
        self._tail = data[position:] if position < size else b""
        self._skip = max(0, position - size)

    def allow(self, sent_bytes: int) -> None:
        """Sending DATA entitles the peer to window updates and pings, and to a reset if the data
        comes too late for its stream."""
        self._counts[WINDOW] -= 2 + sent_bytes // 1024
        self._counts[PING] -= 1
        self._counts[RESET] -= 1

    def expect(self, kind: int, frames: int) -> None:
        """So many frames of this type will come for something that we asked for."""
        self._counts[kind] -= frames

    def _count(self, kind: int, flags: int, length: int) -> None:
        if kind == DATA and (length >= _SMALL_DATA_BYTES or flags & _END_STREAM):
            return
        kind = min(kind, _UNKNOWN)
        self._counts[kind] += 1
        limit = self._frames_max[kind]
        if self._counts[kind] > limit:
            raise Flood(f"it sent more than {limit} {_TYPE_NAMES[kind]} frames in a row")
