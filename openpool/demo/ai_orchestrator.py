"""The AI side of an orchestrator stand-in: registrations of AI workers, jobs, and their results.

As faithful as `demo.orchestrator`, odd corners included: first fit, ids from 0, results for unknown
tasks answered with OK, a stream of events that panics on an event without a choice, and a worker
that is dropped when it says nothing. It reads results by rules of its own; see docs/protocol.md.
"""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from openpool.core.capabilities import version_ok
from openpool.core.errors import NoCapacity, Unavailable
from openpool.demo.life import Failed, Memory
from openpool.link.interface import (
    AiStream,
    Caller,
    Download,
    Ended,
    GrpcStatus,
    RegistrationStream,
    Reply,
)
from openpool.link.line import Line
from openpool.link.server import PortLimits, WorkerPort
from openpool.link.tls import load_or_create_identity, server_context
from openpool.wire.ai_messages import AiJob, RegisterAi
from openpool.wire.messages import RegisterRequest

VERSION = "0.9.1"
AUTHORIZATION = "Livepeer-AI-Worker-1.0"
ERROR_TYPE = "livepeer/ai-worker-error"
LINE_BYTES_MAX = 64 << 10
OK = Reply(200, "OK")
LIMITS = PortLimits(connections_per_ip_max=0)


class Panic(Exception):
    """What would have crashed an orchestrator or a gateway."""


@dataclass(slots=True)
class Model:
    """Places of one model at one worker."""

    capacity: int
    free: int


@dataclass(slots=True, eq=False)
class Member:
    """One registered AI worker."""

    stream: AiStream
    models: dict[tuple[str, str], Model]
    peer: str
    over: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class AiOutcome:
    """What a gateway gets: a value with its files, or events; or an error, word for word."""

    value: object = None
    files: dict[str, bytes] = field(default_factory=dict)
    events: tuple[dict[str, object], ...] = ()
    error: str = ""


class AiStandIn:
    """One orchestrator's AI side, on a port of its own: `async with AiStandIn(secret) as o:`."""

    def __init__(
        self,
        secret: str,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        version: str = VERSION,
        limit_s: float = 900.0,
        identity: Path | None = None,
    ) -> None:
        """`limit_s` is how long a job may take before its worker is dropped; `identity` the folder
        of a certificate that is kept over restarts."""
        self._identity = identity
        self.secret, self.host, self.port = secret, host, port
        self.version = version
        self.limit_s = limit_s
        self.members: list[Member] = []
        self.refused = self.unknown = self.downloads = self.dropped = 0
        self.panics: list[str] = []
        self.task_ids: list[int] = []
        self.uploads: list[str] = []
        """Content types of all results."""
        self._changed = asyncio.Event()
        self._port: WorkerPort | None = None

    # --- life ----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._group = await asyncio.TaskGroup().__aenter__()
        await self._begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._end()
        finally:
            await self._group.__aexit__(None, None, None)

    async def restart(self) -> None:
        """Begin anew on the same port, with another certificate and task ids from 0."""
        await self._end()
        await self._begin()

    async def _begin(self) -> None:
        self._next = 0
        self._open: dict[int, asyncio.Future[AiOutcome]] = {}
        self.memory = Memory()
        with TemporaryDirectory(prefix="openpool-stand-in-") as fresh:
            folder = self._identity or Path(fresh)
            tls = server_context(load_or_create_identity(folder, [self.host]))
        self._port = WorkerPort(self, tls, host=self.host, port=self.port, limits=LIMITS, ai=self)
        await self._port.start()
        self.port = self._port.port
        started = asyncio.Event()
        self._group.create_task(self._port.serve(started))
        await started.wait()

    async def _end(self) -> None:
        for waiting in self._open.values():
            if not waiting.done():
                waiting.set_exception(Unavailable("the orchestrator stopped"))
        self.members.clear()
        if self._port is not None:
            await self._port.close()

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def capacities(self) -> dict[tuple[str, str], int]:
        """Registered capacities by pipeline and model, over all registrations."""
        found: dict[tuple[str, str], int] = {}
        for member in self.members:
            for key, model in member.models.items():
                found[key] = found.get(key, 0) + model.capacity
        return found

    async def wait_capacity(self, pipeline: str, model: str, capacity: int) -> None:
        """Wait until exactly so much is registered; TimeoutError if that never happens."""
        async with asyncio.timeout(10):
            while self.capacities().get((pipeline, model), 0) != capacity:
                self._changed.clear()
                await self._changed.wait()

    # --- jobs ----------------------------------------------------------------------------------

    async def submit(
        self, pipeline: str, request: Mapping[str, object], file: bytes = b""
    ) -> AiOutcome:
        """Have a job done as for a gateway. A failure is an outcome too."""
        model = str(request.get("model" if pipeline == "llm" else "model_id", ""))
        url = ""
        if file:
            path = f"{secrets.token_hex(4)}/{secrets.token_hex(5)}.tempfile"
            self.memory.save(path, file)
            url = f"https://{self.address}/stream/{path}"
        try:
            return await self._hand_out(pipeline, model, request, url)
        except (Failed, NoCapacity, Unavailable) as failure:
            return AiOutcome(error=str(failure))

    async def _hand_out(
        self, pipeline: str, model: str, request: Mapping[str, object], url: str
    ) -> AiOutcome:
        member, place = self._choose(pipeline, model)
        task_id, self._next = self._next, self._next + 1
        self.task_ids.append(task_id)
        answer: asyncio.Future[AiOutcome] = asyncio.get_running_loop().create_future()
        self._open[task_id] = answer
        place.free -= 1
        try:
            member.stream.notify_ai(
                AiJob(task_id=task_id, pipeline=pipeline, request=dict(request), input_url=url)
            )
            async with asyncio.timeout(self.limit_s):
                return await answer
        except TimeoutError:
            self.dropped += 1
            member.over.set()
            raise Failed("AI worker took too long") from None
        finally:
            place.free += 1
            self._open.pop(task_id, None)

    def _choose(self, pipeline: str, model: str) -> tuple[Member, Model]:
        """The first that fits, in the order of registration."""
        for member in self.members:
            place = member.models.get((pipeline, model))
            if place is not None and place.free > 0:
                return member, place
        raise NoCapacity("insufficient capacity")

    # --- the port ------------------------------------------------------------------------------

    async def register_ai(self, request: RegisterAi, stream: AiStream, caller: Caller) -> None:
        """An AI worker registers."""
        if request.secret != self.secret:
            self.refused += 1
            raise Ended(GrpcStatus.UNKNOWN, "invalid secret")
        if not version_ok(request.version, self.version):
            self.refused += 1
            return
        models = {
            (each.pipeline, each.model): Model(each.capacity, each.capacity)
            for each in request.models
        }
        member = Member(stream, models, caller.peer)
        self.members.append(member)
        self._changed.set()
        watching = asyncio.ensure_future(stream.wait_closed())
        dropped = asyncio.ensure_future(member.over.wait())
        try:
            await asyncio.wait({watching, dropped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            dropped.cancel()
            if member in self.members:
                self.members.remove(member)
            self._changed.set()

    async def register(
        self, request: RegisterRequest, stream: RegistrationStream, caller: Caller
    ) -> None:
        """It transcodes nothing."""
        raise Ended(GrpcStatus.UNKNOWN, "zero capacity")

    async def line(self, line: Line, caller: Caller) -> None:
        """It makes no calls."""
        raise Unavailable("an orchestrator makes no calls on this port; dial a pool")

    async def download(self, path: str, caller: Caller) -> Download | Reply:
        """An input file."""
        data = self.memory.load(path.removeprefix("/stream/"))
        if data is None:
            return Reply(404, "ErrNotFound")
        self.downloads += 1
        return Download(_once(data), length=len(data))

    async def upload(self, path: str, caller: Caller, body: AsyncIterator[bytes]) -> Reply:
        """A result. The credentials are checked here, which the real one forgets to heed."""
        headers = caller.headers
        if path != "/aiResults":
            return Reply(404, "404 page not found")
        if headers.get("authorization") != AUTHORIZATION:
            return Reply(401, "Unauthorized")
        if headers.get("credentials") != self.secret:
            return Reply(401, "invalid secret")
        kind, options = parse_options_header(headers.get("content-type", ""))
        if b"/" not in kind:
            return Reply(415, "mime: no media type")
        if not re.fullmatch(r"-?[0-9]{1,19}", headers.get("taskid", "")):
            return Reply(400, "Invalid Task ID")
        self.uploads.append(kind.decode())
        waiting = self._open.get(int(headers["taskid"]))
        if waiting is None or waiting.done():
            self.unknown += 1
            return OK
        await self._take(waiting, kind, options.get(b"boundary", b""), body)
        return OK

    async def _take(
        self,
        waiting: asyncio.Future[AiOutcome],
        kind: bytes,
        boundary: bytes,
        body: AsyncIterator[bytes],
    ) -> None:
        if kind == b"text/event-stream":
            outcome = await self._events(body)
        elif kind == ERROR_TYPE.encode():
            text = b"".join([chunk async for chunk in body])
            outcome = AiOutcome(error=text.decode("utf-8", "replace"))
        elif kind == b"multipart/mixed":
            outcome = _multipart(boundary, b"".join([chunk async for chunk in body]))
        else:
            return  # thrown away in silence: the job hangs
        if not waiting.done():
            waiting.set_result(outcome)

    async def _events(self, body: AsyncIterator[bytes]) -> AiOutcome:
        """Chunks up to the first finish_reason; a chunk without a choice is a crash."""
        events: list[dict[str, object]] = []
        rest = b""
        try:
            async for chunk in body:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if self._event(line, events):
                        return AiOutcome(events=tuple(events))
        except Panic as panic:
            self.panics.append(str(panic))
            return AiOutcome(events=tuple(events), error="EOF")
        except Unavailable:
            pass
        return AiOutcome(events=tuple(events), error="the stream broke off")

    def _event(self, line: bytes, events: list[dict[str, object]]) -> bool:
        if len(line) >= LINE_BYTES_MAX:
            raise Panic("bufio.Scanner: token too long")
        if not line.startswith(b"data: "):
            return False
        try:
            event = msgspec.json.decode(line[6:], type=dict[str, object])
        except msgspec.MsgspecError:
            return False
        choices = event.get("choices")
        if not isinstance(choices, list) or not choices:
            raise Panic("index out of range [0] with length 0")
        events.append(event)
        return bool(choices[0].get("finish_reason"))


def _multipart(boundary: bytes, body: bytes) -> AiOutcome:
    """The JSON, and every file that it names; one that is missing is empty, and counts."""
    parts: list[tuple[dict[bytes, bytes], bytearray]] = []
    name, value = bytearray(), bytearray()

    def end_header() -> None:
        parts[-1][0][bytes(name).lower()] = bytes(value)
        name.clear()
        value.clear()

    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": lambda: parts.append(({}, bytearray())),
                "on_header_field": lambda data, start, end: name.extend(data[start:end]),
                "on_header_value": lambda data, start, end: value.extend(data[start:end]),
                "on_header_end": end_header,
                "on_part_data": lambda data, start, end: parts[-1][1].extend(data[start:end]),
            },
        )
        parser.write(body)
    except FormParserError as error:
        return AiOutcome(error=f"multipart: {error}")
    files: dict[str, bytes] = {}
    found: object = None
    for headers, data in parts:
        if headers.get(b"content-type") == b"application/json":
            found = msgspec.json.decode(bytes(data))
        else:
            _, options = parse_options_header(headers.get(b"content-disposition", b""))
            files[options.get(b"filename", b"").decode()] = bytes(data)
    return AiOutcome(value=found, files=files)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
