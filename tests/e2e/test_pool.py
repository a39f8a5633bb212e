"""A pool between the orchestrator stand-in and workers, all parts real."""

import asyncio
from functools import lru_cache
from pathlib import Path

from openpool.core.model import Segment
from openpool.demo.media import make_segments
from openpool.demo.orchestrator import StandIn
from openpool.wire.results import RenditionData
from openpool.worker.engine import transcode
from openpool.worker.terms import EngineSettings
from tests.network import PROFILES, pool, worker, write_config


@lru_cache
def segments() -> tuple[bytes, ...]:
    return tuple(make_segments(320, 180, 30, 1, 3))


async def honest(source: bytes, segment: Segment) -> list[RenditionData]:
    result = await asyncio.to_thread(transcode, source, segment, EngineSettings())
    return [
        RenditionData(data=each.data, pixels=each.pixels, container=each.container)
        for each in result.renditions
    ]


async def test_a_segment_goes_there_and_back_and_is_paid_exactly(tmp_path: Path) -> None:
    """Real video returns as asked for, and the books hold the exact fee, split 25 to 75."""
    async with StandIn("o-secret", local_verify=True) as orchestrator:
        config = write_config(tmp_path, [orchestrator])
        async with pool(config) as running:
            token = await running.enroll("box")
            async with worker(running, token, honest) as box:
                await orchestrator.wait_registered(1)
                for seq, data in enumerate(segments()):
                    outcome = await orchestrator.submit("stream", seq, data, 1000, PROFILES)
                    assert outcome.ok, outcome.error
                    assert [r.profile.name for r in outcome.renditions] == ["P240", "P144"]
                assert [answer.status for answer in box.answers] == [200, 200, 200]
            balances = {b.account: b.amount_wei for b in running.store.balances()}
    pixels = 3 * 30 * (320 * 180 + 256 * 144)
    fee = pixels * 1000 // 3
    assert balances["commission"] == fee // 4
    assert balances[f"worker:{running.accounts['box']}"] == fee - fee // 4
    assert sum(balances.values()) == 0
