"""Books against chain, in figures and in words. Pure; the shells are in `treasury`."""

from msgspec import Struct

from openpool.core.livepeer.amounts import eth_text
from openpool.core.money.luck import percent
from openpool.core.units import PPM


class Figures(Struct, frozen=True, kw_only=True):
    """What a round of an orchestrator came to, all in wei."""

    expected: int
    """What delivered work is worth on average."""
    face: int
    """Face value of the tickets that won."""
    paid: int
    """What the chain moved for them."""
    realised: int
    """By how much the orchestrator's own claim grew."""
    difference: int
    """Claim on chain minus claim in the books."""


def explanation(figures: Figures, *, is_followed: bool) -> str:
    """Why what was expected, paid and realised are not the same; sentences for people."""
    if not is_followed:
        return "Not followed on chain: the books hold what the operator recorded."
    reasons = [
        *_of_difference(figures.difference),
        *_of_payment(figures.face - figures.paid),
        *_of_delegators(figures.paid - figures.realised),
        *_of_luck(figures.face, figures.expected),
    ]
    return " ".join(reasons) or "All is as expected."


def _of_difference(difference: int) -> list[str]:
    if difference < 0:
        return [
            f"The chain holds {eth_text(-difference)} less than the books: something left the "
            "claim that was not seen as a withdrawal. Check the endpoints, then correct the books."
        ]
    if difference > 0:
        return [
            f"The chain holds {eth_text(difference)} more than the books: something was taken out "
            "of the books, but not out of the claim."
        ]
    return []


def _of_payment(unpaid: int) -> list[str]:
    if unpaid <= 0:
        return []
    return [
        f"{eth_text(unpaid)} of the tickets' face value was not paid: deposit and reserve of their "
        "gateways did not cover it."
    ]


def _of_delegators(gone: int) -> list[str]:
    if gone > 0:
        return [f"{eth_text(gone)} of what was paid is the delegators' part."]
    if gone < 0:
        return [f"The claim grew by {eth_text(-gone)} more than the tickets that were seen paid."]
    return []


def _of_luck(face: int, expected: int) -> list[str]:
    if not expected or face == expected:
        return []
    off = percent(abs(face - expected) * PPM // expected)
    side = "above" if face > expected else "below"
    return [f"Luck: tickets came to {off} {side} what the work is worth on average."]


# ---- wallets ------------------------------------------------------------------------------------

DUST = 10**12
"""Less than this, in wei or base units, is put into the books once a round at most: anybody can
send it to a wallet as often as they like."""


def drift(held: int, booked: int, *, was_booked: bool) -> tuple[bool, int] | None:
    """Whether money came in that the books do not know (else it went out), and how much; None if
    they agree. `was_booked`: there was a difference in this round already, so dust can wait."""
    amount = held - booked
    if amount == 0 or (was_booked and 0 < amount < DUST):
        return None
    return amount > 0, abs(amount)
