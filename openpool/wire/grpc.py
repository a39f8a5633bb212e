"""gRPC's own framing on top of HTTP/2: length-prefixed messages and status trailers.

No sockets here; `link.server` and `link.client` carry the bytes. See docs/protocol.md.
"""

from collections.abc import Mapping
from urllib.parse import quote, unquote

from openpool.core.errors import BadMessage

CONTENT_TYPE = "application/grpc"
REGISTER_PATH = "/net.Transcoder/RegisterTranscoder"
STATUS_TEXT_MAX = 1024
_PREFIX_BYTES = 5
_UNESCAPED = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


def frame(message: bytes) -> bytes:
    """One message with its prefix: not compressed, then the length."""
    return b"\0" + len(message).to_bytes(4, "big") + message


class Deframer:
    """Cuts a byte stream back into messages of at most `limit` bytes."""

    __slots__ = ("_buffer", "_limit")

    def __init__(self, limit: int) -> None:
        self._buffer = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that `data` completes; BadMessage if one is too long or compressed."""
        self._buffer += data
        messages = []
        while (length := self._length()) is not None and len(self._buffer) >= length:
            messages.append(bytes(self._buffer[_PREFIX_BYTES:length]))
            del self._buffer[:length]
        return messages

    @property
    def is_empty(self) -> bool:
        """Whether the stream may end here, that is, not inside a message."""
        return not self._buffer

    def _length(self) -> int | None:
        if len(self._buffer) < _PREFIX_BYTES:
            return None
        if self._buffer[0] != 0:
            raise BadMessage("cannot read a compressed gRPC message; send it uncompressed")
        length = int.from_bytes(self._buffer[1:_PREFIX_BYTES], "big")
        if length > self._limit:
            raise BadMessage(f"the gRPC message is longer than {self._limit} bytes")
        return length + _PREFIX_BYTES


def trailers(status: int, message: str) -> list[tuple[str, str]]:
    """The header fields that end a call."""
    fields = [("grpc-status", str(int(status)))]
    if message:
        fields.append(("grpc-message", quote(message[:STATUS_TEXT_MAX], safe=_UNESCAPED)))
    return fields


def read_status(fields: Mapping[str, str]) -> tuple[int, str] | None:
    """Status and message of a call's end, or None if these fields do not end a call."""
    status = fields.get("grpc-status", "")
    if not (status.isascii() and status.isdigit() and len(status) <= 3):
        return None
    return int(status), unquote(fields.get("grpc-message", "")[: 3 * STATUS_TEXT_MAX])
