"""Calls in the books: what the desk notes, folded by every store and proved by replay."""

from contextlib import closing
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import apsw
import pytest
from msgspec import structs
from stories import at, credited

from openpool.core.call_facts import (
    CallBroken,
    CallCancelled,
    CallEnded,
    CallGoesOn,
    CallReceived,
    CallStarted,
    LineDown,
    LineUp,
    OffersChanged,
)
from openpool.core.call_instructions import StartCall
from openpool.core.call_state import lost
from openpool.core.calls import App, Offer, Usage
from openpool.core.desk import Desk
from openpool.core.events import (
    CallCheckpointed,
    CallCompleted,
    CallFailed,
    Event,
    FeeCredited,
    PoolStarted,
)
from openpool.core.money.fees import Fees
from openpool.core.prices import Quote
from openpool.core.settings import DeskSettings
from openpool.store import database, replay
from openpool.store.interface import AppRow, CustomerCallsRow, Reader
from openpool.store.memory import MemoryStore
from openpool.store.sqlite import SqliteStore

START_MS = 1_700_000_000_000
MINUTE_MS = 60_000
SPAN: dict[str, int] = {
    "start_ms": START_MS - MINUTE_MS,
    "end_ms": START_MS + 30 * MINUTE_MS,
    "step_ms": MINUTE_MS,
}
APPS = (App("llm", "org/tiny"), App("moderation", "words"))
PRICES = (Fraction(1, 3), Fraction(10**9), Fraction(7, 9))


def day(seed: int, calls: int = 120) -> list[Event]:
    """The log of a desk on a lively day."""
    random, desk, log = Random(seed), Desk(DeskSettings(), 1, Fees()), []
    now_ms = START_MS

    def feed(fact: Any) -> list[Any]:
        step = desk.handle(fact, now_ms)
        log.extend(step.events)
        return step.instructions

    for name in ("alice", "bob"):
        feed(LineUp(line=name, worker=name, address=f"0x{name}", commission_ppm=250_000))
        feed(OffersChanged(line=name, offers=tuple(Offer(app=a, capacity=3) for a in APPS)))
    for number in range(calls):
        now_ms += random.randrange(3_000)
        told = feed(_asked(f"{seed}-{number}", random))
        for start in (each for each in told if isinstance(each, StartCall)):
            now_ms += random.randrange(500)
            for fact in _what_happens(start, random):
                feed(fact)
    feed(LineDown(line="bob", reason="good night"))
    return log


def _asked(call: str, random: Random) -> CallReceived:
    direct = random.random() < 0.5
    return CallReceived(
        call=call,
        app=random.choice((*APPS, App("llm", call))),
        source="direct" if direct else "live-runner",
        customer=random.choice(("c_1", "c_2")) if direct else "",
        orchestrator="" if direct else "main",
        quote=Quote(unit="token", price_wei=random.choice(PRICES), source="config"),
    )


def _what_happens(start: StartCall, random: Random) -> list[Any]:
    call, attempt = start.call, start.attempt
    usage = Usage(unit="token", units=random.randrange(10**6), checked=random.random() < 0.9)
    begun = CallStarted(call=call, attempt=attempt)
    ended = CallEnded(call=call, attempt=attempt, usage=usage, blamed=not usage.checked)
    broken = CallBroken(call=call, attempt=attempt, reason="gone", blamed=True)
    gone = CallCancelled(call=call)
    return random.choice(
        ([begun, ended],) * 6 + ([ended, ended], [begun, broken], [broken], [gone])
    )


def test_every_store_keeps_the_same_books_of_calls(tmp_path: Path) -> None:
    """Memory and disk agree on balances, carries, rows, rollups and models of a day of calls."""
    log = day(1)
    memory = MemoryStore()
    memory.append(log)
    with closing(SqliteStore(tmp_path)) as disk:
        for start in range(0, len(log), 7):
            disk.append(log[start : start + 7])
        disk.append(log[:50])
    with closing(SqliteStore(tmp_path)) as disk:
        for name in (
            *("balances", "carries", "workers", "apps", "counts", "transfers", "head"),
            *("customer_calls", "open_calls"),
        ):
            assert getattr(disk, name)() == getattr(memory, name)(), name
        for worker in ("", "alice", "bob"):
            assert disk.series(**SPAN, worker=worker) == memory.series(**SPAN, worker=worker)
        assert len(disk.apps()) == 2
    memory.close()


def test_calls_and_their_fees_stand_with_their_workers() -> None:
    """A worker's row and rollups hold its calls, its faults, and what calls earned it."""
    log = day(2)
    memory = MemoryStore()
    memory.append(log)
    done = [e.data for e in log if isinstance(e.data, CallCompleted)]
    fees = [e.data for e in log if isinstance(e.data, FeeCredited)]
    for row in memory.workers():
        mine = [fee for fee in fees if fee.worker == row.worker]
        points = memory.series(**SPAN, worker=row.worker)
        good = sum(each.checked for each in done if each.worker == row.worker)
        assert row.calls == sum(point.calls for point in points) == good > 0
        assert row.call_worker_wei == row.credited_wei == sum(int(fee.worker_wei) for fee in mine)
        assert sum(point.call_fee_wei for point in points) == sum(int(fee.fee_wei) for fee in mine)
        assert row.calls_failed == sum(point.calls_failed for point in points) > 0
        assert row.last_connected_ms == START_MS
    assert {row.worker: row.last_disconnected_ms > 0 for row in memory.workers()} == {
        "alice": False,
        "bob": True,
    }
    whole = memory.series(**SPAN)
    assert sum(point.calls for point in whole) == sum(each.checked for each in done)
    failed = [e for e in log if e.type == "call-failed" and e.data.code != "cancelled"]
    assert sum(point.calls_failed for point in whole) == len(failed)
    assert sum(point.segments + point.failed + point.pixels for point in whole) == 0
    memory.close()


def test_a_model_has_a_row_once_it_has_answered() -> None:
    """The row of a model adds up its calls; a name that nobody serves never gets one."""
    log = day(3)
    memory = MemoryStore()
    memory.append(log)
    done = [e.data for e in log if isinstance(e.data, CallCompleted) and e.data.checked]
    rows = {(row.pipeline, row.model): row for row in memory.apps()}
    assert set(rows) == {(app.pipeline, app.model) for app in APPS}
    for (pipeline, model), row in rows.items():
        mine = [each for each in done if (each.pipeline, each.model) == (pipeline, model)]
        assert row == AppRow(
            pipeline=pipeline,
            model=model,
            calls=len(mine),
            failed=row.failed,
            took_ms=sum(each.took_ms for each in mine),
            first_byte_ms=sum(each.first_byte_ms for each in mine),
            fee_wei=sum(
                int(e.data.fee_wei)
                for e in log
                if isinstance(e.data, FeeCredited) and e.data.model == model
            ),
        )
    assert sum(row.failed for row in rows.values()) > 0
    memory.close()


def test_customers_owe_what_their_calls_cost() -> None:
    """Every wei comes from the account of a customer or of an orchestrator, and all sum to zero."""
    log = day(4)
    memory = MemoryStore()
    memory.append(log)
    balances = {each.account: each.amount_wei for each in memory.balances()}
    assert sum(balances.values()) == 0
    assert {name for name, amount in balances.items() if amount < 0} == {
        "customer:c_1",
        "customer:c_2",
        "fees:main",
    }
    for payer in ("customer:c_1", "main"):
        fees = [e.data for e in log if isinstance(e.data, FeeCredited)]
        owed = sum(int(fee.fee_wei) for fee in fees if fee.orchestrator == payer)
        assert -balances[payer if ":" in payer else f"fees:{payer}"] == owed
    memory.close()


def test_replay_proves_a_day_of_calls(tmp_path: Path) -> None:
    """The check finds no fault, sums what customers owe with what orchestrators owe, and a rebuild
    gives the same books."""
    with closing(SqliteStore(tmp_path)) as store:
        store.append(day(5))
    with closing(SqliteStore(tmp_path)) as store:
        owed = -sum(b.amount_wei for b in store.balances() if b.amount_wei < 0)
    report = replay.check(tmp_path)
    assert report.faults == ()
    assert report.fees_wei == owed == report.commission_wei + report.credited_wei > 0
    assert replay.rebuild(tmp_path).checksum == report.checksum
    assert replay.check(tmp_path).ok


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ("UPDATE app SET fee_wei = '1' WHERE pipeline = 'llm'", "In table app, llm org/tiny is"),
        ("UPDATE worker SET calls = calls + 1 WHERE worker = 'bob'", "In table worker, bob is"),
        ("UPDATE rollup SET call_fee_wei = '7' WHERE worker = ''", "In table rollup, (pool)"),
        (
            "UPDATE balance SET amount_wei = '0' WHERE account = 'customer:c_1'",
            "In table balance, customer:c_1 is 0",
        ),
    ],
)
def test_a_changed_book_of_calls_is_found(tmp_path: Path, edit: str, words: str) -> None:
    """Whoever changes what calls have earned, or what a customer owes, is found out."""
    with closing(SqliteStore(tmp_path)) as store:
        store.append(day(6))
    with closing(apsw.Connection(str(tmp_path / database.FILE))) as connection:
        connection.execute(edit)
    assert any(words in fault for fault in replay.check(tmp_path).faults)


def test_books_from_before_there_were_calls_go_on(tmp_path: Path) -> None:
    """A database of the version before keeps every row when it is opened, and takes calls."""
    file = tmp_path / database.FILE
    with closing(apsw.Connection(str(file))) as connection:
        for number, sql in database.migrations():
            if number <= 2:
                connection.execute(sql)
        connection.pragma("application_id", database.APPLICATION_ID)
        connection.pragma("user_version", 2)
        connection.execute(
            "INSERT INTO worker VALUES ('old', '0x1', '', '', 'approved', 1, 2, 3, 4, 5, 6, '7')"
        )
        connection.execute(
            "INSERT INTO rollup VALUES ('old', ?, 1, 2, 3, 4, 5, 6, 7, 8, '9', '10')",
            (SPAN["start_ms"] // MINUTE_MS * MINUTE_MS,),
        )
    with closing(SqliteStore(tmp_path)) as store:
        (row,) = store.workers()
        assert (row.segments, row.failed, row.refused, row.credited_wei, row.calls) == (
            4,
            5,
            6,
            7,
            0,
        )
        point = store.series(**SPAN, worker="old")[0]
        assert (point.segments, point.fee_wei, point.worker_wei, point.calls) == (1, 9, 10, 0)
        store.append(day(7))
    with closing(SqliteStore(tmp_path)) as store:
        assert {row.worker: row.calls > 0 for row in store.workers()} == {
            "alice": True,
            "bob": True,
            "old": False,
        }


def started(epoch: int) -> Event:
    data = PoolStarted(epoch=epoch, version="t")
    return Event(id=f"pool/{epoch}/started", time_ms=START_MS, data=data)


def of_customer(log: list[Event], customer: str) -> CustomerCallsRow:
    """What the log says itself about the calls of a customer."""
    mine = [e.data for e in log if getattr(e.data, "customer", "") == customer]
    failed = [each for each in mine if isinstance(each, CallFailed) and each.code != "cancelled"]
    good = [each for each in mine if isinstance(each, CallCompleted) and each.checked]
    return CustomerCallsRow(customer=customer, calls=len(good), failed=len(failed))


def test_a_customers_calls_are_counted(tmp_path: Path) -> None:
    """Good and failed calls count, those that the customer gave up do not."""
    log = day(7)
    with closing(SqliteStore(tmp_path)) as store:
        store.append(log)
    with closing(SqliteStore(tmp_path)) as store:
        assert store.customer_calls() == [of_customer(log, name) for name in ("c_1", "c_2")]
        assert all(row.calls and row.failed for row in store.customer_calls())


def cut(log: list[Event]) -> list[Event]:
    """The log of a pool that died in the middle: two calls have no end in it."""
    unended = {job_of(e) for e in [e for e in log if e.type == "call-completed"][-2:]}
    return [
        e for e in log if job_of(e) not in unended or e.type in ("call-received", "call-assigned")
    ]


def job_of(event: Event) -> str:
    return str(getattr(event.data, "job", ""))


def open_jobs(store: Reader) -> list[str]:
    return [job_of(story[0]) for story in store.open_calls()]


def test_calls_without_an_end_are_known_and_end_once(tmp_path: Path) -> None:
    """What was open when the pool died is known at the next start, fails once with all that its
    log tells, and is open no more, also for the check of the books."""
    log = [started(1), *cut(day(8))]
    with closing(SqliteStore(tmp_path)) as store:
        store.append(log)
    with closing(SqliteStore(tmp_path)) as store:
        stories = store.open_calls()
        assert len(stories) == 2
        desk = Desk(DeskSettings(), 2, Fees())
        ends = [
            event
            for story in stories
            for event in desk.handle(lost(story), START_MS + 10**9).events
        ]
        store.append([*ends, started(2)])
        store.append(ends)
    with closing(SqliteStore(tmp_path)) as store:
        assert store.open_calls() == []
        assert [e for e in store.all_events() if e.event in ends][1].event == ends[1]
    for end, story in zip(ends, stories, strict=True):
        assert isinstance(end.data, CallFailed)
        assert (end.data.code, end.data.started) == ("pool-restarted", False)
        assert end.data.attempts == sum(each.type == "call-assigned" for each in story) >= 1
        assert 0 <= end.data.took_ms < MINUTE_MS
    assert replay.check(tmp_path).faults == ()


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_the_newest_checkpoint_of_an_open_call_is_known(tmp_path: Path, kind: str) -> None:
    """A session's story ends with the newest of thousands of checkpoints, also after a restart;
    those of calls that are over, or unknown, are forgotten."""
    log = cut(day(8))
    begun = [job_of(event) for event in log if event.type == "call-received"]
    ended = next(job_of(event) for event in log if event.type == "call-completed")
    (first, _) = _open_in(log)
    saved = [
        at(f"{call}/saved/{units}", _saved(call, units))
        for units in range(1, 2_001)
        for call in (first, ended, "unknown")
    ]
    assert {first, ended} <= set(begun)
    store: Any = MemoryStore() if kind == "memory" else SqliteStore(tmp_path)
    store.append([*log, *saved])
    if kind == "disk":
        store.close()
        store = SqliteStore(tmp_path)
    with closing(store):
        stories = {job_of(story[0]): story for story in store.open_calls()}
        assert len(stories) == 2
        assert stories.pop(first)[-1] == saved[-3]
        assert all(len(story) < 20 for story in stories.values())
        store.append([started(2)])
    if kind == "disk":
        with closing(SqliteStore(tmp_path)) as again:
            assert again.open_calls() == []
        assert replay.check(tmp_path).faults == ()


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_checkpoints_are_counted_as_the_desk_writes_them(tmp_path: Path, kind: str) -> None:
    """However many a call has and whether it is over or not; another call's do not count."""
    desk, log, now_ms = Desk(DeskSettings(checkpoint_ms=1_000), 1, Fees()), [], START_MS

    def feed(*facts: Any) -> None:
        for fact in facts:
            log.extend(desk.handle(fact, now_ms).events)

    line = LineUp(line="l", worker="alice", address="0xalice", commission_ppm=250_000)
    feed(line, OffersChanged(line="l", offers=(Offer(app=APPS[0], capacity=3),)))
    calls = ("call.1-1", "call.1-10", "call.1-2")
    for call in calls:
        asked = structs.replace(_asked(call, Random(1)), app=APPS[0])
        feed(asked, CallStarted(call=call, attempt=1))
    for minute in range(1, 13):
        now_ms += 1_000
        used = Usage(unit="token", units=minute, checked=True)
        feed(*(CallGoesOn(call=call, attempt=1, usage=used) for call in calls[:2]))
        if minute == 11:
            feed(CallEnded(call=calls[1], attempt=1, usage=used))
    store: Any = MemoryStore() if kind == "memory" else SqliteStore(tmp_path)
    store.append(log)
    if kind == "disk":
        store.close()
        store = SqliteStore(tmp_path)
    with closing(store):
        found = {call: store.checkpoints(call) for call in (*calls, "call.1", "", "%", "*")}
    assert {call: count for call, (count, _) in found.items() if count} == {
        "call.1-1": 12, "call.1-10": 11,
    }  # fmt: skip
    for call in calls[:2]:
        count, newest = found[call]
        assert newest.event.data.call == call
        assert (newest.event.data.units, newest.event.time_ms) == (count, START_MS + 1_000 * count)


def _open_in(log: list[Event]) -> list[str]:
    memory = MemoryStore()
    with closing(memory):
        memory.append(log)
        return open_jobs(memory)


def _saved(call: str, units: int) -> CallCheckpointed:
    return CallCheckpointed(
        call=call, attempt=1, worker="alice", address="0xalice", commission_ppm=250_000,
        unit="token", units=units, note="", first_byte_ms=1,
    )  # fmt: skip


def test_books_from_before_customers_calls_were_counted_go_on(tmp_path: Path) -> None:
    """The migration fills the new tables from the log, just as if they had always been there."""
    segment = structs.replace(credited("v", "w", 9, 8), orchestrator="customer:c_3")
    log = [started(1), *cut(day(9)), at("v/fee", segment), started(2), *cut(day(10))]
    with closing(SqliteStore(tmp_path)) as store:
        store.append(log)
    with closing(SqliteStore(tmp_path)) as store:
        calls, still_open = store.customer_calls(), open_jobs(store)
    with closing(apsw.Connection(str(tmp_path / database.FILE))) as connection:
        connection.execute("DROP TABLE customer_calls; DROP TABLE open_call")
        connection.execute(dict(database.migrations())[4])
    with closing(SqliteStore(tmp_path)) as store:
        assert store.customer_calls() == calls
        assert calls[-1] == CustomerCallsRow(customer="c_3", calls=1, failed=0)
        assert open_jobs(store) == still_open
        assert len(still_open) == 2
    assert replay.check(tmp_path).faults == ()
