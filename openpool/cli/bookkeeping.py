"""`openpool ledger`: shows the books, exports an owner's part of them, and mends entries.

Exporting and correcting also work while the pool is stopped, on its data folder.
"""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openpool.cli.asking import Asked, Booked, as_operator, on_books
from openpool.cli.groups import Ledger
from openpool.cli.ledger import ledger
from openpool.cli.options import examples, typed
from openpool.cli.output import print_json, show
from openpool.core.errors import SetupError

if TYPE_CHECKING:
    from openpool.config import Config
    from openpool.web.earnings import Row


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    group = typer.Typer(
        cls=Ledger,
        help="Show the books, export them, mend an entry.",
        epilog=examples("openpool ledger", "openpool ledger worker:0xAb… -n 50 --json"),
    )
    group.command(
        "show", epilog=examples("openpool ledger", "openpool ledger worker:0xAb… -n 50 --json")
    )(ledger)
    group.command(
        "export",
        epilog=examples(
            "openpool ledger export --address 0xAb… --year 2026 > 2026.csv",
            "openpool ledger export --address 0xAb… --json",
        ),
    )(export)
    group.command(
        "correct",
        epilog=examples(
            "openpool ledger correct --corrects main.3f.17/fee-credited \\",
            "    --debit commission --credit worker:0xAb… --amount-wei 5000 \\",
            "    --reason 'Counted short'",
        ),
    )(correct)
    app.add_typer(group, name="ledger")


@on_books
def export(
    asked: Booked,
    address: Annotated[str, typer.Option("--address", metavar="ADDRESS", help="A payout address.")],
    year: Annotated[
        int, typer.Option("--year", metavar="YEAR", min=0, max=9998, help="UTC; 0 is all.")
    ] = 0,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV, which is the default.")] = False,
) -> None:
    """Print everything that an address earned and was paid, for a tax office, as CSV or JSON."""
    from openpool.core.enrolment import checked_address
    from openpool.web.answers import Movement
    from openpool.web.earnings import csv_text, movements

    if as_csv and asked.as_json:
        raise typer.BadParameter("say either --csv or --json")
    wanted = typed(checked_address, address)
    if asked.as_json:
        found = asked.ask_or_read(
            lambda api: api.get(list[Movement], "/earnings.json", address=wanted, year=year),
            lambda settings: movements(_stored_rows(settings, wanted, year)),
        )
        print_json(found)
        return
    text = asked.ask_or_read(
        lambda api: api.download("/earnings.csv", address=wanted, year=year),
        lambda settings: csv_text(_stored_rows(settings, wanted, year)).encode(),
    )
    typer.echo(text.decode(), nl=False)


def _stored_rows(settings: "Config", address: str, year: int) -> "list[Row]":
    from openpool.store.reader import SqliteReader
    from openpool.web.earnings import rows

    reader = SqliteReader(settings.data_dir)
    try:
        return rows(reader, address, year)
    finally:
        reader.close()


@as_operator
def correct(
    asked: Asked,
    corrects: Annotated[
        str,
        typer.Option("--corrects", metavar="EVENT", help="Id or number of the event to be mended."),
    ],
    debit: Annotated[str, typer.Option("--debit", metavar="ACCOUNT", help="Who gives.")],
    credit: Annotated[str, typer.Option("--credit", metavar="ACCOUNT", help="Who gets.")],
    amount_wei: Annotated[
        str, typer.Option("--amount-wei", "--amount", metavar="WEI", help="How much, exactly.")
    ],
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; everybody concerned reads it.")
    ],
    name: Annotated[
        str,
        typer.Option("--id", metavar="NAME", help="A name of your own; the same name counts once."),
    ] = "",
    offline: Annotated[
        bool, typer.Option("--offline", help="Write to the data folder of a stopped pool.")
    ] = False,
) -> None:
    """Mend an entry of the books by a new one. The old entry stays; both are in the log."""
    body: dict[str, str | int] = {
        "corrects": corrects,
        "debit": debit,
        "credit": credit,
        "amount_wei": amount_wei,
        "reason": reason,
        "correction": name,
    }
    made, is_new = _offline(asked.settings.data_dir, body) if offline else _online(asked, body)
    if asked.as_json:
        print_json({"correction": made, "is_new": is_new})
    else:
        show(f"Correction {made} {'is made.' if is_new else 'was made before; nothing moved.'}")


def _online(asked: Asked, body: dict[str, str | int]) -> tuple[str, bool]:
    from openpool.web.answers import CorrectionView

    view = asked.ask(lambda api: api.post(CorrectionView, "/corrections", body))
    return view.correction, view.is_new


def _offline(data_dir: Path, body: dict[str, str | int]) -> tuple[str, bool]:
    """On the data folder of a pool that does not run; SetupError if it does."""
    from openpool.store.sqlite import SqliteStore
    from openpool.treasury.corrections import Corrections

    if not data_dir.exists():
        raise SetupError(f"There is no pool's data at {data_dir}.")

    async def make() -> tuple[str, bool]:
        async with SqliteStore(data_dir) as store:
            corrections = Corrections(store=store, clock_ms=_now_ms)
            return await corrections.make(**{key: str(value) for key, value in body.items()})

    return asyncio.run(make())


def _now_ms() -> int:
    import time

    return time.time_ns() // 1_000_000
