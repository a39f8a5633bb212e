"""A chain on which only the protocol's model lives: what `chain.livepeer` would read, in memory.

For tests and pages that need many rounds at once. The real contracts' behaviour behind the model is
proved in `test_livepeer_maths`; tests that sign and send use a real EVM.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from livepeer_model import Protocol

from openpool.chain.interface import (
    At,
    Block,
    Call,
    ChainUnavailable,
    DelegatorState,
    Lock,
    Log,
    OrchestratorState,
    Parameters,
    PoolState,
    RedeemedTicket,
    RewardLog,
    Round,
)
from openpool.core.livepeer.bonding import NOBODY
from openpool.treasury.delegators import Delegations
from openpool.treasury.reward_history import NEW_ROUND

ADDRESSES = {
    "BondingManager": "0x" + "b1" * 20,
    "LivepeerToken": "0x" + "b2" * 20,
    "RoundsManager": "0x" + "b3" * 20,
}
ROUND_BLOCKS = 1_000


@dataclass
class ModelChain:
    """Both `Chain` and `Livepeer`, as far as delegators need them."""

    protocol: Protocol
    balances: dict[str, int] = field(default_factory=dict)
    chain_id: int = 42161
    head: int = 0
    initialized: bool = True
    locked: bool = False
    down: bool = False
    reads: int = 0
    starts: list[tuple[int, int]] = field(default_factory=list)
    rewards_made: list[tuple[str, RewardLog]] = field(default_factory=list)
    tickets_paid: list[tuple[str, RedeemedTicket]] = field(default_factory=list)

    # ---- what happens ------------------------------------------------------------------------

    def start_round(self) -> None:
        """The next round begins, a thousand blocks on."""
        self.head += ROUND_BLOCKS
        self.protocol.initialize_round(self.protocol.round.number + 1)
        self.starts.append((self.protocol.round.number, self.head))

    def reward(self, who: str) -> None:
        self.head += 1
        won = self.protocol.reward(who)
        made = RewardLog(amount_lpt=won.amount, treasury_lpt=won.treasury, block=self.head, tx="0x")
        self.rewards_made.append((who, made))

    def redeem(self, gateway: str, who: str, face_value: int) -> None:
        self.head += 1
        self.protocol.redeem(gateway, who, face_value)
        paid = RedeemedTicket(
            gateway=gateway,
            face_value_wei=face_value,
            win_prob=1,
            paid_wei=self.protocol.paid,
            block=self.head,
            tx="0x",
            index=0,
        )
        self.tickets_paid.append((who, paid))

    # ---- Chain -------------------------------------------------------------------------------

    async def block(self, at: At = "latest") -> Block:
        if self.down:
            raise ChainUnavailable
        self.reads += 1
        return Block(number=self.head, hash="0x", time_s=0)

    async def call(self, call: Call, *, at: At = "latest", sender: str = "") -> bytes:
        return bytes(32)

    async def code(self, address: str, *, at: At = "latest") -> bytes:
        return b"\x60" if address.lower() in ADDRESSES.values() else b""

    async def logs(
        self,
        *,
        addresses: Sequence[str],
        topics: Sequence[Sequence[bytes] | None],
        from_block: int,
        to_block: int,
    ) -> list[Log]:
        assert addresses == [ADDRESSES["RoundsManager"]]
        assert topics == [[NEW_ROUND]]
        return [
            Log(
                address=addresses[0],
                topics=(NEW_ROUND, number.to_bytes(32, "big")),
                data=bytes(32),
                block=block,
                block_hash="0x",
                tx="0x",
                index=0,
            )
            for number, block in self.starts
            if from_block <= block <= to_block
        ]

    # ---- Livepeer ----------------------------------------------------------------------------

    @property
    def addresses(self) -> Mapping[str, str]:
        return ADDRESSES

    async def round(self, *, at: At = "latest") -> Round:
        return Round(
            number=self.protocol.round.number,
            initialized=self.initialized,
            locked=self.locked,
            length=6377,
            start_block=0,
        )

    async def orchestrator(self, address: str, *, at: At = "latest") -> OrchestratorState:
        o = self.protocol.o(address)
        return OrchestratorState(
            address=address,
            active=o.is_active(self.protocol.round.number),
            registered=self.protocol.is_registered(address),
            last_reward_round=o.last_reward_round,
            reward_cut_ppm=o.reward_cut_ppm,
            fee_share_ppm=o.fee_share_ppm,
            last_active_stake_update_round=o.last_stake_round,
            activation_round=o.activation_round,
            deactivation_round=o.deactivation_round,
            active_cumulative_rewards=o.active_rewards,
            cumulative_rewards=o.unclaimed_rewards,
            cumulative_fees=o.unclaimed_fees_wei,
            last_fee_round=o.last_fee_round,
            total_stake_lpt=self.protocol.d(address).delegated,
        )

    async def pool(self, address: str, round: int, *, at: At = "latest") -> PoolState:
        pool = self.protocol.o(address).pool(round)
        return PoolState(
            total_stake_lpt=pool.stake,
            reward_cut_ppm=pool.reward_cut_ppm,
            fee_share_ppm=pool.fee_share_ppm,
            cumulative_reward_factor=pool.reward_factor,
            cumulative_fee_factor=pool.fee_factor,
        )

    async def delegator(self, address: str, *, at: At = "latest") -> DelegatorState:
        d, has = self.protocol.d(address), self.protocol.earnings(address)
        return DelegatorState(
            address=address,
            status=d.status(self.protocol.round.number),
            bonded_lpt=d.bonded,
            fees_wei=d.fees_wei,
            delegate="" if d.delegate == NOBODY else d.delegate,
            delegated_lpt=d.delegated,
            start_round=d.start_round,
            last_claim_round=d.last_claim_round,
            next_lock=d.next_lock_id,
            pending_stake_lpt=has.stake,
            pending_fees_wei=has.fees_wei,
        )

    async def locks(self, address: str) -> list[Lock]:
        return [
            Lock(lock=lock, amount_lpt=amount, withdraw_round=at)
            for lock, (amount, at) in self.protocol.locks.get(address, {}).items()
        ]

    async def active_set(self) -> list[tuple[str, int]]:
        return [(each, self.protocol.d(each).delegated) for each in self.protocol.pool]

    async def parameters(self, *, at: At = "latest") -> Parameters:
        p = self.protocol
        return Parameters(
            unbonding_rounds=p.unbonding_period,
            pool_size_max=p.pool_max,
            treasury_cut=p.round.treasury_cut,
            inflation=p.inflation,
            inflation_change=p.inflation_change,
            target_bonding_rate=p.target_bonding_rate,
            mintable_lpt=p.round.mintable,
            minted_lpt=p.round.minted,
            total_active_stake_lpt=p.round.active_stake,
            total_supply_lpt=p.supply,
        )

    async def lpt_balance(self, address: str, *, at: At = "latest") -> int:
        return self.balances.get(address, 0)

    async def tickets(self, recipient: str, from_block: int, to_block: int) -> list[RedeemedTicket]:
        return [
            paid
            for who, paid in self.tickets_paid
            if who == recipient and from_block <= paid.block <= to_block
        ]

    async def rewards(self, address: str, from_block: int, to_block: int) -> list[RewardLog]:
        return [
            made
            for who, made in self.rewards_made
            if who == address and from_block <= made.block <= to_block
        ]


# ---- a network to look at ------------------------------------------------------------------------

LPT = 10**18


def address(number: int) -> str:
    """A made-up account."""
    from eth_utils.address import to_checksum_address

    return str(to_checksum_address(f"0x{number:040x}"))


POOL, ANN, GATEWAY = address(0xA11CE << 100), address(0xBEEF << 120), "gateway"


def network(rounds: int = 40, others: int = 24) -> ModelChain:
    """The pool's orchestrator among others for some rounds, with a missed reward now and then."""
    protocol = Protocol(
        inflation=220_000,
        inflation_change=500,
        target_bonding_rate=500_000_000,
        unbonding_period=7,
        pool_max=100,
        treasury_cut=10**26,
        supply=45_000_000 * LPT,
    )
    chain = ModelChain(protocol, chain_id=42161)
    chain.start_round()
    protocol.fund(GATEWAY, 1_000 * LPT, 0)
    field_ = [address((i + 1) << 130) for i in range(others)]
    for i, each in enumerate(field_):
        protocol.bond(each, (60_000 + i * 91_000) * LPT, each)
        protocol.transcoder(each, 100_000, 500_000)
    protocol.bond(POOL, 412_345 * LPT, POOL)
    protocol.transcoder(POOL, 250_000, 300_000)
    protocol.bond(ANN, 25_000 * LPT + 1, POOL)
    for number in range(rounds):
        chain.start_round()
        for each in field_:
            chain.reward(each)
        if number % 11 != 4:
            chain.reward(POOL)
        chain.redeem(GATEWAY, POOL, (number % 5 + 1) * 10**15 + 7)
        if number == rounds // 2:
            protocol.unbond(ANN, 1_500 * LPT)
            protocol.transcoder(POOL, 200_000, 300_000)
    chain.start_round()
    chain.balances[ANN] = 1_234 * LPT + 5
    return chain


async def story_of_delegators() -> Delegations:
    """That network as the web sees it."""
    chain = network()
    known = Delegations(chain, chain, {POOL: "main"}, clock_ms=lambda: time.time_ns() // 10**6)
    await known.refresh()
    return known
