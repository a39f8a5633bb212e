"""Messages in an HTTP body: four bytes of length, big-endian, then as many bytes; or lines.

Sessions carry their input so, and those of a WebSocket elsewhere their answer, too. The first bit
of a length says that the message is text. A length above the limit ends the session before the
message is read: what a stranger announces is never allocated.
"""

import struct
from collections.abc import Iterator

from openpool.core.errors import BadMessage

CONTENT_TYPE = "application/vnd.openpool.messages"
"""By this a body is known to be framed so."""
MESSAGE_BYTES_MAX = 16_000_000
_LENGTH = struct.Struct("!I")
_TEXT = 1 << 31


def pack(message: bytes | str) -> bytes:
    """The message as it stands in a body."""
    if isinstance(message, str):
        text = message.encode()
        return _LENGTH.pack(len(text) | _TEXT) + text
    return _LENGTH.pack(len(message)) + message


class Unpacker:
    """Finds the messages in a body that arrives in pieces of any size."""

    def __init__(self, message_bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        self._message_bytes_max = message_bytes_max
        self._buffer = bytearray()

    @property
    def is_between(self) -> bool:
        """Whether no message is half read: a body may end here."""
        return not self._buffer

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are complete with this piece, in bytes. Raises BadMessage."""
        return [message for message, _ in self._take(data)]

    def told(self, data: bytes) -> list[bytes | str]:
        """The same, texts as such."""
        return [
            message.decode(errors="replace") if is_text else message
            for message, is_text in self._take(data)
        ]

    def _take(self, data: bytes) -> list[tuple[bytes, bool]]:
        self._buffer += data
        messages = []
        while (end := self._end()) <= len(self._buffer):
            is_text = bool(self._buffer[0] & 0x80)
            messages.append((bytes(self._buffer[_LENGTH.size : end]), is_text))
            del self._buffer[:end]
        return messages

    def _end(self) -> int:
        """Where the first message ends; at least one byte more than there is, if unknown."""
        if len(self._buffer) < _LENGTH.size:
            return len(self._buffer) + 1
        (marked,) = _LENGTH.unpack_from(self._buffer)
        size = int(marked) & ~_TEXT
        if size > self._message_bytes_max:
            raise BadMessage(
                f"a message of {size} bytes is announced; at most {self._message_bytes_max} "
                "are taken, send smaller segments"
            )
        return _LENGTH.size + size


class Lines:
    """Finds the lines in a body that arrives in pieces of any size; empty ones are left out."""

    def __init__(self, line_bytes_max: int) -> None:
        self.rest = bytearray()
        """The beginning of a line whose end has not come."""
        self._line_bytes_max = line_bytes_max

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that are complete with this piece, without their ends. Raises BadMessage when
        it is the turn of one that is too long."""
        for number, piece in enumerate(data.split(b"\n")):
            if number and self.rest:
                line = bytes(self.rest)
                self.rest.clear()
                yield line
            self.rest += piece
            if len(self.rest) > self._line_bytes_max:
                raise BadMessage(f"a line is longer than {self._line_bytes_max} bytes")
