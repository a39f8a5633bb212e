"""Our rule of choosing a worker against the usual ones, on the same simulated fleet."""

import pytest

from benchmarks._fleet import RULES, Outcome, simulate

SEEDS = range(2)
OURS = "fair among those in time (ours)"
BASELINE = "P2C over peak-EWMA"


def run(name: str, utilisation: float) -> Outcome:
    runs = [simulate(RULES[name], seed, utilisation, 6_000) for seed in SEEDS]
    return Outcome(*(sum(column) / len(runs) for column in zip(*runs, strict=True)))


@pytest.mark.parametrize("utilisation", [0.5, 0.75])
def test_ours_is_fairer_and_faster_than_two_choices(utilisation: float) -> None:
    """More even work per session and a faster slowest twentieth, and as many segments in time."""
    ours, baseline = run(OURS, utilisation), run(BASELINE, utilisation)
    assert ours.jain > baseline.jain + 0.03
    assert ours.p95_ms < baseline.p95_ms
    assert ours.in_time >= baseline.in_time - 0.001
    assert ours.starved <= 1
    assert ours.rejected <= baseline.rejected + 0.001
