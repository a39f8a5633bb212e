"""Whom to pay now, and for everybody else: why not.

From what is owed (the accounts `worker:<address>`, all workers of one address together), what
people chose, and what the wallet holds. Every address comes out once: as a payment, or as somebody
who waits, with one sentence. Must do no I/O and read no clock.
Read next: `core.money.payouts`, `treasury.payer`.
"""

from collections.abc import Mapping

from msgspec import Struct

from openpool.core.money.events import Asset, PayoutChosen
from openpool.core.units import ETHER, PPM, decimal_text


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
    gas_in_asset_wei: int = -1
    """`gas_wei` in the asset that is paid, to compare the two; -1: not known, so not compared."""
    spent_wei: int = 0
    """Planned within the last 24 hours."""
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
    return _too_dear(asset, owed_wei, rules, standing)


def _too_dear(asset: Asset, owed_wei: int, rules: Rules, standing: Standing) -> str:
    gas_wei = standing.gas_wei if asset == "ETH" else standing.gas_in_asset_wei
    return too_dear(asset, _amount(owed_wei, rules), gas_wei, standing.gas_most_wei, rules)


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
    payments: list[Payment] = []
    waiting: list[Waiting] = []
    today_wei = rules.per_day_max_wei - standing.spent_wei
    funds_wei, gas_funds_wei = standing.funds_wei, standing.gas_funds_wei
    missing_wei = 0
    for each in due:
        cost_wei = each.send_wei + (standing.gas_most_wei if asset == "ETH" else 0)
        gas_short = asset != "ETH" and standing.gas_most_wei > gas_funds_wei
        if each.amount_wei > today_wei:
            limit = amount_text(rules.per_day_max_wei, asset)
            why = f"The limit of {limit} within 24 hours is reached; it is paid when that allows."
        elif cost_wei > funds_wei or gas_short:
            missing_wei += cost_wei
            why = "The pool's wallet holds too little at the moment; it is paid once it is filled."
        else:
            today_wei -= each.amount_wei
            funds_wei -= cost_wei
            gas_funds_wei -= standing.gas_most_wei
            payments.append(each)
            continue
        waiting.append(Waiting(address=each.address, amount_wei=each.amount_wei, why=why))
    return payments, waiting, max(missing_wei - max(funds_wei, 0), 0)
