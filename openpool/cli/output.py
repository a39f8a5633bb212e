"""How answers look: JSON for programs, tables for people. Nothing else formats for a terminal.

Programs get one JSON document (or one a line, where it goes on for ever) on standard output;
everything else goes to standard error.
"""

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

NARROW_SPACE = "\u202f"


def print_json(value: object) -> None:
    """One JSON document, readable."""
    import msgspec

    text = msgspec.json.format(msgspec.json.encode(value), indent=2)
    sys.stdout.buffer.write(text + b"\n")
    sys.stdout.flush()


def print_json_line(value: object) -> None:
    """One JSON document in one line."""
    import msgspec

    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.flush()


def console() -> "Console":
    """Where tables go. Not a terminal: wide enough that nothing is cut off."""
    from rich.console import Console

    return Console(
        soft_wrap=False, highlight=False, markup=False, width=None if sys.stdout.isatty() else 200
    )


def show(what: "RenderableType") -> None:
    """Print text or a table."""
    console().print(what)


def show_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "Nothing yet."
) -> None:
    """A table; columns whose name ends in `>` hold numbers and stand to the right."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        number = column.endswith(">")
        # a shortened number would be a wrong one
        table.add_column(
            column.rstrip(">"),
            justify="right" if number else "left",
            no_wrap=number,
            overflow="fold",
        )
    count = 0
    for row in rows:
        table.add_row(*(plain(cell) for cell in row))
        count += 1
    show(table if count else empty)


def show_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Names and values, one a line."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, value in facts:
        table.add_row(name, plain(value))
    show(table)


def note(sentence: str) -> None:
    """A remark for people, on standard error."""
    print(sentence, file=sys.stderr)


def plain(value: object) -> str:
    """Text that cannot move the cursor or change colours, whatever it came from."""
    return "".join(c if c.isprintable() or c == NARROW_SPACE else "\ufffd" for c in str(value))


def ago(time_ms: int, now_ms: int) -> str:
    """`5 min ago`, or a dash for never."""
    from openpool.web.format import duration_text

    return f"{duration_text(max(now_ms - time_ms, 0))} ago" if time_ms else "—"


def clock(time_ms: int) -> str:
    """Local time for a list: `13:09:56.123`, with the date where it is not today."""
    moment = datetime.fromtimestamp(time_ms / 1000).astimezone()
    form = "%H:%M:%S" if moment.date() == datetime.now().astimezone().date() else "%m-%d %H:%M:%S"
    return f"{moment:{form}}.{time_ms % 1000:03d}"


def ether(wei: str | int) -> str:
    """A short amount for people."""
    from openpool.web.format import ether_text

    return ether_text(int(wei))


def grouped(number: str | int) -> str:
    """An exact whole number with its digits in groups of three."""
    return f"{int(number):,}".replace(",", " ")


def percent(ppm: int) -> str:
    """A rate for people."""
    return f"{ppm / 10_000:g} %"


def ratio(part: int, whole: int) -> str:
    """`0.42`, or a dash where there is nothing to divide by."""
    return f"{part / whole:.2f}" if whole else "—"
