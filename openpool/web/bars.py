"""Pairs of bars as a small SVG: two amounts for each of some rounds. Pure geometry."""

from collections.abc import Sequence

from msgspec import Struct

WIDTH = 720
HEIGHT = 150
GAP = 4
LEAST = 2
"""Even the smallest amount can be seen."""
WIDEST = 40


class Bar(Struct, frozen=True, kw_only=True):
    """One rectangle."""

    x: int
    y: int
    width: int
    height: int


class Pair(Struct, frozen=True, kw_only=True):
    """Two bars side by side, with their label and amounts."""

    label: str
    first: Bar
    second: Bar
    first_wei: int
    second_wei: int


class Bars(Struct, frozen=True, kw_only=True):
    """The whole chart."""

    width: int
    height: int
    pairs: tuple[Pair, ...]
    highest_wei: int


def bars_of(rows: Sequence[tuple[str, int, int]]) -> Bars:
    """(label, first amount, second amount) of each round."""
    highest = max((max(first, second) for _, first, second in rows), default=0)
    step = min(WIDTH // max(len(rows), 1), WIDEST * 2 + GAP)
    width = max((step - GAP) // 2, 1)
    pairs = tuple(
        Pair(
            label=label,
            first=_bar(number * step, width, first, highest),
            second=_bar(number * step + width, width, second, highest),
            first_wei=first,
            second_wei=second,
        )
        for number, (label, first, second) in enumerate(rows)
    )
    return Bars(width=WIDTH, height=HEIGHT, pairs=pairs, highest_wei=highest)


def _bar(x: int, width: int, amount: int, highest: int) -> Bar:
    height = max(HEIGHT * amount // highest, LEAST) if amount > 0 else 0
    return Bar(x=x, y=HEIGHT - height, width=width, height=height)
