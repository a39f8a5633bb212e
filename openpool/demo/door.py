"""What arrives on the orchestrator stand-in's port: registrations, downloads and results.

The answers, down to their texts and their odd corners (a result for an unknown task is answered
200), are the real orchestrator's; see docs/protocol.md.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from openpool.core import capabilities
from openpool.core.errors import Unavailable
from openpool.demo.life import Failed, Life
from openpool.demo.results import Part, ResultReader, Unreadable, int64, media_type
from openpool.demo.roster import Member
from openpool.link.interface import Caller, Download, Ended, GrpcStatus, RegistrationStream, Reply
from openpool.link.line import Line
from openpool.wire.messages import RegisterRequest

VERSION = "0.9.1"
AUTHORIZATION = "Livepeer-Transcoder-1.0"
ERROR_TYPE = "livepeer/transcoding-error"
ERROR_BYTES_MAX = 1_000_000
OK = Reply(200, "OK")


@dataclass
class Counters:
    """Over the whole life of the stand-in, restarts included."""

    registered: int = 0
    refused: int = 0
    tasks: int = 0
    evicted: int = 0
    results: int = 0
    results_unknown: int = 0
    downloads: int = 0
    downloads_missing: int = 0


class Door:
    """The `PortHandler` of one run of the orchestrator."""

    def __init__(
        self, secret: str, life: Life, counters: Counters, changed: Callable[[], None]
    ) -> None:
        """`changed` is called whenever somebody registered or left."""
        self._secret = secret
        self._life = life
        self._counters = counters
        self._changed = changed

    async def register(
        self, request: RegisterRequest, stream: RegistrationStream, caller: Caller
    ) -> None:
        refusal = self._refusal(request)
        if refusal:
            self._counters.refused += 1
            raise Ended(GrpcStatus.UNKNOWN, refusal)
        member = Member(
            stream,
            capacity=request.capacity,
            capabilities=_capabilities(request),
            version=VERSION if request.capabilities is None else request.version,
            peer=caller.peer,
        )
        self._counters.registered += 1
        self._life.roster.add(member)
        self._changed()
        try:
            await _until_over(member)
        finally:
            self._life.roster.leave(member)
            self._changed()

    async def line(self, line: Line, caller: Caller) -> None:
        raise Unavailable("an orchestrator makes no calls on this port; dial a pool")

    async def download(self, path: str, caller: Caller) -> Download | Reply:
        if path == "/healthz":
            return Reply(200, "")
        if not path.startswith("/stream/"):
            return Reply(404, "404 page not found")
        data = self._life.memory.load(path.removeprefix("/stream/"))
        if data is None:
            self._counters.downloads_missing += 1
            return Reply(404, "ErrNotFound")
        self._counters.downloads += 1
        return Download(_whole(data), length=len(data))

    async def upload(self, path: str, caller: Caller, body: AsyncIterator[bytes]) -> Reply:
        headers = caller.headers
        if path != "/transcodeResults":
            return Reply(404, "404 page not found")
        if headers.get("authorization") != AUTHORIZATION:
            return Reply(401, "Unauthorized")
        if headers.get("credentials") != self._secret:
            return Reply(401, "Unauthorized")
        try:
            kind, boundary = media_type(headers.get("content-type", ""))
        except Unreadable as error:
            return Reply(415, str(error))
        try:
            task_id = int64(headers.get("taskid", ""))
        except Unreadable:
            return Reply(400, "Invalid Task ID")
        if kind == ERROR_TYPE:
            return await self._take_error(task_id, body)
        try:
            int64(headers.get("pixels", ""))
        except Unreadable:
            return Reply(400, "Invalid Pixels")
        if kind != "multipart/mixed":
            return OK
        return await self._take_result(task_id, boundary, body)

    async def _take_error(self, task_id: int, body: AsyncIterator[bytes]) -> Reply:
        text = bytearray()
        async for chunk in body:
            text += chunk[: ERROR_BYTES_MAX - len(text)]
        self._resolve(task_id, Failed(text.decode("utf-8", "replace")))
        return OK

    async def _take_result(self, task_id: int, boundary: str, body: AsyncIterator[bytes]) -> Reply:
        try:
            reader = ResultReader(boundary)
            async for chunk in body:
                reader.feed(chunk)
            parts = reader.close()
        except Unreadable as error:
            self._resolve(task_id, Failed(str(error)))
            return Reply(500, str(error))
        self._resolve(task_id, parts)
        return OK

    def _resolve(self, task_id: int, answer: list[Part] | Failed) -> None:
        if self._life.tasks.resolve(task_id, answer):
            self._counters.results += 1
        else:
            self._counters.results_unknown += 1

    def _refusal(self, request: RegisterRequest) -> str:
        if request.secret != self._secret:
            return "invalid secret"
        return "zero capacity" if request.capacity <= 0 else ""


def _capabilities(request: RegisterRequest) -> int:
    return capabilities.DEFAULT if request.capabilities is None else request.capabilities


async def _until_over(member: Member) -> None:
    """Returns when the peer is gone or the orchestrator has given up on it."""

    async def watch() -> None:
        await member.stream.wait_closed()
        member.over.set()

    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(watch())
        await member.over.wait()
        watcher.cancel()


async def _whole(data: bytes) -> AsyncIterator[bytes]:
    yield data
