"""The pool dies by kill -9 in the middle of its work, again and again, and owes no wei too few."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from openpool.core.errors import OpenPoolError, Unavailable
from openpool.core.events import FeeCredited, JobDelivered
from openpool.core.model import Profile, Segment
from openpool.demo.children import free_port
from openpool.demo.media import make_segments
from openpool.demo.orchestrator import StandIn
from openpool.link.client import Answer, TranscoderClient
from openpool.link.interface import Ended
from openpool.link.tls import Trust
from openpool.store.replay import check
from openpool.store.sqlite import SqliteStore
from openpool.wire.messages import Notification
from openpool.wire.results import RenditionData
from openpool.worker.engine import transcode
from openpool.worker.terms import EngineSettings
from tests.network import write_config

PROFILES = (Profile(name="small", width=160, height=90, bitrate_bps=100_000),)
KILLS = 4
STREAMS = 4


class PatientWorker:
    """Comes back whenever the pool does, and uploads until somebody takes the result."""

    def __init__(self, client: TranscoderClient, result: list[RenditionData]) -> None:
        self.client = client
        self.result = result
        self.taken: dict[int, Answer] = {}
        self.changed = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    async with self.client.register(
                        capacity=STREAMS, capabilities=None, version="0.9.1"
                    ) as registration:
                        async for task in registration:
                            if task.segment is not None:
                                group.create_task(self.work(task))
                except (Ended, OpenPoolError):
                    await asyncio.sleep(0.05)  # the pool is down: dial again soon

    async def work(self, task: Notification) -> None:
        await asyncio.sleep(0.05)  # transcoding takes a while, so that the kill finds work open
        for _ in range(200):
            try:
                answer = await self.client.post_result(task.task_id, self.result, 1)
            except Unavailable:
                await asyncio.sleep(0.05)
                continue
            if answer.status != 503:
                self.taken[task.task_id] = answer
                self.changed.set()
                return


async def start_pool(config: Path) -> tuple[Process, dict[str, str]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.pool_process", str(config), stdout=PIPE
    )
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 30)
    return process, json.loads(line)


async def stream(orchestrator: StandIn, name: str, data: bytes, stop: asyncio.Event) -> list[bool]:
    """Segments one after the other until told to stop; True for each that came back."""
    came_back = []
    seq = 0
    while not stop.is_set():
        outcome = await orchestrator.submit(name, seq, data, 2000, PROFILES)
        came_back.append(outcome.ok)
        seq += 1
        if not outcome.ok:
            await asyncio.sleep(0.05)  # nobody is registered at the moment
    return came_back


@pytest.mark.timeout(180)
async def test_what_a_worker_was_told_is_on_disk_and_is_paid_once(tmp_path: Path) -> None:
    """Over several kills: every acknowledged result is credited once, and log and books agree."""
    (source,) = make_segments(160, 90, 30, 1, 1)
    segment = Segment(seq=0, duration_ms=1000, profiles=PROFILES)
    made = await asyncio.to_thread(transcode, source, segment, EngineSettings())
    result = [RenditionData(data=r.data, pixels=r.pixels) for r in made.renditions]
    async with StandIn("o-secret") as orchestrator:
        config = write_config(tmp_path, [orchestrator], worker_port=free_port())
        process, join = await start_pool(config)
        client = TranscoderClient(
            join["host"],
            int(join["port"]),
            secret=join["token"],
            trust=Trust.exact(join["pin"]),
            worker_version="t",
        )
        async with client:
            worker = PatientWorker(client, result)
            working = asyncio.ensure_future(worker.run())
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                streams = [
                    group.create_task(stream(orchestrator, f"s{n}", source, stop))
                    for n in range(STREAMS)
                ]
                for _ in range(KILLS):
                    done = len(worker.taken)
                    async with asyncio.timeout(30):
                        while len(worker.taken) < done + 10:
                            worker.changed.clear()
                            await worker.changed.wait()
                    process.send_signal(signal.SIGKILL)
                    await process.wait()
                    process, _ = await start_pool(config)
                stop.set()
            working.cancel()
            await asyncio.wait({working})
            process.terminate()
            assert await process.wait() == 0

    report = check(tmp_path / "data" / "openpool.db")
    assert report.ok, report.faults
    async with SqliteStore(tmp_path / "data") as store:
        events = [stored.event for stored in store.all_events()]
    credited = [e.data.job for e in events if isinstance(e.data, FeeCredited)]
    delivered = {e.data.attempt for e in events if isinstance(e.data, JobDelivered)}
    acknowledged = {
        number for number, answer in worker.taken.items() if answer.text.startswith("credited")
    }
    assert len(credited) == len(set(credited))
    assert acknowledged <= delivered
    assert len(acknowledged) >= 5 * KILLS
    assert any(came_back for each in streams for came_back in each.result())
