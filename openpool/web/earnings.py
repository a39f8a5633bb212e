"""What an address earned and was paid, as a table for a tax office: CSV or JSON, one row per
movement.

Amounts are exact. Text that a spreadsheet would run as a formula is made plain text. Used by the
API and by `openpool ledger export`. Must not write anything.
"""

import csv
import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from fractions import Fraction

from msgspec import Struct

from openpool.core.errors import LimitReached
from openpool.core.events import CallReceived
from openpool.core.money.accounts import LPT, worker_account
from openpool.core.money.events import Asset, OrderConfirmed
from openpool.core.money.ledger import Transfer
from openpool.core.units import ETHER
from openpool.store.interface import EventFilter, Reader
from openpool.web.answers import Movement

PAGE = 5_000
ROWS_MAX = 1_000_000
LATE_MS = 30 * 86_400_000
"""Shares bear the time at which their round ended, but are booked when it is settled."""
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
WORDS = {
    "fee": "work",
    "share": "share of a round",
    "set-aside": "payout",
    "returned": "payout returned",
    "reward": "reward",
    "adjustment": "revenue rule",
    "correction": "correction",
    "swapped": "bought for fees",
}
"""What kinds of transfers are called."""


class Row(Struct, frozen=True, kw_only=True):
    """One movement of what an address is owed."""

    time_ms: int
    kind: str
    reference: str
    """The job, the order, or the event that moved it."""
    asset: Asset
    amount_wei: int
    """Below zero for what was paid out."""
    usd: str
    """At the rate that was recorded with the call; empty where none was."""
    balance_wei: int
    """Owed afterwards, in this asset."""
    tx: str


COLUMNS = ("date", "kind", "reference", "asset", "amount", "amount_wei", "usd", "balance_wei", "tx")


def rows(reader: Reader, address: str, year: int = 0) -> list[Row]:
    """All movements in the order of the books, LPT before ETH; of one year (UTC) if it is given.

    LimitReached if there are more than a million."""
    start_ms, end_ms = _span(year)
    transactions = _transactions(reader)
    has_calls = bool(reader.counts().get("call-received"))
    found: list[Row] = []
    for account in (worker_account(address), f"{LPT}{worker_account(address)}"):
        for transfer, balance_wei in _transfers(reader, account):
            if transfer.time_ms < start_ms - LATE_MS:
                break
            if start_ms <= transfer.time_ms < end_ms:
                row = _row(reader, account, transfer, balance_wei, transactions, has_calls)
                found.append(row)
            if len(found) > ROWS_MAX:
                raise LimitReached("There are more than a million rows; ask for a single year.")
    return found[::-1]


def _span(year: int) -> tuple[int, int]:
    if not year:
        return 0, 2**62
    first, after = (datetime(each, 1, 1, tzinfo=UTC) for each in (year, year + 1))
    return int(first.timestamp()) * 1000, int(after.timestamp()) * 1000


def _transfers(reader: Reader, account: str) -> Iterator[tuple[Transfer, int]]:
    """The newest first, with the balance after each."""
    balance_wei = sum(b.amount_wei for b in reader.balances(account) if b.account == account)
    before = ""
    while True:
        page = reader.transfers(account=account, before=before, limit=PAGE)
        for transfer in page:
            yield transfer, balance_wei
            balance_wei -= _signed(transfer, account)
        if len(page) < PAGE:
            return
        before = page[-1].id


def _signed(transfer: Transfer, account: str) -> int:
    return transfer.amount_wei if transfer.credit == account else -transfer.amount_wei


def _transactions(reader: Reader) -> dict[str, str]:
    """The transaction of each order that was carried out."""
    found: dict[str, str] = {}
    after = 0
    while True:
        which = EventFilter(after_seq=after, types=("order-confirmed",), limit=PAGE)
        page = reader.events(which)
        for stored in page:
            if isinstance(stored.event.data, OrderConfirmed):
                found[stored.event.data.order] = stored.event.data.tx
        if len(page) < PAGE:
            return found
        after = page[-1].seq


def _row(
    reader: Reader,
    account: str,
    transfer: Transfer,
    balance_wei: int,
    transactions: dict[str, str],
    has_calls: bool,
) -> Row:
    reference = transfer.event_id
    tx = usd = ""
    if transfer.kind == "fee":
        reference = reference.removesuffix("/fee-credited")
        usd = _usd(reader, reference, transfer.amount_wei) if has_calls else ""
    elif reference.startswith("order/"):
        reference = reference.removeprefix("order/").rpartition("/")[0]
        tx = transactions.get(reference, "")
    return Row(
        time_ms=transfer.time_ms,
        kind=WORDS.get(transfer.kind, transfer.kind),
        reference=reference,
        asset="LPT" if account.startswith(LPT) else "ETH",
        amount_wei=_signed(transfer, account),
        usd=usd,
        balance_wei=balance_wei,
        tx=tx,
    )


def _usd(reader: Reader, job: str, amount_wei: int) -> str:
    """At the rate of the call's own price, in millionths rounded to the nearest."""
    found = reader.events(EventFilter(types=("call-received",), job=job, limit=1))
    call = found[0].event.data if found else None
    if not isinstance(call, CallReceived) or not call.wei_per_usd:
        return ""
    rate = Fraction(call.wei_per_usd)
    millionths = round(amount_wei * 1_000_000 / rate) if rate else 0
    return f"{millionths // 1_000_000}.{millionths % 1_000_000:06d}"


def csv_text(found: list[Row]) -> str:
    """The table, with a line of names on top."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for row in found:
        moment = datetime.fromtimestamp(row.time_ms // 1000, UTC)
        cells = (
            f"{moment:%Y-%m-%dT%H:%M:%SZ}",
            row.kind,
            row.reference,
            row.asset,
            decimal(row.amount_wei),
            str(row.amount_wei),
            row.usd,
            str(row.balance_wei),
            row.tx,
        )
        writer.writerow([plain(cell) for cell in cells])
    return text.getvalue()


def movements(found: list[Row]) -> list[Movement]:
    """The table for programs."""
    return [
        Movement(
            time_ms=row.time_ms,
            kind=row.kind,
            reference=row.reference,
            asset=row.asset,
            amount_wei=str(row.amount_wei),
            usd=row.usd,
            balance_wei=str(row.balance_wei),
            tx=row.tx,
        )
        for row in found
    ]


def decimal(wei: int) -> str:
    """Whole ETH or LPT with all 18 digits, exactly."""
    sign = "-" if wei < 0 else ""
    return f"{sign}{abs(wei) // ETHER}.{abs(wei) % ETHER:018d}"


def plain(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    if cell.startswith(FORMULA) and not NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell
