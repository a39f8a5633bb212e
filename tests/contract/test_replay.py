"""Replay proves that log and books agree, finds every tampering, and remakes the books."""

import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from stories import Story

from openpool.core.errors import SetupError
from openpool.store import database, replay, tables
from openpool.store.interface import EventFilter
from openpool.store.sqlite import SqliteStore

JOBS = 60
Edit = Callable[[apsw.Connection], object]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A data directory with a story in it."""
    store = SqliteStore(tmp_path)
    for job in Story(20).jobs(JOBS):
        store.append(job)
    store.close()
    return tmp_path


def edit(directory: Path, change: str | Edit) -> None:
    """What somebody with a SQLite shell could do."""
    with closing(apsw.Connection(str(directory / database.FILE))) as connection:
        if callable(change):
            change(connection)
        else:
            connection.execute(change)


def test_log_and_books_of_an_honest_store_agree(directory: Path) -> None:
    """An untouched log replays without a fault, to the head and sums that the store has."""
    report = replay.check(directory)
    assert report.faults == ()
    assert report.ok
    with closing(SqliteStore(directory)) as store:
        assert (report.seq, report.chain) == store.head()
        assert report.events == sum(store.counts().values())
        assert report.transfers == len(store.transfers(limit=10_000))
        assert report.fees_wei == report.commission_wei + report.credited_wei > 0
        assert report.fees_wei == -sum(b.amount_wei for b in store.balances("fees:"))


def test_an_empty_store_is_sound(tmp_path: Path) -> None:
    """A pool that has done nothing yet has nothing to hide."""
    SqliteStore(tmp_path).close()
    report = replay.check(tmp_path)
    assert (report.faults, report.events, report.fees_wei) == ((), 0, 0)


async def test_a_running_pool_can_be_checked(directory: Path) -> None:
    """The check reads one unchanging view beside a store that is open."""
    async with SqliteStore(directory) as store:
        await store.append(Story(21).events(5)).durable()
        assert replay.check(directory).ok


TAMPERING: dict[str, tuple[str, str]] = {
    "an amount in an event": (
        'UPDATE event SET data = replace(data, \'"worker_wei":"\', \'"worker_wei":"1\')'
        " WHERE seq = (SELECT min(seq) FROM event WHERE type = 'fee-credited')",
        r"Event 5 \(.*fee-credited\) was changed after it was written",
    ),
    "the time of an event": (
        "UPDATE event SET time_ms = time_ms + 1 WHERE seq = 9",
        r"Event 9 \(.*\) was changed",
    ),
    "the id of an event": (
        "UPDATE event SET id = 'other' WHERE seq = 9",
        r"Event 9 \(other\) was changed",
    ),
    "the leaf hash with the event": (
        "UPDATE event SET leaf = zeroblob(32) WHERE seq = 9",
        r"Event 9 \(.*\) was changed",
    ),
    "a chain hash": (
        "UPDATE event SET chain = zeroblob(32) WHERE seq = 9",
        r"Event 9 \(.*\) does not follow the event before it",
    ),
    "where an event is filed": (
        "UPDATE event SET worker = 'somebody' WHERE seq = 9",
        r"Event 9 \(.*\) is filed under a wrong type, job or worker",
    ),
    "unreadable data": (
        "UPDATE event SET data = '{' WHERE seq = 9",
        r"Event 9 \(.*\) cannot be read",
    ),
    "a deleted event": ("DELETE FROM event WHERE seq = 9", r"Event 9 is missing"),
    "deleted events": (
        "DELETE FROM event WHERE seq BETWEEN 9 AND 12",
        r"Events 9 to 12 are missing",
    ),
    "a cut-off end": (
        "DELETE FROM event WHERE seq > (SELECT max(seq) - 3 FROM event)",
        r"The log ends at event \d+, but \d+ events were recorded",
    ),
    "an inserted event": (
        "INSERT INTO event SELECT max(seq) + 1, 'new', type, v, time_ms, job, worker, data, leaf,"
        " chain FROM event",
        r"Event \d+ \(new\) was changed",
    ),
    "a balance": (
        "UPDATE balance SET amount_wei = amount_wei || '0' WHERE account = 'commission'",
        r"In table balance, commission is \d+0, but the log gives \d+",
    ),
    "a new account": (
        "INSERT INTO balance VALUES ('worker:0xthief', '5')",
        r"In table balance, worker:0xthief is 5, but the log gives missing",
    ),
    "a removed account": (
        "DELETE FROM balance WHERE account = 'commission'",
        r"In table balance, commission is missing, but the log gives \d+",
    ),
    "a transfer's amount": (
        "UPDATE transfer SET amount_wei = '1' WHERE n = 3",
        r"Transfer .* of \d+ wei \(event \d+\) is stored as",
    ),
    "a removed transfer": (
        "DELETE FROM transfer WHERE n = (SELECT max(n) FROM transfer)",
        r"Transfer .* is missing",
    ),
    "an added transfer": (
        "INSERT INTO transfer VALUES (9999, 'gift', 1, 'commission', 'worker:0xme', '1', 'fee')",
        r"Transfer gift does not follow from any event",
    ),
    "a carry": ("UPDATE carry SET numerator = numerator || '9'", r"In table carry, w\d \d+ is"),
    "a rollup": (
        "UPDATE rollup SET segments = segments + 1 WHERE worker = ''",
        r"In table rollup, \(pool\) \d+ is",
    ),
    "a worker's earnings": (
        "UPDATE worker SET credited_wei = '1' WHERE worker = 'w1'",
        r"In table worker, w1 is",
    ),
    "a count": ("UPDATE event_count SET events = events - 1", r"In table event_count, "),
}


@pytest.mark.parametrize("name", TAMPERING)
def test_tampering_is_found_and_named(directory: Path, name: str) -> None:
    """Whoever edits, removes or adds anything in the database file is found out, and where."""
    change, sentence = TAMPERING[name]
    edit(directory, change)
    report = replay.check(directory)
    assert not report.ok
    assert any(re.search(sentence, fault) for fault in report.faults), report.faults


def test_two_events_that_changed_places_are_found(directory: Path) -> None:
    """Swapping the contents of two rows breaks the chain at the first of them."""

    def swap(connection: apsw.Connection) -> None:
        connection.execute("UPDATE event SET seq = -1 WHERE seq = 9")
        connection.execute("UPDATE event SET seq = 9 WHERE seq = 10")
        connection.execute("UPDATE event SET seq = 10 WHERE seq = -1")

    edit(directory, swap)
    assert "Event 9 " in replay.check(directory).faults[0]


def test_a_log_rewritten_from_the_start_needs_a_known_head(tmp_path: Path) -> None:
    """Another log with hashes of its own is sound in itself, but not the log known before."""
    heads = []
    for seed in (1, 2):
        store = SqliteStore(tmp_path / str(seed))
        store.append(Story(seed).events(10)).wait()
        heads.append(store.head())
        store.close()
    assert replay.check(tmp_path / "2", known_head=heads[1]).ok
    report = replay.check(tmp_path / "2", known_head=heads[0])
    assert report.faults[0].startswith("The log was rewritten")


def test_many_faults_are_counted_not_listed(directory: Path) -> None:
    """A log that is broken everywhere gives a short report."""
    edit(directory, "UPDATE event SET time_ms = time_ms + 1")
    faults = replay.check(directory).faults
    assert len(faults) == replay.FAULTS_MAX + 1
    assert "more faults" in faults[-1]


def test_the_books_can_be_remade_from_the_log_alone(directory: Path) -> None:
    """After every derived table is emptied, rebuilding gives what was there, to the wei."""
    before = replay.check(directory)

    def wreck(connection: apsw.Connection) -> None:
        for table in ("transfer", "balance", "carry", "rollup", "worker", "event_count"):
            connection.execute(f"DELETE FROM {table}")

    edit(directory, wreck)
    assert not replay.check(directory).ok
    rebuilt = replay.rebuild(directory)
    assert rebuilt == replay.rebuild(directory) == replay.check(directory) == before
    store = SqliteStore(directory)
    store.append(Story(22).events(10)).wait()
    store.close()
    assert replay.check(directory).ok


def test_more_rollups_than_fit_into_memory_are_kept_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that must drop and reload rollups all the time has the same books."""
    monkeypatch.setattr(tables, "ROLLUPS_CACHED_MAX", 1)
    store = SqliteStore(tmp_path)
    for job in Story(23).jobs(300):
        store.append(job).wait()
    store.close()
    checked = replay.check(tmp_path)
    assert checked.ok
    assert checked == replay.rebuild(tmp_path) == replay.check(tmp_path)


def test_a_damaged_log_is_not_rebuilt(directory: Path) -> None:
    """Books are not remade from a log that was tampered with, and stay as they are."""
    edit(directory, "UPDATE event SET time_ms = 0 WHERE seq = 9")
    with closing(SqliteStore(directory)) as store:
        before = store.balances()
    with pytest.raises(SetupError, match="nothing was rebuilt"):
        replay.rebuild(directory)
    with closing(SqliteStore(directory)) as store:
        assert store.balances() == before
        assert len(store.events(EventFilter(limit=10_000))) == store.head()[0]


def test_rebuilding_beside_a_running_pool_is_refused(directory: Path) -> None:
    """The books of a pool that runs are not touched."""
    with closing(SqliteStore(directory)), pytest.raises(SetupError, match="Another pool"):
        replay.rebuild(directory)


def test_rebuilding_nothing_creates_nothing(tmp_path: Path) -> None:
    """A directory without a database stays without one."""
    with pytest.raises(SetupError, match="no pool database"):
        replay.rebuild(tmp_path)
    assert not (tmp_path / database.FILE).exists()


def test_progress_is_told(directory: Path) -> None:
    """A long replay can show how far it is."""
    steps: list[tuple[int, int]] = []
    report = replay.check(directory, lambda done, total: steps.append((done, total)))
    assert steps[-1] == (report.events, report.events)
