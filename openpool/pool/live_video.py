"""Sessions of live video for whoever watches on the pool's own pages or by its API.

Pictures or segments go to a worker as messages in the body of one lasting call (`wire.framing`),
and its answer comes back line by line while they do. Must not know WebSockets or browsers:
`web.live_socket` does. Read next: `pool.exchange`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from openpool.core.call_requests import CallFailed, CallRequest
from openpool.core.calls import App
from openpool.pool.exchange import Exchange
from openpool.pool.live_runner_answers import messages_of
from openpool.wire import framing

PATH = "/v1/live/detect"
REFUSED_BYTES_MAX = 2_000


class LiveVideo:
    """Opens sessions; they are calls of the pool's own API, at its prices."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._serial = 0

    @asynccontextmanager
    async def watch(
        self, app: App, customer: str, query: str, messages: AsyncIterator[bytes | str]
    ) -> AsyncIterator[AsyncIterator[bytes | str]]:
        """What a worker answers to messages, while they come: texts, or bytes.

        Raises CallFailed on entering or from the answers; leaving ends the session at the worker.
        """
        self._serial += 1
        session = f"live-{self._serial}"
        request = CallRequest(
            app=app,
            source="direct",
            customer=customer,
            session=session,
            path=f"{PATH}?{query}" if query else PATH,
            headers={"content-type": framing.CONTENT_TYPE},
            streaming=True,
            lasting=True,
        )
        try:
            async with self._exchange.call(request, _Framed(messages)) as answer:
                if answer.status != 200:
                    raise CallFailed("worker-failed", await _refusal(answer.body))
                yield messages_of(answer)
        finally:
            self._exchange.close_session(app, session, customer=customer)


class _Framed(AsyncIterator[bytes]):
    """Messages as a body; no generator, so that a wait for the next one can be cancelled."""

    def __init__(self, messages: AsyncIterator[bytes | str]) -> None:
        self._messages = messages

    async def __anext__(self) -> bytes:
        return framing.pack(await anext(self._messages))


async def _refusal(body: AsyncIterator[bytes]) -> str:
    """What a worker says that does not want the session, as a sentence for people."""
    text = b""
    async for chunk in body:
        text += chunk[: REFUSED_BYTES_MAX - len(text)]
    said = "".join(c if c.isprintable() else " " for c in text.decode(errors="replace")).strip()
    return f"The worker did not take the session: {said[:300] or 'it gave no reason'}"
