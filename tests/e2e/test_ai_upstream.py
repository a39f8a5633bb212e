"""AI work sold the older way, through a whole pool: orchestrator, exchange, lines, books."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from aipool import SECRET, ai_pool, png, wav
from callers import CHAT, JSON, chat, event, for_ever, line_worker, offer, stream, until
from network import RunningPool, pool, write_config

from openpool.core.calls import App
from openpool.core.events import FeeCredited
from openpool.demo.ai_orchestrator import AiOutcome, AiStandIn
from openpool.link.line import Handler, LineAnswer, LineRequest
from openpool.store.interface import EventFilter
from openpool.wire.forms import read_form, to_data_url

MESSAGES = [{"role": "user", "content": "Hi"}]
CHAT_JOB: dict[str, object] = {"model": CHAT.model, "messages": MESSAGES, "max_tokens": 100}


async def fees(running: RunningPool) -> list[FeeCredited]:
    await running.settled()
    stored = await asyncio.to_thread(running.store.events, EventFilter(types=("fee-credited",)))
    return [each.event.data for each in stored if isinstance(each.event.data, FeeCredited)]


async def test_a_chat_is_served_and_paid(tmp_path: Path) -> None:
    """A chat comes back as the worker said it, and pays for the tokens that were asked for."""
    bodies: list[bytes] = []
    async with ai_pool(tmp_path) as (running, orchestrator):
        async with line_worker(running, answering(chat("Hello."), bodies)):
            await orchestrator.wait_capacity("llm", CHAT.model, 4)
            outcome = await orchestrator.submit("llm", {**CHAT_JOB, "top_k": -1})
            assert outcome.error == ""
            value = outcome.value
            assert isinstance(value, dict)
            assert value["choices"][0]["message"]["content"] == "Hello."
            assert value["usage"]["total_tokens"] == 7
            asked = msgspec.json.decode(bodies[0])
            assert asked == {"model": CHAT.model, "messages": MESSAGES, "max_tokens": 100}
            (fee,) = await fees(running)
            assert (fee.pixels, fee.unit, fee.model) == (100, "token", CHAT.model)
            assert fee.fee_wei == "150"


async def test_a_streamed_chat_is_made_fit(tmp_path: Path) -> None:
    """Events without a choice would crash the orchestrator: they are merged into the last one."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b": a comment\n\n" + event("Hel")
        yield event("lo " + "x" * 70_000)
        yield event("", "stop")
        yield event(
            "",
            None,
            choices=[],
            usage={"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12},
        )
        yield b"data: [DONE]\n\n"

    async with ai_pool(tmp_path) as (running, orchestrator):
        async with line_worker(running, stream(chunks)):
            await orchestrator.wait_capacity("llm", CHAT.model, 4)
            outcome = await orchestrator.submit("llm", {**CHAT_JOB, "stream": True})
            assert outcome.error == ""
            assert orchestrator.panics == []
            assert said(outcome) == "Hello " + "x" * 70_000
            assert outcome.events[-1]["usage"]["completion_tokens"] == 9  # type: ignore[index]
            assert orchestrator.uploads == ["text/event-stream"]


async def test_a_stream_without_an_end_gets_one(tmp_path: Path) -> None:
    """A server that just closes its stream is given the finish_reason it owes."""

    async def chunks() -> AsyncIterator[bytes]:
        yield event("Hello")
        yield event(" there")

    async with ai_pool(tmp_path) as (running, orchestrator):
        async with line_worker(running, stream(chunks)):
            await orchestrator.wait_capacity("llm", CHAT.model, 4)
            outcome = await orchestrator.submit("llm", {**CHAT_JOB, "stream": True})
            assert (said(outcome), outcome.error) == ("Hello there", "")


@pytest.mark.parametrize(
    "garbage",
    [b"data: {nonsense\n\n", b"data: [1]\n\n", b"data: " + b"x" * 2_000_000, b"", b"\xff\xfe\n\n"],
    ids=["no json", "no object", "endless line", "nothing", "bytes"],
)
async def test_garbage_is_answered_with_an_error(tmp_path: Path, garbage: bytes) -> None:
    """A stream that is none becomes an error of one sentence, and the pool goes on."""

    async def chunks() -> AsyncIterator[bytes]:
        yield garbage

    async with ai_pool(tmp_path) as (running, orchestrator):
        async with line_worker(running, stream(chunks)):
            await orchestrator.wait_capacity("llm", CHAT.model, 4)
            outcome = await orchestrator.submit("llm", {**CHAT_JOB, "stream": True})
            assert outcome.error == "the job failed; please try again"
            assert await fees(running) == []


async def test_a_stream_that_breaks_off_is_not_made_whole(tmp_path: Path) -> None:
    """After the first word an orchestrator cannot be told of an error: its upload breaks off."""
    told = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield event("Hello")
        await told.wait()
        yield b"data: {nonsense\n\n"

    async with ai_pool(tmp_path) as (running, orchestrator):
        async with line_worker(running, stream(chunks)):
            await orchestrator.wait_capacity("llm", CHAT.model, 4)
            job = asyncio.ensure_future(orchestrator.submit("llm", {**CHAT_JOB, "stream": True}))
            await until(lambda: orchestrator.uploads)
            told.set()
            outcome = await job
            assert (said(outcome), outcome.error) == ("Hello", "the stream broke off")


async def test_a_transcription_has_its_file(tmp_path: Path) -> None:
    """The input is fetched once for the worker; its answer gets the orchestrator's shape."""
    app, sound = App("speech-to-text", "tiny/ear"), wav(2.5)
    heard = {"text": "one two", "segments": [{"start": 0.0, "end": 1.5, "text": "one two"}]}
    bodies: list[bytes] = []
    async with ai_pool(tmp_path) as (running, orchestrator):
        async with line_worker(running, answering(json(heard), bodies), offer(app)) as worker:
            await orchestrator.wait_capacity("audio-to-text", app.model, 4)
            request = {"audio": None, "model_id": app.model, "return_timestamps": "true"}
            outcome = await orchestrator.submit("audio-to-text", request, sound)
            assert outcome.error == ""
            assert outcome.value == {
                "text": "one two",
                "chunks": [{"timestamp": [0.0, 1.5], "text": "one two"}],
            }
            asked = worker.asked[0]
            form = read_form(asked.headers["content-type"], bodies[0], "file")
            assert form.file("file") == sound
            assert form.values == {"model": app.model, "response_format": "verbose_json"}
            assert orchestrator.downloads == 1
            (fee,) = await fees(running)
            assert (fee.pixels, fee.unit) == (2000, "ms")


async def test_speech_comes_as_a_file(tmp_path: Path) -> None:
    """Speech is uploaded as a file with a name of our own, and is paid by the character."""
    app, sound = App("text-to-speech", "tiny/voice"), wav(1.5)
    async with ai_pool(tmp_path) as (running, orchestrator):
        answer = LineAnswer(200, {"content-type": "audio/wav"}, sound)
        async with line_worker(running, answering(answer), offer(app)):
            await orchestrator.wait_capacity("text-to-speech", app.model, 4)
            request: dict[str, object] = {"model_id": app.model, "text": "Hello there, you."}
            outcome = await orchestrator.submit("text-to-speech", request)
            assert outcome.error == ""
            (name,) = outcome.files
            assert outcome.files[name] == sound
            assert outcome.value == {"audio": {"url": name}}
            (fee,) = await fees(running)
            assert (fee.pixels, fee.fee_wei) == (17_000, "187")


async def test_pictures_come_as_files(tmp_path: Path) -> None:
    """Pictures are asked for in the size that is billed, and each is a file of the result."""
    app, picture = App("text-to-image", "tiny/brush"), png(512, 512)
    made = {"data": [{"b64_json": base64.b64encode(picture).decode()}] * 2}
    bodies: list[bytes] = []
    async with ai_pool(tmp_path) as (running, orchestrator):
        async with line_worker(running, answering(json(made), bodies), offer(app)):
            await orchestrator.wait_capacity("text-to-image", app.model, 4)
            request = {"prompt": "a cat", "model_id": app.model, "num_images_per_prompt": 2}
            outcome = await orchestrator.submit("text-to-image", request)
            assert outcome.error == ""
            assert list(outcome.files.values()) == [picture, picture]
            assert isinstance(outcome.value, dict)
            assert [each["url"] for each in outcome.value["images"]] == list(outcome.files)
            asked = msgspec.json.decode(bodies[0])
            assert (asked["size"], asked["n"]) == ("512x512", 2)
            (fee,) = await fees(running)
            assert fee.pixels == 512 * 512 * 2


async def test_masks_are_written_out(tmp_path: Path) -> None:
    """Run lengths, down the columns, become rows of 0 and 1 in JSON inside of JSON."""
    app, picture = App("segmentation", "tiny/knife"), png(3, 2)
    mask = {"x": 1, "y": 0, "w": 1, "h": 2, "area": 2,
            "rle": {"size": [2, 3], "counts": [2, 2, 2]},
            "png": to_data_url("image/png", picture)}  # fmt: skip
    cut = {"width": 3, "height": 2, "masks": [mask]}
    async with ai_pool(tmp_path) as (running, orchestrator):
        async with line_worker(running, answering(json(cut)), offer(app)):
            await orchestrator.wait_capacity("segment-anything-2", app.model, 4)
            request = {"image": None, "model_id": app.model, "point_coords": "[[1,0]]"}
            outcome = await orchestrator.submit("segment-anything-2", request, picture)
            assert outcome.error == ""
            assert outcome.value == {
                "masks": "[[[0,1,0],[0,1,0]]]", "scores": "[1.0]", "logits": "[]",
            }  # fmt: skip


# --- what goes wrong ---------------------------------------------------------------------


async def test_a_customers_mistake_is_told(tmp_path: Path) -> None:
    """What a worker says about a bad request reaches the gateway in the form that it knows."""
    wrong = LineAnswer(400, JSON, b'{"error": {"message": "no such\\nvoice"}}')
    async with ai_pool(tmp_path) as (running, orchestrator):
        async with line_worker(running, answering(wrong)):
            await orchestrator.wait_capacity("llm", CHAT.model, 4)
            outcome = await orchestrator.submit("llm", CHAT_JOB)
            assert outcome.error == "llm container returned 400: no such voice"
            nothing = {"model": CHAT.model}
            outcome = await orchestrator.submit("llm", nothing)
            assert outcome.error == "llm container returned 400: the request has no messages"


async def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    """An input that cannot be fetched fails its job at once and costs nobody anything."""
    app = App("image-to-text", "tiny/eye")
    async with ai_pool(tmp_path) as (running, orchestrator):
        async with line_worker(running, answering(json({"text": "a"})), offer(app)) as worker:
            await orchestrator.wait_capacity("image-to-text", app.model, 4)
            request = {"image": None, "model_id": app.model}
            gone = {**request}
            orchestrator.memory.load = lambda path: None  # type: ignore[method-assign]
            outcome = await orchestrator.submit("image-to-text", gone, png())
            assert outcome.error == "the input file could not be fetched"
            outcome = await orchestrator.submit("image-to-text", request)
            assert outcome.error.startswith("image-to-text container returned 400:")
            assert worker.asked == []


async def test_a_full_pool_says_so(tmp_path: Path) -> None:
    """What the workers cannot take is refused in the words by which a gateway tries again."""

    async def busy(_: LineRequest) -> LineAnswer:
        return LineAnswer(503, JSON, b"{}")

    async with ai_pool(tmp_path) as (running, orchestrator):
        async with line_worker(running, busy) as worker:
            await orchestrator.wait_capacity("llm", CHAT.model, 4)
            job = asyncio.ensure_future(orchestrator.submit("llm", CHAT_JOB))
            await until(lambda: worker.asked)
            outcome = await job
            assert outcome.error in {"insufficient capacity", "the job failed; please try again"}


async def test_a_failed_try_is_repeated_elsewhere(tmp_path: Path) -> None:
    """A worker's failure is another worker's job; the orchestrator never hears of it."""
    broken = LineAnswer(500, JSON, b"{}")
    async with ai_pool(tmp_path) as (running, orchestrator):
        async with (
            line_worker(running, answering(broken), name="bad") as bad,
            line_worker(running, answering(chat("Hello.")), name="good"),
        ):
            await orchestrator.wait_capacity("llm", CHAT.model, 8)
            for _ in range(6):
                outcome = await orchestrator.submit("llm", CHAT_JOB)
                assert outcome.error == ""
            assert bad.asked


# --- lanes -------------------------------------------------------------------------------


async def test_capacity_follows_the_workers(tmp_path: Path) -> None:
    """A new capacity is registered before the old registration goes; jobs under way go on."""
    release = asyncio.Event()

    async def slow(_: LineRequest) -> LineAnswer:
        await release.wait()
        return chat("Hello.")

    async with ai_pool(tmp_path) as (running, orchestrator):
        async with line_worker(running, slow, name="one"):
            await orchestrator.wait_capacity("llm", CHAT.model, 4)
            job = asyncio.ensure_future(orchestrator.submit("llm", CHAT_JOB))
            async with line_worker(running, slow, name="two"):
                await orchestrator.wait_capacity("llm", CHAT.model, 8)
                release.set()
                assert (await job).error == ""
        await orchestrator.wait_capacity("llm", CHAT.model, 0)


async def test_live_video_is_never_registered(tmp_path: Path) -> None:
    """Capability 35 would kill an orchestrator; what it does not know is not offered to it."""
    async with ai_pool(tmp_path) as (running, orchestrator):
        apps = [App("live-video-analysis", "grid"), App("live-video-to-video", "noop"), CHAT]
        async with line_worker(running, answering(chat()), *map(offer, apps)):
            await orchestrator.wait_capacity("llm", CHAT.model, 4)
            assert set(orchestrator.capacities()) == {("llm", CHAT.model)}


@pytest.mark.parametrize("kept", [False, True], ids=["new certificate", "same certificate"])
async def test_a_restarted_orchestrator_gets_no_old_results(tmp_path: Path, kept: bool) -> None:
    """Task ids begin anew after a restart: a late result of the former life is not sent."""
    identity = tmp_path / "kept"
    identity.mkdir()
    release = asyncio.Event()
    asked = 0

    async def slow(_: LineRequest) -> LineAnswer:
        nonlocal asked
        asked += 1
        if asked == 1:
            await release.wait()
            return chat("old")
        return chat("new")

    async with ai_pool(tmp_path, identity if kept else None) as (running, orchestrator):
        async with line_worker(running, slow):
            await orchestrator.wait_capacity("llm", CHAT.model, 4)
            lost = asyncio.ensure_future(orchestrator.submit("llm", CHAT_JOB))
            await until(lambda: asked)
            await orchestrator.restart()
            assert (await lost).error == "the orchestrator stopped"
            await orchestrator.wait_capacity("llm", CHAT.model, 4)
            outcome = await orchestrator.submit("llm", CHAT_JOB)
            assert orchestrator.task_ids == [0, 0]
            assert isinstance(outcome.value, dict)
            assert outcome.value["choices"][0]["message"]["content"] == "new"
            release.set()
            await running.settled()
            upstreams = running.process.ai_upstreams
            assert upstreams is not None
            await upstreams.upstreams[0].wait_idle()
            assert len(orchestrator.uploads) == 1
            assert orchestrator.unknown == 0


async def test_a_stopping_pool_answers_what_is_open(tmp_path: Path) -> None:
    """A job that cannot be finished any more is answered, so that its gateway asks elsewhere."""

    async def never(_: LineRequest) -> LineAnswer:
        await for_ever()
        raise AssertionError

    async with AiStandIn(SECRET) as orchestrator:
        config = write_config(tmp_path, [orchestrator.address], "ai: {grpc: true}")
        config.write_text(config.read_text().replace("drain_ms: 3000", "drain_ms: 0"))
        async with pool(config) as running, line_worker(running, never) as worker:
            await orchestrator.wait_capacity("llm", CHAT.model, 4)
            job = asyncio.ensure_future(orchestrator.submit("llm", CHAT_JOB))
            await until(lambda: worker.asked)
            running.stopping.set()
            assert (await job).error == "insufficient capacity"


async def test_a_wrong_secret_is_said_in_words(tmp_path: Path) -> None:
    """An operator is told what to change."""
    async with AiStandIn("another") as orchestrator:
        config = write_config(tmp_path, [orchestrator.address], "ai: {grpc: true}")
        async with pool(config) as running, line_worker(running, answering(chat())):
            upstreams = running.process.ai_upstreams
            assert upstreams is not None
            await until(lambda: "secret" in upstreams.upstreams[0].problem)
            assert orchestrator.capacities() == {}


# --- small parts -------------------------------------------------------------------------


def answering(answer: LineAnswer, bodies: list[bytes] | None = None) -> Handler:
    """A worker that always answers this, and keeps what it was asked."""

    async def handle(request: LineRequest) -> LineAnswer:
        body = b"".join([chunk async for chunk in request.body])
        if bodies is not None:
            bodies.append(body)
        return answer

    return handle


def json(value: object) -> LineAnswer:
    return LineAnswer(200, JSON, msgspec.json.encode(value))


def said(outcome: AiOutcome) -> str:
    text = ""
    for each in outcome.events:
        choices = each["choices"]
        assert isinstance(choices, list)
        text += choices[0]["delta"]["content"]
    return text
