"""The store's contract in dictionaries: for tests, simulations and plugin authors.

Behaves as `store.sqlite` does, except that nothing outlives the process. Lives in one event loop.
Must not be used by a pool that owes anybody money. Read next: `store.interface`.
"""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec

from openpool.core.errors import Unavailable
from openpool.core.events import CallCheckpointed, Event, JobReceived, PoolStarted
from openpool.core.hashchain import GENESIS, chain_hash
from openpool.core.money.ledger import Transfer
from openpool.store.books import POOL, Books, attempts_of, empty_buckets
from openpool.store.feed import Subscription, Subscriptions
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
from openpool.store.writer import entry


class MemoryReceipt:
    """What memory holds is as durable as it will ever be."""

    def __init__(self, failure: str | None) -> None:
        self._failure = failure

    async def durable(self) -> None:
        self.wait()

    def wait(self) -> None:
        if self._failure is not None:
            raise Unavailable(self._failure)


class MemoryLog:
    """The log and what is derived from it: Appender, Feed, and the log's part of Reader."""

    def __init__(self) -> None:
        self._events: list[StoredEvent] = []
        self._ids: set[str] = set()
        self._chain = GENESIS
        self._transfers: list[Transfer] = []
        self._books = Books()
        self._listeners = Subscriptions()
        self._failed = asyncio.Event()
        self.failure: str | None = None
        self.waiting = 0

    def append(self, events: Sequence[Event]) -> MemoryReceipt:
        if self.failure is None:
            entries = [entry(event) for event in events]
            new = [(event, leaf) for event, _, leaf in entries if self._is_new(event)]
            self._listeners.publish([self._add(event, leaf) for event, leaf in new])
        return MemoryReceipt(self.failure)

    def fail(self, reason: str) -> None:
        """Behave as if the disk had failed, for tests."""
        self.failure = reason
        self._failed.set()

    async def wait_failed(self) -> str:
        await self._failed.wait()
        return self.failure or ""

    def subscribe(self) -> Subscription:
        return self._listeners.subscribe()

    def close(self) -> None:
        self.failure = self.failure or "The store is closed; start the pool again."
        self._listeners.close()

    def events(self, which: EventFilter) -> list[StoredEvent]:
        end = which.before_seq - 1 if which.before_seq else len(self._events)
        found: Sequence[StoredEvent] = self._events[which.after_seq : max(end, 0)]
        ordered = reversed(found) if which.newest_first else iter(found)
        fitting = (stored for stored in ordered if _fits(stored.event, which))
        return list(islice(fitting, max(which.limit, 0)))

    def all_events(self) -> Iterator[StoredEvent]:
        return iter(tuple(self._events))

    def head(self) -> tuple[int, str]:
        return len(self._events), self._chain.hex()

    def balances(self, prefix: str = "") -> list[Balance]:
        return [
            Balance(account=account, amount_wei=amount)
            for account, amount in sorted(self._books.balances.amounts.items())
            if account.startswith(prefix)
        ]

    def transfers(self, *, account: str = "", before: str = "", limit: int = 100) -> list[Transfer]:
        ids = [transfer.id for transfer in self._transfers]
        end = len(ids) if not before else ids.index(before) if before in ids else 0
        newest = reversed(self._transfers[:end])
        fitting = (t for t in newest if not account or account in (t.debit, t.credit))
        return list(islice(fitting, max(limit, 0)))

    def carries(self) -> dict[tuple[str, int], int]:
        return dict(self._books.carries)

    def series(
        self, *, start_ms: int, end_ms: int, step_ms: int, worker: str = POOL
    ) -> list[RollupPoint]:
        first, buckets = empty_buckets(start_ms, end_ms, step_ms)
        for (name, minute_ms), tally in self._books.tallies.items():
            if name == worker and first <= minute_ms < end_ms:
                buckets[(minute_ms - first) // step_ms].add(tally)
        return [tally.point(first + n * step_ms) for n, tally in enumerate(buckets)]

    def workers(self) -> list[WorkerRow]:
        return [tally.row() for _, tally in sorted(self._books.workers.items())]

    def worker(self, worker: str) -> WorkerRow | None:
        tally = self._books.workers.get(worker)
        return None if tally is None else tally.row()

    def apps(self) -> list[AppRow]:
        return [tally.row() for _, tally in sorted(self._books.apps.items())]

    def customer_calls(self) -> list[CustomerCallsRow]:
        return [tally.row() for _, tally in sorted(self._books.customers.items())]

    def open_calls(self) -> list[list[Event]]:
        return [self._open_call(job) for job in self._books.open_calls]

    def _open_call(self, job: str) -> list[Event]:
        story = self.events(EventFilter(job=job, limit=len(self._events)))
        checkpoint = self._books.checkpoints.get(job)
        if checkpoint is not None:
            story.append(self._events[checkpoint - 1])
        return [stored.event for stored in story]

    def checkpoints(self, call: str) -> tuple[int, StoredEvent | None]:
        found = [
            stored
            for stored in self._events
            if isinstance(stored.event.data, CallCheckpointed) and stored.event.data.call == call
        ]
        return len(found), found[-1] if found else None

    def counts(self) -> dict[str, int]:
        return dict(sorted(self._books.counts.items()))

    def turnover(self) -> dict[str, int]:
        return dict(self._books.turnover)

    def last_epoch(self) -> int:
        newest = self.events(EventFilter(types=("pool-started",), newest_first=True, limit=1))
        data = newest[0].event.data if newest else None
        return data.epoch if isinstance(data, PoolStarted) else 0

    def open_jobs(self, now_ms: int) -> list[tuple[Event, list[tuple[int, str]]]]:
        ahead = (job.seq for job in self._books.open_jobs.values() if job.deadline_ms > now_ms)
        jobs = []
        for event in (self._events[seq - 1].event for seq in sorted(ahead)):
            assert isinstance(event.data, JobReceived)
            story = self.events(EventFilter(job=event.data.job, limit=len(self._events)))
            jobs.append((event, attempts_of(stored.event for stored in story)))
        return jobs

    def _is_new(self, event: Event) -> bool:
        new = event.id not in self._ids
        self._ids.add(event.id)
        return new

    def _add(self, event: Event, leaf: bytes) -> StoredEvent:
        seq = len(self._events) + 1
        self._chain = chain_hash(self._chain, leaf)
        stored = StoredEvent(seq=seq, event=event, chain=self._chain.hex())
        self._events.append(stored)
        self._transfers += self._books.apply(seq, event)
        return stored


class MemoryStore(MemoryLog):
    """Adds the Registry: implements every protocol of `store.interface`."""

    def __init__(self) -> None:
        super().__init__()
        self._tokens: dict[str, TokenRow] = {}
        self._customers: dict[str, CustomerRow] = {}
        self._invites: dict[bytes, InviteRow] = {}
        self._settings: dict[str, bytes] = {}

    def _check(self) -> None:
        if self.failure is not None:
            raise Unavailable(self.failure)

    async def put_token(self, row: TokenRow) -> None:
        self._check()
        if self.token_by_hash(row.secret_hash) is None:
            self._tokens.setdefault(row.token, row)

    async def touch_token(self, token: str, now_ms: int) -> None:
        self._check()
        if row := self._tokens.get(token):
            used_ms = max(row.last_used_ms, now_ms)
            self._tokens[token] = msgspec.structs.replace(row, last_used_ms=used_ms)

    async def expire_token(self, token: str, expires_ms: int) -> None:
        self._check()
        if row := self._tokens.get(token):
            self._tokens[token] = msgspec.structs.replace(row, expires_ms=expires_ms)

    async def revoke_token(self, token: str, now_ms: int) -> bool:
        self._check()
        row = self._tokens.get(token)
        if row is None or row.revoked_ms:
            return False
        self._tokens[token] = msgspec.structs.replace(row, revoked_ms=now_ms)
        return True

    def tokens(self, worker: str = "") -> list[TokenRow]:
        mine = [row for row in self._tokens.values() if worker in ("", row.worker)]
        return sorted(mine, key=lambda row: (row.created_ms, row.token))

    def token_by_hash(self, secret_hash: bytes) -> TokenRow | None:
        return next((r for r in self._tokens.values() if r.secret_hash == secret_hash), None)

    async def put_customer(self, row: CustomerRow) -> None:
        self._check()
        self._customers[row.customer] = row

    def customers(self) -> list[CustomerRow]:
        return sorted(self._customers.values(), key=lambda row: (row.created_ms, row.customer))

    async def put_invite(self, row: InviteRow) -> None:
        self._check()
        self._invites.setdefault(row.secret_hash, row)

    async def take_invite(self, secret_hash: bytes, now_ms: int) -> InviteRow | None:
        self._check()
        row = self._invites.pop(secret_hash, None)
        return row if row and (row.expires_ms == 0 or row.expires_ms > now_ms) else None

    def invites(self) -> list[InviteRow]:
        return sorted(self._invites.values(), key=lambda row: (row.created_ms, row.secret_hash))

    async def set_setting(self, key: str, value: Any) -> None:
        self._check()
        self._settings[key] = msgspec.json.encode(value)

    def setting(self, key: str) -> Any:
        """The value, or None."""
        return msgspec.json.decode(self._settings.get(key, b"null"))


def _fits(event: Event, which: EventFilter) -> bool:
    return (
        (not which.types or event.type in which.types)
        and event.id.startswith(which.id_prefix)
        and (not which.worker or getattr(event.data, "worker", "") == which.worker)
        and (not which.job or getattr(event.data, "job", "") == which.job)
        and event.time_ms >= which.since_ms
    )
