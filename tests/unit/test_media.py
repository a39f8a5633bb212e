"""The bytes of running jobs."""

import asyncio

import pytest

from openpool.core.errors import NoCapacity, Unavailable
from openpool.pool.media import Media
from openpool.wire.results import RenditionData


async def collect(media: Media, job: str) -> bytes:
    return b"".join([chunk async for chunk in media.stream(job)])


async def test_a_source_is_read_while_it_arrives() -> None:
    """Two readers that started before the first byte both get every byte, in order."""
    media = Media()
    media.begin("j")
    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(collect(media, "j")) for _ in range(2)]
        whole = group.create_task(media.source("j"))
        for chunk in (b"one ", b"two ", b"three"):
            await asyncio.sleep(0)
            media.feed("j", chunk)
        media.finish("j")
    assert [r.result() for r in [*readers, whole]] == [b"one two three"] * 3


async def test_a_source_that_fails_tells_its_readers_why() -> None:
    """A reader in the middle of a source hears the reason when it will never be complete."""
    media = Media()
    media.begin("j")
    media.feed("j", b"half")
    reader = asyncio.ensure_future(collect(media, "j"))
    await asyncio.sleep(0)
    media.finish("j", "the orchestrator hung up")
    with pytest.raises(Unavailable, match="hung up"):
        await reader


async def test_forgetting_a_job_releases_its_bytes_and_its_readers() -> None:
    """After `forget` nothing is held, and whoever still reads is told."""
    media = Media()
    media.begin("j")
    media.feed("j", b"x" * 100)
    reader = asyncio.ensure_future(media.source("j"))
    await asyncio.sleep(0)
    media.forget("j")
    with pytest.raises(Unavailable, match="not needed"):
        await reader
    assert media.held_bytes == 0
    assert not media.feed("j", b"late")


async def test_the_budget_bounds_all_bytes_together() -> None:
    """A result that would exceed the budget is refused, and leaves the books of bytes right."""
    media = Media(budget_bytes=100)
    media.begin("j")
    media.feed("j", b"x" * 60)
    big = [RenditionData(data=b"y" * 50, pixels=1)]
    with pytest.raises(NoCapacity):
        media.put_result(1, big)
    assert media.held_bytes == 60
    media.forget("j")
    media.put_result(1, big)
    media.drop_result(1)
    media.drop_result(1)
    assert media.held_bytes == 0


async def test_the_announced_length_is_known_before_the_bytes() -> None:
    """A download can send its content-length as soon as the orchestrator announced it."""
    media = Media()
    media.begin("j")
    waiting = asyncio.ensure_future(media.source_length("j"))
    await asyncio.sleep(0)
    media.set_length("j", 42)
    assert await waiting == 42
