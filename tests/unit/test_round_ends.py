"""Rounds are settled and stated as they end, without looking for it by a clock."""

import asyncio
from pathlib import Path

from test_treasury_statements import treasury

from openpool.core.events import AnyPayload, Event, PoolStopped
from openpool.core.money.events import RoundStarted
from openpool.store.feed import Subscriptions
from openpool.store.interface import EventFilter, StoredEvent
from openpool.treasury.round_ends import RoundEnds, heard
from openpool.treasury.settle import Settler

DULL, NEWS = PoolStopped(epoch=1, reason="the end"), RoundStarted(round=1, source="clock")


def stored(seq: int, data: AnyPayload) -> StoredEvent:
    return StoredEvent(seq=seq, event=Event(id=f"e{seq}", time_ms=1, data=data), chain="")


async def test_a_round_is_settled_and_stated_as_it_ends(tmp_path: Path) -> None:
    """What was due before the start, too; a statement has the settlement of its round."""
    async with treasury(tmp_path) as pool:
        pool.log.round(1)
        pool.log.work(5, scheme="proportional")
        pool.log.realised(1, 1_000_000)
        pool.log.round(2)
        await pool.write()
        settler = Settler(store=pool.store, scheme="proportional", window_rounds=0)
        ends = RoundEnds(pool.store, settler, await pool.statements(settler.is_settled))
        told = pool.store.subscribe()

        async def until_stated(round: int) -> None:
            async for batch in told:
                if any(each.event.id == f"statement/{round}" for each in batch):
                    return

        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            task = tasks.create_task(ends.run())
            await until_stated(1)
            pool.log.work(3, scheme="proportional")
            pool.log.round(3)
            await pool.write()
            await until_stated(2)
            task.cancel()
        settled = pool.store.events(EventFilter(types=("round-settled",)))
        assert len(settled) == len(pool.made()) == 2
        assert [made.seq for made in pool.made()] >= [each.seq for each in settled]


async def test_it_ends_with_the_store(tmp_path: Path) -> None:
    """Nobody has to cancel it."""
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        async with treasury(tmp_path) as pool:
            settler = Settler(store=pool.store, scheme="per-job", window_rounds=0)
            ends = RoundEnds(pool.store, settler, await pool.statements())
            task, told = tasks.create_task(ends.run()), pool.store.subscribe()
            pool.log.round(1)
            pool.log.round(2)
            await pool.write()
            async for batch in told:
                if any(each.event.type == "statement-made" for each in batch):
                    break
        await task


async def test_one_look_for_each_news_and_for_what_was_missed() -> None:
    """At first; then only if something of the kind happened, or may have, since a listener that is
    slow loses events."""
    feed = Subscriptions(waiting_max=2)
    looks = heard(feed, ["round-started"])
    await anext(looks)
    feed.publish([stored(1, DULL), stored(2, NEWS)])
    await anext(looks)
    feed.publish([stored(3, NEWS), stored(4, DULL), stored(5, DULL)])
    await anext(looks)
    feed.publish([stored(6, DULL), stored(7, DULL)])
    feed.close()
    assert [None async for _ in looks] == []
