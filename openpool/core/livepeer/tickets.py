"""Tickets of probabilistic payments: what is signed, which ticket wins, what one is worth.

A ticket pays its face value with the probability `win_prob`, so it is worth an average. Hashing
only; who made a signature is found out by a shell, from `signing_hash` and a signature that
`check_signature` lets pass. Must not hold a key or recover one.
"""

from fractions import Fraction

from eth_utils.crypto import keccak
from msgspec import Struct

from openpool.core.errors import BadMessage
from openpool.core.payment import SURE

AUX_BYTES = 64
SIGNATURE_BYTES = 65
CURVE_ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
"""Of secp256k1. Every signature has a twin with the other s; only the lower half is good."""
SIGNED_PREFIX = b"\x19Ethereum Signed Message:\n32"
DEPOSIT_COVER = 3
"""A deposit that covers what is pending so many times makes the reserve needless."""


class Ticket(Struct, frozen=True, kw_only=True):
    """One ticket, its addresses as 20 bytes."""

    recipient: bytes
    sender: bytes
    face_value_wei: int
    win_prob: int
    """In 1/(2^256 − 1)."""
    sender_nonce: int
    recipient_rand_hash: bytes
    aux_data: bytes
    """Round of creation and the hash of that round's block, 32 bytes each."""

    @property
    def creation_round(self) -> int:
        return int.from_bytes(self.aux_data[:32], "big")


def ticket_hash(ticket: Ticket) -> bytes:
    """The name of a ticket on chain. Raises BadMessage if a field has a wrong size."""
    _check_shape(ticket)
    return keccak(
        ticket.recipient
        + ticket.sender
        + _word(ticket.face_value_wei)
        + _word(ticket.win_prob)
        + _word(ticket.sender_nonce)
        + ticket.recipient_rand_hash
        + ticket.aux_data
    )


def signing_hash(ticket: Ticket) -> bytes:
    """What the sender signs: the ticket's hash as a message (EIP-191)."""
    return keccak(SIGNED_PREFIX + ticket_hash(ticket))


def recipient_rand_hash(recipient_rand: int) -> bytes:
    """What a ticket shows of the recipient's secret number."""
    return keccak(_word(recipient_rand))


def check_signature(signature: bytes) -> None:
    """Raises BadMessage unless the chain and go-livepeer would read these bytes as r ‖ s ‖ v."""
    if len(signature) != SIGNATURE_BYTES:
        raise BadMessage(f"a ticket's signature has {SIGNATURE_BYTES} bytes")
    if signature[64] not in (27, 28):
        raise BadMessage("a ticket's signature ends in 27 or 28")
    r, s = (int.from_bytes(signature[i : i + 32], "big") for i in (0, 32))
    if not 0 < r < CURVE_ORDER or not 0 < s <= CURVE_ORDER // 2:
        raise BadMessage("a ticket's signature is none: r or s is out of its range")


def draw(signature: bytes, recipient_rand: int) -> int:
    """The number that decides, which neither side can choose alone."""
    return int.from_bytes(keccak(signature + _word(recipient_rand)), "big")


def wins(ticket: Ticket, signature: bytes, recipient_rand: int) -> bool:
    return draw(signature, recipient_rand) < ticket.win_prob


def expected_value_wei(face_value_wei: int, win_prob: int) -> Fraction:
    """What a ticket is worth on average, exactly."""
    return Fraction(face_value_wei * win_prob, SURE)


def is_expired(creation_round: int, validity_rounds: int, now_round: int) -> bool:
    """Whether a ticket can no longer be redeemed."""
    return creation_round + validity_rounds <= now_round


# ---- how much a sender is good for ---------------------------------------------------------------


def reserve_share_wei(
    remaining_wei: int, claimed_this_round_wei: int, claimed_by_me_wei: int, pool_size: int
) -> int:
    """What one of `pool_size` orchestrators may still claim of a sender's reserve this round."""
    if pool_size <= 0:
        return 0
    return max((remaining_wei + claimed_this_round_wei) // pool_size - claimed_by_me_wei, 0)


def max_float_wei(share_wei: int, deposit_wei: int, pending_wei: int) -> int:
    """The largest face value that is safe to take from a sender: its reserve stands for it.

    `pending_wei` are winning tickets not redeemed yet; a deposit that covers them amply leaves the
    reserve whole.
    """
    if deposit_wei >= DEPOSIT_COVER * pending_wei:
        return share_wei
    return max(share_wei - pending_wei, 0)


def paid_wei(face_value_wei: int, deposit_wei: int, share_wei: int) -> int:
    """What a redemption moves: the deposit first, then at most the share of the reserve."""
    from_deposit = min(face_value_wei, deposit_wei)
    return from_deposit + min(face_value_wei - from_deposit, share_wei)


def _check_shape(ticket: Ticket) -> None:
    sizes = (
        ("recipient", ticket.recipient, 20),
        ("sender", ticket.sender, 20),
        ("recipientRandHash", ticket.recipient_rand_hash, 32),
        ("auxData", ticket.aux_data, AUX_BYTES),
    )
    for name, value, size in sizes:
        if len(value) != size:
            raise BadMessage(f"a ticket's {name} has {size} bytes, not {len(value)}")


def _word(number: int) -> bytes:
    """The number as a uint256. Raises BadMessage if it is none."""
    if not 0 <= number <= SURE:
        raise BadMessage("a number in a ticket does not fit into 256 bits")
    return number.to_bytes(32, "big")
