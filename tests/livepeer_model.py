"""The protocol's bookkeeping around `core.livepeer`, enough to replay the golden run from inputs.

Stake, claims, the sorted pool with its evictions, rounds, and where ETH and LPT lie. All arithmetic
is the product's own; nothing here computes a reward, a fee or an earning.
"""

from copy import deepcopy
from dataclasses import dataclass, field

from msgspec.structs import replace

from openpool.core.livepeer import bonding, maths, tickets
from openpool.core.livepeer.bonding import NOBODY, Delegator, Orchestrator, Pool, Round


@dataclass
class Sender:
    """A gateway's money at the TicketBroker."""

    deposit: int = 0
    reserve: int = 0
    claimed: dict[tuple[int, str], int] = field(default_factory=dict)
    """By round and orchestrator."""


@dataclass
class Protocol:
    """Calls are methods named as on chain; the first argument is who calls."""

    inflation: int
    inflation_change: int
    target_bonding_rate: int
    unbonding_period: int
    pool_max: int
    treasury_cut: int
    supply: int
    round: Round = field(default_factory=lambda: Round(number=0, active_stake=0, mintable=0))
    next_stake: int = 0
    pool: list[str] = field(default_factory=list)
    orchestrators: dict[str, Orchestrator] = field(default_factory=dict)
    delegators: dict[str, Delegator] = field(default_factory=dict)
    locks: dict[str, dict[int, tuple[int, int]]] = field(default_factory=dict)
    senders: dict[str, Sender] = field(default_factory=dict)
    minter_eth: int = 0
    minter_lpt: int = 0
    treasury_lpt: int = 0
    pool_cut: int = 0
    """The treasury cut in force; it changes with a round."""

    paid: int = 0
    """By the latest redemption."""

    def copy(self) -> "Protocol":
        """The same state, to be changed apart."""
        return deepcopy(self)

    def o(self, who: str) -> Orchestrator:
        return self.orchestrators.get(who, Orchestrator())

    def d(self, who: str) -> Delegator:
        return self.delegators.get(who, Delegator())

    def is_registered(self, who: str) -> bool:
        return self.d(who).delegate == who and self.d(who).bonded > 0

    # ---- rounds ------------------------------------------------------------------------------

    def initialize_round(self, number: int) -> None:
        """Rounds that nobody initialized are skipped: inflation makes one step only."""
        self.pool_cut = self.treasury_cut
        self.inflation = maths.next_inflation(
            self.inflation,
            change_ppb=self.inflation_change,
            target_ppb=self.target_bonding_rate,
            active_stake=self.next_stake,
            supply=self.supply,
        )
        self.round = Round(
            number=number,
            active_stake=self.next_stake,
            mintable=maths.mintable(self.supply, self.inflation),
            treasury_cut=self.pool_cut,
        )

    # ---- stake -------------------------------------------------------------------------------

    def earnings(self, who: str) -> bonding.Earnings:
        d = self.d(who)
        return bonding.earnings(
            d, self.o(d.delegate), self.round.number, is_itself=d.delegate == who
        )

    def claim_earnings(self, who: str) -> None:
        d = self.d(who)
        if d.delegate == NOBODY:
            self.delegators[who] = replace(d, last_claim_round=self.round.number)
            return
        self.delegators[who], self.orchestrators[d.delegate] = bonding.claim(
            d, self.o(d.delegate), self.round.number, is_itself=d.delegate == who
        )

    def bond(self, who: str, amount: int, to: str) -> None:
        self.claim_earnings(who)
        now, d = self.round.number, self.d(who)
        moved = amount
        if d.status(now) == "unbonded":
            d = replace(d, start_round=now + 1)
        elif d.delegate != to:
            d, moved = replace(d, start_round=now + 1), amount + d.bonded
            self._add_stake(d.delegate, -d.bonded)
        self.orchestrators[to] = bonding.with_factors(self.o(to), now)
        self.delegators[who] = replace(d, delegate=to, bonded=d.bonded + amount)
        self._add_stake(to, moved)
        self.minter_lpt += amount

    def unbond(self, who: str, amount: int) -> None:
        self.claim_earnings(who)
        d = self.d(who)
        lock = (amount, self.round.number + self.unbonding_period)
        self.locks.setdefault(who, {})[d.next_lock_id] = lock
        delegate = d.delegate
        d = replace(d, bonded=d.bonded - amount, next_lock_id=d.next_lock_id + 1)
        if not d.bonded:
            d = replace(d, delegate=NOBODY, start_round=0)
        self.delegators[who] = d
        self._add_stake(delegate, -amount)

    def rebond(self, who: str, lock: int) -> None:
        self.claim_earnings(who)
        amount, _ = self.locks[who].pop(lock)
        self.delegators[who] = replace(self.d(who), bonded=self.d(who).bonded + amount)
        self._add_stake(self.d(who).delegate, amount)

    def withdraw_stake(self, who: str, lock: int) -> None:
        amount, _ = self.locks[who].pop(lock)
        self.minter_lpt -= amount

    def withdraw_fees(self, who: str, amount: int) -> None:
        self.claim_earnings(who)
        self.delegators[who] = replace(self.d(who), fees_wei=self.d(who).fees_wei - amount)
        assert self.d(who).fees_wei >= 0
        self.minter_eth -= amount

    def _add_stake(self, who: str, amount: int) -> None:
        now = self.round.number
        old = self.d(who).delegated
        if who in self.pool:
            self._snapshot(who, old, old + amount)
            self.next_stake += amount
        elif amount > 0 and self.is_registered(who):
            joined = self._joined(who, old + amount)
            if not joined and self.o(who).is_active(now):  # on its way out, and still counted
                self._snapshot(who, old, old + amount)
        self.delegators[who] = replace(self.d(who), delegated=old + amount)
        self.pool.sort(key=lambda each: -self.d(each).delegated)

    def _snapshot(self, who: str, old: int, new: int) -> None:
        now = self.round.number
        if self.o(who).last_stake_round < now:
            self._set_stake(who, now, old)
        self._set_stake(who, now + 1, new)
        self.orchestrators[who] = replace(self.o(who), last_stake_round=now + 1)

    def _set_stake(self, who: str, number: int, stake: int) -> None:
        o = self.o(who)
        self.orchestrators[who] = replace(
            o, pools=o.pools | {number: replace(o.pool(number), stake=stake)}
        )

    def _joined(self, who: str, stake: int) -> bool:
        starts = self.round.number + 1
        if len(self.pool) >= self.pool_max:
            last = self.pool[-1]
            if stake <= self.d(last).delegated:
                return False
            self.pool.remove(last)
            self.orchestrators[last] = replace(self.o(last), deactivation_round=starts)
            self.next_stake -= self.d(last).delegated
        self.pool.append(who)
        self.next_stake += stake
        self._set_stake(who, starts, stake)
        self.orchestrators[who] = replace(
            self.o(who),
            last_stake_round=starts,
            activation_round=starts,
            deactivation_round=bonding.FOR_EVER,
        )
        return True

    # ---- orchestrators -----------------------------------------------------------------------

    def transcoder(self, who: str, reward_cut: int, fee_share: int) -> None:
        self.orchestrators[who] = replace(
            self.o(who), reward_cut_ppm=reward_cut, fee_share_ppm=fee_share
        )

    def reward(self, who: str) -> maths.Reward:
        self.orchestrators[who], won = bonding.call_reward(self.o(who), self.round)
        self.round = replace(self.round, minted=self.round.minted + won.minted)
        self._add_stake(who, won.amount)
        self.supply += won.minted
        self.minter_lpt += won.amount
        self.treasury_lpt += won.treasury
        return won

    # ---- tickets -----------------------------------------------------------------------------

    def fund(self, who: str, deposit: int, reserve: int) -> None:
        sender = self.senders.setdefault(who, Sender())
        sender.deposit += deposit
        sender.reserve += reserve
        self.minter_eth += deposit + reserve

    def redeem(self, sender: str, recipient: str, face_value: int) -> None:
        purse, now = self.senders[sender], self.round.number
        this_round = sum(v for (number, _), v in purse.claimed.items() if number == now)
        mine = purse.claimed.get((now, recipient), 0)
        share = tickets.reserve_share_wei(purse.reserve, this_round, mine, len(self.pool))
        paid = tickets.paid_wei(face_value, purse.deposit, share)
        from_deposit = min(paid, purse.deposit)
        purse.deposit -= from_deposit
        purse.reserve -= paid - from_deposit
        purse.claimed[now, recipient] = mine + paid - from_deposit
        self.orchestrators[recipient] = bonding.receive_fees(self.o(recipient), paid, self.round)
        self.paid = paid


def pool_of(numbers: dict[str, str]) -> Pool:
    """A pool as the vectors write it."""
    return Pool(
        stake=int(numbers.get("totalStake", 0)),
        reward_cut_ppm=int(numbers.get("transcoderRewardCut", 0)),
        fee_share_ppm=int(numbers.get("transcoderFeeShare", 0)),
        reward_factor=int(numbers["cumulativeRewardFactor"]),
        fee_factor=int(numbers["cumulativeFeeFactor"]),
    )
