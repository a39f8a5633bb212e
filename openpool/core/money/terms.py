"""The terms: what the pool promises, as a document that it signs, and from when on it holds.

    published ──notice──► in force ──► replaced by the next version that applies

A version that is replaced before it applied never applies. Settings alone change nothing that
concerns a worker's money: what counts is `in_force`. Pure; signing and publishing are in
`treasury.terms`.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from openpool.core.decoding import UNREADABLE
from openpool.core.errors import BadMessage
from openpool.core.money.documents import digest_of
from openpool.core.money.events import Scheme, TermsPublished

KIND = "terms"
BYTES_MAX = 1_000_000


class GroupTerms(Struct, frozen=True, kw_only=True):
    """The commission of a group of workers that has its own."""

    group: str
    commission_ppm: int


class RuleTerms(Struct, frozen=True, kw_only=True):
    """A revenue rule and what it is told."""

    rule: str
    options: tuple[tuple[str, str], ...] = ()


class Promise(Struct, frozen=True, kw_only=True):
    """What concerns a worker's money. A change of any of it is a new version of the terms."""

    text: str
    """For people: what an owner accepts when enrolling a worker."""
    commission_ppm: int
    groups: tuple[GroupTerms, ...]
    scheme: Scheme
    window_rounds: int
    """Counts under the scheme `window` only."""
    rules: tuple[RuleTerms, ...]
    threshold_wei: str
    """Paid when this much is owed, unless the owner chose more."""
    minimum_wei: str
    """The least that an owner may choose."""
    assets: tuple[str, ...]
    """What owners may have their fees paid in."""
    every_ms: int
    """Time between two payout runs."""
    gas_paid_by: Literal["pool", "worker"]
    gas_share_max_ppm: int
    """A payout waits while its gas would be more than this part of it."""
    reward_share_ppm: int
    """The part of the orchestrator's own inflation reward that workers get."""
    dispute_ms: int
    """How long after a statement it can be disputed."""
    notice_ms: int
    """How long before they apply new terms are announced."""


class Terms(Struct, frozen=True, kw_only=True):
    """One version."""

    format: Literal["openpool-terms-1"] = "openpool-terms-1"
    pool: str
    chain_id: int
    version: int
    previous: str
    """Digest of the version before; empty for the first."""
    published_ms: int
    applies_ms: int
    signer: str
    """Who signs statements and terms of this pool."""
    promise: Promise


encode_terms = msgspec.json.Encoder().encode


class Published(Struct, frozen=True, kw_only=True):
    """A version, with what proves it."""

    terms: Terms
    digest: str
    document: bytes
    signer: str
    signature: str


def published(event: TermsPublished) -> Published:
    """A version out of the log. Raises BadMessage if it cannot be read."""
    document = event.document.encode()
    try:
        terms = msgspec.json.decode(document, type=Terms)
    except UNREADABLE as error:
        text = f"Version {event.version} of the terms cannot be read: {error}."
        raise BadMessage(text) from None
    return Published(
        terms=terms,
        digest=digest_of(document),
        document=document,
        signer=event.signer,
        signature=event.signature,
    )


def next_terms(
    versions: Sequence[Published],
    promise: Promise,
    *,
    pool: str,
    chain_id: int,
    signer: str,
    now_ms: int,
) -> Terms | None:
    """The version to publish now, or None if the newest says this already.

    The first one applies at once; so does a return to what is in force, which changes nothing.
    Any other applies after the notice that the terms in force promise."""
    newest = versions[-1] if versions else None
    if newest and _said(newest.terms) == (promise, signer, pool, chain_id):
        return None
    current = in_force(versions, now_ms)
    notice_ms = current.terms.promise.notice_ms if current else 0
    same = current is None or current.terms.promise == promise
    return Terms(
        pool=pool,
        chain_id=chain_id,
        version=newest.terms.version + 1 if newest else 1,
        previous=newest.digest if newest else "",
        published_ms=now_ms,
        applies_ms=now_ms if same else now_ms + notice_ms,
        signer=signer,
        promise=promise,
    )


def _said(terms: Terms) -> tuple[Promise, str, str, int]:
    return terms.promise, terms.signer, terms.pool, terms.chain_id


def in_force(versions: Sequence[Published], now_ms: int) -> Published | None:
    """The version that holds now; `versions` in their order. None before the first applies."""
    found: Published | None = None
    for number, version in enumerate(versions):
        after = versions[number + 1] if number + 1 < len(versions) else None
        applies_ms = version.terms.applies_ms
        if applies_ms > now_ms:
            continue
        if after is None or applies_ms <= after.terms.published_ms:
            found = version
    return found


def pending(versions: Sequence[Published], now_ms: int) -> Published | None:
    """The version that will apply next, if one was announced."""
    newest = versions[-1] if versions else None
    return newest if newest and newest.terms.applies_ms > now_ms else None


def commission_ppm(promise: Promise, group: str) -> int:
    """What the pool keeps of the fees of this group's workers."""
    own = {each.group: each.commission_ppm for each in promise.groups}
    return own.get(group, promise.commission_ppm)


def differences(before: Promise, after: Promise) -> list[str]:
    """What changes, one line each, for whoever is to be told."""
    lines = []
    for name in Promise.__struct_fields__:
        old, new = getattr(before, name), getattr(after, name)
        if old == new:
            continue
        if name == "text":
            lines.append("The text of the terms changes.")
        elif isinstance(old, tuple):
            lines.append(f"{name} changes.")
        else:
            lines.append(f"{name}: {old} becomes {new}.")
    return lines
