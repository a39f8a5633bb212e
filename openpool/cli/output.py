"""How answers look: JSON for programs, tables for people. Nothing else formats for a terminal.

Programs get one JSON document (or one a line, where it goes on for ever) on standard output;
everything else goes to standard error. Whatever the width, a figure, an address or a hash is
neither shortened nor broken: sentences are wrapped, and a table that is too wide becomes a list.
"""

import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from rich.console import Console

NARROW_SPACE = "\u202f"
"""Within a figure, which is never broken."""
PIPE_WIDTH = 200
"""Columns of a table that no terminal shows."""
ENDLESS = 10**6
SENTENCE_WIDTH = 24
"""What a column of sentences may be narrowed to."""


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
    """Where tables go."""
    from rich.console import Console

    # with both given, it takes them for a dumb terminal, too
    width, height = _width(sys.stdout, PIPE_WIDTH), shutil.get_terminal_size().lines
    return Console(highlight=False, markup=False, width=width, height=height)


def show(text: str, *, indent: str = "") -> None:
    """Print a sentence; `indent` is for its further lines."""
    print(_wrapped(plain(text), sys.stdout, indent=indent))


def show_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "Nothing yet."
) -> None:
    """A table; where it does not fit the terminal, a list with a heading for each row.

    Columns whose name ends in `>` hold numbers and stand to the right; those of `~` hold sentences
    and may be wrapped. Rows begin with what tells them apart.
    """
    names = [column.rstrip(">~") for column in columns]
    cells = [[plain(cell) for cell in row] for row in rows]
    if not cells:
        if empty:
            show(empty)
    elif not _show_fitting(columns, names, cells):
        _show_list(names, cells)


def _show_fitting(
    columns: Sequence[str], names: Sequence[str], cells: Sequence[Sequence[str]]
) -> bool:
    """Print a table, if it fits."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column, name in zip(columns, names, strict=True):
        justify: Literal["right", "left"] = "right" if column.endswith(">") else "left"
        table.add_column(name, justify=justify, no_wrap=not column.endswith("~"), overflow="fold")
    for row in cells:
        table.add_row(*row)
    where = console()
    unbroken = where.options.update(width=ENDLESS)
    width = where.measure(table, options=unbroken).maximum - _to_spare(columns, cells)
    if width <= where.width:
        where.print(table)
    return width <= where.width


def _to_spare(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> int:
    """By how much wrapping the sentences makes a table narrower."""
    widest = [
        max(len(row[number]) for row in cells)
        for number, column in enumerate(columns)
        if column.endswith("~")
    ]
    return sum(max(width - SENTENCE_WIDTH, 0) for width in widest)


def _show_list(names: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    """A heading for each row, and the rest of it below, one value a line."""
    for row in cells:
        print(f"\n{names[0]} {row[0]}")
        _print_facts([fact for fact in zip(names[1:], row[1:], strict=True) if fact[1]], "  ")
    print()


def show_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Names and values, one a line."""
    _print_facts([(name, plain(value)) for name, value in facts])


def _print_facts(facts: Sequence[tuple[str, str]], indent: str = "") -> None:
    room = len(indent) + max((len(name) for name, _ in facts), default=0) + 2
    for name, value in facts:
        print(_wrapped(value, sys.stdout, f"{indent}{name}".ljust(room), " " * room))


def note(sentence: str) -> None:
    """A remark for people, on standard error."""
    for line in sentence.split("\n"):
        print(_wrapped(plain(line), sys.stderr), file=sys.stderr)


def _wrapped(text: str, stream: TextIO, before: str = "", indent: str = "") -> str:
    """A text with line breaks between words, where a terminal would make them anywhere."""
    lines = textwrap.wrap(
        text,
        _width(stream, ENDLESS),
        initial_indent=before,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines) or before.rstrip()


def _width(stream: TextIO, otherwise: int) -> int:
    """The columns of a terminal; of anything else as many as are said."""
    return shutil.get_terminal_size().columns if stream.isatty() else otherwise


def plain(value: object) -> str:
    """Text that cannot move the cursor or change colours, whatever it came from."""
    return "".join(c if c.isprintable() or c == NARROW_SPACE else "\ufffd" for c in str(value))


def ago(time_ms: int, now_ms: int) -> str:
    """`5 min ago`, or a dash for never."""
    from openpool.web.format import ago_text

    return ago_text(time_ms, now_ms) if time_ms else "—"


def clock(time_ms: int) -> str:
    """Local time for a list: `13:09:56.123`, with the date where it is not today."""
    moment = datetime.fromtimestamp(time_ms / 1000).astimezone()
    form = "%H:%M:%S" if moment.date() == datetime.now().astimezone().date() else "%m-%d %H:%M:%S"
    return f"{moment:{form}}.{time_ms % 1000:03d}"


def ether(wei: str | int) -> str:
    """A short amount for people."""
    from openpool.web.format import ether_text

    return ether_text(int(wei))


def lpt(amount: str | int) -> str:
    """A short amount of LPT for people."""
    from openpool.web.format import lpt_about

    return f"{lpt_about(int(amount))}{NARROW_SPACE}LPT"


def balance(account: str, amount: str | int) -> str:
    """A short amount for people, in what the account holds: ETH, or LPT."""
    from openpool.core.money.accounts import LPT

    return lpt(amount) if account.startswith(LPT) else ether(amount)


def grouped(number: str | int) -> str:
    """An exact whole number with its digits in groups of three."""
    return f"{int(number):,}".replace(",", NARROW_SPACE)


def counted(count: int, noun: str) -> str:
    """`1 job`, `2 717 jobs`."""
    from openpool.web.words import counted as in_words

    return in_words(count, noun)


def percent(ppm: int) -> str:
    """A rate for people, exactly."""
    return f"{ppm / 10_000:g} %"


def about_percent(ppm: int) -> str:
    """A measured rate for people, with four digits."""
    from openpool.web.format import ppm_text

    return ppm_text(ppm)


def ratio(part: int, whole: int) -> str:
    """`0.42`, or a dash where there is nothing to divide by."""
    return f"{part / whole:.2f}" if whole else "—"
