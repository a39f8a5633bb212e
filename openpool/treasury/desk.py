"""Revenue for people: one view of everything, and the operator's record where there is no chain."""

import asyncio
from collections.abc import Callable, Collection, Mapping

from msgspec.structs import replace

from openpool.core.customers import amount_wei, checked_reference
from openpool.core.errors import BadMessage, NotAllowed
from openpool.core.events import Event
from openpool.core.money.events import FeesWithdrawn, RevenueRealised
from openpool.core.money.revenue import Revenue, Standing, WalletOrders
from openpool.core.money.revenue_views import (
    OrchestratorRevenue,
    RevenueView,
    RoundView,
    WalletView,
    alerts,
    luck_of,
    round_views,
    ticket_view,
)
from openpool.treasury.books import RevenueBooks
from openpool.treasury.follow import Follower
from openpool.treasury.reward import RewardWatch


class RevenueDesk:
    """What the web asks (`web.interface.Revenue`)."""

    def __init__(
        self,
        *,
        books: RevenueBooks,
        orchestrators: Mapping[str, str],
        clock_ms: Callable[[], int],
        wallets: Collection[str] = (),
        follower: Follower | None = None,
        rewards: RewardWatch | None = None,
        wei_per_usd: Callable[[], int] = lambda: 0,
    ) -> None:
        """`orchestrators`: all of the settings, name → address on chain, which may be empty.
        `follower` is None where rounds are made by the clock."""
        self._books = books
        self._orchestrators = dict(orchestrators)
        self._clock_ms = clock_ms
        self._wallets = tuple(wallets)
        self._follower = follower
        self._rewards = rewards
        self._wei_per_usd = wei_per_usd
        self._recording = asyncio.Lock()

    # --- what there is -------------------------------------------------------------------------

    async def view(self) -> RevenueView:
        """Everything, as of now."""
        revenue = await self._books.refresh()
        mark = revenue.round
        view = RevenueView(
            source="clock" if self._follower is None else "chain",
            round=mark.number if mark else 0,
            round_start_ms=mark.start_ms if mark else 0,
            block=self._follower.block if self._follower else 0,
            problem=self._follower.problem if self._follower else "",
            orchestrators=[
                await self._orchestrator(revenue.standing(name)) for name in self._orchestrators
            ],
            wallets=[await self._wallet(revenue, wallet) for wallet in self._wallets],
            alerts=[],
        )
        return replace(view, alerts=alerts(view))

    async def rounds(self, orchestrator: str, before: int | None, limit: int) -> list[RoundView]:
        """Raises BadMessage if there is no such orchestrator."""
        if orchestrator not in self._orchestrators:
            raise BadMessage("There is no orchestrator of this name in the settings.")
        revenue = await self._books.refresh()
        return round_views(revenue.standing(orchestrator), before, limit)

    async def _orchestrator(self, standing: Standing) -> OrchestratorRevenue:
        name, seen = standing.orchestrator, standing.observed
        return OrchestratorRevenue(
            orchestrator=name,
            address=standing.address,
            block=standing.block,
            luck=luck_of(standing),
            realised_wei=str(standing.realised_wei),
            pending_wei=str(standing.pending_wei),
            claim_wei=str(await self._books.claim_wei(name)),
            fees_wei=str(await self._books.fees_wei(name)),
            active=seen.active if seen else False,
            reward_cut_ppm=seen.reward_cut_ppm if seen else 0,
            fee_share_ppm=seen.fee_share_ppm if seen else 0,
            stake_lpt=seen.stake_lpt if seen else "0",
            own_stake_lpt=seen.own_stake_lpt if seen else "0",
            rank=seen.rank if seen else 0,
            reward=self._rewards.views.get(name) if self._rewards else None,
            rounds=round_views(standing),
            tickets=[ticket_view(ticket) for ticket in reversed(standing.tickets)],
        )

    async def _wallet(self, revenue: Revenue, wallet: str) -> WalletView:
        return WalletView(
            wallet=wallet,
            eth_wei=str(await self._books.wallet(wallet)),
            lpt=str(await self._books.wallet(wallet, "LPT")),
            open_orders=len(revenue.wallets.get(wallet, WalletOrders()).open),
        )

    # --- the operator's record -----------------------------------------------------------------

    async def record(self, orchestrator: str, amount: str, reference: str) -> bool:
        """Book revenue that an orchestrator without a chain brought; `amount` like `0.5 ETH`.

        The operator has it in hand, so it leaves the claim at once. Each reference counts once per
        orchestrator; whether this one is new. Raises BadMessage, NotAllowed.
        """
        wei = amount_wei(amount, self._wei_per_usd())
        reference = checked_reference(reference)
        revenue = await self._books.refresh()
        mark = revenue.round
        if orchestrator not in self._orchestrators:
            raise BadMessage("There is no orchestrator of this name in the settings.")
        if self._is_followed(orchestrator, revenue):
            raise NotAllowed(f"{orchestrator} is followed on chain, which books what it brings.")
        if wei <= 0 or mark is None:
            raise BadMessage("Only an amount above zero can be recorded, once the pool runs.")
        async with self._recording:
            before = revenue.standing(orchestrator).recorded_wei
            await self._books.write(self._recorded(orchestrator, mark.number, wei, reference))
            return revenue.standing(orchestrator).recorded_wei > before

    def _is_followed(self, orchestrator: str, revenue: Revenue) -> bool:
        wanted = self._follower is not None and self._orchestrators[orchestrator]
        return bool(wanted or revenue.standing(orchestrator).address)

    def _recorded(self, name: str, number: int, wei: int, reference: str) -> list[Event]:
        prefix, now_ms, amount = f"revenue/{name}/{reference}", self._clock_ms(), str(wei)
        realised = RevenueRealised(
            orchestrator=name,
            round=number,
            from_block=0,
            to_block=0,
            amount_wei=amount,
            paid_wei=amount,
            tickets=0,
        )
        taken = FeesWithdrawn(
            orchestrator=name, recipient="operator", wallet="", amount_wei=amount, tx=""
        )
        return [
            Event(id=f"{prefix}/realised", time_ms=now_ms, data=realised),
            Event(id=f"{prefix}/withdrawn", time_ms=now_ms, data=taken),
        ]
