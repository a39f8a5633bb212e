"""The live stream: nothing lost, nothing twice, nothing unbounded."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest
import stories
from stories import at

from openpool.core.errors import NoCapacity
from openpool.core.events import Event, WorkerApproved
from openpool.store.interface import EventFilter, StoredEvent
from openpool.store.sqlite import SqliteStore
from openpool.web import feed as feed_module
from openpool.web.feed import Feed


def approved(number: int, worker: str = "w") -> Event:
    return at(f"approved/{number}", WorkerApproved(worker=worker), stories.START_MS + number)


async def collect(feed: Feed, which: EventFilter, count: int) -> list[StoredEvent]:
    """The next `count` events that a viewer sees."""
    seen: list[StoredEvent] = []
    async with asyncio.timeout(10), aclosing(feed.follow(which)) as batches:
        async for batch in batches:
            seen += batch
            if len(seen) >= count:
                break
    return seen


async def test_a_viewer_sees_the_past_and_the_future_once(tmp_path: Path) -> None:
    """Following from 0 gives what is stored and what comes, in order, each once."""
    async with SqliteStore(tmp_path) as store, asyncio.TaskGroup() as group:
        await store.append([approved(n) for n in range(500)]).durable()
        feed = Feed(store, store.subscribe)
        running = group.create_task(feed.run())
        viewer = group.create_task(collect(feed, EventFilter(), 1000))
        for start in range(500, 1000, 50):
            await store.append([approved(n) for n in range(start, start + 50)]).durable()
        seen = await viewer
        running.cancel()
    assert [stored.seq for stored in seen] == list(range(1, 1001))


async def test_a_viewer_resumes_where_it_stopped(tmp_path: Path) -> None:
    """A cursor far behind the ring is served from the store, one within it from memory."""
    async with SqliteStore(tmp_path) as store, asyncio.TaskGroup() as group:
        feed = Feed(store, store.subscribe)
        running = group.create_task(feed.run())
        await asyncio.sleep(0)
        await store.append([approved(n) for n in range(300)]).durable()
        assert await feed.changed(299)
        near = await collect(feed, EventFilter(after_seq=290), 10)
        feed._ring.clear()
        far = await collect(feed, EventFilter(after_seq=7), 293)
        running.cancel()
    assert [stored.seq for stored in near] == list(range(291, 301))
    assert [stored.seq for stored in far] == list(range(8, 301))


async def test_filters_hold_in_the_ring_as_in_the_store(tmp_path: Path) -> None:
    """Type and worker select the same events from memory and from disk."""
    events = [approved(n, worker="ann" if n % 3 else "bob") for n in range(60)]
    which = EventFilter(worker="bob", types=("worker-approved",))
    async with SqliteStore(tmp_path) as store, asyncio.TaskGroup() as group:
        feed = Feed(store, store.subscribe)
        running = group.create_task(feed.run())
        await asyncio.sleep(0)
        await store.append(events).durable()
        assert await feed.changed(59)
        from_memory = await collect(feed, which, 20)
        feed._ring.clear()
        from_disk = await collect(feed, which, 20)
        running.cancel()
    assert from_memory == from_disk
    assert len(from_memory) == 20


async def test_a_gap_in_the_subscription_is_found_in_the_store(tmp_path: Path) -> None:
    """If the store's own feed drops events, viewers still get all of them."""
    async with SqliteStore(tmp_path) as store:
        await store.append([approved(n) for n in range(30)]).durable()
        stored = store.events(EventFilter())
        gaps: asyncio.Queue[Sequence[StoredEvent]] = asyncio.Queue()

        async def with_gaps() -> AsyncIterator[Sequence[StoredEvent]]:
            while True:
                yield await gaps.get()

        feed = Feed(store, with_gaps)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(feed.run())
            gaps.put_nowait(stored[:10])
            gaps.put_nowait(stored[20:])
            assert await feed.changed(29)
            seen = await collect(feed, EventFilter(after_seq=5), 25)
            running.cancel()
    assert [each.seq for each in seen] == list(range(6, 31))


async def test_closing_ends_every_stream(tmp_path: Path) -> None:
    """When the feed closes, waiting viewers end at once."""
    async with SqliteStore(tmp_path) as store:
        feed = Feed(store, store.subscribe)
        viewers = [feed.follow(EventFilter()) for _ in range(5)]
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            waiting = [group.create_task(anext(viewer, None)) for viewer in viewers]
            group.create_task(asyncio.to_thread(feed._reader.head)).add_done_callback(
                lambda _: feed.close()
            )
        assert [task.result() for task in waiting] in ([None] * 5, [[]] * 5)
        assert [await anext(viewer, None) for viewer in viewers] == [None] * 5
        assert feed.viewers == 0
        with pytest.raises(NoCapacity):
            feed.check_room()


async def test_a_silent_stream_still_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without news a viewer gets an empty batch now and then, so that dead ones are noticed."""
    monkeypatch.setattr(feed_module, "HEARTBEAT_S", 0.01)
    async with SqliteStore(tmp_path) as store:
        feed = Feed(store, store.subscribe)
        async with asyncio.timeout(5), aclosing(feed.follow(EventFilter())) as batches:
            assert await anext(batches) == []


async def test_viewers_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One viewer too many is told so; the others watch on."""
    monkeypatch.setattr(feed_module, "VIEWERS_MAX", 1)
    async with SqliteStore(tmp_path) as store:
        feed = Feed(store, store.subscribe)
        feed.check_room()
        feed.viewers = 1
        with pytest.raises(NoCapacity):
            feed.check_room()
