"""Reading the pool's SQLite file: implements `store.interface.Reader`, never writes.

Safe to call from any number of threads: each call borrows a connection of its own. Works beside a
running pool, also from another process. Read next: `store.interface`, `store.tables`.
"""

import contextlib
import threading
from collections.abc import Iterator
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import apsw
import msgspec
from msgspec import Struct

from openpool.core.events import Event, JobReceived, PoolStarted, decode_payload
from openpool.core.money.ledger import Transfer
from openpool.store import database
from openpool.store.books import attempts_of, empty_buckets
from openpool.store.interface import (
    AppRow,
    Balance,
    CustomerCallsRow,
    CustomerRow,
    EventFilter,
    InviteRow,
    RollupPoint,
    StoredEvent,
    TokenRow,
    WorkerRow,
)
from openpool.store.tables import (
    SELECT_APP,
    SELECT_CUSTOMER,
    SELECT_TALLY,
    SELECT_WORKER,
    Row,
    app_of,
    customer_of,
    tally_of,
    worker_of,
)

CONNECTIONS_KEPT = 8
JOB_EVENTS_MAX = 1_000
CHUNK = 1_000
"""Events read at once by `all_events`, so that a slow reader holds no lock on the log."""

S = TypeVar("S", bound=Struct)

_EVENT = "SELECT seq, id, time_ms, data, chain FROM event"
_TRANSFER = (
    "SELECT t.n, t.id, e.id, e.time_ms, t.debit, t.credit, t.amount_wei, t.kind"
    " FROM transfer t JOIN event e ON e.seq = t.event_seq"
)
_TOKEN = (
    "SELECT token, worker, secret_hash, created_ms, last_used_ms, expires_ms, revoked_ms, label"
    " FROM token"
)
_INVITE = 'SELECT secret_hash, "group", label, created_ms, expires_ms FROM invite'


class SqliteReader:
    """Reads of one database file."""

    def __init__(self, path: Path, vfs: str | None = None) -> None:
        """`path` is the data directory or the file; SetupError if it cannot be read."""
        self.file = database.database_file(path)
        self._vfs = vfs
        self._idle: list[apsw.Connection] = []
        self._lock = threading.Lock()
        self._closed = False
        with self._borrow():
            pass

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            database.close(connection)

    def events(self, which: EventFilter) -> list[StoredEvent]:
        # One query per type walks its index in order; a query over all would sort the log.
        kinds = sorted(set(which.types)) or [""]
        with self._borrow() as connection, contextlib.ExitStack() as stack:
            found = []
            for kind in kinds:
                cursor = connection.execute(*_events(which, kind))
                stack.callback(cursor.close)
                found.append(cursor)
            ordered = merge(*found, key=lambda row: row[0], reverse=which.newest_first)
            return [_stored(row) for row in islice(ordered, max(which.limit, 0))]

    def all_events(self) -> Iterator[StoredEvent]:
        after = 0
        while chunk := self.events(EventFilter(after_seq=after, limit=CHUNK)):
            yield from chunk
            after = chunk[-1].seq

    def head(self) -> tuple[int, str]:
        row = self._one("SELECT seq, chain FROM event ORDER BY seq DESC LIMIT 1")
        return (0, "") if row is None else (row[0], row[1].hex())

    def balances(self, prefix: str = "") -> list[Balance]:
        only = "WHERE account >= ? AND account < ?" if prefix else ""
        rows = self._all(
            f"SELECT account, amount_wei FROM balance {only} ORDER BY account",
            (prefix, _after(prefix)) if prefix else (),
        )
        return [Balance(account=account, amount_wei=int(amount)) for account, amount in rows]

    def transfers(self, *, account: str = "", before: str = "", limit: int = 100) -> list[Transfer]:
        """Newest first; `before` is the id of the last one already seen."""
        end = 2**62
        if before:
            row = self._one("SELECT n FROM transfer WHERE id = ?", (before,))
            end = 0 if row is None else row[0]
        newest = " t.n < ? ORDER BY t.n DESC LIMIT ?"
        if not account:
            rows = self._all(f"{_TRANSFER} WHERE{newest}", (end, limit))
        else:
            both = [
                self._all(f"{_TRANSFER} WHERE t.{side} = ? AND{newest}", (account, end, limit))
                for side in ("debit", "credit")
            ]
            rows = sorted(both[0] + both[1], reverse=True)[:limit]
        return [_transfer(row) for row in rows]

    def carries(self) -> dict[tuple[str, int], int]:
        rows = self._all("SELECT worker, denominator, numerator FROM carry")
        return {
            (worker, int(denominator)): int(numerator) for worker, denominator, numerator in rows
        }

    def series(
        self, *, start_ms: int, end_ms: int, step_ms: int, worker: str = ""
    ) -> list[RollupPoint]:
        first, buckets = empty_buckets(start_ms, end_ms, step_ms)
        rows = self._all(
            f"{SELECT_TALLY} WHERE worker = ? AND start_ms >= ? AND start_ms < ?",
            (worker, first, end_ms),
        )
        for row in rows:
            buckets[(row[-1] - first) // step_ms].add(tally_of(row))
        return [tally.point(first + n * step_ms) for n, tally in enumerate(buckets)]

    def workers(self) -> list[WorkerRow]:
        return [worker_of(row).row() for row in self._all(f"{SELECT_WORKER} ORDER BY worker")]

    def worker(self, worker: str) -> WorkerRow | None:
        row = self._one(f"{SELECT_WORKER} WHERE worker = ?", (worker,))
        return None if row is None else worker_of(row).row()

    def apps(self) -> list[AppRow]:
        return [app_of(row).row() for row in self._all(f"{SELECT_APP} ORDER BY pipeline, model")]

    def customer_calls(self) -> list[CustomerCallsRow]:
        return [customer_of(row).row() for row in self._all(f"{SELECT_CUSTOMER} ORDER BY customer")]

    def open_calls(self) -> list[list[Event]]:
        rows = self._all(
            "SELECT job, checkpoint.seq FROM open_call LEFT JOIN checkpoint USING (job)"
            " ORDER BY open_call.seq"
        )
        return [self._open_call(job, checkpoint) for job, checkpoint in rows]

    def _open_call(self, job: str, checkpoint: int | None) -> list[Event]:
        story = self.events(EventFilter(job=job, limit=JOB_EVENTS_MAX))
        if checkpoint is not None:
            story += self.events(EventFilter(after_seq=checkpoint - 1, limit=1))
        return [stored.event for stored in story]

    def checkpoints(self, call: str) -> tuple[int, StoredEvent | None]:
        # They are found by their ids, as `core.desk` makes them: it needs no index of its own.
        names = (f"{call}/", f"{call}0")  # what begins with the first is below the second
        which = "id > ? AND id < ? AND instr(id, '/checkpointed/')"
        row = self._one(f"SELECT count(*), max(seq) FROM event WHERE {which}", names)
        assert row is not None  # what an aggregate always has
        count, seq = row
        newest = self.events(EventFilter(after_seq=seq - 1, limit=1)) if count else [None]
        return count, newest[0]

    def counts(self) -> dict[str, int]:
        return dict(self._all("SELECT type, events FROM event_count ORDER BY type"))

    def turnover(self) -> dict[str, int]:
        return {k: int(v) for k, v in self._all("SELECT kind, amount_wei FROM turnover")}

    def last_epoch(self) -> int:
        newest = self.events(EventFilter(types=("pool-started",), newest_first=True, limit=1))
        data = newest[0].event.data if newest else None
        return data.epoch if isinstance(data, PoolStarted) else 0

    def open_jobs(self, now_ms: int) -> list[tuple[Event, list[tuple[int, str]]]]:
        received = self._all(
            f"{_EVENT} WHERE seq IN (SELECT seq FROM open_job WHERE deadline_ms > ?) ORDER BY seq",
            (now_ms,),
        )
        jobs = []
        for event in (_stored(row).event for row in received):
            assert isinstance(event.data, JobReceived)
            story = self.events(EventFilter(job=event.data.job, limit=JOB_EVENTS_MAX))
            jobs.append((event, attempts_of(stored.event for stored in story)))
        return jobs

    def tokens(self, worker: str = "") -> list[TokenRow]:
        return self._rows(
            TokenRow, f"{_TOKEN} WHERE ? IN ('', worker) ORDER BY created_ms, token", (worker,)
        )

    def token_by_hash(self, secret_hash: bytes) -> TokenRow | None:
        return self._first(TokenRow, f"{_TOKEN} WHERE secret_hash = ?", (secret_hash,))

    def customers(self) -> list[CustomerRow]:
        """In the order in which they came."""
        sql = "SELECT * FROM customer ORDER BY created_ms, customer"
        return [_customer(row) for row in self._all(sql, ())]

    def invites(self) -> list[InviteRow]:
        return self._rows(InviteRow, f"{_INVITE} ORDER BY created_ms, secret_hash", ())

    def setting(self, key: str) -> Any:
        """The value, or None."""
        row = self._one("SELECT value FROM setting WHERE key = ?", (key,))
        return None if row is None else msgspec.json.decode(row[0])

    def _all(self, sql: str, values: Row = ()) -> list[Row]:
        with self._borrow() as connection:
            return connection.execute(sql, values).fetchall()

    def _one(self, sql: str, values: Row = ()) -> Row | None:
        rows = self._all(sql, values)
        return rows[0] if rows else None

    def _rows(self, kind: type[S], sql: str, values: Row) -> list[S]:
        fields = kind.__struct_fields__
        return [kind(**dict(zip(fields, row, strict=True))) for row in self._all(sql, values)]

    def _first(self, kind: type[S], sql: str, values: Row) -> S | None:
        rows = self._rows(kind, sql, values)
        return rows[0] if rows else None

    @contextlib.contextmanager
    def _borrow(self) -> Iterator[apsw.Connection]:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = database.open_reader(self.file, self._vfs)
        try:
            with database.read_errors(self.file):
                yield connection
        finally:
            with self._lock:
                keep = not self._closed and len(self._idle) < CONNECTIONS_KEPT
                if keep:
                    self._idle.append(connection)
            if not keep:
                database.close(connection)


def _after(prefix: str) -> str:
    """The first text behind all that begin so; "" for no prefix."""
    return prefix and prefix[:-1] + chr(ord(prefix[-1]) + 1)


def _events(which: EventFilter, kind: str) -> tuple[str, Row]:
    """The query for events of one type; all types if it is empty."""
    conditions = {
        "seq > ?": which.after_seq,
        "seq < ?": which.before_seq,
        "type = ?": kind,
        "id >= ?": which.id_prefix,
        "id < ?": _after(which.id_prefix),
        "worker = ? AND worker <> ''": which.worker,
        "job = ? AND job <> ''": which.job,
        "time_ms >= ?": which.since_ms,
    }
    used = {text: value for text, value in conditions.items() if value}
    where = f" WHERE {' AND '.join(used)}" if used else ""
    order = "DESC" if which.newest_first else "ASC"
    sql = f"{_EVENT}{where} ORDER BY seq {order} LIMIT ?"
    return sql, (*used.values(), max(which.limit, 0))


def _stored(row: Row) -> StoredEvent:
    seq, event_id, time_ms, data, chain = row
    event = Event(id=event_id, time_ms=time_ms, data=decode_payload(data))
    return StoredEvent(seq=seq, event=event, chain=chain.hex())


def _customer(row: Row) -> CustomerRow:
    customer, name, created_ms, requests_per_minute, limit = row
    return CustomerRow(
        customer=customer,
        name=name,
        created_ms=created_ms,
        requests_per_minute=requests_per_minute,
        spend_limit_wei=int(limit) if limit else None,
    )


def _transfer(row: Row) -> Transfer:
    _, transfer_id, event_id, time_ms, debit, credit, amount, kind = row
    return Transfer(
        id=transfer_id,
        event_id=event_id,
        time_ms=time_ms,
        debit=debit,
        credit=credit,
        amount_wei=int(amount),
        kind=kind,
    )
