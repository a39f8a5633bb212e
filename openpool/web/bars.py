"""Bar charts as small SVGs: a few amounts for each of some rounds. Pure geometry.

The newest round is on the right. A page says what the amounts are and how they are told; the macro
`bar_chart` draws.
"""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

WIDTH = 720
HEIGHT = 150
GAP = 3
LEAST = 2
"""Even the smallest amount can be seen."""
SLOTS_MIN = 20
"""Fewer rounds than this leave room on the left."""
Look = Literal["kept", "shared", "missed"]
"""Classes of the style sheet."""


class Row(Struct, frozen=True, kw_only=True):
    """One round: what it is called, what is said about it on hover, and its amounts."""

    name: str
    about: str
    amounts: tuple[tuple[Look, int], ...]
    """From the left, or from below; empty if what should be there was missed."""


class Rect(Struct, frozen=True, kw_only=True):
    """One rectangle."""

    look: Look
    x: int
    y: int
    width: int
    height: int


class Slot(Struct, frozen=True, kw_only=True):
    """All of one round."""

    about: str
    x: int
    rects: tuple[Rect, ...]


class Bars(Struct, frozen=True, kw_only=True):
    """The whole chart."""

    width: int
    height: int
    slot_width: int
    slots: tuple[Slot, ...]
    span: str
    """From which round to which."""
    highest: int
    """The amount, or the sum of stacked ones, that fills the height."""


def beside(rows: Sequence[Row]) -> Bars:
    """The amounts of a round side by side, as those that are compared."""
    highest = max((amount for row in rows for _, amount in row.amounts), default=0)
    return _chart(rows, highest, stacked=False)


def stacked(rows: Sequence[Row]) -> Bars:
    """The amounts of a round one upon the other, as parts of a whole."""
    highest = max((sum(amount for _, amount in row.amounts) for row in rows), default=0)
    return _chart(rows, highest, stacked=True)


def _chart(rows: Sequence[Row], highest: int, *, stacked: bool) -> Bars:
    step = WIDTH // max(len(rows), SLOTS_MIN)
    width = max(step - GAP, 2)
    slots = []
    for behind, row in enumerate(reversed(rows), 1):
        x = WIDTH - step * behind
        rects = _stack(row, x, width, highest) if stacked else _group(row, x, width, highest)
        slots.append(Slot(about=row.about, x=x, rects=rects or (_missed(x, width),)))
    return Bars(
        width=WIDTH,
        height=HEIGHT,
        slot_width=width,
        slots=tuple(reversed(slots)),
        span=_span([row.name for row in rows]),
        highest=highest,
    )


def _group(row: Row, x: int, width: int, highest: int) -> tuple[Rect, ...]:
    each = width // max(len(row.amounts), 1)
    return tuple(
        Rect(look=look, x=x + n * each, y=HEIGHT - height, width=each, height=height)
        for n, (look, amount) in enumerate(row.amounts)
        for height in (_height(amount, highest),)
    )


def _stack(row: Row, x: int, width: int, highest: int) -> tuple[Rect, ...]:
    """The heights of sums are rounded, not those of parts, so that nothing adds up to more."""
    rects, below, total = [], 0, 0
    for look, amount in row.amounts:
        total += amount
        top = _height(total, highest)
        rects.append(Rect(look=look, x=x, y=HEIGHT - top, width=width, height=top - below))
        below = top
    return tuple(rects)


def _missed(x: int, width: int) -> Rect:
    return Rect(look="missed", x=x, y=HEIGHT - 2 * LEAST, width=width, height=2 * LEAST)


def _height(amount: int, highest: int) -> int:
    return max(HEIGHT * amount // highest, LEAST) if amount > 0 else 0


def _span(names: Sequence[str]) -> str:
    if len(names) < 2:
        return "".join(f"round {name}" for name in names)
    return f"rounds {names[0]} to {names[-1]}"
