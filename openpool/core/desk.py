"""The desk: which worker serves a call, and what follows from how it goes. One door, `handle`.

Theory of operation. A call is one HTTP exchange that a client has open. Its states:

    waiting    no place is free, and waiting is allowed            → running, over
    running    a worker has it; nothing of an answer came yet      → waiting, running, started, over
    started    the first byte of an answer was passed on           → over
    over       answered, refused or given up; remembered a while for late and doubled facts

Until the first byte another worker may be tried; after it, never. The client of every call gets
one answer: an answer that begins, or one `RefuseCall`. A worker is credited only for an answer
that ended and was found right, for the part a client took before it hung up, if that was, and for
what was right of a session that broke off. Each call is paid once, when it is over. What a session
has used is written down now and then (a checkpoint), which moves nothing.
After a restart nothing is taken up again: the exchanges died with the process. A session is then
paid as its last checkpoint says; all other calls have failed.

It must not do I/O or read a clock. Parts: `stands` (who serves what), `fees` (shared with
`core.pool`), `desk_sessions`, `desk_views`, `desk_check`.
"""

from functools import partial

from msgspec.structs import replace

from openpool.core import call_state, desk_check, desk_views, events
from openpool.core.call_facts import (
    CallBroken,
    CallCancelled,
    CallEnded,
    CallFact,
    CallGoesOn,
    CallLost,
    CallReceived,
    CallStarted,
    LineDown,
    LineUp,
    OffersChanged,
    PoolStops,
    SessionClosed,
)
from openpool.core.call_instructions import RefuseCall, StartCall, StopCall
from openpool.core.call_state import Call, CallState, payer_of
from openpool.core.calls import App, CallFailure, Usage
from openpool.core.desk_sessions import Sessions
from openpool.core.explain import Reason
from openpool.core.facts import Tick, WorkerKnown, WorkerRemoved
from openpool.core.jobs import tidy_reason
from openpool.core.money.fees import Due, Fees
from openpool.core.settings import DeskSettings
from openpool.core.stands import Counter, Line, Server, Stand, Stands
from openpool.core.step import Outbox, Step, Timers

FULL = "insufficient capacity: no worker has a place free for {app}; try again shortly"
FAILED = "the worker failed and no other could take over; try again, or ask about call {call}"
"""What went wrong in detail is for the operator: it may name hosts."""
STOPPED = "the pool stopped in the middle of it"
STOPS = f"{STOPPED}; begin anew shortly"
LATE = "the call was not done in time; give it more time, or ask for less"
NOBODY = "no worker serves {app} at the moment; see the list of models for those that are served"


class Desk:
    """Decides about calls. `fees` are those of the pool: a worker has one carry for all it does."""

    def __init__(self, settings: DeskSettings, epoch: int, fees: Fees) -> None:
        self.settings = settings
        self.fees = fees
        self.out = Outbox(epoch)
        self.timers = Timers()
        self.stands = Stands(settings, self.out, self.timers)
        self.calls: dict[str, Call] = {}
        """Those under way."""
        self.over: dict[str, Call] = {}
        self._places = Sessions(settings, self.out, self.timers, self.stands)
        self.sessions = self._places.open

    def handle(self, fact: CallFact, now_ms: int) -> Step:
        """What follows from a fact. `now_ms` is wall-clock time; if it steps back, it stands still.

        Anything may come twice, late, or never: what was handled once changes nothing again.
        """
        self.out.now_ms = now_ms = max(now_ms, self.out.now_ms)
        self.timers.run(now_ms)
        self._take(fact)
        self._serve_waiting()
        return self.out.take()

    def wake_at(self) -> int | None:
        """When a `Tick` is wanted at the latest; None if nothing is going on."""
        return self.timers.next_ms()

    @property
    def is_idle(self) -> bool:
        """Whether every call is over."""
        return not self.calls

    def capacities(self) -> dict[App, int]:
        """Calls that can run at once, by app: what may be told to orchestrators."""
        return {
            app: capacity
            for app, counter in self.stands.counters.items()
            if (capacity := counter.capacity)
        }

    def snapshot(self, now_ms: int) -> desk_views.DeskView:
        """The state of everything, for people."""
        return desk_views.snapshot(self, now_ms)

    def explain(self, worker: str, now_ms: int) -> list[Reason]:
        """Why a worker gets no, or few, calls; the weightiest reason first."""
        return desk_views.explain(self, worker, now_ms)

    def check(self) -> None:
        """Derive what can be derived and compare; raises AssertionError. For tests."""
        desk_check.check(self)

    def _take(self, fact: CallFact) -> None:
        match fact:
            case CallReceived():
                self._on_received(fact)
            case CallStarted():
                self._on_started(fact)
            case CallGoesOn():
                self._on_goes_on(fact)
            case CallEnded():
                self._on_ended(fact)
            case CallBroken():
                self._on_broken(fact)
            case CallCancelled():
                self._on_cancelled(fact)
            case CallLost():
                self._on_lost(fact)
            case PoolStops():
                self._on_pool_stops()
            case Tick():
                pass
            case OffersChanged():
                if (line := self.stands.lines.get(fact.line)) is not None:
                    self.stands.offer(line, fact.offers, fact.vram_mb)
            case LineUp():
                self._on_line_up(fact)
            case LineDown():
                self._on_line_down(fact)
            case WorkerKnown():
                if fact.worker in self.stands.servers:
                    self.stands.know(fact.worker, fact.address, fact.commission_ppm)
            case WorkerRemoved():
                self._on_worker_removed(fact)
            case SessionClosed():
                self._on_session_closed(fact)

    # --- calls ------------------------------------------------------------------------------------
    def _on_received(self, fact: CallReceived) -> None:
        if fact.call in self.calls or fact.call in self.over:
            return
        call = self.calls[fact.call] = Call(fact, self.out.now_ms)
        self.out.note(f"{call.id}/received", call_state.received(fact))
        if 0 < fact.deadline_ms <= self.out.now_ms:
            self._time_out(call)
            return
        if fact.deadline_ms:
            self._at(call, fact.deadline_ms, partial(self._time_out, call))
        self._place(call, "chosen")

    def _on_started(self, fact: CallStarted) -> None:
        call = self._running(fact.call, fact.attempt)
        if call is not None and call.state is CallState.RUNNING:
            self._start(call)

    def _start(self, call: Call) -> None:
        call.state, call.began = CallState.STARTED, True
        call.started_ms = self.out.now_ms
        if call.session is not None:
            call.session.used = True

    def _on_goes_on(self, fact: CallGoesOn) -> None:
        call = self._running(fact.call, fact.attempt)
        if call is not None and call.began and fact.usage.checked:
            call.used = fact.usage
            self._save(call, fact.usage)

    def _save(self, call: Call, usage: Usage) -> None:
        """Write down what a session has used, if that is due and more than was written before."""
        due_ms = max(call.started_ms, call.saved_ms) + self.settings.checkpoint_ms
        if self.out.now_ms < due_ms or usage.units <= call.saved_units:
            return
        assert call.stand is not None
        call.saved_ms, call.saved_units = self.out.now_ms, usage.units
        saved = call_state.checkpointed(call, call.stand.line.owner, usage)
        self.out.note(f"{call.id}/{call.attempts}/checkpointed/{usage.units}", saved)

    def _on_ended(self, fact: CallEnded) -> None:
        call = self._running(fact.call, fact.attempt)
        if call is None:
            return
        if call.state is CallState.RUNNING:
            self._start(call)
        stand = call.stand
        assert stand is not None
        if fact.usage.checked and not fact.blamed:
            self._learn(call, stand)
        self._complete(call, stand.line.owner, fact.usage, blamed=fact.blamed)
        if fact.blamed:
            self.stands.blame(stand.line.owner, fact.usage.note)

    def _learn(self, call: Call, stand: Stand) -> None:
        """A good answer: the worker earns trust, and shows how long it takes and that it is warm.

        Calls of sessions, and those that had to load the model, do not show how long one takes.
        """
        stand.counter.completed += 1
        self.stands.praise(stand.line.owner)
        if not call.cold and not call.asked.session:
            stand.times.observe(call, self.out.now_ms)
            stand.counter.usual.observe(call, self.out.now_ms)
        stand.warm = True

    def _complete(
        self, call: Call, owner: Server, usage: Usage, *, blamed: bool, cancelled: bool = False
    ) -> None:
        """The client has its answer; it is paid if it was found right."""
        done = call_state.completed(
            call, owner.name, usage, self.out.now_ms, blamed=blamed, cancelled=cancelled
        )
        self.out.note(f"{call.id}/completed", done)
        if usage.checked:
            self._credit(call, owner, usage)
        self._finish(call)

    def _credit(self, call: Call, owner: Server, usage: Usage) -> None:
        """Pay, if this call has a price and was counted in its unit."""
        quote = call.asked.quote
        if quote is None or quote.unit != usage.unit or usage.units < 0:
            return
        due = Due(
            job=call.id,
            payer=call.payer,
            worker=owner.name,
            address=owner.address,
            commission_ppm=owner.commission_ppm,
            units=usage.units,
            unit=usage.unit,
            price_wei=quote.price_wei,
            price_source=quote.source,
            pipeline=call.app.pipeline,
            model=call.app.model,
        )
        self.fees.credit(due, self.out)

    def _on_broken(self, fact: CallBroken) -> None:
        call = self._running(fact.call, fact.attempt)
        if call is not None:
            self._break(call, fact.reason, blamed=fact.blamed)

    def _break(self, call: Call, reason: str, *, blamed: bool) -> None:
        """The attempt failed: another worker is tried if nothing of an answer went out."""
        stand, session = call.stand, call.session
        assert stand is not None
        self._note_failed(call, stand.worker, reason, blamed)
        tied = session is not None and session.used
        self._let_go(call)
        if blamed:
            self.stands.blame(stand.line.owner, reason)
        if call.used is not None and not stand.line.owner.banned:
            text = FAILED.format(call=call.id)
            self.out.do(RefuseCall(call=call.id, code="worker-failed", text=text))
            self._pay_so_far(call, stand.line.owner, call.used, "it broke off")
        elif call.began or tied or call.attempts >= self.settings.attempts_max:
            self._fail(call, "worker-failed", FAILED.format(call=call.id))
        else:
            self._place(call, "retry")

    def _pay_so_far(self, call: Call, owner: Server, usage: Usage, then: str) -> None:
        """A session is over too early: what was right until then is paid."""
        usage = replace(usage, note=f"{usage.note}, before {then}")
        self._complete(call, owner, usage, blamed=False)

    def _on_lost(self, fact: CallLost) -> None:
        """The pool died in the middle of it: it is paid as its last checkpoint says, if any."""
        call, last = call_state.restored(fact), fact.last
        if call.id in self.calls or call.id in self.over:
            return
        self.calls[call.id] = call
        if last is None or call.used is None:
            self._end(call, "pool-restarted", STOPPED)
        else:
            self._note_failed(call, last.worker, STOPPED, blamed=False)
            owner = Server(last.worker, last.address, last.commission_ppm)
            self._pay_so_far(call, owner, call.used, "the pool stopped")

    def _on_pool_stops(self) -> None:
        """Every call is over, with what a session has used by now paid."""
        for call in list(self.calls.values()):
            stand = call.stand
            if stand is not None:
                self._stop(call)
                self._note_failed(call, stand.worker, STOPPED, blamed=False)
            if stand is not None and call.used is not None:
                self.out.do(RefuseCall(call=call.id, code="pool-restarted", text=STOPS))
                self._pay_so_far(call, stand.line.owner, call.used, "the pool stopped")
            else:
                self._fail(call, "pool-restarted", STOPS)

    def _note_failed(self, call: Call, worker: str, reason: str, blamed: bool) -> None:
        call.reason = reason = tidy_reason(reason)
        call.tried.append(worker)
        self.out.note(
            f"{call.id}/{call.attempts}/failed",
            events.CallAttemptFailed(
                job=call.id,
                attempt=call.attempts,
                worker=worker,
                reason=reason,
                blamed=blamed,
            ),
        )

    def _on_cancelled(self, fact: CallCancelled) -> None:
        """Nobody waits for it any more; what a client took of an answer is paid, if counted."""
        call = self.calls.get(fact.call)
        if call is None:
            return
        stand = call.stand
        self._stop(call)
        usage = fact.usage
        if stand is not None and call.began and usage is not None and usage.checked:
            self._complete(call, stand.line.owner, usage, blamed=False, cancelled=True)
        else:
            self._end(call, "cancelled", "the client hung up")

    def _time_out(self, call: Call) -> None:
        """No time is left. A worker that began no answer is to blame; one that did may have waited
        for a slow client."""
        stand = call.stand
        if stand is not None:
            self._stop(call)
            reason = "it was not done by the deadline"
            self._note_failed(call, stand.worker, reason, blamed=not call.began)
            self._let_go(call)
            if not call.began:
                self.stands.blame(stand.line.owner, reason)
        self._fail(call, "timeout", LATE)

    def _lose_patience(self, call: Call, attempt: int) -> None:
        """A worker that says nothing for long: another may be quicker, if one is free."""
        stand = call.stand
        if stand is None or call.began or call.attempts != attempt:
            return
        others = self._choose(call, *call.tried, stand.worker)
        if call.attempts < self.settings.attempts_max and others is not None:
            self._stop(call)
            self._break(call, "no answer began in the time that one worker has", blamed=True)

    def _stop(self, call: Call) -> None:
        """Tell the shell to cancel what runs."""
        if call.stand is not None:
            line = call.stand.line.id
            self.out.do(StopCall(call=call.id, attempt=call.attempts, line=line))

    def _running(self, call_id: str, attempt: int) -> Call | None:
        """The call, if this is its running attempt."""
        call = self.calls.get(call_id)
        return call if call and call.stand is not None and call.attempts == attempt else None

    # --- the end of a call ------------------------------------------------------------------------
    def _fail(self, call: Call, code: CallFailure, text: str) -> None:
        """No answer, or no whole one: the client is told. The log also has what went wrong."""
        if counter := self.stands.counters.get(call.app):
            counter.failed += 1
        self.out.do(RefuseCall(call=call.id, code=code, text=text))
        self._end(call, code, call.reason or text)

    def _end(self, call: Call, code: CallFailure, reason: str) -> None:
        self.out.note(f"{call.id}/failed", call_state.failed(call, code, reason, self.out.now_ms))
        self._finish(call)

    def _finish(self, call: Call) -> None:
        """The call is over: its place is free, its id is remembered a while."""
        self._let_go(call)
        if (counter := self.stands.counters.get(call.app)) is not None:
            counter.waiting.pop(call.id, None)
            self.stands.forget_if_unused(counter)
        for timer in call.timers:
            self.timers.cancel(timer)
        call.timers.clear()
        call.state = CallState.OVER
        self.over[call.id] = self.calls.pop(call.id)
        self.timers.at(self.out.now_ms + self.settings.linger_ms, partial(self._forget, call.id))

    def _forget(self, call_id: str) -> None:
        del self.over[call_id]

    def _at(self, call: Call, when_ms: int, action: partial[None]) -> None:
        call.timers.append(self.timers.at(when_ms, action))

    # --- giving calls to workers ------------------------------------------------------------------
    def _place(self, call: Call, reason: str) -> None:
        """Give a call to a worker, have it wait for one, or refuse it."""
        if self._assign(call, reason):
            return
        counter = self.stands.counters.get(call.app)
        if counter is None:
            self._fail(call, "no-such-app", NOBODY.format(app=call.app))
        elif not call.tried and len(counter.waiting) < self.settings.queue_max:
            call.state = CallState.WAITING
            counter.waiting[call.id] = call
            until_ms = self.out.now_ms + self.settings.queue_wait_ms
            self._at(call, until_ms, partial(self._waited_in_vain, call))
        else:
            self._refuse(call, counter)

    def _assign(self, call: Call, reason: str) -> bool:
        """Have a worker begin, if a place is free."""
        session = self.sessions.get(call.session_key) if call.session_key else None
        if session is not None:
            self._begin(call, session.stand, "session")
            return True
        stand = self._choose(call, *call.tried)
        if stand is not None:
            self._begin(call, stand, reason)
        return stand is not None

    def _choose(self, call: Call, *without: str) -> Stand | None:
        counter = self.stands.counters.get(call.app)
        if counter is None:
            return None
        cold_load_ms = self.settings.cold_load_ms
        return counter.choose(call.asked, self.out.now_ms, cold_load_ms, without)

    def _begin(self, call: Call, stand: Stand, reason: str) -> None:
        asked, now_ms, owner = call.asked, self.out.now_ms, stand.line.owner
        stand.counter.waiting.pop(call.id, None)
        predicted_ms = stand.predict_ms(asked.work, asked.streaming)
        if not stand.warm:
            predicted_ms += self.settings.cold_load_ms
        call.state, call.stand = CallState.RUNNING, stand
        call.assigned_ms, call.load, call.cold = now_ms, stand.load, not stand.warm
        call.attempts += 1
        stand.make_room()
        stand.calls[call.id] = call
        self._take_place(call, stand)
        stand.counter.charge(stand, asked.work)
        stand.times.of(asked.streaming).begin(now_ms)
        owner.assigned += 1
        owner.last_assigned_ms = now_ms
        if asked.patience_ms:
            patience = partial(self._lose_patience, call, call.attempts)
            self._at(call, now_ms + asked.patience_ms, patience)
        self._say(call, stand, predicted_ms, reason)

    def _take_place(self, call: Call, stand: Stand) -> None:
        """A place for the call, or for its session if that has none yet."""
        key = call.session_key
        if key is None:
            self.stands.take(stand)
            return
        session = self.sessions.get(key) or self._places.begin(key, call.asked, stand)
        session.calls += 1
        call.session = session

    def _say(self, call: Call, stand: Stand, predicted_ms: int, reason: str) -> None:
        self.out.do(
            StartCall(
                call=call.id,
                attempt=call.attempts,
                worker=stand.worker,
                line=stand.line.id,
                app=call.app,
                deadline_ms=call.asked.deadline_ms,
            )
        )
        self.out.note(
            f"{call.id}/{call.attempts}/assigned",
            events.CallAssigned(
                job=call.id,
                attempt=call.attempts,
                worker=stand.worker,
                predicted_ms=predicted_ms,
                warm=stand.warm,
                reason=reason,
            ),
        )

    def _let_go(self, call: Call) -> None:
        """The call does not occupy its worker any more; saying so twice is no error."""
        stand, session = call.stand, call.session
        if stand is None:
            return
        call.stand = call.session = None
        del stand.calls[call.id]
        if session is None:
            self.stands.give_back(stand)
            return
        self._places.leave(session)

    def _refuse(self, call: Call, counter: Counter) -> None:
        counter.refused += 1
        if call.reason:
            self._fail(call, "worker-failed", FAILED.format(call=call.id))
        else:
            self._fail(call, "insufficient-capacity", FULL.format(app=call.app))

    def _waited_in_vain(self, call: Call) -> None:
        if call.state is CallState.WAITING:
            self._refuse(call, self.stands.counters[call.app])

    def _serve_waiting(self) -> None:
        """Give places that came free to waiting calls, oldest first."""
        freed = self.stands.freed
        while freed:
            _, counter = freed.popitem()
            while counter.waiting and self._assign(next(iter(counter.waiting.values())), "waited"):
                pass

    # --- sessions ---------------------------------------------------------------------------------
    def _on_session_closed(self, fact: SessionClosed) -> None:
        name = payer_of(fact.customer, fact.orchestrator)
        self._places.close((name, fact.app, fact.session))

    # --- lines and workers ------------------------------------------------------------------------
    def _on_line_up(self, fact: LineUp) -> None:
        if fact.line in self.stands.lines:
            return
        server = self.stands.know(fact.worker, fact.address, fact.commission_ppm)
        server.banned = ""
        self.stands.connect(fact.line, server, fact.peer)
        opened = events.LineOpened(worker=server.name, line=fact.line)
        self.out.note(f"{fact.line}/opened", opened)

    def _on_line_down(self, fact: LineDown) -> None:
        line = self.stands.lines.get(fact.line)
        if line is not None:
            self._lose(line, fact.reason)

    def _on_worker_removed(self, fact: WorkerRemoved) -> None:
        """A banned worker serves nothing any more, and earns nothing with what it has."""
        server = self.stands.servers.get(fact.worker)
        if server is None:
            return
        server.banned = fact.reason or "no reason was given"
        for line in list(server.lines.values()):
            self._lose(line, "the worker was banned")

    def _lose(self, line: Line, reason: str) -> None:
        """A line is gone: its calls are tried elsewhere, if nothing of an answer went out.

        However many calls were lost, the worker is blamed once: it may be nobody's fault.
        """
        stands = list(line.stands.values())
        calls = [call for stand in stands for call in stand.calls.values()]
        self._places.lose(line, reason)
        for stand in stands:
            stand.counter.stands.pop(line.id, None)
        for call in calls:
            self._stop(call)
            self._break(call, f"its connection was lost ({reason})", blamed=False)
        self.stands.disconnect(line)
        if calls and not line.owner.banned:
            self.stands.blame(line.owner, f"its connection was lost ({reason})")
        closed = events.LineClosed(worker=line.owner.name, line=line.id, reason=tidy_reason(reason))
        self.out.note(f"{line.id}/closed", closed)
