"""Every event of orders and payouts is told in a line."""

import msgspec
import pytest

from openpool.core.events import decode_payload
from openpool.core.money import events as money
from openpool.core.money.orders import TYPES
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
