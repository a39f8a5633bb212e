"""What can go wrong in reading the JSON or MessagePack of others. Pure."""

import msgspec

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What a decoder raises for bytes that are no JSON or MessagePack, have another shape than was
asked for, are not UTF-8, or are nested too deeply."""
