"""Messages in an HTTP body: four bytes of length, big-endian, then as many bytes.

Sessions (live video) carry their input so. A length above the limit ends the session before the
message is read: what a stranger announces is never allocated.
"""

import struct

from openpool.core.errors import BadMessage

CONTENT_TYPE = "application/vnd.openpool.messages"
"""By this a request body is known to be framed so."""
MESSAGE_BYTES_MAX = 16_000_000
_LENGTH = struct.Struct("!I")


def pack(message: bytes) -> bytes:
    """The message as it stands in a body."""
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
        """The messages that are complete with this piece. Raises BadMessage."""
        self._buffer += data
        messages = []
        while (end := self._end()) <= len(self._buffer):
            messages.append(bytes(self._buffer[_LENGTH.size : end]))
            del self._buffer[:end]
        return messages

    def _end(self) -> int:
        """Where the first message ends; at least one byte more than there is, if unknown."""
        if len(self._buffer) < _LENGTH.size:
            return len(self._buffer) + 1
        (size,) = _LENGTH.unpack_from(self._buffer)
        if size > self._message_bytes_max:
            raise BadMessage(
                f"a message of {size} bytes is announced; at most {self._message_bytes_max} "
                "are taken, send smaller segments"
            )
        return _LENGTH.size + int(size)
