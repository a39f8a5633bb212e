"""Counts in words."""

import pytest

from openpool.cli.output import counted
from openpool.core.texts import plural


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 days"), (1, "1 day"), (2, "2 days"), (1_000, "1000 days")]
)
def test_one_of_a_thing_is_singular(count: int, text: str) -> None:
    """Nothing and many take the plural."""
    assert plural(count, "day") == text


def test_large_counts_are_grouped_for_people() -> None:
    """Commands show digits in threes."""
    assert counted(1, "job") == "1 job"
    assert counted(2_717, "job") == "2\u202f717 jobs"
