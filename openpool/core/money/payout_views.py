"""What people and programs are shown of payouts. Plain values; amounts are decimal strings.

`PayoutsView` is for the operator; `payout_of` is what one owner may see. Filled by
`treasury.payer_view`. Pages and the API only show these.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice, takewhile
from typing import Literal, NamedTuple

from msgspec import Struct

from openpool.core.money.events import Asset, OrderKind
from openpool.core.money.orders import DAY_MS, Order, OrderBook, State
from openpool.core.money.payout_plan import Plan, Rules, threshold_of
from openpool.core.paging import behind

ORDERS_SHOWN = 50
"""In the view; more of them, and of the next, are asked for a page at a time."""
NEXT_SHOWN = 50
ASSETS: tuple[Asset, ...] = ("ETH", "LPT")
RUNWAY_DAYS = 7
"""Spending of so many days tells how long the wallet lasts."""


class OrderLineView(Struct, frozen=True, kw_only=True):
    """What an order does for one account."""

    account: str
    address: str
    amount_wei: str
    send_wei: str
    gas_wei: str


class OrderView(Struct, frozen=True, kw_only=True):
    """An order and how it stands."""

    order: str
    kind: OrderKind
    asset: Asset
    state: State
    to: str
    amount_wei: str
    """Taken from accounts, all lines together."""
    lines: tuple[OrderLineView, ...]
    nonce: int | None
    tx: str
    """The transaction in a block; else the newest one that was signed."""
    txs: tuple[str, ...]
    """All that were signed; at most one of them can ever be mined."""
    block: int
    fee_wei: str
    planned_ms: int
    ended_ms: int
    note: str
    reason: str
    """Why it was voided."""


class NextPayout(Struct, frozen=True, kw_only=True):
    """What is owed to one address, and why it is not paid yet."""

    address: str
    asset: Asset
    owed_wei: str
    threshold_wei: str
    due: bool
    """Whether it is paid in this run."""
    why: str
    """One sentence; empty if it is due."""


class Chosen(Struct, frozen=True, kw_only=True):
    """How an owner wants to be paid."""

    address: str
    asset: Asset
    threshold_wei: str
    staked: bool


class PayoutsView(Struct, frozen=True, kw_only=True):
    """Everything an operator wants to know about payouts."""

    mode: Literal["off", "shadow", "on"]
    wallet: str
    chain_id: int
    paused: str
    """Why, if payouts are paused."""
    paused_by: str
    problem: str
    """What keeps payouts from going on right now; it is tried again by itself."""
    held: str
    """Why nothing new is paid until the operator has looked."""
    funds_wei: str
    """What may be spent: the wallet's, less what is kept and on its way. Of the last look."""
    missing_wei: str
    """What the wallet lacks to pay all who are due."""
    owed_wei: str
    """To all workers together."""
    owed_lpt: str
    paid_wei: str
    """Sent to workers over all time, in final blocks."""
    in_flight_wei: str
    spent_today_wei: str
    """In payouts planned within the last 24 hours."""
    per_day_max_wei: str
    spent_today_lpt: str
    per_day_max_lpt: str
    """0 if this pool sends no LPT."""
    runway_days: int | None
    """How long the wallet lasts, spending as in the last days; null if nothing was spent."""
    next_run_ms: int
    counts: dict[State, int]
    orders: tuple[OrderView, ...]
    """Open ones, then those that ended last, the newest first: the first of them."""
    next: tuple[NextPayout, ...]
    """Those that are paid now, then those that are owed most: the first of them."""
    next_addresses: int
    """How many addresses are owed something."""
    blocked: dict[str, str]


class OwnerView(Struct, frozen=True, kw_only=True):
    """What the owner of one address is shown."""

    chosen: Chosen
    paid_wei: str
    """Sent over all time, in final blocks."""
    paid_lpt: str
    in_flight_wei: str
    next: tuple[NextPayout, ...]
    orders: tuple[OrderView, ...]
    blocked: str
    """Why nothing is sent to this address, if so; choosing again frees it."""


def order_view(order: Order, address: str = "") -> OrderView:
    """An order for people; with an address only what concerns it."""
    lines = [line for line in order.lines if address in ("", line.address)]
    txs = tuple(attempt.tx for attempt in order.attempts)
    return OrderView(
        order=order.order,
        kind=order.kind,
        asset=order.asset,
        state=order.state,
        to=order.to,
        amount_wei=str(sum(int(line.amount_wei) for line in lines)),
        lines=tuple(
            OrderLineView(
                account=line.account,
                address=line.address,
                amount_wei=line.amount_wei,
                send_wei=line.send_wei,
                gas_wei=line.gas_wei,
            )
            for line in lines
        ),
        nonce=order.nonce,
        tx=order.tx or (txs[-1] if txs else ""),
        txs=txs,
        block=order.block,
        fee_wei=str(order.fee_wei),
        planned_ms=order.planned_ms,
        ended_ms=order.ended_ms,
        note=order.note,
        reason=order.reason,
    )


def orders_shown(
    book: OrderBook,
    address: str = "",
    state: str = "",
    limit: int = ORDERS_SHOWN,
    before: str = "",
) -> tuple[OrderView, ...]:
    """Open orders, then those that ended last, the newest first; with `before` only those that
    come after that order in this list, none if it is not there."""
    newest = sorted(book.open.values(), key=lambda o: -o.planned_ms)
    listed: Iterator[Order] = chain(newest, reversed(book.ended))
    if before:
        listed = behind(listed, lambda order: order.order == before)
    fitting = (
        order
        for order in listed
        if state in ("", order.state)
        and (not address or any(line.address == address for line in order.lines))
    )
    return tuple(order_view(order, address) for order in islice(fitting, limit))


class NextPayouts:
    """Everybody of some plans: those that are paid now first, then those that are owed most. Put
    in order once for each plan; shown a page at a time."""

    def __init__(self, plans: Sequence[tuple[Plan, Rules]] = ()) -> None:
        self.plans = tuple(plans)
        lines = sorted((line for plan, rules in plans for line in _planned(plan, rules)), key=_rank)
        self._lines: dict[tuple[str, str], _Line] = {
            (line.asset, line.address): line for line in lines
        }
        self._keys = list(self._lines)
        self._places = {key: place for place, key in enumerate(self._keys)}
        self.addresses = len({address for _, address in self._keys})
        """How many of them there are; some are owed both assets."""

    def __len__(self) -> int:
        return len(self._keys)

    def are_of(self, plans: Sequence[tuple[Plan, Rules]]) -> bool:
        """Whether it was made of these very plans."""
        return len(plans) == len(self.plans) and all(
            a is c and b == d for (a, b), (c, d) in zip(plans, self.plans, strict=True)
        )

    def page(
        self, book: OrderBook, after: str = "", limit: int = NEXT_SHOWN
    ) -> tuple[NextPayout, ...]:
        """So many behind the one called `after` (`asset/address`); none if there is no such one."""
        asset, _, address = after.partition("/")
        place = self._places.get((asset, address), len(self._keys)) + 1 if after else 0
        return tuple(self._shown(key, book) for key in self._keys[place : place + limit])

    def of(self, address: str, book: OrderBook) -> tuple[NextPayout, ...]:
        """What is planned for one address, in each asset."""
        keys = ((asset, address) for asset in ASSETS)
        return tuple(self._shown(key, book) for key in keys if key in self._lines)

    def _shown(self, key: tuple[str, str], book: OrderBook) -> NextPayout:
        line = self._lines[key]
        return NextPayout(
            address=line.address,
            asset=line.asset,
            owed_wei=str(line.owed_wei),
            threshold_wei=str(threshold_of(line.address, line.rules, book.choices)),
            due=not line.why,
            why=line.why,
        )


class _Line(NamedTuple):
    asset: Asset
    address: str
    owed_wei: int
    why: str
    rules: Rules


def _planned(plan: Plan, rules: Rules) -> Iterator[_Line]:
    for due in plan.payments:
        yield _Line(plan.asset, due.address, due.amount_wei, "", rules)
    for waiting in plan.waiting:
        yield _Line(plan.asset, waiting.address, waiting.amount_wei, waiting.why, rules)


def _rank(line: _Line) -> tuple[bool, Asset, int, str]:
    return (bool(line.why), line.asset, -line.owed_wei, line.address)


def chosen_by(address: str, rules: Rules, book: OrderBook, *, staked: bool = False) -> Chosen:
    """An owner's choice, or what counts without one; `staked` is how the pool hands over LPT."""
    chosen = book.choices.get(address)
    return Chosen(
        address=address,
        asset=chosen.asset if chosen else "ETH",
        threshold_wei=str(threshold_of(address, rules, book.choices)),
        staked=chosen.staked if chosen else staked,
    )


def owner_view(
    address: str,
    nexts: tuple[NextPayout, ...],
    rules: Rules,
    book: OrderBook,
    *,
    staked: bool = False,
) -> OwnerView:
    """What one owner may see; nothing about anybody else."""
    return OwnerView(
        chosen=chosen_by(address, rules, book, staked=staked),
        paid_wei=str(book.paid.get(("ETH", address), 0)),
        paid_lpt=str(book.paid.get(("LPT", address), 0)),
        in_flight_wei=str(in_flight(book, address)),
        next=tuple(each for each in nexts if each.address == address),
        orders=orders_shown(book, address),
        blocked=book.blocked.get(address, ""),
    )


def runway_days(book: OrderBook, funds_wei: int, now_ms: int) -> int | None:
    """How many days the funds last, if as much is spent as in the last ones."""
    since_ms = now_ms - RUNWAY_DAYS * DAY_MS
    ended = takewhile(lambda o: o.ended_ms > since_ms, reversed(book.ended))
    lately = [o for o in ended if o.state == "confirmed"]
    spent_wei = sum(o.fee_wei + (o.value_wei if o.asset == "ETH" else 0) for o in lately)
    return max(funds_wei, 0) * RUNWAY_DAYS // spent_wei if spent_wei else None


def in_flight(book: OrderBook, address: str = "") -> int:
    """ETH in payouts that are not final yet, to one address or to all."""
    return sum(
        int(line.amount_wei)
        for order in book.open.values()
        if order.asset == "ETH"
        for line in order.lines
        if address in ("", line.address)
    )


def liabilities(owed: Mapping[str, int]) -> int:
    return sum(amount for amount in owed.values() if amount > 0)
