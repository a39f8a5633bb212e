"""Rounds as the pool settles them, in statements as others check them: both must agree."""

from collections.abc import Iterator
from random import Random

import pytest
from msgspec.structs import replace
from roundlog import InProcess, RoundLog

from openpool.core.money.documents import digest_of
from openpool.core.money.events import RoundSettled, Scheme, ShareCredited
from openpool.core.money.statement_check import check_previous, check_statement
from openpool.core.money.statements import (
    Closing,
    Fact,
    Opening,
    Statement,
    encode_statement,
    make,
    opening_after,
)
from openpool.rules import holdback

WINDOW_ROUNDS = 2


def stated(seed: int, scheme: Scheme, *rules: InProcess) -> Iterator[Statement]:
    """Random rounds, each settled a few events late, and the statement of each."""
    random = Random(seed)
    log = RoundLog(scheme, window_rounds=WINDOW_ROUNDS, rules=rules)
    for worker in "abc":
        log.enroll(worker)
    opening = Opening(round=1)
    log.start(1)
    for number in range(1, 7):
        for _ in range(random.randrange(5)):
            ppm = random.choice((0, 250_000, 333_333))
            log.work(random.choice("abc"), random.getrandbits(40), ppm)
        if random.random() < 0.7:
            log.win(random.getrandbits(45))
        log.start(number + 1, settled=False)
        log.work("a", random.getrandbits(30))
        log.settle()
        entries = list(enumerate(log.events, 1))[opening.seq :]
        statement = make(opening, closing(log, number), entries, lambda receipt: None)
        yield statement
        opening = opening_after(statement, digest_of(encode_statement(statement)))


def closing(log: RoundLog, number: int) -> Closing:
    return Closing(
        pool="Northern Lights",
        chain_id=42161,
        round=number,
        seq=len(log.events),
        chain="ee" * 32,
        time_ms=log.events[-1].time_ms,
        terms="",
        window_rounds=WINDOW_ROUNDS,
    )


@pytest.mark.parametrize("rule", [None, "holdback"])
@pytest.mark.parametrize("scheme", ["per-job", "proportional", "window"])
def test_what_the_pool_settles_stands_the_check(scheme: Scheme, rule: str | None) -> None:
    """Under every scheme, with and without a rule, no statement of honest rounds has a fault."""
    rules = [InProcess(holdback, rule, rate="10%", rounds="2")] if rule else []
    shares = 0
    for seed in range(12):
        previous: Statement | None = None
        for statement in stated(seed, scheme, *rules):
            assert list(check_statement(statement)) == []
            if previous is not None:
                digest = digest_of(encode_statement(previous))
                assert list(check_previous(statement, previous, digest)) == []
            shares += sum(isinstance(fact.data, ShareCredited) for fact in statement.facts)
            previous = statement
    assert shares > 50 if scheme != "per-job" else shares == 0


@pytest.mark.parametrize("scheme", ["proportional", "window"])
def test_a_share_that_is_a_wei_too_small_is_found(scheme: Scheme) -> None:
    """A pool that gives one worker's wei to another cannot hide it, though all sums are right."""
    found = tried = 0
    for seed in range(12):
        for statement in stated(seed, scheme):
            shared = [
                n for n, fact in enumerate(statement.facts)
                if isinstance(fact.data, ShareCredited) and fact.data.share_wei != "0"
            ]  # fmt: skip
            if len(shared) < 2:
                continue
            tried += 1
            cheated = replace(statement, facts=_moved(statement.facts, shared[0], shared[1]))
            found += any("part of" in finding.text for finding in check_statement(cheated))
    assert found == tried > 10


def _moved(facts: tuple[Fact, ...], poorer: int, richer: int) -> tuple[Fact, ...]:
    changed = list(facts)
    for number, more in ((poorer, -1), (richer, 1)):
        data = changed[number].data
        assert isinstance(data, ShareCredited)
        share = replace(data, share_wei=str(int(data.share_wei) + more))
        changed[number] = replace(changed[number], data=share)
    return tuple(changed)


def test_the_rounds_of_this_test_are_settled() -> None:
    """Each statement holds the settlement of its own round."""
    for number, statement in enumerate(stated(1, "window"), 1):
        rounds = [f.data.round for f in statement.facts if isinstance(f.data, RoundSettled)]
        assert rounds == [number]
