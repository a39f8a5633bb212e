"""Runs the web application inside the pool's own event loop.

Signals belong to the pool, not to the web server: cancel `serve` to stop it. Open event streams
are ended first, so that stopping never waits for a browser.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from litestar import Litestar

from openpool.core.errors import cannot_listen
from openpool.web.feed import Feed
from openpool.web.interface import LIVE_MESSAGE_BYTES_MAX

STOP_S = 5
"""How long requests under way may take when the server stops."""
CONNECTIONS = 2000
"""More than this many connections at once are answered with 503."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers and its `sys.exit`, telling when it listens."""

    def __init__(self, config: uvicorn.Config, started: asyncio.Event) -> None:
        super().__init__(config)
        self._listening = started

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit:
            raise RuntimeError("the web application failed while it was starting") from None
        self._listening.set()


async def serve(
    app: Litestar,
    host: str,
    port: int,
    *,
    ssl: tuple[Path, Path] | None = None,
    started: asyncio.Event | None = None,
    trusted_proxies: str = "",
) -> None:
    """Serve until cancelled. `ssl` is (certificate, key); port 0 picks a free one.

    `trusted_proxies` names addresses whose X-Forwarded-For is believed. The address listened on
    is `app.state.address` once `started` is set. Raises SetupError if the port cannot be had.
    """
    listener = _listen(host, port)
    app.state.address = listener.getsockname()[:2]
    server = _Server(_settings(app, ssl, trusted_proxies), started or asyncio.Event())
    async with asyncio.TaskGroup() as group:
        running = group.create_task(server.serve(sockets=[listener]))
        try:
            await asyncio.shield(running)
        finally:
            feed: Feed = app.state.feed
            feed.close()
            server.should_exit = True
            async with asyncio.timeout(2 * STOP_S):
                await asyncio.shield(running)


def _settings(app: Litestar, ssl: tuple[Path, Path] | None, trusted_proxies: str) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="on",
        ws="websockets-sansio",
        ws_max_size=LIVE_MESSAGE_BYTES_MAX,
        ws_per_message_deflate=False,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=trusted_proxies or None,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=STOP_S,
        ssl_certfile=ssl[0] if ssl else None,
        ssl_keyfile=ssl[1] if ssl else None,
    )


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
        listener.setblocking(False)
    except OSError as error:
        raise cannot_listen("web.listen", host, port, error) from None
    return listener
