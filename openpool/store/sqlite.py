"""The store: one SQLite file per pool that remembers every fact and keeps the books.

One transaction holds a group of events, what they move, and every row derived from them, so a
crash leaves all of it or nothing. `append` only queues; the writer thread commits (see
`store.writer`), and receipts, listeners and `failure` are told in the event loop. After a failed
write the store takes nothing more and the pool must stop: `wait_failed` tells it.

Must not decide anything. Reads are in `store.reader`. Read next: `store.books`, `store.replay`.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import apsw
import msgspec

from openpool.core.events import Event
from openpool.core.hashchain import GENESIS, chain_hash
from openpool.core.money.ledger import Transfer
from openpool.store import database, tables
from openpool.store.feed import Subscription, Subscriptions
from openpool.store.interface import CustomerRow, InviteRow, StoredEvent, TokenRow
from openpool.store.reader import SqliteReader
from openpool.store.writer import EVENTS_MAX, Entry, Group, Writer, entry

T = TypeVar("T")

CLOSE_S = 30.0
"""How long `close` waits for the disk."""

_PUT_EVENT = (
    "INSERT INTO event (seq, id, type, v, time_ms, job, worker, data, leaf, chain)"
    " VALUES (?,?,?,?,?,?,?,?,?,?)"
)
_KNOWN = "SELECT id FROM event WHERE id IN (SELECT value FROM json_each(?))"


class SqliteLog:
    """The log and its books on one connection; used by one thread at a time."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._books = tables.load_books(connection)
        self._seq, self._chain = _head(connection)

    def append(self, entries: Sequence[Entry]) -> list[StoredEvent]:
        """Write the events that are new, and all that follows from them; in a transaction."""
        rows: list[tables.Row] = []
        transfers: list[tuple[int, Transfer]] = []
        stored: list[StoredEvent] = []
        for event, data, leaf in self._new(entries):
            rows.append(self._next_row(event, data, leaf))
            transfers += ((self._seq, t) for t in self._books.apply(self._seq, event))
            stored.append(StoredEvent(seq=self._seq, event=event, chain=self._chain.hex()))
        self._connection.executemany(_PUT_EVENT, rows)
        tables.write_transfers(self._connection, transfers)
        tables.write_books(self._connection, self._books)
        return stored

    def _new(self, entries: Sequence[Entry]) -> list[Entry]:
        """The entries whose id the log does not hold, without repetitions."""
        first: dict[str, Entry] = {}
        for each in entries:
            first.setdefault(each[0].id, each)
        if not first:
            return []
        ids = msgspec.json.encode(list(first)).decode()
        for (known,) in self._connection.execute(_KNOWN, (ids,)):
            del first[known]
        return list(first.values())

    def _next_row(self, event: Event, data: bytes, leaf: bytes) -> tables.Row:
        payload = event.data
        self._seq += 1
        self._chain = chain_hash(self._chain, leaf)
        return (
            self._seq,
            event.id,
            payload.type,
            payload.v,
            event.time_ms,
            getattr(payload, "job", ""),
            getattr(payload, "worker", ""),
            data.decode(),
            leaf,
            self._chain,
        )


def _head(connection: apsw.Connection) -> tuple[int, bytes]:
    row = connection.execute("SELECT seq, chain FROM event ORDER BY seq DESC LIMIT 1").fetchone()
    return (0, GENESIS) if row is None else (row[0], row[1])


class SqliteStore(SqliteReader):
    """Implements Appender, Reader, Feed and Registry of `store.interface`."""

    def __init__(
        self, directory: Path, *, events_max: int = EVENTS_MAX, vfs: str | None = None
    ) -> None:
        """Open or create the database of a data directory. SetupError if that cannot be.

        `events_max` bounds how many events may wait for the disk; more is a failure of the store.
        """
        file = directory / database.FILE
        self._guard = database.ProcessLock(directory)
        with contextlib.ExitStack() as undo:
            undo.callback(self._guard.release)
            self._connection = database.open_writer(file, vfs)
            undo.callback(database.close, self._connection)
            with database.setup_errors(file):
                self._log = SqliteLog(self._connection)
            super().__init__(file, vfs)
            undo.pop_all()
        self._listeners = Subscriptions()
        self._writer = Writer(
            self._commit,
            describe=lambda error: database.disk_sentence(error, file),
            settled=self._publish,
            events_max=events_max,
        )
        self._writer.start()

    @property
    def failure(self) -> str | None:
        """Why the store takes nothing more, in one sentence; None while all is well."""
        return self._writer.failure

    @property
    def waiting(self) -> int:
        """How many events wait for the disk."""
        return self._writer.waiting

    async def wait_failed(self) -> str:
        """Returns the reason once the disk has failed; never otherwise."""
        return await self._writer.wait_failed()

    def append(self, events: Sequence[Event]) -> Group:
        """Queue events; never blocks. The receipt fails with Unavailable if the disk fails.

        ValueError for an event whose money is not money: a bug of the caller.
        """
        return self._writer.add([entry(event) for event in events])

    def subscribe(self) -> Subscription:
        self._writer.bind()
        return self._listeners.subscribe()

    def close(self) -> None:
        """Write what waits, then close; blocks for as long as the disk takes (CLOSE_S at most)."""
        try:
            self._writer.close(CLOSE_S)
            super().close()
            database.close(self._connection)
        finally:
            self._writer.in_loop(self._listeners.close)
            self._guard.release()

    async def __aenter__(self) -> "SqliteStore":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self.close)

    async def put_token(self, row: TokenRow) -> None:
        await self._write(_put("token", row))

    async def touch_token(self, token: str, now_ms: int) -> None:
        sql = "UPDATE token SET last_used_ms = max(last_used_ms, ?) WHERE token = ?"
        await self._write(lambda run: run(sql, (now_ms, token)))

    async def expire_token(self, token: str, expires_ms: int) -> None:
        sql = "UPDATE token SET expires_ms = ? WHERE token = ?"
        await self._write(lambda run: run(sql, (expires_ms, token)))

    async def revoke_token(self, token: str, now_ms: int) -> bool:
        sql = "UPDATE token SET revoked_ms = ? WHERE token = ? AND revoked_ms = 0 RETURNING token"
        return await self._write(lambda run: run(sql, (now_ms, token)) is not None)

    async def put_customer(self, row: CustomerRow) -> None:
        sql = "INSERT OR REPLACE INTO customer VALUES (?,?,?,?,?)"
        *values, limit_wei = msgspec.structs.astuple(row)
        text = "" if limit_wei is None else str(limit_wei)
        await self._write(lambda run: run(sql, (*values, text)))

    async def put_invite(self, row: InviteRow) -> None:
        await self._write(_put("invite", row))

    async def take_invite(self, secret_hash: bytes, now_ms: int) -> InviteRow | None:
        sql = "DELETE FROM invite WHERE secret_hash = ? RETURNING *"
        row = await self._write(lambda run: run(sql, (secret_hash,)))
        if row is None:
            return None
        invite = InviteRow(**dict(zip(InviteRow.__struct_fields__, row, strict=True)))
        return invite if invite.expires_ms == 0 or invite.expires_ms > now_ms else None

    async def set_setting(self, key: str, value: Any) -> None:
        text = msgspec.json.encode(value).decode()
        sql = "INSERT OR REPLACE INTO setting VALUES (?,?)"
        await self._write(lambda run: run(sql, (key, text)))

    async def _write(self, work: "Callable[[Run], T]") -> T:
        """Run statements in the writer's next transaction; their result once it is on disk.

        ValueError if the tables do not allow it; that costs only this caller.
        """
        results: list[T] = []
        refused: list[apsw.ConstraintError] = []

        def call() -> None:
            try:
                with self._connection:
                    results.append(work(self._run_one))
            except apsw.ConstraintError as error:
                refused.append(error)

        await self._writer.add((), call).durable()
        if refused:
            raise ValueError(str(refused[0]))
        return results[0]

    def _run_one(self, sql: str, values: tables.Row) -> tables.Row | None:
        rows = self._connection.execute(sql, values).fetchall()
        return rows[0] if rows else None

    def _commit(self, group: Group) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            group.stored = self._log.append(group.entries)
            for call in group.calls:
                call()
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(apsw.Error):
                connection.execute("ROLLBACK")
            raise

    def _publish(self, group: Group) -> None:
        if group.error is None:
            self._listeners.publish(group.stored)


Run = Callable[[str, tables.Row], "tables.Row | None"]


def _put(table: str, row: msgspec.Struct) -> Callable[[Run], "tables.Row | None"]:
    """Insert a row whose fields are the table's columns, unless its key is taken."""
    values = msgspec.structs.astuple(row)
    marks = ",".join("?" * len(values))
    sql = f"INSERT INTO {table} VALUES ({marks}) ON CONFLICT DO NOTHING RETURNING 1"
    return lambda run: run(sql, values)
