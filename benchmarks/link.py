"""The worker port: memory of idle workers, delay of notifications, speed of uploads and downloads.

The port runs in a process of its own; the clients here share this machine's cores with it, so
speeds are also given per second of the port's processor time. Baseline: plain TLS on the same event
loop in the same process, which moves the bytes and does nothing else.
"""

import asyncio
import gc
import json
import multiprocessing
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import psutil
import uvloop

from benchmarks.report import Row, percentile, report
from openpool.core.model import Profile, Segment
from openpool.link.client import TranscoderClient
from openpool.link.http2 import Http2Limits, Stream
from openpool.link.interface import Caller, Download, RegistrationStream, Reply
from openpool.link.registration import Registration, dial
from openpool.link.server import PortLimits, WorkerPort
from openpool.link.tls import Trust, client_context, load_or_create_identity, server_context
from openpool.wire.messages import Notification, RegisterRequest
from openpool.wire.results import AUTHORIZATION, RESULT_PATH, RenditionData

Once = Callable[[], Awaitable[None]]
Transfer = Callable[[AsyncExitStack], Awaitable[Once]]

IDLE = 1000
NOTIFICATIONS = 2000
NOTIFY_EVERY_S = 0.002
UPLOAD = bytes(3_000_000)
UPLOADS = 60
AT_ONCE = 4
DOWNLOAD_BYTES = 10_000_000
DOWNLOADS = 20
SEGMENT = Segment(
    seq=1,
    duration_ms=2000,
    profiles=(Profile(name="360p", width=640, height=360, bitrate_bps=700_000),),
)


class Counter:
    """Serves the port's handler: keeps streams, counts bytes, sends notifications when asked."""

    def __init__(self) -> None:
        self.streams: list[RegistrationStream] = []
        self._piece = bytes(256 << 10)

    async def register(
        self, request: RegisterRequest, stream: RegistrationStream, caller: Caller
    ) -> None:
        self.streams.append(stream)
        await stream.wait_closed()
        self.streams.remove(stream)

    async def download(self, path: str, caller: Caller) -> Download | Reply:
        if path == "/usage":
            gc.collect()
            process = psutil.Process()
            cpu = process.cpu_times()
            usage = {"rss": process.memory_info().rss, "cpu": cpu.user + cpu.system}
            return Reply(200, json.dumps(usage))
        if path == "/notify":
            await self._notify_all()
            return Reply(200, "done")
        return Download(self._bytes(), DOWNLOAD_BYTES)

    async def _bytes(self) -> AsyncIterator[bytes]:
        left = DOWNLOAD_BYTES
        while left:
            piece = self._piece[:left]
            left -= len(piece)
            yield piece

    async def _notify_all(self) -> None:
        for number in range(NOTIFICATIONS):
            stream = self.streams[number % len(self.streams)]
            url = f"https://pool/{time.monotonic_ns()}"
            stream.notify(Notification(url=url, session="s", manifest="m", segment=SEGMENT))
            await asyncio.sleep(NOTIFY_EVERY_S)

    async def upload(self, path: str, caller: Caller, body: AsyncIterator[bytes]) -> Reply:
        size = 0
        async for chunk in body:
            size += len(chunk)
        return Reply(200, str(size))


class Sink(asyncio.Protocol):
    """The baseline: takes bytes, echoes small ones, says when it has `UPLOAD` bytes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._left = len(UPLOAD)

    def data_received(self, data: bytes) -> None:
        if data == b"download":
            for _ in range(DOWNLOAD_BYTES // (256 << 10)):
                self.transport.write(bytes(256 << 10))
            self.transport.write(bytes(DOWNLOAD_BYTES % (256 << 10)))
            return
        if len(data) < 100 and self._left == len(UPLOAD):
            self.transport.write(data)
            return
        self._left -= len(data)
        if self._left <= 0:
            self._left = len(UPLOAD)
            self.transport.write(b"done")


def serve(folder: str, pipe: Connection) -> None:
    """The process of the port."""

    async def run() -> None:
        identity = load_or_create_identity(Path(folder), ["127.0.0.1"])
        tls = server_context(identity)
        port = WorkerPort(Counter(), tls, host="127.0.0.1", limits=PortLimits(uploads_max=64))
        loop = asyncio.get_running_loop()
        plain = await loop.create_server(Sink, "127.0.0.1", 0, ssl=tls)
        async with port.running():
            pipe.send((port.port, plain.sockets[0].getsockname()[1], identity.fingerprint))
            await loop.run_in_executor(None, pipe.recv)
        plain.close()

    uvloop.run(run())


class Bench:
    """The clients."""

    def __init__(self, port: int, plain: int, fingerprint: str) -> None:
        self.plain = plain
        self.port = port
        self.trust = Trust.exact(fingerprint)
        self.client = TranscoderClient("127.0.0.1", port, secret="s", trust=self.trust)
        self.rows: list[Row] = []

    async def run(self, idle_plain_kb: float) -> list[Row]:
        async with self.client:
            await self.idle_and_notify(idle_plain_kb)
            await self.uploads()
            await self.downloads()
        return self.rows

    async def usage(self) -> dict[str, float]:
        usage: dict[str, float] = json.loads(await self.ask("/usage"))
        return usage

    async def ask(self, path: str) -> str:
        async with self.client.fetch(
            f"https://127.0.0.1:{self.port}{path}", timeout_s=60
        ) as source:
            return b"".join([chunk async for chunk in source.body]).decode()

    async def idle_and_notify(self, idle_plain_kb: float) -> None:
        before = await self.usage()
        began = time.perf_counter()
        async with AsyncExitStack() as stack:
            registrations = [await self.register(stack) for _ in range(IDLE)]
            took_s = time.perf_counter() - began
            await asyncio.sleep(1)
            each_kb = ((await self.usage())["rss"] - before["rss"]) / IDLE / 1024
            self.rows += [
                Row("idle worker, KB", f"{each_kb:.0f}", "≤ 125", f"{idle_plain_kb:.0f} plain TLS"),
                Row("registrations per second", f"{IDLE / took_s:.0f}", "≥ 67"),
            ]
            await self.notify(registrations)

    async def register(self, stack: AsyncExitStack) -> Registration:
        context = self.client.register(capacity=1, capabilities=1, version="0.9.1")
        return await stack.enter_async_context(context)

    async def idle_plain(self) -> float:
        before = await self.usage()
        writers = []
        for _ in range(IDLE):
            reader, writer = await self.open_plain()
            writer.write(b"hello")
            await reader.readexactly(5)
            writers.append(writer)
        after = await self.usage()
        for writer in writers:
            writer.transport.abort()
        await self.client.close()
        return (after["rss"] - before["rss"]) / IDLE / 1024

    async def notify(self, registrations: list[Registration]) -> None:
        delays_ms: list[float] = []

        async def follow(registration: Registration) -> None:
            async for notification in registration:
                sent = int(notification.url.rpartition("/")[2])
                delays_ms.append((time.monotonic_ns() - sent) / 1e6)

        async with asyncio.TaskGroup() as group:
            followers = [group.create_task(follow(r)) for r in registrations]
            await self.ask("/notify")
            await asyncio.sleep(0.2)
            for follower in followers:
                follower.cancel()
        baseline = await self.echo_ms()
        for percent in (50, 99):
            value = f"{percentile(delays_ms, percent):.2f}"
            plain = f"{percentile(baseline, percent) / 2:.2f} half an echo over plain TLS"
            self.rows.append(Row(f"notification p{percent}, ms", value, "", plain))

    async def echo_ms(self) -> list[float]:
        reader, writer = await self.open_plain()
        took = []
        for _ in range(1000):
            began = time.perf_counter()
            writer.write(b"x" * 90)
            await reader.readexactly(90)
            took.append((time.perf_counter() - began) * 1000)
        writer.transport.abort()
        return took

    async def uploads(self) -> None:
        plain = await self.speed(self.upload_plain, len(UPLOAD))
        for name, upload in (("HTTP/2", self.upload_http2), ("HTTP/1.1", self.upload_http1)):
            ours = await self.speed(upload, len(UPLOAD))
            self.rows.append(Row(f"upload over {name}, MB/s (per core)", ours, "", plain))

    async def downloads(self) -> None:
        plain = await self.speed(self.download_plain, DOWNLOAD_BYTES, DOWNLOADS)
        ours = await self.speed(self.download, DOWNLOAD_BYTES, DOWNLOADS)
        self.rows.append(Row("download over HTTP/1.1, MB/s (per core)", ours, "", plain))

    async def speed(self, transfer: Transfer, size: int, count: int = UPLOADS) -> str:
        """`AT_ONCE` transfers side by side: over all, and by the port's processor time."""
        todo = iter(range(count))

        async def several() -> None:
            async with AsyncExitStack() as stack:
                once = await transfer(stack)
                for _ in todo:
                    await once()

        before, began = await self.usage(), time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(several())
        took_s = time.perf_counter() - began
        cpu_s = (await self.usage())["cpu"] - before["cpu"]
        megabytes = count * size / 1e6
        return f"{megabytes / took_s:.0f} ({megabytes / cpu_s:.0f})"

    async def upload_plain(self, stack: AsyncExitStack) -> Once:
        reader, writer = await self.open_plain()
        stack.callback(writer.transport.abort)

        async def once() -> None:
            writer.write(UPLOAD)
            assert await reader.readexactly(4) == b"done"

        return once

    async def upload_http1(self, stack: AsyncExitStack) -> Once:
        async def once() -> None:
            answer = await self.client.post_result(1, [RenditionData(data=UPLOAD, pixels=1)], 1)
            assert answer.status == 200

        return once

    async def upload_http2(self, stack: AsyncExitStack) -> Once:
        connection = await dial(
            "127.0.0.1", self.port, self.trust, limits=Http2Limits(), timeout_s=5
        )
        stack.callback(connection.close, "done")

        async def once() -> None:
            await Post(connection, connection.h2.get_next_available_stream_id()).run()

        return once

    async def download(self, stack: AsyncExitStack) -> Once:
        async def once() -> None:
            url = f"https://127.0.0.1:{self.port}/segment"
            async with self.client.fetch(url, timeout_s=60) as source:
                size = 0
                async for chunk in source.body:
                    size += len(chunk)
                assert size == DOWNLOAD_BYTES

        return once

    async def download_plain(self, stack: AsyncExitStack) -> Once:
        reader, writer = await self.open_plain()
        stack.callback(writer.transport.abort)

        async def once() -> None:
            writer.write(b"download")
            await reader.readexactly(DOWNLOAD_BYTES)

        return once

    async def open_plain(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        tls = client_context(verify=False, alpn=("http/1.1",))
        return await asyncio.open_connection("127.0.0.1", self.plain, ssl=tls, limit=1 << 20)


class Post(Stream):
    """An upload over HTTP/2, as a stock worker makes it."""

    async def run(self) -> None:
        self._done = self.connection.loop.create_future()
        fields = [
            (":method", "POST"),
            (":scheme", "https"),
            (":path", RESULT_PATH),
            (":authority", "pool"),
            ("authorization", AUTHORIZATION),
        ]
        self.send_headers(fields)
        await self.send(UPLOAD)
        self.send_now(b"", end=True)
        await self._done

    def on_gone(self, reason: str) -> None:
        self._done.set_result(None)


@contextmanager
def port_process() -> Iterator[Bench]:
    """A fresh port, so that memory is not what an earlier measurement left over."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        server = context.Process(target=serve, args=(folder, theirs))
        server.start()
        try:
            yield Bench(*ours.recv())
        finally:
            ours.send("stop")
            server.join()


def main() -> None:
    """Print the figures of the link."""
    with port_process() as bench:
        idle_plain_kb = uvloop.run(bench.idle_plain())
    with port_process() as bench:
        rows = uvloop.run(bench.run(idle_plain_kb))
    report("The link between pool and workers", rows)


if __name__ == "__main__":
    main()
