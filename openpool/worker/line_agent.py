"""Keeps the line to the pool up, over which its AI calls come; the sibling of `worker.agent`.

Dials again after every loss. What is answered, and offered, is in `worker.runtimes.host`.
"""

import asyncio
import time

import structlog

from openpool.core.errors import SetupError, Unauthorized, Unavailable
from openpool.link.line import Handler, LineAnswer, LineRequest, OfferBoard, serve_line
from openpool.link.tls import Trust
from openpool.worker.agent import RECONNECT_S_MAX, RETRY_FIRST_S, SETTLED_S, Backoff

log = structlog.get_logger()


class LineAgent:
    """One worker's line to one pool."""

    def __init__(
        self,
        host: str,
        port: int,
        trust: Trust,
        *,
        token: str,
        board: OfferBoard,
        handler: Handler,
        drain_s: float = 30.0,
        reconnect_s_max: float = RECONNECT_S_MAX,
    ) -> None:
        self.is_up = False
        self.lines = 0
        """How many lines there were so far."""
        self.answered = 0
        self._host, self._port = host, port
        self._trust = trust
        self._token = token
        self._board = board
        self._handler = handler
        self._drain_s = drain_s
        self._backoff = Backoff(RETRY_FIRST_S, reconnect_s_max)
        self._draining = asyncio.Event()

    async def run(self) -> None:
        """Serve until `drain`. Raises SetupError if the pool will never take this worker."""
        while not self._draining.is_set():
            started = time.monotonic()
            reason = await self._serve()
            self.is_up = False
            if time.monotonic() - started >= SETTLED_S:
                self._backoff.reset()
            if reason:
                wait_s = self._backoff.next()
                log.warning("line lost", reason=reason, again_in_s=round(wait_s, 1))
                await self._sleep(wait_s)

    def drain(self) -> None:
        """Take no more calls; `run` returns when those that run are answered."""
        self._draining.set()
        self._board.end()

    async def _serve(self) -> str:
        """Serve one line; gives why it ended, or nothing if we wanted it to. Raises SetupError."""
        try:
            await serve_line(
                self._host,
                self._port,
                self._trust,
                token=self._token,
                offers=self._board,
                handler=self._answer,
                opened=self._opened,
                drain_s=self._drain_s,
            )
        except Unauthorized as error:
            # Later on it may be a stranger between us and the pool, who will go away again.
            if not self.lines:
                raise SetupError(str(error)) from None
            return str(error)
        except Unavailable as error:
            return str(error)
        return ""

    def _opened(self) -> None:
        self.is_up = True
        self.lines += 1
        log.info("line to the pool is up")

    async def _answer(self, request: LineRequest) -> LineAnswer:
        answer = await self._handler(request)
        self.answered += 1
        return answer

    async def _sleep(self, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                await self._draining.wait()
        except TimeoutError:
            return
