"""What terms change when they begin to apply: fees, commissions, thresholds."""

from pathlib import Path

from msgspec.structs import replace
from statement_log import BOB
from test_treasury_statements import PROMISE, treasury

from openpool.app_terms import put_into_force
from openpool.core.desk import Desk, DeskSettings
from openpool.core.events import Event, WorkerEnrolled
from openpool.core.facts import WorkerKnown
from openpool.core.money.fees import Fees
from openpool.core.money.payout_plan import Rules
from openpool.core.pool import Pool
from openpool.core.settings import PoolSettings
from openpool.pool.driver import Driver
from openpool.treasury.planner import PlannerOptions


class FakeMoney:
    """As much of money as acts by terms: it is its own payer, planner, closing and settler."""

    lpt_share_ppm = 0

    def __init__(self) -> None:
        self.payer = self.planner = self.closing = self.settler = self
        self.divided_by: dict[str, object] = {}
        self.options = PlannerOptions(
            rules=Rules(threshold_wei=1, minimum_wei=1, per_day_max_wei=7), keep_wei=5
        )

    async def change(self, **terms: object) -> None:
        self.divided_by = terms


async def test_terms_reach_fees_workers_and_payouts(tmp_path: Path) -> None:
    """Everything that the promise says, and nothing that it does not."""
    async with treasury(tmp_path) as pool:
        enrolled = WorkerEnrolled(worker="w_b", address=BOB, name="b", group="default", terms="")
        await pool.store.append([Event(id="e", time_ms=1, data=enrolled)]).durable()
        terms = pool.terms()
        await terms.publish(replace(PROMISE, scheme="window", gas_paid_by="worker"))
        core = Pool(PoolSettings(), orchestrators={}, epoch=1)
        driver = Driver(core, Desk(DeskSettings(), 1, Fees()), pool.store)
        driver.feed(WorkerKnown(worker="w_b", address=BOB, commission_ppm=1))
        money = FakeMoney()
        await put_into_force(terms, driver, pool.store, money)  # type: ignore[arg-type]
        assert core.fees.scheme == "window"
        assert core.roster.workers["w_b"].commission_ppm == PROMISE.commission_ppm
        assert (money.divided_by["scheme"], money.divided_by["rules"]) == ("window", [])
        assert money.lpt_share_ppm == PROMISE.reward_share_ppm
        rules = money.options.rules
        assert (rules.threshold_wei, rules.minimum_wei) == (1000, 10)
        assert rules.gas_paid_by_worker
        assert (rules.per_day_max_wei, money.options.keep_wei) == (7, 5)
