"""The pool's upstream client against the pool's own worker port: a pool that works for a pool."""

from pathlib import Path

from openpool.demo.media import make_segments
from openpool.demo.orchestrator import StandIn
from tests.e2e.test_pool import honest
from tests.network import PROFILES, pool, worker, write_config


async def test_a_pool_can_be_a_worker_of_another_pool(tmp_path: Path) -> None:
    """Segments pass two pools unharmed, and each keeps books of its own that add up."""
    (tmp_path / "outer").mkdir()
    (tmp_path / "inner").mkdir()
    async with StandIn("o-secret", local_verify=True) as orchestrator:
        async with pool(write_config(tmp_path / "outer", [orchestrator])) as outer:
            token = await outer.enroll("inner pool")
            address = outer.running.worker_port
            config = write_config(tmp_path / "inner", [f"{address.host}:{address.port}"])
            config.write_text(config.read_text().replace("o-secret", token))
            async with pool(config) as inner:
                box = await inner.enroll("box")
                async with worker(inner, box, honest, capacity=6):
                    await orchestrator.wait_registered(1)
                    for seq, data in enumerate(make_segments(320, 180, 30, 1, 3)):
                        outcome = await orchestrator.submit("s", seq, data, 2000, PROFILES)
                        assert outcome.ok, outcome.error
                    await inner.settled()
                    inner_books = {b.account: b.amount_wei for b in inner.store.balances()}
            await outer.settled()
            outer_books = {b.account: b.amount_wei for b in outer.store.balances()}
    assert set(outer_books) == {
        "fees:orch0",
        "commission",
        f"worker:{outer.accounts['inner pool']}",
    }
    assert outer_books["fees:orch0"] == inner_books["fees:orch0"]
    assert sum(outer_books.values()) == sum(inner_books.values()) == 0
