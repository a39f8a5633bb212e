"""The worker port: one TLS socket for registration streams, downloads and uploads.

HTTP/2 where the client offers it (stock workers register and upload that way), HTTP/1.1 otherwise
(stock workers download that way). What the requests mean is up to the `PortHandler`.
"""

import asyncio
import logging
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import cast

from openpool.core.errors import OpenPoolError, Unavailable, cannot_listen
from openpool.link.answers import PortLimits
from openpool.link.interface import AiHandler, Caller, PortHandler
from openpool.link.line_client import LineConnection
from openpool.link.server_http1 import Http1Server
from openpool.link.server_http2 import ServerConnection, peer_text
from openpool.link.tls import LINE_ALPN

__all__ = ["PortLimits", "WorkerPort"]

log = logging.getLogger(__name__)

LAST_WORDS_S = 0.5
"""For the last frames and answers when the port closes, and for a peer's TLS goodbye."""


class WorkerPort:
    """Listens for workers: `serve` until cancelled or closed, or `async with port.running():`."""

    def __init__(
        self,
        handler: PortHandler,
        tls: ssl.SSLContext,
        *,
        host: str = "0.0.0.0",  # noqa: S104  workers come from outside
        port: int = 0,
        limits: PortLimits | None = None,
        ai: AiHandler | None = None,
    ) -> None:
        self.handler = handler
        self.ai = ai
        self.limits = limits or PortLimits()
        self.host = host
        self.port = port
        """The number asked for; after `start` the one in use."""
        self.closing = False
        self.uploads = 0
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._group: asyncio.TaskGroup | None = None
        self._connections: set[ServerConnection] = set()
        self._lines: set[LineConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._per_ip: Counter[str] = Counter()
        self._sockets = 0
        self._stop = asyncio.Event()
        self._empty = asyncio.Event()
        self._stopped = asyncio.Event()

    @property
    def connections(self) -> int:
        """Open sockets, both versions of HTTP."""
        return self._sockets

    async def start(self) -> None:
        """Take the port, without accepting anything yet; SetupError if that is impossible."""
        loop = asyncio.get_running_loop()
        self._http1 = Http1Server(self)
        try:
            self._server = await loop.create_server(
                lambda: _Doorman(self),
                self.host,
                self.port,
                ssl=self._tls,
                backlog=1024,
                ssl_handshake_timeout=self.limits.handshake_s,
                ssl_shutdown_timeout=LAST_WORDS_S,
                start_serving=False,
            )
        except OSError as error:
            raise cannot_listen("workers.listen", self.host, self.port, error) from None
        self.port = self._server.sockets[0].getsockname()[1]

    async def serve(self, started: asyncio.Event | None = None) -> None:
        """Serve until cancelled or closed; ends every stream properly before it returns."""
        if self._server is None:
            await self.start()
        assert self._server is not None
        try:
            async with asyncio.TaskGroup() as self._group:
                await self._server.start_serving()
                if started is not None:
                    started.set()
                try:
                    await self._stop.wait()
                finally:
                    await self._shut_down()
        finally:
            self._stopped.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve while the block runs."""
        started = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.serve(started))
            await started.wait()
            try:
                yield
            finally:
                await self.close()

    def drain(self) -> None:
        """Accept no new connection, registration or upload; what is under way goes on."""
        if self.closing:
            return
        self.closing = True
        if self._server is not None:
            # asyncio loses a socket that was accepted in the same turn of the loop in which the
            # server is closed: stop accepting now, and close two turns later
            loop = asyncio.get_running_loop()
            for listener in self._server.sockets:
                loop.remove_reader(listener.fileno())
            loop.call_soon(loop.call_soon, self._server.close)

    async def close(self) -> None:
        """Stop `serve` and wait until it has ended every stream."""
        self.drain()
        self._stop.set()
        if self._group is not None:
            await self._stopped.wait()

    async def _shut_down(self) -> None:
        """Registrations end at once, calls and uploads get `drain_s`, then everything is closed."""
        self.drain()
        for connection in list(self._connections):
            connection.stop_registrations()
        for line in list(self._lines):
            line.line.drain()
        self._http1.pre_shutdown()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self.limits.drain_s)
        for task in self._tasks:
            task.cancel()
        await self._http1.shutdown(timeout=LAST_WORDS_S)
        for line in list(self._lines):
            line.dismiss(Unavailable("the pool is shutting down; dial again"))
        for connection in list(self._connections):
            connection.close("the server is shutting down")
        self._empty.clear()
        if self._connections or self._lines:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), LAST_WORDS_S)
        for open_one in (*self._connections, *self._lines):
            open_one.abort("the server is shutting down")

    # For connections

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        assert self._group is not None
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def admit(self, ip: str) -> bool:
        """Whether one more connection from there is welcome; `leave` when it is over."""
        limit = self.limits.connections_per_ip_max
        if self.closing or self._sockets >= self.limits.connections_max:
            return False
        if limit and self._per_ip[ip] >= limit:
            return False
        self._sockets += 1
        self._per_ip[ip] += 1
        return True

    def leave(self, ip: str) -> None:
        self._sockets -= 1
        self._per_ip[ip] -= 1
        if not self._per_ip[ip]:
            del self._per_ip[ip]

    def open(self, transport: asyncio.Transport) -> asyncio.Protocol:
        """The protocol for a connection that was admitted."""
        tls = cast(ssl.SSLObject, transport.get_extra_info("ssl_object"))
        alpn, peer = tls.selected_alpn_protocol(), transport.get_extra_info("peername")
        if alpn == LINE_ALPN:
            line = LineConnection(
                peer, opened=self._on_line, lost=self._on_line_lost, limits=self.limits.line
            )
            self._lines.add(line)
            return line
        if alpn != "h2":
            return self._http1()
        connection = ServerConnection(self, peer)
        self._connections.add(connection)
        return connection

    def on_lost(self, connection: ServerConnection) -> None:
        self._connections.discard(connection)
        self._note_empty()

    def _on_line(self, connection: LineConnection) -> None:
        self.spawn(self._serve_line(connection))

    def _on_line_lost(self, connection: LineConnection) -> None:
        self.leave(connection.peer[0])
        self._lines.discard(connection)
        self._note_empty()

    def _note_empty(self) -> None:
        if not (self._connections or self._lines):
            self._empty.set()

    async def _serve_line(self, connection: LineConnection) -> None:
        error: OpenPoolError | None = Unavailable("the pool is shutting down; dial again")
        try:
            await self.handler.line(connection.line, Caller(peer_text(connection.peer), ""))
            connection.line.drain()
            await connection.line.wait_closed()
        except OpenPoolError as refusal:
            error = refusal
        except Exception as failure:
            log.error("a line handler failed", exc_info=failure)
            error = Unavailable("the pool made a mistake; it is written down there")
        finally:
            connection.dismiss(error)


class _Doorman(asyncio.Protocol):
    """Lets a connection in once TLS is done, and hands it to the protocol that it chose."""

    def __init__(self, port: WorkerPort) -> None:
        self._port = port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        if peer is None or not self._port.admit(peer[0]):
            transport.abort()
            return
        protocol = self._port.open(transport)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
