"""Proof that the log is untouched and that the books follow from it alone; and how to remake them.

`check` reads a database (also of a running pool, from one unchanging view), follows the hash chain,
folds every event anew and compares the result with the stored tables, wei for wei. `rebuild`
writes the derived tables from the log, in one transaction. Neither changes the log, ever.

An edit that also recomputes every later hash cannot be seen from inside the file: keep a head
(`ReplayReport.seq`, `.chain`) elsewhere and hand it in as `known_head`.
Read next: `store.books`, `core.hashchain`.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import apsw
from msgspec import Struct

from openpool.core.decoding import UNREADABLE
from openpool.core.errors import SetupError
from openpool.core.events import CommissionTaken, Event, FeeCredited, decode_payload
from openpool.core.hashchain import GENESIS, Tree, chain_hash, leaf_hash
from openpool.core.money.ledger import Transfer, balance_faults
from openpool.store import database, tables
from openpool.store.books import Books, Tallies

FAULTS_MAX = 20
"""More faults than this are not listed one by one."""
PROGRESS_EVENTS = 10_000

Progress = Callable[[int, int], None]
"""Called now and then with the number of events done and of all."""

Row = tables.Row
_EVENTS = "SELECT seq, id, type, v, time_ms, job, worker, data, leaf, chain FROM event ORDER BY seq"


class ReplayReport(Struct, frozen=True, kw_only=True):
    """What replaying a log showed."""

    faults: tuple[str, ...]
    """What is wrong, one sentence each; empty if log and books agree."""
    events: int
    transfers: int
    seq: int
    chain: str
    """The head of the log: its newest number and chain hash."""
    root: str
    """Merkle root over all leaf hashes (RFC 9162)."""
    checksum: str
    """SHA-256 over everything derived; equal logs give equal checksums."""
    fees_wei: int
    """Expected value of everything delivered, to orchestrators and customers."""
    commission_wei: int
    """The pool's part of it, as the next is the workers'."""
    credited_wei: int

    @property
    def ok(self) -> bool:
        return not self.faults


def check(
    path: Path, progress: Progress | None = None, known_head: tuple[int, str] | None = None
) -> ReplayReport:
    """Prove that log and books agree. `path` is the data directory or the database file.

    SetupError if the database cannot be opened at all.
    """
    file = database.database_file(path)
    with closing(database.open_reader(file)) as connection, database.setup_errors(file):
        connection.execute("BEGIN")
        replay = _Replay(connection, progress, known_head)
        replay.faults.add(_integrity(connection))
        stored = connection.execute(f"{tables.SELECT_TRANSFER} ORDER BY n")
        for number, transfer in replay.run():
            replay.compare_transfer(number, transfer, stored.fetchone())
        if (extra := stored.fetchone()) is not None:
            replay.faults.add(f"Transfer {extra[0]} does not follow from any event.")
        replay.compare_tables()
        return replay.report()


def rebuild(path: Path, progress: Progress | None = None) -> ReplayReport:
    """Remake every derived table from the log. The pool must not run.

    SetupError if another process uses the database, or if the log itself is damaged.
    """
    file = database.database_file(path)
    lock = database.ProcessLock(file.parent)
    try:
        if not file.exists():
            raise SetupError(f"There is no pool database at {file}; nothing to rebuild.")
        with closing(database.open_writer(file)) as connection, database.setup_errors(file):
            return _rebuild(connection, progress)
    finally:
        lock.release()


def _rebuild(connection: apsw.Connection, progress: Progress | None) -> ReplayReport:
    replay = _Replay(connection, progress, None)
    with connection:
        tables.clear(connection)
        batch: list[tuple[int, Transfer]] = []
        for posted in replay.run():
            batch.append(posted)
            if len(batch) == PROGRESS_EVENTS:
                tables.write_transfers(connection, batch)
                batch.clear()
        tables.write_transfers(connection, batch)
        tables.write_books(connection, replay.books)
        if replay.faults.found:
            raise SetupError(
                f"The log is damaged, so nothing was rebuilt. {replay.faults.found[0]}"
            )
    return replay.report()


def _integrity(connection: apsw.Connection) -> Iterator[str]:
    for (line,) in connection.execute("PRAGMA quick_check(5)"):
        if line != "ok":
            yield f"The database file is damaged: {line}."


class _Faults:
    """The first faults found, and how many there were."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.count = 0

    def add(self, faults: str | Iterable[str]) -> None:
        for fault in (faults,) if isinstance(faults, str) else faults:
            self.count += 1
            if self.count <= FAULTS_MAX:
                self.found.append(fault)

    def all(self) -> tuple[str, ...]:
        hidden = self.count - len(self.found)
        return (*self.found, *([f"There are {hidden} more faults."] if hidden else []))


class _Replay:
    """One walk through the log."""

    def __init__(
        self,
        connection: apsw.Connection,
        progress: Progress | None,
        known_head: tuple[int, str] | None,
    ) -> None:
        self.books = Books(Tallies())
        self.faults = _Faults()
        self._connection = connection
        self._progress = progress or (lambda done, total: None)
        self._known_head = known_head
        self._tree = Tree()
        self._seq, self._chain = 0, GENESIS
        self._events = self._transfers = 0
        self._fees_wei = self._commission_wei = self._credited_wei = 0

    def run(self) -> Iterator[tuple[int, Transfer]]:
        """Follow the chain and fold every event; yields what each one moves."""
        total = self._connection.execute("SELECT count(*) FROM event").get
        for row in self._connection.execute(_EVENTS):
            event = self._follow(row)
            if event is not None:
                for transfer in self._fold(row[0], event):
                    self._transfers += 1
                    yield row[0], transfer
            if self._events % PROGRESS_EVENTS == 0:
                self._progress(self._events, total)
        self._progress(self._events, total)
        if self._known_head is not None:
            self._check_known_head(*self._known_head)

    def _follow(self, row: Row) -> Event | None:
        """Check one row against the chain; the event, if it can be read."""
        seq, event_id, kind, version, time_ms, job, worker, data, leaf, chain = row
        self._check_gap(seq)
        expected = leaf_hash(event_id, time_ms, version, data.encode())
        if leaf != expected:
            self.faults.add(f"Event {seq} ({event_id}) was changed after it was written.")
        elif chain != chain_hash(self._chain, leaf):
            self.faults.add(f"Event {seq} ({event_id}) does not follow the event before it.")
        self._seq, self._chain = seq, chain
        self._events += 1
        self._tree.add(leaf)
        try:
            payload = decode_payload(data)
        except UNREADABLE as error:
            self.faults.add(f"Event {seq} ({event_id}) cannot be read: {error}.")
            return None
        columns = (payload.type, getattr(payload, "job", ""), getattr(payload, "worker", ""))
        if (kind, job, worker) != columns:
            self.faults.add(f"Event {seq} ({event_id}) is filed under a wrong type, job or worker.")
        return Event(id=event_id, time_ms=time_ms, data=payload)

    def _check_gap(self, seq: int) -> None:
        missing = seq - self._seq - 1
        if missing == 1:
            self.faults.add(f"Event {seq - 1} is missing.")
        elif missing:
            self.faults.add(f"Events {self._seq + 1} to {seq - 1} are missing.")

    def _fold(self, seq: int, event: Event) -> tuple[Transfer, ...]:
        self._add_up(event)
        try:
            return self.books.apply(seq, event)
        except ValueError as error:
            self.faults.add(f"Event {seq} ({event.id}) cannot be booked: {error}.")
            return ()

    def _add_up(self, event: Event) -> None:
        match event.data:
            case FeeCredited(fee_wei=fee_wei, worker_wei=worker_wei):
                self._fees_wei += int(fee_wei)
                self._credited_wei += int(worker_wei)
            case CommissionTaken(commission_wei=commission_wei):
                self._commission_wei += int(commission_wei)

    def _check_known_head(self, seq: int, chain: str) -> None:
        row = self._connection.execute("SELECT chain FROM event WHERE seq = ?", (seq,)).fetchone()
        if seq and (row is None or row[0].hex() != chain):
            self.faults.add(f"The log was rewritten: event {seq} is not the one known before.")

    def compare_transfer(self, seq: int, expected: Transfer, stored: Row | None) -> None:
        """A transfer that an event causes against the next one stored."""
        if stored != tables.transfer_row(seq, expected):
            found = "missing" if stored is None else f"stored as {stored}"
            self.faults.add(
                f"Transfer {expected.id} of {expected.amount_wei} wei (event {seq}) is {found}."
            )

    def compare_tables(self) -> None:
        """Every derived table against the fold."""
        stored = tables.load_books(self._connection)
        counted = sum(stored.counts.values())
        if counted > self._events:
            self.faults.add(
                f"The log ends at event {self._seq}, but {counted} events were recorded: "
                "the newest are missing."
            )
        expected = tables.rows_of(self.books)
        for table, rows in tables.stored_rows(self._connection).items():
            self.faults.add(_differences(table, expected[table], rows))
        self.faults.add(balance_faults(stored.balances.amounts.items()))

    def report(self) -> ReplayReport:
        return ReplayReport(
            faults=self.faults.all(),
            events=self._events,
            transfers=self._transfers,
            seq=self._seq,
            chain=self._chain.hex(),
            root=self._tree.root().hex(),
            checksum=checksum(self.books),
            fees_wei=self._fees_wei,
            commission_wei=self._commission_wei,
            credited_wei=self._credited_wei,
        )


def checksum(books: Books) -> str:
    """SHA-256 over every derived row, in one order."""
    digest = hashlib.sha256()
    for table, rows in tables.rows_of(books).items():
        for row in rows:
            digest.update(f"{table} {row}\n".encode())
    return digest.hexdigest()


def _differences(table: str, expected: list[Row], stored: list[Row]) -> Iterator[str]:
    """Where a table differs from what the log gives, one sentence per key."""
    width = tables.COLUMNS[table][0]
    by_log = {row[:width]: row[width:] for row in expected}
    by_file = {row[:width]: row[width:] for row in stored}
    for key in sorted(by_log.keys() | by_file.keys()):
        if by_log.get(key) != by_file.get(key):
            name = " ".join(str(part or "(pool)") for part in key)
            yield (
                f"In table {table}, {name} is {_shown(by_file.get(key))}, "
                f"but the log gives {_shown(by_log.get(key))}."
            )


def _shown(row: Row | None) -> str:
    return "missing" if row is None else ", ".join(map(str, row))
