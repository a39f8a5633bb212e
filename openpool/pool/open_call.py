"""One call on its way: asked of the desk, tried at workers, passed on, counted.

Entered, it gives the head and the body of an answer; left, it ends at the worker as well. An
answer that need not be streamed is held back until it was checked, so that a bad one is redone
elsewhere and never seen. Once a byte was passed on there is no second try: the body then ends
with `CallFailed`. The answer of a session is checked while it passes; at the first line that is
not right the session ends, and what came before is paid. A customer's spend limit ends what
streams in the same way. Read next: `pool.exchange`, which makes these.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import quote as percent

import structlog
from msgspec import structs

from openpool.core.call_facts import (
    CallBroken,
    CallCancelled,
    CallEnded,
    CallGoesOn,
    CallStarted,
)
from openpool.core.call_instructions import RefuseCall, StartCall
from openpool.core.call_requests import CallFailed, CallRequest, Checked, Transcript
from openpool.core.calls import Unit, Usage
from openpool.core.customers import SpendLimitReached
from openpool.core.errors import NoCapacity
from openpool.core.prices import Quote
from openpool.core.texts import plural
from openpool.core.usage import Measured, units, units_of
from openpool.link.anyline import AnyCall, AnyLine
from openpool.link.line import Answer, BrokenOff, NotAnswered
from openpool.pool.session_time import SessionTime
from openpool.pool.spool import Spool

if TYPE_CHECKING:
    from openpool.pool.exchange import Exchange, Follow

log = structlog.get_logger()

SMALL_BYTES = 1 << 20
"""A request that came whole and is no larger goes out in one piece."""
HELD_BYTES = 16 << 20
"""An answer that is longer is passed on before it was checked."""
KEPT_BYTES = 64 << 20
"""How much of an answer that is passed on is kept for counting."""
SESSION_KEPT_BYTES = 1 << 20
"""The same of a session that cannot be checked while it passes."""
REQUEST_BYTES_PER_TOKEN, REQUEST_BYTES_SPARE = 4, 256
"""What a request is thought to cost while its answer streams: rather too little, so that nobody is
cut off before the limit."""
SERVED = range(200, 300)
BUSY = (429, 503)
"""What a worker answers that is full; nobody is to blame for it."""
REASON_CHARS_MAX = 300
SPOILT = "what the worker told was not right any more, so the session was ended; open a new one"


@dataclass(frozen=True, slots=True)
class CallAnswer:
    """What the client gets."""

    status: int
    headers: Mapping[str, str]
    """As the worker sent them: the entry point decides which of them may be believed."""
    body: AsyncIterator[bytes]
    """Raises `CallFailed` if it does not come to its end."""
    length: int | None
    """Of the whole body, if it is known."""


class _Stopped(Exception):
    """The desk wants this attempt no more."""


class _Spent(Exception):
    """The customer's spend limit is reached."""


class _Failed(Exception):
    """The attempt came to nothing."""

    def __init__(self, reason: str, *, blamed: bool) -> None:
        super().__init__(reason[:REASON_CHARS_MAX])
        self.blamed = blamed


class OpenCall:
    """One call, as an asynchronous context manager that gives its answer."""

    def __init__(
        self,
        exchange: "Exchange",
        call_id: str,
        request: CallRequest,
        spool: Spool,
        quote: Quote | None,
    ) -> None:
        self.id = call_id
        self.quote = quote
        self.time: SessionTime | None = None
        """That of its session, which other calls may share."""
        self._exchange = exchange
        self.request = request
        self._spool = spool
        self._orders: deque[StartCall | RefuseCall] = deque()
        self._ordered: asyncio.Future[None] | None = None
        self._attempt = 0
        self._line: AnyLine | None = None
        self._call: AnyCall | None = None
        self._head: Answer | None = None
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._kept_max = SESSION_KEPT_BYTES if request.lasting else KEPT_BYTES
        self._follow = exchange.follow(request) if request.lasting else None
        self._fault = ""
        """What is wrong with the rest of an answer whose beginning was right."""
        self._cut = ""
        """Why the pool ended a good answer."""
        self._pieces = 0
        """Of an answer of events."""
        self._began = time.monotonic()
        self._right_ms = 0
        """Until when the answer was right, from its beginning."""
        self._silent_since = 0.0
        """Since when the next piece of an answer is waited for; 0 if it is not."""
        self._started = False
        self._settled = False
        """Whether the desk knows how it ended, or will be told."""
        self._counting = False
        """Whether what was said is still needed, to be counted."""

    # --- what the exchange tells it ------------------------------------------------------------

    def order(self, order: StartCall | RefuseCall) -> None:
        """The desk has decided what happens next."""
        self._orders.append(order)
        if self._ordered is not None and not self._ordered.done():
            self._ordered.set_result(None)
        if isinstance(order, RefuseCall):
            self.stop(self._attempt)

    def stop(self, attempt: int) -> None:
        """The desk wants this attempt no more."""
        if attempt == self._attempt and self._call is not None:
            self._call.fail(_Stopped())

    def look(self, now: float, idle_s: float) -> None:
        """Give up a worker that fell silent within its answer, and a customer without money."""
        if self._call is None:
            return
        silent = self._silent_since and now - self._silent_since > idle_s
        if silent and not self.request.lasting:
            reason = f"it was silent for {idle_s:g} s in the middle of its answer"
            self._call.fail(_Failed(reason, blamed=True))
        if self._started and (self.request.streaming or self.request.lasting):
            self._account()

    def _account(self) -> None:
        """Say what it has used by now: exactly of a session that is followed, else about."""
        took_ms, follow = self._took_ms(), self._follow
        seen = follow.measured(took_ms) if follow else None
        if seen is not None:
            self._tell_used(seen, took_ms)
        asked = max(0, self._spool.size - REQUEST_BYTES_SPARE) // REQUEST_BYTES_PER_TOKEN
        about = Measured(session_ms=took_ms, prompt_tokens=asked, completion_tokens=self._pieces)
        try:
            self._exchange.used(self, self._count(seen or about))
        except SpendLimitReached:
            assert self._call is not None
            self._call.fail(_Spent())

    def _tell_used(self, seen: Measured, took_ms: int) -> None:
        what = f"{plural(seen.frames, 'frame')} analysed" if seen.frames else "an answer came"
        note = f"{what} in {took_ms} ms"
        used = Usage(unit=self._unit, units=self._count(seen), checked=True, note=note)
        self._exchange.feed(CallGoesOn(call=self.id, attempt=self._attempt, usage=used))

    def _count(self, seen: Measured) -> int:
        """Units; none where the price has a unit that these calls are not counted in."""
        request = self.request
        try:
            return units(request.app.pipeline, request.source, seen, self._unit)
        except ValueError:
            return 0

    def _took_ms(self) -> int:
        """Since it began; of a session, how much of its time is counted here."""
        now = time.monotonic()
        passed = self.time.passed(self.id, now) if self.time else now - self._began
        return int(passed * 1000)

    @property
    def _unit(self) -> Unit:
        """What is counted: what has a price."""
        return self.quote.unit if self.quote else units_of(self.request.app.pipeline)[0]

    # --- the answer ----------------------------------------------------------------------------

    async def __aenter__(self) -> CallAnswer:
        try:
            self._exchange.receive(self, self.request, self._spool)
            while True:
                order = await self._next_order()
                try:
                    return await self._try(order)
                except _Failed as error:
                    await self._broken(error)
                except _Stopped:
                    await self._end_attempt()
        except BaseException:
            await self._leave()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._leave()

    async def _next_order(self) -> StartCall:
        """What to do next. Raises CallFailed if that is to give up."""
        while not self._orders:
            self._ordered = asyncio.get_running_loop().create_future()
            await self._ordered
        order = self._orders.popleft()
        if isinstance(order, RefuseCall):
            self._settled = True
            raise CallFailed(order.code, order.text, started=self._started)
        return order

    async def _try(self, order: StartCall) -> CallAnswer:
        """The answer of one worker. Raises _Failed, _Stopped, or what is wrong with the request."""
        self._attempt = order.attempt
        self._kept, self._kept_bytes = [], 0
        try:
            head = await self._ask(order)
            if head.status >= 500 or head.status in BUSY:
                busy = head.status in BUSY
                raise _Failed(f"it answered with status {head.status}", blamed=not busy)
            if not (self.request.streaming or self.request.lasting) and await self._hold(head):
                return await self._passed_whole(head)
        except (NotAnswered, NoCapacity, BrokenOff) as error:
            raise self._failure(error) from None
        return CallAnswer(head.status, head.headers, _Passing(self, self._kept), None)

    async def _ask(self, order: StartCall) -> Answer:
        line = self._line = self._exchange.lines.get(order.line)
        if line is None:
            raise _Failed("its line is gone", blamed=False)
        request, spool = self.request, self._spool
        headers, small = dict(request.headers), spool.ended and spool.size <= SMALL_BYTES
        if spool.ended:
            headers["content-length"] = str(spool.size)
        app = f"/call/{percent(order.app.pipeline, safe='')}/{percent(order.app.model, safe='')}"
        body = await spool.read(SMALL_BYTES) if small else spool.chunks()
        self._call = line.call(request.method, app + request.path, headers, body)
        self._head = None
        try:
            self._head = await self._call.__aenter__()
        except BaseException:
            self._call = None  # it has left already
            raise
        if self._head.status not in SERVED:
            self._follow = None  # a refusal is no session
        return self._head

    async def _hold(self, head: Answer) -> bool:
        """Read the answer; whether all of it came before there was too much to hold."""
        while chunk := await self._read(head):
            self._keep(chunk)
            if self._kept_bytes > HELD_BYTES:
                return False
        return True

    async def _read(self, head: Answer) -> bytes:
        """The next piece of an answer; empty at its end."""
        self._silent_since = self._exchange.now()
        try:
            return await anext(head.body, b"")
        finally:
            self._silent_since = 0.0

    def _keep(self, chunk: bytes) -> None:
        """Remember a piece of the answer, as far as that is needed for counting."""
        self._kept_bytes += len(chunk)
        self._pieces += chunk.count(b"data:")
        if self._follow is None and self._kept_bytes <= self._kept_max:
            self._kept.append(chunk)

    async def _passed_whole(self, head: Answer) -> CallAnswer:
        """Pass on an answer that was found right, or at least honest."""
        checked = await self._check(head, whole=True)
        if checked.blamed:
            raise _Failed(checked.usage.note or "its answer is not right", blamed=True)
        await self._end_attempt()
        if self._orders:
            raise _Stopped  # it was over before the answer was found right
        self._end(checked)
        return CallAnswer(head.status, head.headers, _Whole(self._kept), self._kept_bytes)

    # --- while it is passed on -----------------------------------------------------------------

    async def next_chunk(self) -> bytes:
        """The next piece of an answer that is passed on; empty at its end. Raises CallFailed."""
        head = self._head
        assert head is not None
        passed, over = b"", bool(self._fault)
        while not (passed or over):
            passed, over = await self._checked(head, await self._next_piece(head))
        if self._fault and not passed:
            raise CallFailed("worker-failed", SPOILT, started=True)
        return passed

    async def _next_piece(self, head: Answer) -> bytes:
        """What the worker tells next; empty at the end. Raises CallFailed."""
        try:
            if self._orders:
                raise _Stopped
            self.starts()
            return await self._read(head)
        except (BrokenOff, _Failed) as error:
            await self._broken(error if isinstance(error, _Failed) else self._failure(error))
            await self._next_order()  # which is to give up, since it had begun
        except _Stopped:
            await self._end_attempt()
            await self._next_order()
        except _Spent:
            await self._end_attempt()
            self._cut = "the customer's spend limit was reached"
            raise SpendLimitReached from None
        raise AssertionError("a call that has begun is never tried again")

    async def _checked(self, head: Answer, chunk: bytes) -> tuple[bytes, bool]:
        """What of a piece may go to the client, and whether nothing can come after it."""
        self._keep(chunk)
        if self._follow is not None:
            passed = await self._followed(self._follow, chunk)
        else:
            passed = chunk
            if head.status in SERVED:
                self._tells()
        over = not chunk or bool(self._fault)
        if over:
            self._finish(head)
        if self._fault:
            await self._end_attempt()
        return passed, over

    async def _followed(self, follow: "Follow", chunk: bytes) -> bytes:
        """What is right of a piece of a session."""
        passed = b""
        if chunk:
            passed = await follow.feed(chunk)
        else:
            follow.end()
        if follow.measured(0) is not None:
            self._tells()
        if passed or not follow.fault:
            self._right_ms = self._took_ms()
        self._fault = follow.fault
        return passed

    def _tells(self) -> None:
        """Something that counts has come: so does the time of its session, if that is free."""
        if self.time is not None:
            self.time.tells(self.id, self._began)

    def starts(self) -> None:
        """The first byte goes out."""
        if not self._started:
            self._started = True
            self._exchange.feed(CallStarted(call=self.id, attempt=self._attempt))

    def _finish(self, head: Answer) -> None:
        """No more of it is passed on: it is counted while the client goes on."""
        self._settled = self._counting = True

        async def count() -> None:
            self._end(await self._check(head, whole=True))
            self._close()

        self._exchange.tasks.create_task(count(), name=f"count {self.id}")

    # --- the ends ------------------------------------------------------------------------------

    def _failure(self, error: NotAnswered | NoCapacity | BrokenOff) -> _Failed:
        """What a line said. Neither a full worker nor a lost line is anybody's fault."""
        full = NoCapacity.code in (error.code, getattr(error, "cause", ""))
        alive = self._line is not None and self._line.open
        return _Failed(str(error), blamed=alive and not full)

    async def _broken(self, error: _Failed) -> None:
        await self._end_attempt()
        self._exchange.feed(
            CallBroken(call=self.id, attempt=self._attempt, reason=str(error), blamed=error.blamed)
        )

    async def _check(self, head: Answer, *, whole: bool) -> Checked:
        said = self._transcript(head, whole=whole)
        try:
            return self._explained(await self._exchange.check(said))
        except Exception:  # whatever strange answers do to what opens them costs this call only
            log.exception("check-failed", call=self.id)
            note = "it could not be checked, by a fault in the pool"
            return Checked(usage=Usage(unit=said.unit, units=0, checked=False, note=note))

    def _explained(self, checked: Checked) -> Checked:
        """Say so if the time of the session is counted elsewhere."""
        usage = checked.usage
        if self.time is None or not usage.checked or self.time.counts(self.id):
            return checked
        note = f"{usage.note}; its session's time is counted in another call"
        return structs.replace(checked, usage=structs.replace(usage, note=note))

    def _transcript(self, head: Answer, *, whole: bool) -> Transcript:
        request, spool = self.request, self._spool
        took_ms = self._right_ms if self._fault else self._took_ms()
        return Transcript(
            app=request.app,
            source=request.source,
            path=request.path,
            unit=self._unit,
            request_type=request.headers.get("content-type", ""),
            request=b"" if request.lasting else spool.so_far(),
            status=head.status,
            answer_type=head.headers.get("content-type", ""),
            answer=b"".join(self._kept),
            whole=whole and (self._follow is not None or self._kept_bytes <= self._kept_max),
            took_ms=took_ms,
            seen=self._follow.measured(took_ms) if self._follow else None,
            fault=self._fault,
        )

    def _end(self, checked: Checked) -> None:
        self.starts()
        self._settled = True
        ended = CallEnded(
            call=self.id, attempt=self._attempt, usage=checked.usage, blamed=checked.blamed
        )
        self._exchange.feed(ended)

    async def _end_attempt(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            await call.leave()

    async def _leave(self) -> None:
        try:
            await self._end_attempt()
        finally:
            if not self._settled:
                self._give_up()
            if not self._counting:
                self._close()

    def _give_up(self) -> None:
        """The client hung up. What it had got is counted, if it was the beginning of a stream."""
        head, exchange = self._head, self._exchange
        self._settled = True
        if not (self._started and self._kept_bytes and head is not None):
            exchange.feed(CallCancelled(call=self.id))
            return

        async def count() -> None:
            checked = await self._check(head, whole=False)
            usage = checked.usage
            if self._cut:
                usage = structs.replace(usage, note=f"{usage.note}; {self._cut}")
            exchange.feed(CallCancelled(call=self.id, usage=usage))
            self._close()

        self._counting = True
        exchange.tasks.create_task(count(), name=f"count {self.id}")

    def _close(self) -> None:
        self._exchange.forget(self)
        self._spool.close()


class _Whole(AsyncIterator[bytes]):
    """A body that is there."""

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = iter(chunks)

    async def __anext__(self) -> bytes:
        for chunk in self._chunks:
            return chunk
        raise StopAsyncIteration


class _Passing(AsyncIterator[bytes]):
    """A body that is passed on as it comes, after what was held of it already."""

    def __init__(self, call: OpenCall, held: list[bytes]) -> None:
        self._call = call
        self._held = iter(list(held))

    async def __anext__(self) -> bytes:
        for chunk in self._held:
            self._call.starts()
            return chunk
        if chunk := await self._call.next_chunk():
            return chunk
        raise StopAsyncIteration
