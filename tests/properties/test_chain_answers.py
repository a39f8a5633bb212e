"""Whatever an endpoint or a contract answers, it is read or refused, and nothing else happens."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openpool.chain import answers, rpc
from openpool.chain.abi import decode, encode, revert_reason
from openpool.chain.contracts import TicketBroker
from openpool.core.errors import BadMessage

HASH = "0x" + "ab" * 32
FIELDS = """
number hash timestamp address topics data blockNumber blockHash transactionHash logIndex gasUsed
effectiveGasPrice status logs removed id result error code message
"""
NAMES = st.sampled_from(FIELDS.split())
TEXTS = st.sampled_from([HASH, "0x", "0x1", "0x-1", "0x_1", "0x" + "f" * 65, "0xzz", "", "1"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=9),
    max_leaves=20,
)
READERS: list[Callable[[Any], object]] = [
    answers.block,
    answers.log,
    answers.logs,
    answers.address,
    lambda value: answers.receipt(value, HASH),
    rpc.number,
    rpc.data,
    rpc.hash_text,
]


@pytest.mark.parametrize("read", READERS)
@given(value=JSON)
def test_a_value_is_read_or_refused(read: Callable[[Any], object], value: Any) -> None:
    """No JSON brings a reader to anything but a value or BadMessage."""
    with suppress(BadMessage):
        read(value)


@given(value=JSON, asked=st.integers(1, 3))
def test_a_response_answers_each_request_or_is_refused(value: Any, asked: int) -> None:
    """As many answers as requests, or none at all."""
    try:
        found = rpc._matched(msgspec.json.encode(value), list(range(asked)))
    except (BadMessage, rpc._BatchRefused):
        return
    assert len(found) == asked


@given(st.binary(max_size=300))
def test_bytes_of_a_contract_are_decoded_or_refused(content: bytes) -> None:
    """Neither a result nor a reason nor an event of any bytes is an accident."""
    revert_reason(content)
    for types in (["address", "uint256"], ["(bool,bytes)[]"], ["string"], ["uint8", "bool"]):
        with suppress(BadMessage):
            decode(types, content)
    topics = (TicketBroker.redeemed.topic, content[:32].rjust(32, b"\0"), bytes(32))
    with suppress(BadMessage):
        TicketBroker.redeemed.decode(topics, content)


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=70)), max_size=5))
def test_what_is_encoded_is_decoded(value: list[tuple[bool, bytes]]) -> None:
    """The results of many calls in one come back as they were."""
    types = ["(bool,bytes)[]"]
    assert decode(types, encode(types, value)) == (tuple(value),)


@pytest.mark.parametrize("text", ["0x-1", "0x+1", "0x1_0", "0x 1", "0x", "1", "0x" + "0" * 65, 1])
def test_odd_numbers_are_none(text: object) -> None:
    """Python would read some of these."""
    with pytest.raises(BadMessage):
        rpc.number(text)
