"""Defects of earlier pools, one test each, in the order in which they were found there.

Each says in its first line what such a pool did. None of them may ever be true of this one.
"""

import ast
import inspect
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import pytest
from modelchain import ModelChain, ModelSigner

import openpool.core
from openpool.core import capabilities, units
from openpool.core.call_facts import CallEnded, CallReceived, LineUp, OffersChanged
from openpool.core.call_instructions import StartCall
from openpool.core.calls import App, Offer, Usage
from openpool.core.desk import Desk
from openpool.core.errors import Unauthorized, Unavailable
from openpool.core.events import AnyPayload, Event, FeeCredited
from openpool.core.facts import (
    Delivered,
    Fact,
    OrchestratorSeen,
    PriceKnown,
    ResultChecked,
    ResultReceived,
    SegmentReceived,
    WorkerUp,
)
from openpool.core.instructions import Assign
from openpool.core.model import Profile, Rendition, Segment, Verdict
from openpool.core.money.events import CorrectionMade, PayoutsPaused
from openpool.core.money.fees import Fees
from openpool.core.money.payout_plan import Rules
from openpool.core.money.payouts import Patience
from openpool.core.pool import Pool, PoolSettings
from openpool.core.prices import Quote
from openpool.core.settings import DeskSettings
from openpool.core.step import Step
from openpool.store.interface import EventFilter, RollupPoint, WorkerRow
from openpool.store.memory import MemoryStore
from openpool.treasury.journal import Journal
from openpool.treasury.payer import Payer, PayerOptions
from openpool.treasury.planner import PlannerOptions
from openpool.web.shapes import worker_view

NOW = 1_700_000_000_000
MILLI = 10**15
PAYEE = f"0x{101:040d}"
HD = Profile(name="720p", width=1280, height=720, bitrate_bps=3_000_000)
APP = App("llm", "org/tiny")
ROW = WorkerRow(
    worker="w",
    address=PAYEE,
    name="w",
    group="",
    state="approved",
    enrolled_ms=0,
    last_connected_ms=0,
    last_disconnected_ms=0,
    segments=1,
    failed=0,
    refused=0,
    credited_wei=0,
)
T = TypeVar("T")


def point(**figures: int) -> RollupPoint:
    """A bucket in which nothing else happened."""
    nothing = dict.fromkeys(RollupPoint.__struct_fields__, 0)
    return RollupPoint(**nothing | figures)


class Bench:
    """A pool for segments and calls, a clock, and the log that it writes."""

    def __init__(self) -> None:
        orchestrators = {"main": 1, "second": 1}
        self.pool = Pool(PoolSettings(), orchestrators, epoch=1)
        self.desk = Desk(DeskSettings(), 1, self.pool.fees)
        self.store = MemoryStore()
        self.now_ms = NOW
        self.tasks = 0
        for name in orchestrators:
            self(OrchestratorSeen(orchestrator=name, incarnation="cert"))

    def __call__(self, fact: Fact) -> Step:
        return self._kept(self.pool.handle(fact, self.now_ms))

    def called(self, fact: Any) -> Step:
        return self._kept(self.desk.handle(fact, self.now_ms))

    def _kept(self, step: Step) -> Step:
        self.store.append(list(step.events))
        return step

    def worker(self, name: str) -> None:
        self(
            WorkerUp(
                worker=name,
                address=PAYEE,
                connection=f"c-{name}",
                kind="stock",
                capacity=8,
                capabilities=capabilities.DEFAULT,
                version="0.9.1",
                commission_ppm=250_000,
            )
        )

    def price(self, price: str, orchestrator: str = "main", manifest: str = "") -> None:
        self(
            PriceKnown(
                orchestrator=orchestrator,
                manifest=manifest,
                price_wei=Fraction(price),
                source="status",
            )
        )

    def assigned(self, orchestrator: str = "main", manifest: str = "m") -> Assign:
        self.tasks += 1
        fact = SegmentReceived(
            orchestrator=orchestrator,
            incarnation="cert",
            group="g",
            task_id=self.tasks,
            session=f"s{self.tasks}",
            manifest=manifest,
            segment=Segment(seq=0, duration_ms=2_000, profiles=(HD,), capabilities=3),
        )
        return only(self(fact), Assign)

    def segment(self, pixels: int, took_ms: int = 0, **more: str) -> None:
        """One segment, done and taken. The pool counts `pixels`."""
        assign = self.assigned(**more)
        self.now_ms += took_ms
        rendition = Rendition(
            name="a", width=1, height=1, frames=1, pixels=pixels, bytes=9, sha256=""
        )
        self(ResultReceived(attempt=assign.attempt, worker=assign.worker, bytes=1))
        verdict = Verdict(ok=True, renditions=(rendition,))
        self(ResultChecked(attempt=assign.attempt, verdict=verdict))
        self(Delivered(job=assign.job, accepted=True))

    def call(self, name: str, tokens: int, took_ms: int = 0) -> None:
        """One streamed call, answered and right."""
        quote = Quote(unit="token", price_wei=Fraction(1), source="config")
        asked = CallReceived(call=name, app=APP, customer="c_1", source="direct", quote=quote)
        start = only(self.called(asked), StartCall)
        self.now_ms += took_ms
        usage = Usage(unit="token", units=tokens, checked=True)
        self.called(CallEnded(call=name, attempt=start.attempt, usage=usage))

    def line(self, worker: str) -> None:
        self.called(LineUp(line=worker, worker=worker, address=PAYEE, commission_ppm=250_000))
        self.called(OffersChanged(line=worker, offers=(Offer(app=APP, capacity=1, warm=True),)))

    @property
    def fees(self) -> list[FeeCredited]:
        found = (stored.event.data for stored in self.store.all_events())
        return [data for data in found if isinstance(data, FeeCredited)]

    def owed(self) -> int:
        return {each.account: each.amount_wei for each in self.store.balances()}[f"worker:{PAYEE}"]


def only(step: Step, kind: type[T]) -> T:
    (found,) = [each for each in step.instructions if isinstance(each, kind)]
    return found


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.worker("alice")
    return bench


def gift(name: str, amount_wei: int, time_ms: int = NOW) -> Event:
    """Something that is owed to PAYEE."""
    data = CorrectionMade(
        correction=name,
        corrects="",
        debit="operator",
        credit=f"worker:{PAYEE}",
        amount_wei=str(amount_wei),
        reason="work",
    )
    return Event(id=f"gift/{name}", time_ms=time_ms, data=data)


def test_01_the_worker_gets_the_rest_and_not_the_commission(bench: Bench) -> None:
    """A pool credited the commission to the worker: 25 % where 75 % was due."""
    bench.price("1")
    bench.segment(pixels=1_000)
    assert bench.owed() == 750


def test_02_choosing_a_worker_waits_for_nobody(bench: Bench) -> None:
    """A pool called a webhook under its lock for every job, and did not use the answer. Here a
    worker is chosen in the same step, by code that cannot wait."""
    assert bench.assigned().worker == "alice"
    for path in Path(inspect.getfile(openpool.core)).parent.rglob("*.py"):
        waits = ast.Await | ast.AsyncFunctionDef | ast.AsyncWith | ast.AsyncFor
        assert not any(isinstance(node, waits) for node in ast.walk(ast.parse(path.read_text())))


@pytest.mark.parametrize(("price", "fee_wei"), [("1.5", 3_000), ("1/3", 666), ("1/1000", 2)])
def test_03_fractions_of_a_wei_per_pixel_are_paid(bench: Bench, price: str, fee_wei: int) -> None:
    """A pool cut prices to whole wei: 1.5 paid 1, and less than one paid nothing."""
    bench.price(price)
    bench.segment(pixels=1_000)
    bench.segment(pixels=1_000)
    assert sum(int(fee.fee_wei) for fee in bench.fees) == fee_wei


def test_04_a_real_time_factor_is_a_ratio() -> None:
    """A pool divided whole numbers: 1.8 times real time read 1, and anything slower than real time
    read 0."""
    for busy_ms, rtf_ppm in ((1_100, 550_000), (3_000, 1_500_000), (2_001, 1_000_500)):
        day = point(media_ms=2_000, busy_ms=busy_ms)
        assert worker_view(ROW, None, None, [day], 0).rtf_ppm == rtf_ppm


def test_05_segments_and_calls_are_timed_in_one_unit(bench: Bench) -> None:
    """A pool told milliseconds for video and nanoseconds for AI in one field."""
    bench.segment(pixels=1, took_ms=1_100)
    bench.line("alice")
    bench.call("k1", tokens=1, took_ms=1_100)
    took = {
        stored.event.type: stored.event.data.took_ms
        for stored in bench.store.all_events()
        if hasattr(stored.event.data, "took_ms")
    }
    assert set(took.values()) == {1_100}
    assert {"job-delivered", "call-completed"} <= took.keys()


def test_06_the_price_that_is_paid_for_the_pixels_that_were_counted(bench: Bench) -> None:
    """A pool took its list price instead of the stream's, and the worker's word for the pixels."""
    bench.price("1")
    bench.price("7", manifest="m")
    bench.segment(pixels=1_000, manifest="m")
    (fee,) = bench.fees
    assert (fee.price_wei, fee.pixels, fee.fee_wei) == ("7", 1_000, "7000")
    assert "pixels" not in ResultReceived.__struct_fields__, "a worker is not even asked"


class FailingStore(MemoryStore):
    """Takes events, and cannot keep them."""

    def append(self, events: Any) -> Any:
        receipt = super().append(events)
        receipt._failure = "The disk is full."
        return receipt


async def test_07_what_cannot_be_written_down_stops_payouts() -> None:
    """A pool logged that a batch of events was lost, and went on."""
    journal = Journal(FailingStore(), lambda: NOW)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await journal.record(PayoutsPaused(reason="x", by="operator"))


def test_08_what_the_log_tells_is_what_the_pool_did(bench: Bench) -> None:
    """A pool still served an event log into which nothing was written any more."""
    bench.price("1")
    bench.segment(pixels=1)
    told = {each.event.type for each in bench.store.events(EventFilter(limit=1_000))}
    assert {"price-changed", "job-received", "job-delivered", "fee-credited"} <= told


def test_09_no_event_is_too_early_for_a_reader() -> None:
    """A pool's reader asked for what is later than the newest it had, so a second event of the
    same moment was lost. Here it goes on after a number."""
    store = MemoryStore()
    store.append([gift("a", 1)])
    (first,) = store.events(EventFilter())
    store.append([gift("b", 1), gift("c", 1, time_ms=NOW - 5)])
    later = store.events(EventFilter(after_seq=first.seq))
    assert [each.event.id for each in later] == ["gift/b", "gift/c"]


def test_10_two_orchestrators_of_one_kind(bench: Bench) -> None:
    """A pool kept its sources by kind, so that a second orchestrator replaced the first."""
    names = ("main", "second")
    for name, price in zip(names, ("1", "2"), strict=True):
        bench.price(price, orchestrator=name)
        bench.segment(pixels=100, orchestrator=name)
    assert [(fee.orchestrator, fee.fee_wei) for fee in bench.fees] == [
        ("main", "100"),
        ("second", "200"),
    ]
    assert bench.owed() == 225


class WatchingChain(ModelChain):
    """Remembers what was on disk when it was given a transaction."""

    def watch(self, store: MemoryStore) -> None:
        self.store, self.known = store, list[list[str]]()

    async def send(self, raw: bytes) -> str:
        self.known.append([each.event.type for each in self.store.all_events()])
        return await super().send(raw)


def payer_of(store: MemoryStore, chain: ModelChain) -> Payer:
    rules = Rules(threshold_wei=10 * MILLI, minimum_wei=1, gas_share_max_ppm=10**6)
    options = PayerOptions(
        mode="on",
        planner=PlannerOptions(rules=rules),
        patience=Patience(max_fee_max_wei=10**12),
        every_ms=1,
    )
    return Payer(
        chain=chain, signer=chain.signer, store=store, clock_ms=lambda: NOW, options=options
    )


async def test_11_a_payment_is_written_down_before_it_is_made() -> None:
    """A pool paid first and recorded then; where recording failed it paid again."""
    store, chain = MemoryStore(), WatchingChain(ModelSigner())
    chain.watch(store)
    store.append([gift("a", 10 * MILLI)])
    for _ in range(2):  # the second is a new process that knows the log only
        payer = payer_of(store, chain)
        await payer.start()
        await payer.tick()
    assert all("order-signed" in known for known in chain.known)
    chain.mine()
    assert chain.paid() == {PAYEE: [10 * MILLI]}


def test_12_a_filter_filters(bench: Bench) -> None:
    """A pool looked first and filtered afterwards, so that everybody saw everybody's."""
    bench.segment(pixels=1)
    bench.worker("bob")
    found = bench.store.events(EventFilter(worker="bob", limit=1_000))
    assert found
    assert {each.event.data.worker for each in found if hasattr(each.event.data, "worker")} == {
        "bob"
    }
    assert bench.store.events(EventFilter(worker="nobody")) == []


async def test_13_an_address_is_claimed_by_whoever_holds_its_key() -> None:
    """A pool paid whatever address a worker named, with one secret for all."""
    from openpool.ethereum import Account, encode_defunct
    from openpool.pool.enrolment import Enrolment

    alice, mallory = (Account.from_key(bytes([each]) * 32) for each in (1, 2))
    store = MemoryStore()
    enrolment = Enrolment(
        store=store,
        appender=store,
        clock_ms=lambda: NOW,
        pool_name="Pool",
        domain="pool.test",
        uri="https://pool.test",
        chain_id=1,
        public=True,
        terms="",
        secret_key=b"k" * 32,
        commission_ppm=lambda group: 0,
    )
    message = await enrolment.nonce(alice.address)
    signature = mallory.sign_message(encode_defunct(text=message)).signature
    with pytest.raises(Unauthorized, match="signed"):
        await enrolment.enroll(
            message=message,
            signature="0x" + bytes(signature).hex(),
            name="rig",
            terms=enrolment.terms().digest,
        )
    assert store.workers() == []


def test_14_a_streamed_answer_names_its_worker(bench: Bench) -> None:
    """A pool's streamed answers of language models carried no worker, so nobody was paid."""
    bench.line("alice")
    bench.call("k1", tokens=40)
    (fee,) = bench.fees
    assert (fee.worker, fee.address, fee.worker_wei) == ("alice", PAYEE, "30")
    assert bench.owed() == 30


def test_15_late_ones_count_and_doubled_ones_count_once() -> None:
    """A pool skipped what came half an hour late, and counted twice what came again two batches
    later."""
    store = MemoryStore()
    for batch in (["a"], ["b"], ["c"], ["a", "d"], ["b"]):
        store.append([gift(name, 1) for name in batch])
    store.append([gift("late", 100, time_ms=NOW - 3_600_000)])
    assert {each.account: each.amount_wei for each in store.balances()}[f"worker:{PAYEE}"] == 104


async def test_16_one_threshold_for_all_that_is_owed_to_an_address() -> None:
    """A pool had a threshold per kind and region, so four times as much had to be earned."""
    store, chain = MemoryStore(), ModelChain(ModelSigner())
    bench = Bench()
    bench.store = store
    bench.worker("alice")
    for orchestrator in ("main", "second"):
        bench.price(str(10 * MILLI), orchestrator=orchestrator)
        bench.segment(pixels=1, orchestrator=orchestrator)
    payer = payer_of(store, chain)
    await payer.start()
    await payer.tick()
    chain.mine()
    assert chain.paid() == {PAYEE: [15 * MILLI]}


def test_17_money_keeps_every_digit() -> None:
    """A pool computed commission in floating point, and kept its books in pickles."""
    fee_wei = 10**24 + 1
    kept, left = units.commission(fee_wei, 250_000)
    assert (kept, left) == (25 * 10**22, 75 * 10**22 + 1)
    due: AnyPayload = FeeCredited(
        job="j",
        orchestrator="main",
        worker="w",
        address=PAYEE,
        pixels=1,
        price_wei=str(fee_wei),
        price_source="config",
        fee_wei=str(fee_wei),
        carry="0/1",
        commission_ppm=250_000,
        worker_wei=str(left),
    )
    store = MemoryStore()
    store.append([Event(id="j/fee-credited", time_ms=NOW, data=due)])
    assert {each.account: each.amount_wei for each in store.balances()}[f"worker:{PAYEE}"] == left
    assert "pickle" not in "".join(
        path.read_text() for path in Path(inspect.getfile(openpool.core)).parents[1].rglob("*.py")
    )
    assert Fees().carries == {}
