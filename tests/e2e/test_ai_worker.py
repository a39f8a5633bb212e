"""A worker with real runtimes behind a real pool, asked with OpenAI's own client."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from callers import calling_pool, customer, until
from network import RunningPool
from openai import AsyncOpenAI
from runtimes import settings
from tiny_kokoro import make_tiny_kokoro
from tiny_sam2 import make_tiny_sam2

from openpool.core.events import CallCompleted, FeeCredited
from openpool.demo import scenes
from openpool.demo.tiny_detector import write_detector
from openpool.demo.tiny_llm import make_tiny_llm
from openpool.link.tls import Trust
from openpool.store.interface import EventFilter
from openpool.wire.forms import to_data_url
from openpool.worker.line_agent import LineAgent
from openpool.worker.offers import RuntimeSettings, WorkerOffers, checked
from openpool.worker.runtimes.host import Host

SENTENCE = "the quick brown fox jumps over the lazy dog"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Child processes find the odd runtimes, too."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))


def entries(folder: Path) -> list[RuntimeSettings]:
    """One of everything that needs no download."""
    model = folder / "tiny.gguf"
    make_tiny_llm(model)
    return [
        RuntimeSettings(runtime="llm", model="tiny", options={"file": str(model), "threads": "1"}),
        RuntimeSettings(runtime="embeddings"),
        RuntimeSettings(runtime="speech-to-text"),
        RuntimeSettings(runtime="text-to-speech"),
    ]


@asynccontextmanager
async def worker(
    running: RunningPool, *runtimes: RuntimeSettings, folder: Path
) -> AsyncIterator[tuple[Host, LineAgent]]:
    """A worker of this pool, once the pool knows that all its models are warm."""
    token = await running.enroll("box")
    address = running.running.worker_port
    offers = WorkerOffers(runtimes=checked(runtimes), cache=folder)
    async with Host(offers).running() as host, asyncio.TaskGroup() as tasks:
        agent = LineAgent(
            address.host,
            address.port,
            Trust.exact(running.process.identity.fingerprint),
            token=token,
            board=host.board,
            handler=host.answer,
            reconnect_s_max=0.2,
        )
        task = tasks.create_task(agent.run())
        exchange = running.process.exchange
        assert exchange is not None
        await until(lambda: sum(o.warm for o in host.offers()) == len(runtimes))
        await until(lambda: warm_at_the_pool(running) == len(runtimes))
        yield host, agent
        agent.drain()
        async with asyncio.timeout(10):
            await task


def warm_at_the_pool(running: RunningPool) -> int:
    exchange = running.process.exchange
    assert exchange is not None
    return sum(offer.warm for offers in exchange.offers.values() for offer in offers)


async def test_openais_client_talks_to_a_worker_that_only_dialled_out(tmp_path: Path) -> None:
    """Chat whole and streamed, embeddings, speech and its transcription; each is paid for."""
    async with (
        calling_pool(tmp_path) as running,
        worker(running, *entries(tmp_path), folder=tmp_path),
        customer(running) as (client, _),
    ):
        said = [{"role": "user", "content": "hello"}]
        whole = await client.chat.completions.create(
            model="tiny",
            messages=said,
            max_tokens=20,
            temperature=0,  # type: ignore[arg-type]
        )
        assert whole.usage is not None
        assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (7, 20)
        pieces = [
            chunk.choices[0].delta.content or ""
            async for chunk in await client.chat.completions.create(
                model="tiny",
                messages=said,
                max_tokens=20,
                temperature=0,
                stream=True,  # type: ignore[arg-type]
            )
            if chunk.choices
        ]
        assert "".join(pieces) == whole.choices[0].message.content

        vectors = await client.embeddings.create(model="all-minilm-l6-v2", input=["a", "b"])
        assert [len(each.embedding) for each in vectors.data] == [384, 384]

        sound = await client.audio.speech.create(
            model="flite", voice="alloy", input=SENTENCE, response_format="wav"
        )
        heard = await client.audio.transcriptions.create(
            model="pocketsphinx-en-us", file=("a.wav", sound.content)
        )
        assert heard.text == SENTENCE
        await until(lambda: len(told(running, CallCompleted)) == 5)
        await running.settled()
        fees = told(running, FeeCredited)
        assert sorted(fee.pipeline for fee in fees) == [  # type: ignore[attr-defined]
            "embeddings", "llm", "llm", "speech-to-text", "text-to-speech",
        ]  # fmt: skip
        assert all(int(fee.fee_wei) > 0 for fee in fees)  # type: ignore[attr-defined]


def told(running: RunningPool, kind: type) -> list[object]:
    """What the log holds of one kind."""
    name = kind.__struct_config__.tag  # type: ignore[attr-defined]
    found = running.store.events(EventFilter(types=(name,), limit=100))
    return [stored.event.data for stored in found]


async def test_production_models_are_served_from_where_they_were_fetched(tmp_path: Path) -> None:
    """Kokoro speaks, SAM 2 cuts out, a detector finds, by name alone; the pool's checks agree."""
    make_tiny_kokoro(tmp_path / "kokoro-82m", af_heart=1.0, bf_emma=0.5)
    make_tiny_sam2(tmp_path / "sam2.1-hiera-small")
    make_fetched_detector(tmp_path / "dfine-s-coco")
    runtimes = [
        RuntimeSettings(runtime="kokoro"),
        RuntimeSettings(runtime="sam2"),
        RuntimeSettings(runtime="object-detection", model="dfine-s-coco"),
    ]
    segmentation = "    - {pipeline: segmentation, price: 1 wei, per: 1000}\n"
    async with (
        calling_pool(tmp_path, segmentation) as running,
        worker(running, *runtimes, folder=tmp_path),
        customer(running) as (client, _),
    ):
        sound = await client.audio.speech.create(
            model="kokoro-82m", voice="nova", input="Hello Open Pool", response_format="wav"
        )
        assert sound.content.startswith(b"RIFF")
        ball, _ = scenes.things(640, 360)
        picture = {"image": to_data_url("image/png", scenes.to_file(scenes.draw(640, 360)))}
        spot = [[ball.x + ball.w / 2, ball.y + ball.h / 2]]
        cut = await client.post(
            "/segment", body={**picture, "model": "sam2.1-hiera-small", "point_coords": spot},
            cast_to=dict[str, Any],
        )  # fmt: skip
        (mask,) = cut["masks"]
        assert abs(mask["w"] - ball.w) <= 6
        found = await client.post(
            "/detect", body={**picture, "model": "dfine-s-coco"}, cast_to=dict[str, Any]
        )
        assert {each["label"] for each in found["boxes"]} == {"person", "kite"}
        await until(lambda: len(told(running, CallCompleted)) == 3)
        await running.settled()
        paid = {fee.pipeline: int(fee.fee_wei) for fee in told(running, FeeCredited)}  # type: ignore[attr-defined]
        assert sorted(paid) == ["object-detection", "segmentation", "text-to-speech"]
        assert all(paid.values())


def make_fetched_detector(folder: Path) -> None:
    """A detector with the files that come beside it from the hub."""
    (folder / "onnx").mkdir(parents=True)
    write_detector(folder).file.rename(folder / "onnx" / "model.onnx")
    (folder / "config.json").write_text('{"id2label": {"0": "person", "2": "kite"}}')
    (folder / "preprocessor_config.json").write_text('{"do_normalize": false}')


async def test_bad_input_is_the_customers_mistake(tmp_path: Path) -> None:
    """A prompt beyond the context, sound that is none, nothing to say: status 400, a sentence."""
    async with (
        calling_pool(tmp_path) as running,
        worker(running, *entries(tmp_path), folder=tmp_path),
        customer(running) as (client, _),
    ):
        for asking in bad_requests(client):
            with pytest.raises(openai.BadRequestError) as refused:
                await asking
            assert refused.value.message
        assert told(running, FeeCredited) == []


def bad_requests(client: AsyncOpenAI) -> list[object]:
    long = [{"role": "user", "content": "x" * 10_000}]
    return [
        client.chat.completions.create(model="tiny", messages=long),  # type: ignore[arg-type,call-overload]
        client.chat.completions.create(model="tiny", messages=long, stream=True),  # type: ignore[arg-type,call-overload]
        client.audio.transcriptions.create(
            model="pocketsphinx-en-us", file=("a.wav", b"this is no sound")
        ),
        client.audio.speech.create(model="flite", voice="alloy", input=""),
        client.embeddings.create(model="all-minilm-l6-v2", input="word " * 2000),
    ]


async def test_a_customer_who_leaves_stops_the_worker(tmp_path: Path) -> None:
    """From the customer's socket to the runtime's loop in less than a second."""
    model = tmp_path / "tiny.gguf"
    make_tiny_llm(model, context=100_000)
    entry = RuntimeSettings(
        runtime="llm", model="tiny", options={"file": str(model), "context": "100000"}
    )
    async with (
        calling_pool(tmp_path) as running,
        worker(running, entry, folder=tmp_path) as (host, _),
        customer(running) as (client, _),
    ):
        said = [{"role": "user", "content": "hello"}]
        stream = await client.chat.completions.create(
            model="tiny",
            messages=said,
            temperature=0,
            stream=True,  # type: ignore[arg-type]
        )
        await anext(aiter(stream))
        await stream.close()
        left = time.monotonic()
        (keeper,) = host._served.values()
        slot = keeper._slots[0]  # type: ignore[attr-defined]
        await until(lambda: slot.is_idle)
        assert time.monotonic() - left < 1


async def test_a_worker_comes_back_to_a_pool_that_lost_it(tmp_path: Path) -> None:
    """After a lost line the worker dials again, and its models are still warm."""
    async with (
        calling_pool(tmp_path) as running,
        worker(running, settings(), folder=tmp_path) as (_, agent),
    ):
        exchange = running.process.exchange
        assert exchange is not None
        assert agent.lines == 1
        for line in exchange.lines.values():
            line._connection.abort("the cable was pulled")
        await until(lambda: agent.lines == 2)
        await until(lambda: warm_at_the_pool(running) == 1)


async def test_the_command_serves_ai_until_told_to_stop(tmp_path: Path) -> None:
    """`openpool worker --runtimes FILE` in a process of its own; SIGTERM leaves nothing running."""
    model = tmp_path / "tiny.gguf"
    make_tiny_llm(model)
    file = tmp_path / "runtimes.yaml"
    file.write_text(
        f"runtimes:\n  - runtime: llm\n    model: tiny\n    options: {{file: {model}}}\n"
    )
    async with calling_pool(tmp_path) as running, customer(running) as (client, _):
        token = await running.enroll("box")
        command = [
            *(sys.executable, "-m", "openpool", "worker", running.running.join_link),
            *("--token", token, "--runtimes", str(file), "--no-transcoding"),
        ]
        process = await asyncio.create_subprocess_exec(*command)
        try:
            await until(lambda: warm_at_the_pool(running) == 1)
            said = [{"role": "user", "content": "hello"}]
            answer = await client.chat.completions.create(
                model="tiny",
                messages=said,
                max_tokens=5,  # type: ignore[arg-type]
            )
            assert answer.choices[0].message.content
            children = psutil.Process(process.pid).children(recursive=True)
            assert len(children) == 1
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                assert await process.wait() == 0
            assert not any(child.is_running() for child in children)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
