"""Customers of the pool's own API: the official OpenAI client, a real pool, workers on lines."""

import asyncio
import contextlib
import io
import time
import wave
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import msgspec
import openai
import pytest
from callers import (
    CHAT,
    EVENTS,
    JSON,
    calling_pool,
    chat,
    customer,
    event,
    for_ever,
    line_worker,
    offer,
    stream,
    until,
)
from network import RunningPool
from openai import AsyncOpenAI

from openpool.core.calls import App
from openpool.core.customers import payer
from openpool.core.events import CallAttemptFailed, CallCompleted, CallFailed, FeeCredited
from openpool.link.line import LineAnswer, LineRequest
from openpool.store.interface import EventFilter

ASK = [{"role": "user", "content": "Say hello."}]


def ask(client: AsyncOpenAI, **more: object) -> object:
    """A completion, to be awaited."""
    return client.chat.completions.create(model="tiny/chat", messages=ASK, **more)  # type: ignore[call-overload]


def told(running: RunningPool, kind: type) -> list[object]:
    """What the log holds of one kind."""
    name = kind.__struct_config__.tag  # type: ignore[attr-defined]
    found = running.store.events(EventFilter(types=(name,), limit=1000))
    return [stored.event.data for stored in found]


async def eventually(running: RunningPool, kind: type, count: int = 1) -> list[object]:
    """The same, once there are so many."""
    await until(lambda: len(told(running, kind)) >= count)
    await running.settled()
    return told(running, kind)


# --- what works --------------------------------------------------------------------------------


async def test_a_completion_is_answered_counted_and_paid(tmp_path: Path) -> None:
    """A chat completion reaches a worker that only dialled out; every wei of it is in the books."""

    async def answer(request: LineRequest) -> LineAnswer:
        body = b"".join([chunk async for chunk in request.body])
        assert msgspec.json.decode(body)["messages"] == ASK
        return chat(tokens=(3, 4))

    async with calling_pool(tmp_path) as running, line_worker(running, answer) as worker:
        async with customer(running) as (client, who):
            found = await ask(client)
        assert found.choices[0].message.content == "Hello there."
        (fee,) = await eventually(running, FeeCredited)
        assert isinstance(fee, FeeCredited)
        assert (fee.pixels, fee.unit, fee.price_wei, fee.fee_wei) == (7, "token", "3/2", "10")
        assert (fee.carry, fee.orchestrator, fee.model) == ("1/2", payer(who), "tiny/chat")
        assert worker.asked[0].path == "/call/llm/tiny%2Fchat/v1/chat/completions"
        balances = {each.account: each.amount_wei for each in running.store.balances()}
        assert balances[f"customer:{who}"] == -10
        assert sum(balances.values()) == 0
        await until(lambda: running.process.customers.get(who).spent_wei == 10)


async def test_a_stream_comes_piece_by_piece_in_order(tmp_path: Path) -> None:
    """Tokens are passed on as they come: the client has the first before the last was made."""
    go_on = asyncio.Event()

    async def tokens() -> AsyncIterator[bytes]:
        yield event("0 ")
        await go_on.wait()
        for number in range(1, 200):
            yield event(f"{number} ")
        yield event("", "stop")
        yield b"data: [DONE]\n\n"

    async with calling_pool(tmp_path) as running, line_worker(running, stream(tokens)):
        async with customer(running) as (client, _):
            pieces = await ask(client, stream=True)
            text = (await anext(pieces)).choices[0].delta.content
            go_on.set()
            async for piece in pieces:
                text += piece.choices[0].delta.content
        assert text == "".join(f"{number} " for number in range(200))
        (done,) = await eventually(running, CallCompleted)
        assert done.checked, done.note
        assert done.units > 0


async def test_embeddings(tmp_path: Path) -> None:
    """Embeddings come back as the official client expects them."""

    async def answer(_: LineRequest) -> LineAnswer:
        body = {
            "object": "list",
            "model": "minilm",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}],
            "usage": {"prompt_tokens": 2, "total_tokens": 2},
        }
        return LineAnswer(200, JSON, msgspec.json.encode(body))

    app = App("embeddings", "minilm")
    async with calling_pool(tmp_path) as running, line_worker(running, answer, offer(app)):
        async with customer(running) as (client, _):
            found = await client.embeddings.create(
                model="minilm", input=["two words"], encoding_format="float"
            )
            assert found.data[0].embedding == [0.5, -0.25]
        (done,) = await eventually(running, CallCompleted)
        assert (done.checked, done.units) == (True, 2), done.note


async def test_a_transcription_is_paid_by_the_length_of_the_sound(tmp_path: Path) -> None:
    """A sound file goes through as a form; what is paid is its length as the pool measured it."""

    async def answer(request: LineRequest) -> LineAnswer:
        body = b"".join([chunk async for chunk in request.body])
        assert sound(2.0) in body
        return LineAnswer(200, JSON, b'{"text": "hello"}')

    app = App("speech-to-text", "whisper-tiny")
    async with calling_pool(tmp_path) as running, line_worker(running, answer, offer(app)):
        async with customer(running) as (client, _):
            found = await client.audio.transcriptions.create(
                model="whisper-tiny", file=("hello.wav", sound(2.0))
            )
            assert found.text == "hello"
        (done,) = await eventually(running, CallCompleted)
        assert (done.checked, done.unit, done.units) == (True, "ms", 2000), done.note


def sound(seconds: float) -> bytes:
    """A soft tone as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        period = b"".join(
            (2000 if n < 20 else -2000).to_bytes(2, "little", signed=True) for n in range(40)
        )
        out.writeframes(period * int(seconds * 400))
    return file.getvalue()


async def test_speech_comes_back_as_sound(tmp_path: Path) -> None:
    """Text becomes a sound file; only its length decides whether it can be right."""

    async def answer(_: LineRequest) -> LineAnswer:
        return LineAnswer(200, {"content-type": "audio/wav"}, sound(1.0))

    app = App("text-to-speech", "flite")
    async with calling_pool(tmp_path) as running, line_worker(running, answer, offer(app)):
        async with customer(running) as (client, _):
            made = await client.audio.speech.create(
                model="flite", voice="slt", input="Hello there.", response_format="wav"
            )
            assert made.content == sound(1.0)
        (done,) = await eventually(running, CallCompleted)
        assert (done.checked, done.unit, done.units) == (True, "character", 12), done.note


async def test_our_own_routes_need_no_model(tmp_path: Path) -> None:
    """A bare picture at /v1/ocr goes to whichever model reads text."""

    async def answer(request: LineRequest) -> LineAnswer:
        assert request.headers["content-type"] == "image/png"
        return LineAnswer(200, JSON, b'{"text": "OPEN POOL"}')

    app = App("image-to-text", "rapidocr")
    async with calling_pool(tmp_path) as running, line_worker(running, answer, offer(app)) as box:
        async with customer(running) as (client, _):
            found = await raw(
                client, "/ocr", content=b"\x89PNG", headers={"content-type": "image/png"}
            )
        assert found.json() == {"text": "OPEN POOL"}
        assert box.asked[0].path == "/call/image-to-text/rapidocr/v1/images/ocr"


async def raw(
    client: AsyncOpenAI, path: str, method: str = "POST", **request: object
) -> httpx.Response:
    """A plain request with the same key."""
    async with httpx.AsyncClient(
        base_url=str(client.base_url),
        headers={"authorization": f"Bearer {client.api_key}"},
        timeout=20,
    ) as plain:
        return await plain.request(method, path, **request)  # type: ignore[arg-type] - by name


async def test_models_are_listed(tmp_path: Path) -> None:
    """The list of models names what workers offer at this moment, and nothing else."""
    async with calling_pool(tmp_path) as running, customer(running) as (client, _):
        assert (await client.models.list()).data == []
        async with line_worker(running, for_nobody, offer(), offer(App("llm", "b"))):
            listed = (await client.models.list()).data
            assert [each.id for each in listed] == ["b", "tiny/chat"]
            assert (await client.models.retrieve("tiny/chat")).id == "tiny/chat"


async def for_nobody(_: LineRequest) -> LineAnswer:
    raise AssertionError("nobody should have asked")


# --- what customers do wrong -------------------------------------------------------------------


async def test_an_unknown_model_names_those_that_exist(tmp_path: Path) -> None:
    """A typo in a model's name is met with the names that there are."""
    async with calling_pool(tmp_path) as running, line_worker(running, for_nobody):
        async with customer(running) as (client, _):
            with pytest.raises(openai.NotFoundError, match="there is: tiny/chat") as caught:
                await client.chat.completions.create(model="gpt-9", messages=ASK)  # type: ignore[arg-type]
            assert caught.value.code == "model_not_found"
            with pytest.raises(openai.NotFoundError, match="no worker offers one"):
                await client.embeddings.create(model="minilm", input="x")


async def test_a_wrong_or_revoked_key_is_refused(tmp_path: Path) -> None:
    """Nobody gets in without a good key; a revoked one ends at once."""
    async with calling_pool(tmp_path) as running, customer(running) as (client, who):
        await client.models.list()
        with pytest.raises(openai.AuthenticationError, match="API key"):
            await client.with_options(api_key="sk-wrong").models.list()
        await running.process.customers.revoke(who)
        with pytest.raises(openai.AuthenticationError, match="revoked") as caught:
            await client.models.list()
        assert caught.value.code == "invalid_api_key"
        worker_token = await running.enroll("box")
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key=worker_token).models.list()


async def test_limits_are_held(tmp_path: Path) -> None:
    """Too many requests, or too much spent, is 429 with OpenAI's own codes."""

    async def answer(_: LineRequest) -> LineAnswer:
        return chat()

    async with calling_pool(tmp_path) as running, line_worker(running, answer):
        async with customer(running, requests_per_minute=2) as (client, who):
            await client.models.list()
            await client.models.list()
            with pytest.raises(openai.RateLimitError, match="2 requests a minute") as caught:
                await client.models.list()
            assert caught.value.code == "rate_limit_exceeded"
            assert caught.value.response.headers["retry-after"] == "1"
        async with customer(running, spend_limit="10 wei") as (client, who):
            await ask(client)
            await until(lambda: running.process.customers.get(who).spent_wei >= 10)
            with pytest.raises(openai.RateLimitError, match="higher limit") as caught:
                await ask(client)
            assert caught.value.code == "insufficient_quota"


async def test_a_huge_upload_is_refused_before_it_comes(tmp_path: Path) -> None:
    """300 MB are refused by their announcement alone; not a byte of them is waited for."""
    async with calling_pool(tmp_path) as running, customer(running) as (client, _):
        head = (
            f"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\n"
            f"authorization: Bearer {client.api_key}\r\n"
            "content-type: multipart/form-data; boundary=b\r\ncontent-length: 300000000\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection(*web_address(running))
        writer.write(head.encode())
        answer = await asyncio.wait_for(reader.readuntil(b"}}"), 5)
        assert answer.startswith(b"HTTP/1.1 413")
        assert b"100000000 bytes" in answer
        writer.close()
        await writer.wait_closed()


async def test_an_unannounced_huge_upload_is_cut_off(tmp_path: Path) -> None:
    """A body without a length is refused as soon as it is too large; its client sees the answer."""

    async def body() -> AsyncIterator[bytes]:
        yield b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nwhisper\r\n'
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(30):
            yield bytes(100_000)
        yield b"\r\n--b--\r\n"

    async def answer(request: LineRequest) -> LineAnswer:
        async for _ in request.body:
            pass
        return LineAnswer(200, JSON, b'{"text": ""}')

    app = App("speech-to-text", "whisper")
    extra = "  body_bytes_max: 1_000_000"
    async with calling_pool(tmp_path, extra) as running, line_worker(running, answer, offer(app)):
        async with customer(running) as (client, _):
            found = await raw(
                client,
                "/audio/transcriptions",
                content=body(),
                headers={"content-type": "multipart/form-data; boundary=b"},
            )
        assert found.status_code == 413
        assert found.json()["error"]["code"] == "request_too_large"


def web_address(running: RunningPool) -> tuple[str, int]:
    host, _, port = running.running.web_url.removeprefix("http://").partition(":")
    return host, int(port)


async def test_a_client_that_hangs_up_stops_the_worker_within_a_second(tmp_path: Path) -> None:
    """Whoever leaves in the middle of a stream leaves no work behind."""

    async def tokens() -> AsyncIterator[bytes]:
        yield event("Once ")
        await for_ever()

    async with calling_pool(tmp_path) as running, line_worker(running, stream(tokens)) as worker:
        async with customer(running) as (client, _):
            pieces = await ask(client, stream=True)
            await anext(pieces)
            left = time.monotonic()
            await pieces.close()
            await asyncio.wait_for(worker.cancelled.wait(), 5)
            assert time.monotonic() - left < 1
        await running.settled()
        assert told(running, CallFailed) or told(running, CallCompleted)


async def test_a_client_that_hangs_up_before_the_answer_stops_the_worker_too(
    tmp_path: Path,
) -> None:
    """A call whose client is gone is cancelled at the worker before anything of it came."""
    working, stopped = asyncio.Event(), asyncio.Event()

    async def answer(_: LineRequest) -> LineAnswer:
        working.set()
        try:
            await for_ever()
        finally:
            stopped.set()
        raise AssertionError

    async with calling_pool(tmp_path) as running, line_worker(running, answer):
        async with customer(running) as (client, _):
            task = asyncio.ensure_future(ask(client))  # type: ignore[arg-type]
            await asyncio.wait_for(working.wait(), 5)
            task.cancel()
            await asyncio.wait_for(stopped.wait(), 1)
        (failed,) = await eventually(running, CallFailed)
        assert failed.code == "cancelled"


async def test_a_client_that_does_not_read_is_dropped(tmp_path: Path) -> None:
    """A client that reads a byte now and then loses its connection; the worker is let go."""

    async def tokens() -> AsyncIterator[bytes]:
        while True:
            yield event("x" * 10_000)

    async with calling_pool(tmp_path, "  idle_ms: 1000") as running:
        async with line_worker(running, stream(tokens)) as worker, customer(running) as (client, _):
            body = msgspec.json.encode({"model": "tiny/chat", "messages": ASK, "stream": True})
            reader, writer = await asyncio.open_connection(*web_address(running), limit=1)
            writer.write(
                f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
                f"authorization: Bearer {client.api_key}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\n\r\n".encode()
                + body
            )
            assert await reader.read(1)
            await asyncio.wait_for(worker.cancelled.wait(), 10)
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def test_a_prompt_beyond_the_context_is_the_customers_mistake(tmp_path: Path) -> None:
    """A worker's 400 is told with its reason, costs nothing, and is not tried elsewhere."""

    async def answer(_: LineRequest) -> LineAnswer:
        error = {"message": "9000 tokens are more than the context of 512", "type": "x"}
        return LineAnswer(400, JSON, msgspec.json.encode({"error": error}))

    async with calling_pool(tmp_path) as running, line_worker(running, answer) as worker:
        async with customer(running) as (client, _):
            with pytest.raises(openai.BadRequestError, match="more than the context of 512"):
                await ask(client)
        (done,) = await eventually(running, CallCompleted)
        assert (done.checked, done.blamed) == (False, False)
        assert told(running, FeeCredited) == []
        assert len(worker.asked) == 1


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/json", b"{", 400),
        ("application/json", b"[" * 100_000, 400),
        ("application/json", b'{"model": 7}', 400),
        ("application/json", b'{"messages": []}', 400),
        ("application/json", b'{"model": "' + b"x" * 1000 + b'"}', 400),
        ("multipart/form-data", b"--b", 400),
        ("multipart/form-data; boundary=b", b"no form at all", 400),
        ("", b"{}", 400),
    ],
)
async def test_bad_requests_are_one_sentence_in_openais_shape(
    tmp_path: Path, content_type: str, body: bytes, status: int
) -> None:
    """Whatever is sent, the answer is an error that OpenAI's clients understand."""
    async with calling_pool(tmp_path) as running, line_worker(running, for_nobody):
        async with customer(running) as (client, _):
            found = await raw(
                client, "/chat/completions", content=body, headers={"content-type": content_type}
            )
        assert found.status_code == status, found.text
        assert set(found.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/chat/completions", 405),
        ("POST", "/nothing", 404),
        ("GET", "/models/none", 404),
        ("GET", "/transcode", 405),
    ],
)
async def test_what_is_not_there(tmp_path: Path, method: str, path: str, status: int) -> None:
    """Unknown addresses and methods are told in OpenAI's shape."""
    async with calling_pool(tmp_path) as running, customer(running) as (client, _):
        found = await raw(client, path, method)
        assert (found.status_code, found.json()["error"]["param"]) == (status, None)


async def test_no_header_crosses_that_should_not(tmp_path: Path) -> None:
    """Keys and forged headers never reach a worker; a worker sets no cookie and serves no page."""

    async def answer(_: LineRequest) -> LineAnswer:
        headers = {"content-type": "text/html", "set-cookie": "openpool_session=x", "x-evil": "1"}
        return LineAnswer(200, headers, b"<script>alert(1)</script>")

    app = App("own", "thing")
    async with calling_pool(tmp_path) as running, line_worker(running, answer) as worker:
        async with customer(running) as (client, _):
            worker.board.set([offer(App("image-to-text", "evil")), offer(app)])
            await until(lambda: app in running.process.exchange.apps())
            found = await raw(
                client,
                "/ocr",
                content=b"x",
                headers={
                    "content-type": "image/png",
                    "livepeer-payment": "forged",
                    "livepeer-session-id": "forged",
                    "openpool-worker": "forged",
                    "cookie": "a=b",
                    "x-forwarded-for": "1.2.3.4",
                },
            )
        assert set(worker.asked[0].headers) <= {"content-type", "accept", "content-length"}
        assert "set-cookie" not in found.headers
        assert "x-evil" not in found.headers
        assert "text/html" not in found.headers["content-type"]


# --- what workers do wrong ---------------------------------------------------------------------


async def dies(_: LineRequest) -> LineAnswer:
    raise RuntimeError("crashed")


async def lies(_: LineRequest) -> LineAnswer:
    return LineAnswer(200, JSON, b'{"choices": "none of them"}')


async def breaks_off(_: LineRequest) -> LineAnswer:
    async def half() -> AsyncIterator[bytes]:
        yield b'{"id": "c1", "choi'
        raise RuntimeError("crashed")

    return LineAnswer(200, JSON, half())


async def is_broken(_: LineRequest) -> LineAnswer:
    return LineAnswer(500, JSON, b'{"error": {"message": "out of memory"}}')


@pytest.mark.parametrize("bad", [dies, lies, breaks_off, is_broken])
async def test_a_failure_before_the_first_byte_is_redone_elsewhere(
    tmp_path: Path, bad: Callable[[LineRequest], object]
) -> None:
    """Crash, lie, half an answer or an error: the client only ever sees another worker's answer."""
    bodies: list[bytes] = []

    async def good(request: LineRequest) -> LineAnswer:
        bodies.append(b"".join([chunk async for chunk in request.body]))
        return chat("from the other one")

    async with calling_pool(tmp_path) as running:
        async with (
            line_worker(running, bad, name="bad") as first,  # type: ignore[arg-type] - a handler
            customer(running) as (client, _),
            line_worker(running, good, name="good"),
        ):
            for _ in range(4):
                found = await ask(client)
                assert found.choices[0].message.content == "from the other one"
            assert first.asked
        assert len(bodies) == 4
        assert len(set(bodies)) == 1
        assert len(await eventually(running, CallAttemptFailed)) == len(first.asked)


async def test_a_worker_that_vanishes_before_it_answered_is_replaced(tmp_path: Path) -> None:
    """A line that breaks while its worker thinks costs time, not the answer."""
    asked = asyncio.Event()

    async def thinks(_: LineRequest) -> LineAnswer:
        asked.set()
        await for_ever()
        raise AssertionError

    async def good(_: LineRequest) -> LineAnswer:
        return chat("late but right")

    async with calling_pool(tmp_path) as running, customer(running) as (client, _):
        async with line_worker(running, thinks, name="bad") as first:
            task = asyncio.ensure_future(ask(client))  # type: ignore[arg-type]
            await asyncio.wait_for(asked.wait(), 5)
            async with line_worker(running, good, name="good"):
                await first.die()
                found = await asyncio.wait_for(task, 5)
    assert found.choices[0].message.content == "late but right"


async def test_nobody_left_is_a_clear_error(tmp_path: Path) -> None:
    """When every worker failed, the client is told so and nobody is paid."""
    async with calling_pool(tmp_path) as running, line_worker(running, lies):
        async with customer(running) as (client, _):
            with pytest.raises(openai.InternalServerError) as caught:
                await ask(client)
        assert caught.value.status_code == 502
        assert caught.value.code == "worker_failed"
        assert told(running, FeeCredited) == []


async def test_a_stream_that_broke_off_ends_with_an_error_event(tmp_path: Path) -> None:
    """A worker that dies in mid-stream: the client gets whole events, then a clear error."""

    async def tokens() -> AsyncIterator[bytes]:
        yield event("Once ")
        yield event("upon ")[:25]
        await die.wait()
        raise RuntimeError("crashed")

    die = asyncio.Event()
    async with calling_pool(tmp_path) as running, line_worker(running, stream(tokens)):
        async with customer(running) as (client, _):
            pieces = await ask(client, stream=True)
            assert (await anext(pieces)).choices[0].delta.content == "Once "
            die.set()
            with pytest.raises(openai.APIError, match="the worker failed"):
                await anext(pieces)
        (failed,) = await eventually(running, CallFailed)
        assert (failed.code, failed.started) == ("worker-failed", True)


async def test_a_worker_that_vanishes_in_mid_stream_ends_it_with_an_error_event(
    tmp_path: Path,
) -> None:
    """The same when the whole worker is gone."""

    async def tokens() -> AsyncIterator[bytes]:
        yield event("Once ")
        await for_ever()

    async with calling_pool(tmp_path) as running, line_worker(running, stream(tokens)) as worker:
        async with customer(running) as (client, _):
            pieces = await ask(client, stream=True)
            await anext(pieces)
            await worker.die()
            with pytest.raises(openai.APIError, match="the worker failed"):
                await asyncio.wait_for(anext(pieces), 5)
            await pieces.close()
        (failed,) = await eventually(running, CallAttemptFailed)
        assert not failed.blamed


async def test_a_worker_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    """A stream that never ends and says nothing more is ended by the pool."""

    async def tokens() -> AsyncIterator[bytes]:
        yield event("Once ")
        await for_ever()

    async with calling_pool(tmp_path, "  idle_ms: 1000") as running:
        async with line_worker(running, stream(tokens)), customer(running) as (client, _):
            pieces = await ask(client, stream=True)
            await anext(pieces)
            with pytest.raises(openai.APIError, match="the worker failed"):
                await asyncio.wait_for(anext(pieces), 5)
            await pieces.close()
            (failed,) = await eventually(running, CallAttemptFailed)
            assert "silent for 1 s" in failed.reason
            assert failed.blamed


async def test_an_endless_answer_ends_at_the_deadline(tmp_path: Path) -> None:
    """A worker that streams garbage for ever is stopped by the time a call may take, unpaid."""

    async def tokens() -> AsyncIterator[bytes]:
        while True:
            yield b"garbage without an end "
            await asyncio.sleep(0.01)

    async with calling_pool(tmp_path, "  timeout_ms: 1500") as running:
        async with line_worker(running, stream(tokens)) as worker, customer(running) as (client, _):
            pieces = await ask(client, stream=True)
            with pytest.raises((openai.APIError, ValueError)):
                async for _ in pieces:
                    pass
            await asyncio.wait_for(worker.cancelled.wait(), 5)
        await eventually(running, CallFailed)
        assert told(running, FeeCredited) == []


async def test_a_full_pool_says_so_at_once(tmp_path: Path) -> None:
    """With every place taken the answer is `insufficient capacity`, without a wait."""
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def answer(_: LineRequest) -> LineAnswer:
        asked.set()
        await go_on.wait()
        return chat()

    async with calling_pool(tmp_path) as running:
        async with (
            line_worker(running, answer, offer(CHAT, capacity=1)),
            customer(running) as (client, _),
        ):
            first = asyncio.ensure_future(ask(client))  # type: ignore[arg-type]
            await asyncio.wait_for(asked.wait(), 5)
            with pytest.raises(openai.InternalServerError, match="insufficient capacity") as caught:
                await ask(client)
            assert caught.value.status_code == 503
            go_on.set()
            await first


async def test_a_revoked_worker_loses_its_line(tmp_path: Path) -> None:
    """Revoking a worker's token ends its line, and its models are gone at once."""
    async with calling_pool(tmp_path) as running, customer(running) as (client, _):
        async with line_worker(running, for_nobody) as worker:
            enrolment = running.process.enrolment
            known = await enrolment.authenticate(worker.token)
            await enrolment.revoke_token(known.worker, known.token)
            assert worker.serving is not None
            await asyncio.wait({worker.serving}, timeout=5)
            assert worker.serving.done()
            await until(lambda: not running.process.exchange.apps())
            assert (await client.models.list()).data == []


async def test_events_stay_whole(tmp_path: Path) -> None:
    """However a worker cuts its stream, every byte arrives, and once."""
    whole = b"".join(event(f"{n} ") for n in range(50)) + b"data: [DONE]\n\n"

    async def tokens() -> AsyncIterator[bytes]:
        for start in range(0, len(whole), 37):
            yield whole[start : start + 37]

    async def answer(_: LineRequest) -> LineAnswer:
        return LineAnswer(200, EVENTS, tokens())

    async with calling_pool(tmp_path) as running, line_worker(running, answer):
        async with customer(running) as (client, _):
            found = await raw(
                client,
                "/chat/completions",
                json={"model": "tiny/chat", "messages": ASK, "stream": True},
            )
        assert found.content == whole
        assert found.headers["content-type"] == "text/event-stream"


async def test_a_refusal_needs_not_the_whole_request(tmp_path: Path) -> None:
    """A worker that says no before it has read an upload is heard; the rest is not waited for."""

    async def body() -> AsyncIterator[bytes]:
        yield b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nwhisper\r\n'
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(50):
            yield bytes(100_000)
        yield b"\r\n--b--\r\n"

    async def answer(_: LineRequest) -> LineAnswer:
        return LineAnswer(415, JSON, b'{"error": {"message": "this is no sound"}}')

    app = App("speech-to-text", "whisper")
    async with calling_pool(tmp_path) as running, line_worker(running, answer, offer(app)):
        async with customer(running) as (client, _):
            found = await raw(
                client,
                "/audio/transcriptions",
                content=body(),
                headers={"content-type": "multipart/form-data; boundary=b"},
            )
        assert found.status_code == 415, found.text
        assert found.json()["error"]["message"] == "this is no sound"


async def test_a_fault_in_checking_costs_one_call_only(tmp_path: Path) -> None:
    """If an answer breaks what opens it, the pool goes on, and nobody is paid for that answer."""

    async def answer(_: LineRequest) -> LineAnswer:
        return chat()

    async def faulty(_: object) -> object:
        raise RecursionError

    async with calling_pool(tmp_path) as running, line_worker(running, answer):
        exchange = running.process.exchange
        assert exchange is not None
        right, exchange.check = exchange.check, faulty  # type: ignore[assignment]
        async with customer(running) as (client, _):
            await ask(client)
            exchange.check = right
            await ask(client)
        first, second = await eventually(running, CallCompleted, 2)
        assert (first.checked, second.checked) == (False, True)
