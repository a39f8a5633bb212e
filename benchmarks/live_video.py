"""What analysing a 720p stream costs: cores per stream, against decoding it only.

The demo's detector tells what the path costs: decode, scale, look, answer. A trained detector
costs what its network costs on top: one of that size with random weights is measured beside it.
The whole way through a worker's host and its runtime process is measured last.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import psutil

from benchmarks._random_detector import write_random_detector
from benchmarks.report import Row, report
from openpool.core.calls import App
from openpool.demo.media import make_segments
from openpool.demo.tiny_detector import write_detector
from openpool.link.line import LineRequest
from openpool.wire.framing import CONTENT_TYPE, pack
from openpool.worker.offers import RuntimeSettings, WorkerOffers
from openpool.worker.runtimes import video
from openpool.worker.runtimes.host import Host, call_path
from openpool.worker.runtimes.live_video import LiveVideo

WIDTH, HEIGHT, FPS = 1280, 720, 30
SECONDS_EACH, SEGMENTS, ROUNDS = 2, 3, 4
SECONDS = SECONDS_EACH * SEGMENTS * ROUNDS
RATES = ("1", "5", "10")
TARGET_FPS, TARGET = "5", "<= 0.6"


def main() -> None:
    """Print the figures."""
    segments = make_segments(WIDTH, HEIGHT, FPS, SECONDS_EACH, SEGMENTS)
    with tempfile.TemporaryDirectory() as folder:
        tiny = write_detector(Path(folder))
        options = {"file": str(tiny.file), "labels": str(tiny.labels)}
        large = Path(folder) / "random.onnx"
        gflop = write_random_detector(large)
        base = f"{_decode_only(segments):.3f} decode only"
        rows = [
            _row(f"demo's detector, {fps}/s", _analysed(segments, options, fps), fps, base)
            for fps in RATES
        ]
        # the random network's scores are near 0.5: only the likeliest boxes are told
        random = {"file": str(large), "threshold": "0.9"}
        rows += [
            _row(
                f"{gflop:.1f} GFLOP a picture, {fps}/s", _analysed(segments, random, fps), fps, base
            )
            for fps in RATES[:2]
        ]
        through = asyncio.run(_through_host(segments, options, TARGET_FPS, Path(folder)))
        name = f"demo's detector, {TARGET_FPS}/s, through the worker's host"
        rows.append(_row(name, through, TARGET_FPS, base))
    report(f"Live video {WIDTH}x{HEIGHT}, {FPS} frames/s: cores per stream", rows)


def _row(name: str, cores: float, fps: str, base: str) -> Row:
    return Row(name, f"{cores:.3f}", TARGET if fps == TARGET_FPS else "", base)


def _decode_only(segments: list[bytes]) -> float:
    started = time.process_time()
    for _ in range(ROUNDS):
        for segment in segments:
            for _frame in video.frames(segment):
                pass
    return (time.process_time() - started) / SECONDS


def _analysed(segments: list[bytes], options: Mapping[str, str], fps: str) -> float:
    runtime = LiveVideo("benchmark", options, Path())
    runtime.load()
    session = runtime.open({"fps": fps})
    started = time.process_time()
    lines = sum(1 for _ in range(ROUNDS) for segment in segments for _line in session.feed(segment))
    cores = (time.process_time() - started) / SECONDS
    wanted = int(fps) * SECONDS
    # where the loop begins again the stream's clock jumps, which may cost a frame
    assert wanted - 2 * ROUNDS <= lines <= wanted + 1, (lines, wanted)
    return cores


async def _through_host(
    segments: list[bytes], options: Mapping[str, str], fps: str, cache: Path
) -> float:
    app = App("live-video-analysis", "benchmark")
    entry = RuntimeSettings(
        runtime="live-video-analysis", model=app.model, pipeline=app.pipeline, options=options
    )

    async def body() -> AsyncIterator[bytes]:
        for _ in range(ROUNDS):
            for segment in segments:
                yield pack(segment)

    async with Host(WorkerOffers(runtimes=(entry,), cache=cache)).running() as host:
        while not any(offer.warm for offer in host.offers()):
            await asyncio.sleep(0.05)
        before = _cpu_s()
        path = call_path(app, f"/v1/live/detect?fps={fps}")
        answer = await host.answer(
            LineRequest("POST", path, {"content-type": CONTENT_TYPE}, body())
        )
        assert answer.status == 200
        assert not isinstance(answer.body, bytes)
        lines = 0
        async for piece in answer.body:
            lines += piece.count(b"\n")
        assert lines >= int(fps) * SECONDS - 2 * ROUNDS
        return (_cpu_s() - before) / SECONDS


def _cpu_s() -> float:
    """CPU that this process and its children have used."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(each.user + each.system for each in times)


if __name__ == "__main__":
    main()
