"""The derived tables as rows: how `Books` is written to SQLite and read back.

Wei and the parts of a carry cross this border as decimal text, because SQLite's integers end at
2**63 and its numbers lose digits silently. Must not decide anything. Read next: `store.sqlite`.
"""

from collections.abc import Iterable
from typing import Any, TypeVar

import apsw
from msgspec import structs

from openpool.core.money.ledger import Transfer
from openpool.store.books import (
    AppTally,
    Books,
    Changes,
    CustomerTally,
    OpenJob,
    Tallies,
    Tally,
    TallyKey,
    WorkerTally,
)

ROLLUPS_CACHED_MAX = 20_000
INTEGER_MAX = 2**63 - 1

_TALLY = (
    "segments, failed, refused, hedged, media_ms, busy_ms, latency_ms, pixels, fee_wei, worker_wei,"
    " calls, calls_failed, call_ms, call_fee_wei, call_worker_wei"
)
COLUMNS = {
    "balance": (1, "account, amount_wei"),
    "carry": (2, "worker, denominator, numerator"),
    "rollup": (2, f"worker, start_ms, {_TALLY}"),
    "worker": (
        1,
        'worker, address, name, "group", state, enrolled_ms, last_connected_ms,'
        " last_disconnected_ms, segments, failed, refused, credited_wei,"
        " calls, calls_failed, call_worker_wei",
    ),
    "event_count": (1, "type, events"),
    "turnover": (1, "kind, amount_wei"),
    "open_job": (1, "job, seq, deadline_ms, busy_ms, pixels"),
    "app": (2, "pipeline, model, calls, failed, took_ms, first_byte_ms, fee_wei"),
    "customer_calls": (1, "customer, calls, failed"),
    "open_call": (1, "job, seq"),
    "checkpoint": (1, "job, seq"),
}
"""Derived tables: how many columns make the key, and all columns."""

SELECT_WORKER = f"SELECT {COLUMNS['worker'][1]} FROM worker"
SELECT_TALLY = f"SELECT {_TALLY}, start_ms FROM rollup"
SELECT_APP = f"SELECT {COLUMNS['app'][1]} FROM app"
SELECT_CUSTOMER = f"SELECT {COLUMNS['customer_calls'][1]} FROM customer_calls"
SELECT_TRANSFER = "SELECT id, event_seq, debit, credit, amount_wei, kind FROM transfer"
_PUT_TRANSFER = (
    "INSERT INTO transfer (id, event_seq, debit, credit, amount_wei, kind) VALUES (?,?,?,?,?,?)"
)

Row = tuple[Any, ...]
T = TypeVar("T", Tally, WorkerTally, AppTally, CustomerTally)


class StoredTallies(Tallies):
    """Rollups that are looked up in the database when they are touched again."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def load(self, key: TallyKey) -> Tally:
        sql = f"{SELECT_TALLY} WHERE worker = ? AND start_ms = ?"
        row = self._connection.execute(sql, key).fetchone()
        return Tally() if row is None else tally_of(row)

    def written(self) -> None:
        if len(self) > ROLLUPS_CACHED_MAX:
            self.clear()


def tally_of(row: Row) -> Tally:
    """A tally from the columns of `SELECT_TALLY`."""
    return _loaded(Tally, row)


def worker_of(row: Row) -> WorkerTally:
    """A worker from the columns of `SELECT_WORKER`."""
    return _loaded(WorkerTally, row)


def app_of(row: Row) -> AppTally:
    """A model from the columns of `SELECT_APP`."""
    return _loaded(AppTally, row)


def customer_of(row: Row) -> CustomerTally:
    """A customer's calls from the columns of `SELECT_CUSTOMER`."""
    return _loaded(CustomerTally, row)


def _loaded(kind: type[T], row: Row) -> T:
    """The reverse of `_stored`; columns beyond the fields are for others."""
    named: dict[str, Any] = dict(zip(kind.__struct_fields__, row, strict=False))
    for name in named:
        if name.endswith("_wei"):
            named[name] = int(named[name])
    return kind(**named)


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
    books.turnover.update(
        (kind, int(amount)) for kind, amount in run("SELECT kind, amount_wei FROM turnover")
    )
    jobs = run(f"SELECT {COLUMNS['open_job'][1]} FROM open_job")
    books.open_jobs.update((row[0], OpenJob(*row[1:])) for row in jobs)
    books.apps.update(((row[0], row[1]), app_of(row)) for row in run(SELECT_APP))
    books.customers.update((row[0], customer_of(row)) for row in run(SELECT_CUSTOMER))
    books.open_calls.update(run("SELECT job, seq FROM open_call"))
    books.checkpoints.update(run("SELECT job, seq FROM checkpoint"))
    return books


def clear(connection: apsw.Connection) -> None:
    """Empty every derived table."""
    for table in ("transfer", *COLUMNS):
        connection.execute(f"DELETE FROM {table}")


def write_transfers(connection: apsw.Connection, transfers: Iterable[tuple[int, Transfer]]) -> None:
    """Post transfers, each with the number of the event that caused it."""
    connection.executemany(_PUT_TRANSFER, [transfer_row(seq, t) for seq, t in transfers])


def transfer_row(seq: int, t: Transfer) -> Row:
    """A transfer as stored, in the columns of `SELECT_TRANSFER`."""
    return t.id, seq, t.debit, t.credit, str(t.amount_wei), t.kind


def write_books(connection: apsw.Connection, books: Books) -> None:
    """Write every row that changed since the last call."""
    for table, keys in _keys(books.take_changes()).items():
        width, columns = COLUMNS[table]
        rows = {key: _row(books, table, key) for key in keys}
        put = f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({_marks(columns)})"
        connection.executemany(put, [row for row in rows.values() if row is not None])
        if gone := [_stored_key(key) for key, row in rows.items() if row is None]:
            names = columns.split(", ")[:width]
            where = " AND ".join(f"{name} = ?" for name in names)
            connection.executemany(f"DELETE FROM {table} WHERE {where}", gone)
    books.tallies.written()


def rows_of(books: Books) -> dict[str, list[Row]]:
    """Every derived row but transfers, by table, as it should be stored."""
    keys: dict[str, Iterable[Any]] = {
        "balance": books.balances.amounts,
        "carry": books.carries,
        "rollup": books.tallies,
        "worker": books.workers,
        "event_count": books.counts,
        "turnover": books.turnover,
        "open_job": books.open_jobs,
        "app": books.apps,
        "customer_calls": books.customers,
        "open_call": books.open_calls,
        "checkpoint": books.checkpoints,
    }
    rows = {table: [_row(books, table, key) for key in each] for table, each in keys.items()}
    return {table: sorted(row for row in each if row) for table, each in rows.items()}


def stored_rows(connection: apsw.Connection) -> dict[str, list[Row]]:
    """The same rows as they are stored."""
    return {
        table: sorted(connection.execute(f"SELECT {columns} FROM {table}"))
        for table, (_, columns) in COLUMNS.items()
    }


def _keys(changes: Changes) -> dict[str, set[Any]]:
    return {
        "balance": changes.accounts,
        "carry": changes.carries,
        "rollup": changes.tallies,
        "worker": changes.workers,
        "event_count": changes.types,
        "turnover": changes.kinds,
        "open_job": changes.jobs,
        "app": changes.apps,
        "customer_calls": changes.customers,
        "open_call": changes.calls,
        "checkpoint": changes.calls,
    }


def _row(books: Books, table: str, key: Any) -> Row | None:
    """The row that the books have for a key; None if there is to be none."""
    match table:
        case "balance":
            return key, str(books.balances.amounts[key])
        case "carry":
            numerator = books.carries.get(key)
            return None if numerator is None else (*_stored_key(key), str(numerator))
        case "rollup":
            return (*key, *_stored(books.tallies[key]))
        case "worker":
            return _stored(books.workers[key])
        case "app":
            return _stored(books.apps[key])
        case "customer_calls":
            return _stored(books.customers[key])
        case "open_call" | "checkpoint":
            of_calls = books.open_calls if table == "open_call" else books.checkpoints
            return (key, of_calls[key]) if key in of_calls else None
        case "event_count":
            return key, books.counts[key]
        case "turnover":
            return key, str(books.turnover[key])
        case _:
            job = books.open_jobs.get(key)
            return None if job is None else (key, *map(_fit, structs.astuple(job)))


def _stored_key(key: Any) -> Row:
    """Key columns as stored; the denominator of a carry may be of any size."""
    return (key[0], str(key[1])) if isinstance(key, tuple) else (key,)


def _stored(tally: Tally | WorkerTally | AppTally | CustomerTally) -> Row:
    """Its fields as columns: money as text, counts as they fit."""
    values = structs.asdict(tally).items()
    return tuple(
        value if isinstance(value, str) else str(value) if name.endswith("_wei") else _fit(value)
        for name, value in values
    )


def _fit(number: int) -> int:
    """A count or duration as SQLite can hold it; only nonsense from outside is ever too large."""
    return min(number, INTEGER_MAX)


def _marks(columns: str) -> str:
    return ",".join("?" * len(columns.split(",")))
