"""Luck, rewards and reconciliation: figures and sentences."""

from fractions import Fraction
from random import Random

import pytest

from openpool.core.money.luck import Luck, Wins, luck, percent, spread
from openpool.core.money.reconcile import DUST, Figures, drift, explanation
from openpool.core.money.rewards import passed_ppm, reward_level, share_reward
from openpool.core.payment import SURE
from openpool.core.units import ETHER, PPM

FACE = ETHER // 1000
RARE = SURE // 300_000


def winners(count: int, face: int = FACE, win_prob: int = RARE) -> Wins:
    found = Wins()
    for _ in range(count):
        found = found.add(face, win_prob)
    return found


def of(expected_wins: int, won: int) -> Luck:
    return luck(expected_wins * FACE, won * FACE, won, winners(max(won, 1)))


@pytest.mark.parametrize("count", [1, 4, 25, 100, 10_000])
def test_the_spread_is_one_over_the_root_of_the_wins_to_be_expected(count: int) -> None:
    """With n wins to expect, one standard deviation is 1/√n of what is expected."""
    found = of(count, count)
    assert found.expected_wins == count
    assert found.spread_ppm is not None
    assert abs(found.spread_ppm**2 * count - PPM**2) < PPM**2 // 1000


def test_large_tickets_spread_more_than_their_number_says() -> None:
    """One ticket of 90 among ten of 1 counts by size: the grain is near the large one."""
    mixed = winners(10, 1) + winners(1, 90)
    assert mixed.grain_wei is not None
    assert 81 < mixed.grain_wei < Fraction(8110, 100)


def test_two_rounds_in_three_are_within_the_band() -> None:
    """The promise, tried out: tickets of two sizes that win one time in ten, drawn for 500 rounds
    of 600, each judged by nothing but the tickets that won in it."""
    chance, tickets = Random(7), [FACE] * 500 + [3 * FACE] * 100
    expected_wei, within = sum(tickets) // 10, 0
    for _ in range(500):
        won = [face for face in tickets if chance.random() < 0.1]
        known = sum((Wins().add(face, SURE // 10) for face in won), Wins())
        found = luck(expected_wei, sum(won), len(won), known)
        assert found.ratio_ppm is not None
        assert found.spread_ppm is not None
        within += abs(found.ratio_ppm - PPM) <= found.spread_ppm
    assert 0.62 < within / 500 < 0.74


def test_tickets_that_always_win_leave_nothing_to_luck() -> None:
    """A ticket that is sure to win has no spread."""
    assert spread(5 * FACE, winners(5, win_prob=SURE).grain_wei) == 0


@pytest.mark.parametrize(
    ("expected", "won", "sentence"),
    [
        (0, 0, "No work was paid for, so there is nothing to compare."),
        (100, 104, "Tickets brought 4.0 % more than they are worth on average. That is ordinary: "
         "two spans in three are within 10.0 %."),
        (100, 85, "Tickets brought 15.0 % less than they are worth on average. That happens now "
         "and then: two spans in three are within 10.0 %."),
        (100, 125, "Tickets brought 25.0 % more than they are worth on average. That is rare: two "
         "spans in three are within 10.0 %, and only one in twenty is out of twice that."),
        (4, 5, "Tickets brought 25.0 % more than they are worth on average. So few wins are to be "
         "expected (4) that this says little."),
    ],
)  # fmt: skip
def test_luck_in_words(expected: int, won: int, sentence: str) -> None:
    """What is ordinary and what is not is said, with the band that was to be expected."""
    assert of(expected, won).sentence == sentence


def test_what_luck_cannot_explain_is_said() -> None:
    """Four standard deviations off point at something else."""
    assert "Luck alone hardly explains this" in of(100, 60).sentence


def test_without_a_winning_ticket_there_is_no_band() -> None:
    """Nobody knows how large tickets are before one has won."""
    found = luck(5 * FACE, 0, 0, Wins())
    assert (found.ratio_ppm, found.spread_ppm, found.expected_wins) == (0, None, None)
    assert found.sentence.startswith("No ticket has won yet")


def test_a_rate_in_words() -> None:
    """One digit after the point, rounded."""
    assert [percent(ppm) for ppm in (0, 449, 500, 42_000, PPM)] == [
        "0.0 %", "0.0 %", "0.1 %", "4.2 %", "100.0 %",
    ]  # fmt: skip


def figures(**more: int) -> Figures:
    base = {"expected": 0, "face": 0, "paid": 0, "realised": 0, "difference": 0}
    return Figures(**(base | more))


def test_every_difference_has_its_reason() -> None:
    """Unpaid tickets, delegators, luck and books that differ are each named with their amount."""
    told = explanation(
        figures(expected=200, face=150, paid=100, realised=90, difference=-5), is_followed=True
    )
    assert "0.000000000000000005 ETH less than the books" in told
    assert "0.00000000000000005 ETH of the tickets' face value was not paid" in told
    assert "0.00000000000000001 ETH of what was paid is the delegators' part" in told
    assert "25.0 % below what the work is worth" in told
    assert explanation(figures(), is_followed=True) == "All is as expected."
    assert explanation(figures(), is_followed=False).startswith("Not followed on chain")
    more = explanation(figures(realised=3, difference=1), is_followed=True)
    assert "more than the tickets that were seen paid" in more
    assert "more than the books" in more


def test_a_wallet_drifts_in_or_out() -> None:
    """What the books do not know came in, or went out; dust in is booked once a round."""
    found = [drift(held, 5, was_booked=False) for held in (5, 7, 4)]
    assert found == [None, (True, 2), (False, 1)]
    again = [drift(held, 5, was_booked=True) for held in (5, 7, 4, DUST + 5)]
    assert again == [None, None, (False, 1), (True, DUST)]


def test_a_reward_is_shared_by_work_to_the_last_unit() -> None:
    """The parts are exactly the workers' rate of the reward, whatever the work was."""
    work = {"0xa": 3, "0xb": 3, "0xc": 1, "0xd": 0}
    parts = share_reward(1001, 500_000, work)
    assert parts == {"0xa": 214, "0xb": 214, "0xc": 72}
    assert sum(parts.values()) == 1001 * 500_000 // PPM
    assert share_reward(1001, 500_000, {}) == {}
    assert share_reward(1001, 0, work) == {}
    assert share_reward(1, 999_999, work) == {}


def test_a_reward_is_late_after_a_part_of_the_round() -> None:
    """Nothing, a warning, an alarm: as the round passes."""
    levels = [reward_level(passed_ppm=p * 10_000, late_ppm=250_000) for p in (0, 24, 25, 62, 63)]
    assert levels == ["ok", "ok", "warn", "warn", "bad"]
    assert [passed_ppm(b, 100, 40) for b in (90, 100, 110, 140, 999)] == [
        0, 0, 250_000, PPM, PPM,
    ]  # fmt: skip
    assert passed_ppm(5, 0, 0) == 0
