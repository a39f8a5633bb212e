"""Texts of others, made fit to show, random bytes made fit to type, and counts in words. Pure.

What is not printable (`str.isprintable`) includes the controls that turn the direction of writing
round (UAX #9): one of them in a name would reverse the words beside it, on every page and in every
terminal that shows them. Names are refused where they are accepted; remarks are tidied here.
"""

from base64 import b32encode


def one_line(text: str, chars_max: int) -> str:
    """A peer's words as one printable line, fit for a log or a page."""
    return "".join(char if char.isprintable() else " " for char in text[:chars_max]).strip()


def plural(count: int, noun: str) -> str:
    """`1 session`, `2 sessions`; the noun is one whose plural ends in s."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def base32(data: bytes) -> str:
    """Lower-case letters and the digits 2 to 7, without padding: 8 of them for 5 bytes."""
    return b32encode(data).decode().rstrip("=").lower()
