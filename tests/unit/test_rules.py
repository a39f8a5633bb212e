"""Revenue rules: what they may answer, what is refused, and what the ready-made ones do."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from roundlog import InProcess, RoundLog, address, settled

from openpool.core.money.events import AdjustmentMade, RuleRefused
from openpool.core.money.rules import Adjustment, Round, charge, forfeit, hold, pay, release
from openpool.rules import commission_by_group, holdback, performance_bonus, referral

A, B, C = address("a"), address("b"), address("c")
NAN = float("nan")


def adjusting(answer: object) -> InProcess:
    """A rule that always wants these adjustments."""
    return InProcess(SimpleNamespace(adjustments=lambda round, options: answer))


def weighing(answer: object) -> InProcess:
    """A rule that always answers with these weights."""
    return InProcess(SimpleNamespace(weights=lambda round, options: answer))


def played(*rules: InProcess, scheme: str = "proportional") -> RoundLog:
    """A round in which a and b did 100 wei of work each, c did none, and 200 wei came in."""
    log = RoundLog(scheme, rules=rules)  # type: ignore[arg-type]
    for worker in "abc":
        log.enroll(worker)
    log.start(1)
    log.work("a", 100)
    log.work("b", 100)
    log.win(200)
    log.start(2)
    assert log.balances.faults() == []
    return log


def refusals(log: RoundLog) -> list[str]:
    return [event.data.reason for event in log.events if isinstance(event.data, RuleRefused)]


def entry(**changes: object) -> dict[str, object]:
    made: dict[str, object] = {
        "debit": "commission",
        "credit": f"worker:{A}",
        "amount_wei": 1,
        "reason": "because",
    }
    return made | changes


def test_weights_replace_the_split() -> None:
    """With weights 3 : 1 the first gets three quarters, of which the pool keeps its part."""
    log = played(weighing({A: 3, B: 1}))
    assert (log.paid("a"), log.paid("b"), log.balance("commission")) == (112, 37, 51)
    summary = settled(log.events)
    assert (summary.rule, summary.rule_version, summary.rule_hash) == ("test", "1", "00")


def test_weights_leave_alone_what_belongs_to_work_that_was_paid_at_once() -> None:
    """In the round of a change of scheme a rule divides only the part of the others."""
    log = RoundLog("proportional", rules=[weighing({A: 1})])
    log.start(1)
    log.work("a", 100, 0)
    log.work("b", 300, 0, scheme="per-job")
    log.win(800)
    log.start(2)
    assert (log.paid("a"), log.paid("b"), log.balance("fees:main")) == (200, 300, 300)
    assert settled(log.events).carried_wei == "0"


def test_adjustments_are_booked_beside_the_shares() -> None:
    """What a rule moves is an event of its own, which says why."""
    log = played(adjusting([pay(C, 10, "rent"), hold(A, 5, "for later")]))
    assert (log.paid("a"), log.paid("c"), log.balance("commission")) == (70, 10, 40)
    assert log.balance(f"holdback:{A}") == 5
    made = [event.data for event in log.events if isinstance(event.data, AdjustmentMade)]
    assert [(each.rule, each.amount_wei, each.reason) for each in made] == [
        ("test", "10", "rent"),
        ("test", "5", "for later"),
    ]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ([entry(amount_wei=1.0)], "the amount of adjustment 1 is no whole number but a float"),
        ([entry(amount_wei=NAN)], "the amount of adjustment 1 is no whole number but a float"),
        ([entry(amount_wei=True)], "no whole number but true or false"),
        ([entry(amount_wei="1")], "no whole number but a text"),
        ([entry(amount_wei=None)], "no whole number but nothing"),
        ([entry(amount_wei=-1)], "the amount of adjustment 1 is negative"),
        ([entry(amount_wei=51)], "takes 51 wei from commission, where this round has 50"),
        ([entry(amount_wei=50), entry()], "adjustment 2 takes 1 wei from commission"),
        ([entry(debit=f"worker:{C}")], "where this round has 0"),
        ([entry(debit=f"holdback:{A}")], "where this round has 0"),
        ([entry(credit=f"worker:{address('d')}")], "whose address the pool does not know"),
        ([entry(credit=f"worker:{A.upper()}")], "whose address the pool does not know"),
        ([entry(credit="operator")], "names operator, which no rule may touch"),
        ([entry(debit="wallet:0x1")], "which no rule may touch"),
        ([entry(debit="fees:main")], "which no rule may touch"),
        ([entry(debit=None)], "which no rule may touch"),
        ([entry(credit="commission")], "moves from commission to itself"),
        ([entry(reason="")], "the reason of adjustment 1 is no text"),
        ([entry(reason="x" * 201)], "the reason of adjustment 1 is no text"),
        ([entry(reason="a\x1b[31m")], "cannot be printed"),
        ([entry(more=1)], "has not exactly debit, credit, amount_wei and reason"),
        ([{"debit": "commission"}], "has not exactly"),
        ([[]], "has not exactly"),
        ([entry(amount_wei=0)] * 101, "it makes 101 adjustments; at most 100 are taken"),
        ({"a": 1}, "its adjustments are no list but a dict"),
        ("none", "its adjustments are no list but a text"),
        (0, "its adjustments are no list but a int"),
    ],
)
def test_a_wrong_adjustment_refuses_the_rule(answer: object, why: str) -> None:
    """The round is settled as if the rule were not there, and it is told what was wrong."""
    log = played(adjusting(answer))
    assert why in refusals(log)[0]
    assert len(refusals(log)) == 1
    assert (log.paid("a"), log.paid("b"), log.balance("commission")) == (75, 75, 50)
    assert settled(log.events).rule == "none"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({A: 1.5}, "no whole number but a float"),
        ({A: NAN}, "no whole number but a float"),
        ({A: True}, "no whole number but true or false"),
        ({A: -1, B: 2}, "is negative"),
        ({A: 2**256 + 1}, "larger than 2**256"),
        ({A: 0, B: 0}, "all its weights are zero"),
        ({}, "all its weights are zero"),
        ({C: 1}, "which has no work to weigh"),
        ({"0x" + "9" * 40: 1}, "which has no work to weigh"),
        ({A: 1, B: 1, C: 1}, "it gives 3 weights; the round has 2 to give"),
        ([1, 2], "no mapping of addresses to numbers but a list"),
    ],
)
def test_a_wrong_weight_refuses_the_rule(answer: object, why: str) -> None:
    """The same for weights."""
    log = played(weighing(answer))
    assert why in refusals(log)[0]
    assert (log.paid("a"), log.paid("b"), log.balance("commission")) == (75, 75, 50)


def test_under_per_job_there_is_no_split_to_replace() -> None:
    """Weights are refused there, while adjustments work."""
    log = played(weighing({A: 1}), adjusting([pay(A, 50, "all of it")]), scheme="per-job")
    assert "under per-job there is none" in refusals(log)[0]
    assert (log.paid("a"), log.balance("commission")) == (125, 0)


def test_a_rule_that_spoils_one_answer_is_left_out_with_the_other() -> None:
    """Weights of a rule whose adjustments are wrong do not count either; other rules do."""
    both = SimpleNamespace(
        weights=lambda round, options: {A: 1},
        adjustments=lambda round, options: [entry(amount_wei=-1)],
    )
    log = played(InProcess(both, "both"), adjusting([pay(B, 50, "bonus")]))
    assert (log.paid("a"), log.paid("b")) == (75, 125)
    assert settled(log.events).rule == "test"


def test_only_one_rule_replaces_the_split() -> None:
    """The second one is refused."""
    log = played(weighing({A: 1}), weighing({B: 1}))
    assert (log.paid("a"), log.paid("b")) == (150, 0)
    assert "has replaced the split already" in refusals(log)[0]


def test_rules_see_what_those_before_them_did() -> None:
    """The second rule divides the commission that the first one left."""

    def rest(round: Round, options: object) -> list[Adjustment]:
        return [pay(B, round.commission_wei, "the rest")]

    log = played(
        adjusting([pay(A, 30, "first")]), InProcess(SimpleNamespace(adjustments=rest), "rest")
    )
    assert (log.paid("a"), log.paid("b"), log.balance("commission")) == (105, 95, 0)
    assert settled(log.events).rule == "test+rest"


def test_what_was_paid_out_already_cannot_be_adjusted() -> None:
    """Under per-job a worker may have been paid in the middle of a round; then there is less."""
    log = RoundLog("per-job", rules=[adjusting([charge(A, 75, "too late")])])
    log.enroll("a")
    log.start(1)
    log.work("a", 100)
    log.balances.amounts[f"worker:{A}"] -= 10
    log.start(2)
    assert refusals(log) == [
        f"adjustment 1 takes 75 wei from worker:{A}, where this round has 65",
    ]


# --- the ready-made rules -----------------------------------------------------------------------


def test_commission_by_group() -> None:
    """A group with 10 % gets back what was taken above it, one with 40 % pays the difference."""
    rule = InProcess(commission_by_group, **{"group.good": "10%", "group.new": "40%"})
    log = RoundLog("proportional", rules=[rule])
    log.enroll("a", "good")
    log.enroll("b", "new")
    log.enroll("c", "others")
    log.start(1)
    for worker in "abc":
        log.work(worker, 1_000)
    log.win(3_000)
    log.start(2)
    assert [log.paid(worker) for worker in "abc"] == [900, 600, 750]
    assert log.balance("commission") == 750


def test_commission_of_an_address_with_workers_in_two_groups() -> None:
    """Only the part of the work that the group did is adjusted."""
    rule = InProcess(commission_by_group, **{"group.good": "0%"})
    log = RoundLog("proportional", rules=[rule])
    log.enroll("a", "good")
    log.enroll("x", "others", at="a")
    log.start(1)
    log.work("a", 1_000)
    log.work("x", 1_000, at="a")
    log.win(2_000)
    log.start(2)
    assert (log.paid("a"), log.balance("commission")) == (1_750, 250)


def test_performance_bonus() -> None:
    """Who fails too often, or did too little, gets none."""
    log = RoundLog("proportional", rules=[InProcess(performance_bonus, jobs="2", success="60%")])
    for worker in "abc":
        log.enroll(worker)
    log.start(1)
    for worker, jobs, failures in (("a", 3, 2), ("b", 3, 3), ("c", 1, 0)):
        for _ in range(jobs):
            log.work(worker, 1_000)
        for _ in range(failures):
            log.fail(worker)
    log.win(7_000)
    log.start(2)
    assert [log.paid(worker) for worker in "abc"] == [2_250 + 112, 2_250, 750]


def test_a_bonus_is_limited_by_the_commission() -> None:
    """Where it does not suffice for all, everybody gets the same part of it."""
    rule = InProcess(performance_bonus, jobs="1", rate="100%")
    log = RoundLog("proportional", rules=[rule])
    log.start(1)
    log.work("a", 100)
    log.work("b", 300)
    log.win(400)
    log.start(2)
    assert (log.paid("a"), log.paid("b"), log.balance("commission")) == (100, 300, 0)


def test_referral() -> None:
    """Who brought a worker gets a tenth of the commission on its work; the worker loses nothing."""
    rule = InProcess(referral, **{"pair.1": f"{A}>{C}", "pair.2": f"{address('e')}>{C}"})
    log = played(rule)
    assert (log.paid("a"), log.paid("b"), log.paid("c"), log.balance("commission")) == (
        *(75, 75, 2),
        48,
    )


def test_nobody_is_paid_for_having_brought_himself() -> None:
    """Such a pair is a mistake in the settings, and is told."""
    with pytest.raises(Exception, match="is a pair like"):
        referral.adjustments(None, {"pair.1": f"{A}>{A}"})  # type: ignore[arg-type]


def holding(**options: str) -> RoundLog:
    log = RoundLog("proportional", rules=[InProcess(holdback, **options)])
    log.enroll("a")
    return log


def earn(log: RoundLog, number: int) -> None:
    log.work("a", 1_000, 0)
    log.win(1_000)
    log.start(number + 1)


def test_holdback_is_released_after_its_rounds() -> None:
    """A tenth is kept for two rounds."""
    log = holding(rate="10%", rounds="2")
    log.start(1)
    seen = []
    for number in (1, 2, 3, 4):
        earn(log, number)
        seen.append((log.paid("a"), log.balance(f"holdback:{A}")))
    assert seen == [(900, 100), (1_800, 200), (2_800, 200), (3_800, 200)]
    assert log.balances.faults() == []


def test_holdback_is_forfeited_on_a_ban() -> None:
    """What is held of somebody who was banned goes to commission."""
    log = holding(rate="10%", rounds="2")
    log.start(1)
    earn(log, 1)
    log.ban("a")
    log.start(3)
    assert (log.paid("a"), log.balance(f"holdback:{A}"), log.balance("commission")) == (900, 0, 100)


def test_one_ban_of_several_workers_forfeits_nothing() -> None:
    """An address is banned when all its workers are."""
    log = holding(rate="10%", rounds="9")
    log.enroll("second", at="a")
    log.start(1)
    earn(log, 1)
    log.ban("second")
    log.start(3)
    assert log.balance(f"holdback:{A}") == 100


@pytest.mark.parametrize(
    ("make", "debit", "credit"),
    [
        (pay, "commission", f"worker:{A}"),
        (charge, f"worker:{A}", "commission"),
        (hold, f"worker:{A}", f"holdback:{A}"),
        (release, f"holdback:{A}", f"worker:{A}"),
        (forfeit, f"holdback:{A}", "commission"),
    ],
)
def test_the_helpers_for_rules_move_the_right_way(
    make: Callable[[str, int, str], Adjustment], debit: str, credit: str
) -> None:
    """What each of them debits and credits."""
    made = make(A, 7, "because")
    assert (made.debit, made.credit, made.amount_wei) == (debit, credit, 7)
