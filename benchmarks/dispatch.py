"""Choosing a worker, and handling jobs: how fast, and how well. No network, no disk, no video."""

import random
import time
from collections.abc import Callable

from benchmarks._fleet import TARGET_MS, UNITS, compare
from benchmarks.report import Row, percentile, report
from openpool.core import capabilities
from openpool.core.estimate import Estimate
from openpool.core.facts import (
    Delivered,
    OrchestratorSeen,
    ResultChecked,
    ResultReceived,
    SegmentReceived,
    WorkerUp,
)
from openpool.core.instructions import Assign
from openpool.core.model import Profile, Rendition, Segment, SourceInfo, Verdict
from openpool.core.pool import Pool, PoolSettings
from openpool.core.scheduler import Ask, Candidate, Lane, Lanes, choose

WORKERS = 10_000
CHOICES = 500
JOBS = 5_000
PROFILES = (Profile(name="720p", width=1280, height=720, bitrate_bps=3_000_000),)


def main() -> None:
    """Print the figures."""
    rows = [*choosing(), *handling()]
    report("Dispatch", rows)
    for utilisation in (0.5, 0.75):
        report(f"Rules of choosing, at {utilisation:.0%} load", _rules(utilisation))


# --- choosing ----------------------------------------------------------------------------------


def fleet_of(workers: int) -> tuple[Lanes, list[Candidate]]:
    """An index of workers that have been measured, a third of them too slow."""
    rng = random.Random(1)
    lanes, everyone = Lanes(), []
    lane = lanes.of(capabilities.DEFAULT, "0.9.1")
    for number in range(workers):
        estimate = Estimate(Estimate())
        usual_ms = 3000 if number % 3 == 0 else rng.randint(200, 1200)
        for _ in range(3):
            estimate.observe(usual_ms, UNITS, 0, 0)
        candidate = Candidate(f"w{number}", estimate, rng.randint(1, 8), share=rng.random())
        everyone.append(candidate)
        lane.put(candidate)
    return lanes, everyone


def choosing() -> list[Row]:
    """Microseconds per choice among 10,000 workers."""
    lanes, everyone = fleet_of(WORKERS)
    fitting = lanes.fitting(1, "")

    def by_us(number: int) -> None:
        choose(fitting, Ask(UNITS, TARGET_MS, 1000, number))

    rng = random.Random(1)

    def by_p2c(_number: int) -> None:
        one, two = rng.choice(everyone), rng.choice(everyone)
        min(one, two, key=lambda c: c.estimate.mean[0] * (c.in_flight + 1))

    ours_us = _each_us(by_us, CHOICES)
    p2c_us = _each_us(by_p2c, CHOICES)
    scan_us = _each_us(lambda _: _scan(fitting[0]), 1)
    return [
        Row(
            f"choosing among {WORKERS:,} workers",
            f"{ours_us:.2f} µs",
            "≤ 5 µs",
            f"full scan {scan_us:,.0f} µs, P2C {p2c_us:.2f} µs",
        )
    ]


def _scan(lane: Lane) -> Candidate:
    in_time = [c for c in lane.free if c.estimate.late(c.load, 1000) * UNITS <= TARGET_MS]
    return min(in_time, key=lambda candidate: candidate.share)


def _each_us(action: Callable[[int], None], times: int) -> float:
    """The median over short laps: other work on the machine disturbs few of them."""
    laps = []
    for lap in range(101):
        began = time.perf_counter()
        for number in range(times):
            action(lap * times + number)
        laps.append((time.perf_counter() - began) / times)
    return percentile(laps, 50) * 1e6


# --- handling ----------------------------------------------------------------------------------


def handling() -> list[Row]:
    """Jobs per second through the whole core, from receipt to credit."""
    small, large = jobs_per_second(10), jobs_per_second(WORKERS)
    return [
        Row("jobs through the core, 10 workers", f"{small:,.0f} /s", "≥ 1,000 /s"),
        Row(
            f"jobs through the core, {WORKERS:,} workers",
            f"{large:,.0f} /s",
            "≥ 1,000 /s",
            f"{small:,.0f} /s with 10 workers",
        ),
    ]


def jobs_per_second(workers: int) -> float:
    """Received, assigned, result, checked, delivered, credited."""
    pool = Pool(PoolSettings(), {"main": 1}, epoch=1)
    now_ms = 1_700_000_000_000
    pool.handle(OrchestratorSeen(orchestrator="main", incarnation="a"), now_ms)
    for number in range(workers):
        pool.handle(_worker_up(number), now_ms)
    began = time.perf_counter()
    for task in range(JOBS):
        now_ms += 1
        _one_job(pool, task, now_ms)
    return JOBS / (time.perf_counter() - began)


def _one_job(pool: Pool, task: int, now_ms: int) -> None:
    segment = Segment(seq=task, duration_ms=2000, profiles=PROFILES, capabilities=3)
    step = pool.handle(
        SegmentReceived(
            orchestrator="main",
            incarnation="a",
            group="g",
            task_id=task,
            session=f"s{task % 50}",
            manifest="m",
            segment=segment,
        ),
        now_ms,
    )
    assign = next(each for each in step.instructions if isinstance(each, Assign))
    result = ResultReceived(attempt=assign.attempt, worker=assign.worker, bytes=1_000_000)
    pool.handle(result, now_ms)
    pool.handle(ResultChecked(attempt=assign.attempt, verdict=VERDICT), now_ms)
    pool.handle(Delivered(job=assign.job, accepted=True), now_ms)


def _worker_up(number: int) -> WorkerUp:
    return WorkerUp(
        worker=f"w{number}",
        address=f"0x{number:040x}",
        connection=f"c{number}",
        kind="stock",
        capacity=8,
        capabilities=capabilities.DEFAULT,
        version="0.9.1",
        commission_ppm=250_000,
    )


VERDICT = Verdict(
    ok=True,
    source=SourceInfo(width=1920, height=1080, frames=60, duration_ms=2000, bytes=10**6),
    renditions=(
        Rendition(
            name="720p", width=1280, height=720, frames=60, pixels=1280 * 720 * 60, bytes=1,
            sha256="",
        ),
    ),
)  # fmt: skip


# --- rules -------------------------------------------------------------------------------------


def _rules(utilisation: float) -> list[Row]:
    rows = []
    table = compare(utilisation)
    baseline = table["P2C over peak-EWMA"]
    for name, run in table.items():
        value = (
            f"p95 {run.p95_ms:,.0f} ms, within 2 s {run.in_time:.2%}, rejected "
            f"{run.rejected:.2%}, Jain {run.jain:.3f}, starved {run.starved:.1f}"
        )
        ours = name.endswith("(ours)")
        rows.append(
            Row(
                name,
                value,
                "p95 or Jain better than P2C, nobody starved" if ours else "",
                f"P2C p95 {baseline.p95_ms:,.0f} ms, Jain {baseline.jain:.3f}" if ours else "",
            )
        )
    return rows


if __name__ == "__main__":
    main()
