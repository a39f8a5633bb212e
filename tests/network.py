"""A whole network in one process, for tests and benchmarks: stand-in, pool, small workers.

Everything is the real part: TLS, HTTP/2, SQLite, the core. Only the transcoding may be a function.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from openpool.app import PoolProcess, Running, build
from openpool.config import load
from openpool.core.capabilities import DEFAULT
from openpool.core.errors import Unavailable
from openpool.core.model import Profile, Segment
from openpool.demo.orchestrator import StandIn
from openpool.ethereum import Account, encode_defunct
from openpool.link.client import Answer, TranscoderClient
from openpool.link.tls import Trust
from openpool.store.sqlite import SqliteStore
from openpool.wire.messages import Notification
from openpool.wire.results import RenditionData

Transcode = Callable[[bytes, Segment], Awaitable[list[RenditionData]]]

PROFILES = (
    Profile(name="P240", width=320, height=180, bitrate_bps=300_000),
    Profile(name="P144", width=256, height=144, bitrate_bps=150_000),
)


@dataclass(slots=True)
class RunningPool:
    """A pool under test."""

    process: PoolProcess
    running: Running
    stopping: asyncio.Event
    accounts: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> SqliteStore:
        return self.process.store

    async def settled(self) -> None:
        """Wait until every job has its answer and its events are on disk."""
        await self.process.driver.wait_idle()
        await self.store.append([]).durable()

    async def enroll(self, name: str) -> str:
        """Enrol a fresh wallet as a user would, and return the token."""
        account = Account.create()
        enrolment = self.process.enrolment
        message = await enrolment.nonce(account.address)
        signature = account.sign_message(encode_defunct(text=message)).signature.hex()
        enrolled = await enrolment.enroll(
            message=message,
            signature="0x" + signature.removeprefix("0x"),
            name=name,
            terms=enrolment.terms().digest,
            invite="",
        )
        self.accounts[name] = account.address
        return enrolled.secret


def write_config(
    folder: Path, orchestrators: Sequence[StandIn | str], extra: str = "", worker_port: int = 0
) -> Path:
    """An openpool.yaml that serves these orchestrators on free ports."""
    lines = ["orchestrators:"]
    for number, orchestrator in enumerate(orchestrators):
        address = orchestrator if isinstance(orchestrator, str) else orchestrator.address
        secret = "o-secret" if isinstance(orchestrator, str) else orchestrator.secret
        lines += [
            f"  - name: orch{number}",
            f"    address: {address}",
            f"    secret: {secret}",
        ]
        if not isinstance(orchestrator, str):
            lines.append(f"    status_url: {orchestrator.cli_url}")
    lines += [
        f"data_dir: {folder / 'data'}",
        f"workers: {{listen: '127.0.0.1:{worker_port}'}}",
        "web: {listen: '127.0.0.1:0'}",
        "price: {wei_per_pixel: '1000/3'}",
        "dispatch: {drain_ms: 3000}",
        extra,
    ]
    file = folder / "openpool.yaml"
    file.write_text("\n".join(lines) + "\n")
    return file


@asynccontextmanager
async def pool(config_file: Path) -> AsyncIterator[RunningPool]:
    """Run a pool while the block runs, and drain it at the end."""
    config = load(config_file, environment={}).config
    config.data_dir.mkdir(parents=True, exist_ok=True)
    stopping = asyncio.Event()
    started: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
    async with SqliteStore(config.data_dir) as store:
        process = await build(config, store)
        async with asyncio.TaskGroup() as group:
            group.create_task(process.run(stopping, started.set_result))
            running = await started
            try:
                yield RunningPool(process, running, stopping)
            finally:
                stopping.set()


@dataclass(slots=True)
class SmallWorker:
    """A worker of a few lines: registers, fetches, calls `transcode`, posts."""

    client: TranscoderClient
    transcode: Transcode
    capacity: int = 4
    capabilities: int = DEFAULT
    answers: list[Answer] = field(default_factory=list)
    tasks: list[Notification] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    registered: asyncio.Event = field(default_factory=asyncio.Event)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, condition: Callable[[], object], timeout_s: float = 10.0) -> None:
        """Wait until `condition` holds; looked at whenever this worker got or answered a task."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def run(self) -> None:
        """Work until cancelled or the stream ends."""
        async with (
            self.client.register(
                capacity=self.capacity, capabilities=self.capabilities, version="0.9.1"
            ) as registration,
            asyncio.TaskGroup() as group,
        ):
            self.registered.set()
            async for notification in registration:
                if notification.segment is not None:
                    self.tasks.append(notification)
                    self._changed.set()
                    group.create_task(self.work(notification))
                elif notification.session:
                    self.ended.append(notification.session)

    async def work(self, task: Notification) -> None:
        """One segment, from notice to answer; one that cannot be had any more is left."""
        with suppress(Unavailable):
            await self._work(task)

    async def _work(self, task: Notification) -> None:
        assert task.segment is not None
        async with self.client.fetch(task.url, timeout_s=10) as source:
            data = b"".join([chunk async for chunk in source.body])
        renditions = await self.transcode(data, task.segment)
        self.answers.append(await self.client.post_result(task.task_id, renditions, 1))
        self._changed.set()


@asynccontextmanager
async def worker(
    port: RunningPool | StandIn, secret: str, transcode: Transcode, **options: int
) -> AsyncIterator[SmallWorker]:
    """A small worker at a pool, or directly at the stand-in."""
    if isinstance(port, StandIn):
        host, number, trust = port.host, port.port, Trust.first_use()
    else:
        address = port.running.worker_port
        host, number = address.host, address.port
        trust = Trust.exact(port.process.identity.fingerprint)
    async with TranscoderClient(
        host, number, secret=secret, trust=trust, worker_version="test"
    ) as client:
        small = SmallWorker(client, transcode, **options)
        task = asyncio.ensure_future(small.run())
        try:
            await small.registered.wait()
            yield small
        finally:
            task.cancel()
            await asyncio.wait({task})
