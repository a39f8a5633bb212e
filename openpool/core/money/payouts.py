"""What to do next with an order, from what the log says and what the chain says. Nothing else.

The table, first match wins:

    a final block holds one of our transactions, and it succeeded        Confirm
    a final block holds one of ours, and it failed                       Void, money goes back
    some block holds one of ours                                         Mark, then Wait
    nothing is signed: its recipient is blocked, or its wallet is gone   Void
    nothing is signed: payouts are paused                                Wait
    nothing is signed                                                    Sign
    signed, never sent, and payouts are paused                           Wait
    a final block holds a transaction from elsewhere with its nonce,
    proved by the wallet's own signature                                 Void, money goes back
    the nonce seems used, and that proof is missing                      Wait
    signed, and never sent                                               Send
    it offered too little for the chain to take it                       Replace
    it is next in line, and was not mined for a while                    Replace
    it was not sent for a while                                          Send the same bytes
    else                                                                 Wait

That a nonce is used is never believed on the word of endpoints: only a transaction that the wallet
signed, and that does something else than the order, ends an order.

Two things make a double payment impossible: the bytes are on disk before anybody sees them, and an
order gets another nonce never: only a new order does, after the old one is provably dead. A
replacement has the same nonce, recipient and amount, so at most one of all attempts can be mined,
and every one of their hashes is looked for.

Must do no I/O and read no clock. Read next: `core.money.orders`, `treasury.payer`.
"""

from msgspec import Struct

from openpool.core.money.events import OrderLine
from openpool.core.money.orders import Order
from openpool.core.units import PPM, split

BUMP_PPM = 1_110_000
"""A replacement offers 11 % more, as endpoints want at least 10 %."""
UNPROVED = "Its nonce seems used, but no endpoint shows the transaction that used it."


class Outcome(Struct, frozen=True, kw_only=True):
    """One of our transactions in a block that is part of the chain now."""

    tx: str
    block: int
    block_hash: str
    ok: bool
    fee_wei: int


class Foreign(Struct, frozen=True, kw_only=True):
    """A transaction with the order's nonce in a final block, proved by the wallet's signature."""

    tx: str
    to: str
    value_wei: int
    data: str


class Fees(Struct, frozen=True, kw_only=True):
    """What a transaction offers for a unit of gas."""

    max_fee_wei: int
    priority_fee_wei: int


class Sight(Struct, frozen=True, kw_only=True):
    """What the chain says about an order. The block that counts as final is asked first, the
    nonces next, the receipts last: so a receipt can be missed only if it is newer."""

    final_block: int
    final_nonce: int
    """How many transactions of the wallet the final block counts."""
    latest_nonce: int
    outcome: Outcome | None = None
    """Whichever attempt is in a block."""
    fees: Fees
    """What a transaction should offer now."""
    resent_ms: int = 0
    """When this process gave the newest attempt to an endpoint; 0 is never."""
    foreign: Foreign | None = None
    """What used the nonce, if it is none of the attempts; looked for only where it seems used."""


class Patience(Struct, frozen=True, kw_only=True):
    """How long to wait for what."""

    replace_after_ms: int = 300_000
    resend_after_ms: int = 60_000
    max_fee_max_wei: int = 5 * 10**9
    """More than this is never offered for a unit of gas."""


class Wait(Struct, frozen=True):
    why: str


class Sign(Struct, frozen=True):
    """Take the next free nonce and sign."""


class Send(Struct, frozen=True):
    """Give the newest attempt's bytes to the chain, for the first time or again."""

    why: str


class Replace(Struct, frozen=True):
    """Sign again with the same nonce, and more fee."""

    fees: Fees
    why: str


class Mark(Struct, frozen=True):
    """Write down in which block it was seen."""

    outcome: Outcome


class Confirm(Struct, frozen=True):
    outcome: Outcome


class Void(Struct, frozen=True):
    """It will never happen: what was set aside goes back."""

    reason: str
    outcome: Outcome | None = None
    blocked: tuple[str, ...] = ()
    """Addresses that get nothing any more until somebody acts, for the same reason."""


Step = Wait | Sign | Send | Replace | Mark | Confirm | Void


def next_step(
    order: Order,
    sight: Sight,
    now_ms: int,
    *,
    patience: Patience,
    paused: bool = False,
    ours: bool = True,
    blocked: frozenset[str] = frozenset(),
) -> Step:
    """The next step of one open order; the table above. `ours`: its wallet's key is at hand."""
    if sight.outcome is not None:
        return _in_a_block(order, sight.outcome, sight.final_block)
    if not order.attempts:
        return _unsigned(order, paused=paused, ours=ours, blocked=blocked)
    nonce = order.attempts[0].nonce
    if paused and order.moves_money and not (order.newest.sent_ms or sight.resent_ms):
        return Wait("Payouts are paused; it is signed, but was never sent.")
    if sight.latest_nonce > nonce or sight.final_nonce > nonce:
        return _nonce_used(order, nonce, sight)
    return _unmined(order, nonce, sight, now_ms, patience, ours=ours)


def _in_a_block(order: Order, outcome: Outcome, final_block: int) -> Step:
    if outcome.block > final_block:
        marked = (order.state, order.tx, order.block_hash)
        if marked == ("mined", outcome.tx, outcome.block_hash):
            return Wait("It is in a block; it counts once the block is final.")
        return Mark(outcome)
    if outcome.ok:
        return Confirm(outcome)
    return _failed(order, outcome)


def _failed(order: Order, outcome: Outcome) -> Void:
    """A payout that a recipient refuses blocks the recipient; in a batch nobody knows who it was,
    so all are paid one by one the next time. A swap that came too late hurts nobody."""
    if order.kind != "payout" or order.asset != "ETH":
        return Void("The transaction failed on chain; nothing was sent.", outcome)
    reason = "The contract at this address refused the payment, or needed more gas than is offered."
    return Void(reason, outcome, tuple(line.address for line in order.lines))


def _unsigned(order: Order, *, paused: bool, ours: bool, blocked: frozenset[str]) -> Step:
    if not ours:
        return Void("The pool pays from another wallet now, and this was never signed.")
    if any(line.address in blocked for line in order.lines):
        return Void("The address is blocked, and this was never signed.")
    if paused and order.moves_money:
        return Wait("Payouts are paused.")
    return Sign()


def _nonce_used(order: Order, nonce: int, sight: Sight) -> Step:
    foreign = sight.foreign
    if sight.final_nonce <= nonce:
        return Wait("Its nonce is used in a block that is not final yet.")
    if foreign is None or any(a.tx == foreign.tx for a in order.attempts):
        return Wait(UNPROVED)
    meant = (order.to.lower(), order.value_wei, order.data)
    if order.moves_money and (foreign.to.lower(), foreign.value_wei, foreign.data) == meant:
        return Wait(f"{foreign.tx} did the same with its nonce, and the log does not know it.")
    return Void(f"A transaction from elsewhere used its nonce: {foreign.tx}.")


def _unmined(
    order: Order, nonce: int, sight: Sight, now_ms: int, patience: Patience, *, ours: bool
) -> Step:
    newest = order.newest
    if not newest.sent_ms and not sight.resent_ms:
        return Send("It is signed, and may never have been sent.")
    fees = bumped(order, sight.fees, patience.max_fee_max_wei) if ours else None
    if fees and newest.answer == "underpriced":
        return Replace(fees, "The chain wants a higher fee.")
    unfunded = newest.answer == "insufficient-funds"
    undone = order.state == "mined" and order.block > sight.final_block
    stuck = now_ms >= newest.signed_ms + patience.replace_after_ms and not undone
    if fees and stuck and sight.latest_nonce == nonce and not unfunded:
        return Replace(fees, "It was not mined for a while.")
    if now_ms >= sight.resent_ms + patience.resend_after_ms:
        return Send("It may have been forgotten.")
    return Wait(_why_unmined(unfunded, sight.latest_nonce, nonce))


def _why_unmined(unfunded: bool, latest_nonce: int, nonce: int) -> str:
    if unfunded:
        return "The wallet holds too little for it; it is sent again until it is taken."
    if latest_nonce < nonce:
        return "Transactions before it are still on their way."
    return "It is sent, and not in a block yet."


def bumped(order: Order, now: Fees, most_wei: int) -> Fees | None:
    """Fees that replace the newest attempt: at least 11 % more, and what is usual now if that is
    more. None if that is above what may be offered."""
    newest = order.newest
    max_fee = max(now.max_fee_wei, _more(newest.max_fee_wei))
    priority = max(now.priority_fee_wei, _more(newest.priority_fee_wei))
    if max_fee > most_wei and now.max_fee_wei <= most_wei:
        max_fee = most_wei  # all that may be offered, if that is still a replacement
    if max_fee > most_wei or max_fee < _more(newest.max_fee_wei):
        return None
    return Fees(max_fee_wei=max_fee, priority_fee_wei=min(priority, max_fee))


def offered(base_fee_wei: int, priority_fee_wei: int, most_wei: int) -> Fees | None:
    """What a new transaction offers: twice the base fee, since it may double before it is mined.
    None if even today's price is above what may be offered."""
    now_wei = base_fee_wei + priority_fee_wei
    if now_wei > most_wei:
        return None
    max_fee = max(min(2 * base_fee_wei + priority_fee_wei, most_wei), 1)
    return Fees(max_fee_wei=max_fee, priority_fee_wei=min(priority_fee_wei, max_fee))


def _more(fee_wei: int) -> int:
    return max(fee_wei + 1, -(-fee_wei * BUMP_PPM // PPM))


def settled_lines(order: Order, fee_wei: int, received_lpt: int = 0) -> tuple[OrderLine, ...]:
    """The lines of a confirmed order: each recipient's part of the gas, an equal one and never more
    than was left for it, and of the LPT that an exchange brought, by what each put in."""
    if not order.lines:
        return ()
    gas = split(fee_wei, [1] * len(order.lines)) if order.asset == "ETH" else []
    weights = [int(line.send_wei) for line in order.lines]
    lpt = split(received_lpt, weights) if order.kind == "swap" else []
    return tuple(
        OrderLine(
            account=line.account,
            address=line.address,
            amount_wei=line.amount_wei,
            send_wei=line.send_wei,
            gas_wei=str(min(gas[n], int(line.amount_wei) - int(line.send_wei)) if gas else 0),
            received_lpt=str(lpt[n] if lpt else 0),
        )
        for n, line in enumerate(order.lines)
    )


def gap(orders: list[Order], latest_nonce: int) -> int | None:
    """A nonce that no order of the wallet has, and for which its signed orders wait; None if there
    is none. An endpoint that lied about a nonce leaves one, or a reorganisation that undid somebody
    else's transaction. Filling it also kills whatever was given up with that nonce."""
    waiting = {o.nonce for o in orders if o.nonce is not None and o.nonce >= latest_nonce}
    return latest_nonce if waiting and latest_nonce not in waiting else None
