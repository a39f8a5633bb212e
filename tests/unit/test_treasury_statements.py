"""Statements and terms over a real store: made once, the same after a crash, and kept."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from msgspec.structs import replace
from statement_log import ANN, BOB, KEY, MoneyLog

from openpool.cli.checking import check_signature
from openpool.core.errors import SetupError, Unavailable
from openpool.core.events import Event
from openpool.core.money.documents import opened
from openpool.core.money.events import StatementMade
from openpool.core.money.receipts import decode_proven
from openpool.core.money.statement_check import (
    check_previous,
    check_receipts,
    check_statement,
    check_terms,
    read,
)
from openpool.core.money.statements import BYTES_MAX, Statement
from openpool.core.money.terms import Promise
from openpool.ethereum import Account, encode_defunct
from openpool.store.interface import EventFilter
from openpool.store.sqlite import SqliteStore
from openpool.treasury.statements import Statements
from openpool.treasury.terms import PublishedTerms

DAY_MS = 86_400_000
PROMISE = Promise(
    text="Work is paid by the pixel.",
    commission_ppm=250_000,
    groups=(),
    scheme="per-job",
    window_rounds=10,
    rules=(),
    threshold_wei="1000",
    minimum_wei="10",
    assets=("ETH",),
    every_ms=1000,
    gas_paid_by="pool",
    gas_share_max_ppm=5000,
    reward_share_ppm=0,
    dispute_ms=30 * DAY_MS,
    notice_ms=7 * DAY_MS,
)


class PoolKey:
    """The signing key of the tests."""

    address = str(KEY.address)

    def __init__(self, key: str = "") -> None:
        self._key = Account.from_key(key) if key else KEY
        self.address = str(self._key.address)

    def sign(self, message: str) -> str:
        signature = self._key.sign_message(encode_defunct(text=message)).signature
        return "0x" + bytes(signature).hex()


@dataclass
class Treasury:
    """A store with statements and terms over it."""

    store: SqliteStore
    folder: Path
    now_ms: int = 1_794_000_000_000
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    log: MoneyLog = field(default_factory=MoneyLog)
    name: str = "Northern Lights"
    key: PoolKey = field(default_factory=PoolKey)

    async def hear(self) -> None:
        self.heard.set()

    def terms(self) -> PublishedTerms:
        return PublishedTerms(
            store=self.store,
            signer=self.key,
            clock_ms=lambda: self.now_ms,
            pool_name=self.name,
            chain_id=42161,
            on_applied=self.hear,
        )

    async def statements(self, is_settled: Callable[[int], bool] = lambda seq: True) -> Statements:
        """As after a start of the pool."""
        terms = self.terms()
        terms.load()
        await terms.publish(PROMISE)
        statements = Statements(
            store=self.store,
            signer=self.key,
            clock_ms=lambda: self.now_ms,
            folder=self.folder / "statements",
            pool_name=self.name,
            chain_id=42161,
            terms=terms,
            is_settled=is_settled,
        )
        await statements.start()
        return statements

    def reloaded(self) -> PublishedTerms:
        """The terms, read back out of the log."""
        terms = self.terms()
        terms.load()
        return terms

    async def write(self) -> None:
        """Put what the log has gained into the store."""
        await self.store.append([event for _, event in self.log.entries]).durable()

    def made(self) -> list[StatementMade]:
        found = self.store.events(EventFilter(types=("statement-made",)))
        return [e.event.data for e in found if isinstance(e.event.data, StatementMade)]


@asynccontextmanager
async def treasury(folder: Path) -> AsyncIterator[Treasury]:
    async with SqliteStore(folder / "data") as store:
        yield Treasury(store, folder)


def statement_in(content: bytes | None) -> Statement:
    parts = opened(content or b"", bytes_max=BYTES_MAX)
    check_signature(parts, "statement")
    return read(parts)


async def test_a_statement_is_made_when_its_round_has_ended(tmp_path: Path) -> None:
    """Not before; then once, however often one looks; and the next goes on from it."""
    async with treasury(tmp_path) as pool:
        statements = await pool.statements()
        pool.log.work(2)
        pool.log.round(7)
        pool.log.work(20)
        await pool.write()
        assert await statements.make_due() == 0
        pool.log.round(8)
        await pool.write()
        assert [await statements.make_due(), await statements.make_due()] == [1, 0]
        pool.log.work(4)
        pool.log.round(9)
        await pool.write()
        assert await statements.make_due() == 1
        first, second = (statement_in(statements.file(number)) for number in (7, 8))
        assert [row.round for row in statements.rows] == [7, 8]
        assert (first.receipts, second.receipts) == (22, 4)
        assert {row.round for row in first.work} == {7}
        assert list(check_statement(first)) == list(check_statement(second)) == []
        assert list(check_previous(second, first, statements.rows[0].digest)) == []
        lines = list(statements.all_receipts(7) or ())
        assert list(check_receipts(first, lines)) == []
        assert (
            first.terms
            == pool.store.events(EventFilter(types=("terms-published",)))[0].event.data.digest
        )
        assert [made.digest for made in pool.made()] == [row.digest for row in statements.rows]
        stored = pool.store.events(EventFilter(after_seq=first.seq - 1, limit=1))[0]
        assert first.chain == stored.chain


async def test_a_crash_before_the_log_knows_gives_the_same_bytes(tmp_path: Path) -> None:
    """Files that were written and not yet recorded are made again, to the byte."""
    async with treasury(tmp_path) as pool:
        statements = await pool.statements()
        pool.log.round(1)
        pool.log.work(10)
        pool.log.round(2)
        await pool.write()
        statements._make(1, statements_end(pool))
        content = statements.path(1).read_bytes()
        assert statements.file(1) is None, "only what the log names is shown"
        pool.log.work(5)
        await pool.write()
        again = await pool.statements()
        assert await again.make_due() == 1
        assert again.file(1) == content


def statements_end(pool: Treasury) -> int:
    return pool.store.events(EventFilter(types=("round-started",), newest_first=True))[0].seq


async def test_lost_and_damaged_files_come_back(tmp_path: Path) -> None:
    """A start makes them again from the log, whatever happened to the folder."""
    async with treasury(tmp_path) as pool:
        statements = await pool.statements()
        for number in range(1, 5):
            pool.log.round(number)
            pool.log.work(6)
        await pool.write()
        assert await statements.make_due() == 3
        before = [statements.file(n) for n in (1, 2, 3)]
        receipts = [statements.receipts_path(n).read_bytes() for n in (1, 2, 3)]
        statements.path(1).unlink()
        statements.path(2).write_bytes(b"damaged")
        statements.receipts_path(3).unlink()
        again = await pool.statements()
        assert [again.file(n) for n in (1, 2, 3)] == before
        assert [again.receipts_path(n).read_bytes() for n in (1, 2, 3)] == receipts
        assert await again.make_due() == 0


async def test_two_who_ask_at_once_make_each_statement_once(tmp_path: Path) -> None:
    """The second waits for the first, and finds nothing left to do."""
    async with treasury(tmp_path) as pool:
        statements = await pool.statements()
        for number in range(1, 4):
            pool.log.round(number)
            pool.log.work(6)
        await pool.write()
        made = await asyncio.gather(statements.make_due(), statements.make_due())
        assert made == [2, 0]
        assert [row.round for row in statements.rows] == [1, 2]


async def test_a_damaged_file_of_receipts_is_not_handed_out(tmp_path: Path) -> None:
    """Proofs that lead nowhere help nobody; a start makes the file again."""
    async with treasury(tmp_path) as pool:
        statements = await pool.statements()
        pool.log.round(1)
        pool.log.work(8)
        pool.log.round(2)
        await pool.write()
        await statements.make_due()
        before = list(statements.receipts_of(1, ANN) or ())
        content = statements.receipts_path(1).read_bytes()
        for damage in (
            b"x",
            content.replace(b'"units":', b'"units":1'),
            content.replace(b'"fee_wei":"', b'"fee-wei":"'),
        ):
            statements.receipts_path(1).write_bytes(damage)
            with pytest.raises(Unavailable, match="is damaged"):
                list(statements.receipts_of(1, ANN) or ())
            with pytest.raises(Unavailable, match="is damaged"):
                list(statements.all_receipts(1) or ())
            statements = await pool.statements()
            assert list(statements.receipts_of(1, ANN) or ()) == before


async def test_a_lost_file_comes_back_after_name_and_key_have_changed(tmp_path: Path) -> None:
    """As it was signed then; new statements have the new name."""
    async with treasury(tmp_path) as pool:
        statements = await pool.statements()
        pool.log.round(1)
        pool.log.work(3)
        pool.log.round(2)
        await pool.write()
        await statements.make_due()
        before = statements.file(1)
        statements.path(1).unlink()
        pool.now_ms = pool.log.entries[-1][1].time_ms + 1
        pool.name, pool.key = "Southern Cross", PoolKey("0x" + "77" * 32)
        again = await pool.statements()
        assert again.file(1) == before
        pool.log.round(3)
        await pool.write()
        await again.make_due()
        second = statement_in(again.file(2))
        assert second.pool == "Southern Cross"
        assert again.rows[1].signer == pool.key.address != again.rows[0].signer


async def test_a_log_that_gives_another_statement_than_was_signed_stops_the_start(
    tmp_path: Path,
) -> None:
    """The pool does not quietly replace what it has signed."""
    async with treasury(tmp_path) as pool:
        await pool.statements()
        pool.log.round(1)
        pool.log.work(3)
        pool.log.round(2)
        await pool.write()
        made = StatementMade(
            orchestrator="",
            round=1,
            receipts=3,
            root="00" * 32,
            digest="00" * 32,
            signer=PoolKey.address,
            signature="0x",
            seq=statements_end(pool),
        )
        await pool.store.append([Event(id="statement/1", time_ms=1, data=made)]).durable()
        with pytest.raises(SetupError, match="round 1 cannot be made again"):
            await pool.statements()


async def test_a_statement_waits_for_settlement(tmp_path: Path) -> None:
    """Where revenue is shared, the statement of a round has the shares of that round."""
    async with treasury(tmp_path) as pool:
        settled: list[int] = []
        statements = await pool.statements(lambda seq: bool(settled))
        pool.log.round(1)
        pool.log.work(10, scheme="proportional")
        fees = pool.log.fees_since(0)
        pool.log.round(2)
        pool.log.work(3, scheme="proportional")
        await pool.write()
        assert await statements.make_due() == 0
        pool.log.settled(1, 10**9, fees)
        await pool.write()
        settled.append(1)
        assert await statements.make_due() == 1
        statement = statement_in(statements.file(1))
        assert list(check_statement(statement)) == []
        assert {row.round for row in statement.work} == {1, 2}


async def test_an_owner_gets_its_receipts_with_proofs(tmp_path: Path) -> None:
    """All of a round, or one; nobody else's; and one that is in no statement yet."""
    async with treasury(tmp_path) as pool:
        statements = await pool.statements()
        pool.log.round(1)
        pool.log.work(30)
        pool.log.round(2)
        await pool.write()
        await statements.make_due()
        statement = statement_in(statements.file(1))
        mine = list(statements.receipts_of(1, ANN) or ())
        assert mine
        assert list(check_receipts(statement, mine, address=ANN)) == []
        assert statements.receipts_of(99, ANN) is None
        fee = next(fee for fee in pool.log.fees_since(0) if fee.address == ANN)
        line = statements.receipt_of(fee.job, ANN)
        assert line in mine
        assert statements.receipt_of(fee.job, BOB) is None
        assert statements.receipt_of("no such job", ANN) is None
        assert statements.unstated(fee.job, ANN) is None
        pool.log.work(60)
        pool.log.round(3)
        pool.log.work(5)
        await pool.write()
        unstated = pool.log.fees_since(0)[-8:]
        assert not any(statements.receipt_of(each.job, each.address) for each in unstated)
        early = [statements.unstated(each.job, each.address) for each in unstated]
        pool.log.round(4)
        await pool.write()
        assert await statements.make_due() == 2
        stated = [statements.receipt_of(each.job, each.address) for each in unstated]
        assert early == [bytes(decode_proven(each or b"").receipt) for each in stated]


async def test_work_is_held_against_the_terms(tmp_path: Path) -> None:
    """A commission or scheme that the terms in force do not have is found."""
    async with treasury(tmp_path) as pool:
        statements = await pool.statements()
        pool.log.round(1)
        pool.log.work(5)
        pool.log.round(2)
        await pool.write()
        await statements.make_due()
        statement = statement_in(statements.file(1))
        terms = opened(pool.reloaded().file() or b"", bytes_max=10**6)
        signer = PoolKey.address

        def paths(**fields: object) -> set[str]:
            row = replace(statement.work[0], **fields)
            changed = replace(statement, work=(row, *statement.work[1:]))
            return {finding.path for finding in check_terms(changed, signer, terms)}

        assert paths() == set()
        assert paths(commission_ppm=300_000) == {"work[0].commission_ppm"}
        assert paths(scheme="window") == {"work[0].scheme"}
        assert {f.path for f in check_terms(statement, BOB, terms)} == {"terms"}
        other = replace(statement, terms="00" * 32)
        assert {f.path for f in check_terms(other, signer, terms)} == {"terms"}


# --- terms ---------------------------------------------------------------------------------------


async def test_terms_apply_after_their_notice(tmp_path: Path) -> None:
    """The first at once; a change when its notice is over, also over restarts; and it is told."""
    async with treasury(tmp_path) as pool:
        terms = pool.terms()
        terms.load()
        await terms.publish(PROMISE)
        assert terms.commission_ppm("any") == 250_000
        dearer = replace(PROMISE, commission_ppm=300_000)
        start_ms = pool.now_ms
        await terms.publish(dearer)
        again = pool.terms()
        again.load()
        await again.publish(dearer)
        assert len(again.versions) == 2
        assert again.commission_ppm("any") == 250_000
        coming = again.pending()
        assert coming is not None
        assert coming.terms.applies_ms == start_ms + 7 * DAY_MS
        assert coming.terms.previous == again.versions[0].digest
        pool.now_ms = coming.terms.applies_ms - 1
        assert again.commission_ppm("any") == 250_000
        pool.now_ms += 1
        assert again.commission_ppm("any") == 300_000
        assert again.pending() is None
        for version in (1, 2):
            parts = opened(again.file(version) or b"", bytes_max=1_000_000)
            check_signature(parts, "terms")
        assert again.file() == again.file(2)
        assert again.file(3) is None


async def test_who_listens_hears_when_terms_begin_to_apply(tmp_path: Path) -> None:
    """So that workers that are connected get the new commission without a new connection."""
    async with treasury(tmp_path) as pool:
        terms = pool.terms()
        await terms.publish(replace(PROMISE, notice_ms=30))
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            task = tasks.create_task(terms.run())
            await terms.publish(replace(PROMISE, commission_ppm=1))
            assert not pool.heard.is_set()
            pool.now_ms += 30
            await pool.heard.wait()
            task.cancel()
        assert terms.commission_ppm("any") == 1


async def test_a_clock_that_is_behind_the_log_is_named(tmp_path: Path) -> None:
    """A pool that starts before its own first terms is told that its clock is wrong."""
    async with treasury(tmp_path) as at:
        await at.terms().publish(PROMISE)
        at.now_ms -= 3_600_000
        with pytest.raises(SetupError, match=r"terms are of 2026-11-06 \d\d:\d\d UTC.* the clock"):
            at.reloaded().in_force()
