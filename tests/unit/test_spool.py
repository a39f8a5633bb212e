"""Bodies that can be sent again: kept in order, bounded, and never silently cut short."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from openpool.core.errors import Unavailable
from openpool.pool.spool import ClientTooSlow, Spool, TooLarge


class Slow(AsyncIterator[bytes]):
    """A client that sends a chunk when it is told to; waits for it may be cancelled."""

    def __init__(self) -> None:
        self.chunks: asyncio.Queue[bytes] = asyncio.Queue()

    async def __anext__(self) -> bytes:
        if chunk := await self.chunks.get():
            return chunk
        raise StopAsyncIteration


async def generated(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def all_of(spool: Spool) -> bytes:
    return b"".join([chunk async for chunk in spool.chunks()])


async def begin_and_leave(spool: Spool) -> None:
    """Read the first chunk, and be cancelled while waiting for the next."""
    reader = spool.chunks()
    assert await anext(reader) == b"one "
    waiting = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})


@pytest.mark.parametrize("size", [0, 10, 3 << 20])
async def test_a_body_can_be_read_twice(size: int) -> None:
    """Small bodies and those that went to a file come back whole, as often as wanted."""
    chunks = [bytes([n % 256]) * 1000 for n in range(size // 1000)]
    spool = Spool(generated(*chunks), bytes_max=4 << 20)
    assert await all_of(spool) == await all_of(spool) == b"".join(chunks)
    assert spool.ended
    spool.close()


async def test_a_second_reader_goes_on_where_the_client_is() -> None:
    """A reader that was cancelled in the middle costs no byte of the next one's."""
    client = Slow()
    spool = Spool(client, bytes_max=1000)
    client.chunks.put_nowait(b"one ")
    await begin_and_leave(spool)
    for chunk in (b"two ", b"three", b""):
        client.chunks.put_nowait(chunk)
    assert await all_of(spool) == b"one two three"
    spool.close()


async def test_what_a_cancelled_generator_loses_is_never_sent_as_whole() -> None:
    """A generator dies when a wait for it is cancelled: its body is then refused, not cut short."""

    async def client() -> AsyncIterator[bytes]:
        yield b"one "
        await asyncio.Event().wait()

    spool = Spool(client(), bytes_max=1000)
    await begin_and_leave(spool)
    with pytest.raises(Unavailable, match="send it again"):
        await all_of(spool)
    spool.close()


async def test_too_large_and_too_slow() -> None:
    """A body beyond the limit, and a client that pauses too long, are refused."""
    spool = Spool(generated(bytes(600), bytes(600)), bytes_max=1000)
    with pytest.raises(TooLarge, match="1000 bytes"):
        await all_of(spool)
    spool.close()
    slow = Spool(Slow(), bytes_max=1000, idle_s=0.01)
    with pytest.raises(ClientTooSlow):
        await all_of(slow)
    slow.close()


async def test_a_session_is_passed_through_once() -> None:
    """A body that is not kept has no limit, and cannot be sent a second time once it has begun."""
    spool = Spool(generated(*[bytes(500)] * 10), bytes_max=1000, kept=False)
    assert len(await all_of(spool)) == 5000
    with pytest.raises(Unavailable, match="session is gone"):
        await all_of(spool)
    spool.close()
