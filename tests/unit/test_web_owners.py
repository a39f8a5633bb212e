"""The operator's way to somebody's earnings."""

from pathlib import Path

from webpool import NOW_MS, OPERATOR, bearer, running

from openpool.core import events as e
from openpool.core.events import Event
from openpool.store.interface import Balance, WorkerRow
from openpool.web.owner_pages import OWNERS_SHOWN, owners_of
from openpool.web.storybook import CAST, Story

STORY = Story(start_ms=NOW_MS - 3_600_000, end_ms=NOW_MS, per_minute=2).events()


def worker(name: str, address: str, credited_wei: int = 0) -> WorkerRow:
    return WorkerRow(
        worker=f"w_{name}",
        address=address,
        name=name,
        group="default",
        state="approved",
        enrolled_ms=1,
        last_connected_ms=0,
        last_disconnected_ms=0,
        segments=0,
        failed=0,
        refused=0,
        credited_wei=credited_wei,
    )


def test_owners_are_their_workers_together() -> None:
    """Workers of one address are one owner; the books say how much is owed, the most first."""
    rows = [worker("a", "0x1", 5), worker("b", "0x2", 90), worker("c", "0x1", 7)]
    balances = [
        Balance(account="worker:0x1", amount_wei=3),
        Balance(account="lpt/worker:0x1", amount_wei=8),
        Balance(account="worker:0x2", amount_wei=2),
        Balance(account="commission", amount_wei=1000),
    ]
    first, second = owners_of(rows, balances)
    assert (first.address, first.owed_wei, first.owed_lpt, first.credited_wei) == ("0x1", 3, 8, 12)
    assert [each.name for each in first.workers] == ["c", "a"]
    assert (second.address, second.owed_wei, second.owed_lpt) == ("0x2", 2, 0)


async def test_the_operator_chooses_whose_earnings(tmp_path: Path) -> None:
    """Without an address the page lists all with their workers, and leads to each; an address that
    is none gets a sentence. Others are not asked whose."""
    async with running(tmp_path, STORY) as (pool, client):
        html = {"accept": "text/html"} | bearer(OPERATOR)
        page = await client.get("/earnings", headers=html)
        assert page.status_code == 200
        for who in CAST:
            assert f'href="/earnings?address={who.address}"' in page.text
            assert f'href="/workers/{who.id}"' in page.text
        assert (await client.get(f"/earnings?address={CAST[0].address}", headers=html)).is_success
        part = await client.get("/earnings", headers=html | {"HX-Request": "true"})
        assert "<html" not in part.text
        wrong = await client.get("/earnings?address=0x12", headers=html)
        assert (wrong.status_code, "40 hexadecimal digits" in wrong.text) == (400, True)
        await pool.enrol("rig")
        mine = await client.get("/earnings", headers=bearer(pool.tokens["rig"]))
        assert CAST[0].address not in mine.text


async def test_a_pool_without_workers_says_who_would_be_here(tmp_path: Path) -> None:
    """An empty list is a sentence."""
    async with running(tmp_path) as (_, client):
        page = await client.get("/earnings", headers=bearer(OPERATOR))
        assert "Nobody yet" in page.text


async def test_a_long_list_says_how_many_more(tmp_path: Path) -> None:
    """So many addresses are shown; the rest is a number."""
    story = [
        Event(
            id=f"enrolled/{n}",
            time_ms=NOW_MS - n,
            data=e.WorkerEnrolled(
                worker=f"w_{n}", address=f"0x{n:040x}", name=f"rig-{n}", group="default", terms=""
            ),
        )
        for n in range(OWNERS_SHOWN + 7)
    ]
    async with running(tmp_path, story) as (_, client):
        page = await client.get("/earnings", headers=bearer(OPERATOR))
        assert "And 7 more" in page.text
        assert page.text.count('<tr id="o-') == OWNERS_SHOWN
