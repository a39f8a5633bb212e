"""How every benchmark prints its figures: one row each, with target and baseline beside it."""

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table


class Row(NamedTuple):
    """One figure."""

    name: str
    value: str
    target: str = ""
    baseline: str = ""


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def report(title: str, rows: Sequence[Row]) -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in ("figure", "value", "target", "baseline, same run"):
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
