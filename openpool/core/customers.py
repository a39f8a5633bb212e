"""The rules of customers, who use the pool's own API: what a key looks like, how limits work.

A key is `sk-<id>-<secret>`; the pool keeps a keyed hash (`core.enrolment.token_hash`). What a
customer owes is the account `customer:<id>` of the ledger, so usage has no second book.
Pure: randomness, clock and storage are in `pool.customers`.
"""

import re
from fractions import Fraction

from msgspec import Struct

from openpool.core.errors import BadMessage, LimitReached, Unauthorized
from openpool.core.texts import base32
from openpool.core.units import ETHER, GWEI

KEY = re.compile(r"sk-([a-z2-7]{12})-[a-z2-7]{52}")
NAME_CHARS_MAX = 60
AMOUNT = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,18})?) ?(wei|gwei|ETH|USD)", re.IGNORECASE)
MINUTE_US = 60_000_000


class SpendLimitReached(LimitReached):
    """Your spend limit is reached; pay what you owe, or ask the operator for a higher limit."""

    code = "spend-limit-reached"


class Customer(Struct, frozen=True, kw_only=True):
    """Somebody who uses the pool's own API."""

    customer: str
    name: str
    created_ms: int
    requests_per_minute: int
    spend_limit_wei: int | None
    """Most that may be owed at one time; None is no limit."""
    spent_wei: int = 0
    """All fees so far."""
    paid_wei: int = 0
    """What the operator was paid for them, or in advance."""
    calls: int = 0
    """Answered and found right, and segments of video."""
    calls_failed: int = 0

    @property
    def owed_wei(self) -> int:
        """Less than nothing if more was paid than spent."""
        return self.spent_wei - self.paid_wei


class NewKey(Struct, frozen=True, kw_only=True):
    """A key that was made just now. The secret is shown this once."""

    customer: str
    key: str
    """Its public id."""
    secret: str


def payer(customer: str) -> str:
    """The name under which a customer's fees stand in the books, where an orchestrator's would."""
    return f"customer:{customer}"


def checked_name(text: str) -> str:
    """The name of a customer. Raises BadMessage."""
    if not text.strip() or not text.isprintable() or len(text) > NAME_CHARS_MAX:
        raise BadMessage(f"A customer's name is 1 to {NAME_CHARS_MAX} printable characters.")
    return text.strip()


def checked_reference(text: str) -> str:
    """The operator's name for a payment. Raises BadMessage."""
    if not text.strip() or not text.isprintable() or len(text) > NAME_CHARS_MAX:
        raise BadMessage(
            f"A payment needs a reference of 1 to {NAME_CHARS_MAX} printable characters, such as "
            "the number of its invoice."
        )
    return text.strip()


def customer_id(unique: bytes) -> str:
    """The id of a new customer, from random bytes."""
    return "c_" + base32(unique)[:12]


def key_text(public: bytes, secret: bytes) -> str:
    """A key `sk-<id>-<256 bit>` from 8 and 32 random bytes."""
    return f"sk-{base32(public)[:12]}-{base32(secret)}"


def key_id(text: str) -> str:
    """The public id within a key. Raises Unauthorized if it is no key."""
    match = KEY.fullmatch(text)
    if not match:
        raise Unauthorized("This is not an API key of this pool (sk-…); check that it is complete.")
    return match[1]


def amount_wei(text: str, wei_per_usd: int) -> int:
    """Whole wei of `20 USD`, `0.5 ETH`, `30 gwei` or `1000 wei`, rounded down. BadMessage."""
    match = AMOUNT.fullmatch(text.strip())
    if not match:
        raise BadMessage("An amount is a number and a unit: `20 USD`, `0.5 ETH` or `1000 wei`.")
    units = {"wei": 1, "gwei": GWEI, "eth": ETHER, "usd": wei_per_usd}
    unit = units[match[2].lower()]
    if not unit:
        raise BadMessage("The pool knows no rate for USD; set ai.usd_per_eth, or use ETH.")
    return int(Fraction(match[1]) * unit)


class RequestMeter:
    """How often a customer may ask: a minute's worth at once, then evenly."""

    __slots__ = ("_free_us",)

    def __init__(self) -> None:
        self._free_us = 0
        """When all that was taken is given back."""

    def take(self, now_ms: int, per_minute: int) -> int:
        """0 if one more request may come now, which counts it; else how many ms to wait."""
        now_us, step_us = now_ms * 1000, MINUTE_US // per_minute
        free_us = max(self._free_us, now_us)
        wait_us = free_us + step_us - now_us - MINUTE_US
        if wait_us > 0:
            return wait_us // 1000 + 1
        self._free_us = free_us + step_us
        return 0
