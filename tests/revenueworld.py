"""A pool's treasury over a real EVM with our contracts: what tests of money on chain share.

from revenueworld import world  # noqa: F401 - a fixture
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from evm import Livepeer
from stories import START_MS

from openpool.chain import contracts as c
from openpool.chain.client import EthereumChain, open_chain
from openpool.chain.livepeer import LivepeerContracts, open_livepeer
from openpool.core.events import Event, FeeCredited
from openpool.core.units import ETHER
from openpool.demo.evm import Evm, address
from openpool.store.interface import EventFilter
from openpool.store.sqlite import SqliteStore
from openpool.treasury.books import RevenueBooks
from openpool.treasury.closing import Closing
from openpool.treasury.follow import Follower
from openpool.treasury.wallets import WalletWatch

__all__ = ["world"]

ORCHESTRATOR = address("orchestrator")
WALLET = address("hot wallet")
ELSEWHERE = address("cold wallet")
NAME = "main"


class World:
    """The chain, what follows it, and where that is written."""

    def __init__(
        self, protocol: Livepeer, chain: EthereumChain, livepeer: LivepeerContracts, store: Any
    ) -> None:
        self.protocol = protocol
        self.evm: Evm = protocol.evm
        self.chain = chain
        self.livepeer = livepeer
        self.store = store
        self.restarts = False
        self._follower = self.follower()

    def follower(self) -> Follower:
        books = RevenueBooks(self.store)
        return Follower(
            chain=self.chain,
            livepeer=self.livepeer,
            books=books,
            closing=Closing(
                books=books, orchestrators=[NAME], clock_ms=_clock, lpt_share_ppm=400_000
            ),
            wallets=WalletWatch(
                chain=self.chain,
                livepeer=self.livepeer,
                books=books,
                wallets=[WALLET],
                clock_ms=_clock,
            ),
            orchestrators={NAME: ORCHESTRATOR},
            clock_ms=_clock,
            tag="finalized",
        )

    async def follow(self) -> None:
        """As far as it is final; with a restart after every step if that is wanted."""
        for _ in range(4 if self.restarts else 0):
            await self.follower().step()
            self._follower = self.follower()
        await self._follower.look()
        assert self._follower.problem == ""

    async def catch_up(self) -> None:
        await self.evm.finalize()
        await self.follow()

    def told(self, kind: type[Any]) -> list[Any]:
        stored = self.store.events(EventFilter(limit=10_000))
        return [each.event.data for each in stored if isinstance(each.event.data, kind)]

    def balance(self, account: str) -> int:
        return {b.account: b.amount_wei for b in self.store.balances()}.get(account, 0)

    async def claim(self) -> None:
        await self.bonding(c.BondingManager.claim_earnings, 0)

    async def withdraw(self, to: str, amount: int) -> None:
        await self.bonding(c.BondingManager.withdraw_fees, to, amount)

    async def bonding(self, method: Any, *values: object) -> None:
        await self.protocol.call("orchestrator", "BondingManager", method, *values)

    async def agrees(self) -> None:
        """Claim and wallet in the books are what the chain holds, to the wei."""
        final = (await self.chain.block("finalized")).number
        pending = await self.livepeer.pending_fees(ORCHESTRATOR, at=final)
        assert self.balance("claim:main") == -pending
        assert self.balance(f"wallet:{WALLET}") == -await self.chain.balance(WALLET, at=final)
        assert sum(b.amount_wei for b in self.store.balances() if "lpt/" not in b.account) == 0


def _clock() -> int:
    return START_MS


def credit(job: str, fee: int, owner: str = "") -> Event:
    """A worker earned a fee, of which the pool keeps nothing; `owner` else follows from the job."""
    data = FeeCredited(
        job=job,
        orchestrator=NAME,
        worker="w",
        address=owner or f"0x{job}",
        pixels=1,
        price_wei="1",
        price_source="config",
        fee_wei=str(fee),
        carry="0",
        commission_ppm=0,
        worker_wei=str(fee),
    )
    return Event(id=f"{job}/fee", time_ms=START_MS, data=data)


@pytest.fixture
async def world(protocol: Livepeer, tmp_path: Path) -> AsyncIterator[World]:
    """An active orchestrator that gives delegators 30 % of fees, and has some."""
    orchestrator = await protocol.add_orchestrator(
        "orchestrator", stake_lpt=3_000 * ETHER, fee_share_ppm=300_000, reward_cut_ppm=250_000
    )
    await protocol.add_orchestrator("rival", stake_lpt=9_000 * ETHER)
    await protocol.bond("delegator", 1_000 * ETHER, orchestrator)
    await protocol.fund_gateway("gateway", deposit_wei=3 * ETHER, reserve_wei=ETHER)
    await protocol.next_round()
    url, chain_id = protocol.evm.url, protocol.evm.chain_id
    async with open_chain([url], chain_id=chain_id, agree=1) as chain:
        livepeer = await open_livepeer(chain, protocol.addresses["Controller"])
        async with SqliteStore(tmp_path / "data") as store:
            yield World(protocol, chain, livepeer, store)
