"""What came with a request to pay for it: tickets of which some win, so worth an average.

The pool neither checks nor redeems tickets; it puts their value beside what was earned.
"""

from fractions import Fraction

from msgspec import Struct

SURE = 2**256 - 1
"""The winning probability of a ticket that always wins."""


class Payment(Struct, frozen=True, kw_only=True):
    """The tickets that came with one request."""

    sender: str
    """The gateway's address, `0x` and 40 hex digits in lower case."""
    tickets: int
    face_value_wei: int
    """What one ticket pays if it wins."""
    win_prob: int
    """How likely that is, in 1/`SURE`."""
    price_wei: Fraction | None = None
    """The price per unit that the gateway reckons with; None if it named none."""

    @property
    def expected_value_wei(self) -> Fraction:
        """What all tickets together are worth on average."""
        return Fraction(self.tickets * self.face_value_wei * self.win_prob, SURE)
