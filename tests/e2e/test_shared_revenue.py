"""A pool that shares what is realised, from delivered jobs to shares, with a rule."""

import asyncio
from pathlib import Path

from openpool.core.events import Event
from openpool.core.model import Segment
from openpool.core.money.events import (
    AdjustmentMade,
    RevenueRealised,
    RoundSettled,
    RoundStarted,
    ShareCredited,
)
from openpool.demo.media import make_segments
from openpool.demo.orchestrator import StandIn
from openpool.store import replay
from openpool.store.interface import EventFilter
from openpool.wire.results import RenditionData
from openpool.worker.engine import transcode
from openpool.worker.terms import EngineSettings
from tests.network import PROFILES, RunningPool, pool, worker, write_config

SETTINGS = """
revenue:
  scheme: proportional
  hooks:
    - rule: holdback
      options: rate=10%, rounds=2
"""
REALISED_WEI = 10**18 + 1


async def honest(source: bytes, segment: Segment) -> list[RenditionData]:
    result = await asyncio.to_thread(transcode, source, segment, EngineSettings())
    return [
        RenditionData(data=each.data, pixels=each.pixels, container=each.container)
        for each in result.renditions
    ]


def balances(running: RunningPool) -> dict[str, int]:
    return {b.account: b.amount_wei for b in running.store.balances() if b.amount_wei}


def of(running: RunningPool, kind: str) -> list[object]:
    return [each.event.data for each in running.store.events(EventFilter(types=(kind,)))]


async def test_a_round_is_shared_to_the_wei(tmp_path: Path) -> None:
    """Fees only accrue until the round ends. Then all that came in has an owner, the rule has held
    its tenth, and the books follow from the log alone."""
    async with StandIn("o-secret") as orchestrator:
        async with pool(write_config(tmp_path, [orchestrator], SETTINGS)) as running:
            token = await running.enroll("box")
            address = running.accounts["box"]
            async with worker(running, token, honest):
                await orchestrator.wait_registered(1)
                for seq, data in enumerate(make_segments(320, 180, 30, 1, 2)):
                    outcome = await orchestrator.submit("s", seq, data, 1000, PROFILES)
                    assert outcome.ok, outcome.error
                await running.settled()
            before = balances(running)
            assert before[f"accrued:orch0:{address}"] > 0
            assert f"worker:{address}" not in before
            await end_round(running)
            after = balances(running)
            (settled,), (share,) = of(running, "round-settled"), of(running, "share-credited")
            (held,) = of(running, "adjustment-made")
    assert isinstance(settled, RoundSettled)
    assert isinstance(share, ShareCredited)
    assert isinstance(held, AdjustmentMade)
    assert (settled.rule, settled.rule_options) == ("holdback", "rate=10%, rounds=2")
    assert int(settled.shared_wei) + int(settled.carried_wei) == REALISED_WEI
    assert int(share.accrued_wei) == before[f"accrued:orch0:{address}"]
    assert int(held.amount_wei) == int(share.share_wei) // 10
    assert after == {
        "claim:orch0": -REALISED_WEI,
        "commission": int(share.commission_wei),
        f"worker:{address}": int(share.share_wei) - int(held.amount_wei),
        f"holdback:{address}": int(held.amount_wei),
    }
    assert replay.check(tmp_path / "data").faults == ()


async def end_round(running: RunningPool) -> None:
    """Revenue comes in, and another round begins."""
    money = running.process.money
    assert money is not None
    await running.store.append([]).durable()
    (started,) = running.store.events(EventFilter(types=("round-started",)))
    now_ms = started.event.time_ms + 1
    realised = RevenueRealised(
        orchestrator="orch0",
        round=1,
        from_block=1,
        to_block=1,
        amount_wei=str(REALISED_WEI),
        paid_wei=str(REALISED_WEI),
        tickets=1,
    )
    next_round = RoundStarted(round=2, source="clock")
    events = [
        Event(id="revenue/1", time_ms=now_ms, data=realised),
        Event(id="round/clock/2", time_ms=now_ms, data=next_round),
    ]
    await running.store.append(events).durable()
    await money.settler.settle_due()
