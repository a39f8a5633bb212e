"""Reads from the chain what delegators want to know, and the facts that their plans depend on.

Profiles of the pool's orchestrators are kept current in the background, so that no page waits for
the chain; an account is read when somebody asks about it. Moves no money and holds no key.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import structlog

from openpool.chain.interface import (
    At,
    Call,
    Chain,
    DelegatorState,
    Livepeer,
    OrchestratorState,
    Parameters,
    PoolState,
)
from openpool.chain.interface import Round as ChainRound
from openpool.core.enrolment import checked_address
from openpool.core.errors import NoCapacity, NotAllowed, OpenPoolError
from openpool.core.livepeer import bonding, delegators
from openpool.core.livepeer.bonding import NOBODY, Delegator, Orchestrator, Pool
from openpool.core.livepeer.delegation import Account, Facts, Plan, Profile, Wish, plan
from openpool.core.livepeer.delegators import Lock, PastRound, Situation
from openpool.core.livepeer.maths import PPM
from openpool.core.livepeer.outlook import Outlook
from openpool.core.livepeer.transactions import Contracts, call_data
from openpool.treasury.faults import Trouble
from openpool.treasury.reward_history import RewardHistory

log = structlog.get_logger(__name__)
EMPTY = Orchestrator()
ASKING_MAX = 16
"""Questions that are answered at one time."""


class Delegations:
    """What `web.delegation.Delegation` asks for. `orchestrators` are names by address."""

    def __init__(
        self,
        chain: Chain,
        livepeer: Livepeer,
        orchestrators: Mapping[str, str],
        *,
        clock_ms: Callable[[], int],
        poll_ms: int = 30_000,
    ) -> None:
        self._chain = chain
        self._livepeer = livepeer
        self._orchestrators = dict(orchestrators)
        self._clock_ms = clock_ms
        self._poll_s = poll_ms / 1000
        self._histories = {
            each: RewardHistory(chain, livepeer, each) for each in self._orchestrators
        }
        self._profiles: dict[str, Profile] = {}
        self._asking = 0
        self._trouble = Trouble("delegators-not-current")
        self.problem = ""
        """Why the profiles are not current; empty if they are."""

    def profiles(self) -> list[Profile]:
        """The latest that is known, in the order of the settings."""
        return [self._profiles[each] for each in self._orchestrators if each in self._profiles]

    async def run(self) -> None:
        """Keep the profiles current until cancelled."""
        while True:
            await self.refresh()
            # anybody may stake at any time, which must be asked for
            await asyncio.sleep(self._poll_s)

    async def refresh(self) -> None:
        """Read all profiles again; what cannot be read stays as it was, and `problem` says why."""
        try:
            for address, name in self._orchestrators.items():
                self._profiles[address] = await self._profile(address, name)
            self._trouble.over()
        except OpenPoolError as error:
            self._trouble.tell(error)
        self.problem = self._trouble.text

    async def account(self, address: str) -> Account:
        """Raises BadMessage, NoCapacity, ChainUnavailable."""
        address = checked_address(address)
        with self._one_more_asks():
            at = (await self._chain.block()).number
            now = (await self._livepeer.round(at=at)).number
            return await self._account(await self._livepeer.delegator(address, at=at), now, at)

    async def plan(self, wish: Wish) -> Plan:
        """The transactions of a wish, and what to know before. Raises BadMessage, NotAllowed,
        NoCapacity, ChainUnavailable."""
        with self._one_more_asks():
            return plan(wish, await self._facts(wish))

    @contextmanager
    def _one_more_asks(self) -> Iterator[None]:
        """Raises NoCapacity if too many are asking, for each makes the pool read the chain."""
        if self._asking >= ASKING_MAX:
            raise NoCapacity("Too many are asking about the chain; try again in a moment.")
        self._asking += 1
        try:
            yield
        finally:
            self._asking -= 1

    # ---- profiles ----------------------------------------------------------------------------

    async def _profile(self, address: str, name: str) -> Profile:
        at = (await self._chain.block()).number
        now = await self._livepeer.round(at=at)
        state = await self._livepeer.orchestrator(address, at=at)
        parameters = await self._livepeer.parameters(at=at)
        pool = await self._livepeer.pool(address, now.number, at=at)
        ranked = await self._livepeer.active_set()
        past = await self._histories[address].refresh(state, now.number, at)
        has_rewarded = state.last_reward_round >= now.number
        is_locked_in = now.number in (state.last_reward_round, state.last_fee_round)
        return Profile(
            name=name,
            address=address,
            read_ms=self._clock_ms(),
            round=now.number,
            is_initialized=now.initialized,
            is_locked=now.locked,
            round_l1_blocks=now.length,
            unbonding_rounds=parameters.unbonding_rounds,
            is_active=state.active,
            has_rewarded=has_rewarded,
            reward_cut_ppm=pool.reward_cut_ppm if is_locked_in else state.reward_cut_ppm,
            fee_share_ppm=pool.fee_share_ppm if is_locked_in else state.fee_share_ppm,
            next_reward_cut_ppm=state.reward_cut_ppm,
            next_fee_share_ppm=state.fee_share_ppm,
            stake_lpt=await self._stake_today(state, pool, now.number, at),
            standing=delegators.standing(ranked, address, parameters.pool_size_max),
            past=past,
            outlook=outlook_of(state, parameters, past, dict(ranked), has_rewarded=has_rewarded),
        )

    async def _stake_today(
        self, state: OrchestratorState, pool: PoolState, now: int, at: At
    ) -> int:
        written = state.last_active_stake_update_round
        if written >= now:
            return pool.total_stake_lpt
        return (await self._livepeer.pool(state.address, written, at=at)).total_stake_lpt

    # ---- accounts and plans ------------------------------------------------------------------

    async def _account(self, state: DelegatorState, now: int, at: At) -> Account:
        delegator = delegator_of(state)
        locks = await self._livepeer.locks(state.address)
        return Account(
            address=state.address,
            round=now,
            status=state.status,
            delegate=delegator.delegate,
            bonded_lpt=state.bonded_lpt,
            stake_lpt=state.pending_stake_lpt,
            fees_wei=state.pending_fees_wei,
            withdrawable_wei=delegators.withdrawable_wei(delegator, state.pending_fees_wei, now),
            start_round=state.start_round,
            last_claim_round=state.last_claim_round,
            balance_lpt=await self._livepeer.lpt_balance(state.address, at=at),
            allowance_lpt=await self._allowance(state.address, at),
            locks=tuple(
                Lock(lock=each.lock, amount_lpt=each.amount_lpt, withdraw_round=each.withdraw_round)
                for each in locks
            ),
        )

    async def _allowance(self, owner: str, at: At) -> int:
        contracts = self._contracts()
        data = call_data("allowance(address,address)", owner, contracts.bonding_manager)
        answer = await self._chain.call(Call(to=contracts.token, data=data), at=at)
        return int.from_bytes(answer, "big")

    def _contracts(self) -> Contracts:
        known = self._livepeer.addresses
        missing = {"BondingManager", "LivepeerToken"} - set(known)
        if missing:
            raise NotAllowed(f"The Controller of this chain knows no {', '.join(sorted(missing))}.")
        return Contracts(bonding_manager=known["BondingManager"], token=known["LivepeerToken"])

    async def _facts(self, wish: Wish) -> Facts:
        address = checked_address(wish.address)
        to = checked_address(wish.to) if wish.to else ""
        at = (await self._chain.block()).number
        now = await self._livepeer.round(at=at)
        parameters = await self._livepeer.parameters(at=at)
        state = await self._livepeer.delegator(address, at=at)
        delegator = delegator_of(state)
        present = await self._situation(delegator.delegate, delegator, now, parameters, at)
        target = self._target(wish, to, state)
        code = await self._chain.code(to, at=at) if wish.deed == "withdraw-fees" and to else b""
        return Facts(
            chain_id=self._chain.chain_id,
            contracts=self._contracts(),
            ranked=await self._livepeer.active_set(),
            unbonding_rounds=parameters.unbonding_rounds,
            account=await self._account(state, now.number, at),
            delegator=delegator,
            present=present,
            present_stake_lpt=await self._total_stake(delegator.delegate, at),
            target=target,
            target_situation=await self._situation(target, delegator, now, parameters, at),
            target_stake_lpt=await self._total_stake(target, at),
            recipient_has_code=bool(code),
        )

    def _target(self, wish: Wish, to: str, state: DelegatorState) -> str:
        """Who gets the stake: who was named, who has other stake of it, or this pool."""
        if wish.deed not in delegators.BONDING:
            return NOBODY
        if to:
            return to
        if wish.deed == "restake" and state.delegate:
            return state.delegate
        if not self._orchestrators:
            raise NotAllowed("Say to which orchestrator: the settings name none with eth_address.")
        return next(iter(self._orchestrators))

    async def _total_stake(self, address: str, at: At) -> int:
        if address == NOBODY:
            return 0
        return (await self._livepeer.orchestrator(address, at=at)).total_stake_lpt

    async def _situation(
        self,
        address: str,
        delegator: Delegator,
        now: ChainRound,
        parameters: Parameters,
        at: At,
    ) -> Situation:
        return Situation(
            round=bonding.Round(
                number=now.number,
                active_stake=parameters.total_active_stake_lpt,
                mintable=parameters.mintable_lpt,
                minted=parameters.minted_lpt,
                treasury_cut=parameters.treasury_cut,
            ),
            initialized=now.initialized,
            locked=now.locked,
            orchestrator=await self._orchestrator(address, delegator, now.number, at),
        )

    async def _orchestrator(
        self, address: str, delegator: Delegator, now: int, at: At
    ) -> Orchestrator:
        """With the earnings pools that decide what this delegator has and risks."""
        if address == NOBODY:
            return EMPTY
        state = await self._livepeer.orchestrator(address, at=at)
        found = orchestrator_of(state)
        needed = bonding.rounds_needed(delegator, found, now) | {min(found.last_stake_round, now)}
        pools = {
            number: pool_of(await self._livepeer.pool(address, number, at=at))
            for number in sorted(needed)
        }
        return orchestrator_of(state, pools)


def outlook_of(
    state: OrchestratorState,
    parameters: Parameters,
    past: tuple[PastRound, ...],
    ranked: Mapping[str, int],
    *,
    has_rewarded: bool,
) -> Outlook:
    """What a projection starts from: the next round, and what past rounds brought on average.

    An orchestrator that is not in the set earns nothing; its stake is counted all the same.
    """
    is_in = state.address in ranked
    fees = sum(each.fees_wei for each in past) if is_in else 0
    return Outlook(
        pool_stake_lpt=state.total_stake_lpt,
        active_stake_lpt=sum(ranked.values()) + (0 if is_in else state.total_stake_lpt),
        supply_lpt=parameters.total_supply_lpt,
        inflation_ppb=parameters.inflation,
        inflation_change_ppb=parameters.inflation_change,
        target_bonding_ppb=parameters.target_bonding_rate,
        treasury_cut=parameters.treasury_cut,
        reward_cut_ppm=state.reward_cut_ppm,
        fee_share_ppm=state.fee_share_ppm,
        fees_wei=fees // len(past) if past else 0,
        reward_calls_ppm=_calls_ppm(past, has_rewarded) if is_in else 0,
    )


def _calls_ppm(past: tuple[PastRound, ...], has_rewarded: bool) -> int:
    """In how many rounds `reward` is called, the current one counted if it has been."""
    rounds = len(past) + has_rewarded
    called = sum(each.rewarded for each in past) + has_rewarded
    return called * PPM // rounds if rounds else PPM


def delegator_of(state: DelegatorState) -> Delegator:
    """The chain's word in the core's."""
    return Delegator(
        bonded=state.bonded_lpt,
        fees_wei=state.fees_wei,
        delegate=state.delegate or NOBODY,
        delegated=state.delegated_lpt,
        start_round=state.start_round,
        last_claim_round=state.last_claim_round,
        next_lock_id=state.next_lock,
    )


def orchestrator_of(state: OrchestratorState, pools: dict[int, Pool] | None = None) -> Orchestrator:
    """The chain's word in the core's."""
    return Orchestrator(
        last_reward_round=state.last_reward_round,
        reward_cut_ppm=state.reward_cut_ppm,
        fee_share_ppm=state.fee_share_ppm,
        last_stake_round=state.last_active_stake_update_round,
        activation_round=state.activation_round,
        deactivation_round=state.deactivation_round,
        active_rewards=state.active_cumulative_rewards,
        unclaimed_rewards=state.cumulative_rewards,
        unclaimed_fees_wei=state.cumulative_fees,
        last_fee_round=state.last_fee_round,
        pools=pools or {},
    )


def pool_of(state: PoolState) -> Pool:
    """The chain's word in the core's."""
    return Pool(
        stake=state.total_stake_lpt,
        reward_cut_ppm=state.reward_cut_ppm,
        fee_share_ppm=state.fee_share_ppm,
        reward_factor=state.cumulative_reward_factor,
        fee_factor=state.cumulative_fee_factor,
    )
