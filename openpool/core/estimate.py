"""How long a worker will take: a moving estimate, learnt from what it did.

Work is counted in *units*, milliseconds of source times output pixels, so that one number per
worker serves every kind of job. Estimates hold milliseconds per unit for four levels of load, and
how much they scatter. They guide choices only and never touch money, hence floats are fine here.
"""

import math

from openpool.core.model import Segment

LOADS = 4
"""Levels of load: a quarter of the worker's capacity each."""

P95_SPREADS = 2.5
"""Mean absolute deviations from the mean to the 95th percentile: 2.1 normal, 2.7 exponential."""

FIRST_GUESS = 400.0 / (2000 * 1280 * 720)
"""Milliseconds per unit before anything was measured: 2 s of 720p in 0.4 s."""

SPREAD_GUESS = 0.2
UNPROVEN_FACTOR = 8.0
"""A worker without a result looks this much slower once it has work: one job to begin with."""

MEMORY = 8
"""Results that an estimate remembers, about."""
STALE_AFTER_MS = 5_000
HALF_LIFE_MS = 5_000
SLOW_FACTOR = 2.0
"""A worker that is so many times slower than usual is a slow one."""
PATIENCE_MAX = 16
"""How many times slower it is forgotten of a worker at last that it is slow."""


def work_units(segment: Segment) -> int:
    """The work in a segment: its milliseconds times the pixels of all its outputs, at least 1."""
    pixels = sum(profile.width * profile.height for profile in segment.profiles)
    return max(1, segment.duration_ms * pixels)


def load_level(in_flight: int, capacity: int) -> int:
    """Level of load that a further job would meet."""
    return min(LOADS - 1, LOADS * in_flight // capacity) if capacity > 0 else LOADS - 1


class Estimate:
    """Milliseconds per unit of one worker, by level of load.

    Bad news counts at once, good news slowly. What is known grows old: after `STALE_AFTER_MS`
    without a result the estimate drifts back to what is usual in the pool, so that a worker that
    was slow once gets another chance now and then, more and more rarely if it stays slow.
    """

    __slots__ = (
        "mean",
        "memory",
        "p95",
        "patience",
        "probed",
        "samples",
        "spread",
        "stale_at_ms",
        "usual",
    )

    def __init__(self, usual: "Estimate | None" = None, memory: int = MEMORY) -> None:
        self.usual = usual
        self.memory = memory
        self.samples = 0
        self.patience = 1
        self.probed = False
        self.stale_at_ms = 0
        self.spread = SPREAD_GUESS
        self.mean: list[float] = list(usual.mean) if usual else [FIRST_GUESS] * LOADS
        self.p95: list[float] = []
        self._work_out_p95()

    def observe(self, took_ms: int, units: int, load: int, now_ms: int) -> None:
        """Learn from a result: it took so long, and the worker was that loaded."""
        sample = max(took_ms, 1) / units
        ratio = sample / self.mean[load]
        gain = self._gain(ratio, sample)
        if self.samples and ratio <= SLOW_FACTOR:
            self.spread += (abs(ratio - 1) - self.spread) * min(gain, 0.25)
        for level in range(LOADS):
            follow = gain if level == load or gain == 1 else gain / 2
            self.mean[level] *= 1 + follow * (ratio - 1)
        self.samples += 1
        self.stale_at_ms = now_ms + STALE_AFTER_MS
        self._work_out_p95()

    def _gain(self, ratio: float, sample: float) -> float:
        """How much of the news to believe: all at first or when a trial went well, half if bad."""
        gain = 1 / min(self.samples + 1, self.memory)
        if self.probed and self.usual is not None:
            self.probed = False
            still_slow = sample > SLOW_FACTOR * self.usual.p95[0]
            self.patience = min(2 * self.patience, PATIENCE_MAX) if still_slow else 1
            if ratio < 1 / SLOW_FACTOR:
                return 1.0
        return max(gain, 0.5) if ratio > SLOW_FACTOR and self.memory == MEMORY else gain

    def observe_at_least(self, elapsed_ms: int, units: int, load: int, now_ms: int) -> None:
        """Learn from an attempt that was given up: it would have taken longer than this."""
        if elapsed_ms > self.mean[load] * units:
            self.observe(elapsed_ms, units, load, now_ms)

    def begin(self, now_ms: int) -> bool:
        """A job is given to this worker. Returns whether that is a trial: it is new, or was slow
        long ago. Until a trial's result is in, old knowledge counts in full."""
        if not self.samples:
            return True
        if now_ms < self.stale_at_ms or self.usual is None:
            return False
        if self.p95[0] <= SLOW_FACTOR * self.usual.p95[0]:
            return False
        self.stale_at_ms = now_ms + STALE_AFTER_MS
        self.probed = True
        return True

    def late(self, load: int, now_ms: int) -> float:
        """Milliseconds per unit that 19 of 20 jobs stay below, as believed now."""
        if now_ms < self.stale_at_ms or self.usual is None or not self.samples:
            return self.p95[load]
        known, usual = self.p95[load], self.usual.p95[0]
        if known <= usual:
            return known
        age = (now_ms - self.stale_at_ms) / (HALF_LIFE_MS * self.patience)
        return max(usual, known * math.pow(0.5, age))

    def predict_ms(self, units: int, load: int) -> int:
        """The expected time of a job."""
        return round(self.mean[load] * units)

    def p95_ms(self, units: int, load: int) -> int:
        """The time that 19 of 20 such jobs stay below."""
        return round(self.mean[load] * (1 + P95_SPREADS * self.spread) * units)

    def _work_out_p95(self) -> None:
        factor = 1 + P95_SPREADS * self.spread
        self.p95 = [mean * factor for mean in self.mean]
        if not self.samples and self.usual is not None:
            self.p95[1:] = [late * UNPROVEN_FACTOR for late in self.p95[1:]]
