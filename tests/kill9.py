"""Kills a writing process with SIGKILL at random moments, again and again, and counts losses.

As a program (`python kill9.py DIRECTORY SEED`) it is the writer: it appends stories from several
producers and writes the id of each job to standard output once the job's events are durable.
"""

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random

from stories import Story

from openpool.store import replay
from openpool.store.interface import EventFilter
from openpool.store.reader import SqliteReader
from openpool.store.sqlite import SqliteStore

PRODUCERS = 8
START_S = 60


@dataclass
class Losses:
    """What many kills did."""

    rounds: int = 0
    acknowledged: int = 0
    """Jobs whose events were said to be durable."""
    lost: int = 0
    faults: tuple[str, ...] = ()


async def write(directory: Path, seed: int) -> None:
    """Append for ever; say which jobs are durable."""

    async def produce(store: SqliteStore, number: int) -> None:
        story = Story(seed * PRODUCERS + number)
        while True:
            job = story.job()
            await store.append(job).durable()
            os.write(1, f"{job[0].id} {job[-1].id}\n".encode())

    async with SqliteStore(directory) as store, asyncio.TaskGroup() as group:
        for number in range(PRODUCERS):
            group.create_task(produce(store, number))


def kill_once(directory: Path, seed: int, jobs: int) -> list[str]:
    """Start a writer, kill it after `jobs` jobs; the event ids that it had said are durable."""
    writer = subprocess.Popen(
        [sys.executable, __file__, str(directory), str(seed)], stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    heard = b""
    while heard.count(b"\n") < jobs:
        part = os.read(writer.stdout.fileno(), 65536)
        assert part, "the writer ended by itself"
        heard += part
    writer.send_signal(signal.SIGKILL)
    heard += writer.stdout.read()
    writer.wait(START_S)
    writer.stdout.close()
    whole = heard[: heard.rfind(b"\n") + 1]
    return whole.decode().split()


def kill_many(directory: Path, rounds: int, seed: int, jobs_max: int = 400) -> Losses:
    """Kill a writer `rounds` times on one growing log, then look for every acknowledged event."""
    random, losses = Random(seed), Losses()
    acknowledged: set[str] = set()
    for number in range(rounds):
        said = kill_once(directory, seed * 1_000 + number, random.randint(1, jobs_max))
        acknowledged.update(said)
        losses.rounds += 1
        losses.acknowledged += len(said) // 2
        reader = SqliteReader(directory)
        newest = reader.events(EventFilter(newest_first=True, limit=10 * len(said) + 1_000))
        losses.lost += len(set(said) - {stored.event.id for stored in newest})
        reader.close()
    reader = SqliteReader(directory)
    found = {stored.event.id for stored in reader.all_events()}
    reader.close()
    losses.lost = max(losses.lost, len(acknowledged - found))
    losses.faults = replay.check(directory).faults
    return losses


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), int(sys.argv[2])))
