"""A disk that loses power loses nothing that was acknowledged."""

import asyncio
from pathlib import Path

import pytest
from faulty_disk import PowerCutDisk
from stories import Story

from openpool.core.errors import SetupError, Unavailable
from openpool.store import replay
from openpool.store.database import FILE
from openpool.store.sqlite import SqliteStore

PRODUCERS = 4


async def write_until_dark(store: SqliteStore, seed: int) -> set[str]:
    """Append stories until the disk fails; the ids of all events that were acknowledged."""
    acknowledged: set[str] = set()

    async def produce(number: int) -> None:
        for job in Story(seed * 100 + number).jobs(10_000):
            try:
                await store.append(job).durable()
            except Unavailable:
                return
            acknowledged.update(event.id for event in job)

    async with asyncio.TaskGroup() as group:
        for number in range(PRODUCERS):
            group.create_task(produce(number))
    return acknowledged


@pytest.mark.parametrize("seed", range(12))
async def test_a_power_cut_loses_nothing_acknowledged(tmp_path: Path, seed: int) -> None:
    """Whatever part of the unsynced writes survives, every acknowledged event does."""
    disk = PowerCutDisk(f"cut{seed}", seed, writes=150 + 397 * seed)
    store = SqliteStore(tmp_path / "before", vfs=disk.name)
    acknowledged = await write_until_dark(store, seed)
    assert disk.left is not None
    assert store.failure is not None
    await asyncio.to_thread(store.close)

    after = tmp_path / "after"
    after.mkdir()
    for path, content in disk.left.items():
        (after / Path(path).name).write_bytes(content)
    report = await asyncio.to_thread(replay.check, after)
    assert report.faults == ()
    async with SqliteStore(after) as reopened:
        found = {stored.event.id for stored in reopened.all_events()}
    assert acknowledged <= found
    assert len(acknowledged) > 10
    assert (after / FILE).exists()


def test_the_simulated_cut_does_cut(tmp_path: Path) -> None:
    """Unsynced writes are really lost: a cut during creation leaves no usable database."""
    disk = PowerCutDisk("early", 1, writes=3)
    with pytest.raises(SetupError):
        SqliteStore(tmp_path, vfs=disk.name)
    assert disk.left is not None
