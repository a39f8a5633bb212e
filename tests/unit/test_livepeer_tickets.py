"""Tickets against those that the real TicketBroker took or refused."""

import gzip
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from openpool.core.errors import BadMessage
from openpool.core.livepeer import tickets
from openpool.core.livepeer.tickets import CURVE_ORDER, Ticket
from openpool.core.payment import SURE
from openpool.ethereum import Account, encode_defunct

VECTORS = Path(__file__).parent.parent / "vectors"
GOLDEN = json.loads(gzip.decompress((VECTORS / "golden_2026.json.gz").read_bytes()))


def raw(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def ticket_of(given: dict[str, str]) -> Ticket:
    return Ticket(
        recipient=raw(given["recipient"]),
        sender=raw(given["sender"]),
        face_value_wei=int(given["faceValue"]),
        win_prob=int(given["winProb"]),
        sender_nonce=int(given["senderNonce"]),
        recipient_rand_hash=raw(given["recipientRandHash"]),
        aux_data=raw(given["auxData"]),
    )


def vectors() -> list[dict[str, Any]]:
    return list(GOLDEN["ticketVectors"])


def test_every_ticket_is_as_on_chain() -> None:
    """Hash, secret's hash, draw, win and signer of all 22 tickets are those of the chain."""
    assert len(vectors()) == 22
    for vector in vectors():
        ticket, signature = ticket_of(vector["ticket"]), raw(vector["sig"])
        rand = int(vector["recipientRand"])
        tickets.check_signature(signature)
        assert tickets.ticket_hash(ticket) == raw(vector["hash"])
        assert tickets.recipient_rand_hash(rand) == ticket.recipient_rand_hash
        assert tickets.draw(signature, rand) == int(vector["draw"])
        assert tickets.wins(ticket, signature, rand) is vector["wins"]
        message = encode_defunct(tickets.ticket_hash(ticket))
        assert Account.recover_message(message, signature=signature) == vector["ticket"]["sender"]
        recovered = Account._recover_hash(tickets.signing_hash(ticket), signature=signature)
        assert recovered == vector["ticket"]["sender"]
    assert {vector["wins"] for vector in vectors()} == {True, False}


def test_a_ticket_wins_below_its_probability_only() -> None:
    """A draw that equals the probability loses."""
    vector = vectors()[0]
    ticket, signature = ticket_of(vector["ticket"]), raw(vector["sig"])
    rand, draw = int(vector["recipientRand"]), int(vector["draw"])
    assert not tickets.wins(replace(ticket, win_prob=draw), signature, rand)
    assert tickets.wins(replace(ticket, win_prob=draw + 1), signature, rand)


@pytest.mark.parametrize("sig", ["64 bytes", "recovery 0", "high s", "zero r"])
def test_a_signature_that_the_chain_refuses_is_refused(sig: str) -> None:
    """Wrong length, a recovery id of 0, the twin in the upper half, and zero are no signatures."""
    good = raw(vectors()[0]["sig"])
    twin = CURVE_ORDER - int.from_bytes(good[32:64], "big")
    wrong = {
        "64 bytes": good[:64],
        "recovery 0": good[:64] + bytes([good[64] - 27]),
        "high s": good[:32] + twin.to_bytes(32, "big") + good[64:],
        "zero r": bytes(32) + good[32:],
    }
    with pytest.raises(BadMessage):
        tickets.check_signature(wrong[sig])


def test_a_ticket_of_a_wrong_shape_has_no_hash() -> None:
    """Fields of a wrong size would shift the packed bytes, so they are refused."""
    good = ticket_of(vectors()[0]["ticket"])
    for wrong in (
        replace(good, aux_data=bytes(63)),
        replace(good, recipient=bytes(32)),
        replace(good, face_value_wei=-1),
        replace(good, win_prob=SURE + 1),
    ):
        with pytest.raises(BadMessage):
            tickets.ticket_hash(wrong)


def test_the_expected_value_is_exact() -> None:
    """A sure ticket is worth its face; a small chance is a fraction of a wei, not zero."""
    assert tickets.expected_value_wei(10**18, SURE) == 10**18
    assert tickets.expected_value_wei(3, 1) == Fraction(3, SURE)


def test_when_a_ticket_expires() -> None:
    """With a validity of two rounds a ticket is good in its round and in the next."""
    assert [tickets.is_expired(10, 2, now) for now in (10, 11, 12)] == [False, False, True]


def test_what_a_sender_is_good_for() -> None:
    """The reserve is shared by all orchestrators; pending tickets count against it unless the
    deposit covers them three times."""
    assert tickets.reserve_share_wei(80, 20, 15, 4) == 10
    assert tickets.reserve_share_wei(80, 20, 30, 4) == 0
    assert tickets.reserve_share_wei(80, 20, 0, 0) == 0
    assert tickets.max_float_wei(10, 30, 10) == 10
    assert tickets.max_float_wei(10, 29, 10) == 0
    assert tickets.max_float_wei(10, 0, 4) == 6
    assert tickets.paid_wei(100, 60, 30) == 90
    assert tickets.paid_wei(100, 200, 30) == 100
