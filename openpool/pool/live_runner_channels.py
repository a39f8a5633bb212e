"""Live video over trickle channels: a customer's segments to a worker, its lines back.

`POST {app}/channels` in a session makes two channels at the orchestrator, `in` and `out`, and ties
them to one call: segments of `in` are its messages (`wire.framing`), lines of its answer are
segments of `out`. It lasts until `in` is closed, the session ends, or nothing comes for too long.
When `in` is closed the worker has a little time for what it still has to tell.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import structlog

from openpool.core.call_requests import CallRequest
from openpool.core.errors import OpenPoolError, Timeout, Unavailable
from openpool.link.trickle import ChannelClosed, Publisher, Subscriber
from openpool.pool.live_runner_answers import error_line, messages_of, told
from openpool.pool.live_runner_http import Exchange
from openpool.wire import framing
from openpool.wire.live_runner import ChannelWish

log = structlog.get_logger()

WISHES = [
    ChannelWish(name="in", mime_type="video/MP2T"),
    ChannelWish(name="out", mime_type="application/json"),
]
TRIES = 5
"""How often a channel that cannot be read is asked again before the session is given up."""
WAIT_S = 0.2
LAST_WORDS_S = 10.0
"""How long a worker may still talk when its input has ended."""
LINGER_S = 1.0
"""How long the customer has for the last lines: a closed channel keeps nothing."""


class Segments(AsyncIterator[bytes]):
    """The segments of a channel as a framed body."""

    def __init__(self, subscriber: Subscriber, ending: asyncio.Timeout, silence_s: float) -> None:
        """`ending` is set to run out soon after the channel's end. Channels that are open but
        have nothing to give for `silence_s` raise Timeout."""
        self._subscriber = subscriber
        self._ending = ending
        self._silence_s = silence_s
        self._failures = 0

    async def __anext__(self) -> bytes:
        now = asyncio.get_running_loop().time
        silent_at = now() + self._silence_s
        while now() < silent_at:
            try:
                if data := await self._next():
                    self._failures = 0
                    return framing.pack(data)
            except ChannelClosed:
                self._ending.reschedule(now() + LAST_WORDS_S)
                raise StopAsyncIteration from None
            except Unavailable:
                self._failures += 1
                if self._failures >= TRIES:
                    raise
                await asyncio.sleep(WAIT_S)
        raise Timeout("the trickle channel has nothing to give")

    async def _next(self) -> bytes:
        async with self._subscriber.piece() as piece:
            if piece is not None:
                return b"".join([chunk async for chunk in piece.body])
        await asyncio.sleep(WAIT_S)
        return b""


async def tie(
    exchange: Exchange,
    call: CallRequest,
    subscriber: Subscriber,
    publisher: Publisher,
    silence_s: float,
) -> None:
    """Have one call served over two channels, until one side has had enough."""
    try:
        async with asyncio.timeout(None) as ending:
            segments = Segments(subscriber, ending, silence_s)
            async with exchange.call(call, segments) as answer:
                if answer.status != 200:
                    raise Unavailable
                async for message in messages_of(answer):
                    await _publish(publisher, message)
    except (ChannelClosed, TimeoutError):
        pass
    except OpenPoolError as error:
        log.info("channels-ended", orchestrator=call.orchestrator, reason=error.code)
        with suppress(OpenPoolError, ChannelClosed):
            await publisher.publish(error_line(error.code, told(error)[1]), "application/json")
    await asyncio.sleep(LINGER_S)
    with suppress(OpenPoolError):
        await publisher.close()


async def _publish(publisher: Publisher, message: bytes | str) -> None:
    if isinstance(message, str):
        await publisher.publish(f"{message}\n".encode(), "application/json")
    else:
        await publisher.publish(message, "application/octet-stream")
