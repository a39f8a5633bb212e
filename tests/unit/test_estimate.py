"""Estimates: how fast a worker is believed to be."""

from openpool.core.estimate import (
    HALF_LIFE_MS,
    STALE_AFTER_MS,
    Estimate,
    load_level,
    work_units,
)
from openpool.core.model import Profile, Segment

UNITS = 1_000_000


def taught(*took_ms: int, usual: Estimate | None = None) -> Estimate:
    estimate = Estimate(usual or Estimate())
    for took in took_ms:
        estimate.observe(took, UNITS, 0, 0)
    return estimate


def test_the_first_result_replaces_the_guess() -> None:
    """What was measured counts, not what was guessed before."""
    assert taught(730).predict_ms(UNITS, 0) == 730
    assert taught(730).predict_ms(UNITS, 3) == 730


def test_bad_news_counts_sooner_than_good_news() -> None:
    """One slow result moves the estimate far, one fast result a little."""
    slow, fast = taught(*[500] * 8), taught(*[500] * 8)
    slow.observe(4000, UNITS, 0, 0)
    fast.observe(62, UNITS, 0, 0)
    assert slow.predict_ms(UNITS, 0) > 2000
    assert fast.predict_ms(UNITS, 0) > 400


def test_scatter_widens_the_95th_percentile() -> None:
    """Two workers with the same mean differ by how much they scatter."""
    steady, wild = taught(*[500] * 20), taught(*[300, 700] * 10)
    assert wild.p95_ms(UNITS, 0) > 1.3 * steady.p95_ms(UNITS, 0)


def test_load_is_learnt_by_level() -> None:
    """A worker that gets slow when busy is still known to be fast when idle."""
    estimate = Estimate(Estimate())
    for _ in range(100):
        estimate.observe(400, UNITS, 0, 0)
        estimate.observe(1200, UNITS, 3, 0)
    assert estimate.predict_ms(UNITS, 0) < 600 < 1000 < estimate.predict_ms(UNITS, 3)


def test_what_is_known_of_a_slow_worker_grows_old() -> None:
    """After a while without results a slow worker looks usual again, and gets a trial."""
    usual = taught(*[400] * 9)
    slow = taught(*[8000] * 9, usual=usual)
    slow_p95 = slow.late(0, 0)
    assert slow.late(0, STALE_AFTER_MS - 1) == slow_p95
    assert slow.late(0, STALE_AFTER_MS + HALF_LIFE_MS) == slow_p95 / 2
    assert slow.late(0, 10**9) == usual.p95[0]
    assert slow.begin(10**9)
    assert not slow.begin(10**9 + 1)
    assert slow.late(0, 10**9 + 1) == slow_p95


def test_a_trial_that_went_well_makes_a_worker_whole() -> None:
    """A recovered worker is believed at once; one that stays slow waits longer and longer."""
    usual = taught(*[400] * 9)
    recovered, slow = taught(*[8000] * 9, usual=usual), taught(*[8000] * 9, usual=usual)
    for estimate, took in ((recovered, 420), (slow, 8000)):
        assert estimate.begin(10**6)
        estimate.observe(took, UNITS, 0, 10**6)
    assert recovered.predict_ms(UNITS, 0) == recovered.predict_ms(UNITS, 3) == 420
    later = 10**6 + STALE_AFTER_MS + HALF_LIFE_MS
    assert slow.late(0, later) > slow.p95[0] / 2


def test_an_attempt_given_up_teaches_only_if_it_was_slow() -> None:
    """Having lost early says nothing; having lost late says that one is slow."""
    estimate = taught(*[500] * 9)
    estimate.observe_at_least(100, UNITS, 0, 0)
    assert estimate.predict_ms(UNITS, 0) == 500
    estimate.observe_at_least(3000, UNITS, 0, 0)
    assert estimate.predict_ms(UNITS, 0) > 1000


def test_load_levels_are_quarters_of_the_capacity() -> None:
    """A further job meets a load between none and full, also on a worker without capacity."""
    assert [load_level(n, 8) for n in (0, 1, 2, 7, 9)] == [0, 0, 1, 3, 3]
    assert load_level(0, 0) == 3


def test_work_is_time_times_pixels() -> None:
    """Twice the pixels or twice the time is twice the work, and nothing is never free."""
    profile = Profile(name="a", width=640, height=360, bitrate_bps=1)
    one = work_units(Segment(seq=0, duration_ms=1000, profiles=(profile,)))
    assert work_units(Segment(seq=0, duration_ms=2000, profiles=(profile, profile))) == 4 * one
    assert work_units(Segment(seq=0, duration_ms=0, profiles=())) == 1
