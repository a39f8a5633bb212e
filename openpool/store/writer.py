"""Group commit: one thread that writes, many callers that never wait for the disk.

Whatever is handed in while one transaction is being synced forms the next *group*; there is no
artificial pause. A group is one transaction and its own receipt. When a commit fails, the group
and all that wait behind it fail with one sentence, and the writer takes nothing more: the pool
must stop, because it would act on facts that nobody remembers.

When more than `events_max` events wait, the disk cannot keep up; this too is a failure, and what
waits is still written. Must not know SQL. Read next: `store.sqlite`.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence

from openpool.core.errors import Unavailable
from openpool.core.events import Event, encode_payload
from openpool.core.hashchain import leaf_hash
from openpool.core.money.ledger import carry_of, transfers_of
from openpool.store.interface import StoredEvent

EVENTS_MAX = 200_000
"""How many events may wait for the disk."""
TIME_MS_MAX = 2**53
GROUP_EVENTS_MAX = 4_000
"""How many events one transaction takes, so that acknowledgements keep flowing."""

Entry = tuple[Event, bytes, bytes]
"""An event, the JSON of its payload, and its leaf hash."""


def entry(event: Event) -> Entry:
    """An event ready to be written; ValueError if it cannot be, so that only its maker fails."""
    transfers_of(event)
    carry_of(event)
    if "\0" in event.id or not 0 <= event.time_ms < TIME_MS_MAX:
        raise ValueError(f"an event cannot have the id {event.id!r} and the time {event.time_ms}")
    data = encode_payload(event.data)
    return event, data, leaf_hash(event.id, event.time_ms, event.data.v, data)


class Group:
    """One transaction in the making, and the receipt of all who contribute to it."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self.entries: list[Entry] = []
        self.calls: list[Callable[[], None]] = []
        self.stored: Sequence[StoredEvent] = ()
        """What the commit added to the log; known ids are not in it."""
        self.error: str | None = None
        self._loop = loop
        self._written = threading.Event()
        self._waiter: asyncio.Future[None] | None = None

    async def durable(self) -> None:
        """Returns once everything in the group is on disk; Unavailable if the disk failed."""
        if not self._written.is_set():
            if self._loop is None:
                await asyncio.to_thread(self._written.wait)
            else:
                await self._wait_in(self._loop)
        self._raise()

    def wait(self) -> None:
        """Like `durable`, for callers in a thread."""
        self._written.wait()
        self._raise()

    def written(self, error: str | None) -> None:
        """Called by the writer, in its thread."""
        self.error = error
        self._written.set()

    def wake(self) -> None:
        """Called in the event loop after `written`."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait_in(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._waiter is None:
            self._waiter = loop.create_future()
            if self._written.is_set():
                return
        await asyncio.shield(self._waiter)

    def _raise(self) -> None:
        if self.error is not None:
            raise Unavailable(self.error)


class Writer:
    """Owns the thread. `commit` writes a group in one transaction, or raises."""

    def __init__(
        self,
        commit: Callable[[Group], None],
        *,
        describe: Callable[[BaseException], str],
        settled: Callable[[Group], None],
        events_max: int = EVENTS_MAX,
    ) -> None:
        self._commit = commit
        self._describe = describe
        self._settled = settled
        self._events_max = events_max
        self._groups: deque[Group] = deque()
        self._waiting = 0
        self._ready = threading.Condition(threading.Lock())
        self._closing = False
        self._failure: str | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failed: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="openpool-store", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def failure(self) -> str | None:
        """Why nothing can be written any more; None while all is well."""
        return self._failure

    @property
    def waiting(self) -> int:
        """How many events wait for the disk."""
        return self._waiting

    def bind(self) -> None:
        """Remember the running event loop as the one that is told about commits."""
        if self._loop is None:
            with contextlib.suppress(RuntimeError):
                self._loop = asyncio.get_running_loop()

    def add(self, entries: Sequence[Entry], call: Callable[[], None] | None = None) -> Group:
        """Put events or a call (run in the writer's transaction) into the group that fills now."""
        self.bind()
        with self._ready:
            refusal = self._refusal(len(entries))
            if refusal is not None:
                group = Group(self._loop)
                group.written(refusal)
                return group
            group = self._filling()
            group.entries += entries
            if call is not None:
                group.calls.append(call)
            self._waiting += len(entries)
            return group

    def close(self, timeout_s: float) -> None:
        """Write what waits, then end the thread; Unavailable if that takes too long."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise Unavailable("The disk did not finish writing in time; check it.")

    async def wait_failed(self) -> str:
        """Returns the reason when writing has failed; otherwise never."""
        self.bind()
        if self._failed is None:
            self._failed = asyncio.Event()
        if self._failure is None:
            await self._failed.wait()
        return self._failure or ""

    def _refusal(self, count: int) -> str | None:
        if self._closing:
            return "The store is closed; start the pool again."
        if self._failure is None and self._waiting + count > self._events_max:
            self._fail(
                f"The disk cannot keep up: {self._waiting} events wait to be written; "
                "use a faster disk and start the pool again."
            )
        return self._failure

    def _filling(self) -> Group:
        if not self._groups or len(self._groups[-1].entries) >= GROUP_EVENTS_MAX:
            self._groups.append(Group(self._loop))
            self._ready.notify()
        return self._groups[-1]

    def _run(self) -> None:
        while (group := self._next()) is not None:
            error = None
            try:
                self._commit(group)
            except BaseException as fault:
                error = self._describe(fault)
                with self._ready:
                    self._fail(error)
            self._settle(group, error)
            if error is not None:
                self._settle_rest(error)
                return

    def _next(self) -> Group | None:
        with self._ready:
            while not self._groups and not self._closing:
                self._ready.wait()
            if not self._groups:
                return None
            group = self._groups.popleft()
            self._waiting -= len(group.entries)
            return group

    def _settle_rest(self, error: str) -> None:
        with self._ready:
            rest = list(self._groups)
            self._groups.clear()
            self._waiting = 0
        for group in rest:
            self._settle(group, error)

    def _settle(self, group: Group, error: str | None) -> None:
        group.written(error)
        self.in_loop(lambda: self._tell(group))

    def _tell(self, group: Group) -> None:
        group.wake()
        self._settled(group)

    def _fail(self, reason: str) -> None:
        self._failure = reason
        self.in_loop(self._tell_failed)

    def _tell_failed(self) -> None:
        if self._failed is not None:
            self._failed.set()

    def in_loop(self, call: Callable[[], None]) -> None:
        """Run in the event loop; at once if there was never one, not at all if it has ended."""
        if self._loop is None:
            call()
            return
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)
