"""The AI part of the demo: one job of every workload, sold through the orchestrator's Live Runner.

Two workers offer all runtimes between them; a customer of the orchestrator finds them in its
discovery, pays, and uses them. Everything is real and made on the spot: pictures are drawn, the
speech that is written down was spoken before. What was earned is read from the pool's events.
"""

import asyncio
import io
import json
import subprocess
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import aiohttp
import msgspec
from msgspec import Struct
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from openpool.cli.api import Api
from openpool.core.errors import OpenPoolError
from openpool.demo.live_gateway import LiveGateway, Reply
from openpool.web.shapes import EventView, Worker
from openpool.wire import framing

SPOKEN = "every segment came back and everybody is paid"
"""What the small recogniser understands in any of the voices."""
WRITTEN = "Hello Open Pool"
LIVE_S = 6
"""Orchestrators charge a session for every whole five seconds."""
USD_PER_ETH = 2500
"""With it, and the prices below, every fee is a whole number of wei."""
START_S = 90.0
BOOKS_S = 15.0
PRICES = f"""\
  usd_per_eth: {USD_PER_ETH}
  prices:
    - {{pipeline: image-to-text, price: 0.0005 USD, unit: request}}
    - {{pipeline: text-to-speech, price: 0.0004 USD, unit: request}}
    - {{pipeline: speech-to-text, price: 0.0006 USD, unit: request}}
    - {{pipeline: moderation, price: 0.0001 USD, unit: request}}
    - {{pipeline: object-detection, price: 0.0003 USD, unit: request}}
    - {{pipeline: segmentation, price: 0.0004 USD, unit: request}}
    - {{pipeline: embeddings, price: 0.0001 USD, unit: request}}
    - {{pipeline: llm, price: 0.001 USD, unit: request}}
    - {{pipeline: live-video-analysis, price: 0.36 USD, per: 3600, unit: second}}
"""

WORKLOADS = (
    "image-to-text",
    "text-to-speech",
    "speech-to-text",
    "moderation",
    "object-detection",
    "segmentation",
    "embeddings",
    "llm",
    "live-video-analysis",
)
SPEECH = ("text-to-speech", "speech-to-text")
NAMES = {"image-to-text": "ocr"}
"""What a runtime is called in the file, if not like its pipeline."""
PICTURES = ("image-to-text", "object-detection", "segmentation", "live-video-analysis")


def wanted() -> tuple[str, ...]:
    """The workloads to show: speech is left out where no ffmpeg command can speak."""
    return WORKLOADS if _can_speak() else tuple(w for w in WORKLOADS if w not in SPEECH)


def _can_speak() -> bool:
    command = ("ffmpeg", "-hide_banner", "-filters")
    try:
        found = subprocess.run(command, capture_output=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return b" flite " in found.stdout


class Workload(Struct, kw_only=True):
    """What became of one kind of AI work."""

    jobs: int = 0
    ok: int = 0
    """Answered as it should be, and credited."""
    fees_wei: str = "0"


class Credited(Struct, frozen=True):
    """The part of a fee-credited event that is told."""

    pipeline: str
    worker: str
    fee_wei: str


class Told(Struct, frozen=True):
    """One job for the table: what went in and what came out."""

    workload: str
    asked: str
    answer: str
    ok: bool


def write_runtimes(folder: Path, workloads: Sequence[str]) -> Path:
    """The file that says what a worker offers of these workloads, with models made here."""
    folder.mkdir(parents=True, exist_ok=True)
    runtimes = [{"runtime": NAMES.get(each, each), **_settings(folder, each)} for each in workloads]
    file = folder / "runtimes.yaml"
    file.write_text(json.dumps({"cache": str(folder), "runtimes": runtimes}))  # JSON is YAML
    return file


def _settings(folder: Path, workload: str) -> dict[str, object]:
    """Of the runtimes that bring no model of their own, one that is made on the spot."""
    from openpool.demo.tiny_detector import write_detector
    from openpool.demo.tiny_llm import make_tiny_llm

    match workload:
        case "object-detection" | "live-video-analysis":
            made = write_detector(folder)
            options = {"file": str(made.file), "labels": str(made.labels), "threshold": "0.3"}
            return {"model": "colours", "options": options}
        case "llm":
            make_tiny_llm(folder / "tiny.gguf")
            return {"model": "tiny", "options": {"file": str(folder / "tiny.gguf")}}
    return {}


class Judged(Struct, frozen=True):
    flagged: bool


class Box(Struct, frozen=True):
    label: str
    x: int
    y: int


class Mask(Struct, frozen=True):
    area: int


class Vector(Struct, frozen=True):
    embedding: list[float]


class Answer(Struct, frozen=True):
    """What the answers of all workloads hold, as far as it is told."""

    text: str = ""
    results: list[Judged] = []
    boxes: list[Box] = []
    masks: list[Mask] = []
    data: list[Vector] = []


class Customer:
    """Uses each app once."""

    def __init__(self, gateway: LiveGateway) -> None:
        self._gateway = gateway
        self.told: list[Told] = []
        self._speech = b""

    async def wait_offered(self, workloads: Sequence[str]) -> dict[str, str]:
        """Apps by pipeline, once there are all, or what there is when time is up."""
        apps: dict[str, str] = {}
        try:
            async with asyncio.timeout(START_S):
                while not set(workloads) <= apps.keys():
                    runners = await self._gateway.discover()
                    apps = {str(r["app"]).partition("/")[0]: str(r["app"]) for r in runners}
                    await asyncio.sleep(0.2)
        except TimeoutError:
            pass
        return apps

    async def use(
        self, workloads: Sequence[str], apps: Mapping[str, str], on_done: Callable[[], None]
    ) -> None:
        """One job of each kind. A failure is told, and stops nothing else."""
        jobs: dict[str, Callable[[str], Awaitable[tuple[str, str, bool]]]] = {
            "image-to-text": self._read,
            "text-to-speech": self._speak,
            "speech-to-text": self._listen,
            "moderation": self._moderate,
            "object-detection": self._detect,
            "segmentation": self._cut_out,
            "embeddings": self._embed,
            "llm": self._chat,
            "live-video-analysis": self._watch,
        }
        for pipeline in workloads:
            try:
                asked, answer, ok = await jobs[pipeline](apps.get(pipeline, pipeline))
            except (OpenPoolError, aiohttp.ClientError, TimeoutError, ValueError) as error:
                asked, answer, ok = "", str(error) or type(error).__name__, False
            self.told.append(Told(pipeline, asked, answer, ok))
            on_done()

    # --- the jobs ------------------------------------------------------------------------------

    async def _read(self, app: str) -> tuple[str, str, bool]:
        from openpool.demo.scenes import to_file, write

        reply = await self._picture(app, "/ocr", to_file(write(WRITTEN)))
        text = _read_answer(reply).text
        return f"“{WRITTEN}” drawn", f"“{text}”", WRITTEN.lower() in text.lower()

    async def _speak(self, app: str) -> tuple[str, str, bool]:
        body = {"model": "flite", "input": SPOKEN, "voice": "slt", "response_format": "wav"}
        reply = await self._post(app, "/v1/audio/speech", body)
        self._speech = reply.body if reply.status == 200 else b""
        if not self._speech.startswith(b"RIFF"):
            raise ValueError(f"{reply.status}: {reply.text[:200]}")
        with wave.open(io.BytesIO(self._speech)) as sound:
            seconds = sound.getnframes() / sound.getframerate()
        return f"“{SPOKEN}”", f"{seconds:.1f} s of speech", seconds > 1

    async def _listen(self, app: str) -> tuple[str, str, bool]:
        form = aiohttp.FormData()
        form.add_field("file", self._speech, filename="a.wav", content_type="audio/wav")
        form.add_field("model", app.partition("/")[2])
        reply = await self._gateway.request(app, "/v1/audio/transcriptions", form)
        text = _read_answer(reply).text
        return "that speech", f"“{text}”", text.split() == SPOKEN.split()

    async def _moderate(self, app: str) -> tuple[str, str, bool]:
        said = "you are a stupid idiot"
        reply = await self._post(app, "/v1/moderations", {"input": said})
        flagged = any(each.flagged for each in _read_answer(reply).results)
        return f"“{said}”", "flagged" if flagged else "not flagged", flagged

    async def _detect(self, app: str) -> tuple[str, str, bool]:
        from openpool.demo.scenes import draw, things, to_file

        reply = await self._picture(app, "/detect", to_file(draw(640, 360)))
        found = _read_answer(reply).boxes
        labels = ", ".join(f"{box.label} at {box.x},{box.y}" for box in found)
        right = {(box.label, box.x, box.y) for box in found} == {
            (thing.colour, thing.x, thing.y) for thing in things(640, 360)
        }
        return "a drawn scene", labels or "nothing", right

    async def _cut_out(self, app: str) -> tuple[str, str, bool]:
        from openpool.demo.scenes import draw, things, to_file

        thing = things(640, 360)[0]
        margin = 10
        box = [
            max(0, thing.x - margin),
            max(0, thing.y - margin),
            min(640, thing.x + thing.w + margin),
            min(360, thing.y + thing.h + margin),
        ]
        form = aiohttp.FormData()
        picture = to_file(draw(640, 360))
        form.add_field("image", picture, filename="a.png", content_type="image/png")
        form.add_field("box", json.dumps(box))
        masks = _read_answer(await self._gateway.request(app, "/segment", form)).masks
        areas = ", ".join(f"{mask.area} pixels" for mask in masks)
        return f"the {thing.colour} thing in it", areas or "nothing", bool(masks)

    async def _embed(self, app: str) -> tuple[str, str, bool]:
        body = {"model": app.partition("/")[2], "input": WRITTEN}
        reply = await self._post(app, "/v1/embeddings", body)
        numbers = sum(len(vector.embedding) for vector in _read_answer(reply).data)
        return f"“{WRITTEN}”", f"{numbers} numbers", numbers > 1

    async def _chat(self, app: str) -> tuple[str, str, bool]:
        body = {
            "model": app.partition("/")[2],
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 24,
            "stream": True,
        }
        headers = {"Content-Type": "application/json"}
        said, chunks = "", 0
        async with self._gateway.stream(
            app, "/v1/chat/completions", json.dumps(body).encode(), headers=headers
        ) as response:
            async for line in response.content:
                if line.startswith(b"data: {"):
                    chunks += 1
                    for choice in json.loads(line[6:]).get("choices", []):
                        said += choice.get("delta", {}).get("content") or ""
        return "“Hello” to a tiny model", f"“{said.strip()[:40]}” in {chunks} events", bool(said)

    async def _watch(self, app: str) -> tuple[str, str, bool]:
        from openpool.demo.scenes import segment

        now = asyncio.get_running_loop().time

        async def video() -> AsyncIterator[bytes]:
            began = now()
            for number in range(LIVE_S):
                made = await asyncio.to_thread(segment, 640, 360, 25, 1.0, number * 25)
                # it is live: a second of video is there when that second is over
                await asyncio.sleep(began + number + 1 - now())
                yield framing.pack(made)

        boxes = lines = 0
        async with self._gateway.session(app) as session:
            url = f"{session.app_url.rstrip('/')}/live?fps=5"
            headers = {"Content-Type": framing.CONTENT_TYPE}
            async with self._gateway.http.post(url, data=video(), headers=headers) as response:
                async for line in response.content:
                    lines += 1
                    boxes += len(json.loads(line).get("boxes", []))
        return f"{LIVE_S} s of live video", f"{boxes} boxes in {lines} frames", boxes > 0

    async def _post(self, app: str, path: str, body: object) -> Reply:
        headers = {"Content-Type": "application/json"}
        return await self._gateway.request(app, path, json.dumps(body).encode(), headers=headers)

    async def _picture(self, app: str, path: str, picture: bytes) -> Reply:
        headers = {"Content-Type": "image/png"}
        return await self._gateway.request(app, path, picture, headers=headers)


def _read_answer(reply: Reply) -> Answer:
    if reply.status != 200:
        raise ValueError(f"{reply.status}: {reply.text[:200]}")
    return msgspec.json.decode(reply.body, type=Answer)


async def gather(api: Api, told: Sequence[Told]) -> dict[str, Credited]:
    """What was credited for each workload that succeeded, as soon as that is so."""
    due = {each.workload for each in told if each.ok}
    found: dict[str, Credited] = {}
    try:
        async with asyncio.timeout(BOOKS_S):
            while not due <= found.keys():
                await asyncio.sleep(0.1)
                events = await api.get(list[EventView], "/events", type="fee-credited", limit=500)
                fees = [msgspec.convert(event.data, Credited) for event in events]
                found = {fee.pipeline: fee for fee in fees if fee.pipeline}
    except TimeoutError:
        pass
    return found


def summed(told: Sequence[Told], fees: Mapping[str, Credited]) -> dict[str, Workload]:
    """Jobs, successes and fees of each workload; what nobody was credited for is no success."""
    return {
        each.workload: Workload(
            jobs=1,
            ok=int(each.ok and each.workload in fees),
            fees_wei=fees[each.workload].fee_wei if each.workload in fees else "0",
        )
        for each in told
    }


def show(
    console: Console,
    told: Sequence[Told],
    fees: Mapping[str, Credited],
    workers: Sequence[Worker],
) -> None:
    """One line for each job."""
    names = {worker.worker: worker.name for worker in workers}
    table = Table(title="AI work", title_justify="left")
    table.add_column("workload", no_wrap=True)
    for column in ("what went in", "what came out"):
        table.add_column(column)
    table.add_column("worker", no_wrap=True)
    table.add_column("fee, gwei", justify="right")
    for each in told:
        fee = fees.get(each.workload)
        answer = escape(each.answer) if each.ok else f"[red]{escape(each.answer)}[/red]"
        name = names[fee.worker] if fee else ""
        earned = f"{int(fee.fee_wei) / 1e9:,.2f}" if fee else "[red]none[/red]"
        table.add_row(each.workload, escape(each.asked), answer, name, earned)
    console.print(table)
