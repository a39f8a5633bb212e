"""What the operator is told to look at, and in which order."""

from itertools import permutations
from pathlib import Path

import pytest
from msgspec.structs import replace
from webpool import web_pool

from openpool.core.money.revenue_views import RevenueAlert
from openpool.web.alerts import alerts, money_alerts, worst_first
from openpool.web.call_story import StoryDesk
from openpool.web.money_story import MoneyStory
from openpool.web.shapes import Alert, Figures
from openpool.web.storybook import Story, StoryPool

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


def test_one_or_two_failures_are_not_many() -> None:
    """A pool with little work does not cry at its first mistake."""
    little = Figures(segments=4, media_ms=8_000, latency_ms=2_000, calls=4)
    many = {"Many segments fail.", "Many calls fail."}
    assert not many & titles(replace(little, failed=2, calls_failed=2))
    assert many <= titles(replace(little, failed=3, calls_failed=3))


async def test_alerts_about_money_say_what_to_do(tmp_path: Path) -> None:
    """Worst first, whoever found them; a blocked address is named with how to pay it again, and
    of many it is said where they are told apart."""
    work = Story(start_ms=NOW_MS - 3_600_000, end_ms=NOW_MS, per_minute=1).events()
    story = [*work, *MoneyStory(end_ms=NOW_MS, work=work, rounds=3).events()]
    async with web_pool(tmp_path, story, money=True) as pool:
        assert pool.deps.payouts
        assert pool.deps.revenue
        revenue, view = await pool.deps.revenue.view(), await pool.deps.payouts.view()
    late = RevenueAlert(level="bad", title="Reward was missed.", text="It is lost.")
    shown = replace(view, blocked={"0xa": "It refuses.", "0xb": "So does this."}, paused="A look.")
    found = money_alerts(replace(revenue, alerts=[late]), replace(shown, missing_wei="7"))
    assert [(each.level, each.title) for each in found] == [
        ("bad", "Reward was missed."),
        ("bad", "The hot wallet holds too little."),
        ("warn", "Payouts are paused."),
        ("info", "2 addresses are blocked."),
    ]
    assert f"Send ETH to {view.wallet}" in found[1].text
    (one,) = money_alerts(None, replace(view, blocked={"0xa": "It refuses."}, missing_wei="0"))
    assert "It refuses. Once that is mended: `openpool payouts unblock 0xa`." in one.text
    assert money_alerts(None, None) == []
