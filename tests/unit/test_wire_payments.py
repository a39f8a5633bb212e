"""The payment headers that come with a gateway's request."""

import base64
from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openpool.core.errors import BadMessage
from openpool.core.payment import SURE, Payment
from openpool.wire.payments import (
    HEADER_CHARS_MAX,
    TICKETS_MAX,
    Credentials,
    decode_credentials,
    decode_payment,
    encode_credentials,
    encode_payment,
)

SENDER = "0x" + "ab" * 20
# Written by hand from the field numbers: 1 ticket_params {2 face_value, 3 win_prob}, 2 sender,
# 4 tickets {1 sender_nonce, 2 sig} twice, 5 expected_price {1 price, 2 pixels}.
BY_HAND = bytes.fromhex(
    "0a26" + "120203e8" + "1a20" + "80" + "00" * 31
    + "1214" + "ab" * 20
    + "2205" + "0801" + "1201ff"
    + "2205" + "0802" + "1201ff"
    + "2a04" + "0807" + "1003"
)  # fmt: skip

numbers = st.integers(min_value=0, max_value=SURE)
payments = st.builds(
    Payment,
    sender=st.binary(min_size=20, max_size=20).map(lambda data: "0x" + data.hex()),
    tickets=st.integers(min_value=0, max_value=20),
    face_value_wei=numbers,
    win_prob=numbers,
    price_wei=st.none() | st.fractions(min_value=0, max_value=2**40, max_denominator=2**40),
)


def header(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_a_payment_written_by_hand_is_read() -> None:
    """Bytes put together from the field numbers alone give tickets, value, sender and price."""
    payment = decode_payment(header(BY_HAND))
    assert payment is not None
    assert (payment.sender, payment.tickets, payment.face_value_wei) == (SENDER, 2, 1000)
    assert payment.price_wei == Fraction(7, 3)
    assert round(payment.expected_value_wei) == 1000  # two tickets that win every second time


@given(payments)
def test_what_is_written_is_read(payment: Payment) -> None:
    """Every payment comes back as it was."""
    assert decode_payment(encode_payment(payment)) == payment


def test_the_expected_value_is_exact() -> None:
    """Tickets that always win are worth their face value, to the wei, however large."""
    sure = Payment(sender=SENDER, tickets=3, face_value_wei=10**30 + 1, win_prob=SURE)
    assert sure.expected_value_wei == 3 * (10**30 + 1)


def test_no_payment_is_no_error() -> None:
    """Off-chain the header is empty and nobody pays."""
    assert decode_payment("") is None


def test_credentials_are_read_back() -> None:
    """What is paid for comes back as it was."""
    credentials = Credentials(manifest="m-1", session="m-1")
    assert decode_credentials(encode_credentials(credentials)) == credentials


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode()))
def test_garbage_is_refused_in_a_sentence(data: bytes) -> None:
    """Whatever the header holds, it is read or refused as bad, never a crash."""
    for text in (header(data), data.decode(errors="replace")):
        for decode in (decode_payment, decode_credentials):
            with suppress(BadMessage):
                decode(text)


@pytest.mark.parametrize(
    "text",
    [
        "not base64!",
        "A" * (HEADER_CHARS_MAX + 1),
        header(b"\xff\xff\xff"),
        encode_payment(Payment(sender="0x00", tickets=1, face_value_wei=1, win_prob=1)),
        encode_payment(
            Payment(sender=SENDER, tickets=TICKETS_MAX + 1, face_value_wei=1, win_prob=1)
        ),
        encode_payment(Payment(sender=SENDER, tickets=1, face_value_wei=2**264, win_prob=1)),
    ],
    ids=["base64", "long", "protobuf", "sender", "tickets", "number"],
)
def test_a_bad_payment_is_refused(text: str) -> None:
    """Each way of breaking the rules is told as such."""
    with pytest.raises(BadMessage, match="Livepeer-Payment"):
        decode_payment(text)
