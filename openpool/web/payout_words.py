"""Events of orders and payouts in one line for people. Used by `web.words`."""

from openpool.core.events import AnyPayload
from openpool.core.money import events as money
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
