"""Why a worker got no work: the reasons, in sentences that its owner can act on.

Looks at the worker and at the jobs of late, of which a short memory is kept for this.
"""

from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from openpool.core.capabilities import fits, missing, version_ok
from openpool.core.jobs import TARGET_MIN_MS, Job
from openpool.core.roster import Worker
from openpool.core.texts import plural
from openpool.core.units import PPM

if TYPE_CHECKING:
    from openpool.core.pool import Pool

RECENT_JOBS = 500
WINDOW_MS = 600_000
"""How far back jobs are looked at."""


class Reason(Struct, frozen=True, kw_only=True):
    """One reason; `code` is for programs, `text` for people."""

    code: str
    text: str


class Asked(NamedTuple):
    """What a recent job needed, and who got it first."""

    time_ms: int
    bits: int
    min_version: str
    units: int
    duration_ms: int
    worker: str


class Recent:
    """The latest jobs."""

    def __init__(self) -> None:
        self._asked: deque[Asked] = deque(maxlen=RECENT_JOBS)

    def add(self, job: Job) -> None:
        """Remember a job that was just received and, if possible, assigned."""
        segment = job.segment
        self._asked.append(
            Asked(
                job.received_ms,
                segment.capabilities,
                segment.min_version,
                job.units,
                segment.duration_ms,
                job.attempts[0].worker if job.attempts else "",
            )
        )

    def since(self, time_ms: int) -> list[Asked]:
        """Jobs received since then."""
        return [asked for asked in self._asked if asked.time_ms >= time_ms]


def explain(pool: "Pool", name: str, now_ms: int) -> list[Reason]:
    """Why this worker got no, or little, work lately; the weightiest reason first."""
    worker = pool.roster.workers.get(name)
    if worker is None:
        return [_away("It has not connected since the pool was started.")]
    recent = pool.lifecycle.recent.since(now_ms - WINDOW_MS)
    return _blocked(pool, worker, now_ms) or _work(pool, worker, recent)


def _away(text: str) -> Reason:
    return Reason(
        code="away", text=f"{text} Start the worker, and see its log for why it cannot connect."
    )


def _blocked(pool: "Pool", worker: Worker, now_ms: int) -> list[Reason]:
    """Reasons that keep it from any work at all."""
    if worker.banned:
        return [Reason(code="banned", text=f"It was banned: {worker.banned}.")]
    if not worker.connections:
        return [_away("It is not connected.")]
    if worker.cooling:
        left_s = max(0, worker.cooling_until_ms - now_ms + 999) // 1000
        text = (
            f"It is cooling down for another {left_s} s after repeated failures; "
            f"the last one: {worker.last_reason}."
        )
        return [Reason(code="cooling", text=text)]
    return []


def _work(pool: "Pool", worker: Worker, recent: list[Asked]) -> list[Reason]:
    """Reasons found in the jobs of late."""
    if not recent:
        return [Reason(code="no-jobs", text="No jobs came in during the last 10 minutes.")]
    reasons = [_lacking(worker, recent), _slow(pool, worker, recent), _full(worker)]
    return [reason for reason in reasons if reason] + [_share(worker, recent)]


def _lacking(worker: Worker, recent: list[Asked]) -> Reason | None:
    """How many jobs it could not have done, and for want of what."""
    lacking: Counter[str] = Counter()
    jobs = 0
    for asked in recent:
        lacks = _lacks(worker, asked)
        jobs += bool(lacks)
        lacking.update(lacks)
    if not jobs:
        return None
    percent = 100 * jobs // len(recent)
    what = ", ".join(name for name, _ in lacking.most_common(3))
    text = f"It lacks {what}, which {max(percent, 1)} % of the jobs of the last 10 minutes needed."
    return Reason(code="lacks-capability", text=text)


def _lacks(worker: Worker, asked: Asked) -> list[str]:
    lacks: list[str] = []
    for connection in worker.connections.values():
        lane = connection.lane
        if fits(asked.bits, lane.bits) and version_ok(lane.version, asked.min_version):
            return []
        lacks = missing(asked.bits, lane.bits) or [f"go-livepeer {asked.min_version}"]
    return lacks


def _slow(pool: "Pool", worker: Worker, recent: list[Asked]) -> Reason | None:
    """Whether it is expected to be too slow for most jobs."""
    slow = [asked for asked in recent if _needs_ms(pool, asked) < _takes_ms(worker, asked)]
    if 2 * len(slow) < len(recent):
        return None
    last = slow[-1]
    text = (
        f"It is too slow for {100 * len(slow) // len(recent)} % of the jobs: the last of them is "
        f"expected to take it up to {_takes_ms(worker, last)} ms, and "
        f"{_needs_ms(pool, last)} ms were wanted."
    )
    return Reason(code="too-slow", text=text)


def _takes_ms(worker: Worker, asked: Asked) -> int:
    return worker.estimate.p95_ms(asked.units, 0)


def _needs_ms(pool: "Pool", asked: Asked) -> int:
    return max(TARGET_MIN_MS, asked.duration_ms) * pool.settings.target_ppm // PPM


def _full(worker: Worker) -> Reason | None:
    connections = worker.connections.values()
    if any(len(each.holds) < each.capacity for each in connections):
        return None
    capacity = sum(each.capacity for each in connections)
    text = (
        f"It is full: it takes {plural(capacity, 'session')} at once. Raise its session limit if "
        "it can do more."
    )
    return Reason(code="full", text=text)


def _share(worker: Worker, recent: list[Asked]) -> Reason:
    """What it got, and what others got."""
    given = sum(asked.worker == worker.name for asked in recent)
    workers = len({asked.worker for asked in recent if asked.worker})
    text = (
        f"It got {given} of the last {plural(len(recent), 'job')}, which went to "
        f"{plural(workers, 'worker')}. Among "
        "workers that are quick enough, work goes by turns, in proportion to their sessions."
    )
    return Reason(code="share", text=text)
