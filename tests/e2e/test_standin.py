"""The orchestrator stand-in against a transcoder made of other people's parts."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from fractions import Fraction
from types import TracebackType
from typing import Self

import aiohttp
import grpc
import pytest

from openpool.core.capabilities import DEFAULT, Capability, bit_set
from openpool.core.model import Codec, Profile
from openpool.demo.media import make_segments
from openpool.demo.orchestrator import Outcome, StandIn, job_needs
from openpool.demo.pixels import look_at
from openpool.link import server
from openpool.pool.pricing import price_of_status, prices_of_metrics
from tests.e2e.independent import Transcoder, certificate, multipart, transcoder

SECRET = "o-secret"
SOURCE = b"source bytes" * 100
GOOD = b"r" * 100
P240 = Profile(name="240p", width=426, height=240, bitrate_bps=300_000)
P360 = Profile(name="360p", width=640, height=360, bitrate_bps=700_000)
SOON_S = 0.4


@pytest.fixture(autouse=True)
def short_goodbyes(monkeypatch: pytest.MonkeyPatch) -> None:
    """grpcio never answers a TLS goodbye, so the port would wait its whole time for it."""
    monkeypatch.setattr(server, "LAST_WORDS_S", 0.05)


@pytest.fixture
async def orchestrator() -> AsyncIterator[StandIn]:
    async with StandIn(SECRET, timeout_min_s=SOON_S) as orchestrator:
        yield orchestrator


@pytest.fixture
async def worker(orchestrator: StandIn) -> AsyncIterator[Transcoder]:
    """Registered, capacity 4, default capabilities."""
    async with transcoder(orchestrator.address, SECRET) as worker:
        await worker.register(4)
        await orchestrator.wait_registered(1)
        yield worker


class Running:
    """A segment under way; `outcome` is set by the end of the block."""

    outcome: Outcome

    def __init__(
        self,
        orchestrator: StandIn,
        manifest: str = "m",
        seq: int = 0,
        profiles: Sequence[Profile] = (P240,),
        *,
        capabilities: int | None = None,
        min_version: str = "",
    ) -> None:
        self._work = orchestrator.submit(
            manifest,
            seq,
            SOURCE,
            50,
            profiles,
            capabilities=capabilities,
            min_version=min_version,
        )

    async def __aenter__(self) -> Self:
        self._group = await asyncio.TaskGroup().__aenter__()
        self._task = self._group.create_task(self._work)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error:
            self._task.cancel()
        await self._group.__aexit__(kind, error, trace)
        self.outcome = self._task.result()


async def test_a_segment_travels_there_and_back(orchestrator: StandIn, worker: Transcoder) -> None:
    """The task names everything a transcoder needs, and its result reaches the gateway."""
    async with Running(orchestrator, "stream", 7, profiles=[P240, P360]) as running:
        task = await worker.next()
        assert await worker.get(task.url) == (200, SOURCE)
        assert await worker.answer(task.taskId, (GOOD, 11), (GOOD + b"2", 22)) == (200, "OK")
    assert running.outcome.error == ""
    assert [(r.profile.name, r.data, r.pixels) for r in running.outcome.renditions] == [
        ("240p", GOOD, 11),
        ("360p", GOOD + b"2", 22),
    ]
    assert (task.taskId, task.segData.seq, task.segData.manifestId) == (0, 7, b"stream")
    assert task.segData.duration == 50
    assert task.segData.auth_token.session_id == orchestrator.session_id("stream")
    assert task.url == orchestrator.segment_url("stream", 7)
    assert [p.name for p in task.segData.fullProfiles] == ["240p", "360p"]
    assert orchestrator.pixels_billed == {"stream": 33}


@pytest.mark.parametrize(
    ("secret", "capacity", "text"),
    [("guess", 4, "invalid secret"), (SECRET, 0, "zero capacity"), (SECRET, -1, "zero capacity")],
)
async def test_refusals_come_at_once(
    orchestrator: StandIn, secret: str, capacity: int, text: str
) -> None:
    """A wrong secret and a capacity of nothing end the stream with exactly the known texts."""
    async with transcoder(orchestrator.address, secret) as worker:
        await worker.register(capacity)
        assert await worker.ending() == (grpc.StatusCode.UNKNOWN, text)
    assert orchestrator.members() == []


async def test_an_error_is_passed_on_word_for_word(
    orchestrator: StandIn, worker: Transcoder
) -> None:
    """The gateway reads a transcoder's own words; the session loses its seat, nobody is evicted."""
    async with Running(orchestrator) as running:
        task = await worker.next()
        assert orchestrator.members()[0].load == 1
        assert await worker.fail(task.taskId, "No keyframes in input – ü") == (200, "OK")
    assert running.outcome.error == "No keyframes in input – ü"
    assert [member.load for member in orchestrator.members()] == [0]


async def test_a_late_task_evicts_whoever_has_it(orchestrator: StandIn, worker: Transcoder) -> None:
    """After the time-out the gateway gets an error and the transcoder's stream ends with OK."""
    async with Running(orchestrator) as running:
        task = await worker.next()
        assert await worker.ending() == (grpc.StatusCode.OK, "")
    assert running.outcome.error == "Remote transcoder took too long"
    assert running.outcome.took_ms >= SOON_S * 1000 - 20
    assert orchestrator.members() == []
    assert await worker.answer(task.taskId, (GOOD, 1)) == (200, "OK"), "a late result is swallowed"
    async with Running(orchestrator) as again:
        pass
    assert again.outcome.error == "no transcoders available"


def test_the_time_limit_is_four_durations_but_at_least_eight_seconds() -> None:
    """max(8 s, 4 x duration)."""
    orchestrator = StandIn(SECRET)
    assert [orchestrator.limit_s(ms) for ms in (500, 2000, 10_000)] == [8, 8, 40]


async def test_a_result_counts_after_its_stream_broke(
    orchestrator: StandIn, worker: Transcoder
) -> None:
    """Losing the registration loses no running work."""
    async with Running(orchestrator) as running:
        task = await worker.next()
        worker.hang_up()
        await orchestrator.wait_registered(0)
        assert await worker.answer(task.taskId, (GOOD, 1)) == (200, "OK")
    assert running.outcome.ok


@pytest.mark.parametrize(
    ("change", "body", "reply"),
    [
        ({"Authorization": "Bearer x"}, b"", (401, "Unauthorized")),
        ({"Credentials": "guess"}, b"", (401, "Unauthorized")),
        ({"Credentials": None}, b"", (401, "Unauthorized")),
        ({"Content_Type": None}, b"", (415, "mime: no media type")),
        ({"TaskId": "seven"}, b"", (400, "Invalid Task ID")),
        ({"TaskId": str(2**63)}, b"", (400, "Invalid Task ID")),
        ({"TaskId": None}, b"", (400, "Invalid Task ID")),
        ({"Pixels": "abc"}, b"", (400, "Invalid Pixels")),
        ({"Pixels": None}, b"", (400, "Invalid Pixels")),
        ({"Content_Type": "text/plain"}, b"hello", (200, "OK")),
    ],
)
async def test_a_bad_upload_leaves_the_task_open(
    orchestrator: StandIn,
    worker: Transcoder,
    change: dict[str, str | None],
    body: bytes,
    reply: tuple[int, str],
) -> None:
    """Each kind of unusable upload has its own answer, and none of them resolves the task."""
    async with Running(orchestrator) as running:
        task = await worker.next()
        headers = worker.headers(task.taskId, **change)
        status, text = await worker.post(headers, body)
        assert (status, text.strip()) == reply
        assert await worker.answer(task.taskId, (GOOD, 1)) == (200, "OK")
    assert running.outcome.ok


HASH_ONLY = multipart([]).replace(
    b"--0123456789abcdef0123--",
    b"--0123456789abcdef0123\r\nContent-Type: application/octet-stream\r\n\r\nhash\r\n"
    b"--0123456789abcdef0123--",
)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (multipart([(GOOD, 1)])[:-40], "unexpected EOF"),
        (b"", "multipart: NextPart: EOF"),
        (multipart([(GOOD, 1)]).replace(b"Pixels: 1", b"Pixels: x"), "invalid syntax"),
        (HASH_ONLY, "Unknown perceptual hash"),
    ],
)
async def test_a_broken_body_fails_the_task(
    orchestrator: StandIn, worker: Transcoder, body: bytes, error: str
) -> None:
    """A multipart that cannot be read is answered 500, and its text is what the gateway sees."""
    async with Running(orchestrator) as running:
        task = await worker.next()
        status, text = await worker.post(worker.headers(task.taskId), body)
        assert status == 500
        assert error in text
    assert running.outcome.error == text.strip()


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ([], "MismatchedSegments"),
        ([(GOOD, 1), (GOOD, 1)], "MismatchedSegments"),
        ([(b"r" * 24, 1)], "ZeroSegments"),
        ([(b"r" * 25, 1)], ""),
    ],
)
async def test_renditions_are_counted_and_weighed(
    orchestrator: StandIn, worker: Transcoder, parts: list[tuple[bytes, int]], error: str
) -> None:
    """As many renditions as profiles, each of at least 25 bytes; the upload itself is OK."""
    async with Running(orchestrator) as running:
        task = await worker.next()
        assert await worker.answer(task.taskId, *parts) == (200, "OK")
    assert running.outcome.error == error


async def test_a_hash_belongs_to_the_rendition_before_it(
    orchestrator: StandIn, worker: Transcoder
) -> None:
    """A part without pixels and of unnamed bytes is the perceptual hash; others are ignored."""
    body = multipart([(GOOD, 5)]).replace(
        b"\r\n--0123456789abcdef0123--",
        b"\r\n--0123456789abcdef0123\r\nContent-Type: text/plain\r\n\r\nnote"
        b"\r\n--0123456789abcdef0123\r\nContent-Type: application/octet-stream\r\n\r\nhash"
        b"\r\n--0123456789abcdef0123--",
    )
    async with Running(orchestrator) as running:
        task = await worker.next()
        assert (await worker.post(worker.headers(task.taskId), body))[0] == 200
    assert [r.perceptual_hash for r in running.outcome.renditions] == [b"hash"]


async def test_the_first_result_wins_and_unknown_ones_are_swallowed(
    orchestrator: StandIn, worker: Transcoder
) -> None:
    """A second answer, and one for a task that never was, get 200 and change nothing."""
    async with Running(orchestrator) as running:
        task = await worker.next()
        assert await worker.answer(task.taskId + 99, (b"x" * 50, 9)) == (200, "OK")
        assert await worker.answer(task.taskId, (GOOD, 1)) == (200, "OK")
        assert await worker.answer(task.taskId, (b"x" * 50, 9)) == (200, "OK")
    assert [r.data for r in running.outcome.renditions] == [GOOD]


async def test_capacity_counts_sessions(orchestrator: StandIn) -> None:
    """Two idle sessions fill a capacity of two; only the end of one makes room."""
    async with transcoder(orchestrator.address, SECRET) as worker:
        await worker.register(2)
        await orchestrator.wait_registered(1)
        for manifest in ("a", "b"):
            async with Running(orchestrator, manifest) as running:
                await worker.answer((await worker.next()).taskId, (GOOD, 1))
            assert running.outcome.ok
        async with Running(orchestrator, "c") as refused:
            pass
        assert refused.outcome.error == "no transcoders available"
        session = orchestrator.session_id("a")
        orchestrator.end_session("a")
        teardown = await worker.next()
        assert (teardown.url, teardown.segData.auth_token.session_id) == ("", session)
        async with Running(orchestrator, "c") as running:
            await worker.answer((await worker.next()).taskId, (GOOD, 1))
        assert running.outcome.ok


async def test_an_idle_session_is_torn_down() -> None:
    """A session without segments ends by itself, and its stored segments go with it."""
    async with (
        StandIn(SECRET, idle_s=0.1) as orchestrator,
        transcoder(orchestrator.address, SECRET) as worker,
    ):
        await worker.register(1)
        await orchestrator.wait_registered(1)
        async with Running(orchestrator):
            task = await worker.next()
            await worker.answer(task.taskId, (GOOD, 1))
        teardown = await worker.next()
        assert teardown.segData.auth_token.session_id == task.segData.auth_token.session_id
        assert await worker.get(task.url) == (404, b"ErrNotFound")
        assert orchestrator.session_id("m") == ""


async def test_the_least_loaded_gets_the_next_session(orchestrator: StandIn) -> None:
    """Load over capacity decides for a new session; an old one stays where it is."""
    async with (
        transcoder(orchestrator.address, SECRET) as small,
        transcoder(orchestrator.address, SECRET) as large,
    ):
        await small.register(1)
        await orchestrator.wait_registered(1)
        await large.register(3)
        await orchestrator.wait_registered(2)
        for task_id, manifest in enumerate(("a", "b", "c", "d", "a", "b")):
            async with Running(orchestrator, manifest):
                await small.answer(task_id, (GOOD, 1))
        loads = {member.capacity: member.load for member in orchestrator.members()}
        assert loads == {1: 1, 3: 3}


async def test_capabilities_and_version_must_fit(orchestrator: StandIn) -> None:
    """A job goes only to one that has every bit and a version that is new enough."""
    async with transcoder(orchestrator.address, SECRET) as worker:
        await worker.register(4, bits=DEFAULT, version="0.8.0-abc")
        await orchestrator.wait_registered(1)
        hevc = bit_set(Capability.HEVC_ENCODE)
        for bits, version in ((DEFAULT | hevc, ""), (DEFAULT, "0.9.0")):
            async with Running(orchestrator, capabilities=bits, min_version=version) as refused:
                pass
            assert refused.outcome.error == "no transcoders can provide requested capabilities"
        async with Running(orchestrator, min_version="0.8.0") as running:
            await worker.answer((await worker.next()).taskId, (GOOD, 1))
        assert running.outcome.ok


def test_a_gateway_asks_for_what_its_profiles_need() -> None:
    """An ordinary job needs H.264, MPEG-TS, the token and slicing; the rest adds its own bits."""
    assert job_needs([P240]) == 67112963
    special = Profile(
        name="x", width=640, height=360, bitrate_bps=1, container="mp4", codec=Codec.H265, gop_ms=1
    )
    added = bit_set(Capability.MP4, Capability.HEVC_ENCODE, Capability.GOP)
    assert job_needs([P240, special]) == 67112963 | added


async def test_segments_of_a_session_wait_their_turn(
    orchestrator: StandIn, worker: Transcoder
) -> None:
    """One segment of a session runs at a time, four wait, and the next is told to go elsewhere."""
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(orchestrator.submit("m", seq, SOURCE, 50, [P240])) for seq in range(6)
        ]
        for seq in range(5):
            task = await worker.next()
            assert task.segData.seq == seq
            await worker.answer(task.taskId, (GOOD, 1))
    assert [task.result().error for task in tasks] == ["", "", "", "", "", "OrchestratorBusy"]


async def test_old_segments_are_gone(orchestrator: StandIn, worker: Transcoder) -> None:
    """The last twelve segments of a session can be fetched, renditions too; older ones cannot."""
    for seq in range(13):
        async with Running(orchestrator, seq=seq):
            await worker.answer((await worker.next()).taskId, (GOOD, 1))
    assert (await worker.get(orchestrator.segment_url("m", 0)))[0] == 404
    assert (await worker.get(orchestrator.segment_url("m", 1)))[0] == 200
    folder = orchestrator.segment_url("m", 0).removesuffix("0.tempfile")
    assert await worker.get(f"{folder}240p/12.ts") == (200, GOOD)
    assert (await worker.get(f"{folder}../secret"))[0] == 404


async def test_a_restart_forgets_everything(orchestrator: StandIn, worker: Transcoder) -> None:
    """A new certificate on the old port, task ids from 0, and old results mean nothing."""
    before = await certificate(orchestrator.address)
    async with Running(orchestrator) as running:
        old = await worker.next()
        await orchestrator.restart()
    assert running.outcome.error == "the orchestrator stopped"
    assert await certificate(orchestrator.address) != before
    assert (await worker.get(old.url))[0] == 404
    async with transcoder(orchestrator.address, SECRET) as again:
        await again.register()
        await orchestrator.wait_registered(1)
        async with Running(orchestrator):
            task = await again.next()
            assert task.taskId == old.taskId == 0
            await again.answer(task.taskId, (GOOD, 1))


async def test_many_registrations_are_independent(orchestrator: StandIn) -> None:
    """The same secret registers any number of times, on one connection too."""
    async with transcoder(orchestrator.address, SECRET) as worker:
        for count in (1, 2, 3):
            await worker.register(count)
            await orchestrator.wait_registered(count)
        assert sorted(member.capacity for member in orchestrator.members()) == [1, 2, 3]


async def test_the_cli_port_tells_prices_and_what_was_paid() -> None:
    """Status and metrics are read by the pool's own readers, to the last pixel."""
    async with (
        StandIn(SECRET, price_wei="1/3") as orchestrator,
        transcoder(orchestrator.address, SECRET) as worker,
        aiohttp.ClientSession() as http,
    ):
        await worker.register(7)
        await orchestrator.wait_registered(1)
        async with Running(orchestrator, 'a "b"\n'):
            await worker.answer((await worker.next()).taskId, (GOOD, 3_000_000))
        async with http.get(f"{orchestrator.cli_url}/status") as response:
            status = await response.read()
        async with http.get(f"{orchestrator.cli_url}/metrics") as response:
            metrics = await response.text()
    assert price_of_status(status) == Fraction(1, 3)
    assert prices_of_metrics(metrics) == {'a "b"\n': Fraction(1, 3)}
    assert b'"Capacity": 7' in status
    assert "livepeer_transcoders_capacity{" in metrics


async def test_a_gateway_that_verifies_wants_the_exact_pixels() -> None:
    """One pixel too many, or a file that cannot be decoded, is a pixel mismatch."""
    (segment,) = make_segments(320, 180, 10, 0.5, 1)
    pixels = look_at(segment).pixels
    assert pixels == 320 * 180 * 5
    async with (
        StandIn(SECRET, local_verify=True) as orchestrator,
        transcoder(orchestrator.address, SECRET) as worker,
    ):
        await worker.register()
        await orchestrator.wait_registered(1)
        results = [(segment, pixels), (segment, pixels + 1), (b"\x47" * 400, 0), (b"x" * 400, 7)]
        errors = []
        for result in results:
            async with Running(orchestrator) as running:
                await worker.answer((await worker.next()).taskId, result)
            errors.append(running.outcome.error)
    assert errors == ["", "PixelMismatch", "PixelMismatch", "PixelMismatch"]
