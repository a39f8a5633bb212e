"""The AI part of the demo: one job of every workload, sold through the orchestrator's Live Runner.

A worker offers all runtimes that this machine has; a customer of the orchestrator finds them in its
discovery, pays, and uses them. Everything is real and made on the spot: pictures are drawn, the
speech that is written down was spoken before. Fees are read from the pool's events.
"""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from openpool.cli.api import Api
from openpool.core.errors import OpenPoolError
from openpool.demo.live_gateway import LiveGateway, Reply
from openpool.web.shapes import EventView
from openpool.wire import framing

SPOKEN = "good morning"
WRITTEN = "Hello Open Pool"
LIVE_S = 6
"""Orchestrators charge a session for every whole five seconds."""
START_S = 90.0
BOOKS_S = 15.0
PRICES = """\
  usd_per_eth: 3000
  prices:
    - {pipeline: image-to-text, price: 0.0005 USD, unit: request}
    - {pipeline: text-to-speech, price: 0.0004 USD, unit: request}
    - {pipeline: speech-to-text, price: 0.0006 USD, unit: request}
    - {pipeline: moderation, price: 0.0001 USD, unit: request}
    - {pipeline: object-detection, price: 0.0003 USD, unit: request}
    - {pipeline: segmentation, price: 0.0004 USD, unit: request}
    - {pipeline: embeddings, price: 0.0001 USD, unit: request}
    - {pipeline: llm, price: 0.001 USD, unit: request}
    - {pipeline: live-video-analysis, price: 0.36 USD, per: 3600, unit: second}
"""


SPEECH = ("text-to-speech", "speech-to-text")
WORKLOADS = (
    "image-to-text",
    *SPEECH,
    "moderation",
    "object-detection",
    "segmentation",
    "embeddings",
    "llm",
    "live-video-analysis",
)


def can_speak() -> bool:
    """Whether there is the command that speaks; without it the two workloads of speech are left
    out."""
    return shutil.which("ffmpeg") is not None


class Workload(Struct, kw_only=True):
    """What became of one kind of AI work."""

    jobs: int = 0
    ok: int = 0
    fees_wei: str = "0"


class Credited(Struct, frozen=True):
    """The part of a fee-credited event that is told."""

    pipeline: str
    fee_wei: str


class Told(Struct, frozen=True):
    """One job for the table: what went in and what came out."""

    workload: str
    asked: str
    answer: str
    ok: bool


def write_runtimes(folder: Path) -> Path:
    """The file of everything that a machine with the `ai` extra can do, with models made here."""
    from openpool.demo.tiny_detector import write_detector
    from openpool.demo.tiny_llm import make_tiny_llm

    folder.mkdir(parents=True, exist_ok=True)
    detector = write_detector(folder)
    llm = folder / "tiny.gguf"
    make_tiny_llm(llm)
    found = {"file": str(detector.file), "labels": str(detector.labels), "threshold": "0.3"}
    runtimes: list[dict[str, object]] = [
        {"runtime": name}
        for name in (
            "ocr",
            "text-to-speech",
            "speech-to-text",
            "moderation",
            "segmentation",
            "embeddings",
        )
    ]
    runtimes += [
        {"runtime": name, "model": "colours", "options": found}
        for name in ("object-detection", "live-video-analysis")
    ]
    runtimes.append({"runtime": "llm", "model": "tiny", "options": {"file": str(llm)}})
    file = folder / "runtimes.yaml"
    file.write_text(json.dumps({"cache": str(folder), "runtimes": runtimes}))  # JSON is YAML
    return file


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

    async def wait_offered(self) -> dict[str, str]:
        """Apps by pipeline, once there are all, or what there is when time is up."""
        wanted = set(WORKLOADS) if can_speak() else set(WORKLOADS) - set(SPEECH)
        apps: dict[str, str] = {}
        try:
            async with asyncio.timeout(START_S):
                while not wanted <= apps.keys():
                    runners = await self._gateway.discover()
                    apps = {str(r["app"]).partition("/")[0]: str(r["app"]) for r in runners}
                    await asyncio.sleep(0.2)
        except TimeoutError:
            pass
        return apps

    async def use(self, apps: dict[str, str], on_done: Callable[[], None]) -> None:
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
        for pipeline in WORKLOADS if can_speak() else [w for w in WORKLOADS if w not in SPEECH]:
            job = jobs[pipeline]
            try:
                asked, answer, ok = await job(apps.get(pipeline, pipeline))
            except (OpenPoolError, aiohttp.ClientError, TimeoutError, ValueError) as error:
                asked, answer, ok = "", str(error) or type(error).__name__, False
            self.told.append(Told(pipeline, asked, answer, ok))
            on_done()

    # --- the jobs ------------------------------------------------------------------------------

    async def _read(self, app: str) -> tuple[str, str, bool]:
        from openpool.demo.scenes import to_file, write

        reply = await self._picture(app, "/ocr", to_file(write(WRITTEN)))
        text = _read_answer(reply).text
        return f"a picture of “{WRITTEN}”", f"“{text}”", WRITTEN.lower() in text.lower()

    async def _speak(self, app: str) -> tuple[str, str, bool]:
        body = {"model": "flite", "input": SPOKEN, "voice": "slt", "response_format": "wav"}
        reply = await self._post(app, "/v1/audio/speech", body)
        self._speech = reply.body if reply.status == 200 else b""
        ok = self._speech.startswith(b"RIFF")
        return f"“{SPOKEN}”", f"{len(reply.body) // 1000} kB of speech" if ok else reply.text, ok

    async def _listen(self, app: str) -> tuple[str, str, bool]:
        form = aiohttp.FormData()
        form.add_field("file", self._speech, filename="a.wav", content_type="audio/wav")
        form.add_field("model", app.partition("/")[2])
        reply = await self._gateway.request(app, "/v1/audio/transcriptions", form)
        text = _read_answer(reply).text
        return "that speech", f"“{text}”", bool(text.strip())

    async def _moderate(self, app: str) -> tuple[str, str, bool]:
        said = "you are a stupid idiot"
        reply = await self._post(app, "/v1/moderations", {"input": said})
        flagged = any(each.flagged for each in _read_answer(reply).results)
        return f"“{said}”", "flagged" if flagged else "not flagged", flagged

    async def _detect(self, app: str) -> tuple[str, str, bool]:
        from openpool.demo.scenes import draw, to_file

        reply = await self._picture(app, "/detect", to_file(draw(640, 360)))
        found = _read_answer(reply).boxes
        labels = ", ".join(f"{box.label} at {box.x},{box.y}" for box in found)
        return "a drawn scene", labels or "nothing", bool(found)

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

        async def video() -> AsyncIterator[bytes]:
            for number in range(LIVE_S):
                made = await asyncio.to_thread(segment, 640, 360, 25, 1.0, number * 25)
                yield framing.pack(made)
                await asyncio.sleep(1.0)  # it is live: a second of video takes a second

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


async def gather(api: Api, told: list[Told]) -> dict[str, Workload]:
    """Jobs, successes and fees of each workload, once every success has been credited."""
    ok = sum(each.ok for each in told)
    events: list[EventView] = []
    try:
        async with asyncio.timeout(BOOKS_S):
            while len(events) < ok:
                events = await api.get(list[EventView], "/events", type="fee-credited", limit=500)
                await asyncio.sleep(0.1)
    except TimeoutError:
        pass
    found = {each.workload: Workload(jobs=1, ok=int(each.ok)) for each in told}
    for event in events:
        fee = msgspec.convert(event.data, Credited)
        if workload := found.get(fee.pipeline):
            workload.fees_wei = str(int(workload.fees_wei) + int(fee.fee_wei))
    return found


def show(console: Console, told: list[Told], workloads: dict[str, Workload]) -> None:
    """One line for each job."""
    table = Table(title="AI work", title_justify="left", title_style="bold")
    for column in ("workload", "what went in", "what came out"):
        table.add_column(column)
    table.add_column("fee, gwei", justify="right")
    for each in told:
        fee = int(workloads[each.workload].fees_wei) / 1e9
        colour = "" if each.ok else "[red]"
        table.add_row(each.workload, each.asked, f"{colour}{each.answer}", f"{fee:,.2f}")
    console.print(table)
