"""The clock by which the pool decides: the wall's, but it never steps back.

A wall clock that is set back would make every deadline that is reckoned from it one that is past
already, and hold up all that waits for its time. Here time then goes on at half its pace until the
wall's has caught up; a clock that is set forward is followed at once.
"""

import time
from collections.abc import Callable


class SteadyClock:
    """Milliseconds since 1970, when called."""

    def __init__(
        self,
        wall_ns: Callable[[], int] = time.time_ns,
        passed_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`passed_ns` is time that nobody sets."""
        self._wall_ns, self._passed_ns = wall_ns, passed_ns
        self._now_ns, self._read_ns = wall_ns(), passed_ns()

    def __call__(self) -> int:
        read_ns = self._passed_ns()
        slow_ns = self._now_ns + (read_ns - self._read_ns) // 2
        self._now_ns, self._read_ns = max(self._wall_ns(), slow_ns), read_ns
        return self._now_ns // 1_000_000
