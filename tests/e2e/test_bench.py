"""`openpool worker --bench`: a short sweep over real processes."""

import io

import msgspec
from rich.console import Console

from openpool.core.model import Profile
from openpool.demo.media import make_segments
from openpool.worker.bench import BenchReport, bench, bench_with_progress, most_sessions, show
from openpool.worker.gpu import Machine
from openpool.worker.terms import EngineSettings

MACHINE = Machine(cores=2, encoders=("libx264",))
SETTINGS = EngineSettings(preset="ultrafast", threads=1)
SMALL = (Profile(name="90p", width=160, height=90, bitrate_bps=100_000),)
CLIP = make_segments(160, 90, 30, 1, 2)


async def test_the_sweep_ends_where_it_is_told() -> None:
    """A machine that keeps up with all sessions that were asked for suggests that many."""
    report = await bench(CLIP, 1000, MACHINE, SETTINGS, profiles=SMALL, sessions_max=2)
    assert [level.sessions for level in report.levels] == [1, 2]
    assert report.suggested_sessions == 2
    assert report.limited_by == "sessions"
    for level in report.levels:
        assert level.segments == 3 * level.sessions
        assert 0 < level.rtf < 0.8
        assert 0 < level.p50_ms <= level.p95_ms
        assert level.memory_bytes > 10 << 20


async def test_a_machine_that_is_too_slow_is_told_so() -> None:
    """If one session already takes longer than 0.8 of its time, none is suggested."""
    report = await bench(CLIP, 5, MACHINE, SETTINGS, profiles=SMALL, sessions_max=8)
    assert report.suggested_sessions == 0
    assert report.limited_by == "latency"
    assert [level.sustained for level in report.levels] == [False]
    assert "cannot keep up" in printed(report)


async def test_failures_are_not_speed() -> None:
    """A level whose segments fail is not sustained, however fast they failed."""
    wrong = (msgspec.structs.replace(SMALL[0], codec=3),)
    report = await bench(CLIP, 1000, MACHINE, SETTINGS, profiles=wrong, sessions_max=1)
    assert report.levels[0].failures == report.levels[0].segments
    assert report.suggested_sessions == 0


def test_nvenc_sessions_are_a_limit() -> None:
    """A GPU that opens eight encoders carries two ladders of four; a CPU has no such limit."""
    machine = Machine(cores=2, encoders=("h264_nvenc",), gpu_sessions_max=8)
    assert most_sessions(machine, EngineSettings(device=0), 4, 99) == (2, "nvenc")
    assert most_sessions(machine, EngineSettings(), 4, 99) == (99, "sessions")


def printed(report: BenchReport) -> str:
    buffer = io.StringIO()
    show(report, Console(file=buffer, width=120))
    return buffer.getvalue()


async def test_the_report_can_be_read_by_people_and_programs() -> None:
    """The table names every level and the suggestion; the JSON holds the same figures."""
    console = Console(file=io.StringIO(), width=120)
    report = await bench_with_progress(
        console, CLIP, 1000, MACHINE, SETTINGS, profiles=SMALL, seconds=1
    )
    text = printed(report)
    assert "90p" in text
    assert f"Suggested session limit: {report.suggested_sessions}" in text
    again = msgspec.json.decode(msgspec.json.encode(report), type=BenchReport)
    assert again == report


async def test_the_sweep_keeps_its_time() -> None:
    """A sweep without an end in sight stops after about the time it was given."""
    report = await bench(CLIP, 1000, MACHINE, SETTINGS, profiles=SMALL, seconds=0.5)
    assert report.limited_by in {"time", "latency"}
    assert report.suggested_sessions >= 1
