"""Luck: what winning tickets brought, against what all tickets were worth on average.

Only some tickets win, so a round brings more or less than its work is worth. How much that is
ordinary follows from the size of the tickets: with n wins to be expected, two thirds of all rounds
lie within 1/√n. Pure; whole wei and rationals, never a float. Read `core.money.revenue` next.
"""

from fractions import Fraction
from math import isqrt

from msgspec import Struct

from openpool.core.payment import SURE
from openpool.core.units import PPM

FEW_WINS = 10
"""With fewer wins to expect the figure says little."""


class Wins(Struct, frozen=True, kw_only=True):
    """Winning tickets, added up."""

    tickets: int = 0
    face_wei: int = 0
    square: int = 0
    """Sum of face × face × chance of losing, the chance in 1/`SURE`."""

    def add(self, face_wei: int, win_prob: int) -> "Wins":
        """With one more winning ticket; `win_prob` in 1/`SURE`."""
        return self + Wins(
            tickets=1, face_wei=face_wei, square=face_wei * face_wei * (SURE - win_prob)
        )

    def __add__(self, other: "Wins") -> "Wins":
        return Wins(
            tickets=self.tickets + other.tickets,
            face_wei=self.face_wei + other.face_wei,
            square=self.square + other.square,
        )

    @property
    def grain_wei(self) -> Fraction | None:
        """The size of a ticket as it counts for the spread: large ones weigh more, sure ones
        nothing. None if there is no ticket to tell by."""
        return Fraction(self.square, self.face_wei * SURE) if self.face_wei else None


class Luck(Struct, frozen=True, kw_only=True):
    """How lucky a span of time was."""

    expected_wei: int
    """What the work is worth on average."""
    won_wei: int
    """Face value of the winning tickets, and what came in without tickets."""
    wins: int
    expected_wins: int | None
    """None: no ticket has won yet, so nobody knows how large they are."""
    ratio_ppm: int | None
    """Won over expected; None if nothing was expected."""
    spread_ppm: int | None
    """One standard deviation of that ratio; None if it is not known."""
    sentence: str


def luck(expected_wei: int, won_wei: int, wins: int, known: Wins) -> Luck:
    """The luck of a span of time. `known` are all winning tickets that tell how large they are."""
    ratio_ppm = won_wei * PPM // expected_wei if expected_wei else None
    spread_ppm = spread(expected_wei, known.grain_wei)
    # to the nearest whole number
    face_wei, both = known.face_wei, 2 * expected_wei * known.tickets
    expected_wins = (both + face_wei) // (2 * face_wei) if face_wei else None
    return Luck(
        expected_wei=expected_wei,
        won_wei=won_wei,
        wins=wins,
        expected_wins=expected_wins,
        ratio_ppm=ratio_ppm,
        spread_ppm=spread_ppm,
        sentence=_sentence(ratio_ppm, spread_ppm, expected_wins),
    )


def spread(expected_wei: int, grain_wei: Fraction | None) -> int | None:
    """One standard deviation of won/expected in ppm, which is 1/√(expected/grain)."""
    if grain_wei is None or not expected_wei:
        return None
    return isqrt(PPM * PPM * grain_wei.numerator // (grain_wei.denominator * expected_wei))


def _sentence(ratio_ppm: int | None, spread_ppm: int | None, expected_wins: int | None) -> str:
    if ratio_ppm is None:
        return "No work was paid for, so there is nothing to compare."
    if spread_ppm is None or expected_wins is None:
        return "No ticket has won yet, so it is not known how far luck can reach."
    off_ppm = abs(ratio_ppm - PPM)
    side = "more" if ratio_ppm >= PPM else "less"
    told = f"Tickets brought {percent(off_ppm)} {side} than they are worth on average."
    if expected_wins < FEW_WINS:
        return f"{told} So few wins are to be expected ({expected_wins}) that this says little."
    return f"{told} {_verdict(off_ppm, spread_ppm)}"


def _verdict(off_ppm: int, spread_ppm: int) -> str:
    within = f"two spans in three are within {percent(spread_ppm)}"
    if off_ppm <= spread_ppm:
        return f"That is ordinary: {within}."
    if off_ppm <= 2 * spread_ppm:
        return f"That happens now and then: {within}."
    if off_ppm <= 3 * spread_ppm:
        return f"That is rare: {within}, and only one in twenty is out of twice that."
    return (
        f"Luck alone hardly explains this: {within}. Check the price of a pixel, and whether the "
        "orchestrator redeems its tickets."
    )


def percent(ppm: int) -> str:
    """A rate for people, one digit after the point: `4.2 %`."""
    tenths = (ppm + 500) // 1000
    return f"{tenths // 10}.{tenths % 10} %"
