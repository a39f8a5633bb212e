"""The event log: durable events per second, losses over 50 kills, rebuilding a million events."""

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from kill9 import kill_many
from stories import Story

from benchmarks.report import Row, percentile, report
from openpool.core.events import Event
from openpool.store import replay
from openpool.store.sqlite import SqliteStore

PRODUCERS = 200
JOBS_EACH = 60
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


def rebuilt(directory: Path) -> list[tuple[float, replay.ReplayReport]]:
    """Remake the books twice: seconds and report of each, and of a check of the result."""
    timed = []
    for work in (replay.rebuild, replay.rebuild, replay.check):
        start = time.perf_counter()
        result = work(directory)
        timed.append((time.perf_counter() - start, result))
    return timed


def main() -> None:
    """Run all three, on the disk that temporary files use."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        single = one_by_one(here / "single")
        rate, waits = uvloop.run(grouped(here / "grouped"))
        losses = kill_many(here / "killed", KILLS, seed=1)
        write_million(here / "million")
        (first_s, first), (second_s, second), (check_s, checked) = rebuilt(here / "million")
    same = first.checksum == second.checksum == checked.checksum and checked.ok
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
            f"jobs lost in {losses.rounds} kill -9, faults in the log",
            f"{losses.lost} and {len(losses.faults)}",
            "0 and 0",
            f"of {losses.acknowledged:,} acknowledged",
        ),
        Row(
            f"{first.events:,} events rebuilt, twice",
            f"{first_s:.1f} and {second_s:.1f} s",
            "<= 30 s",
            f"{check_s:.1f} s to check them",
        ),
        Row(
            "checksums and wei of both equal",
            f"{'yes' if same else 'NO'}, {first.checksum[:16]}",
            "yes",
            f"{first.fees_wei} wei of fees",
        ),
    ]
    report("Event log and books", rows)


if __name__ == "__main__":
    main()
