"""`openpool verify`: checks a statement of a pool on any machine, without asking the pool.

Exit codes: 0 everything that could be checked is right, 1 something is wrong, 2 a file cannot be
read. What was not checked is said.
"""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct

from openpool.cli.options import Json, examples
from openpool.cli.output import ether, grouped, plain, print_json, show, show_facts, show_table
from openpool.core.errors import BadMessage, SetupError, Unauthorized

if TYPE_CHECKING:
    from openpool.core.documents import Signed
    from openpool.core.statement_check import Finding
    from openpool.core.statements import Statement

RECEIPTS_BYTES_MAX = 512_000_000
FileArgument = Annotated[
    Path, typer.Argument(metavar="STATEMENT", help="Its file, or - for stdin.")
]
FileOption = Path | None


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command(
        epilog=examples(
            "openpool verify 3120.json --signer 0xAb…",
            "openpool verify 3120.json --receipts 3120.receipts.jsonl --address 0xCd…",
            "openpool verify 3120.json --previous 3119.json --rpc https://arb1.example.org --json",
        )
    )(verify)


class Row(Struct, frozen=True, kw_only=True):
    """What the statement says of one payout address."""

    address: str
    jobs: int
    fee_wei: str
    commission_wei: str
    worker_wei: str
    paid_wei: str
    balance_wei: str


class Report(Struct, frozen=True, kw_only=True):
    """What was found."""

    ok: bool
    pool: str
    round: int
    digest: str
    signer: str
    findings: "list[Finding]"
    checked: list[str]
    not_checked: list[str]
    addresses: list[Row]


def verify(
    statement: FileArgument,
    receipts: Annotated[
        FileOption, typer.Option(help="Receipts: all of them, or some with their proofs.")
    ] = None,
    address: Annotated[
        str, typer.Option(help="A payout address: all of its receipts must be there.")
    ] = "",
    signer: Annotated[
        str, typer.Option(help="Who must have signed: the address in the terms you accepted.")
    ] = "",
    previous: Annotated[
        FileOption, typer.Option(help="The statement before it, which it must go on from.")
    ] = None,
    rpc: Annotated[
        str, typer.Option(metavar="URL", help="A JSON-RPC endpoint, to look up the payouts.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Check a statement: signature, sums, receipts, balances, payouts. Asks the pool nothing."""
    try:
        report = _report(statement, receipts, _address(address), _address(signer), previous, rpc)
    except (BadMessage, Unauthorized) as error:
        report = _unreadable(str(error))
    if as_json:
        print_json(report)
    else:
        _show(report, _address(address))
    if not report.ok:
        raise typer.Exit(1)


def _report(
    path: Path,
    receipts: Path | None,
    address: str,
    signer: str,
    previous: Path | None,
    rpc: str,
) -> Report:
    from openpool.core import statement_check as checks

    signed, statement = _opened(path)
    checked = [f"It was signed by {signed.signer}."]
    skipped = []
    findings = list(checks.check_statement(statement))
    checked.append("Balances, shares and sums were computed again from its work and facts.")
    if signer and signer != signed.signer:
        text = f"It was signed by {signed.signer}, not by {signer}."
        findings.insert(0, checks.Finding(path="signer", text=text))
    elif not signer:
        skipped.append("Whether that is the pool's key: pass --signer with the address you know.")
    if receipts is None:
        skipped.append("The receipts: pass --receipts with the file that the pool gives you.")
    else:
        lines = _lines(receipts)
        findings += checks.check_receipts(statement, lines, address=address)
        checked.append(_receipts_text(len(lines), statement.receipts))
    if previous is None:
        skipped.append("Opening balances: pass --previous with the statement before.")
    else:
        before, previous_statement = _opened(previous)
        findings += checks.check_previous(statement, previous_statement, before.digest)
        checked.append(f"It goes on where the statement of round {previous_statement.round} ended.")
    text, wrong = _payouts(statement, rpc)
    (checked if rpc else skipped).append(text)
    findings = checks.limited([*findings, *wrong])
    return Report(
        ok=not findings,
        pool=statement.pool,
        round=statement.round,
        digest=signed.digest,
        signer=signed.signer,
        findings=findings,
        checked=checked,
        not_checked=skipped,
        addresses=_rows(statement) if not findings else [],
    )


def _unreadable(text: str) -> Report:
    from openpool.core.statement_check import Finding

    return Report(
        ok=False,
        pool="",
        round=0,
        digest="",
        signer="",
        findings=[Finding(path="", text=text)],
        checked=[],
        not_checked=[],
        addresses=[],
    )


def _opened(path: Path) -> "tuple[Signed, Statement]":
    from openpool.core.documents import opened
    from openpool.core.statement_check import read
    from openpool.core.statements import BYTES_MAX, KIND

    signed = opened(_content(path, BYTES_MAX), bytes_max=BYTES_MAX)
    check_signature(signed, KIND)
    return signed, read(signed)


def check_signature(signed: "Signed", kind: str) -> None:
    """Raises Unauthorized unless the document was signed by who it says."""
    from openpool.core.documents import signed_text
    from openpool.ethereum import Account, encode_defunct

    message = encode_defunct(text=signed_text(kind, signed.digest))
    try:
        found = Account.recover_message(message, signature=signed.signature)
    except Exception:  # whatever a library says about bytes that are no signature
        found = ""
    if found != signed.signer:
        raise Unauthorized(
            f"The signature is not that of {signed.signer} for this document: it was changed after "
            "it was signed, or signed by somebody else."
        )


def _content(path: Path, bytes_max: int) -> bytes:
    import sys

    try:
        if str(path) == "-":
            return sys.stdin.buffer.read(bytes_max + 2)
        with path.open("rb") as file:
            return file.read(bytes_max + 2)
    except OSError as error:
        reason = (error.strerror or "it cannot be read").lower()
        raise SetupError(f"{path} cannot be read: {reason}.") from None


def _lines(path: Path) -> list[bytes]:
    content = _content(path, RECEIPTS_BYTES_MAX)
    if len(content) > RECEIPTS_BYTES_MAX:
        raise BadMessage(f"{path} is larger than {RECEIPTS_BYTES_MAX} bytes.")
    return content.split(b"\n")[: -1 if content.endswith(b"\n") else None] if content else []


def _address(text: str) -> str:
    from openpool.core.enrolment import checked_address

    try:
        return checked_address(text) if text else ""
    except BadMessage as error:
        raise SetupError(str(error)) from None


def _receipts_text(given: int, stated: int) -> str:
    if given == stated:
        return f"All {given} receipts were computed again, and the root over them."
    return f"{given} of {stated} receipts were computed again, and their proofs."


def _payouts(statement: "Statement", rpc: str) -> "tuple[str, list[Finding]]":
    if not rpc:
        return "Payouts on chain: pass --rpc with the address of any JSON-RPC endpoint.", []
    from openpool.cli.onchain import check_payouts

    findings, count = asyncio.run(check_payouts(statement, rpc))
    return f"{count} payout transactions were looked up on chain {statement.chain_id}.", findings


# --- showing -------------------------------------------------------------------------------------


def _rows(statement: "Statement") -> list[Row]:
    from openpool.core.accounts import WORKER
    from openpool.core.statements import Work

    accounts = {row.account: row for row in statement.accounts}
    names = {name.removeprefix(WORKER) for name in accounts if name.startswith(WORKER)}
    work: dict[str, list[Work]] = {name: [] for name in names}
    for each in statement.work:
        work.setdefault(each.address, []).append(each)
    paid = _paid(statement)
    rows = []
    for name in sorted(work):
        account = accounts.get(f"{WORKER}{name}")
        rows.append(
            Row(
                address=name,
                jobs=sum(row.jobs for row in work[name]),
                fee_wei=str(sum(int(row.fee_wei) for row in work[name])),
                commission_wei=str(sum(int(row.commission_wei) for row in work[name])),
                worker_wei=str(sum(int(row.worker_wei) for row in work[name])),
                paid_wei=str(paid.get(f"{WORKER}{name}", 0)),
                balance_wei=account.closing_wei if account else "0",
            )
        )
    return rows


def _paid(statement: "Statement") -> dict[str, int]:
    """What confirmed orders sent, by account."""
    from openpool.core.money_events import OrderConfirmed

    paid: dict[str, int] = {}
    for fact in statement.facts:
        if isinstance(fact.data, OrderConfirmed) and fact.data.asset == "ETH":
            for line in fact.data.lines:
                paid[line.account] = paid.get(line.account, 0) + int(line.send_wei)
    return paid


def _show(report: Report, address: str) -> None:
    if report.digest:
        show_facts(
            [
                ("pool", report.pool),
                ("round", report.round),
                ("digest", report.digest),
                ("signer", report.signer),
            ]
        )
        show_table(
            [
                "address",
                "jobs>",
                "fees, wei>",
                "commission, wei>",
                "paid, wei>",
                "owed, wei>",
                "~>",
            ],
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
                for row in report.addresses
                if address in ("", row.address)
            ],
            empty="It names no address.",
        )
    for finding in report.findings:
        where = f"{finding.path}: " if finding.path else ""
        show(plain(f"✗ {where}{finding.text}"))
    if report.ok:
        for text in report.checked:
            show(plain(f"✓ {text}"))
        for text in report.not_checked:
            show(plain(f"– Not checked. {text}"))
