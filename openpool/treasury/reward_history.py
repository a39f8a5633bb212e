"""What past rounds brought an orchestrator: read from the chain's logs once, then continued.

For showing, so the latest block will do; money is booked elsewhere. A round that is over is not
read again.
"""

from bisect import bisect_right
from collections.abc import Sequence

from openpool.chain.interface import Chain, Livepeer, OrchestratorState
from openpool.core.livepeer.delegators import PastRound
from openpool.core.livepeer.maths import pct

NEW_ROUND = bytes.fromhex("22f2fc17c5daf07db2379b3a03a8ef20a183f761097a58fce219c8a14619e786")
"""Topic of `NewRound(uint256 round, bytes32 blockHash)`."""
ROUNDS_KEPT = 60
LOOK_BACK_BLOCKS = 2_000_000
"""How far one search for the starts of rounds goes."""
SEARCHES_MAX = 12

Starts = list[tuple[int, int]]
"""Round and the block that started it, the oldest first."""


class RewardHistory:
    """The past rounds of one orchestrator."""

    def __init__(self, chain: Chain, livepeer: Livepeer, address: str) -> None:
        self._chain = chain
        self._livepeer = livepeer
        self._address = address
        self._starts: Starts = []
        self._seen_block = -1
        self._over: dict[int, PastRound] = {}

    async def refresh(self, state: OrchestratorState, now: int, head: int) -> tuple[PastRound, ...]:
        """The rounds before `now` in which the orchestrator was active, as of block `head`.

        Raises ChainUnavailable.
        """
        await self._find_starts(now, head)
        rounds = [
            number
            for number, _ in self._starts
            if state.activation_round <= number < state.deactivation_round
        ]
        missing = [number for number in rounds if number < now and number not in self._over]
        if missing:
            self._over |= await self._read(missing, head)
        self._over = {n: past for n, past in self._over.items() if n in rounds}
        return tuple(self._over[n] for n in sorted(self._over))

    async def _find_starts(self, now: int, head: int) -> None:
        """Extend what is known forwards; the first time backwards as far as rounds are kept."""
        if self._seen_block < 0:
            to_block = head
            for _ in range(SEARCHES_MAX):
                from_block = max(to_block - LOOK_BACK_BLOCKS, 0)
                self._starts = await self._starts_between(from_block, to_block) + self._starts
                if from_block == 0 or len(self._starts) > ROUNDS_KEPT:
                    break
                to_block = from_block - 1
        elif not self._starts or self._starts[-1][0] < now:
            self._starts += await self._starts_between(self._seen_block + 1, head)
        self._starts = self._starts[-ROUNDS_KEPT - 1 :]
        self._seen_block = head

    async def _starts_between(self, from_block: int, to_block: int) -> Starts:
        logs = await self._chain.logs(
            addresses=[self._livepeer.addresses["RoundsManager"]],
            topics=[[NEW_ROUND]],
            from_block=from_block,
            to_block=to_block,
        )
        return [(int.from_bytes(log.topics[1], "big"), log.block) for log in logs]

    async def _read(self, numbers: Sequence[int], head: int) -> dict[int, PastRound]:
        blocks = [block for _, block in self._starts]
        first = dict(self._starts)[numbers[0]]

        def round_of(block: int) -> int:
            return self._starts[bisect_right(blocks, block) - 1][0]

        rewards, fees = dict.fromkeys(numbers, 0), dict.fromkeys(numbers, 0)
        rewarded = set()
        for reward in await self._livepeer.rewards(self._address, first, head):
            number = round_of(reward.block)
            rewarded.add(number)
            rewards[number] = rewards.get(number, 0) + reward.amount_lpt
        for ticket in await self._livepeer.tickets(self._address, first, head):
            number = round_of(ticket.block)
            fees[number] = fees.get(number, 0) + ticket.paid_wei
        return {n: await self._past(n, n in rewarded, rewards[n], fees[n]) for n in numbers}

    async def _past(self, number: int, rewarded: bool, reward_lpt: int, fees_wei: int) -> PastRound:
        pool = await self._livepeer.pool(self._address, number)
        before = self._over.get(number - 1)
        return PastRound(
            number=number,
            rewarded=rewarded,
            reward_lpt=reward_lpt,
            delegators_lpt=reward_lpt - pct(reward_lpt, pool.reward_cut_ppm),
            fees_wei=fees_wei,
            stake_lpt=pool.total_stake_lpt or (before.stake_lpt if before else 0),
        )
