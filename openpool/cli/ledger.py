"""The books (`openpool ledger`), and `openpool replay`: the proof that they follow from the log.

Both also work while the pool is stopped, on its data folder.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openpool.cli.asking import Booked, on_books
from openpool.cli.options import ConfigFile, Json, Limit, Set, examples, load
from openpool.cli.output import (
    balance,
    clock,
    ether,
    grouped,
    print_json,
    show,
    show_facts,
    show_table,
)
from openpool.core.errors import OpenPoolError

if TYPE_CHECKING:
    from openpool.cli.api import Api
    from openpool.config import Config
    from openpool.store.replay import ReplayReport
    from openpool.web.shapes import Balances, TransferView

WindowRounds = Annotated[
    int,
    typer.Option(
        "--rounds",
        metavar="N",
        min=0,
        max=1_000,
        help="The same with another length of the window.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command(
        epilog=examples(
            "openpool replay --check",
            "openpool replay --scheme proportional --commission 20%",
            "openpool replay --scheme window --rounds 5 --rule holdback:rate=10% --csv",
        )
    )(replay)


@on_books
def ledger(
    asked: Booked,
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="Only this one.")] = "",
    limit: Limit = 20,
) -> None:
    """Show the balances of all accounts and the newest transfers, in whole wei."""
    balances, transfers = asked.ask_or_read(
        lambda api: _books(api, account, limit),
        lambda settings: _stored_books(settings.data_dir, account, limit),
    )
    if asked.as_json:
        print_json(
            {
                "balances": balances.balances,
                "sum_wei": balances.sum_wei,
                "transfers": transfers,
                **({} if account else {"reserve": _reserve(asked.settings, balances)}),
            }
        )
        return
    show_table(
        ["account", "wei>", "about>"],
        [
            (b.account, grouped(b.amount_wei), balance(b.account, b.amount_wei))
            for b in balances.balances
        ],
        empty=f"There is no account `{account}` in the books; `openpool ledger` shows all."
        if account
        else "No money has moved yet.",
    )
    if not account:
        show(f"All balances together: {balances.sum_wei} wei (0, or the books are broken).")
        free = _reserve(asked.settings, balances)
        show(
            f"Of the commission {ether(free['free_wei'])} may be taken out; "
            f"{ether(free['reserve_wei'])} stay for {ether(free['unrealised_wei'])} that was paid "
            "and is not realised yet (revenue.reserve)."
        )
    show_table(
        ["time", "debit", "credit", "wei>", "kind"],
        [(clock(t.time_ms), t.debit, t.credit, grouped(t.amount_wei), t.kind) for t in transfers],
        empty="",
    )


def _reserve(settings: "Config", balances: "Balances") -> dict[str, str]:
    from msgspec.structs import asdict

    from openpool.core.money.schemes import reserve

    amounts = [(each.account, int(each.amount_wei)) for each in balances.balances]
    found = reserve(amounts, settings.revenue.reserve)
    return {name: str(wei) for name, wei in asdict(found).items()}


async def _books(api: "Api", account: str, limit: int) -> "tuple[Balances, list[TransferView]]":
    from openpool.web.shapes import Balances, TransferView

    balances = await api.get(Balances, "/ledger/balances")
    transfers = await api.get(list[TransferView], "/ledger/transfers", account=account, limit=limit)
    return _only(balances, account), transfers


def _stored_books(
    data_dir: Path, account: str, limit: int
) -> "tuple[Balances, list[TransferView]]":
    from openpool.store.reader import SqliteReader
    from openpool.web.shapes import Balances, BalanceView, transfer_view

    reader = SqliteReader(data_dir)
    try:
        rows = reader.balances()
        balances = Balances(
            balances=[BalanceView(account=b.account, amount_wei=str(b.amount_wei)) for b in rows],
            sum_wei=str(sum(b.amount_wei for b in rows)),
        )
        transfers = [transfer_view(t) for t in reader.transfers(account=account, limit=limit)]
        return _only(balances, account), transfers
    finally:
        reader.close()


def _only(balances: "Balances", account: str) -> "Balances":
    from msgspec.structs import replace

    shown = [b for b in balances.balances if not account or b.account == account]
    return replace(balances, balances=shown)


def replay(
    check: Annotated[
        bool, typer.Option("--check", help="Prove that log, ledger and balances agree.")
    ] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Make the books anew from the log; the pool is off.")
    ] = False,
    head: Annotated[
        str,
        typer.Option(
            metavar="SEQ:CHAIN", help="A head of the log noted earlier; must still be in it."
        ),
    ] = "",
    scheme: Annotated[
        str,
        typer.Option(
            metavar="SCHEME",
            help="Show what everybody would have earned under per-job, proportional or window.",
        ),
    ] = "",
    commission: Annotated[
        str, typer.Option(metavar="RATE", help="The same with another commission, like 20%.")
    ] = "",
    rounds: WindowRounds = 0,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="The same with this rule, like holdback:rate=5%, or none; may be repeated.",
        ),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the comparison as CSV.")] = False,
    config: ConfigFile = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Replay the event log: check the books, make them anew, or try other terms on the past."""
    from openpool.store import replay as replaying

    is_what_if = bool(scheme or commission or rounds or rule)
    if check + rebuild + is_what_if != 1:
        raise typer.BadParameter("say one of --check, --rebuild, or other terms (--scheme …)")
    if is_what_if:
        from openpool.cli.whatif import what_if

        what_if(
            load(config, assignments).config,
            scheme=scheme,
            commission=commission,
            rounds=rounds,
            rules=rule or (),
            as_json=as_json,
            as_csv=as_csv,
        )
        return
    data_dir = load(config, assignments).config.data_dir
    if rebuild:
        report = replaying.rebuild(data_dir)
    else:
        report = replaying.check(data_dir, known_head=_known_head(head))
    if as_json:
        print_json(_report(report))
    else:
        _show_report(report)
    if not report.ok:
        raise typer.Exit(1)


def _known_head(text: str) -> tuple[int, str] | None:
    if not text:
        return None
    seq, _, chain = text.partition(":")
    if not seq.isdigit() or not chain:
        raise typer.BadParameter("--head is a sequence number, a colon and a chain hash")
    return int(seq), chain.lower()


def _report(report: "ReplayReport") -> dict[str, object]:
    import msgspec

    facts: dict[str, object] = msgspec.structs.asdict(report)
    wei = {name: str(value) for name, value in facts.items() if name.endswith("_wei")}
    return {"ok": report.ok, **facts, **wei}


def _show_report(report: "ReplayReport") -> None:
    show_facts(
        [
            ("events", grouped(report.events)),
            ("transfers", grouped(report.transfers)),
            ("fees", f"{grouped(report.fees_wei)} wei"),
            ("commission", f"{grouped(report.commission_wei)} wei"),
            ("credited", f"{grouped(report.credited_wei)} wei"),
            ("head", f"{report.seq}:{report.chain}"),
            ("root", report.root),
        ]
    )
    for fault in report.faults:
        show(f"✗ {fault}")
    if report.ok:
        show("✓ Log, ledger and balances agree.")
    else:
        raise OpenPoolError("Log and books do not agree; see the faults above.")
