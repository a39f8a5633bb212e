"""Orders, payouts and their events in one line for people. Pure."""

from openpool.core.events import AnyPayload
from openpool.core.money import events as money
from openpool.core.money.events import OrderKind
from openpool.core.money.orders import Attempt, Order
from openpool.core.money.payout_plan import amount_text
from openpool.web.format import ether_text


def of_payouts(data: AnyPayload) -> str:
    """What happened; "" if it is about something else."""
    match data:
        case money.OrderPlanned():
            return f"{data.order} planned: {_what(data)}"
        case money.OrderSigned(order=order, attempt=attempt, nonce=nonce):
            again = "" if attempt == 1 else f" again, with more fee (attempt {attempt})"
            return f"{order} signed{again}, nonce {nonce}"
        case money.OrderSent(order=order, answer=answer):
            return f"{order} sent" + ("" if answer == "ok" else f"; the chain says: {answer}")
        case money.OrderMined(order=order, block=block):
            return f"{order} is in block {block}, not final yet"
        case money.OrderConfirmed(order=order, block=block, fee_wei=fee):
            return f"{order} is done, in final block {block}, for {ether_text(int(fee))} of gas"
        case money.OrderVoided(order=order, reason=reason):
            return f"{order} was given up: {reason}"
        case money.PayoutsPaused(by=by, reason=reason):
            return f"payouts paused by {by}: {reason}"
        case money.PayoutsResumed(by=by):
            return f"payouts go on ({by})"
        case money.AddressBlocked(address=address, reason=reason):
            return f"{address} is not paid: {reason}"
        case money.AddressUnblocked(address=address):
            return f"{address} is paid again"
        case money.PayoutChosen():
            return _chosen(data)
        case money.LptConverted(account=account, amount_wei=wei, amount_lpt=lpt):
            return f"{account} got {amount_text(int(lpt), 'LPT')} for {ether_text(int(wei))}"
    return ""


PURPOSES: dict[OrderKind, str] = {
    "payout": "Pays what one address is owed",
    "batch-payout": "Pays many addresses in one transaction",
    "stake-payout": "Hands over LPT as stake with the orchestrator",
    "swap": "Buys LPT for fees whose owners want LPT",
    "withdraw-fees": "Withdraws fees from the protocol",
    "reward": "Calls the reward of a round",
    "approve": "Pays nobody",
}


def purpose(order: Order) -> str:
    """What an order is for; its note says more, if there is one that does."""
    more = "" if order.note in ("", "run") else f" {order.note[:1].upper()}{order.note[1:]}"
    return f"{PURPOSES[order.kind]}.{more}"


def standing(order: Order, paused: str = "") -> str:
    """How an order stands now, in one sentence. `paused`: why payouts are, if they are."""
    match order.state:
        case "planned" if paused:
            return f"Payouts are paused, so nothing is signed yet: {paused}"
        case "planned":
            return "It is planned and set aside in the books; nothing is signed yet."
        case "signed":
            return f"It is signed with nonce {order.nonce}, and was not sent yet."
        case "sent":
            return _on_its_way(order)
        case "mined":
            return f"It is in block {order.block}, which is not final yet."
        case "confirmed":
            fee = ether_text(order.fee_wei)
            return f"It is done: in final block {order.block}, for {fee} of gas."
    owners = "its owner" if len(order.lines) == 1 else "its owners"
    back = f" What was set aside went back to {owners}." if order.lines else ""
    return f"It was given up: {order.reason.rstrip('.')}.{back}"


def _on_its_way(order: Order) -> str:
    if order.newest.answer not in ("", "ok"):
        return f"It was sent, and the chain says: {order.newest.answer}. It is tried again."
    if len(order.attempts) == 1:
        return "It was sent, and waits for a block."
    return (
        f"It was sent {len(order.attempts)} times, each with more fee, and waits for a block; "
        "only one of them can ever be mined."
    )


def fate(order: Order, attempt: Attempt) -> str:
    """What became of a transaction, in a word or two."""
    if attempt.tx == order.tx:
        return "failed" if order.state == "voided" else order.state
    if order.ended or order.tx:
        return "never mined"
    if attempt is not order.newest:
        return "replaced"
    return "sent" if attempt.sent_ms else "signed"


def _what(data: money.OrderPlanned) -> str:
    total = sum(int(line.amount_wei) for line in data.lines)
    if not data.lines:
        return f"{data.kind} at {data.to}"
    whom = data.lines[0].address if len(data.lines) == 1 else f"{len(data.lines)} payees"
    amount = ether_text(total) if data.asset == "ETH" else amount_text(total, "LPT")
    return f"{amount} for {whom} ({data.kind})"


def _chosen(data: money.PayoutChosen) -> str:
    least = int(data.threshold_wei)
    start = f"from {ether_text(least)} on" if least else "from the pool's threshold on"
    how = f"{data.asset}{' as stake' if data.staked else ''}"
    return f"{data.address} wants {how}, {start}"
