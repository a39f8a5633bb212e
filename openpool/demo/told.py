"""What the demo tells about money, in its line of JSON."""

from msgspec import Struct


class Payouts(Struct, frozen=True, kw_only=True):
    """What became of the payouts."""

    planned: int
    confirmed: int
    voided: int
    paid_wei: str
    owed_wei: str
    paid_twice: int
    """Addresses that hold more on chain than the books say was sent; must be 0."""


class Statements(Struct, frozen=True, kw_only=True):
    """Statements of rounds, and how many `openpool verify` found right."""

    made: int
    verified: int


class Told(Struct, frozen=True, kw_only=True):
    """Everything about money."""

    payouts: Payouts
    luck: float
    """Realised over expected."""
    statements: Statements

    @property
    def good(self) -> bool:
        """Everybody was paid once, and everything is proved."""
        paid, stated = self.payouts, self.statements
        once = paid.paid_twice == 0 and int(paid.paid_wei) > 0 and int(paid.owed_wei) == 0
        settled = paid.confirmed + paid.voided == paid.planned > 0
        return once and settled and stated.made == stated.verified > 0
