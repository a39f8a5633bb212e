"""Orders and payouts, and every event of them, are told in a line."""

from typing import get_args

import msgspec
import pytest

from openpool.core.events import Event, decode_payload
from openpool.core.money import events as money
from openpool.core.money.events import OrderKind
from openpool.core.money.orders import TYPES, OrderBook
from openpool.web.payout_words import PURPOSES, fate, purpose, standing
from openpool.web.words import describe

A = "0x0000000000000000000000000000000000000101"
LINE = {"account": f"worker:{A}", "address": A, "amount_wei": str(10**16), "send_wei": "1"}
ORDER = {"order": "payout-3", "wallet": A, "kind": "payout", "asset": "ETH"}
TOLD = {
    "order-planned": (
        ORDER | {"chain_id": 1, "to": A, "value_wei": "1", "data": "0x", "lines": [LINE]},
        f"for {A} (payout)",
    ),
    "order-signed": (
        {
            **{"order": "payout-3", "wallet": A, "attempt": 2, "nonce": 7, "tx": "0x1"},
            **{"raw": "0x", "gas_limit": 1, "max_fee_wei": "1", "priority_fee_wei": "1"},
        },
        "payout-3 signed again, with more fee (attempt 2), nonce 7",
    ),
    "order-sent": ({"order": "payout-3", "tx": "0x1", "answer": "ok"}, "payout-3 sent"),
    "order-mined": (
        {"order": "payout-3", "tx": "0x1", "block": 9, "block_hash": "0x"},
        "payout-3 is in block 9, not final yet",
    ),
    "order-confirmed": (
        ORDER | {"tx": "0x1", "block": 9, "block_hash": "0x", "fee_wei": "1"},
        "is done, in final block 9",
    ),
    "order-voided": (ORDER | {"reason": "It failed."}, "payout-3 was given up: It failed."),
    "payouts-paused": ({"reason": "x", "by": "operator"}, "payouts paused by operator: x"),
    "payouts-resumed": ({"by": "operator"}, "payouts go on (operator)"),
    "address-blocked": ({"address": A, "reason": "x"}, f"{A} is not paid: x"),
    "address-unblocked": ({"address": A, "by": "operator"}, f"{A} is paid again"),
    "payout-chosen": (
        {"address": A, "asset": "LPT", "threshold_wei": "0", "staked": True},
        f"{A} wants LPT as stake, from the pool's threshold on",
    ),
    "lpt-converted": (
        {
            **{"conversion": "x", "account": f"worker:{A}", "amount_wei": "1"},
            **{"amount_lpt": str(10**18), "lpt_per_eth": "500"},
        },
        "got 1 LPT for",
    ),
}


@pytest.mark.parametrize("kind", [*TYPES, "lpt-converted"])
def test_what_people_read(kind: str) -> None:
    """The line says what happened, and is not the bare name of the event."""
    fields, words = TOLD[kind]
    data = decode_payload(msgspec.json.encode({"type": kind} | fields))
    assert words in describe(data)


def test_a_call_without_lines() -> None:
    """An order that pays nobody says what it calls."""
    fields, _ = TOLD["order-planned"]
    data = msgspec.convert(
        fields | {"kind": "reward", "lines": []}, money.OrderPlanned, strict=False
    )
    assert describe(data) == f"payout-3 planned: reward at {A}"


STEPS = ["order-planned", "order-signed", "order-sent", "order-mined", "order-confirmed"]
STANDS = [
    "It is planned and set aside in the books; nothing is signed yet.",
    "It is signed with nonce 7, and was not sent yet.",
    "It was sent, and waits for a block.",
    "It is in block 9, which is not final yet.",
    "It is done: in final block 9, for",
]


def book_of(*steps: str, **changes: dict[str, object]) -> OrderBook:
    """The book after these events of one order; `changes` are fields of some by kind, with `_`."""
    book = OrderBook()
    for number, kind in enumerate(steps):
        fields = TOLD[kind][0] | {"lines": [LINE]} | changes.get(kind.replace("-", "_"), {})
        data = decode_payload(msgspec.json.encode({"type": kind} | fields))
        book.apply(Event(id=f"order/payout-3/{number}", time_ms=number, data=data))
    return book


@pytest.mark.parametrize("steps", range(1, len(STEPS) + 1))
def test_how_an_order_stands(steps: int) -> None:
    """One sentence for each step on its way."""
    order = book_of(*STEPS[:steps]).get("payout-3")
    assert order is not None
    assert standing(order).startswith(STANDS[steps - 1])


def test_what_keeps_an_order() -> None:
    """A pause, an answer of the chain, and why it was given up are told with it."""
    order = book_of("order-planned").get("payout-3")
    assert order is not None
    assert standing(order, "A look.") == ("Payouts are paused, so nothing is signed yet: A look.")
    order = book_of(*STEPS[:3], order_sent={"answer": "underpriced"}).get("payout-3")
    assert order is not None
    assert "the chain says: underpriced" in standing(order)
    order = book_of(*STEPS[:2], "order-voided").get("payout-3")
    assert order is not None
    assert standing(order) == (
        "It was given up: It failed. What was set aside went back to its owner."
    )


def test_the_fate_of_every_attempt() -> None:
    """The one in a block has the order's state, or failed; before that the newest counts."""
    book = book_of("order-planned", "order-signed")
    second = decode_payload(
        msgspec.json.encode({"type": "order-signed"} | TOLD["order-signed"][0] | {"tx": "0x2"})
    )
    book.apply(Event(id="order/payout-3/again", time_ms=5, data=second))
    assert fates(book) == ["replaced", "signed"]
    mined = TOLD["order-mined"][0] | {"tx": "0x1", "type": "order-mined"}
    book.apply(Event(id="m", time_ms=6, data=decode_payload(msgspec.json.encode(mined))))
    assert fates(book) == ["mined", "never mined"]
    failed = TOLD["order-voided"][0] | {"tx": "0x1", "type": "order-voided"}
    book.apply(Event(id="v", time_ms=7, data=decode_payload(msgspec.json.encode(failed))))
    assert fates(book) == ["failed", "never mined"]


def fates(book: OrderBook) -> list[str]:
    order = book.get("payout-3")
    assert order is not None
    return [fate(order, attempt) for attempt in order.attempts]


@pytest.mark.parametrize("kind", get_args(OrderKind))
def test_every_kind_of_order_has_a_purpose(kind: OrderKind) -> None:
    """A note that says more follows it."""
    planned = {"kind": kind, "note": "calls reward, as main"}
    order = book_of("order-planned", order_planned=planned).get("payout-3")
    assert order is not None
    assert purpose(order) == f"{PURPOSES[kind]}. Calls reward, as main"
