"""Which worker gets a job: pure functions over an index that is kept up to date as things change.

`choose` looks at a few free workers picked by a draw, never at all of them: among those that will
finish in time it takes the one that had the least work for its size, and only if there is none
the fastest. So every worker that is good enough earns its share, and slow ones do no harm. It must
not change anything: `core.roster` keeps the index, `core.pool` acts on the choice.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from openpool.core import capabilities
from openpool.core.estimate import Estimate, load_level

SAMPLES = 4
"""Workers looked at for one choice, if they suffice."""
LENIENT_EVERY = 20
"""One choice in so many allows nearly twice the time, so that nobody just below the mark starves
and nobody's estimate grows old; too few to be felt in the slowest twentieth."""
WIDE = 48
"""Workers looked at when the sampled ones do not."""
BACKLOG = 16
"""Jobs that a worker may be behind the others and still make up for."""
LANES_MAX = 64
"""Different capability sets that are told apart; stranger ones join the nearest."""
ASKS_MAX = 512

_SPREAD, _STRIDE = 2_654_435_761, 40_503
"""Turn a counter into a position and a step that look random (Knuth's multipliers)."""


@dataclass(slots=True, eq=False)
class Candidate:
    """A worker's connection, as far as choosing is concerned."""

    worker: str
    estimate: Estimate
    capacity: int
    in_flight: int = 0
    load: int = 0
    """Level of load that a further job would meet."""
    share: float = 0.0
    """Work given to it so far, per session of capacity, counted as in a fair queue."""
    place: int = -1
    """Where it stands among the free ones of its lane; -1 is not free."""

    def busier(self, change: int) -> None:
        """Note that jobs were begun or ended."""
        self.in_flight += change
        self.load = load_level(self.in_flight, self.capacity)


@dataclass(slots=True, eq=False)
class Lane:
    """All workers with the same capabilities and version, the free ones at hand."""

    bits: int
    version: str
    free: list[Candidate] = field(default_factory=list)
    capacity: int = 0
    """Sessions of all its usable connections."""
    members: int = 0
    """Its usable connections."""

    def put(self, candidate: Candidate) -> None:
        """Note that a candidate can take one more session."""
        if candidate.place < 0:
            candidate.place = len(self.free)
            self.free.append(candidate)

    def take_out(self, candidate: Candidate) -> None:
        """Note that it cannot; the last one takes its place."""
        if (place := candidate.place) >= 0:
            last = self.free.pop()
            if last is not candidate:
                self.free[place] = last
                last.place = place
            candidate.place = -1


class Ask(NamedTuple):
    """What is looked for."""

    units: int
    target_ms: int
    """In how much time the result is wanted."""
    now_ms: int
    draw: int
    """Any number, different for every choice: decides who is looked at."""
    without: Collection[str] = ()
    """Workers that must not get it."""


class Lanes:
    """Every lane, and which of them a kind of job can use."""

    def __init__(self) -> None:
        self.all: dict[tuple[int, str], Lane] = {}
        self.level = 0.0
        """The usual share among those chosen of late: where newcomers start."""
        self._step = 0.0
        """What one job usually adds to a share."""
        self._fitting: dict[tuple[int, str], list[Lane]] = {}

    def of(self, bits: int, version: str) -> Lane:
        """The lane of a worker that can do this, made if need be."""
        bits = capabilities.transcoding(bits)
        if lane := self.all.get((bits, version)):
            return lane
        if len(self.all) >= LANES_MAX and (lane := self._nearest(bits, version)):
            return lane
        lane = self.all[bits, version] = Lane(bits, version)
        self._fitting.clear()
        return lane

    def _nearest(self, bits: int, version: str) -> Lane | None:
        """The richest lane whose demands a worker of these capabilities fulfils."""
        within = [
            lane
            for lane in self.all.values()
            if capabilities.fits(lane.bits, bits) and capabilities.version_ok(version, lane.version)
        ]
        if not within and (0, "") not in self.all:
            self.all[0, ""] = Lane(0, "")
        return max(within, key=lambda lane: lane.bits.bit_count(), default=self.all.get((0, "")))

    def fitting(self, bits: int, min_version: str) -> list[Lane]:
        """Lanes whose workers can do a job that needs this."""
        key = (bits, min_version)
        lanes = self._fitting.get(key)
        if lanes is None:
            if len(self._fitting) >= ASKS_MAX:
                self._fitting.clear()
            lanes = self._fitting[key] = [
                lane
                for lane in self.all.values()
                if capabilities.fits(bits, lane.bits)
                and capabilities.version_ok(lane.version, min_version)
            ]
        return lanes

    def charge(self, candidate: Candidate, units: int) -> None:
        """Count work against a candidate's share. Who was away long does not catch up at once."""
        step = units / candidate.capacity
        self._step += (step - self._step) / 64
        start = max(candidate.share, self.level - BACKLOG * self._step)
        self.level += (start - self.level) / 64
        candidate.share = start + step


def choose(lanes: Sequence[Lane], ask: Ask) -> Candidate | None:
    """The free candidate that should get a job; None if no free one may have it."""
    total = 0
    for lane in lanes:
        total += len(lane.free)
    if not total:
        return None
    units, target_ms, now_ms, draw, without = ask
    if draw % LENIENT_EVERY == 0:
        target_ms += target_ms * 4 // 5
    free = lanes[0].free
    only = len(free) == total
    at, step = draw * _SPREAD % total, draw * _STRIDE % total | 1
    found: Candidate | None = None
    for _ in range(SAMPLES):
        candidate = free[at] if only else _nth(lanes, at)
        at = (at + step) % total
        estimate = candidate.estimate
        late = estimate.p95[candidate.load]
        if now_ms >= estimate.stale_at_ms:
            late = estimate.late(candidate.load, now_ms)
        if late * units > target_ms or candidate.worker in without:
            continue
        if found is None or candidate.share < found.share:
            found = candidate
    return found or _search(lanes, ask, total)


def _nth(lanes: Sequence[Lane], at: int) -> Candidate:
    for lane in lanes:
        if at < len(lane.free):
            return lane.free[at]
        at -= len(lane.free)
    raise IndexError(at)


def _search(lanes: Sequence[Lane], ask: Ask, total: int) -> Candidate | None:
    """Look further: in time and least share first, else the fastest."""
    in_time: Candidate | None = None
    fastest: Candidate | None = None
    fastest_ms = 0.0
    for candidate in _row(lanes, ask.draw % total, min(WIDE, total)):
        if candidate.worker in ask.without:
            continue
        late_ms = candidate.estimate.late(candidate.load, ask.now_ms) * ask.units
        if late_ms <= ask.target_ms and (in_time is None or candidate.share < in_time.share):
            in_time = candidate
        if fastest is None or late_ms < fastest_ms:
            fastest, fastest_ms = candidate, late_ms
    return in_time or fastest


def fastest(lanes: Sequence[Lane], ask: Ask) -> Candidate | None:
    """The free candidate that will finish first, out of a good many: for second tries."""
    total = sum(len(lane.free) for lane in lanes)
    best: Candidate | None = None
    best_ms = 0.0
    for candidate in _row(lanes, ask.draw % total if total else 0, min(WIDE, total)):
        if candidate.worker in ask.without:
            continue
        late_ms = candidate.estimate.late(candidate.load, ask.now_ms) * ask.units
        if best is None or late_ms < best_ms:
            best, best_ms = candidate, late_ms
    return best


def _row(lanes: Sequence[Lane], start: int, count: int) -> Iterator[Candidate]:
    """`count` free candidates from position `start` on, round the end to the beginning."""
    left = count
    for lap in range(2):
        at = start if lap == 0 else 0
        for lane in lanes:
            size = len(lane.free)
            if at >= size:
                at -= size
                continue
            yield from lane.free[at : at + left]
            left -= min(left, size - at)
            at = 0
            if not left:
                return
