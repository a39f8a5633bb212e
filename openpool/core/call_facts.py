"""What shells tell the desk about calls: the inputs of `Desk.handle`, in the past tense.

Ids: `line` is one connection on which a worker serves calls, unique for ever; `call` is made by
the entry point, unique for ever; `attempt` is made by the desk, 1, 2, … within a call. Whoever is
told `StartCall` says how that attempt goes: `CallStarted`, in a session `CallGoesOn` now and then,
and `CallEnded` or `CallBroken`.
Anything may come twice. Read next: `core.call_instructions`, `core.desk`.
"""

from msgspec import Struct

from openpool.core import events
from openpool.core.calls import App, CallSource, Offer, Usage
from openpool.core.facts import Tick, WorkerKnown, WorkerRemoved
from openpool.core.payment import Payment
from openpool.core.prices import Quote


class LineUp(Struct, frozen=True, kw_only=True):
    """A worker dialled a line; it offers nothing yet."""

    line: str
    worker: str
    address: str
    commission_ppm: int
    peer: str = ""


class OffersChanged(Struct, frozen=True, kw_only=True):
    """The whole list of what a line offers now."""

    line: str
    offers: tuple[Offer, ...]
    vram_mb: int = 0
    """Graphics memory that all models of this line may take together; 0 is not known."""


class LineDown(Struct, frozen=True, kw_only=True):
    """The line ended, and every call on it with it."""

    line: str
    reason: str


class CallReceived(Struct, frozen=True, kw_only=True):
    """Somebody wants an exchange with an app."""

    call: str
    app: App
    source: CallSource
    customer: str = ""
    """Who pays: the id of a customer, or else an orchestrator."""
    orchestrator: str = ""
    session: str = ""
    """Calls of one session go to one worker and share one place of it, which is theirs between
    calls too. A call that opens a session may stand for the session itself, and pay for it."""
    streaming: bool = False
    work: int = 1
    """How much there is to do, in any measure that is the same for all calls of the app."""
    deadline_ms: int = 0
    """When the call is given up, begun or not; 0 for one that may last."""
    patience_ms: int = 0
    """How long one worker has for its first byte before another is tried; 0 is no such limit."""
    quote: Quote | None = None
    """What a unit pays; None if nothing is to be paid for this call."""
    payment: Payment | None = None


class CallStarted(Struct, frozen=True, kw_only=True):
    """The first byte of the answer was passed on: from now on nobody else can be tried."""

    call: str
    attempt: int


class CallGoesOn(Struct, frozen=True, kw_only=True):
    """A session has used so much by now, all of it checked: what is paid if it breaks off."""

    call: str
    attempt: int
    usage: Usage


class CallEnded(Struct, frozen=True, kw_only=True):
    """The whole answer was passed on, and counted."""

    call: str
    attempt: int
    usage: Usage
    blamed: bool = False
    """Whether the worker is to blame: for an answer that is not right, or, where `usage` is
    checked, for the rest of it."""


class CallBroken(Struct, frozen=True, kw_only=True):
    """The attempt came to nothing, or its answer broke off."""

    call: str
    attempt: int
    reason: str
    blamed: bool


class CallCancelled(Struct, frozen=True, kw_only=True):
    """The client hung up. `usage` is what it had got by then, if that was counted."""

    call: str
    usage: Usage | None = None


class CallLost(Struct, frozen=True, kw_only=True):
    """The log of an earlier life of the pool holds no end of this call."""

    received: events.CallReceived
    received_ms: int
    attempts: int
    last: events.CallCheckpointed | None
    """Up to where it is paid; None if not at all."""
    last_ms: int
    """When that, or whatever came last of the call, was written."""


class PoolStops(Struct, frozen=True):
    """The pool ends what is open; it was waited for long enough."""


class SessionClosed(Struct, frozen=True, kw_only=True):
    """No more calls of this session will come."""

    app: App
    session: str
    customer: str = ""
    orchestrator: str = ""


CallFact = (
    LineUp
    | OffersChanged
    | LineDown
    | WorkerKnown
    | WorkerRemoved
    | CallReceived
    | CallStarted
    | CallGoesOn
    | CallEnded
    | CallBroken
    | CallCancelled
    | CallLost
    | PoolStops
    | SessionClosed
    | Tick
)
