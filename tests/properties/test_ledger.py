"""What is always true of money: nothing is lost, nothing is made, nothing counts twice."""

import asyncio
from fractions import Fraction
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from stories import Story, at, credited, taken

from openpool.core.events import Event
from openpool.core.money.ledger import Balances, transfers_of
from openpool.core.units import PPM, commission, fee, split
from openpool.store.books import Books
from openpool.store.interface import StoredEvent
from openpool.store.memory import MemoryStore
from openpool.store.tables import rows_of

wei = st.integers(min_value=0, max_value=2**140)
prices = st.fractions(min_value=0, max_value=10**24, max_denominator=10**9)


@given(wei, st.lists(st.integers(0, 10**9), min_size=1).filter(any))
def test_a_split_never_loses_a_wei(amount: int, weights: list[int]) -> None:
    """The shares add up to the amount, and each is within one wei of its exact part."""
    shares = split(amount, weights)
    assert sum(shares) == amount
    for share, weight in zip(shares, weights, strict=True):
        assert abs(share - Fraction(amount * weight, sum(weights))) < 1


@given(wei, st.integers(0, PPM))
def test_commission_and_pay_make_the_fee(amount: int, ppm: int) -> None:
    """What the pool keeps and what the worker gets is always the whole fee."""
    kept, paid = commission(amount, ppm)
    assert kept + paid == amount
    assert [kept, paid] == split(amount, [ppm, PPM - ppm])
    assert kept >= 0
    assert paid >= 0


@given(st.lists(st.integers(0, 10**9), max_size=30), prices)
def test_a_carry_is_exact_over_any_number_of_segments(pixels: list[int], price: Fraction) -> None:
    """All fees and the last carry together are exactly what all pixels are worth."""
    total, carry = 0, 0
    for units in pixels:
        fee_wei, carry = fee(units, price, carry)
        total += fee_wei
        assert 0 <= carry < price.denominator
    assert total + Fraction(carry, price.denominator) == sum(pixels) * price


@given(st.lists(st.tuples(st.sampled_from("abc"), wei, wei), max_size=20))
def test_any_credits_sum_to_zero(credits_wei: list[tuple[str, int, int]]) -> None:
    """Whatever is credited, all accounts sum to zero and only fees are negative."""
    balances = Balances()
    for n, (worker, kept, paid) in enumerate(credits_wei):
        job = f"j{n}"
        for data in (credited(job, worker, kept + paid, paid), taken(job, worker, kept)):
            for transfer in transfers_of(at(f"{job}/{data.type}", data)):
                balances.post(transfer)
    assert balances.total() == 0
    assert balances.faults() == []
    owed = sum(kept + paid for _, kept, paid in credits_wei)
    assert balances.amounts.get("fees:orch", 0) == -owed


@given(st.integers(0, 10**6), st.integers(1, 40), st.randoms(use_true_random=False))
def test_batches_and_duplicates_change_nothing(seed: int, jobs: int, random: Random) -> None:
    """However the log is cut into batches, and whatever comes twice, the books are the same."""
    events = Story(seed).events(jobs)
    whole, cut = MemoryStore(), MemoryStore()
    whole.append(events)
    at_event = 0
    while at_event < len(events):
        size = random.randint(1, 12)
        batch = events[at_event : at_event + size]
        repeated = random.choices(events[: at_event + size], k=random.randint(0, 5))
        cut.append([*batch, *(event for event in repeated if event not in events[at_event:])])
        at_event += size
        cut.append(batch)
    assert state(cut) == state(whole)


def state(store: MemoryStore) -> tuple[object, ...]:
    span = {"start_ms": 1_699_999_000_000, "end_ms": 1_700_001_000_000, "step_ms": 60_000}
    return (
        store.head(),
        store.balances(),
        store.carries(),
        store.workers(),
        store.counts(),
        store.transfers(limit=10**6),
        store.series(**span),
        store.open_jobs(0),
    )


@given(st.integers(0, 10**6), st.integers(1, 30), st.randoms(use_true_random=False))
def test_jobs_may_be_logged_in_any_order(seed: int, jobs: int, random: Random) -> None:
    """Jobs that finish in another order give the same money, rows and rollups."""
    batches = list(Story(seed).jobs(jobs))
    shuffled = batches.copy()
    random.shuffle(shuffled)
    tables = [rows_of(fold(order)) for order in (batches, shuffled)]
    for rows in tables:
        del rows["carry"]  # belongs to the newest fee, whichever that is
    assert tables[0] == tables[1]


def fold(batches: list[list[Event]]) -> Books:
    books = Books()
    for seq, event in enumerate((event for batch in batches for event in batch), 1):
        books.apply(seq, event)
    return books


@given(st.integers(0, 10**6), st.integers(1, 60))
def test_a_story_pays_what_the_pixels_are_worth(seed: int, jobs: int) -> None:
    """Fees plus carries equal pixels times price exactly, for every worker and in sum."""
    story = Story(seed)
    store = MemoryStore()
    store.append(story.events(jobs))
    carries: dict[str, Fraction] = {}
    for (worker, denominator), numerator in store.carries().items():
        carries[worker] = carries.get(worker, Fraction(0)) + Fraction(numerator, denominator)
    span = {"start_ms": 1_699_999_000_000, "end_ms": 1_700_001_000_000, "step_ms": 60_000}
    for worker, worth in story.worth.items():
        fees = sum(point.fee_wei for point in store.series(**span, worker=worker))
        assert fees + carries.get(worker, 0) == worth
    assert sum(balance.amount_wei for balance in store.balances()) == 0


@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 7))
def test_a_listener_hears_the_log(seed: int, jobs: int, size: int) -> None:
    """What a listener hears is the log itself, whatever the batches."""

    async def listen() -> list[StoredEvent]:
        store = MemoryStore()
        listener = store.subscribe()
        events = Story(seed).events(jobs)
        for start in range(0, len(events), size):
            store.append(events[start : start + size])
        store.close()
        heard = [stored async for batch in listener for stored in batch]
        assert heard == list(store.all_events())
        return heard

    heard = asyncio.run(listen())
    assert [stored.seq for stored in heard] == list(range(1, len(heard) + 1))
