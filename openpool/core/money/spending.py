"""The arithmetic of spend limits: what a customer owes, and what calls under way will add to it.

Theory of operation. A customer owes what was spent, less what was paid. When a call begins, an
estimate of its cost is *held*; while it runs, the hold grows with what was really used; when its
fee is in the log, the hold ends. So calls side by side see each other, and a limit is overshot by
no more than what estimates were short of. Pure. Read next: `pool.spending`.
"""

from typing import NamedTuple

from openpool.core.calls import App, Unit

FIRST_UNITS: dict[Unit, int] = {"token": 500, "request": 1}
"""Taken for the first call of an app, beside the size of its request."""
BYTES_PER_UNIT: dict[Unit, int] = {"token": 4, "character": 1, "pixel": 1, "ms": 16}
"""A request of so many bytes costs a unit at least: low on purpose, since the usual counts too."""
DECAY = 16
"""Each call takes away this part of what the largest one before it was thought to need."""


class Purse:
    """One customer's money, in wei."""

    __slots__ = ("_held", "held_wei", "paid_wei", "spent_wei")

    def __init__(self) -> None:
        self.spent_wei = 0
        self.paid_wei = 0
        self.held_wei = 0
        """For all calls under way."""
        self._held: dict[str, int] = {}

    @property
    def owed_wei(self) -> int:
        """Less than nothing if more was paid than spent."""
        return self.spent_wei - self.paid_wei

    def is_empty(self, limit_wei: int | None) -> bool:
        """Whether nothing more may begin."""
        return limit_wei is not None and self.owed_wei + self.held_wei >= limit_wei

    def hold(self, call: str, wei: int, limit_wei: int | None) -> bool:
        """Set aside what a call may cost; False, and nothing is held, if it may not begin.

        Alone it may as long as anything is left: an estimate is no price. Beside others it must
        fit in what they leave.
        """
        if self.is_empty(limit_wei):
            return False
        if limit_wei is not None and self._held and self.owed_wei + self.held_wei + wei > limit_wei:
            return False
        self._set(call, wei)
        return True

    def grow(self, call: str, wei: int, limit_wei: int | None) -> bool:
        """So much a call has cost by now; whether it may go on."""
        held_wei = self._held.get(call)
        if held_wei is None:
            return True
        others_wei = self.held_wei - held_wei
        self._set(call, max(wei, held_wei))
        return limit_wei is None or self.owed_wei + others_wei + wei < limit_wei

    def release(self, call: str) -> None:
        """The call is over; saying so twice is no error."""
        self.held_wei -= self._held.pop(call, 0)

    def _set(self, call: str, wei: int) -> None:
        self.held_wei += wei - self._held.get(call, 0)
        self._held[call] = wei


class Usual(NamedTuple):
    """What is counted together when costs are estimated."""

    app: App
    unit: Unit


class Estimates:
    """How many units a call will need, from its size and from calls before it."""

    def __init__(self) -> None:
        self._units: dict[Usual, int] = {}

    def observe(self, app: App, unit: Unit, units: int) -> None:
        """A call of this app needed so many."""
        key = Usual(app, unit)
        before = self._units.get(key, 0)
        self._units[key] = max(units, before - before // DECAY)

    def units(self, app: App, unit: Unit, request_bytes: int) -> int:
        """How many a call with a request of this size is expected to need, rather too many."""
        usual = self._units.get(Usual(app, unit), FIRST_UNITS.get(unit, 0))
        return max(usual, request_bytes // BYTES_PER_UNIT.get(unit, request_bytes + 1))
