"""The payment headers of a gateway's request: base64 protobuf ⇄ what the books want to know.

The pool never checks or redeems tickets: the orchestrator did that before it passed a request on.
It reads them, so that what was paid can be put beside what was earned. A reader of headers can
raise nothing but `BadMessage`. See docs/protocol.md.
"""

import base64
import binascii
from fractions import Fraction
from typing import TypeVar

from google.protobuf.message import DecodeError
from msgspec import Struct

from openpool.core.errors import BadMessage
from openpool.core.payment import Payment
from openpool.wire import livepeer_pb2 as pb

PAYMENT_HEADER = "Livepeer-Payment"
SEGMENT_HEADER = "Livepeer-Segment"
HEADER_CHARS_MAX = 64 << 10
TICKETS_MAX = 600
"""More than an orchestrator takes for one set of ticket parameters."""
_NUMBER_BYTES_MAX = 32
_ADDRESS_BYTES = 20
_MANIFEST_BYTES_MAX = 1024

_Message = TypeVar("_Message", pb.Payment, pb.SegData)


class Credentials(Struct, frozen=True, kw_only=True):
    """What the payment is for."""

    manifest: str
    session: str
    """Session id of the gateway's token; a Live Runner session has the same id as its manifest."""


def decode_payment(header: str) -> Payment | None:
    """Read `Livepeer-Payment`; None for an empty one (nobody pays off-chain)."""
    if not header:
        return None
    message = _parse(pb.Payment, header, PAYMENT_HEADER)
    params = message.ticket_params
    tickets = len(message.ticket_sender_params)
    if tickets > TICKETS_MAX:
        raise BadMessage(f"{PAYMENT_HEADER} holds {tickets} tickets, more than {TICKETS_MAX}")
    if len(message.sender) != _ADDRESS_BYTES:
        raise BadMessage(f"{PAYMENT_HEADER} names no sender: an address has 20 bytes")
    return Payment(
        sender=f"0x{message.sender.hex()}",
        tickets=tickets,
        face_value_wei=_number(params.face_value, "face value"),
        win_prob=_number(params.win_prob, "winning probability"),
        price_wei=_price(message.expected_price),
    )


def decode_credentials(header: str) -> Credentials:
    """Read `Livepeer-Segment`."""
    message = _parse(pb.SegData, header, SEGMENT_HEADER)
    if len(message.manifestId) > _MANIFEST_BYTES_MAX:
        raise BadMessage(f"{SEGMENT_HEADER} holds a manifest id over {_MANIFEST_BYTES_MAX} bytes")
    return Credentials(
        manifest=message.manifestId.decode(errors="replace"),
        session=message.auth_token.session_id,
    )


def encode_payment(payment: Payment) -> str:
    """The header of a gateway that pays with `payment`; its tickets carry no valid signatures."""
    message = pb.Payment(sender=bytes.fromhex(payment.sender.removeprefix("0x")))
    message.ticket_params.face_value = _bytes(payment.face_value_wei)
    message.ticket_params.win_prob = _bytes(payment.win_prob)
    for nonce in range(payment.tickets):
        message.ticket_sender_params.add(sender_nonce=nonce + 1, sig=bytes(65))
    if payment.price_wei is not None:
        message.expected_price.pricePerUnit = payment.price_wei.numerator
        message.expected_price.pixelsPerUnit = payment.price_wei.denominator
    return base64.b64encode(message.SerializeToString()).decode()


def encode_credentials(credentials: Credentials) -> str:
    """The header that says what is paid for; it carries no valid signature."""
    message = pb.SegData(manifestId=credentials.manifest.encode())
    message.auth_token.session_id = credentials.session
    return base64.b64encode(message.SerializeToString()).decode()


def _parse(kind: type[_Message], header: str, name: str) -> _Message:
    if len(header) > HEADER_CHARS_MAX:
        raise BadMessage(f"{name} is longer than {HEADER_CHARS_MAX} characters")
    try:
        return kind.FromString(base64.b64decode(header, validate=True))
    except (binascii.Error, ValueError):
        raise BadMessage(f"{name} is not base64") from None
    except DecodeError:
        raise BadMessage(f"{name} does not hold the message it should") from None


def _price(given: pb.PriceInfo) -> Fraction | None:
    if given.pricePerUnit < 0 or given.pixelsPerUnit <= 0:
        return None
    return Fraction(given.pricePerUnit, given.pixelsPerUnit)


def _number(data: bytes, what: str) -> int:
    if len(data) > _NUMBER_BYTES_MAX:
        raise BadMessage(f"{PAYMENT_HEADER} holds a {what} of more than 32 bytes")
    return int.from_bytes(data, "big")


def _bytes(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
