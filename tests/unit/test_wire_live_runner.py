"""The JSON that runners and orchestrators exchange."""

import json
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openpool.core.errors import BadMessage
from openpool.wire.live_runner import (
    REPLY_BYTES_MAX,
    Heartbeat,
    HeartbeatReply,
    PriceInfo,
    decode,
    encode,
    read_duration,
)

DEFAULT = timedelta(seconds=5)


def test_a_heartbeat_is_what_orchestrators_read() -> None:
    """Field names are the wire's, a price is a number, and what is empty is left out."""
    beat = Heartbeat(
        runner_url="http://10.0.0.9:9000/r",
        app="llm/tiny",
        mode="single-shot",
        capacity=8,
        price_info=PriceInfo(price=Decimal("0.000002"), unit="fixed"),
    )
    assert encode(beat) == (
        b'{"runner_url":"http://10.0.0.9:9000/r","app":"llm/tiny","mode":"single-shot",'
        b'"capacity":8,"price_info":{"price":0.000002,"currency":"usd","unit":"fixed"}}'
    )


def test_an_answer_is_read() -> None:
    """Fields that nobody knows are passed over, absent ones are empty."""
    text = b'{"runner_id":"runner_x","heartbeat_interval":"5s","session_ids":null,"new":{"a":1}}'
    reply = decode(text, HeartbeatReply, "it")
    assert (reply.runner_id, reply.heartbeat_secret, reply.o2r) == ("runner_x", "", None)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"runner_id": 7}',
        b'{"runner_id": "\xff"}',
        b'{"runner_id": "x", "session_ids": [1]}',
        b"[" * 100_000,
        b'"' + b"x" * REPLY_BYTES_MAX + b'"',
    ],
    ids=["empty", "list", "missing", "number", "no-utf-8", "sessions", "deep", "long"],
)
def test_a_bad_answer_is_refused(text: bytes) -> None:
    """What is not the message it should be is refused in a sentence."""
    with pytest.raises(BadMessage, match="the answer"):
        decode(text, HeartbeatReply, "the answer")


@given(st.binary(max_size=100))
def test_garbage_raises_nothing_else(data: bytes) -> None:
    """Whatever comes, it is read as JSON of the right shape or refused."""
    try:
        reply = decode(data, HeartbeatReply, "it")
    except BadMessage:
        return
    assert isinstance(json.loads(data), dict)
    assert reply.runner_id == json.loads(data)["runner_id"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5), ("20s", 20), ("1m0s", 60), ("1h2m3.5s", 3723.5), ("500ms", 0.5), ("0s", 0)],
)
def test_durations_as_go_writes_them(text: str, seconds: float) -> None:
    """Hours, minutes, seconds and fractions are read."""
    assert read_duration(text, DEFAULT) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "5", "s", "-5s", "5s ", "five", "5s5", "9" * 60 + "h", "9" * 400 + "s"]
)
def test_other_durations_are_the_default(text: str) -> None:
    """What is no duration does not stop anybody."""
    assert read_duration(text, DEFAULT) == DEFAULT
