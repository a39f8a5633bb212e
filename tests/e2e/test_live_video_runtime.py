"""Live video through a worker's host and its runtime process: segments in, sightings out."""

import asyncio
import base64
import io
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import av
import msgspec
import numpy as np
import pytest
from said import open_here

from openpool.core.call_requests import CallRequest, Transcript
from openpool.core.calls import App
from openpool.core.geometry import shown_size
from openpool.demo import scenes
from openpool.demo.tiny_detector import TinyDetector, write_detector
from openpool.link.line import LineAnswer, LineRequest
from openpool.pool.answers import Answers
from openpool.pool.answers.sessions import JPEG_BYTES_MAX, LINE_BYTES_MAX
from openpool.wire.framing import CONTENT_TYPE, pack
from openpool.worker.offers import RuntimeSettings, WorkerOffers, checked
from openpool.worker.runtimes import video
from openpool.worker.runtimes.annotate import annotated
from openpool.worker.runtimes.base import BadRequest, Session
from openpool.worker.runtimes.detector import Detector
from openpool.worker.runtimes.host import Host, call_path
from openpool.worker.runtimes.images import open_picture
from openpool.worker.runtimes.live_video import BROKEN_MAX, LiveVideo, Watching
from openpool.worker.runtimes.video import Clock

WIDTH, HEIGHT, FPS = 320, 180, 30
APP = App("live-video-analysis", "colours")
NEAR = 5


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> TinyDetector:
    """The detector of coloured things, made on the spot."""
    return write_detector(tmp_path_factory.mktemp("detector"))


@pytest.fixture(scope="module")
def segments() -> list[bytes]:
    """Three seconds of a moving ball."""
    return [scenes.segment(WIDTH, HEIGHT, FPS, 1, first_frame=FPS * n) for n in range(3)]


@pytest.fixture
def runtime(detector: TinyDetector) -> LiveVideo:
    """The runtime, loaded in this process."""
    options = {"file": str(detector.file), "labels": str(detector.labels)}
    made = LiveVideo("colours", options, Path())
    made.load()
    return made


@asynccontextmanager
async def hosting(detector: TinyDetector, cache: Path) -> AsyncIterator[Host]:
    """A worker's host that serves live video from a process."""
    options = {"file": str(detector.file), "labels": str(detector.labels)}
    entry = RuntimeSettings(runtime="live-video-analysis", model="colours", options=options)
    async with Host(WorkerOffers(runtimes=checked([entry]), cache=cache)).running() as host:
        yield host


class Client:
    """One session: what it sends and what it gets."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._rest = b""
        self._body: AsyncIterator[bytes] | None = None

    async def open(self, host: Host, query: str = "") -> LineAnswer:
        """Begin."""
        path = call_path(APP, f"/v1/live/detect{query}")
        headers = {"content-type": CONTENT_TYPE}
        answer = await host.answer(LineRequest("POST", path, headers, self._sending()))
        assert not isinstance(answer.body, bytes) or answer.status != 200
        if not isinstance(answer.body, bytes):
            self._body = aiter(answer.body)
        return answer

    async def _sending(self) -> AsyncIterator[bytes]:
        while (message := await self._messages.get()) is not None:
            yield message

    def send(self, *messages: bytes) -> None:
        """Send messages."""
        for message in messages:
            self._messages.put_nowait(pack(message))

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._messages.put_nowait(data)

    def end(self) -> None:
        """Send nothing more."""
        self._messages.put_nowait(None)

    async def line(self) -> dict[str, Any] | None:
        """The next line; None at the end."""
        assert self._body is not None
        async with asyncio.timeout(20):
            while b"\n" not in self._rest:
                piece = await anext(self._body, None)
                if piece is None:
                    assert not self._rest
                    return None
                self._rest += piece
        line, self._rest = self._rest.split(b"\n", 1)
        return msgspec.json.decode(line, type=dict[str, Any])

    async def rest(self) -> list[dict[str, Any]]:
        """All lines until the end."""
        lines = []
        while (line := await self.line()) is not None:
            lines.append(line)
        return lines


def assert_right(line: dict[str, Any]) -> None:
    """The ball and the box are where they were drawn in that frame."""
    boxes = {box["label"]: box for box in line["boxes"]}
    assert set(boxes) == {"red", "blue"}
    for thing in scenes.things(WIDTH, HEIGHT, line["frame"]):
        for side in ("x", "y", "w", "h"):
            assert abs(boxes[thing.colour][side] - getattr(thing, side)) <= NEAR, (thing, line)


async def test_a_session(detector: TinyDetector, segments: list[bytes], tmp_path: Path) -> None:
    """Sightings come while the stream still runs, five a second, boxes where things were drawn."""
    async with hosting(detector, tmp_path) as host:
        client = Client()
        answer = await client.open(host)
        assert (answer.status, answer.headers["content-type"]) == (200, "application/jsonl")
        client.send(segments[0])
        lines = [await client.line() for _ in range(5)]  # the second segment was not sent yet
        client.send(*segments[1:])
        client.end()
        lines += await client.rest()
    assert [line["t_ms"] for line in lines if line] == list(range(0, 3000, 200))
    assert [line["frame"] for line in lines if line] == list(range(0, 90, 6))
    for line in lines:
        assert line is not None
        assert_right(line)


async def test_what_is_told_earns(
    detector: TinyDetector, segments: list[bytes], tmp_path: Path
) -> None:
    """What the runtime tells stands the pool's check, and its frames are counted."""
    async with hosting(detector, tmp_path) as host:
        client = Client()
        await client.open(host, "?fps=10&annotate=true")
        client.send(segments[0], b"garbage")
        client.end()
        told = b"".join(msgspec.json.encode(line) + b"\n" for line in await client.rest())
    answers = Answers(open_here)
    headers = {"content-type": CONTENT_TYPE}
    follow = answers.follow(CallRequest(app=APP, source="direct", headers=headers))
    assert follow is not None
    assert await follow.feed(told) == told
    follow.end()
    assert not follow.fault
    said = Transcript(
        app=APP, source="direct", path="/", unit="pixel", request_type=CONTENT_TYPE, request=b"",
        status=200, answer_type="application/jsonl", answer=b"", whole=True, took_ms=900,
        seen=follow.measured(900),
    )  # fmt: skip
    checked_answer = await answers.check(said)
    assert checked_answer.usage.checked
    assert checked_answer.usage.units == 10 * WIDTH * HEIGHT


async def test_sessions_take_turns(
    detector: TinyDetector, segments: list[bytes], tmp_path: Path
) -> None:
    """Two streams on one process each get all of their own lines."""
    async with hosting(detector, tmp_path) as host:
        clients = [Client(), Client()]
        for client in clients:
            await client.open(host)
        clients[0].send(segments[0])
        clients[1].send(*segments)
        for client in clients:
            client.end()
        first, second = [await client.rest() for client in clients]
    assert (len(first), len(second)) == (5, 15)


async def test_hostile_messages_end_the_session_only(
    detector: TinyDetector, segments: list[bytes], tmp_path: Path
) -> None:
    """An announced length of 4 GB ends its session with a sentence; the next one is served."""
    async with hosting(detector, tmp_path) as host:
        hostile = Client()
        await hostile.open(host)
        hostile.send_raw(b"\xff\xff\xff\xff")
        (line,) = await hostile.rest()
        assert "2147483647 bytes is announced" in line["error"]["message"]
        wrong = await Client().open(host, "?fps=a")
        assert wrong.status == 400
        honest = Client()
        await honest.open(host)
        honest.send(segments[0])
        honest.end()
        assert len(await honest.rest()) == 5


async def test_a_client_that_leaves(
    detector: TinyDetector, segments: list[bytes], tmp_path: Path
) -> None:
    """A session whose client is gone makes room for others: more sessions than there is room."""
    async with hosting(detector, tmp_path) as host:
        for _ in range(6):
            client = Client()
            answer = await client.open(host)
            client.send(segments[0])
            assert await client.line()
            client.end()
            assert not isinstance(answer.body, bytes)
            await answer.body.aclose()  # type: ignore[attr-defined]  # as the line does it


# --- a session in this process: what it makes of odd messages -------------------------------------


def told(session: Session, *messages: bytes) -> Iterator[dict[str, Any]]:
    """What it tells."""
    for message in messages:
        for line in filter(None, session.feed(message)):
            assert line.endswith(b"\n")
            yield msgspec.json.decode(line)


def test_a_video_format_that_nobody_knows_costs_its_segment(
    runtime: LiveVideo, segments: list[bytes]
) -> None:
    """The session hears what is wrong with it and goes on."""
    remuxed = io.BytesIO()
    with av.open(io.BytesIO(segments[0])) as given, av.open(remuxed, "w", format="mp4") as made:
        stream = made.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                made.mux(packet)
    unknown = remuxed.getvalue().replace(b"avc1", b"odd1").replace(b"avcC", b"oddC")
    lost, *seen = told(runtime.open({"fps": "1"}), unknown, segments[1])
    assert "format that is not known" in lost["error"]
    assert len(seen) == 1


def test_frames_that_are_not_looked_at_are_pauses(
    runtime: LiveVideo, segments: list[bytes]
) -> None:
    """Decoding a long segment of which little is wanted lets other sessions have their turn."""
    pieces = list(runtime.open({"fps": "1"}).feed(segments[0]))
    assert [bool(piece) for piece in pieces] == [True] + [False] * (FPS - 1)


def test_pictures_have_the_time_they_come(runtime: LiveVideo) -> None:
    """Of pictures that come ten a second, five a second are looked at."""
    times = iter(range(7_000, 9_000, 100))
    session = Watching(Detector(runtime.options, Path()), 5, 0.5, lambda: next(times))
    pictures = [
        scenes.to_file(scenes.draw(WIDTH, HEIGHT, n), ("JPEG", "PNG", "WEBP")[n % 3])
        for n in range(10)
    ]
    lines = list(told(session, *pictures))
    assert [line["t_ms"] for line in lines] == [0, 200, 400, 600, 800]
    assert [line["frame"] for line in lines] == [0, 2, 4, 6, 8]
    for line in lines:
        assert_right(line)


def test_a_damaged_segment_costs_itself(runtime: LiveVideo, segments: list[bytes]) -> None:
    """A segment that cannot be read is one line; what follows goes on. Ten in a row are enough."""
    session = runtime.open({})
    lines = list(told(session, segments[0], b"Gxyz", b"", segments[1]))
    assert [line["error"] for line in lines if "error" in line] == [
        "the segment cannot be decoded",
        "send MPEG-TS or MP4 segments, or JPEG, PNG or WebP pictures",
    ]
    assert len(lines) == 12
    with pytest.raises(BadRequest, match="10 messages in a row"):
        list(told(session, *[b"#EXTM3U\nfile:///etc/passwd\n"] * BROKEN_MAX))


def test_cut_and_foreign_segments(runtime: LiveVideo, segments: list[bytes]) -> None:
    """Half a segment gives what it holds; one without video is told so."""
    session = runtime.open({})
    half = segments[0][: len(segments[0]) // 2 // 188 * 188]
    lines = list(told(session, half))
    assert 1 <= len(lines) <= 5
    (line,) = told(session, _sound())
    assert line["error"] == "the segment has no video"


def _sound() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as output:
        stream = output.add_stream("aac", rate=48_000)
        frame = av.AudioFrame(format="fltp", layout="stereo", samples=1024)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.sample_rate = 48_000
        for number in range(20):
            frame.pts = number * 1024
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def test_limits_of_a_segment(
    runtime: LiveVideo, segments: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames that are too large or too many are not decoded to the end."""
    session = runtime.open({})
    monkeypatch.setattr(video, "FRAMES_MAX", 10)
    *seen, line = told(session, segments[0])
    assert "more than 10 frames" in line["error"]
    assert len(seen) == 2
    monkeypatch.setattr(video, "FRAME_PIXELS_MAX", 10_000)
    (line,) = told(session, segments[1])
    assert "cannot be decoded" in line["error"] or "too large" in line["error"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"fps": "0"}, "fps must be a number from 0.1 to 30"),
        ({"fps": "31"}, "fps must be"),
        ({"fps": "nan"}, "fps must be"),
        ({"threshold": "2"}, "threshold must be"),
        ({"annotate": "maybe"}, "annotate must be true or false"),
    ],
)
def test_bad_options(runtime: LiveVideo, options: dict[str, str], sentence: str) -> None:
    """What a session cannot be is said before it begins."""
    with pytest.raises(BadRequest, match=sentence):
        runtime.open(options)


@pytest.mark.parametrize("kind", ["picture", "segment"])
def test_boxes_are_drawn_where_they_are_told(
    runtime: LiveVideo, segments: list[bytes], kind: str
) -> None:
    """An annotated frame differs from the frame along the edges of its boxes, and only nearby."""
    still = scenes.draw(WIDTH, HEIGHT)
    scene = np.asarray(still, int)
    message = scenes.to_file(still, "PNG") if kind == "picture" else segments[0]
    first, *_ = told(runtime.open({"annotate": "true"}), message)
    assert first["boxes"]
    drawn = open_picture(base64.b64decode(first["jpeg"])).astype(int)
    assert drawn.shape == (HEIGHT, WIDTH, 3)
    changed = np.abs(drawn - scene).max(axis=2)
    near = np.zeros((HEIGHT, WIDTH), bool)
    for box in first["boxes"]:
        left, top, right, bottom = box["x"], box["y"], box["x"] + box["w"], box["y"] + box["h"]
        edge = changed[top + 1 : bottom - 1, right - 2]
        assert edge.min() > 40, "the right edge is not drawn"
        near[max(0, top - 16) : bottom + 16, max(0, left - 16) : max(right, left + 120) + 16] = True
    assert changed[~near].max() < 40
    (plain,) = told(runtime.open({}), scenes.to_file(still, "PNG"))
    assert "jpeg" not in plain


def test_a_picture_of_noise_is_one_that_the_pool_takes() -> None:
    """Whatever a stream shows, the largest annotated picture is within the pool's bounds."""
    noise = np.random.default_rng(0).integers(0, 2, (1280, 1280, 3), np.uint8) * np.uint8(255)
    file = annotated(noise, [], 4096)
    assert len(file) <= JPEG_BYTES_MAX
    assert JPEG_BYTES_MAX * 4 / 3 + 200_000 < LINE_BYTES_MAX


def test_a_large_frame_is_shown_smaller() -> None:
    """The longer side is 1280 pixels at most, and the other follows to the nearest pixel."""
    sizes = [(4096, 2160), (1280, 1280), (320, 180), (1441, 2560), (16_000, 1)]
    shown = [(1280, 675), (1280, 1280), (320, 180), (721, 1280), (1280, 1)]
    assert [shown_size(*size) for size in sizes] == shown


@pytest.mark.parametrize("source_fps", [5, 24, 25, 30, 50, 60])
def test_the_clock_keeps_its_rate(source_fps: int) -> None:
    """Whatever a stream's frame rate, five frames of each second are looked at."""
    clock = Clock(5)
    chosen = [
        clock.t_ms
        for n in range(source_fps * 10)
        if clock.wants_pts(1_234_567 + round(n * 1000 / source_fps))
    ]
    assert len(chosen) == 50
    assert max(after - before for before, after in itertools.pairwise(chosen)) < 260


def test_the_clock_survives_jumps() -> None:
    """Timestamps that jump or run backwards neither stop the clock nor turn it back."""
    clock = Clock(5)
    times = []
    for pts in (0, 100, 95_443_717, 95_443_817, 5, 105, 205, 305):
        if clock.wants_pts(pts):
            times.append(clock.t_ms)
    assert times == sorted(times)
    assert clock.t_ms == 500
    assert len(times) == 3
