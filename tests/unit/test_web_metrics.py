"""Metrics: true, parsable, and few."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from webpool import NOW_MS, OPERATOR, WebPool, bearer, running

from openpool.web.storybook import Story


async def scraped(client, pool: WebPool) -> dict[str, float]:  # type: ignore[no-untyped-def]
    """All samples by name and labels, once every committed event was seen."""
    await pool.app.state.feed.changed(pool.store.head()[0] - 1)
    answer = (await client.get("/metrics", headers=bearer(OPERATOR))).raise_for_status()
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        sample.name + "".join(f",{k}={v}" for k, v in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_counters_follow_the_log_and_gauges_the_pool(tmp_path: Path) -> None:
    """What was committed is counted, once; gauges show the core's snapshot and the ledger."""
    story = Story(start_ms=NOW_MS - 600_000, end_ms=NOW_MS, per_minute=6).events()
    async with running(tmp_path) as (pool, client):
        pool.live.tell(NOW_MS)
        await pool.append(*story)
        await pool.append(*story)
        found = await scraped(client, pool)
        counts = pool.store.counts()
        for kind, count in counts.items():
            assert found[f"openpool_events_total,type={kind}"] == count
        assert found["openpool_round_trip_seconds_count"] == counts["job-delivered"]
        assert found["openpool_media_seconds_total"] == 2 * counts["job-delivered"]
        assert found["openpool_orchestrator_up,orchestrator=orch-frankfurt"] == 1
        assert found["openpool_orchestrator_up,orchestrator=orch-chicago"] == 0
        assert found["openpool_registered_slots,orchestrator=orch-frankfurt"] == 24
        assert found["openpool_workers_connected"] == 6
        fees = -sum(b.amount_wei for b in pool.store.balances("fees:"))
        assert abs(found["openpool_fees_gwei"] - fees / 1e9) < 1
        assert not any("worker=" in name or "job=" in name for name in found)
        assert len(found) < 150, "low cardinality"
