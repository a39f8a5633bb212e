"""The exchange: has calls served by workers, for whoever asks for them.

The shell around `core.desk`, between the entry points (which make calls) and the lines that
workers dialled (on which they serve them). The desk decides who serves what; here bodies are
passed both ways, hang-ups are passed on, and what was used is counted. Must not know any protocol
of clients. Read next: `pool.open_call`.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from fractions import Fraction
from typing import Protocol

import structlog

from openpool.core.call_facts import (
    CallFact,
    CallReceived,
    LineDown,
    LineUp,
    OffersChanged,
    PoolStops,
    SessionClosed,
)
from openpool.core.call_instructions import (
    CallInstruction,
    RefuseCall,
    SessionLost,
    StartCall,
    StopCall,
)
from openpool.core.call_requests import CallRequest, Checked, Transcript
from openpool.core.calls import App, CallSource, Offer
from openpool.core.errors import Banned, OpenPoolError, Unauthorized
from openpool.core.prices import Quote
from openpool.core.usage import Measured
from openpool.link.anyline import AnyLine
from openpool.link.interface import Caller
from openpool.pool.open_call import CallAnswer, OpenCall
from openpool.pool.session_time import SessionTime
from openpool.pool.spool import Spool
from openpool.store.interface import Receipt

__all__ = ["CallAnswer", "Exchange", "OpenCall"]

log = structlog.get_logger()

LOOK_S = 1.0
"""How often calls that stream are looked at."""
GOODBYE_S = 1.0
"""How long clients have to hear that the pool stops."""


class KnownWorker(Protocol):
    """Who a token belongs to."""

    @property
    def worker(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def token(self) -> str: ...
    @property
    def commission_ppm(self) -> int: ...


Admit = Callable[[str], Awaitable[KnownWorker]]
"""The worker of a secret, if it may work. Raises Unauthorized, or Refusal."""


class Price(Protocol):
    """What a unit of an app pays, for calls that come this way."""

    def __call__(self, app: App, source: CallSource, lasting: bool = False) -> Quote | None:
        """`lasting` says that it is a session, which may have another price than a request."""


class Follow(Protocol):
    """Checks the answer of a session while it passes, in bounded memory."""

    fault: str
    """What is wrong with the rest of the answer; empty while all of it is right."""

    async def feed(self, chunk: bytes) -> bytes:
        """Take the next piece; what may be passed on now. Nothing is taken after a fault."""

    def end(self) -> None:
        """That was all: it is a fault if something is missing."""

    def measured(self, took_ms: int) -> Measured | None:
        """All that was right so far, in a session that took so long; None if nothing was."""


class Check(Protocol):
    """Counts and judges what was asked and answered (`pool.answers`)."""

    async def check(self, said: Transcript) -> Checked: ...
    def follow(self, request: CallRequest) -> Follow | None:
        """Checks the answer of a call that lasts while it passes; None if that cannot be done."""


class Budget(Protocol):
    """What customers may spend (`pool.customers`)."""

    def expected_units(self, app: App, quote: Quote, request_bytes: int) -> int: ...
    def begin(self, call: str, customer: str, price_wei: Fraction, units: int) -> None:
        """Raises SpendLimitReached if it must not."""

    def so_far(self, call: str, units: int) -> None:
        """Raises SpendLimitReached if it must end."""


SessionKey = tuple[str, str, App, str]


def _session_of(request: CallRequest) -> SessionKey:
    return request.customer, request.orchestrator, request.app, request.session


class Exchange:
    """Serves calls. `run` looks after those that hang; `tasks` outlives every call."""

    def __init__(
        self,
        *,
        feed: Callable[[CallFact], None],
        tasks: asyncio.TaskGroup,
        clock_ms: Callable[[], int],
        epoch: int,
        admit: Admit,
        price: Price,
        answers: Check,
        budget: Budget | None = None,
        body_bytes_max: int,
        timeout_ms: int,
        idle_ms: int,
    ) -> None:
        """A call that does not last is over `timeout_ms` after it came; `idle_ms` is how long a
        client may pause within a request, or a worker within an answer. Without a `budget` nobody
        is held to a limit."""
        self.feed = feed
        self.tasks = tasks
        self.check, self.follow = answers.check, answers.follow
        self._budget = budget
        self.now = asyncio.get_running_loop().time
        self.lines: dict[str, AnyLine] = {}
        self._clock_ms = clock_ms
        self._epoch = epoch
        self._admit = admit
        self._price = price
        self._body_bytes_max = body_bytes_max
        self._timeout_ms, self._idle_s = timeout_ms, idle_ms / 1000
        self._calls: dict[str, OpenCall] = {}
        self._times: dict[SessionKey, SessionTime] = {}
        """Of sessions that have a call open."""
        self._quiet = asyncio.Event()
        """Set when no call is open any more."""
        self.offers: dict[str, tuple[Offer, ...]] = {}
        """What each line offers at this moment."""
        self._owners: dict[str, KnownWorker] = {}
        self._session_lost: list[Callable[[SessionLost], None]] = []
        self._serial = 0

    async def run(self) -> None:
        """Look after calls that stream: workers that fell silent, customers at their limit. Ends
        by cancellation."""
        while True:
            await asyncio.sleep(LOOK_S)
            now = self.now()
            for call in list(self._calls.values()):
                call.look(now, self._idle_s)

    async def give_up(self) -> None:
        """The pool stops: end what is open, with sessions counted until now."""
        for call in list(self._calls.values()):
            call.look(self.now(), math.inf)
        self.feed(PoolStops())
        self._quiet.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                while self._calls:
                    await self._quiet.wait()

    # --- calls ---------------------------------------------------------------------------------

    def spool(self, source: AsyncIterator[bytes] | bytes, *, kept: bool = True) -> Spool:
        """The body of a request; a source that is no generator can be sent again."""
        return Spool(source, bytes_max=self._body_bytes_max, idle_s=self._idle_s, kept=kept)

    def call(self, request: CallRequest, body: Spool | AsyncIterator[bytes] | bytes) -> OpenCall:
        """Have a call served: `async with exchange.call(...) as answer`.

        Entering raises CallFailed if nobody has an answer, or what is wrong with the body. The
        answer's body raises CallFailed if it breaks off. Leaving the block ends the call: early,
        the worker is told within moments.
        """
        self._serial += 1
        # raises CallFailed if it is not known now
        quote = self._price(request.app, request.source, request.lasting)
        spool = body if isinstance(body, Spool) else self.spool(body, kept=not request.lasting)
        call_id = f"call.{self._epoch}-{self._serial}"
        return OpenCall(self, call_id, request, spool, quote)

    def receive(self, call: OpenCall, request: CallRequest, spool: Spool) -> None:
        """Ask the desk for a worker. For calls. Raises SpendLimitReached."""
        if self._budget and call.quote and request.customer:
            expected = self._budget.expected_units(request.app, call.quote, spool.size)
            self._budget.begin(call.id, request.customer, call.quote.price_wei, expected)
        self._calls[call.id] = call
        if request.lasting and request.session:
            call.time = self._times.setdefault(_session_of(request), SessionTime())
            call.time.calls += 1
        now_ms = self._clock_ms()
        self.feed(
            CallReceived(
                call=call.id,
                app=request.app,
                source=request.source,
                customer=request.customer,
                orchestrator=request.orchestrator,
                session=request.session,
                streaming=request.streaming,
                work=max(1, spool.size),
                deadline_ms=0 if request.lasting else now_ms + self._timeout_ms,
                patience_ms=0 if request.lasting else self._timeout_ms // 2,
                quote=call.quote,
                payment=request.payment,
            )
        )

    def used(self, call: OpenCall, units: int) -> None:
        """So much a call has used by now. For calls. Raises SpendLimitReached."""
        if self._budget:
            self._budget.so_far(call.id, units)

    def forget(self, call: OpenCall) -> None:
        """A call is over. For calls."""
        if self._calls.pop(call.id, None) and call.time:
            call.time.ends(call.id, time.monotonic())
            call.time.calls -= 1
            if not call.time.calls:
                del self._times[_session_of(call.request)]
        if not self._calls:
            self._quiet.set()

    def close_session(
        self, app: App, session: str, *, customer: str = "", orchestrator: str = ""
    ) -> None:
        """No more calls of this session will come."""
        self.feed(
            SessionClosed(app=app, session=session, customer=customer, orchestrator=orchestrator)
        )

    def apps(self) -> dict[App, list[Offer]]:
        """What workers offer at this moment."""
        found: dict[App, list[Offer]] = {}
        for offers in self.offers.values():
            for offer in offers:
                found.setdefault(offer.app, []).append(offer)
        return found

    # --- instructions --------------------------------------------------------------------------

    def perform(self, on: Callable[[type[CallInstruction], Callable[..., None]], None]) -> None:
        """Say what is performed here."""
        on(StartCall, self.start_call)
        on(StopCall, self.stop_call)
        on(RefuseCall, self.refuse_call)
        on(SessionLost, self.session_lost)

    def start_call(self, what: StartCall, _receipt: Receipt) -> None:
        """A worker is to serve a call."""
        if call := self._calls.get(what.call):
            call.order(what)

    def stop_call(self, what: StopCall, _receipt: Receipt) -> None:
        """An attempt is not wanted any more."""
        if call := self._calls.get(what.call):
            call.stop(what.attempt)

    def refuse_call(self, what: RefuseCall, _receipt: Receipt) -> None:
        """A call has failed."""
        if call := self._calls.get(what.call):
            call.order(what)

    def session_lost(self, what: SessionLost, _receipt: Receipt) -> None:
        """A session's worker is gone; whoever sells sessions wants to know."""
        for told in self._session_lost:
            told(what)

    def on_session_lost(self, told: Callable[[SessionLost], None]) -> None:
        """Have `told` called when a session's worker is gone."""
        self._session_lost.append(told)

    # --- lines ---------------------------------------------------------------------------------

    async def line(self, line: AnyLine, caller: Caller) -> None:
        """Serve calls over a line that a worker dialled, until it ends."""
        hello = await line.hello()
        known = await self._admit(hello.token)
        self._serial += 1
        name = f"{self._epoch}-{self._serial}"
        self.lines[name], self._owners[name] = line, known
        self.feed(
            LineUp(
                line=name,
                worker=known.worker,
                address=known.address,
                commission_ppm=known.commission_ppm,
                peer=caller.peer,
            )
        )
        reason = "the worker closed it"
        try:
            async for offers in hello.offers:
                self.offers[name] = tuple(offers)
                self.feed(OffersChanged(line=name, offers=tuple(offers)))
            reason = await line.wait_closed()
        except OpenPoolError as error:
            reason = str(error)
            raise
        finally:
            del self.lines[name], self._owners[name]
            self.offers.pop(name, None)
            self.feed(LineDown(line=name, reason=reason))

    def end_token(self, token: str, reason: str) -> None:
        """End the lines that a revoked token opened; the worker may come back with another."""
        for name, line in list(self.lines.items()):
            if self._owners[name].token == token:
                line.close(Unauthorized(reason))

    def end_worker(self, worker: str) -> None:
        """End the lines of a banned worker for good."""
        for name, line in list(self.lines.items()):
            if self._owners[name].worker == worker:
                line.close(Banned())
