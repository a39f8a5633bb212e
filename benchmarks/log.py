"""The event log: durable events per second, losses over 50 kills, rebuilding a million events."""

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import uvloop

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from kill9 import kill_many
from stories import Story

from benchmarks.report import Row, percentile, report
from openpool.core.events import Event
from openpool.store import replay
from openpool.store.sqlite import SqliteStore
from openpool.store.writer import Group

PRODUCERS = 200
JOBS_EACH = 60
PACED_S = 4
PACED_JOBS_PER_S = 1_700
COMMITS = 3_000
KILLS = 50
REBUILT = 1_000_000
BATCH = 4_000


async def grouped(directory: Path) -> tuple[float, list[float]]:
    """Many producers, each waiting for its own job: events/s, and how long each waited in ms."""
    stories = [list(Story(seed).jobs(JOBS_EACH)) for seed in range(PRODUCERS)]
    waits: list[float] = []

    async def produce(store: SqliteStore, jobs: list[list[Event]]) -> None:
        for job in jobs:
            start = time.perf_counter()
            await store.append(job).durable()
            waits.append((time.perf_counter() - start) * 1_000)

    async with SqliteStore(directory) as store:
        start = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for jobs in stories:
                group.create_task(produce(store, jobs))
        took_s = time.perf_counter() - start
        return store.head()[0] / took_s, waits


async def paced(directory: Path) -> tuple[float, list[float]]:
    """A steady load as a busy pool has it: events/s, and how long each job waited in ms."""
    waits: list[float] = []

    async def wait(receipt: Group, start: float) -> None:
        await receipt.durable()
        waits.append((time.perf_counter() - start) * 1_000)

    jobs = list(Story(2).jobs(PACED_S * PACED_JOBS_PER_S))
    loop = asyncio.get_running_loop()
    async with SqliteStore(directory) as store:
        start = loop.time()
        async with asyncio.TaskGroup() as group:
            for number, job in enumerate(jobs):
                await asyncio.sleep(start + number / PACED_JOBS_PER_S - loop.time())
                group.create_task(wait(store.append(job), time.perf_counter()))
        return store.head()[0] / (loop.time() - start), waits


def one_by_one(directory: Path) -> float:
    """The same events with a commit for each: events/s."""
    events = list(islice((e for seed in range(PRODUCERS) for e in Story(seed).events(30)), COMMITS))
    store = SqliteStore(directory)
    start = time.perf_counter()
    for event in events:
        store.append([event]).wait()
    took_s = time.perf_counter() - start
    store.close()
    return len(events) / took_s


def write_million(directory: Path) -> None:
    """Fill a log for rebuilding."""
    store = SqliteStore(directory)
    for batch in batches(Story(1, workers=200), REBUILT):
        store.append(batch).wait()
    store.close()


def batches(story: Story, count: int) -> Iterator[list[Event]]:
    events = (event for job in iter(story.job, None) for event in job)
    for start in range(0, count, BATCH):
        yield list(islice(events, min(BATCH, count - start)))


class Timed(NamedTuple):
    """A replay, and its time by the clock and of the processor."""

    report: replay.ReplayReport
    took_s: float
    processor_s: float


def timed(work: Callable[[Path], replay.ReplayReport], directory: Path) -> Timed:
    start, processor = time.perf_counter(), time.process_time()
    result = work(directory)
    return Timed(result, time.perf_counter() - start, time.process_time() - processor)


def main() -> None:
    """Run all three, on the disk that temporary files use."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        single = one_by_one(here / "single")
        rate, waits = uvloop.run(grouped(here / "grouped"))
        steady, steady_waits = uvloop.run(paced(here / "paced"))
        losses = kill_many(here / "killed", KILLS, seed=1)
        write_million(here / "million")
        first, second, checked = (
            timed(work, here / "million") for work in (replay.rebuild, replay.rebuild, replay.check)
        )
    checksums = {each.report.checksum for each in (first, second, checked)}
    same = len(checksums) == 1 and checked.report.ok
    rows = [
        Row(
            f"durable events/s, {PRODUCERS} producers",
            f"{rate:,.0f}",
            ">= 10,000",
            f"{single:,.0f} with a commit for each event",
        ),
        Row(
            "wait for the disk at that rate, p50 and p99",
            f"{percentile(waits, 50):.1f} and {percentile(waits, 99):.1f} ms",
        ),
        Row(
            f"the same at a steady {steady:,.0f} events/s",
            f"{percentile(steady_waits, 50):.1f} and {percentile(steady_waits, 99):.1f} ms",
        ),
        Row(
            f"jobs lost in {losses.rounds} kill -9, faults in the log",
            f"{losses.lost} and {len(losses.faults)}",
            "0 and 0",
            f"of {losses.acknowledged:,} acknowledged",
        ),
        Row(
            f"{first.report.events:,} events rebuilt, twice",
            f"{first.took_s:.1f} and {second.took_s:.1f} s",
            "<= 30 s",
            f"{first.processor_s:.1f} s of one processor; {checked.took_s:.1f} s to check them",
        ),
        Row(
            "checksums and wei of both equal",
            f"{'yes' if same else 'NO'}, {first.report.checksum[:16]}",
            "yes",
            f"{first.report.fees_wei} wei of fees",
        ),
    ]
    report("Event log and books", rows)


if __name__ == "__main__":
    main()
