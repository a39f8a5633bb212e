"""The language of the scenarios of calls, played to the desk (`scenarios.frame`).

A call is called by its id; facts about an attempt are about its running one unless `attempt=` says
otherwise.
"""

from fractions import Fraction

from scenarios.frame import Frame

from openpool.core import call_facts as facts
from openpool.core import events
from openpool.core.call_instructions import (
    CallInstruction,
    RefuseCall,
    SessionLost,
    StartCall,
    StopCall,
)
from openpool.core.calls import App, Offer, Usage
from openpool.core.desk import Desk
from openpool.core.events import Event
from openpool.core.facts import WorkerRemoved
from openpool.core.money.fees import Fees
from openpool.core.prices import Quote
from openpool.core.settings import DeskSettings


class CallPlay(Frame):
    """Plays commands to a desk and tells what happened."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk(DeskSettings(), 1, Fees())

    @property
    def core(self) -> Desk:
        return self.desk

    # --- commands ------------------------------------------------------------------------------

    def do_desk(self, **settings: str) -> None:
        """The settings; first of all."""
        self.desk = Desk(DeskSettings(**{k: int(v) for k, v in settings.items()}), 1, Fees())

    def do_line(self, name: str, worker: str, commission: str = "250000") -> None:
        self.feed(
            facts.LineUp(
                line=name, worker=worker, address=f"0x{worker}", commission_ppm=int(commission)
            )
        )

    def do_offers(self, line: str, *apps: str, memory: str = "0") -> None:
        """Apps as `pipeline/model:capacity`, with `:warm` and `:8000` (MB) if need be."""
        offers = tuple(map(_offer, apps))
        self.feed(facts.OffersChanged(line=line, offers=offers, vram_mb=int(memory)))

    def do_worker(self, name: str, *apps: str, line: str = "", memory: str = "0") -> None:
        """A line and its offers at once; the line has the worker's name if it has none."""
        self.do_line(line or name, worker=name)
        self.do_offers(line or name, *apps, memory=memory)

    def do_down(self, line: str, *reason: str) -> None:
        self.feed(facts.LineDown(line=line, reason=" ".join(reason) or "connection reset"))

    def do_ban(self, worker: str, *reason: str) -> None:
        self.feed(WorkerRemoved(worker=worker, reason=" ".join(reason)))

    def do_call(self, name: str, app: str, **named: str) -> None:
        """A call: `customer` or `orchestrator`, `session`, `work`, `deadline` and `patience` in
        ms from now, `price` per `unit`."""
        deadline = int(named.get("deadline", "60000"))
        orchestrator = named.get("orchestrator", "")
        price = named.get("price")
        quote = price and Quote(
            unit=named.get("unit", "token"), price_wei=Fraction(price), source="config"
        )
        self.feed(
            facts.CallReceived(
                call=name,
                app=_app(app),
                source="live-runner" if orchestrator else "direct",
                customer="" if orchestrator else named.get("customer", "c_1"),
                orchestrator=orchestrator,
                session=named.get("session", ""),
                work=int(named.get("work", "1")),
                deadline_ms=self.now + deadline if deadline else 0,
                patience_ms=int(named.get("patience", "0")),
                quote=quote or None,
            )
        )

    def do_begin(self, call: str, attempt: str = "") -> None:
        """The first byte of the answer is passed on."""
        self.feed(facts.CallStarted(call=call, attempt=self._attempt(call, attempt)))

    def do_goes_on(self, call: str, attempt: str = "", **named: str) -> None:
        """A session has used so much by now, and all of it was right."""
        usage = _usage(True, "until then", **named)
        self.feed(facts.CallGoesOn(call=call, attempt=self._attempt(call, attempt), usage=usage))

    def do_end(self, call: str, *note: str, attempt: str = "", **named: str) -> None:
        """The answer ends: `units`, `unit`; `check=bad` or `check=not` if it is not right."""
        check = named.get("check", "good")
        self.feed(
            facts.CallEnded(
                call=call,
                attempt=self._attempt(call, attempt),
                usage=_usage(check == "good", " ".join(note), **named),
                blamed=check == "bad",
            )
        )

    def do_broken(self, call: str, *reason: str, attempt: str = "", fault: str = "yes") -> None:
        self.feed(
            facts.CallBroken(
                call=call,
                attempt=self._attempt(call, attempt),
                reason=" ".join(reason),
                blamed=fault == "yes",
            )
        )

    def do_hang_up(self, call: str, **named: str) -> None:
        """The client goes; with `units` if what it had got was counted."""
        usage = _usage(True, "", **named) if named else None
        self.feed(facts.CallCancelled(call=call, usage=usage))

    def do_work(self, call: str, units: str = "100") -> None:
        """First byte and end of a good answer, all at once."""
        self.do_begin(call)
        self.do_end(call, units=units)

    def do_pool_stops(self) -> None:
        """The pool waited for long enough."""
        self.feed(facts.PoolStops())

    def do_close_session(self, app: str, session: str, orchestrator: str = "") -> None:
        customer = "" if orchestrator else "c_1"
        self.feed(
            facts.SessionClosed(
                app=_app(app), session=session, customer=customer, orchestrator=orchestrator
            )
        )

    def do_show(self) -> None:
        """Who serves what."""
        view = self.desk.snapshot(self.now)
        for app in view.apps:
            self.tell(
                f"? {app.pipeline}/{app.model}: {app.workers} workers, {app.warm} warm, "
                f"{app.taken} of {app.capacity} places, {app.waiting} waiting, "
                f"usually {app.usual_ms} ms; {app.completed} completed, {app.failed} failed, "
                f"{app.refused} refused"
            )
        for worker in view.workers:
            self.tell(f"? {worker.worker}: {worker.state}, {worker.calls} calls")

    def _attempt(self, call: str, attempt: str) -> int:
        known = self.desk.calls.get(call) or self.desk.over.get(call)
        return int(attempt) if attempt else known.attempts if known else 1

    # --- what happened, in words ---------------------------------------------------------------

    def instruction(self, what: CallInstruction) -> str:
        """An instruction in words."""
        match what:
            case StartCall():
                return f"start {what.call} on {what.line} as attempt {what.attempt}"
            case StopCall():
                return f"stop attempt {what.attempt} of {what.call} on {what.line}"
            case RefuseCall():
                return f"tell the client of {what.call}: {what.code}, {what.text}"
            case SessionLost():
                return f"session {what.session} of {what.app} is lost: {what.reason}"

    def event(self, event: Event) -> str:
        """An event in words; lines that open are not told."""
        match event.data:
            case events.LineOpened():
                return ""
            case events.LineClosed() as data:
                return f"* line-closed: {data.line}: {data.reason}"
            case events.CallReceived() as data:
                price = f"{data.price_wei} wei per {data.unit}" if data.price_wei else "no price"
                return f"* call-received: {data.job}, {price}"
            case events.CallAssigned() as data:
                warm = "warm" if data.warm else "cold"
                return f"* call-assigned: {data.worker}, {data.reason}, {warm}"
            case events.CallAttemptFailed() as data:
                fault = "its fault" if data.blamed else "not its fault"
                return f"* call-attempt-failed: {data.worker}, {fault}: {data.reason}"
            case events.CallCheckpointed() as data:
                return f"* call-checkpointed: {data.call}, {data.units} {data.unit} so far"
            case events.CallCompleted() as data:
                return f"* call-completed: {_completed(data)}"
            case events.CallFailed() as data:
                begun = ", in the middle of its answer" if data.started else ""
                return f"* call-failed: {data.job}, {data.code}{begun}: {data.reason}"
            case events.FeeCredited() as data:
                return (
                    f"* fee-credited: {data.worker_wei} of {data.fee_wei} wei to {data.address} "
                    f"from {data.orchestrator}, carry {data.carry}"
                )
            case events.CommissionTaken() as data:
                return f"* commission-taken: {data.commission_wei} wei"
            case events.WorkerCooledDown() as data:
                return f"* worker-cooled-down: {data.worker} until {data.until_ms}: {data.reason}"
        return f"* {event.type}"


def _completed(data: events.CallCompleted) -> str:
    found = "right" if data.checked else "bad" if data.blamed else "not checked"
    note = f" ({data.note})" if data.note else ""
    gone = ", the client hung up" if data.cancelled else ""
    return (
        f"{data.job} by {data.worker}, {data.units} {data.unit}, {found}{note}, "
        f"first byte after {data.first_byte_ms} of {data.took_ms} ms{gone}"
    )


def _app(text: str) -> App:
    return App(*text.split("/", 1))


def _offer(text: str) -> Offer:
    name, capacity, *more = text.split(":")
    memory = next((int(word) for word in more if word.isdigit()), 0)
    return Offer(app=_app(name), capacity=int(capacity), warm="warm" in more, vram_mb=memory)


def _usage(checked: bool, note: str, units: str = "0", unit: str = "token", **_: str) -> Usage:
    return Usage(unit=unit, units=int(units), checked=checked, note=note)
