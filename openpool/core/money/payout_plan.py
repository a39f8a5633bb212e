"""Whom to pay now, and for everybody else: why not.

From what is owed (the accounts `worker:<address>`, all workers of one address together), what
people chose, and what the wallet holds. Every address comes out once: as a payment, or as somebody
who waits, with one sentence. Must do no I/O and read no clock.
Read next: `core.money.payouts`, `treasury.payer`.
"""

import math
from collections.abc import Mapping, Set
from fractions import Fraction

from msgspec import Struct

from openpool.core.money.events import Asset, PayoutChosen
from openpool.core.units import ETHER, PPM, decimal_text

NO_FUNDS = "The pool's wallet holds too little at the moment; it is paid once it is filled."
NO_STAKE = (
    "The pool's wallet has too little stake at the moment, or this round's reward is not called "
    "yet; it is handed over once that has changed."
)
NO_PRICE = (
    "The price of LPT cannot be read at lpt.pool, so gas cannot be compared with the payout: "
    "correct lpt.pool and lpt.weth, or set lpt.pool to none to pay without that check."
)


class Rules(Struct, frozen=True, kw_only=True):
    """What the pool lays down. Amounts are wei, or LPT base units in a plan for LPT."""

    threshold_wei: int
    """Pay when this much is owed, unless the owner chose another."""
    minimum_wei: int
    """The least that counts as a choice."""
    gas_paid_by_worker: bool = False
    gas_share_max_ppm: int = 5_000
    per_payout_max_wei: int = ETHER
    per_day_max_wei: int = 5 * ETHER


class Standing(Struct, frozen=True, kw_only=True):
    """How things stand when the plan is made."""

    owed: Mapping[str, int]
    """Address → what its account holds."""
    funds_wei: int
    """What may be sent: the wallet's, less what is kept and what is on its way. Of the asset."""
    gas_funds_wei: int = 0
    """The same of ETH where another asset is paid; gas is always ETH."""
    gas_wei: int
    """What one payment costs in gas now, in ETH."""
    gas_most_wei: int
    """The most that it can cost."""
    lpt_per_eth: Fraction | None = None
    """The price by which gas is compared with a payout in LPT; None: it is not compared."""
    no_price: str = ""
    """Why that price is not known although it should be: nobody is paid meanwhile."""
    staked: Set[str] = frozenset()
    """Who gets stake: it comes out of `stake_funds_wei`."""
    stake_funds_wei: int = 0
    spent_wei: int = 0
    """Of the asset, planned within the last 24 hours."""
    choices: Mapping[str, PayoutChosen] = {}
    blocked: Mapping[str, str] = {}
    """Address → why."""
    busy: Mapping[str, str] = {}
    """Address → the order that is on its way to it."""
    last_paid: Mapping[str, int] = {}
    elsewhere: Mapping[str, str] = {}
    """Address → a sentence that says how else it is paid."""
    paused: str = ""
    """Why payouts are paused, if they are."""


class Payment(Struct, frozen=True, kw_only=True):
    """An amount that is to be sent now."""

    address: str
    amount_wei: int
    """Taken from the account."""
    send_wei: int
    """Sent; the difference is for gas."""


class Waiting(Struct, frozen=True, kw_only=True):
    """Somebody who gets nothing now."""

    address: str
    amount_wei: int
    why: str


class Plan(Struct, frozen=True, kw_only=True):
    """Everybody to whom something is owed, once."""

    asset: Asset
    payments: tuple[Payment, ...]
    waiting: tuple[Waiting, ...]
    missing_wei: int = 0
    """What the wallet lacks to pay all who are due; 0 if it is solvent."""

    @property
    def total_wei(self) -> int:
        return sum(payment.amount_wei for payment in self.payments)


def plan(asset: Asset, rules: Rules, standing: Standing) -> Plan:
    """Decide for everybody. Who has waited longest is first, so that limits are fair."""
    due: list[Payment] = []
    waiting: list[Waiting] = []
    for address, owed_wei in standing.owed.items():
        if owed_wei <= 0:
            continue
        if why := _why_not(asset, address, owed_wei, rules, standing):
            waiting.append(Waiting(address=address, amount_wei=owed_wei, why=why))
        else:
            due.append(_payment(asset, address, owed_wei, rules, standing))
    due.sort(key=lambda p: (standing.last_paid.get(p.address, 0), p.address))
    payments, too_much, missing_wei = _affordable(asset, due, rules, standing)
    waiting += too_much
    return Plan(
        asset=asset,
        payments=tuple(payments),
        waiting=tuple(sorted(waiting, key=lambda each: each.address)),
        missing_wei=missing_wei,
    )


def threshold_of(address: str, rules: Rules, choices: Mapping[str, PayoutChosen]) -> int:
    """From when on this address is paid: its owner's choice, but never below the minimum."""
    chosen = choices.get(address)
    if chosen is None or int(chosen.threshold_wei) == 0:
        return max(rules.threshold_wei, rules.minimum_wei)
    return max(int(chosen.threshold_wei), rules.minimum_wei)


def amount_text(amount_wei: int, asset: Asset = "ETH") -> str:
    """An exact amount for people: `0.005 ETH`."""
    return f"{decimal_text(amount_wei)} {asset}"


def _shortened(amount_wei: int) -> int:
    """Rounded up to four digits, for sentences in which more would only be in the way."""
    unit = int("1" + "0" * max(len(str(amount_wei)) - 4, 0))
    return -(-amount_wei // unit) * unit


def _why_not(asset: Asset, address: str, owed_wei: int, rules: Rules, standing: Standing) -> str:
    """Why this address is not even due; "" if it is."""
    if address in standing.blocked:
        return f"Nothing is sent to this address: {standing.blocked[address]}"
    if address in standing.busy:
        return f"Order {standing.busy[address]} is on its way to this address."
    if address in standing.elsewhere:
        return standing.elsewhere[address]
    threshold = threshold_of(address, rules, standing.choices)
    if owed_wei < threshold:
        missing = amount_text(_shortened(threshold - owed_wei), asset)
        return f"{missing} more, and the threshold of {amount_text(threshold, asset)} is reached."
    if standing.paused:
        return f"Payouts are paused: {standing.paused}"
    if standing.no_price:
        return standing.no_price
    amount_wei = _amount(owed_wei, rules)
    if amount_wei <= 0:
        return f"The pool's limits allow no payouts in {asset}."
    gas_wei = gas_in(asset, standing.gas_wei, standing.lpt_per_eth)
    return too_dear(asset, amount_wei, gas_wei, standing.gas_most_wei, rules)


def gas_in(asset: Asset, gas_wei: int, lpt_per_eth: Fraction | None) -> int:
    """Gas in the asset that is paid, rounded up; 0 where no price says how to compare them."""
    if asset == "ETH":
        return gas_wei
    return 0 if lpt_per_eth is None else math.ceil(gas_wei * lpt_per_eth)


def too_dear(asset: Asset, amount_wei: int, gas_wei: int, gas_most_wei: int, rules: Rules) -> str:
    """Why a payout waits for cheaper gas; "" if it does not. `gas_wei` is in the asset paid."""
    if gas_wei * PPM > rules.gas_share_max_ppm * amount_wei:
        share, gas = percent_text(rules.gas_share_max_ppm), amount_text(_shortened(gas_wei), asset)
        return f"Gas would cost {gas} now, more than {share} of the payout; it waits until less."
    if _by_worker(asset, rules) and amount_wei <= gas_most_wei:
        return "Gas might cost as much as the payout; it waits until gas is cheaper."
    return ""


def percent_text(ppm: int) -> str:
    """A rate for people: `0.5 %`."""
    whole, rest = divmod(ppm, 10_000)
    digits = f"{rest:04d}".rstrip("0")
    return f"{whole}.{digits} %" if digits else f"{whole} %"


def _by_worker(asset: Asset, rules: Rules) -> bool:
    """Gas is ETH, so only a payout in ETH can bear it."""
    return rules.gas_paid_by_worker and asset == "ETH"


def _amount(owed_wei: int, rules: Rules) -> int:
    """What is not paid now because of a limit is paid the next time."""
    return min(owed_wei, rules.per_payout_max_wei, rules.per_day_max_wei)


def _payment(
    asset: Asset, address: str, owed_wei: int, rules: Rules, standing: Standing
) -> Payment:
    amount_wei = _amount(owed_wei, rules)
    gas_wei = standing.gas_most_wei if _by_worker(asset, rules) else 0
    return Payment(address=address, amount_wei=amount_wei, send_wei=amount_wei - gas_wei)


def _affordable(
    asset: Asset, due: list[Payment], rules: Rules, standing: Standing
) -> tuple[list[Payment], list[Waiting], int]:
    """Who can be paid with what there is today, and what the wallet lacks for the others."""
    left = _Left(asset, rules, standing)
    payments: list[Payment] = []
    waiting: list[Waiting] = []
    for each in due:
        if why := left.take(each):
            waiting.append(Waiting(address=each.address, amount_wei=each.amount_wei, why=why))
        else:
            payments.append(each)
    return payments, waiting, left.missing_wei()


class _Left:
    """What may still be sent today; one payment after the other is taken out of it."""

    def __init__(self, asset: Asset, rules: Rules, standing: Standing) -> None:
        self._asset, self._rules, self._standing = asset, rules, standing
        self._today_wei = rules.per_day_max_wei - standing.spent_wei
        self._funds_wei = {False: standing.funds_wei, True: standing.stake_funds_wei}
        self._missing_wei = {False: 0, True: 0}
        """By whether it is stake, as in the line before."""
        self._gas_funds_wei = standing.gas_funds_wei

    def take(self, payment: Payment) -> str:
        """Take a payment out of it, or say why that cannot be."""
        gas_wei = self._standing.gas_most_wei
        cost_wei = payment.send_wei + (gas_wei if self._asset == "ETH" else 0)
        staked = payment.address in self._standing.staked
        if payment.amount_wei > self._today_wei:
            self._today_wei = 0  # else small payouts could overtake a large one for ever
            limit = amount_text(self._rules.per_day_max_wei, self._asset)
            return f"The limit of {limit} within 24 hours is reached; it is paid when that allows."
        short = cost_wei > self._funds_wei[staked]
        if short or self._lacks_gas(gas_wei):
            self._missing_wei[staked] += cost_wei
            return NO_STAKE if short and staked else NO_FUNDS
        self._today_wei -= payment.amount_wei
        self._funds_wei[staked] -= cost_wei
        self._gas_funds_wei -= gas_wei
        return ""

    def missing_wei(self) -> int:
        """What it lacks for all who were refused for want of funds."""
        lacks = (self._missing_wei[each] - max(self._funds_wei[each], 0) for each in (False, True))
        return sum(max(wei, 0) for wei in lacks)

    def _lacks_gas(self, gas_wei: int) -> bool:
        """ETH that is paid has its gas in its cost."""
        return self._asset != "ETH" and gas_wei > self._gas_funds_wei
