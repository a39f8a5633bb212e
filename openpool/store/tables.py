"""The derived tables as rows: how `Books` is written to SQLite and read back.

Wei and the parts of a carry cross this border as decimal text, because SQLite's integers end at
2**63 and its numbers lose digits silently. Must not decide anything. Read next: `store.sqlite`.
"""

from collections.abc import Iterable
from typing import Any

import apsw
from msgspec import structs

from openpool.core.ledger import Transfer
from openpool.store.books import Books, OpenJob, Tallies, Tally, TallyKey, WorkerTally

DERIVED = ("transfer", "balance", "carry", "rollup", "worker", "event_count", "open_job")
ROLLUPS_CACHED_MAX = 20_000

_WORKER = (
    'worker, address, name, "group", state, enrolled_ms, last_connected_ms, last_disconnected_ms,'
    " segments, failed, refused, credited_wei"
)
SELECT_WORKER = f"SELECT {_WORKER} FROM worker"
_PUT_WORKER = f"INSERT OR REPLACE INTO worker ({_WORKER}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"
TALLY = (
    "segments, failed, refused, hedged, media_ms, busy_ms, latency_ms, pixels, fee_wei, worker_wei"
)
_SELECT_TALLY = f"SELECT {TALLY} FROM rollup WHERE worker = ? AND start_ms = ?"
_PUT_TALLY = (
    f"INSERT OR REPLACE INTO rollup (worker, start_ms, {TALLY}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"
)
_PUT_TRANSFER = (
    "INSERT INTO transfer (id, event_seq, debit, credit, amount_wei, kind) VALUES (?,?,?,?,?,?)"
)

Row = tuple[Any, ...]


class StoredTallies(Tallies):
    """Rollups that are looked up in the database when they are touched again."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def load(self, key: TallyKey) -> Tally:
        row = self._connection.execute(_SELECT_TALLY, key).fetchone()
        return Tally() if row is None else tally_of(row)


def tally_of(row: Row) -> Tally:
    """A tally from the columns `TALLY`."""
    return Tally(*(*row[:8], int(row[8]), int(row[9])))


def worker_of(row: Row) -> WorkerTally:
    """A worker from the columns of `SELECT_WORKER`."""
    return WorkerTally(*(*row[:11], int(row[11])))


def load_books(connection: apsw.Connection) -> Books:
    """The books as the tables have them; rollups stay on disk until they are touched."""
    books = Books(StoredTallies(connection))
    run = connection.execute
    books.balances.amounts.update(
        (account, int(amount)) for account, amount in run("SELECT account, amount_wei FROM balance")
    )
    books.carries.update(
        ((worker, int(denominator)), int(numerator))
        for worker, denominator, numerator in run(
            "SELECT worker, denominator, numerator FROM carry"
        )
    )
    books.workers.update((row[0], worker_of(row)) for row in run(SELECT_WORKER))
    books.counts.update(run("SELECT type, events FROM event_count"))
    jobs = run("SELECT job, seq, deadline_ms, busy_ms, pixels FROM open_job")
    books.open_jobs.update((row[0], OpenJob(*row[1:])) for row in jobs)
    return books


def clear(connection: apsw.Connection) -> None:
    """Empty every derived table."""
    for table in DERIVED:
        connection.execute(f"DELETE FROM {table}")


def write_transfers(connection: apsw.Connection, transfers: Iterable[tuple[int, Transfer]]) -> None:
    """Post transfers, each with the number of the event that caused it."""
    rows = [(t.id, seq, t.debit, t.credit, str(t.amount_wei), t.kind) for seq, t in transfers]
    connection.executemany(_PUT_TRANSFER, rows)


def write_books(connection: apsw.Connection, books: Books) -> None:
    """Write every row that changed since the last call."""
    changes = books.take_changes()
    many = connection.executemany
    amounts, counts = books.balances.amounts, books.counts
    many(
        "INSERT OR REPLACE INTO balance VALUES (?,?)",
        [(account, str(amounts[account])) for account in changes.accounts],
    )
    many(
        "INSERT OR REPLACE INTO event_count VALUES (?,?)",
        [(kind, counts[kind]) for kind in changes.types],
    )
    many(_PUT_WORKER, [_worker_row(books.workers[name]) for name in changes.workers])
    many(_PUT_TALLY, [_tally_row(key, books.tallies[key]) for key in changes.tallies])
    _write_carries(connection, books, changes.carries)
    _write_jobs(connection, books, changes.jobs)
    if len(books.tallies) > ROLLUPS_CACHED_MAX:
        books.tallies.clear()


def _worker_row(worker: WorkerTally) -> Row:
    return (*structs.astuple(worker)[:-1], str(worker.credited_wei))


def _tally_row(key: TallyKey, tally: Tally) -> Row:
    values = structs.astuple(tally)
    return (*key, *values[:8], str(values[8]), str(values[9]))


def _write_carries(
    connection: apsw.Connection, books: Books, keys: Iterable[tuple[str, int]]
) -> None:
    kept, gone = [], []
    for worker, denominator in keys:
        if numerator := books.carries.get((worker, denominator)):
            kept.append((worker, str(denominator), str(numerator)))
        else:
            gone.append((worker, str(denominator)))
    connection.executemany("INSERT OR REPLACE INTO carry VALUES (?,?,?)", kept)
    connection.executemany("DELETE FROM carry WHERE worker = ? AND denominator = ?", gone)


def _write_jobs(connection: apsw.Connection, books: Books, names: Iterable[str]) -> None:
    kept, gone = [], []
    for name in names:
        if job := books.open_jobs.get(name):
            kept.append((name, *structs.astuple(job)))
        else:
            gone.append((name,))
    connection.executemany("INSERT OR REPLACE INTO open_job VALUES (?,?,?,?,?)", kept)
    connection.executemany("DELETE FROM open_job WHERE job = ?", gone)
