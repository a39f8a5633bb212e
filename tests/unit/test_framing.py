"""Messages of a session in the body of a request."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openpool.core.errors import BadMessage
from openpool.wire.framing import Lines, Unpacker, pack


def test_texts_are_marked() -> None:
    """Who wants to know is told which messages are text; to the others all are bytes."""
    body = b"".join(map(pack, ["caf\u00e9", b"\xff\x00", "", b""]))
    assert Unpacker().told(body) == ["caf\u00e9", b"\xff\x00", "", b""]
    assert Unpacker().feed(body) == ["caf\u00e9".encode(), b"\xff\x00", b"", b""]
    wrong = pack("ab").replace(b"ab", b"\xff\xff")
    assert Unpacker().told(wrong) == ["\ufffd\ufffd"]


@given(messages=st.lists(st.binary(max_size=50)), piece=st.integers(min_value=1, max_value=60))
def test_messages_come_out_as_they_went_in(messages: list[bytes], piece: int) -> None:
    """However a body is cut into pieces, its messages come out whole and in order."""
    body = b"".join(map(pack, messages))
    unpacker = Unpacker()
    found = []
    for start in range(0, len(body), piece):
        found += unpacker.feed(body[start : start + piece])
    assert found == messages
    assert unpacker.is_between


def test_a_half_message_is_known() -> None:
    """A body that ends within a message can be told from one that is complete."""
    unpacker = Unpacker()
    assert unpacker.feed(pack(b"abc")[:-1]) == []
    assert not unpacker.is_between
    assert unpacker.feed(b"c") == [b"abc"]
    assert unpacker.is_between


def test_a_hostile_length_ends_it_at_once() -> None:
    """Four gigabytes that are only announced are refused with the first four bytes."""
    with pytest.raises(BadMessage, match="at most 1000 are taken"):
        Unpacker(message_bytes_max=1000).feed(b"\xff\xff\xff\xff")


@given(lines=st.lists(st.binary(max_size=50)), piece=st.integers(min_value=1, max_value=60))
def test_lines_come_out_as_they_went_in(lines: list[bytes], piece: int) -> None:
    """However a body is cut into pieces, its lines come out whole and in order, but empty ones."""
    lines = [line.replace(b"\n", b"") for line in lines]
    body = b"".join(line + b"\n" for line in lines) + b"rest"
    reader = Lines(50)
    found: list[bytes] = []
    for start in range(0, len(body), piece):
        found += reader.feed(body[start : start + piece])
    assert found == [line for line in lines if line]
    assert reader.rest == b"rest"


@pytest.mark.parametrize("body", [b"one\nsixbytes\ntwo\n", b"one\nsixbytes"])
def test_a_line_that_is_too_long_is_refused_after_those_before_it(body: bytes) -> None:
    """With its end or without: the lines before it are told, and none after it."""
    found: list[bytes] = []
    with pytest.raises(BadMessage, match="longer than 5 bytes"):
        for line in Lines(5).feed(body):
            found.append(line)
    assert found == [b"one"]
