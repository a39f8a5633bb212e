"""Which terms hold when, and when a new version is published at all."""

import pytest
from msgspec.structs import replace
from test_treasury_statements import PROMISE

from openpool.core.errors import BadMessage
from openpool.core.money.events import TermsPublished
from openpool.core.money.terms import (
    GroupTerms,
    Promise,
    Published,
    Terms,
    commission_ppm,
    encode_terms,
    in_force,
    next_terms,
    pending,
    published,
)

START_MS = 1_000_000
NOTICE_MS = PROMISE.notice_ms
CHEAP = replace(PROMISE, commission_ppm=100_000)
DEAR = replace(PROMISE, commission_ppm=400_000)


def announced(versions: list[Published], promise: Promise, now_ms: int) -> Terms | None:
    """What is published when the settings say this; it is added to the versions."""
    terms = next_terms(versions, promise, pool="p", chain_id=1, signer="0xsigner", now_ms=now_ms)
    if terms is not None:
        document = encode_terms(terms)
        event = TermsPublished(
            version=terms.version,
            digest="",
            applies_ms=terms.applies_ms,
            document=document.decode(),
            signer="0xsigner",
            signature="",
        )
        versions.append(published(event))
    return terms


def commission_at(versions: list[Published], now_ms: int) -> int:
    found = in_force(versions, now_ms)
    assert found is not None
    return found.terms.promise.commission_ppm


def test_the_first_version_applies_at_once() -> None:
    """Before it there is none; the same settings again publish nothing."""
    versions: list[Published] = []
    assert in_force(versions, START_MS) is None
    first = announced(versions, PROMISE, START_MS)
    assert first is not None
    assert (first.version, first.previous, first.applies_ms) == (1, "", START_MS)
    assert announced(versions, PROMISE, START_MS + 5) is None
    assert in_force(versions, START_MS - 1) is None
    assert commission_at(versions, START_MS) == PROMISE.commission_ppm


def test_a_change_applies_after_the_notice_that_was_promised() -> None:
    """Also if the change itself shortens the notice; and a better offer waits as well."""
    for promise in (DEAR, CHEAP, replace(DEAR, notice_ms=0)):
        versions: list[Published] = []
        announced(versions, PROMISE, START_MS)
        second = announced(versions, promise, START_MS + 10)
        assert second is not None
        assert second.applies_ms == START_MS + 10 + NOTICE_MS
        assert second.previous == versions[0].digest
        assert commission_at(versions, second.applies_ms - 1) == PROMISE.commission_ppm
        assert commission_at(versions, second.applies_ms) == promise.commission_ppm
        assert pending(versions, second.applies_ms - 1) is versions[1]
        assert pending(versions, second.applies_ms) is None


def test_a_version_that_is_replaced_before_it_applied_never_applies() -> None:
    """An operator who thinks again does not surprise anybody in between."""
    versions: list[Published] = []
    announced(versions, PROMISE, START_MS)
    announced(versions, DEAR, START_MS + 10)
    third = announced(versions, CHEAP, START_MS + 20)
    assert third is not None
    assert third.applies_ms == START_MS + 20 + NOTICE_MS
    for now_ms in (START_MS + 10 + NOTICE_MS, third.applies_ms - 1):
        assert commission_at(versions, now_ms) == PROMISE.commission_ppm
    assert commission_at(versions, third.applies_ms) == CHEAP.commission_ppm


def test_taking_a_change_back_applies_at_once() -> None:
    """It changes nothing that holds, so nobody needs notice."""
    versions: list[Published] = []
    announced(versions, PROMISE, START_MS)
    announced(versions, DEAR, START_MS + 10)
    back = announced(versions, PROMISE, START_MS + 20)
    assert back is not None
    assert back.applies_ms == START_MS + 20
    assert pending(versions, START_MS + 21) is None
    assert commission_at(versions, START_MS + 10 * NOTICE_MS) == PROMISE.commission_ppm


def test_what_held_at_a_time_does_not_change_later() -> None:
    """Statements made again name the same terms, whatever was published since."""
    versions: list[Published] = []
    announced(versions, PROMISE, START_MS)
    announced(versions, DEAR, START_MS + 10)
    times = [START_MS, START_MS + 10, START_MS + 11 + NOTICE_MS]
    before = [commission_at(versions, each) for each in times]
    announced(versions, CHEAP, START_MS + 20 + NOTICE_MS)
    assert [commission_at(versions, each) for each in times] == before


def test_a_group_has_its_own_commission() -> None:
    """Where the terms name the group, else the pool's."""
    promise = replace(PROMISE, groups=(GroupTerms(group="friends", commission_ppm=1),))
    assert commission_ppm(promise, "friends") == 1
    assert commission_ppm(promise, "others") == PROMISE.commission_ppm


def test_terms_that_cannot_be_read_are_one_sentence() -> None:
    """A log of a newer program does not end in a trace."""
    event = TermsPublished(
        version=2, digest="", applies_ms=0, document="{}", signer="", signature=""
    )
    with pytest.raises(BadMessage, match=r"Version 2 of the terms cannot be read: .*\.$"):
        published(event)
