"""What the operator is told to look at, and in which order."""

from itertools import permutations

import pytest
from msgspec.structs import replace

from openpool.web.alerts import alerts, worst_first
from openpool.web.call_story import StoryDesk
from openpool.web.shapes import Alert, Figures
from openpool.web.storybook import StoryPool

NOW_MS = 1_795_000_000_000
GOOD = Figures(segments=100, media_ms=200_000, latency_ms=60_000, calls=100)


def titles(hour: Figures) -> set[str]:
    """What is told of the story's pool, whose last hour was like this."""
    live = StoryPool()
    live.tell(NOW_MS)
    desk = StoryDesk().snapshot(NOW_MS)
    return {each.title for each in alerts(live.snapshot(NOW_MS), desk, [], hour)}


def alert(level: str, title: str = "") -> Alert:
    return Alert(level=level, title=title, text="")


def test_the_worst_comes_first() -> None:
    """Whatever the order in which they were found; those of one level stay as they were found."""
    for found in permutations(("bad", "warn", "info")):
        shown = worst_first([alert(level) for level in found])
        assert [each.level for each in shown] == ["bad", "warn", "info"]
    same = [alert("warn", "b"), alert("bad", "x"), alert("warn", "a")]
    assert [each.title for each in worst_first(same)] == ["x", "b", "a"]
    assert worst_first([]) == []


def test_an_ordinary_hour_is_told_of_as_it_is() -> None:
    """In the story an orchestrator is down, a worker cools down and a model is full: no more."""
    found = {"orch-chicago is down.", "1 worker is cooling down.", "Models are full."}
    assert titles(GOOD) == found


@pytest.mark.parametrize(
    ("change", "title"),
    [
        ({"failed": 5}, "Many segments fail."),
        ({"calls_failed": 5}, "Many calls fail."),
        ({"refused": 0}, "Results were refused."),
        ({"latency_ms": 200_000}, "Slower than real time."),
    ],
)
def test_each_alert_begins_where_it_says(change: dict[str, int], title: str) -> None:
    """At the limit (one in twenty, none, as long as the segments) nothing is told; beyond it is."""
    assert title not in titles(replace(GOOD, **change))
    beyond = {name: value + 1 for name, value in change.items()}
    assert title in titles(replace(GOOD, **beyond))
