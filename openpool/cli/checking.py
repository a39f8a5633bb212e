"""What `openpool verify` finds out about a file: a statement, terms, or a receipt signed by itself.

Reads files of strangers; sizes are bounded, and nothing of the pool is asked or needed. Must not
print. Read next: `core.money.statement_check`.
"""

import asyncio
import sys
from pathlib import Path

from msgspec import Struct
from msgspec.json import decode

from openpool.core.decoding import UNREADABLE
from openpool.core.errors import BadMessage, SetupError, Unauthorized
from openpool.core.money import statement_check as checks
from openpool.core.money.accounts import WORKER
from openpool.core.money.documents import Signed, opened, signed_text
from openpool.core.money.events import OrderConfirmed
from openpool.core.money.receipts import RECEIPT_KIND, decode_receipt, faults_of
from openpool.core.money.statement_check import Finding
from openpool.core.money.statements import BYTES_MAX, KIND, Statement, Work
from openpool.core.money.terms import BYTES_MAX as TERMS_BYTES_MAX
from openpool.core.money.terms import KIND as TERMS_KIND
from openpool.core.money.terms import Terms

RECEIPTS_BYTES_MAX = 512_000_000


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
    findings: list[Finding]
    checked: list[str]
    not_checked: list[str]
    addresses: list[Row]


class Files(Struct, frozen=True, kw_only=True):
    """What there is to check, and against what."""

    statement: Path
    receipts: Path | None = None
    previous: Path | None = None
    terms: Path | None = None
    address: str = ""
    signer: str = ""
    rpc: str = ""


class _Findings:
    """What was found, checked and left out so far."""

    def __init__(self) -> None:
        self.wrong: list[Finding] = []
        self.checked: list[str] = []
        self.skipped: list[str] = []

    def report(self, signed: Signed, *, pool: str, round: int, rows: list[Row]) -> Report:
        findings = checks.limited(self.wrong)
        return Report(
            ok=not findings,
            pool=pool,
            round=round,
            digest=signed.digest,
            signer=signed.signer,
            findings=findings,
            checked=self.checked,
            not_checked=self.skipped,
            addresses=rows,
        )


def check(files: Files) -> Report:
    """Everything that can be checked with these files. Raises SetupError where one cannot be
    read; what is wrong with what is in them is in the report."""
    try:
        signed = opened(_content(files.statement, BYTES_MAX), bytes_max=BYTES_MAX)
        if bytes(signed.document).startswith(b'{"pool":'):
            return _receipt_report(signed, files.signer)
        if bytes(signed.document).startswith(b'{"format":"openpool-terms-'):
            return _terms_report(signed, files.signer)
        return _statement_report(signed, files)
    except (BadMessage, Unauthorized) as error:
        return _unreadable(str(error))


def _statement_report(signed: Signed, files: Files) -> Report:
    check_signature(signed, KIND)
    statement, found = checks.read(signed), _Findings()
    _signer(found, signed, files.signer)
    found.wrong += checks.check_statement(statement)
    found.checked.append("Balances, shares and sums were computed again from its work and facts.")
    _receipts(found, statement, files)
    _previous(found, statement, files.previous)
    _terms(found, statement, signed, files.terms)
    _payouts(found, statement, files.rpc)
    rows = _rows(statement) if not found.wrong else []
    return found.report(signed, pool=statement.pool, round=statement.round, rows=rows)


def _receipt_report(signed: Signed, signer: str) -> Report:
    """Of a receipt that was signed by itself."""
    check_signature(signed, RECEIPT_KIND)
    try:
        receipt = decode_receipt(signed.document)
    except UNREADABLE as error:
        return _unreadable(f"The document is no receipt: {error}.")
    found = _Findings()
    _signer(found, signed, signer)
    found.wrong += [Finding(path="document", text=text) for text in faults_of(receipt)]
    found.checked.append(
        f"Job {receipt.job}: {receipt.units} {receipt.unit} at {receipt.price_wei} wei are "
        f"{receipt.fee_wei} wei, of which {receipt.worker_wei} are for {receipt.address}."
    )
    found.skipped.append("Whether it is in a statement: that shows once its round has one.")
    return found.report(signed, pool=receipt.pool, round=receipt.round, rows=[])


def _terms_report(signed: Signed, signer: str) -> Report:
    """Of the pool's terms."""
    check_signature(signed, TERMS_KIND)
    try:
        terms = decode(signed.document, type=Terms)
    except UNREADABLE as error:
        return _unreadable(f"The document is no terms: {error}.")
    found = _Findings()
    _signer(found, signed, signer)
    found.checked.append(
        f"Version {terms.version}: commission {terms.promise.commission_ppm} ppm, scheme "
        f"{terms.promise.scheme}, paid from {terms.promise.threshold_wei} wei on."
    )
    return found.report(signed, pool=terms.pool, round=0, rows=[])


def _signer(found: _Findings, signed: Signed, signer: str) -> None:
    found.checked.append(f"It was signed by {signed.signer}.")
    if signer and signer != signed.signer:
        text = f"It was signed by {signed.signer}, not by {signer}."
        found.wrong.append(Finding(path="signer", text=text))
    elif not signer:
        text = "Whether that is the pool's key: pass --signer with the address you know."
        found.skipped.append(text)


def _receipts(found: _Findings, statement: Statement, files: Files) -> None:
    if files.receipts is None:
        text = "The receipts: pass --receipts with the file that the pool gives you."
        found.skipped.append(text)
        return
    lines = _lines(files.receipts)
    found.wrong += checks.check_receipts(statement, lines, address=files.address)
    whole = len(lines) == statement.receipts
    found.checked.append(
        f"Every receipt ({len(lines)}) was computed again, and the root over them."
        if whole
        else f"{len(lines)} of {statement.receipts} receipts were computed again, and their proofs."
    )


def _previous(found: _Findings, statement: Statement, path: Path | None) -> None:
    if path is None:
        if statement.previous:
            text = "Opening balances: pass --previous with the statement before."
            found.skipped.append(text)
        return
    signed = opened(_content(path, BYTES_MAX), bytes_max=BYTES_MAX)
    check_signature(signed, KIND)
    before = checks.read(signed)
    found.wrong += checks.check_previous(statement, before, signed.digest)
    found.checked.append(f"It goes on where the statement of round {before.round} ended.")


def _terms(found: _Findings, statement: Statement, signed: Signed, path: Path | None) -> None:
    if path is None:
        text = "Commission and scheme against the terms: pass --terms with /terms.json."
        found.skipped.append(text)
        return
    terms = opened(_content(path, TERMS_BYTES_MAX), bytes_max=TERMS_BYTES_MAX)
    check_signature(terms, TERMS_KIND)
    found.wrong += checks.check_terms(statement, signed.signer, terms)
    found.checked.append("Commission and scheme are those of the terms in force at its end.")


def _unreadable(text: str) -> Report:
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


def check_signature(signed: Signed, kind: str) -> None:
    """Raises Unauthorized unless the document was signed by who it says."""
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


def _payouts(found: _Findings, statement: Statement, rpc: str) -> None:
    if not rpc:
        text = "Payouts on chain: pass --rpc with the address of any JSON-RPC endpoint."
        found.skipped.append(text)
        return
    from openpool.cli.onchain import check_payouts

    wrong, count = asyncio.run(check_payouts(statement, rpc))
    found.wrong += wrong
    text = f"{count} payout transactions were looked up on chain {statement.chain_id}."
    found.checked.append(text)


def _rows(statement: Statement) -> list[Row]:
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


def _paid(statement: Statement) -> dict[str, int]:
    """What confirmed orders sent, by account."""
    paid: dict[str, int] = {}
    for fact in statement.facts:
        if isinstance(fact.data, OrderConfirmed) and fact.data.asset == "ETH":
            for line in fact.data.lines:
                paid[line.account] = paid.get(line.account, 0) + int(line.send_wei)
    return paid
