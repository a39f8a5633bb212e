"""A call under way, the session it may belong to, and what the log says about both.

Plain state for `core.desk`, which alone changes it. Must not decide anything.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from enum import Enum

from openpool.core import events
from openpool.core.call_facts import CallLost, CallReceived
from openpool.core.calls import App, CallFailure, Usage
from openpool.core.customers import payer
from openpool.core.prices import Quote
from openpool.core.stands import Server, Stand
from openpool.core.step import Timer
from openpool.core.units import price, price_text

SessionKey = tuple[str, App, str]
"""Who pays, the app, and the payer's name of the session."""


class CallState(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    STARTED = "started"
    OVER = "over"


@dataclass(slots=True, eq=False)
class Session:
    """Calls that belong together: they have one place at one stand."""

    key: SessionKey
    opened: CallReceived
    """The call that opened it."""
    stand: Stand
    last_ms: int
    calls: int = 0
    """Calls under way."""
    used: bool = False
    """Whether an answer began: from then on the worker has a state that no other has."""
    closed: bool = False
    timer: Timer | None = None


@dataclass(slots=True, eq=False)
class Call:
    """One exchange."""

    asked: CallReceived
    received_ms: int
    state: CallState = CallState.WAITING
    attempts: int = 0
    stand: Stand | None = None
    """Where it runs."""
    session: Session | None = None
    tried: list[str] = field(default_factory=list)
    """Workers that failed it."""
    assigned_ms: int = 0
    load: int = 0
    """Level of load that it met."""
    cold: bool = False
    """Whether the model had to be loaded first."""
    began: bool = False
    """Whether the first byte of an answer was passed on."""
    started_ms: int = 0
    """When that was."""
    used: Usage | None = None
    """What was found right of an answer that goes on, if that is known."""
    saved_ms: int = 0
    """When it was last written down how much that is, and how much it was; 0 if never."""
    saved_units: int = 0
    ended_ms: int = 0
    """When it ended, if that was with an earlier life of the pool."""
    reason: str = ""
    """Why the latest attempt failed."""
    timers: list[Timer] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.asked.call

    @property
    def app(self) -> App:
        return self.asked.app

    @property
    def payer(self) -> str:
        return payer_of(self.asked.customer, self.asked.orchestrator)

    @property
    def session_key(self) -> SessionKey | None:
        return (self.payer, self.app, self.asked.session) if self.asked.session else None


def payer_of(customer: str, orchestrator: str) -> str:
    """The name in the books of who pays."""
    return payer(customer) if customer else orchestrator


def received(asked: CallReceived) -> events.CallReceived:
    """The call and its price."""
    quote, rate = asked.quote, asked.quote.rate if asked.quote else None
    paid = asked.payment
    return events.CallReceived(
        job=asked.call,
        source=asked.source,
        customer=asked.customer,
        orchestrator=asked.orchestrator,
        pipeline=asked.app.pipeline,
        model=asked.app.model,
        session=asked.session,
        streaming=asked.streaming,
        deadline_ms=asked.deadline_ms,
        unit=quote.unit if quote else "request",
        price_wei=price_text(quote.price_wei) if quote else "",
        price_source=quote.source if quote else "",
        usd=quote.usd if quote else "",
        wei_per_usd=str(rate.wei_per_usd) if rate else "",
        rate_ms=rate.time_ms if rate else 0,
        rate_source=rate.source if rate else "",
        payer=paid.sender if paid else "",
        tickets=paid.tickets if paid else 0,
        tickets_wei=str(int(paid.expected_value_wei)) if paid else "",
    )


def completed(
    call: Call, worker: str, usage: Usage, now_ms: int, *, blamed: bool, cancelled: bool
) -> events.CallCompleted:
    """The answer, and what it was found to be."""
    asked = call.asked
    return events.CallCompleted(
        job=call.id,
        source=asked.source,
        customer=asked.customer,
        orchestrator=asked.orchestrator,
        worker=worker,
        attempt=call.attempts,
        pipeline=call.app.pipeline,
        model=call.app.model,
        unit=usage.unit,
        units=usage.units,
        checked=usage.checked,
        blamed=blamed,
        note=usage.note,
        took_ms=(call.ended_ms or now_ms) - call.received_ms,
        first_byte_ms=call.started_ms - call.received_ms,
        cancelled=cancelled,
    )


def failed(call: Call, code: CallFailure, reason: str, now_ms: int) -> events.CallFailed:
    """No answer, or only the beginning of one."""
    asked = call.asked
    return events.CallFailed(
        job=call.id,
        source=asked.source,
        customer=asked.customer,
        orchestrator=asked.orchestrator,
        pipeline=call.app.pipeline,
        model=call.app.model,
        code=code,
        reason=reason,
        started=call.began,
        attempts=call.attempts,
        took_ms=(call.ended_ms or now_ms) - call.received_ms,
    )


def checkpointed(call: Call, owner: Server, usage: Usage) -> events.CallCheckpointed:
    """What a session that goes on has used by now."""
    return events.CallCheckpointed(
        call=call.id,
        attempt=call.attempts,
        worker=owner.name,
        address=owner.address,
        commission_ppm=owner.commission_ppm,
        unit=usage.unit,
        units=usage.units,
        note=usage.note,
        first_byte_ms=call.started_ms - call.received_ms,
    )


def lost(story: Sequence[events.Event], banned: Container[str] = ()) -> CallLost:
    """What is known of a call that had no end when its pool died, from its events so far: first its
    receipt, last its newest checkpoint, if it has one. That of a banned worker does not count."""
    asked, last = story[0].data, story[-1].data
    assert isinstance(asked, events.CallReceived)
    saved = last if isinstance(last, events.CallCheckpointed) else None
    return CallLost(
        received=asked,
        received_ms=story[0].time_ms,
        attempts=sum(isinstance(event.data, events.CallAssigned) for event in story),
        last=saved if saved and saved.worker not in banned else None,
        last_ms=story[-1].time_ms,
    )


def restored(fact: CallLost) -> Call:
    """The call as it was when its pool died, without its place."""
    was, last = fact.received, fact.last
    quote = None
    if was.price_wei:
        quote = Quote(unit=was.unit, price_wei=price(was.price_wei), source=was.price_source)
    asked = CallReceived(
        call=was.job,
        app=App(was.pipeline, was.model),
        source=was.source,
        customer=was.customer,
        orchestrator=was.orchestrator,
        session=was.session,
        quote=quote,
    )
    call = Call(asked, fact.received_ms, attempts=fact.attempts, ended_ms=fact.last_ms)
    if last is not None:
        call.began, call.started_ms = True, fact.received_ms + last.first_byte_ms
        call.used = Usage(unit=last.unit, units=last.units, checked=True, note=last.note)
    return call
