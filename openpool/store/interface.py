"""What the rest of the pool may ask of a store. `store.sqlite` is the real one.

The same contract tests (`tests/contract/test_store.py`) run against every store.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Protocol

from msgspec import Struct

from openpool.core.events import Event
from openpool.core.money.ledger import Transfer


class StoredEvent(Struct, frozen=True, kw_only=True):
    """An event as the log holds it."""

    seq: int
    event: Event
    chain: str
    """Hex hash over the previous event's chain hash and this event's bytes."""


class EventFilter(Struct, frozen=True, kw_only=True):
    """Which events to read; empty fields do not restrict."""

    after_seq: int = 0
    before_seq: int = 0
    """0 is no bound; with `newest_first` this pages into the past."""
    types: tuple[str, ...] = ()
    id_prefix: str = ""
    """Like `order/payout-17/`, for all that happened to it."""
    worker: str = ""
    job: str = ""
    since_ms: int = 0
    newest_first: bool = False
    limit: int = 100


class RollupPoint(Struct, frozen=True, kw_only=True):
    """What happened in one time bucket, for one worker or for all."""

    start_ms: int
    segments: int
    """Delivered in time."""
    failed: int
    """For one worker: failed attempts that count against it. For all: failed jobs."""
    refused: int
    hedged: int
    """For one worker: segments it was given as a second try."""
    media_ms: int
    """Source time of the delivered segments."""
    busy_ms: int
    """Time from assignment to result of the delivered segments; busy/media is the rtf."""
    latency_ms: int
    """Sum of the orchestrator's round trips (`JobDelivered.took_ms`)."""
    pixels: int
    fee_wei: int
    """Of segments and of calls, as is the next."""
    worker_wei: int
    calls: int = 0
    """Answered, and found right."""
    calls_failed: int = 0
    """For one worker: failures of calls that count against it. For all: failed calls."""
    call_ms: int = 0
    """Time from receipt to the end of the answer, of the calls."""
    call_fee_wei: int = 0
    """The part of the fees that calls earned, as is the next."""
    call_worker_wei: int = 0


class Balance(Struct, frozen=True, kw_only=True):
    account: str
    amount_wei: int


LedgerEntry = Transfer
"""One immutable transfer, as the ledger holds it."""


class WorkerRow(Struct, frozen=True, kw_only=True):
    """A worker over all time, derived from the log."""

    worker: str
    address: str
    name: str
    group: str
    state: str
    """`pending`, `approved` or `banned`."""
    enrolled_ms: int
    last_connected_ms: int
    last_disconnected_ms: int
    segments: int
    failed: int
    refused: int
    credited_wei: int
    """For segments and for calls."""
    calls: int = 0
    calls_failed: int = 0
    call_worker_wei: int = 0
    """The part of it that calls earned."""


class AppRow(Struct, frozen=True, kw_only=True):
    """A model over all time, derived from the log; there once it has answered a call."""

    pipeline: str
    model: str
    calls: int
    """Answered, and found right."""
    failed: int
    took_ms: int
    """Sum over the calls, from receipt to the end of the answer."""
    first_byte_ms: int
    """Sum over the calls, from receipt to the first byte of the answer."""
    fee_wei: int


class CustomerCallsRow(Struct, frozen=True, kw_only=True):
    """What a customer's calls came to over all time, derived from the log."""

    customer: str
    calls: int
    """Answered and found right, and segments of video."""
    failed: int
    """Without an answer, though the customer waited for it."""


class TokenRow(Struct, frozen=True, kw_only=True):
    token: str
    worker: str
    """Whose it is: a worker's id, or a customer's."""
    secret_hash: bytes
    created_ms: int
    last_used_ms: int
    expires_ms: int
    """0 is never."""
    revoked_ms: int
    label: str


class CustomerRow(Struct, frozen=True, kw_only=True):
    """Somebody who uses the pool's own API. The keys are tokens whose `worker` is this id."""

    customer: str
    name: str
    created_ms: int
    requests_per_minute: int
    """0 is what the settings say."""
    spend_limit_wei: int | None
    """Most that may be owed at one time; None is no limit."""


class InviteRow(Struct, frozen=True, kw_only=True):
    """An invitation, good once. Only the hash of its code is kept."""

    secret_hash: bytes
    group: str
    label: str
    created_ms: int
    expires_ms: int
    """0 is never."""


class Receipt(Protocol):
    """The promise that appended events are on disk."""

    async def durable(self) -> None:
        """Returns once they are; raises `Unavailable` if the disk failed (the pool then stops)."""


class Appender(Protocol):
    """The one writer. Never blocks the event loop."""

    def append(self, events: Sequence[Event]) -> Receipt:
        """Queue events for the next group commit. Known ids are dropped silently."""


class Reader(Protocol):
    """Reads, run by callers in a thread (`asyncio.to_thread`); each uses its own connection."""

    def events(self, which: EventFilter) -> list[StoredEvent]: ...
    def all_events(self) -> Iterator[StoredEvent]: ...
    def head(self) -> tuple[int, str]:
        """Newest sequence number and chain hash; (0, "") for an empty log."""

    def balances(self, prefix: str = "") -> list[Balance]: ...
    def transfers(
        self, *, account: str = "", before: str = "", limit: int = 100
    ) -> list[LedgerEntry]: ...
    def carries(self) -> dict[tuple[str, int], int]:
        """Fractions of wei left over: (worker, denominator) -> numerator."""

    def series(
        self, *, start_ms: int, end_ms: int, step_ms: int, worker: str = ""
    ) -> list[RollupPoint]:
        """One point per step from the step that holds `start_ms` to before `end_ms`, empty ones
        too. `worker=""` is the whole pool, `pipeline:llm` the calls of a pipeline, of which only
        what `call…` says is told. `step_ms` is a multiple of a minute."""

    def workers(self) -> list[WorkerRow]: ...
    def worker(self, worker: str) -> WorkerRow | None: ...
    def apps(self) -> list[AppRow]:
        """Every model that ever answered a call, by name."""

    def customer_calls(self) -> list[CustomerCallsRow]:
        """Every customer who ever made a call, by id."""

    def open_calls(self) -> list[list[Event]]:
        """The story so far of every call that has no end in the log, oldest first. Of checkpoints
        it has the newest only, at its end."""

    def checkpoints(self, call: str) -> tuple[int, StoredEvent | None]:
        """How many checkpoints a call has, open or over, and the newest of them."""

    def counts(self) -> dict[str, int]:
        """Events of each type over all time."""

    def turnover(self) -> dict[str, int]:
        """What all transfers of each kind moved over all time, in wei; kinds of LPT behind
        `lpt/`."""

    def last_epoch(self) -> int: ...
    def open_jobs(self, now_ms: int) -> list[tuple[Event, list[tuple[int, str]]]]:
        """Jobs received, not settled, whose deadline is ahead; with (attempt, worker) of each."""

    def tokens(self, worker: str = "") -> list[TokenRow]: ...
    def setting(self, key: str) -> Any: ...


class Feed(Protocol):
    """Live events for listeners in the pool's own process."""

    def subscribe(self) -> AsyncIterator[Sequence[StoredEvent]]:
        """Batches of committed events in log order, from this call on; ends when the store closes.

        A listener that falls behind loses the oldest waiting events: then `seq` jumps, and the
        missing ones are in the log.
        """


class Registry(Protocol):
    """Tokens, customers, invitations and settings: plain data beside the log.

    Reads are synchronous like `Reader`'s. Writes return when they are on disk, and raise
    `Unavailable` if the disk failed. Times are handed in; secrets come as hashes only.
    """

    async def put_token(self, row: TokenRow) -> None: ...
    async def touch_token(self, token: str, now_ms: int) -> None: ...
    async def expire_token(self, token: str, expires_ms: int) -> None:
        """Let a token end by itself at that time."""

    async def revoke_token(self, token: str, now_ms: int) -> bool:
        """Whether there was such a token that was not revoked yet."""

    def token_by_hash(self, secret_hash: bytes) -> TokenRow | None:
        """Expired and revoked ones too: the caller decides."""

    async def put_customer(self, row: CustomerRow) -> None:
        """Add a customer, or change the one with this id."""

    def customers(self) -> list[CustomerRow]:
        """In the order in which they came."""

    async def put_invite(self, row: InviteRow) -> None: ...
    async def take_invite(self, secret_hash: bytes, now_ms: int) -> InviteRow | None:
        """The invitation, if it was good; it never is again."""

    def invites(self) -> list[InviteRow]: ...
    async def set_setting(self, key: str, value: Any) -> None:
        """`value` is anything JSON can hold."""
