"""Calls over a line: our pool's end against our worker's end."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from openpool.core.errors import (
    BadMessage,
    Banned,
    NoCapacity,
    Timeout,
    Unauthorized,
    Unavailable,
)
from openpool.link.line import (
    CALLS_MAX,
    BrokenOff,
    Line,
    LineAnswer,
    LineRequest,
    NotAnswered,
    OfferBoard,
    serve_line,
)
from openpool.link.server import PortLimits, WorkerPort
from openpool.link.tls import Identity, Trust, load_or_create_identity, server_context
from tests.wire.kit import eventually
from tests.wire.linekit import OFFER, OTHER, LineDesk, ask, dial, echo, line_worker, soon

WINDOW = 256 << 10


@pytest.fixture
def desk() -> LineDesk:
    return LineDesk()


@pytest.fixture
async def port(identity: Identity, desk: LineDesk) -> AsyncIterator[WorkerPort]:
    limits = PortLimits(drain_s=3)
    port = WorkerPort(desk, server_context(identity), host="127.0.0.1", limits=limits)
    async with port.running():
        yield port


def post(line: Line, body: bytes | AsyncIterator[bytes] = b"", **options: float):
    return line.call("POST", "/call/llm/tiny", {}, body, **options)


class Source:
    """A body without an end that counts what is taken of it."""

    def __init__(self, chunk: bytes = bytes(10_000)) -> None:
        self.taken = 0
        self.closed = asyncio.Event()
        self._chunk = chunk

    async def chunks(self, count: int = 10**9) -> AsyncIterator[bytes]:
        try:
            for _ in range(count):
                self.taken += len(self._chunk)
                yield self._chunk
        finally:
            self.closed.set()


class Stuck:
    """A handler that never answers, and notes that it was stopped."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.stopped = asyncio.Event()

    async def __call__(self, request: LineRequest) -> LineAnswer:
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped.set()
        raise AssertionError


# Who the worker is


async def test_a_worker_says_who_it_is_and_what_it_offers(
    port: WorkerPort, identity: Identity, desk: LineDesk
) -> None:
    """The token comes first, then the list of offers at once and at each change."""
    async with line_worker(port, identity) as worker:
        assert desk.tokens == ["token"]
        assert await desk.next_offers() == [OFFER]
        worker.board.set([OFFER, OTHER])
        assert await desk.next_offers() == [OFFER, OTHER]
        worker.board.set([OFFER, OTHER])
        worker.board.set([])
        assert await desk.next_offers() == []


async def test_a_worker_that_dials_again_offers_what_it_has_now(
    port: WorkerPort, identity: Identity, desk: LineDesk
) -> None:
    """The board outlives a line: the next one begins with its present state."""
    board = OfferBoard([OFFER])
    for offers in ([OFFER], [OTHER]):
        board.set(offers)
        serving = asyncio.create_task(dial(port, identity, echo, board))
        assert await desk.next_offers() == offers
        (await desk.next_line()).close()
        with pytest.raises(Unavailable):
            await soon(serving)


# Calls


async def test_a_call_arrives_as_it_was_made(port: WorkerPort, identity: Identity) -> None:
    """Method, path, fields and body reach the handler; status, fields and body come back."""
    seen: list[LineRequest] = []

    async def handler(request: LineRequest) -> LineAnswer:
        seen.append(request)
        body = b"".join([chunk async for chunk in request.body])
        return LineAnswer(418, {"X-Name": "töpfchen 茶", "Connection": "close"}, body[::-1])

    async with line_worker(port, identity, handler) as worker:
        headers = {
            "Content-Type": "text/plain; charset=utf-8",
            "Accept": "é",
            "Transfer-Encoding": "chunked",
            "content-length": "5",
        }
        async with worker.line.call("PUT", "/call/a/b%2Fc/d?e=f", headers, b"hello") as answer:
            assert (answer.status, answer.headers) == (418, {"x-name": "töpfchen 茶"})
            assert await answer.body.read(10) == b"olleh"
    (request,) = seen
    assert (request.method, request.path) == ("PUT", "/call/a/b%2Fc/d?e=f")
    assert request.headers == {
        "content-type": "text/plain; charset=utf-8",
        "accept": "é",
        "content-length": "5",
    }


@pytest.mark.parametrize("size", [0, 1, WINDOW - 1, WINDOW, WINDOW + 1, 5_000_000])
async def test_bodies_of_all_sizes_come_back(
    port: WorkerPort, identity: Identity, size: int
) -> None:
    """Empty, tiny, around a window and far beyond it: every byte in its place."""
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)

    async def whole(request: LineRequest) -> LineAnswer:
        parts = [chunk async for chunk in request.body]
        return LineAnswer(body=b"".join(parts))

    async with line_worker(port, identity) as worker:
        assert await ask(worker.line, body) == body
    async with line_worker(port, identity, whole) as worker:
        assert await ask(worker.line, body) == body


async def test_an_answer_may_begin_before_the_request_ends(
    port: WorkerPort, identity: Identity
) -> None:
    """Questions and replies alternate on one call: what a live session needs."""
    questions: asyncio.Queue[bytes] = asyncio.Queue()

    async def body() -> AsyncIterator[bytes]:
        while question := await questions.get():
            yield question

    async with line_worker(port, identity) as worker, post(worker.line, body()) as answer:
        for number in range(50):
            questions.put_nowait(b"%d" % number)
            assert await soon(anext(answer.body)) == b"%d" % number
        questions.put_nowait(b"")
        with pytest.raises(StopAsyncIteration):
            await soon(anext(answer.body))


async def test_an_early_answer_ends_the_request(port: WorkerPort, identity: Identity) -> None:
    """A worker may refuse a body that it has not read; the rest of it is not sent."""

    async def refuse(request: LineRequest) -> LineAnswer:
        return LineAnswer(413, {}, b"too large")

    source = Source()
    async with line_worker(port, identity, refuse) as worker:
        async with post(worker.line, source.chunks()) as answer:
            assert (answer.status, await soon(answer.body.read(100))) == (413, b"too large")
        assert source.taken < 3_000_000
        assert worker.line.calls == 0


async def test_answers_without_a_body(port: WorkerPort, identity: Identity) -> None:
    """HEAD and 204 have none, whatever their header fields and their handler say."""

    async def handler(request: LineRequest) -> LineAnswer:
        status = 200 if request.method == "HEAD" else 204
        return LineAnswer(status, {"content-length": "7"}, b"surplus")

    async with line_worker(port, identity, handler) as worker:
        for method, length in (("HEAD", "7"), ("GET", None)):
            async with worker.line.call(method, "/x", {}) as answer:
                assert answer.headers.get("content-length") == length
                assert await soon(answer.body.read(100)) == b""


# Back-pressure


async def test_a_worker_that_does_not_read_holds_the_request_back(
    port: WorkerPort, identity: Identity
) -> None:
    """No more than a window is under way; then every byte arrives."""
    read = asyncio.Event()
    size = 0

    async def patient(request: LineRequest) -> LineAnswer:
        nonlocal size
        await read.wait()
        async for chunk in request.body:
            size += len(chunk)
        return LineAnswer()

    source = Source()
    async with line_worker(port, identity, patient) as worker, asyncio.TaskGroup() as group:
        calling = group.create_task(finish(post(worker.line, source.chunks(300))))
        await eventually(lambda: source.taken >= WINDOW)
        assert await no_more(source)
        read.set()
        assert await soon(calling) == b""
    assert size == source.taken == 3_000_000


async def finish(call) -> bytes:
    async with call as answer:
        return await answer.body.read(1 << 30)


async def no_more(source: Source) -> bool:
    """Whether a source rests, at little more than a window."""
    before = -1
    while source.taken != before:
        before = source.taken
        await asyncio.sleep(0.05)
    return source.taken < WINDOW + 50_000


async def test_a_worker_that_takes_nothing_fails_its_call(
    port: WorkerPort, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that is held back for ever is the worker's failure: another one may be tried."""
    monkeypatch.setattr("openpool.link.line_stream.BODY_STALL_S", 0.1)
    stuck = Stuck()
    async with line_worker(port, identity, stuck) as worker:
        with pytest.raises(NotAnswered, match="does not take"):
            await soon(post(worker.line, Source().chunks()).__aenter__())
        await soon(stuck.stopped.wait())


async def test_a_client_that_takes_nothing_is_left(
    port: WorkerPort, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that nobody reads does not occupy its worker for ever."""
    monkeypatch.setattr("openpool.link.line_stream.BODY_STALL_S", 0.1)
    source = Source()

    async def handler(request: LineRequest) -> LineAnswer:
        return LineAnswer(body=source.chunks())

    async with line_worker(port, identity, handler) as worker, post(worker.line) as answer:
        await soon(source.closed.wait())
        with pytest.raises(BrokenOff):
            await soon(answer.body.read(1 << 30))


async def test_a_pool_that_does_not_read_holds_the_answer_back(
    port: WorkerPort, identity: Identity
) -> None:
    """The body of an answer is drawn as the pool reads it."""
    source = Source()

    async def handler(request: LineRequest) -> LineAnswer:
        return LineAnswer(body=source.chunks(300))

    async with line_worker(port, identity, handler) as worker, post(worker.line) as answer:
        await eventually(lambda: source.taken >= WINDOW)
        assert await no_more(source)
        assert len(await soon(answer.body.read(1 << 30))) == source.taken == 3_000_000


async def test_stalled_calls_hold_up_nobody(port: WorkerPort, identity: Identity) -> None:
    """With all other calls of a line stalled at a full window, one more goes through."""
    source = Source(bytes(WINDOW))

    async def handler(request: LineRequest) -> LineAnswer:
        return LineAnswer(body=source.chunks() if request.path == "/flood" else b"pong")

    async with line_worker(port, identity, handler) as worker:
        calls = [worker.line.call("GET", "/flood", {}) for _ in range(CALLS_MAX - 1)]
        for call in calls:
            await soon(call.__aenter__())
        await eventually(lambda: source.taken >= len(calls) * WINDOW)
        assert await ask(worker.line) == b"pong"
        extra = post(worker.line)
        async with post(worker.line):
            with pytest.raises(NoCapacity, match="256 calls are open"):
                await extra.__aenter__()
        for call in calls:
            await call.leave()
        assert worker.line.calls == 0
        assert await ask(worker.line) == b"pong"


async def test_many_streams_keep_their_order(port: WorkerPort, identity: Identity) -> None:
    """Two hundred token streams side by side lose, swap and mix nothing."""

    async def handler(request: LineRequest) -> LineAnswer:
        return LineAnswer(headers={"content-type": "text/event-stream"}, body=tokens(request.path))

    async def tokens(path: str) -> AsyncIterator[bytes]:
        for number in range(50):
            yield f"data: {path} {number}\n\n".encode()
            await asyncio.sleep(0)

    async def follow(number: int) -> None:
        async with worker.line.call("GET", f"/{number}", {}) as answer:
            text = (await answer.body.read(1 << 20)).decode()
        assert text.split("\n\n")[:-1] == [f"data: /{number} {i}" for i in range(50)]

    async with line_worker(port, identity, handler) as worker, asyncio.TaskGroup() as group:
        for number in range(200):
            group.create_task(follow(number))


# Cancellation


async def test_leaving_before_the_answer_stops_the_worker(
    port: WorkerPort, identity: Identity
) -> None:
    """A client that hangs up while the worker computes: the handler is cancelled within 1 s."""
    stuck = Stuck()
    async with line_worker(port, identity, stuck) as worker:
        calling = asyncio.create_task(finish(post(worker.line, b"x")))
        await soon(stuck.started.wait())
        left_at = time.monotonic()
        calling.cancel()
        await soon(stuck.stopped.wait())
        assert time.monotonic() - left_at < 1
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert worker.line.calls == 0


async def test_leaving_in_the_middle_stops_the_worker(port: WorkerPort, identity: Identity) -> None:
    """Leaving the block closes the body on the worker, and the line goes on."""
    source = Source(b"token")

    async def handler(request: LineRequest) -> LineAnswer:
        return LineAnswer(body=source.chunks() if request.path == "/endless" else b"pong")

    async with line_worker(port, identity, handler) as worker:
        async with worker.line.call("GET", "/endless", {}) as answer:
            assert (await soon(anext(answer.body))).startswith(b"token")
        await soon(source.closed.wait())
        with pytest.raises(BrokenOff):
            await answer.body.read(1 << 30)
        assert await ask(worker.line) == b"pong"


async def test_a_client_whose_upload_breaks_ends_the_call(
    port: WorkerPort, identity: Identity
) -> None:
    """What the body of a request raises comes out of the call; the worker stops."""
    stuck = Stuck()

    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        await stuck.started.wait()
        raise BadMessage("the client sent nonsense")

    async with line_worker(port, identity, stuck) as worker:
        with pytest.raises(BadMessage, match="nonsense"):
            await soon(post(worker.line, body()).__aenter__())
        await soon(stuck.stopped.wait())
        assert worker.line.calls == 0


async def test_a_deadline_ends_a_call(port: WorkerPort, identity: Identity) -> None:
    """Before the head and in the middle of the body alike."""
    stuck = Stuck()

    async def drip() -> AsyncIterator[bytes]:
        yield b"drop"
        await stuck(None)  # type: ignore[arg-type]

    async def handler(request: LineRequest) -> LineAnswer:
        return LineAnswer(body=drip()) if request.path == "/drip" else await stuck(request)

    async with line_worker(port, identity, handler) as worker:
        with pytest.raises(Timeout, match="too long"):
            await soon(post(worker.line, deadline_s=0.05).__aenter__())
        await soon(stuck.stopped.wait())
        stuck.stopped.clear()
        async with worker.line.call("GET", "/drip", {}, deadline_s=0.2) as answer:
            assert await soon(anext(answer.body)) == b"drop"
            with pytest.raises(Timeout, match="too long"):
                await soon(anext(answer.body))
        await soon(stuck.stopped.wait())


async def test_cancelling_everything_at_once_leaves_the_line_usable(
    port: WorkerPort, identity: Identity
) -> None:
    """Four times a full line of calls is dropped in mid-answer, and it is no flood."""
    source = Source(bytes(1000))

    async def handler(request: LineRequest) -> LineAnswer:
        return LineAnswer(body=source.chunks() if request.path == "/endless" else b"pong")

    async with line_worker(port, identity, handler) as worker:
        for _ in range(4):
            calls = [worker.line.call("GET", "/endless", {}) for _ in range(CALLS_MAX)]
            await asyncio.gather(*(soon(call.__aenter__()) for call in calls))
            await asyncio.gather(*(call.leave() for call in calls))
        assert await ask(worker.line) == b"pong"


# Failures


async def test_a_failure_before_the_answer_may_be_retried(
    port: WorkerPort, identity: Identity, caplog: pytest.LogCaptureFixture
) -> None:
    """The pool hears the worker's sentence, but never the text of a bug."""
    errors = [NoCapacity("all slots are\ntaken"), ValueError("secret"), Timeout("ä" * 3000)]

    async def handler(request: LineRequest) -> LineAnswer:
        raise errors.pop(0)

    async with line_worker(port, identity, handler) as worker:
        with pytest.raises(NotAnswered, match="all slots are taken") as caught:
            await ask(worker.line)
        assert caught.value.cause == "no-capacity"
        with pytest.raises(NotAnswered, match="made a mistake") as caught:
            await ask(worker.line)
        assert caught.value.cause == "error"
        with pytest.raises(NotAnswered, match=r"^ä{500}$"):
            await ask(worker.line)


async def test_a_failure_in_the_middle_is_no_end(port: WorkerPort, identity: Identity) -> None:
    """What came before is delivered, then the break is told; it never looks complete."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"first half"
        raise Unavailable("the model crashed")

    async def handler(request: LineRequest) -> LineAnswer:
        return LineAnswer(body=broken())

    async with line_worker(port, identity, handler) as worker, post(worker.line) as answer:
        assert await soon(anext(answer.body)) == b"first half"
        with pytest.raises(BrokenOff):
            await soon(anext(answer.body))
        with pytest.raises(BrokenOff):
            await soon(anext(answer.body))


@pytest.mark.parametrize(
    "answer",
    [
        LineAnswer(200, {"content-length": "7"}, b"eight by"),
        LineAnswer(200, {"content-length": "seven"}, b"7 bytes"),
        LineAnswer(99),
        LineAnswer(200, {"x": "a\nb"}),
        LineAnswer(200, {"a b": "c"}),
        LineAnswer(200, {f"x-{n}": "y" for n in range(101)}),
        LineAnswer(200, {"x": "y" * 17_000}),
    ],
)
async def test_a_head_that_cannot_be_sent_costs_its_call(
    port: WorkerPort, identity: Identity, answer: LineAnswer
) -> None:
    """The worker's own mistakes, or its backend's, never cost the line."""

    async def handler(request: LineRequest) -> LineAnswer:
        return answer if request.path == "/bad" else LineAnswer(body=b"pong")

    async with line_worker(port, identity, handler) as worker:
        with pytest.raises(NotAnswered) as caught:
            await soon(worker.line.call("GET", "/bad", {}).__aenter__())
        assert caught.value.cause == "bad-message"
        assert await ask(worker.line) == b"pong"


@pytest.mark.parametrize("length", [4, 6])
async def test_a_wrong_length_costs_its_call(
    port: WorkerPort, identity: Identity, length: int
) -> None:
    """A streamed body that is longer or shorter than announced, in either direction."""

    async def body() -> AsyncIterator[bytes]:
        yield b"01"
        yield b"234"

    async def handler(request: LineRequest) -> LineAnswer:
        return LineAnswer(200, request.headers, body())

    headers = {"content-length": str(length)}
    async with line_worker(port, identity, handler) as worker:
        with pytest.raises(BrokenOff):
            async with worker.line.call("HEY", "/", headers, bytes(length)) as answer:
                await soon(answer.body.read(100))
    async with line_worker(port, identity) as worker:
        with pytest.raises(BadMessage, match="announced"):
            async with worker.line.call("PUT", "/", headers, body()) as answer:
                await soon(answer.body.read(100))
        with pytest.raises(BadMessage, match="announced"):
            worker.line.call("PUT", "/", headers, b"01234")
        assert await ask(worker.line) == b"ping"


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("get", "/x", {}),
        ("GET", "x", {}),
        ("GET", "/a b", {}),
        ("GET", "/" + "a" * 9000, {}),
        ("GET", "/x", {"x": "a\r\nb: c"}),
        ("GET", "/x", {":path": "/y"}),
        ("GET", "/x", {f"x-{n}": "y" for n in range(101)}),
        ("GET", "/x", {"x": "y" * 17_000}),
        ("GET", "/x", {"content-length": "-1"}),
    ],
)
async def test_a_call_that_cannot_be_sent_is_refused(
    port: WorkerPort, identity: Identity, method: str, path: str, headers: dict[str, str]
) -> None:
    """Method, path, and number and size of header fields are checked before anything goes out."""
    async with line_worker(port, identity) as worker:
        with pytest.raises(BadMessage):
            worker.line.call(method, path, headers)
        assert await ask(worker.line) == b"ping"


async def test_a_body_is_read_up_to_a_limit(port: WorkerPort, identity: Identity) -> None:
    """Whoever wants a body whole says how large it may be."""
    async with line_worker(port, identity) as worker, post(worker.line, bytes(1000)) as answer:
        with pytest.raises(BadMessage, match="larger than 999 bytes"):
            await soon(answer.body.read(999))


# The end of a line


async def test_a_lost_worker_fails_its_calls(
    port: WorkerPort, identity: Identity, desk: LineDesk
) -> None:
    """Calls without an answer may be retried, begun ones are broken off, the offers end."""
    stuck = Stuck()

    async def half() -> AsyncIterator[bytes]:
        yield b"half"
        await asyncio.Event().wait()

    async def handler(request: LineRequest) -> LineAnswer:
        return LineAnswer(body=half()) if request.path == "/half" else await stuck(request)

    async with line_worker(port, identity, handler) as worker:
        waiting = asyncio.create_task(ask(worker.line))
        async with worker.line.call("GET", "/half", {}) as answer:
            assert await soon(anext(answer.body)) == b"half"
            await soon(stuck.started.wait())
            for connection in list(port._lines):
                connection.transport.abort()
            with pytest.raises(BrokenOff):
                await soon(anext(answer.body))
        with pytest.raises(NotAnswered):
            await soon(waiting)
        await soon(stuck.stopped.wait())
        assert (await desk.ending()).startswith("BrokenOff: the worker broke off")
        with pytest.raises(Unavailable, match="the line to the pool broke"):
            await soon(worker.serving)
        assert not worker.line.open
        assert await soon(worker.line.wait_closed())
        with pytest.raises(NotAnswered, match="the worker is gone"):
            await ask(worker.line)


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (Unauthorized("the token was revoked; enrol again"), Unauthorized, "revoked"),
        (Banned("the operator has banned this worker"), Unauthorized, "banned"),
        (Unavailable("this pool makes no AI calls"), Unavailable, "no AI calls"),
        (RuntimeError("secret"), Unavailable, "made a mistake"),
    ],
)
async def test_a_refused_worker_learns_why(
    port: WorkerPort,
    identity: Identity,
    desk: LineDesk,
    error: Exception,
    kind: type[Exception],
    sentence: str,
) -> None:
    """Whether it should dial again is told by the kind of error."""

    async def refuse(token: str) -> None:
        raise error

    desk.on_line = refuse
    with pytest.raises(kind, match=sentence) as caught:
        await soon(dial(port, identity, echo, OfferBoard([OFFER])))
    assert type(caught.value) is kind


async def test_nothing_is_said_to_a_wrong_pool(identity: Identity) -> None:
    """With another certificate than the pinned one, not a byte follows the TLS handshake."""
    heard = bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(1000):
                heard.extend(chunk)
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0, ssl=server_context(identity))
    async with server:
        number = server.sockets[0].getsockname()[1]
        with pytest.raises(Unauthorized, match="nothing was sent"):
            await soon(stranger(number, "ab" * 32))
        assert not heard
        trusting = asyncio.create_task(stranger(number, identity.fingerprint))
        await eventually(lambda: bool(heard))
        trusting.cancel()
    assert b"token" not in heard


async def stranger(number: int, pin: str) -> None:
    """Dial whatever listens there."""
    await serve_line(
        "127.0.0.1",
        number,
        Trust.exact(pin),
        token="token",
        offers=OfferBoard(),
        handler=echo,
    )


async def test_a_pool_without_lines_is_named(identity: Identity) -> None:
    """A server that does not know the protocol, and nobody at all, are told apart."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(identity.cert_path, identity.key_path)
    tls.set_alpn_protocols(["h2", "http/1.1"])
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0, ssl=tls)
    async with server:
        number = server.sockets[0].getsockname()[1]
        for port, error, match in ((number, Unavailable, "too old"), (1, Unavailable, "connect")):
            with pytest.raises(error, match=match):
                await soon(stranger(port, identity.fingerprint))


async def test_a_worker_leaves_after_its_last_call(
    port: WorkerPort, identity: Identity, desk: LineDesk
) -> None:
    """Ending the offers lets calls finish, then both ends close without an error."""
    go_on = asyncio.Event()

    async def slow(request: LineRequest) -> LineAnswer:
        await go_on.wait()
        return LineAnswer(body=b"done")

    async with line_worker(port, identity, slow) as worker:
        calling = asyncio.create_task(ask(worker.line))
        await eventually(lambda: worker.line.calls == 1)
        assert await desk.next_offers() == [OFFER]
        worker.board.end()
        assert await desk.next_offers() == []
        assert await desk.ending() == "no more offers"
        await eventually(lambda: not worker.line.open)
        with pytest.raises(NotAnswered, match="closing"):
            await ask(worker.line)
        assert not worker.serving.done()
        go_on.set()
        assert await soon(calling) == b"done"
        assert await soon(worker.serving) is None


async def test_a_worker_that_is_stopped_stops_its_calls(
    port: WorkerPort, identity: Identity
) -> None:
    """Cancelling it cancels the handlers and waits for them; the pool hears at once."""
    stuck = Stuck()
    async with line_worker(port, identity, stuck) as worker:
        calling = asyncio.create_task(ask(worker.line))
        await soon(stuck.started.wait())
        worker.serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await worker.serving
        assert stuck.stopped.is_set()
        with pytest.raises(NotAnswered):
            await soon(calling)


async def test_a_closing_pool_lets_calls_finish(identity: Identity, desk: LineDesk) -> None:
    """The port waits for calls under way, makes no new ones, and asks its workers to come back."""
    port = WorkerPort(desk, server_context(identity), host="127.0.0.1")
    go_on = asyncio.Event()

    async def slow(request: LineRequest) -> LineAnswer:
        await go_on.wait()
        return LineAnswer(body=b"done")

    async with port.running(), line_worker(port, identity, slow) as worker:
        calling = asyncio.create_task(ask(worker.line))
        await eventually(lambda: worker.line.calls == 1)
        closing = asyncio.create_task(port.close())
        await eventually(lambda: not worker.line.open)
        go_on.set()
        assert await soon(calling) == b"done"
        await soon(closing)
        with pytest.raises(Unavailable, match="dial again"):
            await soon(worker.serving)


async def test_a_call_without_an_end_does_not_keep_the_port_open(
    identity: Identity, desk: LineDesk
) -> None:
    """After the time for draining, calls are broken off."""
    limits = PortLimits(drain_s=0.1)
    port = WorkerPort(desk, server_context(identity), host="127.0.0.1", limits=limits)
    stuck = Stuck()
    async with port.running(), line_worker(port, identity, stuck) as worker:
        calling = asyncio.create_task(ask(worker.line))
        await soon(stuck.started.wait())
        await soon(port.close())
        with pytest.raises(NotAnswered):
            await soon(calling)
        await soon(stuck.stopped.wait())


async def test_a_restarted_pool_is_another_line(
    identity: Identity, desk: LineDesk, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A pool with a new certificate gets nothing from a worker that knows the old one."""
    other = load_or_create_identity(tmp_path_factory.mktemp("other"))
    port = WorkerPort(desk, server_context(other), host="127.0.0.1")
    async with port.running():
        with pytest.raises(Unauthorized, match="not the pinned"):
            await soon(dial(port, identity, echo, OfferBoard()))
    assert desk.tokens == []
