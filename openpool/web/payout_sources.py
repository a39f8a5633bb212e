"""What a payout is made of: the entries of an account since the payout before it, by rounds.

Read from the books; nothing here knows HTTP. Shown by `web.payout_pages`.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from msgspec import Struct

from openpool.core.money.events import RoundStarted
from openpool.core.money.ledger import Transfer
from openpool.store.interface import EventFilter, Reader
from openpool.web.words import order_of

PAGE = 5_000
ENTRIES_MAX = 20_000
"""More entries than this are not looked at."""
ROUNDS_MAX = 5_000


class Part(Struct, frozen=True, kw_only=True):
    """Entries of one kind in one round."""

    round: int | None
    """None: from before the first round that is known."""
    kind: str
    entries: int
    amount_wei: int
    """Below zero if they took something away."""


class Sources(Struct, frozen=True, kw_only=True):
    """Where the amount of a payout came from. Parts and what was left come to it exactly."""

    parts: tuple[Part, ...]
    """The newest round first."""
    left_wei: int
    """What was there from before; below zero: what stayed in the account."""
    payout_before: str
    """The order that paid the account last; empty: none did."""
    is_whole: bool
    """False: there are more entries than were looked at, and `left_wei` is what they come to."""


def sources_of(reader: Reader, account: str, set_aside: str, amount_wei: int) -> Sources:
    """Of the transfer with the id `set_aside`, which took the amount out of the account."""
    since = list(_since_last(reader, account, set_aside))
    last = since[-1] if since and _is_payout(since[-1], account) else None
    entries = since[:-1] if last else since
    parts = _parts(entries, account, _rounds(reader))
    return Sources(
        parts=parts,
        left_wei=amount_wei - sum(part.amount_wei for part in parts),
        payout_before=order_of(last.event_id) if last else "",
        is_whole=len(since) < ENTRIES_MAX,
    )


def _since_last(reader: Reader, account: str, before: str) -> Iterator[Transfer]:
    """The entries before a transfer, newest first; the last one is the payout before, if any."""
    for _ in range(ENTRIES_MAX // PAGE):
        page = reader.transfers(account=account, before=before, limit=PAGE)
        for transfer in page:
            yield transfer
            if _is_payout(transfer, account):
                return
        if len(page) < PAGE:
            return
        before = page[-1].id


def _is_payout(transfer: Transfer, account: str) -> bool:
    return transfer.kind == "set-aside" and transfer.debit == account


def _rounds(reader: Reader) -> list[tuple[int, int]]:
    """When each round started, and its number; the oldest first."""
    which = EventFilter(types=("round-started",), newest_first=True, limit=ROUNDS_MAX)
    return sorted(
        (stored.event.time_ms, stored.event.data.round)
        for stored in reader.events(which)
        if isinstance(stored.event.data, RoundStarted)
    )


def _parts(
    entries: Sequence[Transfer], account: str, rounds: Sequence[tuple[int, int]]
) -> tuple[Part, ...]:
    sums: dict[tuple[int | None, str], list[int]] = {}
    for each in entries:
        found = sums.setdefault((_round(each.time_ms, rounds), each.kind), [0, 0])
        found[0] += 1
        found[1] += each.amount_wei if each.credit == account else -each.amount_wei
    ordered = sorted(sums.items(), key=lambda item: (-(item[0][0] or 0), item[0][1]))
    return tuple(
        Part(round=number, kind=kind, entries=count, amount_wei=amount)
        for (number, kind), (count, amount) in ordered
    )


def _round(time_ms: int, rounds: Sequence[tuple[int, int]]) -> int | None:
    """The round that ran then. What is booked for the very end of a round belongs to it."""
    after = bisect_left(rounds, (time_ms, 0))
    return rounds[after - 1][1] if after else None
