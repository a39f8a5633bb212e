"""Whom the pool pays: every payout address with its workers, from where `/earnings` goes on.

For the operator alone; owners see their own address at once.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence

from litestar.response import Template
from msgspec import Struct

from openpool.core.money.accounts import in_asset, worker_account
from openpool.store.interface import Balance, WorkerRow
from openpool.web.auth import Visitor
from openpool.web.context import Web
from openpool.web.problems import Asked
from openpool.web.show import show

OWNERS_SHOWN = 200


class Owner(Struct, frozen=True, kw_only=True):
    """A payout address."""

    address: str
    owed_wei: int
    owed_lpt: int
    credited_wei: int
    """What its workers earned, over all time."""
    workers: tuple[WorkerRow, ...]


def owners_of(rows: Sequence[WorkerRow], balances: Sequence[Balance]) -> list[Owner]:
    """All payout addresses, those that are owed most first."""
    held = {row.account: row.amount_wei for row in balances}
    workers: defaultdict[str, list[WorkerRow]] = defaultdict(list)
    for row in rows:
        workers[row.address].append(row)
    owners = [_owner(address, mine, held) for address, mine in workers.items() if address]
    return sorted(owners, key=lambda each: (-each.owed_wei, -each.credited_wei, each.address))


def _owner(address: str, workers: Sequence[WorkerRow], held: dict[str, int]) -> Owner:
    account = worker_account(address)
    return Owner(
        address=address,
        owed_wei=held.get(account, 0),
        owed_lpt=held.get(in_asset("LPT", account), 0),
        credited_wei=sum(row.credited_wei for row in workers),
        workers=tuple(sorted(workers, key=lambda row: -row.credited_wei)),
    )


async def owners_page(request: Asked, web: Web, visitor: Visitor) -> Template:
    """Every payout address, and a form for one."""
    rows, balances = await asyncio.to_thread(
        lambda: (web.deps.reader.workers(), web.deps.reader.balances())
    )
    owners = owners_of(rows, balances)
    return show(
        request,
        web,
        visitor,
        "owners",
        "Earnings",
        owners=owners[:OWNERS_SHOWN],
        total=len(owners),
    )
