"""Follows orchestrators' revenue on chain, block range by block range, into the log.

A range never reaches over the end of a round, nor past the block that is final enough
(`safe` or `finalized`), so nothing that was written is reorganised away. What a range brought is
one transaction whose ids are made from its first block: after a crash the log says where to go
on, and the same range twice counts once. A range without news is not written at all; it is read
again, with the next one, after a restart.

All orchestrators are followed side by side, so that everything of a round stands in the log before
the next `round-started`. Endpoints must serve the state of blocks as old as the pool's downtime.
Read `treasury.ranges` for what is read of one orchestrator.
"""

import asyncio
from collections.abc import Callable, Mapping

import structlog

from openpool.chain.interface import Chain, Livepeer, Tag
from openpool.core.errors import SetupError
from openpool.core.events import AnyPayload, Event
from openpool.core.money.events import ClaimOpened, RewardMissed, RoundStarted
from openpool.core.money.revenue import Revenue, Standing
from openpool.treasury.books import RevenueBooks
from openpool.treasury.closing import Closing
from openpool.treasury.faults import CHAIN_FAULTS, Trouble
from openpool.treasury.ranges import RangeReader
from openpool.treasury.wallets import WalletWatch

log = structlog.get_logger()

Fact = tuple[str, AnyPayload]
"""An event's id, and what happened."""


class Follower:
    """One chain, and the orchestrators of ours on it."""

    def __init__(
        self,
        *,
        chain: Chain,
        livepeer: Livepeer,
        books: RevenueBooks,
        closing: Closing,
        orchestrators: Mapping[str, str],
        clock_ms: Callable[[], int],
        wallets: WalletWatch | None = None,
        tag: Tag = "safe",
        from_block: int = 0,
        poll_s: float = 30.0,
    ) -> None:
        """`orchestrators` is name → address on chain. `from_block`: where the very first look
        begins; 0 is the block that is `tag` then. Raises SetupError if two share an address."""
        self._chain = chain
        self._livepeer = livepeer
        self._books = books
        self._closing = closing
        self._orchestrators = _distinct(orchestrators)
        self._clock_ms = clock_ms
        self._wallets = wallets
        self._tag = tag
        self._from_block = from_block
        self._poll_s = poll_s
        self._ranges = RangeReader(livepeer, wallets.wallets if wallets else ())
        self._seen: dict[str, int] = {}
        """Blocks without news that were looked at since the latest range in the log."""
        self.block = 0
        """Everything up to this block is known."""
        self._trouble = Trouble("chain-not-followed")
        self.problem = ""
        """Why following stands still; empty if it does not."""

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            await self.look()
            # an endpoint tells nothing by itself: a new final block must be asked for
            await asyncio.sleep(self._poll_s)

    async def look(self) -> None:
        """Follow as far as the chain is final. What cannot be read now is left for later."""
        try:
            while await self.step():
                pass
            self.problem = self._moved()
            self._trouble.over()
        except CHAIN_FAULTS as error:
            self._trouble.tell(error)
            self.problem = self._trouble.text

    async def step(self) -> bool:
        """Take one step; False if there is nothing more to do. Raises one of CHAIN_FAULTS."""
        await self._closing.close()
        revenue = self._books.revenue
        orders = self._wallets.before(revenue) if self._wallets else None
        safe = (await self._chain.block(self._tag)).number
        followed = self._followed(revenue)
        if not followed:
            return await self._open(self._from_block or safe, safe)
        self.block = min(self._position(each) for each in followed)
        if self.block < safe:
            await self._advance(revenue, followed, safe)
            return True
        if await self._open(safe, safe):
            return True
        if self._wallets is not None and orders is not None:
            await self._wallets.check(self.block, orders)
        return False

    def _followed(self, revenue: Revenue) -> list[Standing]:
        standings = [revenue.standing(name) for name in self._orchestrators]
        return [s for s in standings if s.address == self._orchestrators[s.orchestrator]]

    def _moved(self) -> str:
        """A complaint about those that have another address than when following began."""
        for name, address in self._orchestrators.items():
            before = self._books.revenue.standing(name).address
            if before not in ("", address):
                return (
                    f"Orchestrator {name} was followed at {before} and is not followed at "
                    f"{address}; give it another name in the settings, since its books are open."
                )
        return ""

    def _position(self, standing: Standing) -> int:
        return max(standing.block, self._seen.get(standing.orchestrator, 0))

    # --- the beginning -------------------------------------------------------------------------

    async def _open(self, block: int, safe: int) -> bool:
        """Begin to follow those that are not followed yet, from this block on."""
        revenue = self._books.revenue
        new = [name for name in self._orchestrators if not revenue.standing(name).address]
        if not new or block > safe:
            return False
        number = await self._number(block)
        facts: list[Fact] = []
        if revenue.chain_round != number:
            facts.append(_round_started(number, block))
        for name in new:
            facts.append((f"chain/{name}/opened", await self._opened(name, number, block)))
        await self._write(facts)
        return True

    async def _opened(self, name: str, number: int, block: int) -> ClaimOpened:
        address = self._orchestrators[name]
        pending_wei = await self._livepeer.pending_fees(address, at=block)
        log.info("chain-followed", orchestrator=name, address=address, block=block)
        return ClaimOpened(
            orchestrator=name,
            address=address,
            round=number,
            block=block,
            pending_wei=str(pending_wei),
        )

    # --- going on ------------------------------------------------------------------------------

    async def _advance(self, revenue: Revenue, followed: list[Standing], safe: int) -> None:
        """Read the blocks to the end of the round, or as far as they are final."""
        assert revenue.round is not None, "a round was begun with the first claim"
        number = revenue.round.number
        to, following = await self._end(revenue.chain_round, self.block, safe)
        facts: list[Fact] = []
        for standing in followed:
            after = self._position(standing)
            if after <= to:
                facts += await self._facts(standing, number, after, to, ends=following > 0)
        if following:
            facts.append(_round_started(following, to + 1))
        await self._write(facts)
        for standing in followed:
            self._seen[standing.orchestrator] = max(to, self._position(standing))

    async def _facts(
        self, standing: Standing, number: int, after: int, to: int, *, ends: bool
    ) -> list[Fact]:
        found = await self._ranges.read(standing, number, after, to, write_always=ends)
        row = standing.rounds.get(number)
        state = found.state
        missed = state.active and state.last_reward_round < number
        if ends and missed and not (row and row.reward):
            name = standing.orchestrator
            data = RewardMissed(orchestrator=name, round=number)
            return [*found.facts, (f"round/{name}/{number}/reward-missed", data)]
        return found.facts

    async def _end(self, number: int, after: int, safe: int) -> tuple[int, int]:
        """The last block of the chain's round `number` to read, and the round that begins behind
        it, if one does (else 0)."""
        newest = await self._number(safe)
        if newest == number:
            return safe, 0
        low, high = after, safe
        while high - low > 1:
            middle = (low + high) // 2
            found = await self._number(middle)
            if found == number:
                low = middle
            else:
                high, newest = middle, found
        return low, newest

    async def _number(self, block: int) -> int:
        return (await self._livepeer.round(at=block)).number

    async def _write(self, facts: list[Fact]) -> None:
        now_ms = self._clock_ms()
        await self._books.write([Event(id=i, time_ms=now_ms, data=data) for i, data in facts])


def _distinct(orchestrators: Mapping[str, str]) -> dict[str, str]:
    """The chain cannot tell which of two nodes with one address earned what."""
    for address in orchestrators.values():
        twins = [other for other, same in orchestrators.items() if same == address != ""]
        if len(twins) > 1:
            raise SetupError(
                f"Orchestrators {' and '.join(twins)} have the same eth_address, whose revenue "
                "would count twice; set it for one of them only."
            )
    return dict(orchestrators)


def _round_started(number: int, block: int) -> Fact:
    return f"round/chain/{number}", RoundStarted(round=number, source="chain", block=block)
