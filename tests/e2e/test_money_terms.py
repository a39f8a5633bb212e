"""The operator changes the terms of a running business: announced first, then in force, and said so
in every statement."""

import json

import pytest
from evm import *  # noqa: F403
from moneypool import *  # noqa: F403
from moneypool import Ground, MoneyPool, money_pool, openpool, replayed

from openpool import app_money
from openpool.demo.orchestrator import StandIn
from openpool.pool.driver import wall_ms
from openpool.treasury import terms as published

NOTICE_MS = 3_600_000
SETTINGS = """
commission: {commission}
statements: {{notice_ms: {notice}}}
"""


class Clock:
    """The machine's, set forward for all that is about money."""

    ahead_ms = 0

    def __call__(self) -> int:
        return wall_ms() + self.ahead_ms


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(app_money, "wall_ms", made)
    monkeypatch.setattr(published, "LOOK_MS", 50)
    return made


def rates(money: MoneyPool) -> list[int]:
    return [each.commission_ppm for each in money.events("fee-credited")]


async def test_new_terms_are_announced_before_they_apply(ground: Ground, clock: Clock) -> None:
    """Old commission until the notice is over, also after a restart; new commission from then on,
    without one; the owner is told, and each statement names the terms that held."""
    before = ground.chain() + SETTINGS.format(commission="10%", notice=NOTICE_MS)
    after = ground.chain() + SETTINGS.format(commission="30%", notice=NOTICE_MS)
    async with StandIn("o-secret") as orchestrator:
        async with money_pool(ground, orchestrator, before) as money:
            await money.followed()
            await money.enrol("Ann")
            await money.work("Ann")
        async with money_pool(ground, orchestrator, after) as money:
            await money.enrol("Ann")
            await announced(money)
            await money.work("Ann")
            first = await money.end_round()
            clock.ahead_ms = NOTICE_MS + 1_000
            await money.until(lambda: money.promise().version == 2, "the new terms")
            await money.until(lambda: commission(money) == 300_000, "the new commission")
            await money.work("Ann")
            second = await money.end_round()
            assert rates(money) == [100_000, 100_000, 300_000]
            await named(money, first, 1)
            await named(money, second, 2)
        async with money_pool(ground, orchestrator, after) as money:
            assert (money.promise().version, len(money.events("terms-published"))) == (2, 2)
    await replayed(money.folder)


def commission(money: MoneyPool) -> int:
    return money.running.process.enrolment.terms().commission_ppm


async def announced(money: MoneyPool) -> None:
    notice = await money.ask("GET", "/terms/notice", headers={"Authorization": ""})
    assert (notice["version"], notice["next_version"]) == (1, 2)
    assert "commission_ppm: 100000 becomes 300000." in notice["changes"]
    async with money.signed_in("Ann") as ann:
        assert "The terms change" in (await ann.get("/earnings")).text


async def named(money: MoneyPool, round: int, version: int) -> None:
    """The statement names these terms, and `openpool verify` finds them right."""
    await money.verified(round)
    folder = money.folder / f"verify-{round}"
    terms = await money.operator.get("/terms.json", params={"version": version})
    (folder / "terms.json").write_bytes(terms.raise_for_status().content)
    out, _ = await openpool(
        "verify", "statement.json", "--terms", "terms.json", "--json", folder=folder
    )
    assert json.loads(out)["ok"]
