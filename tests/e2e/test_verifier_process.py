"""The verifier's child processes: a file that crashes or hangs one costs itself only."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from renditions import Recipe

from openpool.core.model import Profile, Segment
from openpool.demo.media import make_segments
from openpool.pool.checkers import Checkers
from openpool.pool.verify import Verifier
from openpool.wire.results import RenditionData

[SOURCE] = make_segments(320, 180, 30, 1, 1)
HONEST = Recipe().upload(SOURCE)
SEGMENT = Segment(
    seq=1,
    duration_ms=1000,
    profiles=(Profile(name="small", width=160, height=90, bitrate_bps=400_000),),
)
TWICE = Segment(seq=1, duration_ms=1000, profiles=SEGMENT.profiles * 2)
FRAGILE = """
import os, time
from openpool.pool import checking
sound = checking.answer
def answer(request, data):
    if data.startswith(b"CRASH"): os.abort()
    if data.startswith(b"HANG"): time.sleep(3600)
    return sound(request, data)
checking.answer = answer
checking.main()
"""
"""A checker with two bugs of the kind that FFmpeg might have."""


@pytest.fixture
async def verifier() -> AsyncIterator[Verifier]:
    fragile = Checkers(2, (sys.executable, "-c", FRAGILE))
    verifier = Verifier(sample_ppm=0, limit_s=2.0, checkers=fragile)
    await verifier.start()
    yield verifier
    await verifier.close()


def hostile(data: bytes) -> RenditionData:
    return RenditionData(data=data + bytes(1000), pixels=1)


@pytest.mark.parametrize("poison", [b"CRASH", b"HANG"])
async def test_a_poisoned_result_is_refused_and_its_neighbours_pass(
    verifier: Verifier, poison: bytes
) -> None:
    """The poison is refused in a sentence; results before, beside and after it are checked."""
    async with asyncio.TaskGroup() as group:
        bad = group.create_task(verifier.check("j", SOURCE, [hostile(poison)], SEGMENT))
        good = [
            group.create_task(verifier.check(f"j{i}", SOURCE, [HONEST], SEGMENT)) for i in range(6)
        ]
    assert bad.result().reason == (
        "rendition 'small' crashes or hangs the pool's checker; send a clean file"
    )
    assert not bad.result().input_fault
    assert [task.result().ok for task in good] == [True] * 6
    assert (await verifier.check("after", SOURCE, [HONEST], SEGMENT)).ok
    assert verifier.checkers.lost >= 1


async def test_a_poisoned_source_is_nobodys_fault(verifier: Verifier) -> None:
    """A source that crashes the checker is an input fault, and is not opened again for a hedge."""
    source = b"CRASH" + bytes(1000)
    first = await verifier.check("j", source, [HONEST], SEGMENT)
    assert (first.input_fault, first.reason) == (True, "TranscoderInvalidVideo")
    lost = verifier.checkers.lost
    second = await verifier.check("j", source, [HONEST], SEGMENT)
    assert second.input_fault
    assert verifier.checkers.lost == lost


async def test_a_child_that_died_by_itself_costs_nothing(verifier: Verifier) -> None:
    """When the system kills idle children, the next checks run on new ones."""
    for pid in verifier.checkers.pids:
        os.kill(pid, signal.SIGKILL)
    verdicts = [await verifier.check(f"j{i}", SOURCE, [HONEST], SEGMENT) for i in range(3)]
    assert [verdict.ok for verdict in verdicts] == [True] * 3


async def test_a_hang_does_not_block_the_loop(verifier: Verifier) -> None:
    """While both children hang, the event loop goes on ticking."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    async with asyncio.TaskGroup() as group:
        ticker = group.create_task(tick())
        await verifier.check("j", SOURCE, [hostile(b"HANG"), hostile(b"HANG")], TWICE)
        ticker.cancel()
    assert ticks > 30


async def test_a_cancelled_check_leaves_a_sound_verifier(verifier: Verifier) -> None:
    """Giving up in the middle of a check does not mix up the answers of later ones."""
    for i in range(4):
        task = asyncio.create_task(verifier.check(f"c{i}", SOURCE, [HONEST], SEGMENT))
        await asyncio.sleep(0.001 * i)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (await verifier.check("after", SOURCE, [HONEST], SEGMENT)).ok


async def test_children_know_no_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What strangers attack does not hold the pool's settings."""
    monkeypatch.setenv("OPENPOOL_ORCHESTRATOR_SECRET", "o-secret")
    verifier = Verifier(1)
    await verifier.start()
    try:
        [pid] = verifier.checkers.pids
        assert b"o-secret" not in environment(pid)
    finally:
        await verifier.close()


async def test_close_leaves_no_process() -> None:
    """After close, no child is left, not even one that hangs."""
    verifier = Verifier(checkers=Checkers(1, (sys.executable, "-c", FRAGILE)), limit_s=60)
    await verifier.start()
    pids = verifier.checkers.pids
    task = asyncio.create_task(verifier.check("j", SOURCE, [hostile(b"HANG")], SEGMENT))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await verifier.close()
    assert not any(is_running(pid) for pid in pids)


async def test_children_end_with_the_pool() -> None:
    """When the pool is killed, its children notice and end."""
    script = (
        "import asyncio; from openpool.pool.verify import Verifier\n"
        "async def main():\n"
        "    v = Verifier(2); await v.start()\n"
        "    print(*v.checkers.pids, flush=True); await asyncio.sleep(60)\n"
        "asyncio.run(main())"
    )
    pool = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
    )
    assert pool.stdout
    pids = [int(pid) for pid in (await pool.stdout.readline()).split()]
    pool.kill()
    await pool.wait()
    assert len(pids) == 2
    async with asyncio.timeout(5):
        # Nothing tells when another process's children end.
        while any(is_running(pid) for pid in pids):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def environment(pid: int) -> bytes:
    """The environment a process was started with."""
    return Path(f"/proc/{pid}/environ").read_bytes()


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended may still wait for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
