"""Any order of facts about calls: Hypothesis looks for an order that breaks the desk.

Invariants, checked after every step:
1. No stand has more calls and sessions than places, and every index agrees (`Desk.check`).
2. Every call is answered once: an answer that begins, one refusal, or its client hung up.
3. Nobody is tried after the first byte, and nobody twice for one call without a session.
4. A fee is credited at most once per call, for a checked and priced answer of the worker that
   gave it, to the wei, with the carry worth exactly the units; all accounts sum to zero.
5. Saying a fact twice records nothing new and moves nothing.
6. If the pool dies, also while it starts, each open call ends once, paid as its last checkpoint.
"""

from collections import Counter, defaultdict
from fractions import Fraction
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from openpool.core.call_facts import (
    CallBroken,
    CallCancelled,
    CallEnded,
    CallFact,
    CallGoesOn,
    CallReceived,
    CallStarted,
    LineDown,
    LineUp,
    OffersChanged,
    PoolStops,
    SessionClosed,
)
from openpool.core.call_instructions import RefuseCall, SessionLost, StartCall, StopCall
from openpool.core.call_state import lost
from openpool.core.calls import App, Offer, Usage
from openpool.core.desk import Desk
from openpool.core.events import (
    CallAttemptFailed,
    CallCheckpointed,
    CallCompleted,
    CallFailed,
    CommissionTaken,
    Event,
    FeeCredited,
)
from openpool.core.facts import Tick, WorkerRemoved
from openpool.core.money.fees import Fees
from openpool.core.money.ledger import Balances, transfers_of
from openpool.core.prices import Quote
from openpool.core.settings import DeskSettings
from openpool.store.books import PIPELINE, Books

APPS = (App("llm", "tiny"), App("llm", "org/large"), App("moderation", "words"))
APP = st.sampled_from(APPS)
WORKERS = st.sampled_from(["w0", "w1", "w2"])
PICKS = st.integers(0, 1000)
"""Which one of those that there are."""
REASONS = st.sampled_from(["out of memory", "", "\x1b[2J" * 99])
UNTOLD = ("cancelled", "pool-restarted")
"""Failures of which no client needs to be told."""
QUOTES = st.sampled_from(
    [
        None,
        Quote(unit="token", price_wei=Fraction(10**9), source="config"),
        Quote(unit="token", price_wei=Fraction(1, 3), source="config"),
        Quote(unit="token", price_wei=Fraction(7, 11), source="config"),
        Quote(unit="request", price_wei=Fraction(5), source="config"),
    ]
)
OFFERS = st.lists(
    st.builds(
        Offer,
        app=APP,
        capacity=st.integers(-1, 3),
        warm=st.booleans(),
        vram_mb=st.sampled_from([0, 4_000, 7_000]),
    ),
    max_size=4,
)


SETTINGS = DeskSettings(
    queue_max=2, cooldown_failures=2, attempts_max=3, capacity_max=2, checkpoint_ms=500
)


class DeskMachine(RuleBasedStateMachine):
    """The world of calls, as arbitrary as the types allow."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 10**12
        self.desk = Desk(
            SETTINGS,
            epoch=1,
            fees=Fees(),
        )
        self.log: dict[str, Event] = {}
        self.count = 0
        self.lines = 0
        self.tried: dict[str, list[str]] = defaultdict(list)
        self.begun: set[str] = set()
        self.refused: Counter[str] = Counter()
        self.asked: dict[str, CallReceived] = {}
        self.open_sessions: set[tuple[App, str]] = set()

    def feed(self, fact: CallFact) -> None:
        """A fact, and at once the same again."""
        self._handle(fact)
        step = self.desk.handle(fact, self.now)
        self.desk.check()
        assert [event for event in step.events if event.id not in self.log] == []
        assert step.instructions == []

    def _handle(self, fact: CallFact) -> None:
        step = self.desk.handle(fact, self.now)
        self.desk.check()
        for event in step.events:
            assert event.id not in self.log, f"{event.id} came twice"
            self.log[event.id] = event
        for what in step.instructions:
            self._obey(what)

    def _obey(self, what: Any) -> None:
        match what:
            case StartCall():
                self._obey_start(what)
            case RefuseCall():
                self.refused[what.call] += 1
            case StopCall():
                assert what.attempt <= len(self.tried[what.call])
            case SessionLost():
                self.open_sessions.discard((what.app, what.session))

    def _obey_start(self, what: StartCall) -> None:
        asked = self.asked[what.call]
        assert what.call not in self.begun, "tried again after the first byte"
        assert not self.refused[what.call], "tried after it was refused"
        assert what.attempt == len(self.tried[what.call]) + 1 <= 3
        assert what.app == asked.app
        assert what.worker not in self.tried[what.call] or asked.session
        line = self.desk.stands.lines[what.line]
        assert line.owner.name == what.worker
        assert asked.deadline_ms == 0 or self.now < asked.deadline_ms
        self.tried[what.call].append(what.worker)

    def call(self, pick: int) -> tuple[str, int]:
        """A call under way and its running attempt; now and then something stale or unknown."""
        known = list(self.desk.calls.values())
        if not known or pick % 10 == 0:
            stale = list(self.desk.over)
            return (stale[pick % len(stale)], 1) if stale else ("unknown", 1)
        call = known[pick % len(known)]
        return call.id, max(0, call.attempts - (pick % 7 == 0))

    # --- rules ---------------------------------------------------------------------------------

    @initialize()
    def two_workers_are_there(self) -> None:
        offers = [Offer(app=app, capacity=2, warm=app.model == "tiny") for app in APPS]
        self.line_opens("w0", offers)
        self.line_opens("w1", offers)

    @rule(ms=st.sampled_from([1, 50, 600, 2_100, 9_000, 130_000]))
    def time_passes(self, ms: int) -> None:
        end = self.now + ms
        while (wake := self.desk.wake_at()) is not None and wake <= end:
            self.now = max(self.now, wake)
            self._handle(Tick())
        self.now = end

    @rule(worker=WORKERS, offers=OFFERS)
    def line_opens(self, worker: str, offers: list[Offer]) -> None:
        self.lines += 1
        line = f"l{self.lines}"
        self.feed(LineUp(line=line, worker=worker, address=f"0x{worker}", commission_ppm=333_333))
        self.feed(OffersChanged(line=line, offers=tuple(offers)))

    @rule(pick=PICKS, offers=OFFERS, vram_mb=st.sampled_from([0, 8_000, 12_000]))
    def offers_change(self, pick: int, offers: list[Offer], vram_mb: int) -> None:
        line = f"l{1 + pick % max(1, self.lines)}"
        self.feed(OffersChanged(line=line, offers=tuple(offers), vram_mb=vram_mb))

    @rule(pick=st.integers(0, 30))
    def line_breaks(self, pick: int) -> None:
        self.feed(LineDown(line=f"l{pick}", reason="reset"))

    @rule(worker=WORKERS)
    def worker_is_banned(self, worker: str) -> None:
        self.feed(WorkerRemoved(worker=worker, reason="cheated"))

    @rule(
        app=APP,
        direct=st.booleans(),
        session=st.sampled_from(["", "", "s", "t"]),
        work=st.integers(0, 1000),
        time_ms=st.sampled_from([0, 0, 1, 500, 60_000]),
        patience_ms=st.sampled_from([0, 400]),
        quote=QUOTES,
    )
    def call_comes(
        self,
        app: App,
        direct: bool,
        session: str,
        work: int,
        time_ms: int,
        patience_ms: int,
        quote: Quote | None,
    ) -> None:
        self.count += 1
        fact = CallReceived(
            call=f"k{self.count}",
            app=app,
            source="direct" if direct else "live-runner",
            customer="c_a" if direct else "",
            orchestrator="" if direct else "o",
            session=session,
            work=work,
            deadline_ms=self.now + time_ms if time_ms else 0,
            patience_ms=patience_ms,
            quote=quote,
        )
        self.asked[fact.call] = fact
        self.feed(fact)

    @rule(pick=PICKS)
    def answer_begins(self, pick: int) -> None:
        call, attempt = self.call(pick)
        known = self.desk.calls.get(call)
        if known and known.attempts == attempt and known.stand:
            self.begun.add(call)
        self.feed(CallStarted(call=call, attempt=attempt))

    @rule(
        pick=PICKS,
        units=st.integers(0, 10**9),
        unit=st.sampled_from(["token", "token", "request"]),
        checked=st.booleans(),
        blamed=st.booleans(),
    )
    def answer_ends(self, pick: int, units: int, unit: Any, checked: bool, blamed: bool) -> None:
        call, attempt = self.call(pick)
        known = self.desk.calls.get(call)
        if known and known.attempts == attempt and known.stand:
            self.begun.add(call)
        usage = Usage(unit=unit, units=units, checked=checked, note="counted")
        self.feed(CallEnded(call=call, attempt=attempt, usage=usage, blamed=blamed))

    @rule(pick=PICKS, units=st.integers(0, 10**6), checked=st.booleans())
    def answer_goes_on(self, pick: int, units: int, checked: bool) -> None:
        call, attempt = self.call(pick)
        usage = Usage(unit="token", units=units, checked=checked)
        self.feed(CallGoesOn(call=call, attempt=attempt, usage=usage))

    @rule()
    def pool_stops(self) -> None:
        self.feed(PoolStops())

    @rule(kept=st.integers(0, 3), again=st.booleans())
    def pool_dies(self, kept: int, again: bool) -> None:
        """Invariant 6. If it dies again, only some of what its start found was on disk by then."""
        if again:
            for story in self._restart()[:kept]:
                self._handle(lost(story))
            for story in self._stories(self.books())[kept:]:
                self.desk.handle(lost(story), self.now)  # and this was not
        for story in self._restart():
            self.feed(lost(story))
            job = story[0].data.job
            done = self.log.get(f"{job}/completed")
            saved = story[-1].data
            assert (done is not None) == isinstance(saved, CallCheckpointed)
            if done is not None:
                assert (done.data.units, done.data.worker) == (saved.units, saved.worker)
        assert not self.books().open_calls

    def _restart(self) -> list[list[Event]]:
        """A desk from the log alone; what is open in it."""
        books = self.books()
        self.desk = Desk(SETTINGS, epoch=1, fees=Fees(books.carries))
        self.open_sessions.clear()
        return self._stories(books)

    def books(self) -> Books:
        books = Books()
        for seq, event in enumerate(self.log.values(), 1):
            books.apply(seq, event)
        return books

    def _stories(self, books: Books) -> list[list[Event]]:
        log = list(self.log.values())
        stories = []
        for job in books.open_calls:
            story = [event for event in log if getattr(event.data, "job", "") == job]
            saved = books.checkpoints.get(job)
            stories.append(story + ([log[saved - 1]] if saved else []))
        return stories

    @rule(app=APP, direct=st.booleans(), units=st.integers(0, 10**9), quote=QUOTES)
    def a_call_goes_well(self, app: App, direct: bool, units: int, quote: Quote | None) -> None:
        """The whole way, so that money is seen in most plays."""
        self.call_comes(app, direct, "", 1, 0, 0, quote)
        call = self.desk.calls.get(f"k{self.count}")
        if call is not None and call.stand is not None:
            self.begun.add(call.id)
            self.feed(CallStarted(call=call.id, attempt=1))
            usage = Usage(unit=quote.unit if quote else "token", units=units, checked=True)
            self.feed(CallEnded(call=call.id, attempt=1, usage=usage))

    @rule(pick=PICKS, reason=REASONS, blamed=st.booleans())
    def answer_breaks(self, pick: int, reason: str, blamed: bool) -> None:
        call, attempt = self.call(pick)
        self.feed(CallBroken(call=call, attempt=attempt, reason=reason, blamed=blamed))

    @rule(pick=PICKS, units=st.none() | st.integers(0, 10**6), checked=st.booleans())
    def client_hangs_up(self, pick: int, units: int | None, checked: bool) -> None:
        usage = None if units is None else Usage(unit="token", units=units, checked=checked)
        self.feed(CallCancelled(call=self.call(pick)[0], usage=usage))

    @rule(app=APP, session=st.sampled_from("st"), direct=st.booleans())
    def session_closes(self, app: App, session: str, direct: bool) -> None:
        customer, orchestrator = ("c_a", "") if direct else ("", "o")
        self.feed(
            SessionClosed(app=app, session=session, customer=customer, orchestrator=orchestrator)
        )

    # --- invariants ----------------------------------------------------------------------------

    @invariant()
    def every_call_is_answered_once(self) -> None:
        """Invariant 2."""
        ends = Counter(
            event.data.job
            for event in self.log.values()
            if isinstance(event.data, CallCompleted | CallFailed)
        )
        for call in self.asked:
            over = call not in self.desk.calls
            assert ends[call] == over, f"{call} ended {ends[call]} times"
            assert self.refused[call] <= 1
            if not over:
                assert not self.refused[call], "refused, but it goes on"
                continue
            failed = self.log.get(f"{call}/failed")
            told = call in self.begun or self.refused[call] or failed.data.code in UNTOLD
            assert told, f"nobody told the client of {call}"
            if failed is None and self.refused[call]:
                broke = f"{call}/{len(self.tried[call])}/failed"
                assert broke in self.log, "answered, and refused as well"

    @invariant()
    def a_place_is_held_for_a_reason(self) -> None:
        """Invariant 1, from outside: no more calls run on a stand than it has ever had places."""
        for stand in self.desk.stands.all():
            assert stand.taken <= 2

    @invariant()
    def money_is_exact(self) -> None:
        """Invariant 4."""
        worth: dict[tuple[str, int], Fraction] = defaultdict(Fraction)
        balances = Balances()
        for event in self.log.values():
            for transfer in transfers_of(event):
                balances.post(transfer)
            fee = event.data
            if not isinstance(fee, FeeCredited):
                continue
            self._check_fee(fee)
            price = Fraction(fee.price_wei)
            worth[fee.worker, price.denominator] += price * fee.pixels - int(fee.fee_wei)
        for (worker, denominator), left in worth.items():
            carry = self.desk.fees.carries.get((worker, denominator), 0)
            assert left == Fraction(carry, denominator)
        assert balances.total() == 0
        assert balances.faults() == []

    def _check_fee(self, fee: FeeCredited) -> None:
        done = self.log[f"{fee.job}/completed"].data
        taken = self.log[f"{fee.job}/commission-taken"].data
        quote = self.asked[fee.job].quote
        assert isinstance(done, CallCompleted)
        assert isinstance(taken, CommissionTaken)
        assert done.checked
        assert (done.units, done.unit, done.worker) == (fee.pixels, fee.unit, fee.worker)
        assert quote is not None
        assert (quote.unit, quote.price_wei) == (fee.unit, Fraction(fee.price_wei))
        assert self.tried[fee.job][-1] == fee.worker
        assert int(fee.worker_wei) + int(taken.commission_wei) == int(fee.fee_wei)
        payer = "customer:c_a" if self.asked[fee.job].customer else "o"
        assert fee.orchestrator == taken.orchestrator == payer

    @invariant()
    def what_is_worth_paying_is_paid(self) -> None:
        """Invariant 4, the other way round: a checked answer in the unit of its price has a fee."""
        for event in self.log.values():
            done = event.data
            if isinstance(done, CallCompleted) and done.checked:
                quote = self.asked[done.job].quote
                paid = f"{done.job}/fee-credited" in self.log
                assert paid == (quote is not None and quote.unit == done.unit)

    def teardown(self) -> None:
        """In the end everything is let go, and the books can be made from the log alone."""
        for line in list(self.desk.stands.lines):
            self._handle(LineDown(line=line, reason="the end"))
        for call in list(self.desk.calls):
            self._handle(CallCancelled(call=call))
        assert self.desk.is_idle
        assert not self.desk.sessions
        assert not self.desk.stands.counters
        self.time_passes(130_000)
        assert not self.desk.over
        books = Books()
        for seq, event in enumerate(self.log.values(), 1):
            books.apply(seq, event)
        assert books.carries == self.desk.fees.carries
        assert sum(books.balances.amounts.values()) == 0
        by_pipeline = sum(
            tally.calls for (name, _), tally in books.tallies.items() if name.startswith(PIPELINE)
        )
        everywhere = sum(tally.calls for (name, _), tally in books.tallies.items() if name)
        calls = everywhere - by_pipeline  # what is left is filed under a worker
        assert calls == by_pipeline
        good = [e.data for e in self.log.values() if isinstance(e.data, CallCompleted)]
        assert calls == sum(done.checked for done in good)
        blamed = sum(
            e.data.blamed
            for e in self.log.values()
            if isinstance(e.data, CallAttemptFailed | CallCompleted)
        )
        assert blamed == sum(worker.calls_failed for worker in books.workers.values())


DeskMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
test_desk_machine = DeskMachine.TestCase
