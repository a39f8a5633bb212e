"""Random rounds under every scheme, settled by the real settlement: statements agree to the wei."""

from collections.abc import Sequence
from random import Random

import pytest
from msgspec.structs import replace
from statement_log import MoneyLog

from openpool.core.money import events as money
from openpool.core.money.events import Scheme
from openpool.core.money.receipts import plain_line
from openpool.core.money.rounds import Rounds
from openpool.core.money.settlement import settle
from openpool.core.money.statement_check import check_previous, check_receipts, check_statement
from openpool.core.money.statements import (
    Closing,
    Opening,
    Statement,
    is_public_account,
    make,
    opening_after,
)

WINDOW = 3


def story(seed: int, schemes: Sequence[Scheme]) -> tuple[MoneyLog, list[tuple[int, int]]]:
    """A log with a round for each scheme, and where the statement of each round ends.

    Rounds are settled after the next one has begun to bring work, as in a real pool."""
    random, log = Random(seed), MoneyLog(seed)
    rounds = Rounds(scheme="per-job", window_rounds=WINDOW)
    applied, ends = 0, []
    log.round(1)
    for number, scheme in enumerate(schemes, 1):
        for _ in range(random.randrange(4)):
            log.work(random.randrange(6), scheme, random.choice(("orch", "orch", "other")))
        if random.random() < 0.3:
            log.work(2, "per-job", "customer:c_1")
        if random.random() < 0.7:
            log.realised(number, random.randrange(10**12))
        log.round(number + 1)
        if random.random() < 0.5:
            log.work(random.randrange(4), schemes[min(number, len(schemes) - 1)])
        while True:
            for _, event in log.entries[applied:]:
                rounds.apply(event)
            applied = log.seq
            closings = rounds.due()
            if not closings:
                break
            for closing in closings:
                for event in settle(closing):
                    log.entries.append((log.seq + 1, event))
        ends.append((number, log.seq))
    return log, ends


def statements(log: MoneyLog, ends: Sequence[tuple[int, int]]) -> list[Statement]:
    """All statements of a log; each is checked with its receipts and against the one before."""
    opening, made = Opening(round=1), []
    for number, seq in ends:
        closing = Closing(
            pool="p",
            chain_id=1,
            round=number,
            seq=seq,
            chain="",
            time_ms=max([opening.time_ms, *(e.time_ms for n, e in log.entries if n <= seq)]),
            terms="",
            window_rounds=WINDOW,
        )
        receipts: list[bytes] = []
        entries = log.entries[opening.seq : seq]
        statement = make(opening, closing, entries, receipts.append)
        lines = [plain_line(receipt, index) for index, receipt in enumerate(receipts)]
        assert list(check_statement(statement)) == []
        assert list(check_receipts(statement, lines)) == []
        if made:
            assert list(check_previous(statement, made[-1], f"d{number}")) == []
        made.append(statement)
        opening = opening_after(statement, f"d{number + 1}")
    return made


SCHEMES: tuple[Scheme, ...] = ("per-job", "proportional", "window")


@pytest.mark.parametrize("seed", range(40))
def test_statements_agree_with_settlement_and_books(seed: int) -> None:
    """Whatever the scheme, also where it changes: nothing is found, and balances are the books'."""
    random = Random(seed)
    chosen = SCHEMES if seed % 4 == 3 else (SCHEMES[seed % 4],)
    log, ends = story(seed, [random.choice(chosen) for _ in range(9)])
    made = statements(log, ends)
    log.entries = log.entries[: ends[-1][1]]
    books = {name: wei for name, wei in log.balances().items() if is_public_account(name) and wei}
    said = {row.account: int(row.closing_wei) for row in made[-1].accounts}
    assert {name: wei for name, wei in said.items() if wei} == books


@pytest.mark.parametrize("scheme", ["proportional", "window"])
@pytest.mark.parametrize("seed", range(12))
def test_a_wei_that_went_to_the_wrong_owner_is_found(seed: int, scheme: Scheme) -> None:
    """Of a share that is divided otherwise than the scheme says, whoever gains by it."""
    log, ends = story(seed, [scheme] * 9)
    whole = statements(log, ends)
    found = 0
    for statement in whole:
        shares = [
            (place, fact)
            for place, fact in enumerate(statement.facts)
            if isinstance(fact.data, money.ShareCredited) and int(fact.data.share_wei)
        ]
        by_round = {fact.data.orchestrator: (place, fact) for place, fact in shares}
        for place, fact in by_round.values():
            data = fact.data
            cheated = replace(
                data,
                share_wei=str(int(data.share_wei) - 1),
                commission_wei=str(int(data.commission_wei) + 1),
            )
            facts = list(statement.facts)
            facts[place] = replace(fact, data=cheated)
            paths = [f.path for f in check_statement(replace(statement, facts=tuple(facts)))]
            assert any(path.startswith("facts[") for path in paths)
            found += 1
    assert found or not any(row.scheme == scheme for s in whole for row in s.work)
