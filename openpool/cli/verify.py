"""`openpool verify`: checks what a pool signed, on any machine, without asking the pool.

Exit codes: 0 everything that could be checked is right, 1 something is wrong, 2 a file cannot be
read. What was not checked is said.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openpool.cli.options import Json, examples, typed
from openpool.cli.output import ether, grouped, print_json, show, show_facts, show_table

if TYPE_CHECKING:
    from openpool.cli.checking import Report

FileArgument = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="A statement, terms or a signed receipt; - is stdin."),
]
FileOption = Path | None
COLUMNS = (
    *("address", "jobs>", "fees, wei>", "commission, wei>", "paid, wei>", "owed, wei>"),
    "about>",
)


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command(
        epilog=examples(
            "openpool verify 3120.json --signer 0xAb…",
            "openpool verify 3120.json --receipts 3120.receipts.jsonl --address 0xCd…",
            "openpool verify 3120.json --rpc https://arb1.example.org --json",
        )
    )(verify)


def verify(
    statement: FileArgument,
    receipts: Annotated[
        FileOption,
        typer.Option(metavar="FILE", help="Receipts: all of them, or some with their proofs."),
    ] = None,
    address: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", help="A payout address: all of its receipts must be there."
        ),
    ] = "",
    signer: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", help="Who must have signed: the address in the terms you accepted."
        ),
    ] = "",
    previous: Annotated[
        FileOption,
        typer.Option(metavar="FILE", help="The statement before it, which it must go on from."),
    ] = None,
    terms: Annotated[
        FileOption,
        typer.Option(metavar="FILE", help="The terms in force at its end, signed: /terms.json."),
    ] = None,
    rpc: Annotated[
        str, typer.Option(metavar="URL", help="A JSON-RPC endpoint, to look up the payouts.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Check a statement: signature, sums, receipts, balances, payouts. Asks the pool nothing."""
    from openpool.cli.checking import Files, check

    wanted = _address(address)
    report = check(
        Files(
            statement=statement,
            receipts=receipts,
            previous=previous,
            terms=terms,
            address=wanted,
            signer=_address(signer),
            rpc=rpc,
        )
    )
    if as_json:
        print_json(report)
    else:
        _show(report, wanted)
    if not report.ok:
        raise typer.Exit(1)


def _address(text: str) -> str:
    from openpool.core.enrolment import checked_address

    return typed(checked_address, text) if text else ""


def _show(report: "Report", address: str) -> None:
    if report.digest:
        _show_statement(report, address)
    for finding in report.findings:
        where = f"{finding.path}: " if finding.path else ""
        show(f"✗ {where}{finding.text}")
    if report.ok:
        for text in report.checked:
            show(f"✓ {text}")
        for text in report.not_checked:
            show(f"– Not checked. {text}")


def _show_statement(report: "Report", address: str) -> None:
    show_facts(
        [
            ("pool", report.pool),
            *([("round", report.round)] if report.round else []),
            ("digest", report.digest),
            ("signer", report.signer),
        ]
    )
    rows = [row for row in report.addresses if address in ("", row.address)]
    if rows:
        show_table(
            COLUMNS,
            [
                (
                    row.address,
                    row.jobs,
                    grouped(row.fee_wei),
                    grouped(row.commission_wei),
                    grouped(row.paid_wei),
                    grouped(row.balance_wei),
                    ether(row.balance_wei),
                )
                for row in rows
            ],
        )
