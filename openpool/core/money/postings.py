"""What each money event moves. The accounts are explained in `core.money.ledger`.

Must not decide anything: an event says what happened, and here stands what that means in the
books. Amounts are the events' decimal texts; `core.money.ledger` checks them.
"""

from collections.abc import Iterator
from typing import NamedTuple

from openpool.core.money import events as money
from openpool.core.money.accounts import (
    COMMISSION,
    CUSTOMER,
    GAS,
    IN_FLIGHT,
    OPERATOR,
    accrued_account,
    claim_account,
    fees_account,
    in_asset,
    wallet_account,
    worker_account,
)
from openpool.core.payload import Payload


class Posting(NamedTuple):
    """An amount on its way from one account to another."""

    kind: str
    debit: str
    credit: str
    amount_wei: str
    part: str = ""
    """Tells postings of one kind in one event apart, like `/2`."""


def postings_of(data: Payload) -> Iterator[Posting]:
    """What this event moves."""
    match data:
        case money.ClaimOpened(orchestrator=name, pending_wei=amount):
            yield Posting("opening", claim_account(name), OPERATOR, amount)
        case money.RevenueRealised(orchestrator=name, amount_wei=amount):
            yield Posting("revenue", claim_account(name), fees_account(name), amount)
        case money.FeesWithdrawn(orchestrator=name, wallet=wallet, amount_wei=amount):
            to = wallet_account(wallet) if wallet else OPERATOR
            yield Posting("withdrawal", to, claim_account(name), amount)
        case money.WalletReconciled():
            yield _reconciled(data)
        case money.ShareCredited():
            yield from _shared(data)
        case money.AdjustmentMade(debit=debit, credit=credit, amount_wei=amount):
            yield Posting("adjustment", debit, credit, amount)
        case money.RewardShared(address=address, amount_lpt=amount):
            to = in_asset("LPT", worker_account(address))
            yield Posting("reward", in_asset("LPT", OPERATOR), to, amount)
        case money.LptConverted(account=account, amount_wei=amount, amount_lpt=amount_lpt):
            yield Posting("converted", account, OPERATOR, amount)
            spare = in_asset("LPT", OPERATOR)
            yield Posting("converted-lpt", spare, in_asset("LPT", account), amount_lpt)
        case money.CustomerPaid(customer=customer, amount_wei=amount):
            yield Posting("paid", OPERATOR, f"{CUSTOMER}{customer}", amount)
        case money.CorrectionMade(debit=debit, credit=credit, amount_wei=amount):
            yield Posting("correction", debit, credit, amount)
        case money.OrderPlanned(lines=lines, asset=asset):
            for number, line in enumerate(lines, 1):
                to = in_asset(asset, IN_FLIGHT)
                yield Posting(
                    "set-aside", in_asset(asset, line.account), to, line.amount_wei, f"/{number}"
                )
        case money.OrderConfirmed():
            yield from _confirmed(data)
        case money.OrderVoided():
            yield from _voided(data)


def _reconciled(data: money.WalletReconciled) -> Posting:
    wallet = in_asset(data.asset, wallet_account(data.wallet))
    operator = in_asset(data.asset, OPERATOR)
    debit, credit = (wallet, operator) if data.direction == "in" else (operator, wallet)
    return Posting("reconciled", debit, credit, data.amount_wei)


def _shared(data: money.ShareCredited) -> Iterator[Posting]:
    fees = fees_account(data.orchestrator)
    accrued = accrued_account(data.orchestrator, data.address)
    kept = accrued_account(data.orchestrator, COMMISSION)
    yield Posting("release", accrued, fees, data.accrued_wei)
    yield Posting("release-commission", kept, fees, data.accrued_commission_wei)
    yield Posting("share", fees, worker_account(data.address), data.share_wei)
    yield Posting("commission", fees, COMMISSION, data.commission_wei)


def _confirmed(data: money.OrderConfirmed) -> Iterator[Posting]:
    """Sent leaves the wallet, gas too; what was set aside and not used goes back."""
    aside = in_asset(data.asset, IN_FLIGHT)
    wallet = in_asset(data.asset, wallet_account(data.wallet))
    for number, line in enumerate(data.lines, 1):
        part, account = f"/{number}", in_asset(data.asset, line.account)
        back = int(line.amount_wei) - int(line.send_wei) - int(line.gas_wei)
        yield Posting("payout", aside, wallet, line.send_wei, part)
        yield Posting("payout-gas", aside, wallet, line.gas_wei, part)
        yield Posting("returned", aside, account, str(back), part)
        if line.received_lpt != "0":
            to = in_asset("LPT", line.account)
            bought = in_asset("LPT", wallet_account(data.wallet))
            yield Posting("swapped", bought, to, line.received_lpt, part)
    by_workers = sum(int(line.gas_wei) for line in data.lines)
    yield Posting("gas", GAS, wallet_account(data.wallet), str(int(data.fee_wei) - by_workers))


def _voided(data: money.OrderVoided) -> Iterator[Posting]:
    aside = in_asset(data.asset, IN_FLIGHT)
    for number, line in enumerate(data.lines, 1):
        account = in_asset(data.asset, line.account)
        yield Posting("returned", aside, account, line.amount_wei, f"/{number}")
    yield Posting("gas", GAS, wallet_account(data.wallet), data.fee_wei)
