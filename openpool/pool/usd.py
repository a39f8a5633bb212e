"""What a USD is worth now: as the settings say, or else as a price feed does, once one is followed.

Every price that depends on it asks anew, and records the rate it was converted at.
"""

from collections.abc import Callable

from openpool.core.prices import Rate


class UsdRate:
    """The one place that knows. Call it for the rate; None while there is none."""

    def __init__(self, fixed: Rate | None = None) -> None:
        """`fixed`: the settings' own, which is preferred to any feed."""
        self._fixed = fixed
        self._feed: Callable[[], Rate | None] = lambda: None

    def follow(self, feed: Callable[[], Rate | None]) -> None:
        """Ask this feed from now on, where the settings say nothing."""
        self._feed = feed

    def __call__(self) -> Rate | None:
        return self._fixed or self._feed()

    def wei_per_usd(self) -> int:
        """Whole wei, or 0 while there is no rate."""
        now = self()
        return now.wei_per_usd if now else 0
