"""A chain of one orchestrator in memory, as little of it as following revenue needs.

It keeps the state after every block, so that any block can be asked for. For the logic only: that
the books equal the chain is proved on the real contracts (`tests/e2e/test_revenue_chain.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from eth_utils.address import to_checksum_address

from openpool.chain.interface import (
    At,
    Block,
    ChainUnavailable,
    OrchestratorState,
    PoolState,
    RedeemedTicket,
    RewardLog,
    Round,
    WithdrawalLog,
)

ADDRESS, GATEWAY, WALLET = (str(to_checksum_address("0x" + x * 20)) for x in ("0a", "6a", "0b"))
HALF = 2**255


@dataclass(frozen=True)
class State:
    """After one block."""

    round: int = 1
    pending: int = 0
    stake: int = 1000
    last_reward: int = 0
    wallet: int = 0
    active: bool = True
    cut: int = 100_000


@dataclass
class ToyChain:
    """Chain and Livepeer in one. Each deed is a block."""

    states: list[State] = field(default_factory=lambda: [State()])
    found_tickets: list[RedeemedTicket] = field(default_factory=list)
    found_rewards: list[RewardLog] = field(default_factory=list)
    found_withdrawals: list[WithdrawalLog] = field(default_factory=list)
    confirmations: int = 0
    """How far behind the newest block the safe one is."""
    calls: int = 0
    fails_at: int = 0
    """The call, counted from 1, that fails; 0 is none."""
    addresses: Mapping[str, str] = field(default_factory=dict)

    @property
    def head(self) -> int:
        return len(self.states) - 1

    # --- deeds ---------------------------------------------------------------------------------

    def mine(self, **changes: int | bool) -> None:
        self.states.append(replace(self.states[-1], **changes))

    def ticket(self, face: int, paid: int, own: int) -> None:
        """A winning ticket, what was paid of it, and the orchestrator's part of that."""
        self.mine(pending=self.states[-1].pending + own)
        self.found_tickets.append(
            RedeemedTicket(
                gateway=GATEWAY,
                face_value_wei=face,
                win_prob=HALF,
                paid_wei=paid,
                block=self.head,
                tx=f"0xt{self.head}",
                index=0,
            )
        )

    def withdraw(self, recipient: str, amount: int) -> None:
        now = self.states[-1]
        gain = amount if recipient == WALLET else 0
        self.mine(pending=now.pending - amount, wallet=now.wallet + gain)
        self.found_withdrawals.append(
            WithdrawalLog(
                recipient=recipient, amount_wei=amount, block=self.head, tx=f"0xw{self.head}"
            )
        )

    def reward(self, amount: int, own: int) -> None:
        now = self.states[-1]
        self.mine(stake=now.stake + own, last_reward=now.round)
        self.found_rewards.append(
            RewardLog(amount_lpt=amount, treasury_lpt=1, block=self.head, tx=f"0xr{self.head}")
        )

    def next_round(self) -> None:
        self.mine(round=self.states[-1].round + 1)

    # --- what is asked -------------------------------------------------------------------------

    def _at(self, at: At) -> State:
        self._count()
        if isinstance(at, int):
            return self.states[at]
        return self.states[self.head if at == "latest" else self.head - self.confirmations]

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self.fails_at:
            raise ChainUnavailable("The endpoint is away.")

    @property
    def chain_id(self) -> int:
        return 1

    async def block(self, at: At = "latest") -> Block:
        self._count()
        number = self.head - (self.confirmations if at != "latest" else 0)
        return Block(number=number, hash=f"0x{number}", time_s=number)

    async def balance(self, address: str, *, at: At = "latest") -> int:
        return self._at(at).wallet if address == WALLET else 0

    async def round(self, *, at: At = "latest") -> Round:
        state = self._at(at)
        return Round(number=state.round, initialized=True, locked=False, length=100, start_block=0)

    async def orchestrator(self, address: str, *, at: At = "latest") -> OrchestratorState:
        state = self._at(at)
        return OrchestratorState(
            address=address,
            active=state.active,
            registered=True,
            last_reward_round=state.last_reward,
            reward_cut_ppm=state.cut,
            fee_share_ppm=0,
            last_active_stake_update_round=1,
            activation_round=1,
            deactivation_round=2**256 - 1,
            active_cumulative_rewards=0,
            cumulative_rewards=0,
            cumulative_fees=0,
            last_fee_round=0,
            total_stake_lpt=state.stake,
        )

    async def pool(self, address: str, round: int, *, at: At = "latest") -> PoolState:
        return PoolState(
            total_stake_lpt=5000,
            reward_cut_ppm=self._at(at).cut,
            fee_share_ppm=0,
            cumulative_reward_factor=0,
            cumulative_fee_factor=0,
        )

    async def pending_fees(self, address: str, *, at: At = "latest") -> int:
        return self._at(at).pending

    async def pending_stake(self, address: str, *, at: At = "latest") -> int:
        return self._at(at).stake

    async def active_set(self) -> list[tuple[str, int]]:
        self._count()
        return [(GATEWAY, 9000), (ADDRESS, 5000)]

    async def lpt_balance(self, address: str, *, at: At = "latest") -> int:
        self._count()
        return 0

    async def tickets(self, recipient: str, first: int, last: int) -> Sequence[RedeemedTicket]:
        self._count()
        return [each for each in self.found_tickets if first <= each.block <= last]

    async def rewards(self, address: str, first: int, last: int) -> Sequence[RewardLog]:
        self._count()
        return [each for each in self.found_rewards if first <= each.block <= last]

    async def withdrawals(self, address: str, first: int, last: int) -> Sequence[WithdrawalLog]:
        self._count()
        return [each for each in self.found_withdrawals if first <= each.block <= last]
