"""The decision table of orders, row by row; fees; gaps in nonces; the fold of orders."""

from typing import Any

import pytest
from msgspec.structs import replace

from openpool.core.events import Event
from openpool.core.money import events as money
from openpool.core.money.events import OrderLine
from openpool.core.money.orders import DAY_MS, Attempt, Order, OrderBook, Purse
from openpool.core.money.payouts import (
    Confirm,
    Fees,
    Foreign,
    Mark,
    Outcome,
    Patience,
    Replace,
    Send,
    Sight,
    Sign,
    Void,
    Wait,
    bumped,
    gap,
    next_step,
    offered,
    settled_lines,
)

PAYEE = "0x0000000000000000000000000000000000000101"
WALLET = "0x0000000000000000000000000000000000000001"
PURSE = Purse(WALLET, 1)
LINE = OrderLine(account=f"worker:{PAYEE}", address=PAYEE, amount_wei="100", send_wei="90")
PATIENCE = Patience(replace_after_ms=300_000, resend_after_ms=60_000, max_fee_max_wei=1000)
T0 = 1_000_000
ATTEMPT = Attempt(
    number=1,
    nonce=7,
    tx="0xaa",
    raw="0x00",
    gas_limit=10,
    max_fee_wei=100,
    priority_fee_wei=10,
    signed_ms=T0,
)
SENT = replace(ATTEMPT, sent_ms=T0, answer="ok")
PLANNED = Order(
    order="payout-1",
    wallet=WALLET,
    chain_id=1,
    kind="payout",
    asset="ETH",
    to=PAYEE,
    value_wei=90,
    data="0x",
    lines=(LINE,),
    note="",
    planned_ms=T0,
)
ORDER = replace(PLANNED, state="sent", attempts=(SENT,))
SIGHT = Sight(
    final_block=50,
    final_nonce=7,
    latest_nonce=7,
    fees=Fees(max_fee_wei=100, priority_fee_wei=10),
    resent_ms=T0,
)
IN_BLOCK = Outcome(tx="0xaa", block=55, block_hash="0xb", ok=True, fee_wei=9)


def step(order: Order = ORDER, after_ms: int = 1_000, **changes: Any) -> Any:
    keys = ("paused", "ours", "blocked")
    how = {key: changes.pop(key) for key in keys if key in changes}
    sight = replace(SIGHT, **changes)
    return next_step(order, sight, T0 + after_ms, patience=PATIENCE, **how)


def test_in_a_final_block() -> None:
    """What a final block holds is the end: confirmed, or voided if it failed, with the recipient
    blocked if it was a payment of ETH to one."""
    final = replace(IN_BLOCK, block=50)
    assert step(outcome=final) == Confirm(final)
    failed = replace(final, ok=False)
    void = step(outcome=failed)
    assert (void.outcome, void.blocked) == (failed, (PAYEE,))
    for changes in ({"kind": "batch-payout"}, {"kind": "swap"}, {"asset": "LPT"}):
        assert step(replace(ORDER, **changes), outcome=failed).blocked == ()


def test_in_a_block_that_is_not_final() -> None:
    """It is written down once, again if the block is another one, and then waited for; a failure
    counts only once it is final."""
    assert step(outcome=IN_BLOCK) == Mark(IN_BLOCK)
    mined = replace(ORDER, state="mined", tx="0xaa", block=55, block_hash="0xb")
    assert isinstance(step(mined, outcome=IN_BLOCK), Wait)
    other = replace(IN_BLOCK, block_hash="0xc")
    assert step(mined, outcome=other) == Mark(other)
    assert isinstance(step(outcome=replace(IN_BLOCK, ok=False)), Mark)


def test_not_signed_yet() -> None:
    """Signed next; held by the brake if it moves money; given up, since that is certain, if its
    recipient is blocked or its wallet gone."""
    assert step(PLANNED) == Sign()
    assert isinstance(step(PLANNED, paused=True), Wait)
    reward = replace(PLANNED, kind="reward", lines=(), value_wei=0)
    assert step(reward, paused=True) == Sign()
    assert isinstance(step(PLANNED, blocked=frozenset([PAYEE])), Void)
    assert isinstance(step(PLANNED, ours=False), Void)


def test_signed_and_never_sent() -> None:
    """After a crash between disk and network the bytes go out; not while payouts are paused."""
    signed = replace(ORDER, state="signed", attempts=(ATTEMPT,))
    assert isinstance(step(signed, resent_ms=0), Send)
    assert isinstance(step(signed, resent_ms=0, paused=True), Wait)
    assert isinstance(step(signed, resent_ms=0, paused=True, final_nonce=9, latest_nonce=9), Wait)


def test_sent_and_forgotten() -> None:
    """The same bytes again after a minute, or at once after a restart; even while paused."""
    assert isinstance(step(after_ms=59_000), Wait)
    assert isinstance(step(after_ms=60_000), Send)
    assert isinstance(step(after_ms=1_000, resent_ms=0), Send)
    assert isinstance(step(after_ms=60_000, paused=True), Send)


def test_stuck() -> None:
    """More fee after five minutes, only for the one that is next in line, and only with its key."""
    fees = Fees(max_fee_wei=111, priority_fee_wei=12)
    assert step(after_ms=300_000).fees == fees
    assert isinstance(step(after_ms=300_000, latest_nonce=6, final_nonce=6), Send)
    assert isinstance(step(after_ms=300_000, ours=False), Send)
    short = replace(ORDER, attempts=(replace(SENT, answer="insufficient-funds"),))
    assert isinstance(step(short, after_ms=300_000), Send)
    undone = replace(ORDER, state="mined", tx="0xaa", block=55, block_hash="0xb")
    assert isinstance(step(undone, after_ms=300_000), Send)
    assert isinstance(step(undone, after_ms=300_000, final_block=55), Replace)


def test_underpriced() -> None:
    """Replaced at once, as long as the limit allows."""
    cheap = replace(ORDER, attempts=(replace(SENT, answer="underpriced"),))
    assert isinstance(step(cheap), Replace)
    dear = replace(ORDER, attempts=(replace(SENT, answer="underpriced", max_fee_wei=950),))
    assert isinstance(step(dear), Wait)


def test_a_nonce_used_by_somebody_else() -> None:
    """Given up only when a final block holds the transaction that did it, and that is another
    payment and none of ours; however long the chain says that the nonce is used."""
    foreign = Foreign(tx="0xff", to=WALLET, value_wei=1, data="0x")
    assert isinstance(step(latest_nonce=8, foreign=foreign), Wait)
    used = {"latest_nonce": 8, "final_nonce": 8}
    assert isinstance(step(**used, after_ms=10**9), Wait)
    assert isinstance(step(**used, foreign=replace(foreign, tx=SENT.tx)), Wait)
    same = replace(foreign, to=PAYEE, value_wei=90)
    assert isinstance(step(**used, foreign=same), Wait)
    void = step(**used, foreign=foreign)
    assert (type(void), void.outcome, void.blocked) == (Void, None, ())
    assert "0xff" in void.reason


def test_offers() -> None:
    """Twice the base fee, within the limit; nothing if today's price is above it."""
    assert offered(10, 1, 1000) == Fees(max_fee_wei=21, priority_fee_wei=1)
    assert offered(600, 1, 1000) == Fees(max_fee_wei=1000, priority_fee_wei=1)
    assert offered(1000, 1, 1000) is None
    assert offered(0, 0, 1000) == Fees(max_fee_wei=1, priority_fee_wei=0)


@pytest.mark.parametrize(
    ("max_fee", "priority", "expected"),
    [(100, 10, (111, 12)), (1, 0, (2, 1)), (900, 0, (999, 1)), (901, 0, None), (950, 5, None)],
)
def test_replacements_offer_enough(
    max_fee: int, priority: int, expected: tuple[int, int] | None
) -> None:
    """At least 11 % more of both, never the same, never above the limit."""
    order = replace(
        ORDER, attempts=(replace(SENT, max_fee_wei=max_fee, priority_fee_wei=priority),)
    )
    found = bumped(order, Fees(max_fee_wei=1, priority_fee_wei=0), 1000)
    assert (found and (found.max_fee_wei, found.priority_fee_wei)) == expected


def test_gas_is_shared_to_the_wei() -> None:
    """Equal parts that add up, never more than was left for it; the pool bears the rest."""
    lines = tuple(replace(LINE, amount_wei=str(100 + n)) for n in range(3))
    order = replace(ORDER, lines=lines)
    assert [line.gas_wei for line in settled_lines(order, 20)] == ["7", "7", "6"]
    assert [line.gas_wei for line in settled_lines(order, 60)] == ["10", "11", "12"]
    swap = replace(order, kind="swap", lines=tuple(replace(each, send_wei="100") for each in lines))
    assert [line.received_lpt for line in settled_lines(swap, 20, 1000)] == ["334", "333", "333"]
    assert settled_lines(replace(ORDER, lines=()), 20) == ()


def test_gaps() -> None:
    """A nonce that nobody has, below those that wait."""
    second = replace(ORDER, attempts=(replace(SENT, nonce=9),))
    assert gap([ORDER, second], 7) is None
    assert gap([second], 7) == 7
    assert gap([second], 9) is None
    assert gap([ORDER], 8) is None
    assert gap([PLANNED], 7) is None


# --- the fold ------------------------------------------------------------------------------------


def fact(data: Any, time_ms: int = T0) -> Event:
    return Event(id=f"{data.type}/{time_ms}", time_ms=time_ms, data=data)


def planned(name: str, amount: int = 100) -> money.OrderPlanned:
    return money.OrderPlanned(
        order=name,
        wallet=WALLET,
        chain_id=1,
        kind="payout",
        asset="ETH",
        to=PAYEE,
        value_wei="90",
        data="0x",
        lines=(replace(LINE, amount_wei=str(amount)),),
    )


def signed(name: str, nonce: int, tx: str, attempt: int = 1) -> money.OrderSigned:
    return money.OrderSigned(
        order=name,
        wallet=WALLET,
        attempt=attempt,
        nonce=nonce,
        tx=tx,
        raw="0x00",
        gas_limit=10,
        max_fee_wei="100",
        priority_fee_wei="1",
    )


def confirmed(name: str, tx: str) -> money.OrderConfirmed:
    return money.OrderConfirmed(
        order=name,
        wallet=WALLET,
        kind="payout",
        asset="ETH",
        tx=tx,
        block=1,
        block_hash="0xb",
        fee_wei="5",
        lines=(LINE,),
    )


def test_the_fold_keeps_every_attempt_and_every_fact_counts_once() -> None:
    """All hashes of an order are kept; events that come twice change nothing."""
    book = OrderBook()
    story = [
        planned("a"),
        signed("a", 3, "0x1"),
        money.OrderSent(order="a", tx="0x1", answer="ok"),
        signed("a", 3, "0x2", 2),
        money.OrderMined(order="a", tx="0x1", block=4, block_hash="0xb"),
    ]
    for data in [each for pair in zip(story, story, strict=True) for each in pair]:
        book.apply(fact(data))
    (order,) = book.open.values()
    assert [a.tx for a in order.attempts] == ["0x1", "0x2"]
    assert (order.state, order.tx, order.nonce) == ("mined", "0x1", 3)
    for data in (confirmed("a", "0x1"), confirmed("a", "0x1"), *story):
        book.apply(fact(data))
    assert not book.open
    assert book.counts["confirmed"] == 1
    assert sum(book.counts.values()) == 1


def test_nonces_are_taken_in_order() -> None:
    """The lowest that is free; what is final stays used even if an endpoint lags or lies."""
    book = OrderBook()
    assert book.next_nonce(PURSE, 5) == 5
    for number, nonce in enumerate((5, 6, 8)):
        book.apply(fact(planned(f"o{number}")))
        book.apply(fact(signed(f"o{number}", nonce, f"0x{number}")))
    assert book.next_nonce(PURSE, 5) == 7
    assert book.next_nonce(PURSE, 0) == 0
    book.apply(fact(confirmed("o0", "0x0")))
    assert book.next_nonce(PURSE, 0) == 7
    assert book.next_nonce(PURSE, 9) == 9
    assert book.next_nonce(Purse(WALLET, 2), 0) == 0


def test_the_last_day() -> None:
    """What was planned within 24 hours counts, unless it came back."""
    book = OrderBook()
    book.apply(fact(planned("a", 1000), T0))
    book.apply(fact(planned("b", 10), T0 + DAY_MS // 2))
    assert book.spent_wei(T0 + 1) == 1010
    assert book.spent_wei(T0 + DAY_MS) == 10
    voided = money.OrderVoided(
        order="b", wallet=WALLET, kind="payout", asset="ETH", reason="x", lines=(LINE,)
    )
    book.apply(fact(voided, T0 + DAY_MS // 2))
    assert book.spent_wei(T0 + DAY_MS) == 0


def test_the_last_day_of_lpt() -> None:
    """LPT and ETH have limits of their own; stake counts as LPT, an exchange as ETH."""
    book = OrderBook()
    for name, asset, kind in (
        ("a", "ETH", "payout"),
        ("b", "LPT", "payout"),
        ("c", "LPT", "stake-payout"),
        ("d", "ETH", "swap"),
        ("e", "LPT", "approve"),
    ):
        fact_of = replace(planned(name, 1000), asset=asset, kind=kind)
        book.apply(fact(fact_of, T0))
    assert book.spent_wei(T0 + 1) == book.spent_wei(T0 + 1, "LPT") == 2000
    assert book.spent_wei(T0 + DAY_MS, "LPT") == 0


def test_endpoints_that_lie_can_cost_no_more_than_a_day_s_limit() -> None:
    """What was signed and is given up without a trace may be mined all the same, so it counts."""
    book = OrderBook()
    book.apply(fact(planned("a", 1000), T0))
    book.apply(fact(signed("a", 0, "0x1"), T0))
    voided = money.OrderVoided(
        order="a", wallet=WALLET, kind="payout", asset="ETH", reason="x", lines=(LINE,)
    )
    book.apply(fact(voided, T0 + 1))
    assert book.spent_wei(T0 + 2) == 1000
