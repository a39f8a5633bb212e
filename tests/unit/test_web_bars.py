"""Bar charts keep proportions: amounts side by side, or as parts of a whole."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openpool.web.bars import HEIGHT, LEAST, WIDTH, Bars, Look, Row, beside, stacked


def row(name: str, *amounts: int) -> Row:
    looks: tuple[Look, Look] = ("kept", "shared")
    return Row(name=name, about="", amounts=tuple(zip(looks, amounts, strict=False)))


def test_compared_amounts_stand_side_by_side() -> None:
    """The highest fills the chart, half of it half, the smallest can be seen, none is nothing."""
    chart = beside([row("1", 100, 50), row("2", 1, 0)])
    (first, second), (small, none) = (slot.rects for slot in chart.slots)
    assert (first.height, second.height) == (HEIGHT, HEIGHT // 2)
    assert (small.height, none.height) == (LEAST, 0)
    assert second.x == first.x + first.width < small.x
    assert all(rect.y + rect.height == HEIGHT for rect in (first, second, small, none))
    assert (chart.highest, chart.span) == (100, "rounds 1 to 2")


def test_parts_stand_one_upon_the_other() -> None:
    """The sum has the height, and a part begins where the one below it ends."""
    chart = stacked([row("7", 30, 70), row("8"), row("9", 50, 0)])
    low, high = chart.slots[0].rects
    assert (low.y + low.height, high.y + high.height, high.y) == (HEIGHT, low.y, 0)
    assert low.height == HEIGHT * 30 // 100
    assert [rect.look for rect in chart.slots[1].rects] == ["missed"]
    assert chart.highest == 100


@pytest.mark.parametrize("draw", [beside, stacked])
def test_the_newest_is_on_the_right(draw: Callable[[Sequence[Row]], Bars]) -> None:
    """A few rounds leave room on the left; none is no chart."""
    one = draw([row("3", 5)])
    assert one.slots[0].x > WIDTH * 9 // 10
    assert one.span == "round 3"
    empty = draw([])
    assert (empty.slots, empty.span, empty.highest) == ((), "", 0)


@given(st.lists(st.tuples(st.integers(0, 10**24), st.integers(0, 10**24)), max_size=60))
def test_nothing_leaves_the_chart(amounts: list[tuple[int, int]]) -> None:
    """Every rectangle is within the picture, whatever the amounts."""
    rows = [row(str(n), *pair) for n, pair in enumerate(amounts)]
    for chart in (beside(rows), stacked(rows)):
        for rect in (rect for slot in chart.slots for rect in slot.rects):
            assert 0 <= rect.x <= rect.x + rect.width <= WIDTH
            assert 0 <= rect.y <= rect.y + rect.height <= HEIGHT
            assert rect.height >= 0
