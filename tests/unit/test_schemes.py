"""The three schemes: who gets what of a round, to the wei."""

from fractions import Fraction

import pytest
from roundlog import RoundLog, address, settled

from openpool.core.events import Event, FeeCredited
from openpool.core.money import schemes
from openpool.core.money.events import Scheme, ShareCredited
from openpool.core.money.fees import Due, Fees
from openpool.core.money.schemes import Work, divide, proportional_claims, window_claims
from openpool.core.step import Outbox


def work(fee_wei: int, ppm: int = 0, scheme: Scheme = "proportional") -> Work:
    made = Work()
    made.add(fee_wei, fee_wei - fee_wei * ppm // 1_000_000, ppm, scheme)
    return made


def test_a_pot_is_divided_by_work_and_commission_is_each_ones_own() -> None:
    """300 wei for work of 100 and 200 with 10 % and 25 % commission: 90 + 10 and 150 + 50."""
    claims, paid = proportional_claims({"a": work(100, 100_000), "b": work(200, 250_000)})
    division = divide(300, claims, paid)
    assert division.parts == {"a": (90, 10), "b": (150, 50)}
    assert (division.settled_wei, division.left_wei) == (0, 0)


def test_a_share_is_rounded_down_and_commission_is_the_rest() -> None:
    """With 100 % commission the worker gets nothing, and of a single wei the pool keeps it."""
    claims, _ = proportional_claims({"a": work(4, 1_000_000), "b": work(4, 250_000)})
    assert divide(8, claims).parts == {"a": (0, 4), "b": (3, 1)}
    assert divide(2, claims).parts == {"a": (0, 1), "b": (0, 1)}


def test_what_cannot_be_divided_is_left() -> None:
    """100 wei among three equals leave one."""
    claims, paid = proportional_claims({name: work(7) for name in "abc"})
    assert divide(100, claims, paid).left_wei == 1
    assert divide(100, {}).left_wei == 100


def test_newer_work_counts_more_in_a_window() -> None:
    """Of three rounds with equal work the newest counts three times as much as the oldest."""
    rounds = [{name: work(10, scheme="window")} for name in ("new", "mid", "old")]
    claims, _ = window_claims(rounds)
    assert {name: part.share_wei for name, part in divide(600, claims).parts.items()} == {
        "new": 300,
        "mid": 200,
        "old": 100,
    }


def test_per_job_pays_at_once_and_a_round_only_sums_it_up() -> None:
    """The worker has its money before the round ends, and the settlement moves nothing."""
    log = RoundLog("per-job")
    log.start(1)
    log.work("a", 1_000)
    assert log.paid("a") == 750
    log.win(5_000)
    events = log.start(2)
    assert [event.type for event in events] == ["round-settled"]
    summary = settled(events)
    assert (summary.expected_wei, summary.shared_wei) == ("1000", "1000")
    assert (summary.realised_wei, summary.carried_wei) == ("5000", "0")
    assert log.paid("a") == 750
    assert log.balance("fees:main") == 4_000


def test_proportional_shares_what_came_in() -> None:
    """Nothing until the round ends; then all that was realised, and nothing stays accrued."""
    log = RoundLog("proportional")
    log.start(1)
    log.work("a", 1_000)
    log.work("b", 3_000)
    assert log.paid("a") == 0
    assert log.balance(f"accrued:main:{address('a')}") == 750
    log.win(8_000)
    log.start(2)
    assert (log.paid("a"), log.paid("b"), log.balance("commission")) == (1_500, 4_500, 2_000)
    assert {account for account, amount in log.balances.amounts.items() if amount} == {
        "claim:main",
        "commission",
        f"worker:{address('a')}",
        f"worker:{address('b')}",
    }


def test_revenue_without_work_waits_for_the_next_round() -> None:
    """What nobody worked for is carried, and shared by the next round's work."""
    log = RoundLog("proportional")
    log.start(1)
    log.win(1_000)
    assert settled(log.start(2)).carried_wei == "1000"
    log.work("a", 1, 0)
    assert settled(log.start(3)).carried_wei == "0"
    assert log.paid("a") == 1_000


def test_the_remainder_is_carried() -> None:
    """100 wei among three leave one, which is shared in the next round."""
    log = RoundLog("proportional")
    log.start(1)
    for worker in "abc":
        log.work(worker, 10, 0)
    log.win(100)
    assert settled(log.start(2)).carried_wei == "1"
    log.work("a", 10, 0)
    log.win(9)
    log.start(3)
    assert log.paid("a") == 33 + 10


def test_a_window_shares_by_the_rounds_before() -> None:
    """Revenue of a round goes to work of the rounds before it, never to its own."""
    log = RoundLog("window", window_rounds=2)
    log.start(1)
    log.work("a", 100, 0)
    log.start(2)
    log.work("b", 100, 0)
    log.win(900)
    log.start(3)
    assert (log.paid("a"), log.paid("b")) == (900, 0)
    log.win(900)
    log.start(4)
    assert (log.paid("a"), log.paid("b")) == (900 + 300, 600)
    log.win(900)
    log.start(5)
    assert (log.paid("a"), log.paid("b")) == (900 + 300, 600 + 900)


def test_work_credited_late_falls_into_the_next_round() -> None:
    """A fee that is logged after the round ended counts for the round that is open then, whole."""
    log = RoundLog("proportional")
    log.start(1)
    log.work("a", 100, 0)
    log.win(50)
    log.start(2, settled=False)
    log.work("b", 100, 0)
    assert settled(log.settle()).round == 1
    assert (log.paid("a"), log.paid("b")) == (50, 0)
    log.win(70)
    log.start(3)
    assert (log.paid("a"), log.paid("b")) == (50, 70)


def test_customers_fees_are_always_per_job() -> None:
    """A customer's fee is paid at once under every scheme, and is no part of any round."""
    out = Outbox(1)
    due = Due(
        job="j",
        payer="customer:c_abc",
        worker="a",
        address=address("a"),
        commission_ppm=0,
        units=10,
        price_wei=Fraction(1),
        price_source="list",
    )
    Fees(scheme="window").credit(due, out)
    fees = [event.data for event in out.take().events]
    assert {data.scheme for data in fees} == {"per-job"}
    log = RoundLog("window")
    log.start(1)
    log.work("a", 10, 0, payer="customer:c_abc", scheme="per-job")
    assert log.paid("a") == 10
    assert log.start(2) == []


def test_an_orchestrators_fee_carries_the_scheme() -> None:
    """What the core credits says under which scheme, and so does the commission."""
    out = Outbox(1)
    due = Due(
        job="j",
        payer="main",
        worker="a",
        address=address("a"),
        commission_ppm=250_000,
        units=10,
        price_wei=Fraction(1),
        price_source="list",
    )
    Fees(scheme="proportional").credit(due, out)
    assert [event.data.scheme for event in out.take().events] == ["proportional"] * 2


def test_a_changed_scheme_pays_no_work_twice() -> None:
    """In the round of the change, the part of work that was paid at once stays in the fees."""
    log = RoundLog("per-job")
    log.start(1)
    log.work("a", 300, 0)
    log.work("b", 100, 0, scheme="proportional")
    log.win(1_000)
    log.start(2)
    assert (log.paid("a"), log.paid("b")) == (300, 250)
    assert log.balance("fees:main") == 1_000 - 300 - 250


def test_a_window_runs_off_when_the_scheme_changes_to_per_job() -> None:
    """Work that was promised a part of later revenue still gets it."""
    log = RoundLog("window", window_rounds=2)
    log.start(1)
    log.work("a", 100, 0)
    log.start(2)
    log.work("b", 100, 0, scheme="per-job")
    log.win(600)
    assert settled(log.start(3)).scheme == "window"
    assert (log.paid("a"), log.paid("b")) == (600, 100)
    log.win(600)
    log.start(4)
    assert (log.paid("a"), log.paid("b")) == (600 + 200, 100)
    log.work("b", 50, 0, scheme="per-job")
    assert settled(log.start(5)).scheme == "per-job"


def test_a_window_ignores_work_that_was_paid_off_by_its_own_round() -> None:
    """After a change from proportional to window nobody is paid twice for the same work."""
    log = RoundLog("proportional", window_rounds=3)
    log.start(1)
    log.work("a", 100, 0)
    log.win(100)
    log.start(2)
    log.work("b", 100, 0, scheme="window")
    log.start(3)
    log.work("b", 100, 0, scheme="window")
    log.win(60)
    log.start(4)
    assert (log.paid("a"), log.paid("b")) == (100, 60)


def test_a_change_of_scheme_within_a_round_loses_no_work() -> None:
    """Where a round has work under both, all of it is in the window."""
    log = RoundLog("window", window_rounds=2)
    log.start(1)
    log.work("a", 100, 0, scheme="proportional")
    log.work("b", 100, 0, scheme="window")
    log.win(5)
    assert settled(log.start(2)).scheme == "window"
    log.win(195)
    log.start(3)
    assert (log.paid("a"), log.paid("b")) == (100, 100)


def test_a_window_counts_the_rounds_of_the_log() -> None:
    """Rounds that the pool slept through, or that have other numbers since the chain gives them,
    take no claim away; rounds in which nobody worked count."""
    log = RoundLog("window", window_rounds=2)
    log.start(1)
    log.work("a", 100, 0)
    log.start(2)
    log.work("b", 100, 0)
    log.start(4_000)
    log.win(300)
    log.start(4_007)
    assert (log.paid("a"), log.paid("b")) == (100, 200)
    log.win(300)
    log.start(4_008)
    assert (log.paid("a"), log.paid("b")) == (100, 500)


def test_work_before_the_first_round() -> None:
    """What accrued is shared by the first round; what was paid belongs to none."""
    log = RoundLog("proportional")
    log.work("a", 100, 0, scheme="per-job")
    log.work("a", 50, 0)
    log.work("b", 50, 0)
    log.start(1)
    log.win(100)
    assert settled(log.start(2)).expected_wei == "100"
    assert (log.paid("a"), log.paid("b")) == (100 + 50, 50)
    assert log.balance("fees:main") == -100


def test_orchestrators_are_settled_apart() -> None:
    """One orchestrator's luck is not another's."""
    log = RoundLog("proportional")
    log.start(1)
    log.work("a", 10, 0)
    log.work("b", 10, 0, payer="second")
    log.win(1_000)
    events = log.start(2)
    assert settled(events, "second").realised_wei == "0"
    assert (log.paid("a"), log.paid("b")) == (1_000, 0)


def test_a_round_that_is_said_to_start_twice_goes_on() -> None:
    """Its work is not cut in two."""
    log = RoundLog("proportional")
    log.start(1)
    log.work("a", 10, 0)
    assert log.start(1) == []
    log.work("b", 10, 0)
    log.win(100)
    events = log.start(2)
    assert (log.paid("a"), log.paid("b")) == (50, 50)
    started = [event.time_ms for event in log.events if event.type == "round-started"]
    summary = settled(events)
    assert (summary.start_ms, summary.end_ms) == (started[0], started[2])
    assert {event.time_ms for event in events} == {summary.end_ms}


def test_a_round_that_was_settled_is_not_settled_again() -> None:
    """When a number comes again, as after a change of the clock, its work goes to the next one."""
    log = RoundLog("proportional")
    log.start(1)
    log.work("a", 10, 0)
    log.start(2)
    log.start(1)
    log.work("a", 10, 0)
    log.win(100)
    assert log.start(3) == []
    log.start(4)
    assert log.paid("a") == 100


def test_rounds_that_could_not_be_settled_at_once_are_settled_in_order() -> None:
    """After a crash between two rounds the older one comes first, and its rest is carried."""
    log = RoundLog("proportional")
    log.start(1)
    log.win(100)
    log.start(2, settled=False)
    log.work("a", 10, 0)
    log.start(3, settled=False)
    assert [settled(log.settle()).round, settled(log.settle()).round] == [1, 2]
    assert log.paid("a") == 100
    assert log.rounds.due() == []


@pytest.mark.parametrize(("ppm", "free"), [(0, 500), (250_000, 250), (1_000_000, 0), (1, 499)])
def test_the_reserve_rule(ppm: int, free: int) -> None:
    """Commission must cover a part of what is paid and not yet realised, rounded up."""
    balances = [("commission", 500), ("fees:a", -900), ("fees:b", 70), ("customer:c", -100)]
    found = schemes.reserve(balances, ppm)
    assert (found.unrealised_wei, found.free_wei) == (1_000, free)


def test_what_only_accrued_needs_no_reserve() -> None:
    """Nobody has it yet. Of two orchestrators, one's luck does not cover for the other."""
    balances = [
        ("commission", 500),
        ("fees:a", -900),
        (f"accrued:a:{address('a')}", 600),
        ("accrued:a:commission", 200),
        ("fees:b", 5_000),
    ]
    found = schemes.reserve(balances, 1_000_000)
    assert (found.unrealised_wei, found.reserve_wei, found.free_wei) == (100, 100, 400)


# --- defects of earlier pools, by the numbers of the survey of the field ---------


def test_defect_1_the_worker_gets_what_is_left_after_commission() -> None:
    """A pool credited the commission to the worker: at 25 % of 100 it got 25. Here it gets 75."""
    for scheme in ("per-job", "proportional", "window"):
        log = RoundLog(scheme, window_rounds=1)
        log.start(1)
        log.work("a", 100, 250_000)
        log.win(100 if scheme != "window" else 0)
        log.start(2)
        log.win(100 if scheme == "window" else 0)
        log.start(3)
        assert (log.paid("a"), log.balance("commission")) == (75, 25)


def test_defect_3_a_price_below_one_wei_is_not_cut_to_nothing() -> None:
    """A pool cut prices to whole wei per pixel: 1.5 paid 1, less than 1 paid nothing. Here work is
    worth its price, so that shares follow it."""
    out, fees = Outbox(1), Fees(scheme="proportional")
    log = RoundLog("proportional")
    log.start(1)
    for worker, price in (("a", Fraction(3, 2)), ("b", Fraction(1, 2))):
        fees.credit(
            Due(
                job=worker,
                payer="main",
                worker=worker,
                address=address(worker),
                commission_ppm=0,
                units=1_000_000,
                price_wei=price,
                price_source="config",
            ),
            out,
        )
    for event in out.take().events:
        log.take(event)
    log.win(4_000)
    log.start(2)
    assert (log.paid("a"), log.paid("b")) == (3_000, 1_000)


def test_defect_15_no_late_job_is_lost_and_no_doubled_one_counts_twice() -> None:
    """A pool skipped jobs that came half an hour late, and counted those twice that came again two
    batches later. Here the log keeps a job once, and a late one has a round like any other."""
    from openpool.store.memory import MemoryStore

    log = RoundLog("proportional")
    log.start(1)
    log.work("a", 100, 0)
    log.win(100)
    late = RoundLog("proportional")
    late.work("b", 100, 0)
    store = MemoryStore()
    first, rest = (
        log.events,
        [
            Event(id=f"late-{event.id}", time_ms=event.time_ms - 1_800_000, data=event.data)
            for event in late.events
        ],
    )
    for batch in (first, first, rest, first, rest):
        store.append(batch)
    kept = [stored.event for stored in store.all_events()]
    assert sum(isinstance(event.data, FeeCredited) for event in kept) == 2
    again = RoundLog("proportional")
    for event in kept:
        again.take(event)
    again.start(2)
    assert (again.paid("a"), again.paid("b")) == (50, 50)


def test_defect_17_a_large_amount_keeps_every_digit() -> None:
    """A pool took commission in floating point, which has 15 digits. Here 25 % of a fee of 24
    digits is right to the last one, per job and per round."""
    fee_wei = 10**24 + 3
    assert int(fee_wei * 0.25) != fee_wei // 4
    log = RoundLog("proportional")
    log.start(1)
    log.work("a", fee_wei)
    log.win(fee_wei)
    events = log.start(2)
    (share,) = (event.data for event in events if isinstance(event.data, ShareCredited))
    assert int(share.commission_wei) == fee_wei // 4 + 1
    assert int(share.share_wei) + int(share.commission_wei) == fee_wei
