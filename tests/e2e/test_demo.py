"""`openpool demo` as a user starts it, and its gateway against the stand-in alone."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from openpool.core.capabilities import DEFAULT
from openpool.core.errors import SetupError
from openpool.core.model import Profile
from openpool.demo.ai import SPEECH, WORKLOADS, Credited, Told, summed, wanted
from openpool.demo.children import Children
from openpool.demo.gateway import Gateway, StreamPlan, ladder
from openpool.demo.media import make_segments
from openpool.demo.orchestrator import StandIn
from openpool.demo.pixels import look_at
from openpool.demo.report import Segments, Summary, Wei
from openpool.demo.run import run
from openpool.link.client import TranscoderClient
from openpool.link.tls import Trust
from openpool.wire.results import RenditionData

SECRET = "o-secret"
SAME = Profile(name="same", width=320, height=180, bitrate_bps=100_000)
PLAN = StreamPlan(
    manifest="m", width=320, height=180, segment_ms=500, count=3, profiles=(SAME,), seed=0
)


@asynccontextmanager
async def echo_worker(orchestrator: StandIn, *, extra_pixels: int = 0) -> AsyncIterator[None]:
    """A transcoder on our own link whose one rendition is the source itself."""
    client = TranscoderClient(
        orchestrator.host, orchestrator.port, secret=SECRET, trust=Trust.first_use()
    )

    async def work() -> None:
        async with client.register(capacity=4, capabilities=DEFAULT, version="0.9.1") as stream:
            async for task in stream:
                if task.segment is None:
                    continue
                async with client.fetch(task.url) as source:
                    data = b"".join([chunk async for chunk in source.body])
                pixels = look_at(data).pixels
                result = [RenditionData(data=data, pixels=pixels + extra_pixels)]
                assert (await client.post_result(task.task_id, result, pixels)).status == 200

    async with client, asyncio.TaskGroup() as group:
        working = group.create_task(work())
        await orchestrator.wait_registered(1)
        yield
        working.cancel()


async def test_a_stream_comes_back_whole_and_is_written(tmp_path: Path) -> None:
    """Every segment is sent in order, decoded, counted and saved under its stream and rendition."""
    segments = make_segments(320, 180, 10, 0.5, 3)
    async with StandIn(SECRET) as orchestrator, echo_worker(orchestrator):
        gateway = Gateway(orchestrator, folder=tmp_path)
        await gateway.run([PLAN], {"m": segments})
    assert (gateway.tally.sent, gateway.tally.returned, gateway.tally.lost) == (3, 3, 0)
    assert [(f.seq, f.profile, f.picture.frames) for f in gateway.finished] == [
        (0, "same", 5),
        (1, "same", 5),
        (2, "same", 5),
    ]
    assert saved(gateway) == segments
    assert orchestrator.session_id("m") == "", "the session ends with the stream"


def saved(gateway: Gateway) -> list[bytes]:
    return [Path(each.path).read_bytes() for each in gateway.finished]


async def test_a_wrong_pixel_count_is_a_loss() -> None:
    """The gateway believes its own decoder: what is billed wrongly did not come back."""
    segments = make_segments(320, 180, 10, 0.5, 1)
    async with StandIn(SECRET) as orchestrator, echo_worker(orchestrator, extra_pixels=1):
        gateway = Gateway(orchestrator)
        await gateway.run([PLAN], {"m": segments})
    assert (gateway.tally.returned, gateway.tally.errors) == (0, ["m 0: PixelMismatch"])


async def test_a_live_stream_waits_for_its_next_segment() -> None:
    """At live pace three segments of half a second take at least a second."""
    loop = asyncio.get_running_loop()
    async with StandIn(SECRET) as orchestrator, echo_worker(orchestrator):
        gateway = Gateway(orchestrator, live_pace=True)
        started = loop.time()
        await gateway.run([PLAN], {"m": make_segments(320, 180, 10, 0.5, 3)})
        assert loop.time() - started >= 0.99


def test_segments_are_shared_out_evenly() -> None:
    """The streams have all the segments between them, 1080p and 720p both."""
    plans = ladder(3, 20)
    assert [plan.count for plan in plans] == [7, 7, 6]
    assert {plan.height for plan in plans} == {1080, 720}
    assert len({plan.manifest for plan in plans}) == 3


@pytest.mark.parametrize(
    ("returned", "lost", "fees", "credited", "matches", "good"),
    [
        (6, 0, "4", "3", True, True),
        (5, 1, "4", "3", True, False),
        (5, 0, "4", "3", True, False),
        (6, 0, "4", "2", True, False),
        (6, 0, "4", "3", False, False),
        (6, 0, "0", "0", True, False),
    ],
)
def test_only_a_whole_show_is_good(
    returned: int, lost: int, fees: str, credited: str, matches: bool, good: bool
) -> None:
    """A loss, a wei that does not add up, or a log that differs is a failure of the demo."""
    summary = Summary(
        segments=Segments(sent=6, returned=returned, lost=lost, hedged=0, retried=1),
        renditions=12,
        wei=Wei(fees=fees, commission="1" if fees != "0" else "0", credited=credited),
        ledger_matches_log=matches,
        workers=[],
    )
    assert summary.good is good


def told(*, ok: bool) -> Told:
    return Told("llm", "“Hello”", "“world”", ok)


@pytest.mark.parametrize(
    ("ok", "credited", "good"),
    [(True, True, 1), (True, False, 0), (False, True, 0), (False, False, 0)],
)
def test_ai_work_counts_once_it_is_right_and_credited(ok: bool, credited: bool, good: int) -> None:
    """A wrong answer is a failure of the demo, and so is work that nobody was credited for."""
    fees = {"llm": Credited("llm", "w1", "4")} if credited else {}
    (workload,) = summed([told(ok=ok)], fees).values()
    assert (workload.jobs, workload.ok) == (1, good)
    assert workload.fees_wei == ("4" if credited else "0")


def test_speech_is_left_out_where_nothing_can_speak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ffmpeg without flite, or none, leaves the other workloads."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert set(WORKLOADS) - set(wanted()) == set(SPEECH)
    silent = tmp_path / "ffmpeg"
    silent.write_text("#!/bin/sh\necho no filters\n")
    silent.chmod(0o700)
    assert set(WORKLOADS) - set(wanted()) == set(SPEECH)


async def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    """The demo removes only what a demo made."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SetupError, match="not a demo's"):
        await run(folder=tmp_path)
    assert (tmp_path / "thesis.txt").exists()


async def test_a_child_that_fails_is_quoted(tmp_path: Path) -> None:
    """What a process said last is what the person reads."""
    children = Children(tmp_path)
    child = await children.start("pool", ["serve", "--config", "/nowhere.yaml"], talks=True)
    with pytest.raises(SetupError, match=r"pool did not start: .*nowhere\.yaml"):
        await child.first_line()
    assert await child.wait() == 2


def demo(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "openpool", "demo", *arguments],
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ai_table(progress: str) -> str:
    """What was shown of the AI work."""
    return progress.partition("AI work")[2].partition("killed (SIGKILL)")[0]


@pytest.mark.e2e
@pytest.mark.timeout(240)
def test_the_demo_loses_nothing_and_its_books_add_up(tmp_path: Path) -> None:
    """One worker dies in the middle, every segment comes back, and every wei is accounted for."""
    process = demo(tmp_path, "--once", "--json", "--segments", "9")
    output, progress = process.communicate(timeout=220)
    assert process.returncode == 0, progress
    (line,) = output.splitlines()
    told = json.loads(line)
    assert set(told) == {
        *("segments", "renditions", "wei", "ledger_matches_log", "workers", "ai"),
        *("payouts", "luck", "statements"),
    }
    segments = told["segments"]
    assert (segments["sent"], segments["returned"], segments["lost"]) == (9, 9, 0)
    assert told["renditions"] == 18
    assert len(list((tmp_path / "demo-data" / "renditions").rglob("*.ts"))) == 18
    fees, commission, credited = (int(told["wei"][n]) for n in ("fees", "commission", "credited"))
    assert fees == commission + credited
    assert commission * 4 == fees
    assert told["ledger_matches_log"] is True
    assert len(told["workers"]) == 3
    assert sum(worker["segments"] for worker in told["workers"]) == 9
    assert sum(int(worker["credited_wei"]) for worker in told["workers"]) == credited
    assert list(told["ai"]) == list(WORKLOADS)
    assert all((each["jobs"], each["ok"]) == (1, 1) for each in told["ai"].values()), told["ai"]
    assert all(int(each["fees_wei"]) > 0 for each in told["ai"].values())
    assert all(worker in ai_table(progress) for worker in ("worker-1", "worker-2"))
    paid = told["payouts"]
    assert paid["planned"] == paid["confirmed"] > 0
    assert (paid["voided"], paid["paid_twice"], paid["owed_wei"]) == (0, 0, "0")
    assert int(paid["paid_wei"]) == credited
    assert told["luck"] > 0
    assert told["statements"] == {"made": 3, "verified": 3}
    assert "pool killed" in progress
    assert "killed" in progress
    assert "came back from" in progress


@pytest.mark.e2e
@pytest.mark.timeout(120)
def test_ctrl_c_leaves_no_process_behind(tmp_path: Path) -> None:
    """Interrupted at its start, the demo stops all that it started and says so."""
    process = demo(tmp_path)
    assert process.stderr is not None
    children: list[psutil.Process] = []
    for line in process.stderr:
        children = psutil.Process(process.pid).children(recursive=True)
        if "dashboard at" in line:
            break
    assert children
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=90)
    assert process.returncode == 130, rest
    assert "Everything is stopped." in rest
    assert not [child for child in children if child.is_running()]
