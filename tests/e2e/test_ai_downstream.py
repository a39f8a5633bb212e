"""Stock AI workers join a pool: their jobs are calls of its customers and of its orchestrators."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import msgspec
import openai
import pytest
from aipool import ai_pool, png, wav
from callers import CHAT, completion, customer, event, until
from network import RunningPool

from openpool.core.errors import OpenPoolError
from openpool.link.ai_client import AiWorkerClient
from openpool.link.client import Answer
from openpool.link.interface import Ended, GrpcStatus
from openpool.link.tls import Trust
from openpool.wire.ai_messages import AiJob, AiModel
from openpool.wire.ai_results import AiResult, ResultFile

LLM = AiModel(pipeline="llm", model=CHAT.model, capacity=2)


@dataclass(slots=True)
class StockWorker:
    """What a stock AI worker does: registers, fetches inputs, posts results."""

    client: AiWorkerClient
    done: Callable[["StockWorker", AiJob], Awaitable[Answer | None]]
    jobs: list[AiJob] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    end: Exception | None = None

    async def run(self, models: tuple[AiModel, ...]) -> None:
        try:
            async with self.client.register_models(models) as registration:
                async with asyncio.TaskGroup() as group:
                    async for job in registration:
                        self.jobs.append(job)
                        group.create_task(self._work(job))
        except* (Ended, OpenPoolError) as errors:
            self.end = errors.exceptions[0]

    async def _work(self, job: AiJob) -> None:
        with suppress(OpenPoolError):
            if answer := await self.done(self, job):
                self.answers.append(answer)

    async def input(self, job: AiJob) -> bytes:
        async with self.client.fetch(job.input_url) as source:
            return b"".join([chunk async for chunk in source.body])


@asynccontextmanager
async def stock(
    running: RunningPool,
    done: Callable[[StockWorker, AiJob], Awaitable[Answer | None]],
    *models: AiModel,
    secret: str = "",
    name: str = "stock",
) -> AsyncIterator[StockWorker]:
    """A stock worker, known to the pool when the block begins (unless it is refused)."""
    token, address = secret or await running.enroll(name), running.running.worker_port
    exchange = running.process.exchange
    assert exchange is not None
    known = len(exchange.offers)
    trust = Trust.exact(running.process.identity.fingerprint)
    async with AiWorkerClient(address.host, address.port, secret=token, trust=trust) as client:
        worker = StockWorker(client, done)
        task = asyncio.ensure_future(worker.run(models or (LLM,)))
        try:
            await until(lambda: len(exchange.offers) > known or task.done())
            yield worker
        finally:
            task.cancel()
            await asyncio.wait({task})


async def says(worker: StockWorker, job: AiJob) -> Answer:
    return await worker.client.post_ai_result(job, AiResult(value=completion("Hello.", (3, 4))))


async def test_a_customers_chat_is_served_by_a_stock_worker(tmp_path: Path) -> None:
    """A chat through the pool's own API becomes a job, with only what a stock worker knows."""
    async with (
        ai_pool(tmp_path) as (running, _),
        stock(running, says) as worker,
        customer(running) as (client, _),
    ):
        answer = await client.chat.completions.create(
            model=CHAT.model, messages=[{"role": "user", "content": "Hi"}], seed=4
        )
        assert answer.choices[0].message.content == "Hello."
        (job,) = worker.jobs
        assert job.pipeline == "llm"
        assert job.request == {
            "model": CHAT.model, "messages": [{"role": "user", "content": "Hi"}],
            "max_tokens": 256, "stream": False,
        }  # fmt: skip
        await until(lambda: worker.answers)
        assert worker.answers == [Answer(200, "OK")]


async def test_a_chat_streams_from_end_to_end(tmp_path: Path) -> None:
    """An orchestrator's streamed job passes through the pool to a stock worker and back."""

    async def events() -> AsyncIterator[bytes]:
        yield event("Hel")
        yield event("lo")
        yield event("", "stop")

    async def streams(worker: StockWorker, job: AiJob) -> Answer:
        return await worker.client.post_ai_events(job, events())

    async with ai_pool(tmp_path) as (running, orchestrator), stock(running, streams):
        await orchestrator.wait_capacity("llm", CHAT.model, 2)
        request = {
            "model": CHAT.model, "max_tokens": 9, "stream": True,
            "messages": [{"role": "user", "content": "Hi"}],
        }  # fmt: skip
        outcome = await orchestrator.submit("llm", request)
        assert (outcome.error, len(outcome.events)) == ("", 3)


async def test_inputs_have_secret_addresses(tmp_path: Path) -> None:
    """The input lies at an address that nobody can guess, and is gone after the job."""
    ear, sound = AiModel(pipeline="audio-to-text", model="tiny/ear", capacity=1), wav(2)
    got: list[bytes] = []

    async def hears(worker: StockWorker, job: AiJob) -> Answer:
        got.append(await worker.input(job))
        value = {"text": "one", "chunks": [{"timestamp": [0, 1.5], "text": "one"}]}
        return await worker.client.post_ai_result(job, AiResult(value=value))

    async with ai_pool(tmp_path) as (running, orchestrator), stock(running, hears, ear) as worker:
        await orchestrator.wait_capacity("audio-to-text", "tiny/ear", 1)
        request = {"audio": None, "model_id": "tiny/ear"}
        outcome = await orchestrator.submit("audio-to-text", request, sound)
        assert outcome.error == ""
        assert isinstance(outcome.value, dict)
        assert outcome.value["text"] == "one"
        assert got == [sound]
        (job,) = worker.jobs
        assert len(job.input_url.rpartition("/")[2]) >= 32
        assert orchestrator.address not in job.input_url
        with pytest.raises(OpenPoolError, match="404"):
            await worker.input(job)


async def test_masks_pass_through(tmp_path: Path) -> None:
    """A stock worker's masks are passed on as an orchestrator wants them."""
    knife = AiModel(pipeline="segment-anything-2", model="sam", capacity=1)
    masks = {"masks": "[[[0]]]", "scores": "[0.5]", "logits": "[[0]]"}

    async def cuts(worker: StockWorker, job: AiJob) -> Answer:
        return await worker.client.post_ai_result(job, AiResult(value=masks))

    async with ai_pool(tmp_path) as (running, orchestrator), stock(running, cuts, knife):
        await orchestrator.wait_capacity("segment-anything-2", "sam", 1)
        request = {"image": None, "model_id": "sam", "box": "[0,0,1,1]"}
        outcome = await orchestrator.submit("segment-anything-2", request, png())
        assert (outcome.error, outcome.value) == ("", masks)


async def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    """A result that names a file which was not sent is the worker's failure, not an empty file."""
    brush = AiModel(pipeline="text-to-image", model="tiny/brush", capacity=1)
    files = [(), (ResultFile(name="a.png", content_type="image/png", data=png(512, 512)),)]

    async def paints(worker: StockWorker, job: AiJob) -> Answer:
        value = {"images": [{"url": "a.png", "seed": 1, "nsfw": False}]}
        return await worker.client.post_ai_result(job, AiResult(value=value, files=files.pop(0)))

    async with ai_pool(tmp_path) as (running, orchestrator), stock(running, paints, brush):
        await orchestrator.wait_capacity("text-to-image", "tiny/brush", 1)
        request = {"model_id": "tiny/brush", "prompt": "a cat"}
        assert "failed" in (await orchestrator.submit("text-to-image", request)).error
        outcome = await orchestrator.submit("text-to-image", request)
        assert outcome.error == ""
        (name,) = outcome.files
        assert name != "a.png"


async def test_errors_are_understood(tmp_path: Path) -> None:
    """A stock worker's words about a bad request reach the customer; about its load, nobody."""
    texts = ["llm container returned 400: too long", "no workers can process job requested"]

    async def fails(worker: StockWorker, job: AiJob) -> Answer:
        return await worker.client.post_ai_error(job.task_id, job.pipeline, texts.pop(0))

    async with (
        ai_pool(tmp_path) as (running, _),
        stock(running, fails),
        customer(running) as (client, _),
    ):
        with pytest.raises(openai.BadRequestError, match="too long"):
            await ask(client)
        with pytest.raises(openai.APIStatusError) as told:
            await ask(client)
        assert told.value.status_code in (502, 503)


async def test_wrong_uploads_are_refused(tmp_path: Path) -> None:
    """Wrong credentials, another worker's task, an unknown task, garbage: each is told so, and the
    job goes on."""
    release = asyncio.Event()

    async def waits(worker: StockWorker, job: AiJob) -> Answer:
        await release.wait()
        return await says(worker, job)

    async with (
        ai_pool(tmp_path) as (running, _),
        stock(running, waits) as worker,
        customer(running) as (client, _),
    ):
        call = asyncio.ensure_future(ask(client))
        await until(lambda: worker.jobs)
        task, other = worker.jobs[0].task_id, await running.enroll("other")
        token = worker.client._secret
        cases: list[tuple[str, int | str, str, int]] = [
            ("nobody", task, "multipart/mixed; boundary=b", 401),
            (other, task, "multipart/mixed; boundary=b", 403),
            (token, 12345, "multipart/mixed; boundary=b", 404),
            (token, "x", "multipart/mixed; boundary=b", 400),
            (token, task, "text/html", 415),
            (token, task, "multipart/mixed", 415),
        ]
        for secret, number, kind, status in cases:
            assert await upload(running, secret, number, kind) == status
        assert await upload(running, token, task, "text/event-stream", "Wrong") == 401
        release.set()
        assert (await call) == "Hello."
        assert await upload(running, token, task, "multipart/mixed; boundary=b") == 404


async def test_refusals_are_those_that_stock_workers_understand(tmp_path: Path) -> None:
    """A stranger may try again later; a banned worker, or one with nothing to offer, stops."""
    async with ai_pool(tmp_path) as (running, _):
        async with stock(running, says, secret="nobody") as stranger:
            await until(lambda: stranger.end)
            assert isinstance(stranger.end, Ended)
            assert stranger.end.status is GrpcStatus.UNAUTHENTICATED
        video = AiModel(pipeline="image-to-video", model="clip", capacity=1)
        async with stock(running, says, video, name="video") as idle:
            await until(lambda: idle.end)
            assert str(idle.end) == "zero capacity"
        async with stock(running, says, name="bad") as bad:
            exchange = running.process.exchange
            assert exchange is not None
            for worker in {known.worker for known in exchange._owners.values()}:
                exchange.end_worker(worker)
            await until(lambda: bad.end)
            assert str(bad.end) == "invalid secret"


async def test_a_lost_worker_costs_no_job(tmp_path: Path) -> None:
    """What a vanished stock worker had is done by another."""

    async def never(worker: StockWorker, job: AiJob) -> None:
        await asyncio.Event().wait()

    async with ai_pool(tmp_path) as (running, _), customer(running) as (client, _):
        async with stock(running, never, name="one") as lost:
            call = asyncio.ensure_future(ask(client))
            await until(lambda: lost.jobs)
            async with stock(running, says, name="two"):
                await lost.client.close()
                exchange = running.process.exchange
                assert exchange is not None
                first = next(iter(exchange.lines.values()))
                first.close(None)
                assert await call == "Hello."


async def ask(client: openai.AsyncOpenAI) -> str:
    answer = await client.chat.completions.create(
        model=CHAT.model, messages=[{"role": "user", "content": "Hi"}]
    )
    return answer.choices[0].message.content or ""


async def upload(
    running: RunningPool,
    secret: str,
    task: int | str,
    kind: str,
    authorization: str = "Livepeer-AI-Worker-1.0",
) -> int:
    """The status of an upload with these headers."""
    headers = {
        "Authorization": authorization, "Credentials": secret, "TaskId": str(task),
        "Pipeline": "llm", "Content-Type": kind,
    }  # fmt: skip
    url = f"https://{running.running.worker_port}/aiResults"
    body = msgspec.json.encode({})
    async with aiohttp.ClientSession() as session:
        async with session.post(url, data=body, headers=headers, ssl=False) as answer:
            return answer.status
