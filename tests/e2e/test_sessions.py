"""Live sessions in processes of their own: what one segment does must not reach another."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import psutil
import pytest

from openpool.core.errors import NoCapacity
from openpool.core.model import Profile, Segment
from openpool.demo.media import make_segments
from openpool.worker.engine import transcode
from openpool.worker.gpu import can_encode
from openpool.worker.sessions import SessionPool, time_limit_ms
from openpool.worker.terms import EngineError, EngineSettings, InputError, TranscodeResult

SETTINGS = EngineSettings(preset="ultrafast", threads=1)
FIRST, SECOND = make_segments(320, 180, 30, 1, 2, seed=6)
LONG = make_segments(1280, 720, 30, 3, 1, seed=6)[0]
SEGMENT = Segment(
    seq=1,
    duration_ms=1000,
    profiles=(
        Profile(name="a", width=256, height=144, bitrate_bps=300_000),
        Profile(name="b", width=160, height=90, bitrate_bps=200_000, container="mp4"),
    ),
)
SLOW = Segment(
    seq=2,
    duration_ms=3000,
    profiles=(Profile(name="a", width=1920, height=1080, bitrate_bps=6_000_000),),
)


@pytest.fixture
async def pool() -> AsyncIterator[SessionPool]:
    pool = SessionPool(3, SETTINGS, nice=0)
    yield pool
    await pool.close()


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait for something to come true; fail if it never does."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - processes set no asyncio.Event
            await asyncio.sleep(0.005)


def gone(pid: int) -> bool:
    """Whether the process has ended, buried or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def stuck(pool: SessionPool, session: str) -> int:
    """The process of a session, caught in the middle of its segment and held there."""
    await until(lambda: session in pool.processes)
    pid = pool.processes[session]
    os.kill(pid, signal.SIGSTOP)
    return pid


async def test_results_are_those_of_the_engine(pool: SessionPool) -> None:
    """What comes through the pipe is what the engine made, byte for byte."""
    through = await pool.transcode("s", FIRST, SEGMENT)
    direct = transcode(FIRST, SEGMENT, SETTINGS)
    assert through.renditions == direct.renditions
    assert through.source_pixels == direct.source_pixels


@pytest.mark.skipif(can_encode("h264_nvenc"), reason="the GPU of this machine works")
async def test_a_gpu_that_fails_is_replaced_by_the_cpu() -> None:
    """A session that should run on a GPU which does not answer is transcoded on the CPU."""
    pool = SessionPool(1, msgspec.structs.replace(SETTINGS, device=0))
    try:
        on_gpu = await pool.transcode("s", FIRST, SEGMENT)
        assert on_gpu.renditions == transcode(FIRST, SEGMENT, SETTINGS).renditions
    finally:
        await pool.close()


async def test_a_session_keeps_its_process(pool: SessionPool) -> None:
    """Consecutive segments of a session run in one process, other sessions in others."""
    await pool.transcode("one", FIRST, SEGMENT)
    pid = pool.processes["one"]
    await pool.transcode("one", SECOND, SEGMENT)
    await pool.transcode("two", FIRST, SEGMENT)
    assert pool.processes["one"] == pid != pool.processes["two"]
    assert pool.live == 2


async def test_a_new_session_takes_a_warm_process(pool: SessionPool) -> None:
    """The process of an ended session serves the next one."""
    await pool.transcode("one", FIRST, SEGMENT)
    pid = pool.processes["one"]
    pool.end_session("one")
    assert pool.live == 0
    await pool.transcode("two", FIRST, SEGMENT)
    assert pool.processes == {"two": pid}


async def test_the_session_idle_longest_makes_room(pool: SessionPool) -> None:
    """With all places taken, a new session gets the place of the least recently used one."""
    for name in ("one", "two", "three", "one"):
        await pool.transcode(name, FIRST, SEGMENT)
    pid = pool.processes["two"]
    await pool.transcode("four", FIRST, SEGMENT)
    assert pool.processes.keys() == {"one", "three", "four"}
    assert pool.processes["four"] == pid


async def test_no_place_while_all_are_busy(pool: SessionPool) -> None:
    """If every session is in the middle of a segment, one more is told so at once."""
    names = ["one", "two", "three"]
    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(_error(pool.transcode(name, LONG, SLOW)))
        await until(lambda: pool.busy == 3)
        with pytest.raises(NoCapacity, match="All 3 sessions"):
            await pool.transcode("extra", FIRST, SEGMENT)
        for name in names:
            pool.cancel(name)
    assert pool.busy == 0
    await pool.transcode("extra", FIRST, SEGMENT)


async def test_segments_of_a_session_are_done_in_order(pool: SessionPool) -> None:
    """Two segments sent at once are both done, by the one process of the session."""
    results = await asyncio.gather(
        pool.transcode("s", FIRST, SEGMENT), pool.transcode("s", SECOND, SEGMENT)
    )
    assert [r.source_frames for r in results] == [30, 30]
    assert len(pool.processes) == 1


async def in_good_company(pool: SessionPool, poison: Callable[[], object]) -> str:
    """Poison one session while others work. Gives the error; the others must succeed."""

    async def victim() -> str:
        with pytest.raises((EngineError, InputError)) as caught:
            await pool.transcode("victim", LONG, SLOW)
        return str(caught.value)

    async def neighbour(name: str) -> list[TranscodeResult]:
        return [await pool.transcode(name, s, SEGMENT) for s in (FIRST, SECOND) * 2]

    async with asyncio.TaskGroup() as group:
        failing = group.create_task(victim())
        others = [group.create_task(neighbour(name)) for name in ("one", "two")]
        await stuck(pool, "victim")
        poison()
    assert [len(task.result()) for task in others] == [4, 4]
    return failing.result()


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
async def test_a_crash_costs_one_segment(pool: SessionPool, number: signal.Signals) -> None:
    """A process that dies in mid-segment fails that segment, with its cause; all else goes on."""

    def crash() -> None:
        pid = pool.processes["victim"]
        os.kill(pid, number)
        os.kill(pid, signal.SIGCONT)

    error = await in_good_company(pool, crash)
    assert error == f"The transcoding process died on this segment ({number.name})."
    assert (await pool.transcode("victim", FIRST, SEGMENT)).source_frames == 30


async def test_a_hang_is_killed(pool: SessionPool) -> None:
    """A process that stops in mid-segment is killed at the time limit, and replaced."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_error(pool.transcode("s", LONG, SLOW, timeout_ms=700)))
        pid = await stuck(pool, "s")
    assert task.result() == "The segment took longer than 700 ms and was stopped."
    await until(lambda: gone(pid))
    assert (await pool.transcode("s", FIRST, SEGMENT)).source_frames == 30


async def _error(work: object) -> str:
    with pytest.raises(EngineError) as caught:
        await work  # type: ignore[misc]  # a coroutine of the test
    return str(caught.value)


async def test_an_input_error_keeps_the_process(pool: SessionPool) -> None:
    """A segment that is no video is refused as input error, and its process goes on."""
    await pool.transcode("s", FIRST, SEGMENT)
    pid = pool.processes["s"]
    with pytest.raises(InputError, match="TranscoderInvalidVideo"):
        await pool.transcode("s", b"no video" * 100, SEGMENT)
    assert (await pool.transcode("s", SECOND, SEGMENT)).source_frames == 30
    assert pool.processes["s"] == pid


async def test_memory_is_limited() -> None:
    """A segment that takes more memory than allowed is stopped, and the error says so."""
    pool = SessionPool(1, SETTINGS, memory_bytes_max=60 << 20)
    try:
        with pytest.raises(EngineError, match="more than 60 MB of memory"):
            await pool.transcode("s", LONG, SLOW)
        assert (await pool.transcode("s", FIRST, SEGMENT)).source_frames == 30
    finally:
        await pool.close()


async def test_cancelling_stops_the_work(pool: SessionPool) -> None:
    """A cancelled session fails at once what runs and what waits; its process is ended."""
    async with asyncio.TaskGroup() as group:
        running = group.create_task(_error(pool.transcode("s", LONG, SLOW)))
        waiting = group.create_task(_error(pool.transcode("s", LONG, SLOW)))
        pid = await stuck(pool, "s")
        pool.cancel("s")
    assert {running.result(), waiting.result()} == {"The segment was cancelled."}
    await until(lambda: gone(pid))


async def test_a_caller_who_gives_up_stops_the_work(pool: SessionPool) -> None:
    """If the caller is cancelled, so is the work: the process does not go on for nobody."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(pool.transcode("s", LONG, SLOW))
        pid = await stuck(pool, "s")
        task.cancel()
    assert task.cancelled()
    await until(lambda: gone(pid))
    assert (await pool.transcode("s", FIRST, SEGMENT)).source_frames == 30


async def test_ending_a_busy_session_frees_its_place(pool: SessionPool) -> None:
    """A session that ends in mid-segment fails that segment and holds no place."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_error(pool.transcode("s", LONG, SLOW)))
        await stuck(pool, "s")
        pool.end_session("s")
    assert task.result() == "The session has ended."
    assert pool.live == 0


async def test_idle_processes_end() -> None:
    """A session without segments loses its place after a while, and the process ends later."""
    pool = SessionPool(2, SETTINGS, idle_ms=50)
    try:
        await pool.transcode("s", FIRST, SEGMENT)
        pid = pool.processes["s"]
        await until(lambda: pool.live == 0)
        await until(lambda: gone(pid))
    finally:
        await pool.close()


async def test_a_warm_process_that_died_is_not_used() -> None:
    """A process that died between two segments costs nothing: the next gets another."""
    pool = SessionPool(1, SETTINGS)
    try:
        await pool.transcode("s", FIRST, SEGMENT)
        pid = pool.processes["s"]
        os.kill(pid, signal.SIGKILL)
        await until(lambda: gone(pid))
        await asyncio.sleep(0)
        assert (await pool.transcode("s", SECOND, SEGMENT)).source_frames == 30
    finally:
        await pool.close()


async def test_the_nursery_may_die() -> None:
    """If the process that forks the others is killed, a new one is started on demand."""
    pool = SessionPool(2, SETTINGS)
    try:
        await pool.transcode("s", FIRST, SEGMENT)
        nursery = psutil.Process(pool.processes["s"]).parent()
        assert nursery is not None
        pid = pool.processes["s"]
        nursery.kill()
        await until(lambda: gone(nursery.pid) and gone(pid))
        assert (await pool.transcode("t", FIRST, SEGMENT)).source_frames == 30
    finally:
        await pool.close()


async def test_closing_leaves_no_process() -> None:
    """After closing, busy and idle processes and their parent are gone; callers were told."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    pool = SessionPool(3, SETTINGS)
    await pool.transcode("idle", FIRST, SEGMENT)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_error(pool.transcode("busy", LONG, SLOW)))
        await stuck(pool, "busy")
        ours = {c.pid for c in psutil.Process().children(recursive=True)} - before
        assert len(ours) == 3
        await pool.close()
    assert task.result() == "This worker is stopping."
    await until(lambda: all(gone(pid) for pid in ours))
    with pytest.raises(EngineError, match="stopping"):
        await pool.transcode("late", FIRST, SEGMENT)


PARENT = """
import asyncio, sys
from openpool.core.model import Profile, Segment
from openpool.worker.sessions import SessionPool
from openpool.worker.terms import EngineSettings

async def main():
    pool = SessionPool(2, EngineSettings())
    profile = Profile(name="a", width=256, height=144, bitrate_bps=300_000)
    source = open(sys.argv[1], "rb").read()
    await pool.transcode("s", source, Segment(seq=1, duration_ms=1000, profiles=(profile,)))
    print(*pool.processes.values(), flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_no_process_outlives_the_worker(tmp_path: Path) -> None:
    """If the worker is killed, its transcoding processes and their parent die with it."""
    (source := tmp_path / "source.ts").write_bytes(FIRST)
    command = [sys.executable, "-c", PARENT, str(source)]
    worker = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert worker.stdout
    child = int(await worker.stdout.readline())
    nursery = psutil.Process(child).parent()
    assert nursery is not None
    worker.kill()
    await worker.wait()
    await until(lambda: gone(child) and gone(nursery.pid))


def test_the_time_limit_follows_the_duration() -> None:
    """A segment has four times its duration, and at least five seconds."""
    assert [time_limit_ms(ms) for ms in (0, 1000, 2000, 10_000)] == [5000, 5000, 8000, 40_000]
