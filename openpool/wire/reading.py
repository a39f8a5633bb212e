"""Reading a peer's protobuf: size and shape first, then rule by rule.

Shared by `wire.messages` and `wire.ai_messages`. Raises nothing but BadMessage.
"""

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from openpool.core.errors import BadMessage

MESSAGE_BYTES_MAX = 1 << 20
_Message = TypeVar("_Message", bound=Message)


def parsed(kind: type[_Message], data: bytes) -> _Message:
    """The message that the bytes are. Raises BadMessage."""
    check(len(data) <= MESSAGE_BYTES_MAX, "it is longer than 1 MiB")
    try:
        return kind.FromString(data)
    except DecodeError:
        raise BadMessage(f"cannot read a {kind.__name__}: it is not this protobuf") from None


def check(fine: bool, wrong: str) -> None:
    """Refuse a message that breaks a rule. Raises BadMessage."""
    if not fine:
        raise BadMessage(f"cannot accept the message: {wrong}")
