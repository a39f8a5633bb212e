"""The nouns of delegating, as the pages and the command line show them: who asks, for what, what
it would take. Amounts of LPT are base units.
"""

from collections.abc import Sequence

from msgspec import Struct

from openpool.core.errors import NotAllowed
from openpool.core.livepeer import delegators, transactions
from openpool.core.livepeer.amounts import eth_text, lpt_text
from openpool.core.livepeer.bonding import NOBODY, Delegator, Status
from openpool.core.livepeer.delegators import (
    Deed,
    Lock,
    PastRound,
    Ranked,
    Situation,
    Standing,
    Warning,
)
from openpool.core.livepeer.outlook import Outlook
from openpool.core.livepeer.transactions import Contracts, Unsigned


class Profile(Struct, frozen=True, kw_only=True):
    """An orchestrator, as somebody sees it who thinks of delegating to it."""

    name: str
    address: str
    read_ms: int
    round: int
    is_initialized: bool
    is_locked: bool
    round_l1_blocks: int
    unbonding_rounds: int
    is_active: bool
    has_rewarded: bool
    """Whether it has called `reward` in this round."""
    reward_cut_ppm: int
    """What it keeps of rewards in this round; the fee share is what delegators get of fees."""
    fee_share_ppm: int
    next_reward_cut_ppm: int
    next_fee_share_ppm: int
    stake_lpt: int
    """Today's; the standing and the outlook are about the next round."""
    standing: Standing
    past: tuple[PastRound, ...]
    """The oldest first, without the current round."""
    outlook: Outlook


class Account(Struct, frozen=True, kw_only=True):
    """A delegator at this moment."""

    address: str
    round: int
    status: Status
    delegate: str
    """`bonding.NOBODY` if there is none."""
    bonded_lpt: int
    """As of the last claim."""
    stake_lpt: int
    """With all rewards, claimed or not."""
    fees_wei: int
    """All, claimed or not."""
    withdrawable_wei: int
    start_round: int
    last_claim_round: int
    balance_lpt: int
    """LPT that is not staked."""
    allowance_lpt: int
    """What the contracts may take of that."""
    locks: tuple[Lock, ...]


class Wish(Struct, frozen=True, kw_only=True):
    """What a delegator wants to do."""

    deed: Deed
    address: str
    amount: int | None = None
    """LPT for `stake` and `unstake`, wei for `withdraw-fees`; None: all there is."""
    to: str = ""
    """The orchestrator for `stake` and `restake`, the recipient for `withdraw-fees`."""
    lock: int | None = None
    """For `restake` and `withdraw-stake`; None: all that are ripe."""


class Plan(Struct, frozen=True, kw_only=True):
    """The transactions of a wish, in their order."""

    chain_id: int
    address: str
    calls: tuple[Unsigned, ...]
    warnings: tuple[Warning, ...]


class Facts(Struct, frozen=True, kw_only=True):
    """All that a plan depends on, read at one time."""

    chain_id: int
    contracts: Contracts
    ranked: Ranked
    unbonding_rounds: int
    account: Account
    delegator: Delegator
    present: Situation
    present_stake_lpt: int
    """Delegated to the present delegate in the next round."""
    target: str
    target_situation: Situation
    target_stake_lpt: int
    recipient_has_code: bool = False


RECIPIENT_CODE = Warning(
    code="recipient-has-code",
    text="The recipient is a contract. The contracts pass it so little gas that it may be unable "
    "to take the ETH, and the transaction would fail.",
)


def plan(wish: Wish, facts: Facts) -> Plan:
    """The transactions that carry out a wish. Raises NotAllowed if they would fail."""
    is_itself = facts.account.delegate == facts.account.address
    warned = delegators.warnings(
        wish.deed, facts.delegator, facts.present, facts.target_situation, is_itself=is_itself
    )
    if wish.deed == "withdraw-fees" and facts.recipient_has_code:
        warned.append(RECIPIENT_CODE)
    for warning in warned:
        if warning.level == "refused":
            raise NotAllowed(warning.text)
    return Plan(
        chain_id=facts.chain_id,
        address=wish.address,
        calls=tuple(_calls(wish, facts)),
        warnings=tuple(warned),
    )


def _calls(wish: Wish, facts: Facts) -> Sequence[Unsigned]:
    match wish.deed:
        case "stake":
            return _stake(wish, facts)
        case "unstake":
            return [_unstake(wish, facts)]
        case "restake":
            return [_restake(wish, facts)]
        case "claim":
            return [_claim(facts)]
        case "withdraw-fees":
            return [_withdraw_fees(wish, facts)]
        case "withdraw-stake":
            return _withdraw_stake(wish, facts)


def _stake(wish: Wish, facts: Facts) -> list[Unsigned]:
    account = facts.account
    amount = account.balance_lpt if wish.amount is None else wish.amount
    if amount > account.balance_lpt:
        raise NotAllowed(f"The account holds {lpt_text(account.balance_lpt)} that is not staked.")
    moves = account.delegate not in (NOBODY, facts.target)
    if moves and account.delegate == account.address:
        raise NotAllowed("An orchestrator cannot move its own stake to another one.")
    if not amount and not (moves and account.stake_lpt):
        raise NotAllowed("There is nothing to stake: the account holds no LPT.")
    return transactions.stake(
        facts.contracts,
        facts.ranked,
        amount_lpt=amount,
        to=facts.target,
        to_stake_lpt=facts.target_stake_lpt,
        moves_from=account.delegate if moves else NOBODY,
        moves_lpt=account.stake_lpt if moves else 0,
        allowance_lpt=account.allowance_lpt,
    )


def _unstake(wish: Wish, facts: Facts) -> Unsigned:
    account = facts.account
    if account.status == "pending":
        raise NotAllowed(f"This stake is new; it can be unbonded from round {account.start_round}.")
    amount = account.stake_lpt if wish.amount is None else wish.amount
    if not 0 < amount <= account.stake_lpt:
        raise NotAllowed(f"The account has staked {lpt_text(account.stake_lpt)}.")
    return transactions.unstake(
        facts.contracts,
        facts.ranked,
        amount_lpt=amount,
        delegate=account.delegate,
        delegate_stake_lpt=facts.present_stake_lpt,
        withdraw_round=account.round + facts.unbonding_rounds,
    )


def _restake(wish: Wish, facts: Facts) -> Unsigned:
    account = facts.account
    is_unbonded = account.status == "unbonded"
    if not is_unbonded and facts.target != account.delegate:
        raise NotAllowed("While other LPT is staked, a lock can go back to the same orchestrator.")
    return transactions.restake(
        facts.contracts,
        facts.ranked,
        lock=_lock(wish, account),
        to=facts.target,
        to_stake_lpt=facts.target_stake_lpt,
        is_unbonded=is_unbonded,
    )


def _lock(wish: Wish, account: Account) -> Lock:
    found = [each for each in account.locks if wish.lock in (None, each.lock)]
    if not found:
        raise NotAllowed("The account has no such lock." if account.locks else "It has no locks.")
    if wish.lock is None and len(found) > 1:
        numbers = ", ".join(str(each.lock) for each in found)
        raise NotAllowed(f"Say which lock is meant: the account has {numbers}.")
    return found[0]


def _claim(facts: Facts) -> Unsigned:
    account = facts.account
    if account.last_claim_round >= account.round:
        raise NotAllowed("Earnings were claimed in this round already; claim again in the next.")
    if account.delegate == NOBODY:
        raise NotAllowed("The account delegates to nobody, so there is nothing to claim.")
    return transactions.claim(facts.contracts, account.round)


def _withdraw_fees(wish: Wish, facts: Facts) -> Unsigned:
    account = facts.account
    amount = account.withdrawable_wei if wish.amount is None else wish.amount
    if not 0 < amount <= account.withdrawable_wei:
        later = "; the rest in the next round" if account.fees_wei > amount else ""
        raise NotAllowed(
            f"Fees of {eth_text(account.withdrawable_wei)} can be withdrawn now{later}."
        )
    return transactions.withdraw_fees(facts.contracts, wish.to or account.address, amount)


def _withdraw_stake(wish: Wish, facts: Facts) -> list[Unsigned]:
    account = facts.account
    chosen = [each for each in account.locks if wish.lock in (None, each.lock)]
    ripe = delegators.ripe(chosen, account.round)
    if not ripe:
        first = min((each.withdraw_round for each in chosen), default=0)
        when = f"before round {first}" if first else "because no such lock exists"
        raise NotAllowed(f"No stake can be withdrawn {when}; it is round {account.round}.")
    return [transactions.withdraw_stake(facts.contracts, each) for each in ripe]
