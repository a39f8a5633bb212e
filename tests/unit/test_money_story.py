"""The canned story of money, on which the pages are looked at, tells the truth about itself."""

from pathlib import Path

from webpool import NOW_MS, web_pool

from openpool.core.money.ledger import balance_faults
from openpool.core.money.orders import STATES
from openpool.web.money_story import MoneyStory
from openpool.web.storybook import CAST, Story

WORK = Story(start_ms=NOW_MS - 3_600_000, end_ms=NOW_MS, per_minute=1).events()
STORY = [*WORK, *MoneyStory(end_ms=NOW_MS, work=WORK).events()]


async def test_the_story_of_money_balances(tmp_path: Path) -> None:
    """Books and claims agree, orders stand at every step, the wallet is short, an address is
    blocked, every ended round has its statement, terms are about to change, a dispute is open."""
    async with web_pool(tmp_path, STORY, money=True) as pool:
        deps = pool.deps
        assert deps.revenue
        assert deps.payouts
        assert deps.proofs
        rows = [(row.account, row.amount_wei) for row in pool.store.balances()]
        assert balance_faults(rows) == []
        payouts = await deps.payouts.view()
        assert all(payouts.counts[state] for state in STATES)
        assert int(payouts.missing_wei) > 0
        assert int(payouts.funds_wei) > 0
        assert [*payouts.blocked] == [next(w for w in CAST if w.name == "fjord-3060").address]
        for each in (await deps.revenue.view()).orchestrators:
            assert each.pending_wei == each.claim_wei
            assert len(each.rounds) == 31
        assert len(deps.proofs.statements.rows) == 30
        assert deps.proofs.terms.pending() is not None
        assert [dispute.open for dispute in await deps.proofs.disputes.all()] == [True]


async def test_the_storys_brake_and_choices_hold(tmp_path: Path) -> None:
    """A pause and a choice are in the log, and the plan follows them."""
    async with web_pool(tmp_path, STORY, money=True) as pool:
        payouts = pool.deps.payouts
        assert payouts
        await payouts.pause("Looking at it.")
        assert (await payouts.view()).paused == "Looking at it."
        await payouts.resume()
        assert (await payouts.view()).paused == ""
        owner = CAST[0].address
        await payouts.choose(owner, "ETH", 10**19, None)
        assert (await payouts.owner(owner)).chosen.threshold_wei == str(10**19)
        assert not any(each.due for each in (await payouts.owner(owner)).next)
