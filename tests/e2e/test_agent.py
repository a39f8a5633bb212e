"""The worker's agent against a real worker port: tasks, trouble on the way, and endings."""

import asyncio
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from msgspec import structs

from openpool.core.capabilities import COMPATIBLE_VERSION, DEFAULT
from openpool.core.model import Profile, Segment
from openpool.demo.media import make_segments
from openpool.link.client import TranscoderClient
from openpool.link.interface import (
    Caller,
    Download,
    Ended,
    GrpcStatus,
    RegistrationStream,
    Reply,
)
from openpool.link.server import WorkerPort
from openpool.link.tls import Identity, Trust, load_or_create_identity, server_context
from openpool.pool.verify import Verifier
from openpool.wire.messages import Notification, RegisterRequest
from openpool.wire.results import RenditionData, ResultParser, error_text, read_headers
from openpool.worker import agent as agent_module
from openpool.worker.agent import Agent, Transcode
from openpool.worker.service import run_worker
from openpool.worker.sessions import SessionPool
from openpool.worker.terms import EncodedRendition, EngineSettings, TranscodeResult

PATIENCE_S = 10.0
SEGMENTS = make_segments(320, 180, 30, 1, 2)
SEGMENT = Segment(
    seq=1,
    duration_ms=1000,
    profiles=(
        Profile(name="small", width=160, height=90, bitrate_bps=300_000),
        Profile(name="slow", width=256, height=144, bitrate_bps=300_000, fps_num=15),
    ),
)
MADE = TranscodeResult(
    renditions=(
        EncodedRendition(
            name="small",
            container="mpegts",
            data=b"G" * 188,
            width=160,
            height=90,
            frames=30,
            pixels=432_000,
        ),
    ),
    source_pixels=1,
    source_frames=30,
    media_ms=1000,
    took_ms=1,
)


@dataclass
class Upload:
    """What the worker sent for a task."""

    task_id: int
    renditions: list[RenditionData]
    error: str = ""


@dataclass
class FakePool:
    """The pool's side of the port: hands out what the test says, keeps what comes."""

    sources: dict[str, bytes] = field(default_factory=dict)
    ending: Ended | None = None
    answers: dict[int, list[Reply]] = field(default_factory=lambda: defaultdict(list))
    requests: list[RegisterRequest] = field(default_factory=list)
    callers: list[Caller] = field(default_factory=list)
    arrivals: "asyncio.Queue[RegistrationStream]" = field(default_factory=asyncio.Queue)
    departures: "asyncio.Queue[str]" = field(default_factory=asyncio.Queue)
    uploads: "asyncio.Queue[Upload]" = field(default_factory=asyncio.Queue)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def register(
        self, request: RegisterRequest, stream: RegistrationStream, caller: Caller
    ) -> None:
        self.requests.append(request)
        self.callers.append(caller)
        self.arrivals.put_nowait(stream)
        if self.ending:
            raise self.ending
        self.departures.put_nowait(await stream.wait_closed())

    async def download(self, path: str, caller: Caller) -> Download | Reply:
        if path not in self.sources:
            return Reply(404, "no such segment")
        return Download(_once(self.sources[path]), len(self.sources[path]))

    async def upload(self, path: str, caller: Caller, body: AsyncIterator[bytes]) -> Reply:
        headers = read_headers(caller.headers)
        assert headers.secret == "token"
        if headers.is_error:
            text = error_text(b"".join([chunk async for chunk in body]))
            self.uploads.put_nowait(Upload(headers.task_id, [], text))
        else:
            parser = ResultParser(headers.boundary)
            async for chunk in body:
                parser.feed(chunk)
            self.uploads.put_nowait(Upload(headers.task_id, parser.finish()))
        answers = self.answers[headers.task_id]
        return answers.pop(0) if answers else Reply(200, "OK")

    async def worker(self) -> RegistrationStream:
        """The next worker that registers."""
        return await asyncio.wait_for(self.arrivals.get(), PATIENCE_S)

    async def result(self) -> Upload:
        """The next upload."""
        return await asyncio.wait_for(self.uploads.get(), PATIENCE_S)

    async def departure(self) -> str:
        """Why the next worker left."""
        return await asyncio.wait_for(self.departures.get(), PATIENCE_S)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


@dataclass
class Workshop:
    """A transcoding function that waits until the test lets it go on."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    started: "asyncio.Queue[str]" = field(default_factory=asyncio.Queue)

    async def __call__(
        self, session: str, source: bytes, segment: Segment, limit_ms: int
    ) -> TranscodeResult:
        self.started.put_nowait(session)
        await self.go.wait()
        return MADE

    async def busy(self) -> None:
        """Wait until a task has arrived here."""
        await asyncio.wait_for(self.started.get(), PATIENCE_S)


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return load_or_create_identity(tmp_path_factory.mktemp("identity"))


@pytest.fixture
def pool() -> FakePool:
    return FakePool(sources={f"/s{n}": data for n, data in enumerate(SEGMENTS)})


@asynccontextmanager
async def serving(pool: FakePool, identity: Identity, port: int = 0) -> AsyncIterator[WorkerPort]:
    served = WorkerPort(pool, server_context(identity), host="127.0.0.1", port=port)
    async with served.running():
        yield served


@asynccontextmanager
async def working(
    port: int, identity: Identity, transcode: Transcode, **options: object
) -> AsyncIterator[Agent]:
    """An agent at work; it is drained at the end."""
    trust = Trust.exact(identity.fingerprint)
    async with TranscoderClient(
        "127.0.0.1", port, secret="token", trust=trust, worker_version="0.1"
    ) as client:
        defaults: dict[str, object] = {"reconnect_s_max": 0.3, "drain_s": 5.0, "capacity": 2}
        agent = Agent(
            client,
            transcode,
            capabilities=DEFAULT,
            version=COMPATIBLE_VERSION,
            **(defaults | options),  # type: ignore[arg-type]  # test values
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(agent.run())
            try:
                yield agent
            finally:
                agent.drain()


def task(port: WorkerPort, task_id: int, path: str = "/s0", session: str = "a") -> Notification:
    return Notification(
        url=f"https://127.0.0.1:{port.port}{path}",
        task_id=task_id,
        session=session,
        manifest="m",
        segment=SEGMENT,
    )


# --- good days ------------------------------------------------------------------------------------


async def test_segments_are_transcoded_and_returned(pool: FakePool, identity: Identity) -> None:
    """Real segments of two sessions come back as renditions that the pool's verifier accepts."""
    sessions = SessionPool(2, EngineSettings(preset="ultrafast"))
    verifier = Verifier(1, sample_ppm=0)
    await verifier.start()
    try:
        async with (
            serving(pool, identity) as port,
            working(port.port, identity, sessions.transcode) as agent,
        ):
            stream = await pool.worker()
            stream.notify(task(port, 1 << 40, "/s0", "a"))
            stream.notify(task(port, 8, "/s1", "b"))
            uploads = {
                upload.task_id: upload for upload in (await pool.result(), await pool.result())
            }
            for task_id, source in ((1 << 40, SEGMENTS[0]), (8, SEGMENTS[1])):
                renditions = uploads[task_id].renditions
                verdict = await verifier.check(str(task_id), source, renditions, SEGMENT)
                assert (verdict.ok, verdict.reason) == (True, "")
        assert agent.counters.delivered == 2
        assert agent.counters.media_ms == 2000
        assert agent.counters.rtf > 0
    finally:
        await sessions.close()
        await verifier.close()


async def test_the_worker_says_who_and_what_it_is(pool: FakePool, identity: Identity) -> None:
    """The registration carries token, sessions, capabilities, version, and the mark of our kind."""
    async with serving(pool, identity) as port, working(port.port, identity, Workshop()):
        await pool.worker()
    [request] = pool.requests
    assert (request.secret, request.capacity) == ("token", 2)
    assert (request.capabilities, request.version) == (DEFAULT, COMPATIBLE_VERSION)
    assert pool.callers[0].headers["openpool-worker"] == "0.1"


async def test_a_session_that_ended_is_freed(pool: FakePool, identity: Identity) -> None:
    """The end of a session reaches the one who holds its processes."""
    ended: asyncio.Queue[str] = asyncio.Queue()
    async with (
        serving(pool, identity) as port,
        working(port.port, identity, Workshop(), end_session=ended.put_nowait),
    ):
        (await pool.worker()).notify(Notification(session="a"))
        assert await asyncio.wait_for(ended.get(), PATIENCE_S) == "a"


# --- bad segments ---------------------------------------------------------------------------------


async def test_a_poisoned_segment_harms_no_other(pool: FakePool, identity: Identity) -> None:
    """Garbage is answered with the text gateways know, and the good segment beside it is done."""
    pool.sources["/poison"] = b"junk" * 10_000
    sessions = SessionPool(2, EngineSettings(preset="ultrafast"))
    try:
        async with (
            serving(pool, identity) as port,
            working(port.port, identity, sessions.transcode),
        ):
            stream = await pool.worker()
            stream.notify(task(port, 1, "/poison", "a"))
            stream.notify(task(port, 2, "/s0", "b"))
            uploads = {
                upload.task_id: upload for upload in (await pool.result(), await pool.result())
            }
        assert uploads[1].error == "TranscoderInvalidVideo"
        assert len(uploads[2].renditions) == 2
    finally:
        await sessions.close()


async def test_a_source_that_is_gone_is_reported(pool: FakePool, identity: Identity) -> None:
    """A segment that cannot be fetched is answered with the reason, so that it moves on."""
    async with serving(pool, identity) as port, working(port.port, identity, Workshop()) as agent:
        (await pool.worker()).notify(task(port, 1, "/nowhere"))
        upload = await pool.result()
        assert (upload.task_id, upload.renditions) == (1, [])
        assert "404" in upload.error
    assert agent.counters.failed == 1


async def test_a_task_that_cannot_be_read_is_reported(pool: FakePool, identity: Identity) -> None:
    """A task that nobody could do is answered at once, not left to its deadline."""
    async with serving(pool, identity) as port, working(port.port, identity, Workshop()):
        stream = await pool.worker()
        impossible = structs.replace(SEGMENT, duration_ms=-5)
        stream.notify(structs.replace(task(port, 3), segment=impossible))
        upload = await pool.result()
        assert (upload.task_id, upload.renditions) == (3, [])
        assert "duration" in upload.error


async def test_more_tasks_than_it_can_hold_are_refused(pool: FakePool, identity: Identity) -> None:
    """A pool that floods the worker hears so; what was accepted is still done."""
    workshop = Workshop()
    async with (
        serving(pool, identity) as port,
        working(port.port, identity, workshop, capacity=1),
    ):
        stream = await pool.worker()
        for number in range(14):
            stream.notify(task(port, number))
        refused = [await pool.result() for _ in range(4)]
        assert {upload.error for upload in refused} == {"TranscoderBusy"}
        workshop.go.set()
        done = [await pool.result() for _ in range(10)]
        assert all(upload.renditions for upload in done)


async def test_a_task_that_hangs_ends_at_its_deadline(
    pool: FakePool, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past max(8 s, 4 x duration) nobody waits for a result: the slot is free for the next."""
    monkeypatch.setattr(agent_module, "DEADLINE_S_MIN", 0.3)
    monkeypatch.setattr(agent_module, "DURATIONS_MAX", 0)
    workshop = Workshop()
    async with serving(pool, identity) as port, working(port.port, identity, workshop) as agent:
        stream = await pool.worker()
        stream.notify(task(port, 1))
        await workshop.busy()
        async with asyncio.timeout(PATIENCE_S):
            while agent.running:  # noqa: ASYNC110  # there is no event for what does not happen
                await asyncio.sleep(0.01)
        assert agent.counters.failed == 1
        workshop.go.set()
        stream.notify(task(port, 2))
        assert (await pool.result()).task_id == 2


# --- trouble on the way ---------------------------------------------------------------------------


async def test_a_result_survives_a_restart_of_the_pool(identity: Identity) -> None:
    """The pool is gone when the result is ready: it is offered until the new pool takes it."""
    workshop = Workshop()
    before, after = FakePool(sources={"/s0": SEGMENTS[0]}), FakePool()
    async with serving(before, identity) as port:
        number = port.port
        worker = working(number, identity, workshop)
        agent = await worker.__aenter__()
        (await before.worker()).notify(task(port, 7))
        await workshop.busy()
    workshop.go.set()
    async with asyncio.timeout(PATIENCE_S):
        while not agent.counters.reposts:  # noqa: ASYNC110  # the pool that could tell is gone
            await asyncio.sleep(0.01)
    async with serving(after, identity, number):
        upload = await after.result()
        assert (upload.task_id, len(upload.renditions)) == (7, 1)
        await after.worker()
        await worker.__aexit__(None, None, None)
    assert agent.counters.delivered == 1
    assert agent.counters.registrations == 2


@pytest.mark.parametrize("status", [404, 409, 422])
async def test_a_final_answer_ends_a_task(pool: FakePool, identity: Identity, status: int) -> None:
    """A result that the pool does not want is not offered twice, one it had no time for is."""
    workshop = Workshop()
    workshop.go.set()
    pool.answers[1] = [Reply(503, "one moment"), Reply(status, "no, thanks")]
    async with serving(pool, identity) as port, working(port.port, identity, workshop) as agent:
        stream = await pool.worker()
        stream.notify(task(port, 1))
        assert (await pool.result()).task_id == 1
        assert (await pool.result()).task_id == 1
        stream.notify(task(port, 2))
        assert (await pool.result()).task_id == 2
    assert (agent.counters.unwanted, agent.counters.delivered) == (1, 1)
    assert agent.counters.reposts == 1


async def test_a_task_offered_twice_is_done_once(pool: FakePool, identity: Identity) -> None:
    """The same task id while the task runs is the same task."""
    workshop = Workshop()
    async with serving(pool, identity) as port, working(port.port, identity, workshop):
        stream = await pool.worker()
        for _ in range(3):
            stream.notify(task(port, 1))
        stream.notify(task(port, 2))
        await workshop.busy()
        await workshop.busy()
        workshop.go.set()
        uploads = sorted([(await pool.result()).task_id, (await pool.result()).task_id])
        assert uploads == [1, 2]
    assert pool.uploads.empty()


async def test_a_cancelled_task_is_stopped(pool: FakePool, identity: Identity) -> None:
    """A task that nobody needs any more is dropped without an answer; its neighbour is not."""
    workshop = Workshop()
    async with serving(pool, identity) as port, working(port.port, identity, workshop) as agent:
        stream = await pool.worker()
        stream.notify(task(port, 1))
        stream.notify(task(port, 2))
        await workshop.busy()
        await workshop.busy()
        stream.notify(Notification(cancelled_task_id=1))
        stream.notify(Notification(cancelled_task_id=99))
        stream.notify(task(port, 3, "/nowhere"))
        assert (await pool.result()).task_id == 3
        assert agent.counters.cancelled == 1
        workshop.go.set()
        assert (await pool.result()).task_id == 2
    assert pool.uploads.empty()


@pytest.mark.parametrize(
    "ending",
    [
        Ended(GrpcStatus.OK),
        Ended(GrpcStatus.UNAUTHENTICATED, "the token was revoked; ask for another"),
        Ended(GrpcStatus.UNAVAILABLE, "going away"),
    ],
    ids=lambda ending: ending.status.name,
)
async def test_it_comes_back_after_an_ending_that_is_not_final(
    pool: FakePool, identity: Identity, ending: Ended
) -> None:
    """Whatever a pool says but a final no, the worker registers again."""
    pool.ending = ending
    async with serving(pool, identity) as port, working(port.port, identity, Workshop()) as agent:
        await pool.worker()
        await pool.worker()
        pool.ending = None
        stream = await pool.worker()
        stream.notify(task(port, 1, "/nowhere"))
        assert (await pool.result()).task_id == 1
    assert agent.counters.registrations == 3


# --- endings --------------------------------------------------------------------------------------


async def test_draining_finishes_what_runs_and_takes_nothing_new(
    pool: FakePool, identity: Identity
) -> None:
    """The pool sees the worker leave at once, and still gets the result of the running task."""
    workshop = Workshop()
    async with serving(pool, identity) as port, working(port.port, identity, workshop) as agent:
        stream = await pool.worker()
        stream.notify(task(port, 1))
        await workshop.busy()
        agent.drain()
        await pool.departure()
        assert agent.running == 1
        workshop.go.set()
        assert (await pool.result()).task_id == 1
    assert agent.counters.delivered == 1


async def test_draining_has_a_limit(pool: FakePool, identity: Identity) -> None:
    """A task that does not end in time is given up, and the worker ends."""
    workshop = Workshop()
    async with (
        serving(pool, identity) as port,
        working(port.port, identity, workshop, drain_s=0.2) as agent,
    ):
        (await pool.worker()).notify(task(port, 1))
        await workshop.busy()
        agent.drain()
    assert agent.running == 0
    assert pool.uploads.empty()


async def test_draining_while_the_pool_is_away_ends(identity: Identity) -> None:
    """A worker that waits to dial again stops waiting."""
    async with working(1, identity, Workshop(), reconnect_s_max=60) as agent:
        await asyncio.sleep(0.05)
        assert not agent.is_registered


@pytest.mark.parametrize(
    ("message", "sentence"),
    [("invalid secret", "Enrol again"), ("zero capacity", "set at least one")],
)
async def test_a_final_no_ends_the_worker_with_exit_code_2(
    pool: FakePool,
    identity: Identity,
    capsys: pytest.CaptureFixture[str],
    message: str,
    sentence: str,
) -> None:
    """A banned token or zero sessions need a person: one sentence, and no more attempts."""
    pool.ending = Ended(GrpcStatus.UNKNOWN, message)
    async with serving(pool, identity) as port:
        async with asyncio.timeout(PATIENCE_S):
            code = await service(port.port, identity.fingerprint)
    assert code == 2
    assert len(pool.requests) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error


async def test_another_certificate_gets_no_token(
    pool: FakePool, identity: Identity, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server with the wrong certificate sees no registration; the owner is told what to do."""
    async with serving(pool, identity) as port, asyncio.timeout(PATIENCE_S):
        code = await service(port.port, "ab" * 32)
    assert code == 2
    assert pool.requests == []
    assert "certificate" in capsys.readouterr().err


async def service(port: int, pin: str) -> int:
    """Run the worker as its command does; gives the exit code."""
    return await run_worker(
        host="127.0.0.1",
        port=port,
        pin=pin,
        token="token",
        sessions=1,
        capabilities=DEFAULT,
        transcode=Workshop(),
        status_line=True,
    )


WORKER = """
import asyncio, sys
from openpool.worker.service import run_worker
from openpool.core.capabilities import DEFAULT
port, pin = int(sys.argv[1]), sys.argv[2]
sys.exit(asyncio.run(run_worker(host="127.0.0.1", port=port, pin=pin, token="token", sessions=1,
    capabilities=DEFAULT)))
"""


@pytest.mark.parametrize(("signals", "code"), [(1, 0), (2, 130)])
async def test_signals(identity: Identity, signals: int, code: int) -> None:
    """SIGTERM lets the running task finish and exits with 0; a second one ends at once."""
    late = LatePool(sources={"/s0": SEGMENTS[0]})
    async with serving(late, identity) as port:
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WORKER, str(port.port), identity.fingerprint
        )
        try:
            (await late.worker()).notify(task(port, 5))
            await asyncio.wait_for(late.asked.wait(), PATIENCE_S)
            worker.send_signal(signal.SIGTERM)
            await late.departure()
            if signals == 2:
                worker.send_signal(signal.SIGTERM)
            else:
                late.go.set()
                assert (await late.result()).renditions
            async with asyncio.timeout(PATIENCE_S):
                assert await worker.wait() == code
        finally:
            if worker.returncode is None:
                worker.kill()
                await worker.wait()


@dataclass
class LatePool(FakePool):
    """Holds sources back until the test lets them go."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def download(self, path: str, caller: Caller) -> Download | Reply:
        self.asked.set()
        await self.go.wait()
        return await super().download(path, caller)
