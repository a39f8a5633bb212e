"""Replaying the past under other terms: 1,000,000 credited jobs of 200 workers in 100 rounds."""

import resource
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random

from benchmarks.report import Row, report
from openpool.cli.whatif import compare
from openpool.core.events import Event, FeeCredited, WorkerEnrolled
from openpool.core.money.events import RevenueRealised, RoundStarted
from openpool.core.money.whatif import Outcome, Terms
from openpool.core.units import commission
from openpool.rules.process import RuleProcess
from openpool.store import replay
from openpool.store.sqlite import SqliteStore

JOBS = 1_000_000
WORKERS = 200
ROUNDS = 100
BATCH = 4_000
START_MS = 1_700_000_000_000
DAY_MS = 86_400_000
TARGET_S = 30


def events() -> Iterator[Event]:
    """The log of a busy pool, as far as this question reads it."""
    random = Random(1)
    for n in range(WORKERS):
        data = WorkerEnrolled(
            worker=f"w{n}", address=address(n), name="", group=str(n % 3), terms=""
        )
        yield Event(id=f"enrolled/{n}", time_ms=START_MS, data=data)
    per_round = JOBS // ROUNDS
    for number in range(ROUNDS):
        at_ms = START_MS + number * DAY_MS
        started = RoundStarted(round=number, source="chain")
        yield Event(id=f"round/{number}", time_ms=at_ms, data=started)
        for n in range(number * per_round, (number + 1) * per_round):
            yield credited(n, random.randrange(WORKERS), random.randrange(10**13), at_ms)
        yield realised(number, random.randrange(2) * per_round * 10**13, at_ms)


def address(worker: int) -> str:
    return f"0x{worker:040x}"


def credited(job: int, worker: int, fee_wei: int, at_ms: int) -> Event:
    _, paid = commission(fee_wei, 250_000)
    data = FeeCredited(
        job=f"j{job}",
        orchestrator="main",
        worker=f"w{worker}",
        address=address(worker),
        pixels=fee_wei,
        price_wei="1",
        price_source="config",
        fee_wei=str(fee_wei),
        carry="0/1",
        commission_ppm=250_000,
        worker_wei=str(paid),
    )
    return Event(id=f"j{job}/fee-credited", time_ms=at_ms, data=data)


def realised(number: int, amount_wei: int, at_ms: int) -> Event:
    data = RevenueRealised(
        orchestrator="main",
        round=number,
        from_block=number,
        to_block=number,
        amount_wei=str(amount_wei),
        paid_wei=str(amount_wei),
        tickets=1,
    )
    return Event(id=f"revenue/{number}", time_ms=at_ms, data=data)


def write(directory: Path) -> None:
    log, store = events(), SqliteStore(directory)
    while batch := list(islice(log, BATCH)):
        store.append(batch).wait()
    store.close()


def timed(directory: Path, terms: Terms) -> tuple[Outcome, float]:
    start = time.perf_counter()
    return compare(directory, terms, round_ms=DAY_MS), time.perf_counter() - start


def main() -> None:
    """Write the log, ask about three terms, and check the log for comparison."""
    rows = []
    with tempfile.TemporaryDirectory() as folder, RuleProcess("holdback", {}) as rule:
        here = Path(folder)
        write(here)
        start = time.perf_counter()
        checked = replay.check(here)
        check_s = time.perf_counter() - start
        baseline = f"{check_s:.1f} s to check the same log (`openpool replay --check`)"
        for name, terms in (
            (
                "proportional, 20 %",
                Terms(scheme="proportional", window_rounds=10, commission_ppm=200_000),
            ),
            ("window of 10 rounds", Terms(scheme="window", window_rounds=10)),
            ("per job, with a rule", Terms(scheme="per-job", window_rounds=10, rules=[rule])),
        ):
            outcome, took_s = timed(here, terms)
            rows.append(
                Row(f"{JOBS:,} jobs, {name}", f"{took_s:.1f} s", f"<= {TARGET_S} s", baseline)
            )
            baseline = ""
    shared = sum(each.would_wei + each.would_hold_wei for each in outcome.earners)
    exact = shared + outcome.would_commission_wei == outcome.expected_wei == checked.fees_wei
    rows.append(Row("every wei of the last one accounted for", "yes" if exact else "NO", "yes"))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    rows.append(Row("peak memory of all of it", f"{peak_mb} MB"))
    report("What everybody would have earned", rows)


if __name__ == "__main__":
    main()
