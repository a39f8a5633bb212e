"""The desk from its door: money, choices and bounds that the scenarios do not show in figures."""

from collections import Counter
from collections.abc import Container
from fractions import Fraction
from typing import Any

import msgspec
import pytest

from openpool.core.call_facts import (
    CallBroken,
    CallCancelled,
    CallEnded,
    CallGoesOn,
    CallReceived,
    CallStarted,
    LineDown,
    LineUp,
    OffersChanged,
    PoolStops,
)
from openpool.core.call_instructions import RefuseCall, StartCall
from openpool.core.call_state import lost
from openpool.core.calls import App, Offer, Usage
from openpool.core.desk import Desk
from openpool.core.events import (
    CallAttemptFailed,
    CallCheckpointed,
    CallCompleted,
    CallFailed,
    Event,
    FeeCredited,
    decode_payload,
    encode_payload,
)
from openpool.core.facts import (
    Delivered,
    OrchestratorSeen,
    PriceKnown,
    ResultChecked,
    ResultReceived,
    SegmentReceived,
    WorkerUp,
)
from openpool.core.instructions import Assign
from openpool.core.model import Profile, Rendition, Segment, Verdict
from openpool.core.money.fees import Fees
from openpool.core.money.ledger import transfers_of
from openpool.core.money.receipts import faults_of, receipt_of
from openpool.core.pool import Pool, PoolSettings
from openpool.core.prices import PriceList, PriceRow, Quote, rate_of
from openpool.core.settings import DeskSettings
from openpool.core.step import Step
from openpool.store.books import Books

TINY = App("llm", "org/tiny")


class Bench:
    """A desk, a clock, and the log."""

    def __init__(self, fees: Fees | None = None, **settings: int) -> None:
        self.desk = Desk(DeskSettings(**settings), 1, fees or Fees())
        self.now = 1_700_000_000_000
        self.log: list[Event] = []
        self.count = 0

    def feed(self, fact: Any, after_ms: int = 0) -> Step:
        self.now += after_ms
        step = self.desk.handle(fact, self.now)
        self.desk.check()
        self.log += step.events
        return step

    def worker(self, name: str, *offers: Offer, vram_mb: int = 0) -> None:
        self.feed(LineUp(line=name, worker=name, address=f"0x{name}", commission_ppm=250_000))
        self.feed(OffersChanged(line=name, offers=offers or (offer(),), vram_mb=vram_mb))

    def call(self, app: App = TINY, **more: Any) -> StartCall | RefuseCall:
        self.count += 1
        values = {"customer": "c_1", "source": "direct", **more}
        fact = CallReceived(call=f"k{self.count}", app=app, **values)
        step = self.feed(fact)
        (what,) = step.instructions
        assert isinstance(what, StartCall | RefuseCall)
        return what

    def started(self, app: App = TINY, **more: Any) -> StartCall:
        start = self.call(app, **more)
        assert isinstance(start, StartCall)
        return start

    def end(self, start: StartCall, units: int = 1, took_ms: int = 0, **more: Any) -> Step:
        usage = Usage(unit="token", units=units, checked=True)
        values = {"usage": usage, **more}
        return self.feed(CallEnded(call=start.call, attempt=start.attempt, **values), took_ms)

    def fees(self) -> list[FeeCredited]:
        return [event.data for event in self.log if isinstance(event.data, FeeCredited)]


def offer(app: App = TINY, capacity: int = 1, **more: Any) -> Offer:
    return Offer(app=app, capacity=capacity, **{"warm": True, **more})


def per_second(price: str) -> Quote:
    return Quote(unit="second", price_wei=Fraction(price), source="config")


def per_token(price: str) -> Quote:
    return Quote(unit="token", price_wei=Fraction(price), source="config")


# --- money ----------------------------------------------------------------------------------------


def test_a_worker_has_one_carry_for_segments_and_calls() -> None:
    """A third of a wei left over by a segment is paid out by a call at a price in thirds."""
    pool = Pool(PoolSettings(), {"main": 1}, epoch=1)
    bench = Bench(fees=pool.fees)
    _segment_by(pool, "alice", pixels=100)
    assert pool.fees.carries == {("alice", 3): 1}
    bench.worker("alice")
    bench.end(bench.started(quote=per_token("1/3")), units=2)
    (fee,) = bench.fees()
    assert (fee.fee_wei, fee.carry) == ("1", "0/3")
    assert pool.fees.carries == {}


def _segment_by(pool: Pool, worker: str, pixels: int) -> None:
    profile = Profile(name="a", width=640, height=360, bitrate_bps=1)
    segment = Segment(seq=0, duration_ms=2000, profiles=(profile,))
    rendition = Rendition(
        name="a", width=640, height=360, frames=1, pixels=pixels, bytes=1, sha256=""
    )
    facts: list[Any] = [
        OrchestratorSeen(orchestrator="main", incarnation="c"),
        PriceKnown(orchestrator="main", manifest="", price_wei=Fraction(1, 3), source="config"),
        WorkerUp(
            worker=worker, address=f"0x{worker}", connection="c1", kind="stock", capacity=1,
            capabilities=3, version="0.9.1", commission_ppm=250_000,
        ),
        SegmentReceived(
            orchestrator="main", incarnation="c", group="g", task_id=1, session="s", manifest="m",
            segment=segment,
        ),
    ]  # fmt: skip
    steps = [pool.handle(fact, 1000) for fact in facts]
    (assign,) = [each for each in steps[-1].instructions if isinstance(each, Assign)]
    pool.handle(ResultReceived(attempt=assign.attempt, worker=worker, bytes=1), 1000)
    verdict = Verdict(ok=True, renditions=(rendition,))
    pool.handle(ResultChecked(attempt=assign.attempt, verdict=verdict), 1000)
    pool.handle(Delivered(job=assign.job, accepted=True), 1000)


def test_a_million_tokens_cost_what_the_list_says() -> None:
    """Ten thousand small calls at half a dollar per million tokens add up to the exact price."""
    rate = rate_of("3000", 0, "feed")
    row = PriceRow(
        pipeline="llm", model="*", unit="token", amount=Fraction("0.5"), currency="usd",
        per=1_000_000,
    )  # fmt: skip
    quote = PriceList([row]).quote(TINY, rate)
    bench = Bench()
    bench.worker("alice")
    for _ in range(1_000):
        bench.end(bench.started(quote=quote), units=1_000)
    total = sum(int(fee.fee_wei) for fee in bench.fees())
    assert total == rate.wei_per_usd // 2


def test_the_price_and_its_rate_are_in_the_log() -> None:
    """A call's page can show which price in USD became how many wei, by which rate, from whom."""
    rate = rate_of("2500", 1_699_000_000_000, "feed")
    row = PriceRow(
        pipeline="*", model="*", unit="request", amount=Fraction("0.01"), currency="usd", per=1
    )
    bench = Bench()
    bench.worker("alice")
    bench.started(quote=PriceList([row]).quote(TINY, rate))
    data = next(event.data for event in bench.log if event.type == "call-received")
    assert (data.unit, data.price_wei, data.price_source) == ("request", str(4 * 10**12), "config")
    assert (data.usd, data.wei_per_usd) == ("1/100 per 1", str(4 * 10**14))
    assert (data.rate_ms, data.rate_source) == (1_699_000_000_000, "feed")


def test_customers_and_orchestrators_pay_from_their_own_accounts() -> None:
    """A customer's call debits the customer, an orchestrator's its fees; nothing gets lost."""
    bench = Bench()
    bench.worker("alice")
    bench.end(bench.started(quote=per_token("8")), units=10)
    by_runner = bench.started(
        quote=per_token("4"), customer="", orchestrator="main", source="live-runner"
    )
    bench.end(by_runner, units=10)
    books = Books()
    for seq, event in enumerate(bench.log, 1):
        books.apply(seq, event)
    assert books.balances.amounts == {
        "customer:c_1": -80,
        "fees:main": -40,
        "worker:0xalice": 90,
        "commission": 30,
    }
    assert books.balances.faults() == []


def test_every_event_of_a_call_survives_the_log() -> None:
    """What the desk notes can be written and read again unchanged, filed under the call."""
    bench = Bench(cooldown_failures=1)
    bench.worker("alice")
    bench.end(bench.started(quote=per_token("1/3")), units=7)
    start = bench.started()
    bench.feed(CallBroken(call=start.call, attempt=1, reason="gone", blamed=True))
    bench.feed(LineDown(line="alice", reason="reset"))
    kinds = Counter(event.type for event in bench.log)
    assert len(kinds) == 10
    for event in bench.log:
        assert decode_payload(encode_payload(event.data)) == event.data
        if event.type.startswith("call-"):
            assert event.data.job in event.id
    assert msgspec.json.decode(encode_payload(bench.log[-1].data))["type"] == "line-closed"


def test_the_right_part_of_a_spoilt_answer_is_paid_and_blamed() -> None:
    """A session that was right for a while is paid for that while, once; its worker cools down all
    the same, and its times teach nothing."""
    bench = Bench(cooldown_failures=1)
    bench.worker("alice")
    start = bench.started(quote=per_token("10"))
    for _ in range(2):
        bench.end(start, units=7, took_ms=500, blamed=True)
    (fee,) = bench.fees()
    assert (fee.fee_wei, fee.worker) == ("70", "alice")
    types = Counter(event.type for event in bench.log)
    assert types["call-completed"] == types["worker-cooled-down"] == 1
    assert bench.desk.snapshot(bench.now).apps[0].completed == 0


def watched(bench: Bench, seconds: int, **more: Any) -> StartCall:
    """A session of which so many seconds were right, told second by second."""
    start = bench.started(session="s", **more)
    bench.feed(CallStarted(call=start.call, attempt=1))
    for units in range(1, seconds + 1):
        usage = Usage(unit="second", units=units, checked=True, note="seen")
        bench.feed(CallGoesOn(call=start.call, attempt=1, usage=usage), 1000)
    return start


def reborn(bench: Bench, banned: Container[str] = ()) -> Bench:
    """A bench whose pool died and starts from the log alone, told twice what was open."""
    books = Books()
    for seq, event in enumerate(bench.log, 1):
        books.apply(seq, event)
    again = Bench(Fees(books.carries))
    again.now = bench.now + 10**6
    for job in books.open_calls:
        story = [event for event in bench.log if getattr(event.data, "job", "") == job]
        if job in books.checkpoints:
            story.append(bench.log[books.checkpoints[job] - 1])
        for _ in range(2):
            again.feed(lost(story, banned))
    return again


def test_a_checkpoint_is_written_each_minute_and_moves_nothing() -> None:
    """Of 150 seconds told one by one, two are written down, with all that was used until then."""
    bench = Bench()
    bench.worker("alice")
    watched(bench, 150, quote=per_second("7/3"))
    saved = [event for event in bench.log if isinstance(event.data, CallCheckpointed)]
    assert [event.data.units for event in saved] == [60, 120]
    assert [transfers_of(event) for event in saved] == [(), ()]
    assert decode_payload(encode_payload(saved[0].data)) == saved[0].data


def test_a_session_is_paid_to_its_last_checkpoint_when_the_pool_dies() -> None:
    """The same fee, carry and commission, to the wei, as for a session that ended there; once."""
    died, ended = Bench(), Bench()
    for bench in (died, ended):
        bench.worker("alice")
        bench.end(bench.started(quote=per_token("1/3")), units=2)
    watched(died, 150, quote=per_second("7/3"))
    start = ended.started(quote=per_second("7/3"), session="s")
    ended.end(start, usage=Usage(unit="second", units=120, checked=True))
    again = reborn(died)
    (fee,) = again.fees()
    assert fee == ended.fees()[-1]
    assert (fee.pixels, fee.fee_wei, fee.carry) == (120, "280", "2/3")
    assert again.desk.fees.carries == ended.desk.fees.carries
    (done,) = [event.data for event in again.log if isinstance(event.data, CallCompleted)]
    assert (done.note, done.took_ms) == ("seen, before the pool stopped", 120_000)
    (broke,) = [event.data for event in again.log if isinstance(event.data, CallAttemptFailed)]
    assert (broke.reason, broke.blamed) == ("the pool stopped in the middle of it", False)
    receipt = receipt_of(fee, pool="p", seq=1, round=1, time_ms=1, carry_before="2/3")
    assert faults_of(receipt) == []


@pytest.mark.parametrize(("seconds", "banned"), [(59, ()), (150, ("alice",))])
def test_without_a_checkpoint_that_counts_a_lost_call_has_failed(
    seconds: int, banned: tuple[str, ...]
) -> None:
    """A session that is too young, or whose worker was banned in the meantime, is not paid."""
    bench = Bench()
    bench.worker("alice")
    watched(bench, seconds, quote=per_second("1"))
    again = reborn(bench, banned)
    (failed,) = [event.data for event in again.log]
    assert isinstance(failed, CallFailed)
    assert (failed.code, failed.attempts) == ("pool-restarted", 1)


def test_a_pool_that_stops_pays_sessions_to_the_last_second() -> None:
    """What is open ends: a session is paid until now, everything else has failed; once."""
    bench = Bench()
    bench.worker("alice", offer(capacity=2))
    session = watched(bench, 150, quote=per_second("1"))
    other = bench.started(quote=per_token("1"))
    steps = [bench.feed(PoolStops()) for _ in range(2)]
    refused = [each for each in steps[0].instructions if isinstance(each, RefuseCall)]
    assert {each.call: each.code for each in refused} == dict.fromkeys(
        (session.call, other.call), "pool-restarted"
    )
    assert steps[1].events == steps[1].instructions == []
    (fee,) = bench.fees()
    assert (fee.job, fee.pixels) == (session.call, 150)
    assert bench.desk.is_idle
    assert reborn(bench).log == []


# --- who gets a call ------------------------------------------------------------------------------


def test_equals_share_in_proportion_to_their_places() -> None:
    """Over many calls one at a time, a worker with three places gets three times as many."""
    bench = Bench()
    bench.worker("small", offer(capacity=1))
    bench.worker("large", offer(capacity=3))
    served: Counter[str] = Counter()
    for _ in range(400):
        start = bench.started()
        served[start.worker] += 1
        bench.end(start, took_ms=100)
    assert served == {"small": 100, "large": 300}


def test_who_comes_late_does_not_get_everything() -> None:
    """A new worker starts where the others are, and does not catch up with their past."""
    bench = Bench()
    bench.worker("old")
    for _ in range(300):
        bench.end(bench.started(), took_ms=10)
    bench.worker("new")
    served: Counter[str] = Counter()
    for _ in range(100):
        start = bench.started()
        served[start.worker] += 1
        bench.end(start, took_ms=10)
    assert 40 <= served["old"] <= 60


def test_a_warm_worker_wins_unless_it_is_slower_than_loading() -> None:
    """In memory counts for as much as loading takes, not for more."""
    bench = Bench(cold_load_ms=1_000)
    bench.worker("warm", offer())
    for _ in range(5):
        bench.end(bench.started(), took_ms=400)
    bench.worker("cold", offer(warm=False))
    assert bench.started().worker == "warm"
    bench.feed(LineDown(line="warm", reason="moves"))
    bench = Bench(cold_load_ms=100)
    bench.worker("slow")
    bench.worker("quick")
    for took_ms in (5_000, 100, 100, 100):
        start = bench.started()
        bench.end(start, took_ms=5_000 if start.worker == "slow" else took_ms)
    bench.feed(OffersChanged(line="quick", offers=(offer(warm=False),)))
    assert bench.started().worker == "quick"


def test_work_counts_when_times_are_predicted() -> None:
    """A prediction grows with what there is to do."""
    bench = Bench()
    bench.worker("alice", offer(capacity=2))
    for _ in range(3):
        bench.end(bench.started(work=100), took_ms=1_000)
    bench.started(work=500)
    predicted = [e.data.predicted_ms for e in bench.log if e.type == "call-assigned"]
    assert predicted[-1] == 5_000


def test_a_slow_reader_does_not_make_a_worker_look_slow() -> None:
    """Of streamed answers only the time to the first byte is learned."""
    bench = Bench()
    bench.worker("alice")
    for _ in range(3):
        start = bench.started(streaming=True)
        bench.feed(CallStarted(call=start.call, attempt=1), 50)
        bench.end(start, took_ms=60_000)
    bench.started(streaming=True)
    predicted = [e.data.predicted_ms for e in bench.log if e.type == "call-assigned"]
    assert predicted == [0, 50, 50, 50]


def test_a_new_worker_gets_one_call_to_begin_with() -> None:
    """Until its first answer is in, further calls go to those whose times are known."""
    bench = Bench()
    bench.worker("known", offer(capacity=4))
    for _ in range(5):
        bench.end(bench.started(), took_ms=100)
    bench.worker("new", offer(capacity=4))
    served = Counter(bench.started().worker for _ in range(4))
    assert served["new"] == 1


# --- bounds ---------------------------------------------------------------------------------------


def test_what_a_line_offers_is_believed_within_bounds() -> None:
    """A million places, a negative number, and thousands of models do no harm."""
    bench = Bench(capacity_max=3, offers_max=5)
    many = [offer(App("llm", f"m{n}"), capacity=10**9) for n in range(1_000)]
    bench.worker("alice", offer(capacity=-1), offer(App("llm", "none"), capacity=0), *many)
    assert bench.desk.capacities() == {App("llm", f"m{n}"): 3 for n in range(3)}


def test_offers_that_change_without_end_leave_nothing() -> None:
    """A line that offers new models again and again does not fill the memory."""
    bench = Bench()
    bench.worker("alice")
    for n in range(300):
        bench.feed(OffersChanged(line="alice", offers=(offer(App("llm", f"m{n}")),)))
    assert list(bench.desk.stands.counters) == [App("llm", "m299")]


def test_calls_are_forgotten_after_a_while() -> None:
    """The memory of calls that are over, and for names that nobody serves, is short."""
    bench = Bench(linger_ms=1_000)
    bench.worker("alice")
    bench.end(bench.started())
    for n in range(50):
        assert isinstance(bench.call(App("llm", f"unknown-{n}")), RefuseCall)
    assert len(bench.desk.over) == 51
    bench.feed(CallCancelled(call="nobody"), 1_001)
    assert not bench.desk.over
    assert list(bench.desk.stands.counters) == [TINY]
    assert bench.desk.wake_at() is None


def test_a_clock_that_steps_back_stands_still() -> None:
    """Times in the log never run backwards, and nothing takes a negative time."""
    bench = Bench()
    bench.worker("alice")
    start = bench.started()
    bench.now -= 5_000
    bench.end(start)
    times = [event.time_ms for event in bench.log]
    assert times == sorted(times)
    done = next(event.data for event in bench.log if event.type == "call-completed")
    assert done.took_ms == 0


@pytest.mark.parametrize("text", ["\x1b[2J\n" * 999, "<script>"])
def test_a_workers_words_are_tidied(text: str) -> None:
    """What a worker says goes into the log short and printable, and not to the client."""
    bench = Bench(attempts_max=1)
    bench.worker("alice")
    start = bench.started()
    step = bench.feed(CallBroken(call=start.call, attempt=1, reason=text, blamed=True))
    (refusal,) = step.instructions
    assert isinstance(refusal, RefuseCall)
    assert text[:4] not in refusal.text
    failed = next(event.data for event in bench.log if event.type == "call-attempt-failed")
    assert failed.reason.isprintable()
    assert len(failed.reason) <= 500


def test_sessions_of_two_payers_are_two_sessions() -> None:
    """Nobody gets into somebody else's session by knowing its name."""
    bench = Bench()
    bench.worker("alice")
    bench.worker("bob")
    bench.worker("carol")
    one = bench.started(session="s", customer="c_1")
    two = bench.started(session="s", customer="c_2")
    three = bench.started(session="s", customer="", orchestrator="c_1", source="live-runner")
    assert len({one.worker, two.worker, three.worker}) == 3
