"""gRPC framing: messages and endings survive any cut, and limits hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openpool.core.errors import BadMessage
from openpool.wire.grpc import Deframer, frame, read_status, trailers


@given(st.lists(st.binary(max_size=50), max_size=5), st.integers(1, 20))
def test_messages_survive_any_cut(messages: list[bytes], step: int) -> None:
    """However the bytes are cut into pieces, the same messages come out."""
    stream = b"".join(frame(message) for message in messages)
    deframer = Deframer(limit=50)
    received = []
    for start in range(0, len(stream), step):
        received += deframer.feed(stream[start : start + step])
    assert received == messages
    assert deframer.is_empty


def test_a_message_over_the_limit_is_refused_by_its_length() -> None:
    """The five bytes in front are enough to refuse; the body is never collected."""
    with pytest.raises(BadMessage, match="longer than 10 bytes"):
        Deframer(limit=10).feed(frame(bytes(11))[:5])


def test_a_compressed_message_is_refused() -> None:
    """Compression was never agreed upon."""
    with pytest.raises(BadMessage, match="uncompressed"):
        Deframer(limit=10).feed(b"\1\0\0\0\0")


@given(st.integers(0, 16), st.text(st.characters(codec="utf-8"), max_size=60))
def test_an_ending_is_read_as_it_was_written(status: int, message: str) -> None:
    """Any text survives the percent-encoding, which is plain ASCII."""
    fields = dict(trailers(status, message))
    assert all(value.isascii() and value.isprintable() for value in fields.values())
    assert read_status(fields) == (status, message)


def test_the_fatal_texts_are_not_altered() -> None:
    """A stock worker compares `invalid secret` letter by letter."""
    assert dict(trailers(2, "invalid secret"))["grpc-message"] == "invalid secret"


@pytest.mark.parametrize("status", ["", "x", "-1", "٣", "1" * 50])
def test_a_senseless_status_is_none(status: str) -> None:
    """Header fields without a sensible status do not end a call."""
    assert read_status({"grpc-status": status}) is None
