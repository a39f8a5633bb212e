"""Compares the hot wallets with the books, whenever none of their orders is open.

What came in or went out without us is the operator's, and is booked as such. Where revenue is
followed on chain `treasury.follow` asks, which knows up to which block the books are complete;
where it is not, `run` looks by itself.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping

import structlog

from openpool.chain.interface import Chain, Livepeer, Tag
from openpool.core.events import Event
from openpool.core.money.events import Asset, WalletReconciled
from openpool.core.money.reconcile import drift
from openpool.core.money.revenue import Revenue, WalletOrders
from openpool.treasury.books import RevenueBooks
from openpool.treasury.faults import CHAIN_FAULTS, Trouble

log = structlog.get_logger()

Orders = Mapping[str, int]
"""How many orders had ended, by wallet, of the wallets that had none open."""


class WalletWatch:
    """The hot wallets of the pool."""

    def __init__(
        self,
        *,
        chain: Chain,
        livepeer: Livepeer | None,
        books: RevenueBooks,
        wallets: Collection[str],
        clock_ms: Callable[[], int],
        tag: Tag = "safe",
        poll_s: float = 30.0,
    ) -> None:
        """`livepeer` None: the wallets have no LPT that counts."""
        self._chain = chain
        self._livepeer = livepeer
        self._books = books
        self._clock_ms = clock_ms
        self._tag = tag
        self._poll_s = poll_s
        self._trouble = Trouble("wallets-not-compared")
        self.wallets = tuple(wallets)

    async def run(self) -> None:
        """Compare until cancelled; only where nobody else asks."""
        while True:
            await self.look()
            # what comes in from elsewhere must be asked for
            await asyncio.sleep(self._poll_s)

    async def look(self) -> None:
        """Compare now. What cannot be read is left for later."""
        try:
            orders = self.before(await self._books.refresh())
            await self.check((await self._chain.block(self._tag)).number, orders)
            self._trouble.over()
        except CHAIN_FAULTS as error:
            self._trouble.tell(error)

    def before(self, revenue: Revenue) -> Orders:
        """The orders as they are before the block is asked for at which balances are compared: an
        order that is planned later cannot be in that block, unless it shows here as ended."""
        found = {wallet: revenue.wallets.get(wallet, WalletOrders()) for wallet in self.wallets}
        return {wallet: orders.ended for wallet, orders in found.items() if not orders.open}

    async def check(self, block: int, before: Orders) -> None:
        """Book what the wallets hold more or less than the books say, after this block."""
        for wallet, ended in before.items():
            await self._check(wallet, "ETH", block, ended)
            if self._livepeer is not None and "LivepeerToken" in self._livepeer.addresses:
                await self._check(wallet, "LPT", block, ended)

    async def _check(self, wallet: str, asset: Asset, block: int, ended: int) -> None:
        held = await self._held(wallet, asset, block)
        revenue = await self._books.refresh()
        orders = revenue.wallets.get(wallet, WalletOrders())
        if orders.ended != ended or orders.open or orders.last_block > block:
            return
        number = revenue.round.number if revenue.round else 0
        was_booked = orders.reconciled.get(asset) == number
        found = drift(held, await self._books.wallet(wallet, asset), was_booked=was_booked)
        if found is None:
            return
        is_in, amount = found
        data = WalletReconciled(
            wallet=wallet,
            asset=asset,
            block=block,
            direction="in" if is_in else "out",
            amount_wei=str(amount),
        )
        event_id = f"wallet/{wallet}/{asset}/{block}"
        await self._books.write([Event(id=event_id, time_ms=self._clock_ms(), data=data)])

    async def _held(self, wallet: str, asset: Asset, block: int) -> int:
        if asset == "LPT" and self._livepeer is not None:
            return await self._livepeer.lpt_balance(wallet, at=block)
        return await self._chain.balance(wallet, at=block)
