"""What the web and the command line ask of payouts. Implements `web.interface.Payouts`.

Reads the payer's memory and the books; changes go through the payer.
"""

from openpool.core.errors import BadMessage, NotAllowed
from openpool.core.money.accounts import LPT, WORKER
from openpool.core.money.events import Asset
from openpool.core.money.orders import STATES
from openpool.core.money.payout_plan import amount_text
from openpool.core.money.payout_views import (
    Chosen,
    NextPayout,
    NextPayouts,
    OrderView,
    OwnerView,
    PayoutsView,
    chosen_by,
    in_flight,
    liabilities,
    order_view,
    orders_shown,
    owner_view,
    runway_days,
)
from openpool.treasury.payer import Payer

REASON_CHARS_MAX = 200
THRESHOLD_MAX_WEI = 10**24


class PayerView:
    """A window on one payer."""

    def __init__(
        self, payer: Payer, *, lpt: bool = False, staked: bool = False, per_day_max_lpt: int = 0
    ) -> None:
        """`lpt`: whether owners may choose to be paid in LPT. `staked`: whether those who did not
        choose get what they have in LPT as stake. `per_day_max_lpt`: the limit, 0 if none is
        ever sent."""
        self._payer = payer
        self._lpt = lpt
        self._staked = staked
        self._nexts = NextPayouts()
        self._per_day_max_lpt = per_day_max_lpt

    async def view(self) -> PayoutsView:
        payer, book = self._payer, self._payer.journal.book
        now_ms, rules = payer.journal.clock_ms(), payer.planner.options.rules
        plan = payer.last_plan
        return PayoutsView(
            mode=payer.options.mode,
            wallet=payer.sender.wallet,
            chain_id=payer.sender.chain.chain_id,
            paused=book.paused.reason if book.paused else "",
            paused_by=book.paused.by if book.paused else "",
            problem=payer.problem,
            held=payer.held,
            funds_wei=str(payer.funds_wei),
            missing_wei=str(plan.missing_wei if plan else 0),
            owed_wei=str(liabilities(await payer.journal.owed(WORKER))),
            owed_lpt=str(liabilities(await payer.journal.owed(LPT + WORKER))),
            paid_wei=str(sum(sent for (asset, _), sent in book.paid.items() if asset == "ETH")),
            in_flight_wei=str(in_flight(book)),
            spent_today_wei=str(book.spent_wei(now_ms)),
            per_day_max_wei=str(rules.per_day_max_wei),
            spent_today_lpt=str(book.spent_wei(now_ms, "LPT")),
            per_day_max_lpt=str(self._per_day_max_lpt),
            runway_days=runway_days(book, payer.funds_wei, now_ms),
            next_run_ms=payer.next_run_ms,
            counts=dict(book.counts),
            orders=orders_shown(book),
            next=self._next().page(book),
            next_addresses=self._next().addresses,
            blocked=dict(book.blocked),
        )

    async def orders(
        self, state: str, address: str, limit: int, before: str = ""
    ) -> tuple[OrderView, ...]:
        """Raises BadMessage for a state that there is not."""
        if state and state not in STATES:
            raise BadMessage(f"There is no state {state[:40]!r}; use one of {', '.join(STATES)}.")
        return orders_shown(self._payer.journal.book, address, state, limit, before)

    async def next(self, after: str, limit: int) -> tuple[NextPayout, ...]:
        return self._next().page(self._payer.journal.book, after, limit)

    async def order(self, order: str) -> OrderView | None:
        found = self._payer.order(order)
        return order_view(found) if found else None

    async def owner(self, address: str) -> OwnerView:
        rules = self._payer.planner.options.rules
        book = self._payer.journal.book
        return owner_view(address, self._next().of(address, book), rules, book, staked=self._staked)

    async def plan_now(self) -> tuple[NextPayout, ...]:
        """What a run would pay now; nothing is signed or sent."""
        await self._payer.rehearse()
        nexts = self._next()
        return nexts.page(self._payer.journal.book, limit=len(nexts))

    async def run_soon(self) -> None:
        """Raises NotAllowed if payouts are off."""
        if self._payer.options.mode == "off":
            raise NotAllowed("Payouts are off; set payouts.mode to shadow or on.")
        self._payer.run_soon()

    async def pause(self, reason: str) -> None:
        text = " ".join(reason.split())[:REASON_CHARS_MAX]
        await self._payer.pause(text or "The operator paused them.")

    async def resume(self) -> None:
        await self._payer.resume()

    async def unblock(self, address: str) -> None:
        await self._payer.unblock(address)

    async def choose(
        self, address: str, asset: Asset, threshold_wei: int, staked: bool | None
    ) -> Chosen:
        """How an owner wants to be paid; 0 is the pool's threshold, and with `staked` None that
        stays as it is. Raises BadMessage."""
        rules = self._payer.planner.options.rules
        if asset == "LPT" and not self._lpt:
            raise BadMessage("This pool pays fees in ETH only.")
        if not (threshold_wei == 0 or rules.minimum_wei <= threshold_wei <= THRESHOLD_MAX_WEI):
            least = amount_text(rules.minimum_wei)
            raise BadMessage(
                f"The threshold must be {least} or more; leave it to the pool with `pool`."
            )
        if staked is None:
            book = self._payer.journal.book
            staked = chosen_by(address, rules, book, staked=self._staked).staked
        await self._payer.choose(address, asset, threshold_wei, staked=staked)
        return chosen_by(address, rules, self._payer.journal.book)

    def _next(self) -> NextPayouts:
        """Of the newest plans, put in order once."""
        payer = self._payer
        plans = [(payer.last_plan, payer.planner.options.rules)] if payer.last_plan else []
        for part in payer.parts:
            plans += part.shown()
        if not self._nexts.are_of(plans):
            self._nexts = NextPayouts(plans)
        return self._nexts
