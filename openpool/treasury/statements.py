"""Makes the statement of a round once the round is settled, signs it and keeps it for everybody.

The statement is a function of the log and of the one before it, and signatures are deterministic.
So a pool that died in between makes the same bytes again, and a lost file comes back. The order:
files first, then `statement-made`; only what that names is shown. Read `core.money.statements`
first.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import structlog
from msgspec import Struct

from openpool.core.errors import SetupError
from openpool.core.events import Event, FeeCredited
from openpool.core.money.documents import digest_of, opened, signed_bytes
from openpool.core.money.events import RoundSettled, RoundStarted, StatementMade
from openpool.core.money.receipts import (
    RECEIPT_KIND,
    carry_number,
    decode_proven,
    encode_receipt,
    receipt_of,
)
from openpool.core.money.statement_check import read
from openpool.core.money.statements import (
    BYTES_MAX,
    KIND,
    TYPES,
    Closing,
    Opening,
    Statement,
    encode_statement,
    make,
    next_round,
    opening_after,
)
from openpool.store.interface import Appender, EventFilter, StoredEvent
from openpool.treasury.archive import read_whole, write_whole
from openpool.treasury.receipt_files import ReceiptFile, ReceiptFiles
from openpool.treasury.signing import Signs, signed
from openpool.treasury.terms import PublishedTerms

log = structlog.get_logger()

PAGE = 5_000
FEES_AT_ONCE = 50
DOCUMENT = b'{"document":'
"""How the file of a statement begins."""


class Store(Appender, Protocol):
    """The part of the store that is needed here (see `store.interface`)."""

    def events(self, which: EventFilter) -> list[StoredEvent]: ...


class StatementRow(Struct, frozen=True, kw_only=True):
    """A statement that was made."""

    round: int
    made_ms: int
    receipts: int
    root: str
    digest: str
    signer: str
    seq: int


class _Fee(NamedTuple):
    """A fee, and where it stands in the log."""

    seq: int
    time_ms: int
    data: FeeCredited


class Statements:
    """All statements of the pool."""

    def __init__(
        self,
        *,
        store: Store,
        signer: Signs,
        clock_ms: Callable[[], int],
        folder: Path,
        pool_name: str,
        chain_id: int,
        terms: PublishedTerms,
        is_settled: Callable[[int], bool] = lambda seq: True,
    ) -> None:
        """`folder` holds the files. `is_settled` says whether every round that ended up to that
        event is settled (`treasury.settle`): a statement waits for it."""
        self._store, self._signer, self._terms = store, signer, terms
        self._clock_ms, self._is_settled = clock_ms, is_settled
        self._folder = folder
        self._receipts = ReceiptFiles(folder)
        self._turn = asyncio.Lock()
        self._pool_name, self._chain_id = pool_name, chain_id
        self._rows: list[StatementRow] = []
        self._opening = Opening()
        self._starts: list[tuple[int, int]] = []
        self._settled: dict[int, int] = {}
        """Round -> the last event that settled it."""
        self._seen = 0

    # --- running -------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up the statements made so far; a file that is missing or damaged is made again.

        Raises SetupError if the log no longer gives what was signed."""
        await asyncio.to_thread(self._load)

    async def make_due(self) -> int:
        """Make every statement that is due; how many that were."""
        made = 0
        async with self._turn:
            while (due := await asyncio.to_thread(self._due)) is not None:
                data, opening = await asyncio.to_thread(self._make, *due)
                await self._record(data, opening)
                made += 1
        return made

    def _due(self) -> tuple[int, int] | None:
        """The round that can be stated now, and the last event that its statement covers."""
        self._follow_rounds()
        due = next_round(self._starts, self._rows[-1].round if self._rows else None)
        if due is None or not self._is_settled(due[1]):
            return None
        self._follow_rounds()
        number, end = due
        # a round that was settled late may have been settled after the next one has ended
        return number, max(end, self._settled.get(number, 0), self._opening.seq + 1)

    def _follow_rounds(self) -> None:
        for stored in self._pages(("round-started", "round-settled"), self._seen, 0):
            self._seen = stored.seq
            match stored.event.data:
                case RoundStarted(round=number):
                    if not self._starts:
                        self._opening = Opening(round=number)
                    self._starts.append((stored.seq, number))
                case RoundSettled(round=number):
                    self._settled[number] = stored.seq

    def _load(self) -> None:
        self._follow_rounds()
        before: StatementMade | None = None
        for stored in self._pages(("statement-made",), 0, 0):
            made = stored.event.data
            if not isinstance(made, StatementMade):
                continue
            if not self._is_whole(made):
                self._begin_after(before)
                self._make_again(made)
            self._rows.append(_row(made, stored.event.time_ms))
            before = made
        self._begin_after(before)

    def _is_whole(self, made: StatementMade) -> bool:
        """Whether the files of a statement are there as they were made. Quick: there may be
        thousands."""
        content = read_whole(self.path(made.round))
        if content is None or not self._receipts.path(made.round).exists():
            return False
        around = len(signed_bytes(b"", made.signer, made.signature))
        document = content[len(DOCUMENT) :][: max(len(content) - around, 0)]
        whole = signed_bytes(document, made.signer, made.signature)
        return whole == content and digest_of(document) == made.digest

    def _begin_after(self, made: StatementMade | None) -> None:
        """The next statement goes on where this one ended."""
        content = read_whole(self.path(made.round)) if made else None
        if made is not None and content is not None:
            statement = read(opened(content, bytes_max=BYTES_MAX))
            self._opening = opening_after(statement, made.digest)

    def _make_again(self, made: StatementMade) -> None:
        """What was signed, with the signature of then: the key may be another one now."""
        with self._receipts.new(made.round) as keep:
            document = encode_statement(self._composed(made.round, made.seq, keep))
            if digest_of(document) != made.digest:
                raise SetupError(
                    f"The statement of round {made.round} cannot be made again as it was signed; "
                    f"put back {self.path(made.round)}, or run `openpool replay --check`."
                )
        whole = signed_bytes(document, made.signer, made.signature)
        write_whole(self.path(made.round), whole)

    # --- making one ----------------------------------------------------------------------------

    def _make(self, number: int, seq: int) -> tuple[StatementMade, Opening]:
        """What is to be written down of a statement, and where the next one begins. Its files are
        in place when this returns."""
        with self._receipts.new(number) as keep:
            statement = self._composed(number, seq, keep)
        content = signed(self._signer, KIND, encode_statement(statement))
        write_whole(self.path(number), content)
        parts = opened(content, bytes_max=BYTES_MAX)
        data = StatementMade(
            orchestrator="",
            round=statement.round,
            receipts=statement.receipts,
            root=statement.root,
            digest=parts.digest,
            signer=parts.signer,
            signature=parts.signature,
            seq=statement.seq,
        )
        return data, opening_after(statement, data.digest)

    def _composed(self, number: int, seq: int, keep: Callable[[bytes], object]) -> Statement:
        last = self._event_at(seq)
        terms = self._terms.at(last.event.time_ms)
        closing = Closing(
            pool=terms.terms.pool if terms else self._pool_name,
            chain_id=terms.terms.chain_id if terms else self._chain_id,
            round=number,
            seq=seq,
            chain=last.chain,
            time_ms=last.event.time_ms,
            terms=terms.digest if terms else "",
            window_rounds=terms.terms.promise.window_rounds if terms else 0,
        )
        entries = ((e.seq, e.event) for e in self._pages(TYPES, self._opening.seq, seq + 1))
        return make(self._opening, closing, entries, keep)

    async def _record(self, data: StatementMade, opening: Opening) -> None:
        made_ms = self._clock_ms()
        event = Event(id=f"statement/{data.round}", time_ms=made_ms, data=data)
        await self._store.append([event]).durable()
        self._opening = opening
        self._rows.append(_row(data, made_ms))
        log.info("statement-made", round=data.round, receipts=data.receipts)

    def _event_at(self, seq: int) -> StoredEvent:
        (found,) = self._store.events(EventFilter(after_seq=seq - 1, before_seq=seq + 1, limit=1))
        return found

    def _pages(self, types: Sequence[str], after: int, before: int) -> Iterator[StoredEvent]:
        while True:
            which = EventFilter(after_seq=after, before_seq=before, types=tuple(types), limit=PAGE)
            page = self._store.events(which)
            yield from page
            if len(page) < PAGE:
                return
            after = page[-1].seq

    # --- what was made -------------------------------------------------------------------------

    @property
    def rows(self) -> Sequence[StatementRow]:
        """All statements, the oldest first."""
        return self._rows

    def row(self, round: int) -> StatementRow | None:
        return next((row for row in self._rows if row.round == round), None)

    def path(self, round: int) -> Path:
        """Where the file of a statement is."""
        return self._folder / f"{round}.json"

    def receipts_path(self, round: int) -> Path:
        """Where all receipts of a statement are."""
        return self._receipts.path(round)

    def file(self, round: int) -> bytes | None:
        """The signed statement; None if there is none. Reads a file, as do all that follow."""
        return read_whole(self.path(round)) if self.row(round) else None

    def all_receipts(self, round: int) -> Iterator[bytes] | None:
        """All receipts of a statement, a line each, as they are in the file."""
        return self._receipts.lines(round) if self.row(round) else None

    def receipts_of(self, round: int, address: str) -> Iterator[bytes] | None:
        """An address's receipts in a statement, one line each with its proof. Raises Unavailable,
        also while it is read."""
        row = self.row(round)
        return self._proven(row, lambda file: file.places_of(address)) if row else None

    def receipt_of(self, job: str, address: str) -> bytes | None:
        """The line of the receipt of one job or call of this address, with its proof; None if it
        earned nothing or is in no statement yet (`unstated` has it then)."""
        fee = self._fee(job, address)
        if fee is None:
            return None
        row = next((row for row in self._rows if fee.seq <= row.seq), None)
        if row is None:
            return None
        return next(self._proven(row, lambda file: file.places_from(fee.seq)), None)

    def signed_receipt(self, job: str, address: str) -> bytes | None:
        """The receipt of one job or call by itself, signed; also one that is in no statement
        yet. None if it earned this address nothing."""
        line = self.receipt_of(job, address)
        receipt = bytes(decode_proven(line).receipt) if line else self.unstated(job, address)
        return signed(self._signer, RECEIPT_KIND, receipt) if receipt else None

    def unstated(self, job: str, address: str) -> bytes | None:
        """The receipt of a job that will be in the next statement; exactly the bytes that will
        be there, so that it can be signed by itself."""
        fee, opening = self._fee(job, address), self._opening
        if fee is None or fee.seq <= opening.seq or not self._starts:
            return None
        receipt = receipt_of(
            fee.data,
            pool=self._pool_name,
            seq=fee.seq,
            round=self._round_at(fee.seq, opening),
            time_ms=fee.time_ms,
            carry_before=self._carry_before(fee, opening),
        )
        return encode_receipt(receipt)

    def _round_at(self, seq: int, opening: Opening) -> int:
        which = EventFilter(
            after_seq=opening.seq,
            before_seq=seq,
            types=("round-started",),
            newest_first=True,
            limit=1,
        )
        for stored in self._store.events(which):
            if isinstance(stored.event.data, RoundStarted):
                return stored.event.data.round
        return opening.round

    def _carry_before(self, fee: _Fee, opening: Opening) -> str:
        """What the worker's fee before this one, of the same denominator, left over."""
        worker, denominator = fee.data.worker, carry_number(fee.data.carry)[1]
        for earlier in self._fees_between(opening.seq, fee.seq, worker):
            if carry_number(earlier.carry)[1] == denominator:
                return earlier.carry
        return f"{opening.carries.get((worker, denominator), 0)}/{denominator}"

    def _fees_between(self, after: int, before: int, worker: str) -> Iterator[FeeCredited]:
        """A worker's fees, the newest first."""
        while True:
            which = EventFilter(
                after_seq=after,
                before_seq=before,
                types=("fee-credited",),
                worker=worker,
                newest_first=True,
                limit=FEES_AT_ONCE,
            )
            page = self._store.events(which)
            yield from (e.event.data for e in page if isinstance(e.event.data, FeeCredited))
            if len(page) < FEES_AT_ONCE:
                return
            before = page[-1].seq

    def _fee(self, job: str, address: str) -> _Fee | None:
        """The fee of a job, if it is this address's."""
        found = self._store.events(EventFilter(types=("fee-credited",), job=job, limit=1))
        data = found[0].event.data if found else None
        if not isinstance(data, FeeCredited) or data.address != address:
            return None
        return _Fee(found[0].seq, found[0].event.time_ms, data)

    def _proven(
        self, row: StatementRow, wanted: Callable[[ReceiptFile], Sequence[int]]
    ) -> Iterator[bytes]:
        with self._receipts.opened(row.round, row.root) as file:
            for place in wanted(file):
                yield file.line(place)


def _row(made: StatementMade, made_ms: int) -> StatementRow:
    return StatementRow(
        round=made.round,
        made_ms=made_ms,
        receipts=made.receipts,
        root=made.root,
        digest=made.digest,
        signer=made.signer,
        seq=made.seq,
    )
