"""What the API answers about members and deeds, as its routes write it and commands read it.

Must not import the web framework: commands start without it. Larger answers: `web.shapes`, and the
views of `core.money`.
"""

from typing import Literal

from msgspec import Struct


class TokenView(Struct, frozen=True, kw_only=True):
    """A token without its secret."""

    token: str
    worker: str
    label: str
    created_ms: int
    last_used_ms: int
    expires_ms: int
    revoked_ms: int


class Invitation(Struct, frozen=True, kw_only=True):
    """An invitation, shown this once."""

    invite: str
    join_link: str


class KeyView(Struct, frozen=True, kw_only=True):
    """A key without its secret."""

    key: str
    label: str
    created_ms: int
    last_used_ms: int
    expires_ms: int
    revoked_ms: int


class CustomerView(Struct, frozen=True, kw_only=True):
    """A customer, with limits and what was spent."""

    customer: str
    name: str
    created_ms: int
    requests_per_minute: int
    spend_limit_wei: str | None
    """Most that may be owed at one time; none is no limit."""
    spent_wei: str
    paid_wei: str
    owed_wei: str
    """What was spent, less what was paid: begins with a minus sign if more was paid."""
    calls: int
    """Answered and found right, and segments of video."""
    calls_failed: int
    keys: list[KeyView]


class Revoked(Struct, frozen=True, kw_only=True):
    """Keys that were made worthless."""

    keys: int
    """How many keys ended."""


class Done(Struct, frozen=True, kw_only=True):
    """How things stand after a change of payouts."""

    paused: str
    """Why payouts are paused; empty if they are not."""


class Recorded(Struct, frozen=True, kw_only=True):
    """What became of a record of revenue."""

    new: bool
    """False: this reference was recorded before, and nothing was changed."""


class StatementView(Struct, frozen=True, kw_only=True):
    """A statement that was made."""

    round: int
    made_ms: int
    receipts: int
    root: str
    digest: str
    signer: str
    url: str


class Movement(Struct, frozen=True, kw_only=True):
    """One movement of what an address is owed."""

    time_ms: int
    kind: str
    """In words, like `work` or `payout`."""
    reference: str
    """The job, the order, or the event that moved it."""
    asset: Literal["ETH", "LPT"]
    amount_wei: str
    """In base units of the asset; begins with a minus sign for what was paid out."""
    usd: str
    """At the rate that was recorded with the call; empty where none was."""
    balance_wei: str
    """Owed afterwards, in this asset."""
    tx: str


class CorrectionView(Struct, frozen=True, kw_only=True):
    """A correction of the books."""

    correction: str
    is_new: bool
