"""What opening a result costs: CPU per check and checks per second, against decoding it all.

The result is a ladder of two renditions (720p and 360p) of two seconds of 1080p. The baseline is
what a gateway does to check pixel counts: decode every rendition completely.
"""

import asyncio
import time

from openpool.core.model import Profile, Segment
from openpool.demo.media import make_segments
from openpool.pool.checking import answer
from openpool.pool.findings import Measure
from openpool.pool.probe import decoded
from openpool.pool.verify import Verifier
from openpool.wire.results import RenditionData
from openpool.worker.engine import EngineSettings, transcode

PROCESSES = 2
CHECKS = 300
SEGMENT = Segment(
    seq=1,
    duration_ms=2000,
    profiles=(
        Profile(name="720p", width=1280, height=720, bitrate_bps=3_000_000),
        Profile(name="360p", width=640, height=360, bitrate_bps=1_000_000),
    ),
)


def main() -> None:
    """Print the figures."""
    [source] = make_segments(1920, 1080, 30, 2, 1)
    made = transcode(source, SEGMENT, EngineSettings(preset="veryfast"))
    result = [RenditionData(data=each.data, pixels=each.pixels) for each in made.renditions]
    files = [each.data for each in result]
    print(f"source {len(source):,} bytes, renditions {', '.join(f'{len(f):,}' for f in files)}")
    probed = _cpu_ms(lambda: [answer(Measure(), data) for data in files], 50)
    of_source = _cpu_ms(lambda: answer(Measure(), source), 50)
    full = _cpu_ms(lambda: [sum(1 for _ in decoded(data)) for data in files], 3)
    print(f"CPU to measure both renditions   {probed:8.2f} ms  (the source {of_source:.2f} ms)")
    print(f"CPU to decode both renditions    {full:8.2f} ms  (baseline, {full / probed:.0f} x)")
    asyncio.run(_rates(source, result))


def _cpu_ms(work: object, rounds: int) -> float:
    assert callable(work)
    work()
    started = time.process_time()
    for _ in range(rounds):
        work()
    return (time.process_time() - started) * 1000 / rounds


async def _rates(source: bytes, result: list[RenditionData]) -> None:
    verifier = Verifier(PROCESSES, sample_ppm=0)
    await verifier.start()
    try:
        for title, deep, count in (("every result", False, CHECKS), ("looked at", True, 6)):
            started, cpu = time.perf_counter(), time.process_time()
            slots = asyncio.Semaphore(2 * PROCESSES)

            async def one(number: int, slots: asyncio.Semaphore, deep: bool) -> float:
                async with slots:
                    asked = time.perf_counter()
                    verdict = await verifier.check(
                        f"{deep} {number}", source, result, SEGMENT, deep=deep
                    )
                    assert verdict.ok, verdict.reason
                    return time.perf_counter() - asked

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(n, slots, deep)) for n in range(count)]
            wall = time.perf_counter() - started
            took = sorted(task.result() for task in tasks)
            print(
                f"{title:12} {count / wall:8.0f} checks/s in {PROCESSES} processes,"
                f" p50 {took[count // 2] * 1000:.1f} ms,"
                f" in the pool's own process {(time.process_time() - cpu) * 1000 / count:.2f} ms"
            )
    finally:
        await verifier.close()


if __name__ == "__main__":
    main()
