"""Livepeer's contracts, found through the Controller, by the rules of `chain.interface`.

Only the Controller's address is known beforehand. Behind the others governance may put new code any
day: `refresh` looks, and what changed is a warning, since the maths of earnings may have changed
with it. Reads only; must not decide what anything is worth.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import structlog
from eth_utils.crypto import keccak
from msgspec import Struct

from openpool.chain import contracts as c
from openpool.chain.abi import WORD, Method, address_topic
from openpool.chain.interface import (
    At,
    Call,
    Chain,
    ChainUnavailable,
    DelegatorState,
    Lock,
    Log,
    OrchestratorState,
    Parameters,
    PoolState,
    RedeemedTicket,
    Reverted,
    RewardLog,
    Round,
    WithdrawalLog,
)
from openpool.core.errors import BadMessage, SetupError

logger = structlog.get_logger()

NAMES = (
    "BondingManager",
    "BondingManagerTarget",
    "TicketBroker",
    "TicketBrokerTarget",
    "RoundsManager",
    "RoundsManagerTarget",
    "Minter",
    "LivepeerToken",
    "ServiceRegistry",
    "Treasury",
)
NEEDED = ("BondingManager", "TicketBroker", "RoundsManager", "Minter", "LivepeerToken")
FOLLOW_S = 600.0
NOBODY = "0x" + "0" * 40
STATUSES: tuple[Literal["pending", "bonded", "unbonded"], ...] = ("pending", "bonded", "unbonded")

Ask = tuple[str, Method, Sequence[object]]
"""A contract's name, its method, the arguments."""


class ContractChange(Struct, frozen=True, kw_only=True):
    """The Controller names another address than it did."""

    name: str
    before: str
    after: str
    """Empty where there is none."""


async def open_livepeer(chain: Chain, controller: str) -> "LivepeerContracts":
    """The contracts behind a Controller. Raises SetupError if it is none, ChainUnavailable."""
    contracts = LivepeerContracts(chain, controller)
    await contracts.find()
    return contracts


class LivepeerContracts:
    """Implements `Livepeer`. Finds the contracts when it is first asked for anything, so that it
    can be made while no endpoint is reached."""

    def __init__(self, chain: Chain, controller: str) -> None:
        self._chain = chain
        self._controller = controller
        self._addresses: dict[str, str] = {}

    async def find(self) -> None:
        """Ask the Controller, if nobody has yet. Raises SetupError if it is none."""
        if self._addresses:
            return
        chain, controller = self._chain, self._controller
        if not await chain.code(controller):
            raise SetupError(
                f"There is no contract at {controller} on chain {chain.chain_id}; correct "
                "chain.controller or chain.endpoints."
            )
        found = await _addresses(chain, controller)
        if missing := [name for name in NEEDED if name not in found]:
            raise SetupError(
                f"The contract at {controller} does not know {', '.join(missing)}, so it is not "
                "Livepeer's Controller; correct chain.controller."
            )
        self._addresses = found

    @property
    def addresses(self) -> Mapping[str, str]:
        return self._addresses

    async def run(self) -> None:
        """Look for changes from time to time, for ever."""
        while True:
            await asyncio.sleep(FOLLOW_S)
            try:
                await (self.refresh() if self._addresses else self.find())
            except (ChainUnavailable, BadMessage, SetupError) as error:
                logger.warning("contracts-unknown", problem=str(error))

    async def refresh(self) -> list[ContractChange]:
        """Ask the Controller again; what changed is logged and returned."""
        found = await _addresses(self._chain, self._controller)
        changes = [
            ContractChange(
                name=name, before=self._addresses.get(name, ""), after=found.get(name, "")
            )
            for name in NAMES
            if self._addresses.get(name) != found.get(name)
        ]
        for change in changes:
            logger.warning(
                "contract-changed", name=change.name, before=change.before, after=change.after
            )
        self._addresses = {**self._addresses, **found}
        return changes

    # --- rounds and parameters --------------------------------------------------------------------

    async def round(self, *, at: At = "latest") -> Round:
        r = c.RoundsManager
        values = await self._ones(
            at,
            ("RoundsManager", r.current_round, ()),
            ("RoundsManager", r.current_round_initialized, ()),
            ("RoundsManager", r.current_round_locked, ()),
            ("RoundsManager", r.round_length, ()),
            ("RoundsManager", r.current_round_start_block, ()),
            ("RoundsManager", r.block_num, ()),
        )
        names = (f for f in Round.__struct_fields__)
        return Round(**dict(zip(names, values, strict=True)))

    async def parameters(self, *, at: At = "latest") -> Parameters:
        b, m = c.BondingManager, c.Minter
        values = await self._ones(
            at,
            ("BondingManager", b.unbonding_period, ()),
            ("BondingManager", b.pool_size_max, ()),
            ("BondingManager", b.treasury_cut, ()),
            ("Minter", m.inflation, ()),
            ("Minter", m.inflation_change, ()),
            ("Minter", m.target_bonding_rate, ()),
            ("Minter", m.mintable, ()),
            ("Minter", m.minted, ()),
            ("BondingManager", b.total_bonded, ()),
            ("Minter", m.supply, ()),
        )
        names = (f for f in Parameters.__struct_fields__)
        return Parameters(**dict(zip(names, values, strict=True)))

    # --- orchestrators and delegators -------------------------------------------------------------

    async def orchestrator(self, address: str, *, at: At = "latest") -> OrchestratorState:
        b = c.BondingManager
        state, (active,), (registered,), (stake,) = await self._all(
            at,
            ("BondingManager", b.get_transcoder, (address,)),
            ("BondingManager", b.is_active, (address,)),
            ("BondingManager", b.is_registered, (address,)),
            ("BondingManager", b.total_stake, (address,)),
        )
        return OrchestratorState(
            address=address,
            active=active,
            registered=registered,
            last_reward_round=state[0],
            reward_cut_ppm=state[1],
            fee_share_ppm=state[2],
            last_active_stake_update_round=state[3],
            activation_round=state[4],
            deactivation_round=state[5],
            active_cumulative_rewards=state[6],
            cumulative_rewards=state[7],
            cumulative_fees=state[8],
            last_fee_round=state[9],
            total_stake_lpt=stake,
            reward_caller=await self._reward_caller(address, at),
        )

    async def _reward_caller(self, address: str, at: At) -> str:
        method = c.BondingManager.reward_caller
        try:
            return _somebody(await self._one(at, "BondingManager", method, address))
        except (Reverted, BadMessage):  # contracts before LIP-118 do not have it
            return ""

    async def pool(self, address: str, round: int, *, at: At = "latest") -> PoolState:
        (values,) = await self._all(
            at, ("BondingManager", c.BondingManager.get_pool, (address, round))
        )
        stake, reward_cut, fee_share, reward_factor, fee_factor = values
        return PoolState(
            total_stake_lpt=stake,
            reward_cut_ppm=reward_cut,
            fee_share_ppm=fee_share,
            cumulative_reward_factor=reward_factor,
            cumulative_fee_factor=fee_factor,
        )

    async def delegator(self, address: str, *, at: At = "latest") -> DelegatorState:
        b = c.BondingManager
        state, (status,), (stake,), (fees,) = await self._all(
            at,
            ("BondingManager", b.get_delegator, (address,)),
            ("BondingManager", b.delegator_status, (address,)),
            ("BondingManager", b.pending_stake, (address, 0)),
            ("BondingManager", b.pending_fees, (address, 0)),
        )
        if status >= len(STATUSES):
            raise BadMessage(f"The BondingManager knows a delegator status {status} that we do not")
        return DelegatorState(
            address=address,
            status=STATUSES[status],
            bonded_lpt=state[0],
            fees_wei=state[1],
            delegate=_somebody(state[2]),
            delegated_lpt=state[3],
            start_round=state[4],
            last_claim_round=state[5],
            next_lock=state[6],
            pending_stake_lpt=stake,
            pending_fees_wei=fees,
        )

    async def locks(self, address: str) -> list[Lock]:
        b = c.BondingManager
        block = (await self._chain.block()).number
        (state,) = await self._all(block, ("BondingManager", b.get_delegator, (address,)))
        asks: list[Ask] = [("BondingManager", b.get_lock, (address, i)) for i in range(state[6])]
        found = await self._all(block, *asks)
        return [
            Lock(lock=i, amount_lpt=amount, withdraw_round=withdraw_round)
            for i, (amount, withdraw_round) in enumerate(found)
            if withdraw_round
        ]

    async def pending_fees(self, address: str, *, at: At = "latest") -> int:
        method = c.BondingManager.pending_fees
        return int(await self._one(at, "BondingManager", method, address, 0))

    async def pending_stake(self, address: str, *, at: At = "latest") -> int:
        return int(
            await self._one(at, "BondingManager", c.BondingManager.pending_stake, address, 0)
        )

    async def lpt_balance(self, address: str, *, at: At = "latest") -> int:
        return int(await self._one(at, "LivepeerToken", c.Token.balance_of, address))

    async def active_set(self) -> list[tuple[str, int]]:
        b = c.BondingManager
        block = (await self._chain.block()).number
        size = await self._one(block, "BondingManager", b.pool_size_max)
        members: list[str] = []
        who: str = await self._one(block, "BondingManager", b.first)
        while who != NOBODY and len(members) < size:
            members.append(who)
            who = await self._one(block, "BondingManager", b.next, who)
        stakes = await self._ones(
            block, *(("BondingManager", b.total_stake, (each,)) for each in members)
        )
        return list(zip(members, stakes, strict=True))

    # --- what happened ----------------------------------------------------------------------------

    async def tickets(self, recipient: str, from_block: int, to_block: int) -> list[RedeemedTicket]:
        moved, redeemed = c.TicketBroker.transferred, c.TicketBroker.redeemed
        topics = [[moved.topic, redeemed.topic], None, [address_topic(recipient)]]
        found: list[RedeemedTicket] = []
        paid: dict[tuple[str, str], int] = {}
        for log in await self._logs("TicketBroker", topics, from_block, to_block):
            if log.topics[0] == moved.topic:  # it comes before the redemption that it belongs to
                sender, _, amount = moved.decode(log.topics, log.data)
                paid[log.tx, sender] = amount
                continue
            sender, _, face_value, win_prob, *_ = redeemed.decode(log.topics, log.data)
            found.append(
                RedeemedTicket(
                    gateway=sender,
                    face_value_wei=face_value,
                    win_prob=win_prob,
                    paid_wei=paid.pop((log.tx, sender), 0),
                    block=log.block,
                    tx=log.tx,
                    index=log.index,
                )
            )
        return found

    async def rewards(self, address: str, from_block: int, to_block: int) -> list[RewardLog]:
        rewarded, treasury = c.BondingManager.rewarded, c.BondingManager.treasury_rewarded
        topics = [[rewarded.topic, treasury.topic], [address_topic(address)]]
        found: list[RewardLog] = []
        to_treasury: dict[str, int] = {}
        for log in await self._logs("BondingManager", topics, from_block, to_block):
            if log.topics[0] == treasury.topic:
                to_treasury[log.tx] = treasury.decode(log.topics, log.data)[2]
                continue
            _, amount = rewarded.decode(log.topics, log.data)
            found.append(
                RewardLog(
                    amount_lpt=amount,
                    treasury_lpt=to_treasury.pop(log.tx, 0),
                    block=log.block,
                    tx=log.tx,
                )
            )
        return found

    async def withdrawals(
        self, address: str, from_block: int, to_block: int
    ) -> list[WithdrawalLog]:
        event = c.BondingManager.fees_withdrawn
        topics = [[event.topic], [address_topic(address)]]
        found = []
        for log in await self._logs("BondingManager", topics, from_block, to_block):
            _, recipient, amount = event.decode(log.topics, log.data)
            found.append(
                WithdrawalLog(recipient=recipient, amount_wei=amount, block=log.block, tx=log.tx)
            )
        return found

    async def _logs(
        self, name: str, topics: Sequence[Sequence[bytes] | None], from_block: int, to_block: int
    ) -> list[Log]:
        await self.find()
        return await self._chain.logs(
            addresses=[self._addresses[name]],
            topics=topics,
            from_block=from_block,
            to_block=to_block,
        )

    # --- reading ----------------------------------------------------------------------------------

    async def _one(self, at: At, name: str, method: Method, *arguments: object) -> Any:
        return (await self._ones(at, (name, method, arguments)))[0]

    async def _ones(self, at: At, *asks: Ask) -> list[Any]:
        """Of methods with one result each."""
        return [value for (value,) in await self._all(at, *asks)]

    async def _all(self, at: At, *asks: Ask) -> list[tuple[Any, ...]]:
        """All at one block."""
        await self.find()
        calls = [
            Call(to=self._addresses[name], data=method.encode(*arguments))
            for name, method, arguments in asks
        ]
        results = await self._chain.calls(calls, at=at)
        return [
            _decoded(method, result) for (_, method, _), result in zip(asks, results, strict=True)
        ]


def _decoded(method: Method, result: bytes | Reverted) -> tuple[Any, ...]:
    if isinstance(result, Reverted):
        raise result
    return method.decode(result)


def _somebody(address: str) -> str:
    return "" if address == NOBODY else address


async def _addresses(chain: Chain, controller: str) -> dict[str, str]:
    """As they are finally, and as all endpoints that must agree have them."""
    method = c.Controller.get_contract
    calls = [Call(to=controller, data=method.encode(keccak(text=name))) for name in NAMES]
    block = await chain.block("finalized")
    found = {}
    for name, result in zip(NAMES, await chain.calls(calls, at=block.number), strict=True):
        if isinstance(result, bytes) and len(result) == WORD and any(result):
            found[name] = method.one(result)
    return found
