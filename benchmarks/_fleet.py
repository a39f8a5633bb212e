"""A simulated fleet, to compare rules of choosing a worker: ours, and the usual ones.

40 uneven workers of 1-8 sessions, speeds 0.5-4, a tenth of which turn eight times slower for a
third of the run. Jobs are 2 s segments that arrive at random; one that finds no free worker is
rejected. No hedging and no stickiness: only the choice is compared. Virtual time, seeded.
"""

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from openpool.core.estimate import Estimate
from openpool.core.scheduler import Ask, Candidate, Lanes, choose
from openpool.core.settings import PoolSettings

UNITS = 2000 * 1280 * 720
BASE_MS = 500.0
CROWDED = 0.2
"""How much slower a worker gets when all its sessions are busy."""
"""What a segment takes a worker of speed 1 that is idle otherwise."""
TARGET_MS = 2_000 * PoolSettings().target_ppm // 1_000_000
WORKERS = 40
TAU_MS = 10_000.0
"""How fast a peak-EWMA forgets."""


@dataclass(eq=False)
class Machine:
    """A worker as it really is, and what the simple rules keep about it."""

    number: int
    slots: int
    speed: float
    busy: int = 0
    jobs: int = 0
    slow: bool = False
    ewma_ms: float = BASE_MS
    seen_ms: float = 0.0
    ours: Candidate | None = None

    def peak_ewma(self, took_ms: float, now_ms: float) -> None:
        """Up at once, down slowly."""
        if took_ms > self.ewma_ms:
            self.ewma_ms = took_ms
        else:
            keep = math.exp(-(now_ms - self.seen_ms) / TAU_MS)
            self.ewma_ms = self.ewma_ms * keep + took_ms * (1 - keep)
        self.seen_ms = now_ms


class Outcome(NamedTuple):
    """How a rule did. `jain` is over jobs per session: 1 is perfectly even."""

    p50_ms: float
    p95_ms: float
    in_time: float
    rejected: float
    jain: float
    starved: int


@dataclass
class Fleet:
    """Machines, and the index that our rule needs."""

    machines: list[Machine]
    lanes: Lanes = field(default_factory=Lanes)
    usual: Estimate = field(default_factory=lambda: Estimate(memory=64))
    draws: int = 0

    def free(self) -> list[Machine]:
        """Machines with a free session."""
        return [machine for machine in self.machines if machine.busy < machine.slots]


Rule = Callable[[Fleet, random.Random, int], Machine | None]


def make_fleet(rng: random.Random, workers: int = WORKERS) -> Fleet:
    """A fleet drawn from a seed."""
    fleet = Fleet(
        [
            Machine(number, rng.randint(1, 8), math.exp(rng.uniform(math.log(0.5), math.log(4))))
            for number in range(workers)
        ]
    )
    lane = fleet.lanes.of(1, "0.9.1")
    for machine in fleet.machines:
        estimate = Estimate(fleet.usual)
        machine.ours = Candidate(str(machine.number), estimate, machine.slots)
        lane.put(machine.ours)
    return fleet


# --- rules -------------------------------------------------------------------------------------


def ours(fleet: Fleet, _rng: random.Random, now_ms: int) -> Machine | None:
    """`core.scheduler.choose`."""
    fleet.draws += 1
    ask = Ask(UNITS, TARGET_MS, now_ms, fleet.draws)
    found = choose(list(fleet.lanes.all.values()), ask)
    if found is None:
        return None
    found.estimate.begin(now_ms)
    fleet.lanes.charge(found, UNITS)
    return fleet.machines[int(found.worker)]


def p2c(fleet: Fleet, rng: random.Random, _now_ms: int) -> Machine | None:
    """Power of two choices over a peak-EWMA, weighed by what is in flight."""
    free = fleet.free()
    if not free:
        return None
    two = rng.sample(free, min(2, len(free)))
    return min(two, key=lambda machine: machine.ewma_ms * (machine.busy + 1))


def least_loaded(fleet: Fleet, _rng: random.Random, _now_ms: int) -> Machine | None:
    """Lowest load for its capacity: go-livepeer's own rule."""
    return min(fleet.free(), key=lambda machine: machine.busy / machine.slots, default=None)


def fastest(fleet: Fleet, _rng: random.Random, _now_ms: int) -> Machine | None:
    """Lowest EWMA: greedy."""
    return min(fleet.free(), key=lambda machine: machine.ewma_ms, default=None)


def any_free(fleet: Fleet, rng: random.Random, _now_ms: int) -> Machine | None:
    """Any free worker."""
    free = fleet.free()
    return rng.choice(free) if free else None


RULES: dict[str, Rule] = {
    "fair among those in time (ours)": ours,
    "P2C over peak-EWMA": p2c,
    "lowest load per capacity": least_loaded,
    "greedy fastest": fastest,
    "random": any_free,
}


# --- the run -----------------------------------------------------------------------------------


def simulate(rule: Rule, seed: int, utilisation: float, jobs: int = 10_000) -> Outcome:
    """One rule, one seed, one load."""
    rng = random.Random(seed)
    fleet = make_fleet(rng)
    rate = utilisation * sum(m.slots * m.speed for m in fleet.machines) / (BASE_MS * (1 + CROWDED))
    slow = set(rng.sample(range(WORKERS), WORKERS // 10))
    ending: list[tuple[float, int, Machine, float, int]] = []
    took: list[float] = []
    now_ms, rejected = 1_000_000.0, 0
    for job in range(jobs):
        now_ms += rng.expovariate(rate)
        while ending and ending[0][0] <= now_ms:
            _end(fleet, heapq.heappop(ending))
        spell = jobs // 3 < job < 2 * jobs // 3
        machine = rule(fleet, rng, round(now_ms))
        if machine is None:
            rejected += 1
            continue
        service_ms = BASE_MS / machine.speed * rng.lognormvariate(0, 0.25)
        service_ms *= 1 + CROWDED * machine.busy / machine.slots
        service_ms *= 8 if spell and machine.number in slow else 1
        took.append(service_ms)
        heapq.heappush(ending, _begin(fleet, machine, now_ms, service_ms, job))
    return _outcome(fleet, took, rejected, jobs)


def _begin(
    fleet: Fleet, machine: Machine, now_ms: float, service_ms: float, job: int
) -> tuple[float, int, Machine, float, int]:
    load = machine.ours.load if machine.ours else 0
    _busy(fleet, machine, 1)
    machine.jobs += 1
    return now_ms + service_ms, job, machine, service_ms, load


def _end(fleet: Fleet, done: tuple[float, int, Machine, float, int]) -> None:
    now_ms, _, machine, service_ms, load = done
    _busy(fleet, machine, -1)
    machine.peak_ewma(service_ms, now_ms)
    if machine.ours is not None:
        machine.ours.estimate.observe(round(service_ms), UNITS, load, round(now_ms))
        fleet.usual.observe(round(service_ms), UNITS, load, round(now_ms))


def _busy(fleet: Fleet, machine: Machine, change: int) -> None:
    machine.busy += change
    if machine.ours is not None:
        machine.ours.busier(change)
        lane = fleet.lanes.of(1, "0.9.1")
        if machine.busy < machine.slots:
            lane.put(machine.ours)
        else:
            lane.take_out(machine.ours)


def _outcome(fleet: Fleet, took: list[float], rejected: int, jobs: int) -> Outcome:
    took.sort()
    share = [machine.jobs / machine.slots for machine in fleet.machines]
    mean = sum(share) / len(share)
    return Outcome(
        p50_ms=took[len(took) // 2],
        p95_ms=took[len(took) * 95 // 100],
        in_time=sum(ms <= 2000 for ms in took) / jobs,
        rejected=rejected / jobs,
        jain=sum(share) ** 2 / (len(share) * sum(each * each for each in share)),
        starved=sum(each < 0.1 * mean for each in share),
    )


def compare(utilisation: float, seeds: int = 5, jobs: int = 10_000) -> dict[str, Outcome]:
    """Every rule, averaged over seeds."""
    table = {}
    for name, rule in RULES.items():
        runs = [simulate(rule, seed, utilisation, jobs) for seed in range(seeds)]
        table[name] = Outcome(*(sum(column) / seeds for column in zip(*runs, strict=True)))
    return table
