"""Trickle channels: our reader and writer against the stand-in's server, and against liars."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from openpool.core.errors import BadMessage, Timeout, Unavailable
from openpool.demo.trickle import KEPT, Channel, TrickleServer
from openpool.link.trickle import CLOSED, ChannelClosed, Publisher, Subscriber


@asynccontextmanager
async def serving(*routes: web.RouteDef) -> AsyncIterator[tuple[str, aiohttp.ClientSession]]:
    """A server, its address and a client."""
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with aiohttp.ClientSession() as http:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}", http
    finally:
        await runner.cleanup()


@asynccontextmanager
async def channel() -> AsyncIterator[tuple[Channel, str, aiohttp.ClientSession]]:
    """A channel of the stand-in."""
    trickle = TrickleServer()
    async with serving(*trickle.routes("/t")) as (url, http):
        made = trickle.create("c", "text/plain")
        yield made, f"{url}/t/c", http
        trickle.close_all()


async def read(subscriber: Subscriber) -> tuple[int, bytes] | None:
    async with subscriber.piece() as piece:
        if piece is None:
            return None
        return piece.seq, b"".join([chunk async for chunk in piece.body])


async def test_what_is_published_is_read() -> None:
    """Segments arrive whole, numbered and in order."""
    async with channel() as (_, url, http):
        publisher, subscriber = Publisher(http, url), Subscriber(http, url, start=0)
        for number in range(4):
            assert await publisher.publish(bytes([number]) * 1000, "text/plain") == number
            assert await read(subscriber) == (number, bytes([number]) * 1000)


async def test_a_segment_is_read_while_it_is_written() -> None:
    """A reader who waits for a segment has its first part before the second is written."""
    seen = asyncio.Event()

    async def parts() -> AsyncIterator[bytes]:
        yield b"one"
        await seen.wait()
        yield b"two"

    async with channel() as (_, url, http):
        publisher, subscriber = Publisher(http, url), Subscriber(http, url, start=0)
        async with asyncio.TaskGroup() as group:
            group.create_task(publisher.publish(parts(), "text/plain"))
            async with subscriber.piece() as piece:
                assert piece is not None
                assert await anext(piece.body) == b"one"
                seen.set()
                assert await anext(piece.body) == b"two"


async def test_a_slow_reader_skips_what_is_not_kept() -> None:
    """Who falls behind is told where the channel is, and goes on from there."""
    async with channel() as (made, url, http):
        subscriber = Subscriber(http, url, start=0)
        for number in range(2 * KEPT):
            made.write(b"%d" % number)
        assert await read(subscriber) is None
        made.write(b"new")
        assert await read(subscriber) == (2 * KEPT, b"new")


async def test_a_reader_waits_and_then_hears_of_the_end() -> None:
    """A channel that is closed while somebody waits for its next segment ends for them."""
    async with channel() as (made, url, http):
        subscriber = Subscriber(http, url)

        async def waits() -> None:
            with pytest.raises(ChannelClosed):
                await read(subscriber)

        async with asyncio.TaskGroup() as group:
            group.create_task(waits())
            while not made.pieces:  # noqa: ASYNC110  # that somebody waits has no event
                await asyncio.sleep(0.005)
            made.close()


async def test_writing_to_what_is_gone() -> None:
    """A writer hears that its channel is closed."""
    async with channel() as (_, url, http):
        publisher = Publisher(http, url)
        await publisher.publish(b"x", "text/plain")
        await publisher.close()
        with pytest.raises(ChannelClosed):
            await publisher.publish(b"y", "text/plain")


async def test_a_closed_channels_text_is_no_segment() -> None:
    """A closed channel answers 200 with a text where a segment is missing; that is its end."""

    async def ended(request: web.Request) -> web.Response:
        return web.Response(text="Entry not found", headers={CLOSED: "terminated"})

    async with serving(web.get("/c/{seq}", ended)) as (url, http):
        with pytest.raises(ChannelClosed):
            await read(Subscriber(http, f"{url}/c"))


async def test_a_silent_channel_is_given_up() -> None:
    """A reader does not wait for ever, and can ask again for the same segment."""
    async with channel() as (made, url, http):
        subscriber = Subscriber(http, url, start=0, silence_s=0.1)
        with pytest.raises(Timeout):
            await read(subscriber)
        made.write(b"late")
        assert await read(subscriber) == (0, b"late")


async def test_a_segment_that_is_too_large() -> None:
    """More than the limit is not read."""
    async with channel() as (made, url, http):
        made.write(bytes(1001))
        with pytest.raises(BadMessage):
            await read(Subscriber(http, url, start=0, piece_bytes_max=1000))


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (500, {}),
        (302, {"Location": "http://127.0.0.1:9/"}),
        (200, {"Lp-Trickle-Seq": "-7"}),
        (200, {"Lp-Trickle-Seq": "9" * 40}),
        (200, {}),
    ],
)
async def test_a_server_that_makes_no_sense(status: int, headers: dict[str, str]) -> None:
    """Odd answers are failures that can be told, and nobody is sent elsewhere."""

    async def odd(request: web.Request) -> web.Response:
        return web.Response(status=status, headers=headers, text="x")

    async with serving(web.get("/c/{seq}", odd)) as (url, http):
        with pytest.raises(Unavailable):
            await read(Subscriber(http, f"{url}/c"))


async def test_no_server_at_all() -> None:
    """What cannot be reached is unavailable, for readers and writers."""
    async with aiohttp.ClientSession() as http:
        with pytest.raises(Unavailable):
            await read(Subscriber(http, "http://127.0.0.1:9/c"))
        with pytest.raises(Unavailable):
            await Publisher(http, "http://127.0.0.1:9/c").publish(b"x", "text/plain")
