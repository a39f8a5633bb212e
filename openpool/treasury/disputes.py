"""Opens and ends disputes, and keeps the evidence as it was when one was opened.

The pack holds what concerns the owner: events that name its workers or its payout in full, others
only by number and hash, so that it can be handed out and the rest can be shown to an arbiter
later. The rules are in `core.money.disputes`.
"""

import asyncio
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import msgspec

from openpool.core.errors import NotAllowed
from openpool.core.events import AnyPayload, Event, JobFailed
from openpool.core.money import disputes as rules
from openpool.core.money import events as money
from openpool.core.money.corrections import Mending
from openpool.core.money.disputes import Dispute, Pack, PackEvent, Subject
from openpool.core.money.documents import opened
from openpool.core.money.receipts import plain_line
from openpool.core.money.statement_check import check_receipts, read
from openpool.core.money.statements import BYTES_MAX
from openpool.store.interface import Appender, EventFilter, StoredEvent, WorkerRow
from openpool.treasury.archive import read_whole, write_whole
from openpool.treasury.corrections import Corrections
from openpool.treasury.statements import Statements
from openpool.treasury.terms import PublishedTerms

ORDER_TYPES = (
    "order-planned",
    "order-signed",
    "order-sent",
    "order-mined",
    "order-confirmed",
    "order-voided",
)
DISPUTE_TYPES = ("dispute-opened", "dispute-ended")
PAGE = 5_000


class Store(Appender, Protocol):
    """The part of the store that is needed here (see `store.interface`)."""

    def events(self, which: EventFilter) -> list[StoredEvent]: ...
    def workers(self) -> list[WorkerRow]: ...
    def head(self) -> tuple[int, str]: ...


class Disputes:
    """All disputes of the pool."""

    def __init__(
        self,
        *,
        store: Store,
        statements: Statements,
        terms: PublishedTerms,
        corrections: Corrections,
        clock_ms: Callable[[], int],
        folder: Path,
        pool_name: str,
    ) -> None:
        """`folder` holds the packs."""
        self._store, self._statements, self._terms = store, statements, terms
        self._corrections, self._clock_ms = corrections, clock_ms
        self._folder, self._pool_name = folder, pool_name
        self._changing = asyncio.Lock()

    # --- looking -------------------------------------------------------------------------------

    async def all(self, address: str = "") -> list[Dispute]:
        """Of one address, or of everybody; the oldest first."""
        found = await asyncio.to_thread(self._all)
        return [each for each in found.values() if address in ("", each.address)]

    async def get(self, dispute: str) -> Dispute | None:
        return (await asyncio.to_thread(self._all)).get(dispute)

    async def pack(self, dispute: str) -> bytes | None:
        """The evidence as it was, exactly the bytes whose SHA-256 is in the log."""
        if await self.get(dispute) is None:
            return None
        return await asyncio.to_thread(read_whole, self._path(dispute))

    def _all(self) -> dict[str, Dispute]:
        return rules.disputes_of([stored.event for stored in self._pages(DISPUTE_TYPES)])

    def _path(self, dispute: str) -> Path:
        return self._folder / f"{dispute}.json"

    # --- opening -------------------------------------------------------------------------------

    async def open(self, address: str, subject: str, claim: str) -> Dispute:
        """Open a dispute for the owner of `address`; the same one again is the first one.

        Raises BadMessage for a subject or claim that cannot be understood, NotAllowed where there
        is nothing of this owner's, or the time is over.
        """
        about, claim = rules.parse_subject(subject), rules.check_claim(claim)
        name = "d" + sha256(f"{address}\n{subject}\n{claim}".encode()).hexdigest()[:15]
        async with self._changing:
            known = await asyncio.to_thread(self._all)
            if name in known:
                return known[name]
            rules.check_room(known.values(), address)
            now_ms = self._clock_ms()
            content = await asyncio.to_thread(self._gather, name, address, about, claim, now_ms)
            data = money.DisputeOpened(
                dispute=name,
                address=address,
                subject=subject,
                claim=claim,
                evidence=sha256(content).hexdigest(),
            )
            event = Event(id=f"dispute/{name}/opened", time_ms=now_ms, data=data)
            await self._store.append([event]).durable()
        return rules.disputes_of([event])[name]

    def _gather(self, name: str, address: str, about: Subject, claim: str, now_ms: int) -> bytes:
        """The pack, on disk."""
        own = {row.worker for row in self._store.workers() if row.address == address}
        events, lines, round = self._about(about, address, own)
        statement = self._statements.file(round) if round is not None else None
        made = self._statements.row(round) if round is not None else None
        about_ms = made.made_ms if made else events[-1].event.time_ms
        dispute_ms = self._terms.in_force().terms.promise.dispute_ms
        rules.check_window(about_ms, dispute_ms, now_ms)
        seq, chain = self._store.head()
        content = rules.encode_pack(
            Pack(
                pool=self._pool_name,
                dispute=name,
                address=address,
                subject=f"{about.kind}:{about.name}",
                claim=claim,
                seq=seq,
                chain=chain,
                events=tuple(_shown(stored, address, own) for stored in events),
                statement=msgspec.Raw(statement or b"null"),
                receipts=tuple(msgspec.Raw(line) for line in lines),
                findings=_findings(statement, lines),
            )
        )
        write_whole(self._path(name), content)
        return content

    def _about(
        self, about: Subject, address: str, own: set[str]
    ) -> tuple[list[StoredEvent], list[bytes], int | None]:
        """Its events, its receipts, and the round of the statement that has it. NotAllowed if it
        does not concern this owner."""
        match about.kind:
            case "job":
                events = self._store.events(
                    EventFilter(job=about.name, limit=rules.PACK_EVENTS_MAX)
                )
                concerned = any(_worker(stored.event.data) in own for stored in events)
                lines, round = self._job_receipt(about.name, address)
            case "payout":
                events = [
                    stored
                    for stored in self._pages(ORDER_TYPES)
                    if getattr(stored.event.data, "order", "") == about.name
                ]
                concerned = any(_pays(stored.event.data, address) for stored in events)
                lines = []
                round = self._round_of(events[-1].seq) if events else None
            case "statement":
                round = int(about.name)
                events = [
                    stored
                    for stored in self._pages(("statement-made",))
                    if getattr(stored.event.data, "round", -1) == round
                ]
                concerned = bool(events) and bool(own)
                lines = list(self._statements.receipts_of(round, address) or ())
        if not concerned:
            raise NotAllowed(f"There is no {about.kind} `{about.name[:80]}` that is yours.")
        return events, lines, round

    def _job_receipt(self, job: str, address: str) -> tuple[list[bytes], int | None]:
        line = self._statements.receipt_of(job, address)
        if line is None:
            early = self._statements.unstated(job, address)
            return ([plain_line(early, 0)] if early else []), None
        fees = self._store.events(EventFilter(types=("fee-credited",), job=job, limit=1))
        return [line], self._round_of(fees[0].seq)

    def _round_of(self, seq: int) -> int | None:
        return next((row.round for row in self._statements.rows if seq <= row.seq), None)

    def _pages(self, types: Sequence[str]) -> list[StoredEvent]:
        found: list[StoredEvent] = []
        while True:
            after = found[-1].seq if found else 0
            which = EventFilter(after_seq=after, types=tuple(types), limit=PAGE)
            page = self._store.events(which)
            found += page
            if len(page) < PAGE:
                return found

    # --- ending --------------------------------------------------------------------------------

    async def end(
        self, dispute: str, *, upheld: bool, reason: str, correction: Mending | None = None
    ) -> Dispute:
        """Decide a dispute, with what mends it. The operator's. Raises NotAllowed."""
        async with self._changing:
            known = (await asyncio.to_thread(self._all)).get(dispute)
            if known is None:
                raise NotAllowed(f"There is no dispute `{dispute[:40]}`.")
            if not known.open:
                return known
            if not reason.strip() or len(reason) > rules.CLAIM_CHARS_MAX:
                raise NotAllowed(f"Give a reason of up to {rules.CLAIM_CHARS_MAX} characters.")
            if correction is not None and not upheld:
                raise NotAllowed("A correction follows only from a dispute that is upheld.")
            made = await self._mended(known, reason, correction) if correction else ""
            data = money.DisputeEnded(
                dispute=dispute, upheld=upheld, reason=reason.strip(), correction=made
            )
            name = f"dispute/{dispute}/ended"
            event = Event(id=name, time_ms=self._clock_ms(), data=data)
            await self._store.append([event]).durable()
        return (await asyncio.to_thread(self._all))[dispute]

    async def _mended(self, dispute: Dispute, reason: str, correction: Mending) -> str:
        """Named after the dispute: a pool that dies before the end is written makes it once."""
        made, _ = await self._corrections.make(
            corrects=correction.corrects,
            debit=correction.debit,
            credit=correction.credit,
            amount_wei=correction.amount_wei,
            reason=reason.strip()[:500],
            correction=f"dispute-{dispute.dispute}",
            dispute=dispute.dispute,
        )
        return made


def _worker(data: AnyPayload) -> str:
    return str(getattr(data, "worker", ""))


def _pays(data: AnyPayload, address: str) -> bool:
    lines: Sequence[money.OrderLine] = getattr(data, "lines", ())
    return any(address in (line.address, line.account.partition(":")[2]) for line in lines)


def _shown(stored: StoredEvent, address: str, own: set[str]) -> PackEvent:
    """An event in full if it is the owner's business, else only what identifies it."""
    data = stored.event.data
    full = (
        _worker(data) in own
        or isinstance(data, JobFailed | money.StatementMade)
        or data.type in ORDER_TYPES
    )
    return PackEvent(
        seq=stored.seq,
        id=stored.event.id,
        time_ms=stored.event.time_ms,
        chain=stored.chain,
        data=msgspec.to_builtins(data) if full else {"type": data.type},
    )


def _findings(statement: bytes | None, lines: Sequence[bytes]) -> tuple[str, ...]:
    """What the pool's own check says of the receipts."""
    if statement is None or not lines:
        return ()
    document = read(opened(statement, bytes_max=BYTES_MAX))
    return tuple(f"{finding.path}: {finding.text}" for finding in check_receipts(document, lines))
