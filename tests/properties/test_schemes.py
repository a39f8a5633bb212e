"""What is always true of shares: no wei is lost or made, and more work never earns less.

100,000 random windows for each scheme and each ready-made rule, from one seed, in all processors;
and hypothesis, which looks for the odd ones.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from roundlog import InProcess, RoundLog, address

from openpool.core.events import Event, encode_payload
from openpool.core.money.events import RoundSettled, RuleRefused, Scheme, ShareCredited
from openpool.core.money.ledger import Balances, transfers_of
from openpool.core.money.rounds import Closing
from openpool.core.money.rules import Lot
from openpool.core.money.schemes import Work, divide, proportional_claims, window_claims
from openpool.core.money.settlement import settle
from openpool.core.units import PPM
from openpool.rules import commission_by_group, holdback, performance_bonus, referral

unhurried = settings(deadline=None)
WINDOWS = 100_000
BATCH = 5_000
SIZES = (1, 3, 20, 70)
"""Of fees, in bits."""
RATES = (0, 1, 70_000, 250_000, 333_333, 500_000, 999_999, 1_000_000)
SCHEMES: tuple[Scheme, ...] = ("per-job", "proportional", "window")
A, B, C, D = (address(letter) for letter in "abcd")
RULES: dict[str, InProcess] = {
    "commission-by-group": InProcess(
        commission_by_group, "g", **{"group.x": "7.3%", "group.y": "61%"}
    ),
    "holdback": InProcess(holdback, "h", rate="33.3%", rounds="2"),
    "performance-bonus": InProcess(performance_bonus, "p", rate="41%", jobs="1", success="50%"),
    "referral": InProcess(
        referral, "r", **{"rate": "77%", "pair.1": f"{A}>{B}", "pair.2": f"{B}>{D}"}
    ),
}


def random_work(random: Random, scheme: Scheme) -> dict[str, Work]:
    """What some of four addresses did in one round, in two groups, at any commission."""
    works = {}
    dice = random.getrandbits(30)
    for n, name in enumerate((A, B, C, D)):
        die = dice >> 7 * n
        if not die & 1:
            continue
        work = works[name] = Work()
        for group in ("x", "y") if die & 2 else ("z",):
            fee = random.getrandbits(SIZES[die >> 2 & 3])
            ppm = RATES[die >> 4 & 7]
            work.add(fee, fee - fee * ppm // PPM, ppm, scheme)
            work.groups[group] = fee
    return works


def random_closing(random: Random, scheme: Scheme) -> Closing:
    rare = "per-job" if random.random() < 0.1 else scheme
    return Closing(
        orchestrator="main",
        round=9,
        start_ms=1,
        end_ms=2,
        scheme=scheme,
        work=random_work(random, scheme),
        window=tuple(random_work(random, rare) for _ in range(random.randint(1, 3)))
        if scheme == "window"
        else (),
        realised_wei=random.getrandbits(random.choice((0, 3, 70))),
        failed={A: random.randint(0, 3)},
        members={A: False, B: random.random() < 0.2, C: False, D: False},
        carried_wei=random.getrandbits(random.choice((0, 2, 60))),
        held={B: (Lot(round=random.randint(6, 8), amount_wei=random.getrandbits(60)),)},
    )


def opened(closing: Closing) -> Balances:
    """The books before the settlement: work accrued or paid, revenue, what is held."""
    amounts = {"claim:main": -closing.realised_wei - closing.carried_wei}
    amounts["fees:main"] = closing.realised_wei + closing.carried_wei
    for name, work in closing.work.items():
        amounts[f"accrued:main:{name}"] = work.accrued_wei
        amounts[f"worker:{name}"] = work.paid_wei
        amounts["commission"] = amounts.get("commission", 0) + work.paid_commission_wei
        amounts["accrued:main:commission"] = (
            amounts.get("accrued:main:commission", 0) + work.accrued_commission_wei
        )
        amounts["fees:main"] -= work.worth_wei + work.paid_worth_wei
    for name, lots in closing.held.items():
        amounts[f"holdback:{name}"] = sum(lot.amount_wei for lot in lots)
        amounts["operator"] = -amounts[f"holdback:{name}"]
    return Balances(amounts)


def check_conserved(closing: Closing, events: list[Event]) -> None:
    """Every wei of the round has one owner, in the events and in the books."""
    summary = events[-1].data
    assert isinstance(summary, RoundSettled)
    shares = [event.data for event in events if isinstance(event.data, ShareCredited)]
    given = sum(int(share.share_wei) + int(share.commission_wei) for share in shares)
    pot = closing.carried_wei + (0 if closing.scheme == "per-job" else closing.realised_wei)
    if closing.scheme == "per-job":
        assert not shares
        assert int(summary.carried_wei) == pot
    else:
        assert int(summary.shared_wei) + int(summary.carried_wei) == pot
        is_mixed = any(work.paid_worth_wei for works in closing.window for work in works.values())
        assert given <= int(summary.shared_wei) if is_mixed else given == int(summary.shared_wei)
    assert not [event for event in events if isinstance(event.data, RuleRefused)]
    balances = opened(closing)
    for event in events:
        for transfer in transfers_of(event):
            balances.post(transfer)
            assert balances.amounts[transfer.debit] >= 0 or transfer.debit == "fees:main"
    assert balances.total() == 0
    assert balances.faults() == []
    assert not any(balances.amounts.get(f"accrued:main:{name}") for name in closing.work)
    assert not balances.amounts.get("accrued:main:commission")


def play(seed: int, count: int, schemes: tuple[Scheme, ...], rules: tuple[str, ...]) -> int:
    """So many random windows; how many had something to share."""
    random, shared = Random(seed), 0
    for n in range(count):
        closing = random_closing(random, schemes[n % len(schemes)])
        events = settle(closing, [RULES[name] for name in rules])
        check_conserved(closing, events)
        shared += len(events) > 1
    return shared


@pytest.fixture(scope="module")
def processors() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        yield pool


def play_all(
    processors: ProcessPoolExecutor, schemes: tuple[Scheme, ...], rules: tuple[str, ...], seed: int
) -> int:
    seeds = range(seed, seed + WINDOWS // BATCH)
    batches = [processors.submit(play, each, BATCH, schemes, rules) for each in seeds]
    return sum(batch.result() for batch in batches)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_wei_is_lost_under_a_scheme(processors: ProcessPoolExecutor, scheme: Scheme) -> None:
    """100,000 random windows: shares, commission and what is carried are the pot, to the wei."""
    shared = play_all(processors, (scheme,), (), 1)
    assert shared > WINDOWS // 2 if scheme != "per-job" else shared == 0


@pytest.mark.parametrize("rule", RULES)
def test_no_wei_is_lost_by_a_ready_made_rule(processors: ProcessPoolExecutor, rule: str) -> None:
    """100,000 random windows with the rule, under all schemes: no account is overdrawn, and no
    answer of the rule is ever refused."""
    assert play_all(processors, SCHEMES, (rule,), 1_000) > WINDOWS // 2


def test_no_wei_is_lost_by_all_rules_together() -> None:
    """Each rule works on what those before it have left."""
    assert play(3, BATCH, SCHEMES, tuple(RULES)) > BATCH // 2


# --- what hypothesis looks for ------------------------------------------------------------------

Job = tuple[str, int, int]
jobs = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 10**20), st.sampled_from((0, 250_000, 10**6))),
    max_size=12,
)
sharing = st.sampled_from(("proportional", "window"))
rounds = st.lists(st.tuples(jobs, st.integers(0, 10**20)), min_size=1, max_size=4)


def play_rounds(scheme: Scheme, history: Sequence[tuple[Sequence[Job], int]]) -> RoundLog:
    """Rounds of jobs, each with its revenue; all are settled."""
    log = RoundLog(scheme, window_rounds=2)
    log.start(0)
    for number, (done, won_wei) in enumerate(history, 1):
        for worker, fee, ppm in done:
            log.work(worker, fee, ppm)
        log.win(won_wei)
        log.start(number)
    return log


@unhurried
@given(st.sampled_from(SCHEMES), rounds)
def test_what_was_realised_is_shared_or_carried(
    scheme: Scheme, history: list[tuple[list[Job], int]]
) -> None:
    """Over any rounds: all shares, commission and what is carried are all revenue."""
    log = play_rounds(scheme, history)
    assert log.balances.faults() == []
    realised = sum(won for _, won in history)
    owed = sum(log.paid(worker) for worker in "abc") + log.balance("commission")
    if scheme == "per-job":
        assert owed == sum(fee for done, _ in history for _, fee, _ in done)
    else:
        carried = [e.data.carried_wei for e in log.events if isinstance(e.data, RoundSettled)]
        assert owed + int(carried[-1] if carried else 0) == realised


@unhurried
@given(sharing, rounds, st.randoms(use_true_random=False))
def test_the_order_within_a_round_does_not_matter(
    scheme: Scheme, history: list[tuple[list[Job], int]], random: Random
) -> None:
    """Who is credited first has no more than who is credited last."""
    shuffled = [(random.sample(done, len(done)), won) for done, won in history]
    one, other = play_rounds(scheme, history), play_rounds(scheme, shuffled)
    made = [
        [event for event in log.events if isinstance(event.data, ShareCredited | RoundSettled)]
        for log in (one, other)
    ]
    assert made[0] == made[1]


@unhurried
@given(st.integers(0, 2**31), st.sampled_from(SCHEMES), st.sampled_from((None, *RULES)))
def test_settling_twice_gives_the_same_events(seed: int, scheme: Scheme, rule: str | None) -> None:
    """Bytes and ids: so that the log keeps one of them."""
    rules = [RULES[rule]] if rule else []
    one, other = (settle(random_closing(Random(seed), scheme), rules) for _ in range(2))
    assert [encode_payload(event.data) for event in one] == [
        encode_payload(event.data) for event in other
    ]
    assert one == other
    assert len({event.id for event in one}) == len(one)


@unhurried
@given(
    st.integers(0, 10**20),
    st.lists(st.tuples(st.integers(0, 10**18), st.integers(0, 10**18)), min_size=2, max_size=5),
    st.integers(0, 10**18),
    st.integers(0, 1_000_000),
    st.integers(0, 3),
)
def test_more_work_never_earns_less(
    pot: int, works: list[tuple[int, int]], more: int, ppm: int, when: int
) -> None:
    """Of the same pot: an address that does more, now or earlier in the window, gets at least as
    much as before, and everybody else at most as much."""

    def shares(extra: int) -> dict[str, int]:
        newest_first: list[dict[str, Work]] = [{}, {}]
        for number, fees in enumerate(works):
            for age, fee in enumerate(fees):
                work = newest_first[age][str(number)] = Work()
                work.add(fee, fee, ppm, "window")
        newest_first[when % 2]["0"].add(extra, extra, ppm, "window")
        claims, _ = window_claims(newest_first)
        if when > 1:
            claims, _ = proportional_claims(newest_first[when % 2])
        return {name: part.share_wei for name, part in divide(pot, claims).parts.items()}

    before, after = shares(0), shares(more)
    assert after.get("0", 0) >= before.get("0", 0)
    for name in before.keys() - {"0"}:
        assert after[name] <= before[name]


# --- hopping ------------------------------------------------------------------------------------


@unhurried
@given(rounds, st.integers(1, 10**20), st.sampled_from("abc"))
def test_under_window_work_has_no_part_in_what_was_realised_before_it(
    history: list[tuple[list[Job], int]], fee: int, worker: str
) -> None:
    """Hopping-proof, the exact half: whatever is done in a round changes no share of what this
    round or one before it realised. So to have seen a win is worth nothing."""
    hopped = [*history[:-1], ([*history[-1][0], (worker, fee, 0)], history[-1][1])]
    given_to = [
        {
            event.id: (event.data.share_wei, event.data.commission_wei)
            for event in play_rounds("window", each).events
            if isinstance(event.data, ShareCredited) and event.data.share_wei != "0"
        }
        for each in (history, hopped)
    ]
    assert given_to[0] == given_to[1]


Plan = Callable[[int, bool, bool], int]
"""How much work a worker does in one half of a round: number of the half, whether the open round
has had a win already, and whether the round before had one."""
PLANS: dict[str, Plan] = {
    "steady": lambda half, won, won_before: 1,
    "after a win": lambda half, won, won_before: 4 if won else 0,
    "unless there was a win": lambda half, won, won_before: 0 if won else 1,
    "after a round with a win": lambda half, won, won_before: 2 if won_before else 0,
    "after a round without": lambda half, won, won_before: 0 if won_before else 2,
    "second halves": lambda half, won, won_before: 2 * (half % 2),
}


def earned_per_work(scheme: Scheme, count: int) -> dict[str, float]:
    """What each plan earns per wei of work at expected value, over many rounds of two halves.

    Others do 100 times a hopper's work. A ticket wins with 20 % in each half, and is seen."""
    random, unit = Random(8), 10**12
    works: list[dict[str, Work]] = []
    done, paid = dict.fromkeys(PLANS, 0), dict.fromkeys(PLANS, 0)
    won_before = False
    for _ in range(count):
        works.insert(0, {"others": Work()})
        won, pot = False, 0
        for half in (0, 1):
            works[0]["others"].add(100 * unit, 100 * unit, 0, scheme)
            for name, plan in PLANS.items():
                fee = plan(half, won, won_before) * unit
                works[0].setdefault(name, Work()).add(fee, fee, 0, scheme)
                done[name] += fee
            if random.random() < 0.2:
                won, pot = True, pot + 500 * unit
        claims = proportional_claims(works[0]) if scheme != "window" else window_claims(works[1:])
        for name, part in divide(pot, *claims).parts.items():
            if name in paid:
                paid[name] += part.share_wei
        del works[10:]
        won_before = won
    return {name: paid[name] / done[name] for name in PLANS}


def test_a_hopper_earns_no_more_than_a_steady_worker_under_window() -> None:
    """Hopping-proof, the other half: 40,000 rounds in which every plan that looks at wins earns
    per unit of work what steady work earns, within the noise."""
    earned = earned_per_work("window", 40_000)
    for plan in PLANS:
        assert abs(earned[plan] / earned["steady"] - 1) < 0.03, (plan, earned)


def test_proportional_can_be_hopped_by_who_sees_a_win_before_the_round_ends() -> None:
    """The same plans under proportional: to join after a win pays double, and to look at the
    round before pays nothing, since a round's pot is its own."""
    earned = earned_per_work("proportional", 40_000)
    assert earned["after a win"] / earned["steady"] > 2
    assert earned["unless there was a win"] / earned["steady"] < 0.95
    for plan in ("after a round with a win", "after a round without", "second halves"):
        assert abs(earned[plan] / earned["steady"] - 1) < 0.03, (plan, earned)
