"""What happened to one orchestrator on chain in a range of blocks, as events.

Reads only; where a range begins and ends is decided by `treasury.follow`.
"""

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

from msgspec.structs import replace

from openpool.chain.interface import (
    Livepeer,
    OrchestratorState,
    RedeemedTicket,
    RewardLog,
    WithdrawalLog,
)
from openpool.core.events import AnyPayload
from openpool.core.money.events import (
    FeesWithdrawn,
    OrchestratorObserved,
    RevenueRealised,
    RewardCalled,
    TicketRedeemed,
)
from openpool.core.money.revenue import Standing, has_changed, realised


class Found(NamedTuple):
    """What a range brought."""

    facts: list[tuple[str, AnyPayload]]
    """Event ids and contents; empty if there is no news."""
    state: OrchestratorState
    """At the end of the range."""


class RangeReader:
    """Asks the protocol's contracts."""

    def __init__(self, livepeer: Livepeer, wallets: Collection[str]) -> None:
        """`wallets` are hot wallets of ours: what goes there stays in the books."""
        self._livepeer = livepeer
        self._wallets = frozenset(wallets)

    async def read(
        self, standing: Standing, number: int, after: int, to: int, *, write_always: bool
    ) -> Found:
        """The news of the blocks after `after` up to `to`, all of them in round `number`.

        The revenue of the range is among them if anything moved, or if `write_always`.
        """
        address, first = standing.address, after + 1
        is_empty = first > to
        tickets = [] if is_empty else await self._livepeer.tickets(address, first, to)
        withdrawals = [] if is_empty else await self._livepeer.withdrawals(address, first, to)
        rewards = [] if is_empty else await self._livepeer.rewards(address, first, to)
        pending_wei = await self._livepeer.pending_fees(address, at=to)
        state = await self._livepeer.orchestrator(address, at=to)
        facts = await self._observed(standing, number, to, state, pending_wei)
        name = standing.orchestrator
        facts += [_ticket(name, number, each) for each in tickets]
        facts += _withdrawals(name, withdrawals, self._wallets)
        facts += [await self._reward(standing, number, each) for each in rewards]
        revenue = _revenue(standing, number, to, pending_wei, tickets, withdrawals)
        if write_always or tickets or withdrawals or rewards or revenue.amount_wei != "0":
            facts.append((f"chain/{name}/revenue/{standing.block}", revenue))
        return Found(facts, state)

    async def _reward(
        self, standing: Standing, number: int, log: RewardLog
    ) -> tuple[str, RewardCalled]:
        """The own part is what the orchestrator's stake grew by: what an early claim forfeits is
        not in it."""
        address = standing.address
        before = await self._livepeer.pending_stake(address, at=log.block - 1)
        after = await self._livepeer.pending_stake(address, at=log.block)
        reward = RewardCalled(
            orchestrator=standing.orchestrator,
            round=number,
            amount_lpt=str(log.amount_lpt),
            own_lpt=str(min(max(after - before, 0), log.amount_lpt)),
            treasury_lpt=str(log.treasury_lpt),
            tx=log.tx,
        )
        return f"round/{standing.orchestrator}/{number}/reward", reward

    async def _observed(
        self,
        standing: Standing,
        number: int,
        block: int,
        state: OrchestratorState,
        pending_wei: int,
    ) -> list[tuple[str, AnyPayload]]:
        address, before = standing.address, standing.observed
        seen = OrchestratorObserved(
            orchestrator=standing.orchestrator,
            address=address,
            round=number,
            active=state.active,
            reward_cut_ppm=state.reward_cut_ppm,
            fee_share_ppm=state.fee_share_ppm,
            stake_lpt="0",
            own_stake_lpt="0",
            pending_fees_wei=str(pending_wei),
            last_reward_round=state.last_reward_round,
            rank=before.rank if before else 0,
        )
        if not has_changed(before, seen):
            return []
        stake_round = min(state.last_active_stake_update_round, number)
        pool = await self._livepeer.pool(address, stake_round, at=block)
        seen = replace(
            seen,
            stake_lpt=str(pool.total_stake_lpt),
            own_stake_lpt=str(await self._livepeer.pending_stake(address, at=block)),
        )
        if before is None or before.round != number:
            seen = replace(seen, rank=_rank(address, await self._livepeer.active_set()))
        return [(f"chain/{standing.orchestrator}/observed/{number}/{block}", seen)]


def _rank(address: str, ranked: list[tuple[str, int]]) -> int:
    addresses = [each for each, _ in ranked]
    return addresses.index(address) + 1 if address in addresses else 0


def _ticket(name: str, number: int, ticket: RedeemedTicket) -> tuple[str, TicketRedeemed]:
    redeemed = TicketRedeemed(
        orchestrator=name,
        round=number,
        gateway=ticket.gateway,
        face_value_wei=str(ticket.face_value_wei),
        paid_wei=str(ticket.paid_wei),
        win_prob=str(ticket.win_prob),
        tx=ticket.tx,
        log_index=ticket.index,
    )
    return f"chain/{name}/ticket/{ticket.tx}/{ticket.index}", redeemed


def _withdrawals(
    name: str, logs: list[WithdrawalLog], wallets: frozenset[str]
) -> list[tuple[str, AnyPayload]]:
    facts: list[tuple[str, AnyPayload]] = []
    seen: Counter[str] = Counter()
    for log in logs:
        seen[log.tx] += 1  # one transaction of a contract may withdraw more than once
        data = FeesWithdrawn(
            orchestrator=name,
            recipient=log.recipient,
            wallet=log.recipient if log.recipient in wallets else "",
            amount_wei=str(log.amount_wei),
            tx=log.tx,
        )
        facts.append((f"chain/{name}/withdrawal/{log.tx}/{seen[log.tx]}", data))
    return facts


def _revenue(
    standing: Standing,
    number: int,
    to: int,
    pending_wei: int,
    tickets: list[RedeemedTicket],
    withdrawals: list[WithdrawalLog],
) -> RevenueRealised:
    withdrawn_wei = sum(each.amount_wei for each in withdrawals)
    return RevenueRealised(
        orchestrator=standing.orchestrator,
        round=number,
        from_block=standing.block,
        to_block=to,
        amount_wei=str(realised(standing.pending_wei, pending_wei, withdrawn_wei)),
        paid_wei=str(sum(each.paid_wei for each in tickets)),
        tickets=len(tickets),
        pending_wei=str(pending_wei),
    )
