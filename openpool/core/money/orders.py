"""Orders as the log tells them: what was planned, signed, sent, seen in a block, and how it ended.

A fold over the events of orders, nothing else: the same events give the same book, in whichever
process. Facts may come twice; the second changes nothing. Must not decide what happens next, which
is `core.money.payouts`, nor whom to pay, which is `core.money.payout_plan`.
"""

from collections import deque
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from openpool.core.events import Event
from openpool.core.money import events as money
from openpool.core.money.events import Asset, OrderKind, OrderLine

State = Literal["planned", "signed", "sent", "mined", "confirmed", "voided"]
STATES: tuple[State, ...] = ("planned", "signed", "sent", "mined", "confirmed", "voided")
PAYOUT_KINDS = frozenset(("payout", "batch-payout", "stake-payout", "swap"))
"""What pays somebody, and so counts for the limits."""

TYPES = (
    "order-planned",
    "order-signed",
    "order-sent",
    "order-mined",
    "order-confirmed",
    "order-voided",
    "payouts-paused",
    "payouts-resumed",
    "address-blocked",
    "address-unblocked",
    "payout-chosen",
)
"""The events that the book follows."""

COUNTED = (
    "payouts-paused",
    "payouts-resumed",
    "address-blocked",
    "address-unblocked",
    "payout-chosen",
)
"""Those that nothing but their number tells apart."""

GUARD = "guard"
"""Who pauses payouts when something is found that must not be."""
DAY_MS = 86_400_000
ENDED_MAX = 1_000
"""How many orders that have ended are kept in full; older ones are in the log."""
WATCHED_MS = 7 * DAY_MS
"""How long a signed order that was voided unseen is looked for all the same."""


class Purse(NamedTuple):
    """A wallet on one chain: nonces and money of the same key on another chain are other ones."""

    wallet: str
    chain_id: int


class Spent(NamedTuple):
    """A payout that counts for the limit of its day."""

    asset: Asset
    planned_ms: int
    amount_wei: int


class Attempt(Struct, frozen=True, kw_only=True):
    """One signed transaction of an order. All attempts of an order have the same nonce."""

    number: int
    nonce: int
    tx: str
    raw: str
    gas_limit: int
    max_fee_wei: int
    """Per unit of gas, as is the next."""
    priority_fee_wei: int
    signed_ms: int
    sent_ms: int = 0
    """When an endpoint was first given it; 0 is never, as far as the log knows."""
    answer: str = ""
    """The newest answer of an endpoint: `ok`, or a fault of `chain.interface.SendFault`."""


class Order(Struct, frozen=True, kw_only=True):
    """Something that a wallet of ours shall do on chain, once."""

    order: str
    wallet: str
    chain_id: int
    kind: OrderKind
    asset: Asset
    to: str
    value_wei: int
    data: str
    lines: tuple[OrderLine, ...]
    note: str
    planned_ms: int
    state: State = "planned"
    attempts: tuple[Attempt, ...] = ()
    tx: str = ""
    """The transaction that is in a block; it may be any of the attempts."""
    block: int = 0
    block_hash: str = ""
    ended_ms: int = 0
    fee_wei: int = 0
    reason: str = ""
    """Why it was voided."""

    @property
    def purse(self) -> Purse:
        return Purse(self.wallet, self.chain_id)

    @property
    def nonce(self) -> int | None:
        return self.attempts[0].nonce if self.attempts else None

    @property
    def newest(self) -> Attempt:
        return self.attempts[-1]

    @property
    def moves_money(self) -> bool:
        """Whether the brake holds it: calls like `reward` go on while payouts are paused."""
        return bool(self.lines) or self.value_wei > 0

    @property
    def ended(self) -> bool:
        return self.state in ("confirmed", "voided")

    @property
    def waits_for_block(self) -> bool:
        return self.state in ("signed", "sent")

    @property
    def most_wei(self) -> int:
        """The most that it can take out of the wallet once it is signed: value and all gas."""
        gas_wei = max((a.gas_limit * a.max_fee_wei for a in self.attempts), default=0)
        return self.value_wei + gas_wei

    @property
    def amount_wei(self) -> int:
        return sum(int(line.amount_wei) for line in self.lines)


class OrderBook:
    """All orders of a log, and what people and guards have said about payouts."""

    def __init__(self) -> None:
        self.open: dict[str, Order] = {}
        self.ended: deque[Order] = deque(maxlen=ENDED_MAX)
        self.known: set[str] = set()
        """Every order that ever was, so that none is planned twice."""
        self.purses: set[Purse] = set()
        """Every wallet and chain that an order was ever planned for."""
        self.facts = 0
        """How many of COUNTED there were; the next one is named by it."""
        self.consumed: dict[Purse, int] = {}
        """The nonce after the highest that a final block has taken."""
        self.accepted: dict[Purse, int] = {}
        """How many transactions the operator has seen to, though the log does not know them."""
        self.watched: dict[str, Order] = {}
        """Orders voided because another transaction took their nonce; see WATCHED_MS."""
        self.spent: dict[str, Spent] = {}
        """Payouts of the last day or so, by order."""
        self.last_paid: dict[str, int] = {}
        """Per address: when a payout was last planned."""
        self.singles: set[str] = set()
        """Addresses whose batch failed: they are paid one by one."""
        self.blocked: dict[str, str] = {}
        self.choices: dict[str, money.PayoutChosen] = {}
        self.paused: money.PayoutsPaused | None = None
        self.counts: dict[State, int] = dict.fromkeys(STATES, 0)
        self.paid: dict[tuple[Asset, str], int] = {}
        """What addresses were sent over all time, in final blocks: (asset, address) → amount."""

    def apply(self, event: Event) -> None:
        """Fold one event in; any other event than those of TYPES changes nothing."""
        self.facts += event.type in COUNTED
        match event.data:
            case money.OrderPlanned() as data:
                self._planned(data, event.time_ms)
            case money.OrderSigned() as data:
                self._signed(data, event.time_ms)
            case money.OrderSent() as data:
                self._sent(data, event.time_ms)
            case money.OrderMined() as data:
                self._mined(data)
            case money.OrderConfirmed() | money.OrderVoided() as data:
                self._ended(data, event.time_ms)
            case money.PayoutsPaused() as data:
                self.paused = data
            case money.PayoutsResumed() as data:
                self._resumed(data)
            case money.AddressBlocked(address=address, reason=reason):
                self.blocked[address] = reason
            case money.AddressUnblocked(address=address):
                self.blocked.pop(address, None)
            case money.PayoutChosen() as data:
                self.choices[data.address] = data

    def get(self, order: str) -> Order | None:
        """The order, if it is open or ended lately."""
        return self.open.get(order) or next((o for o in self.ended if o.order == order), None)

    def spent_wei(self, now_ms: int, asset: Asset = "ETH") -> int:
        """What payouts planned within the last 24 hours take, failed ones left out."""
        since_ms = now_ms - DAY_MS
        return sum(
            each.amount_wei
            for each in self.spent.values()
            if each.asset == asset and each.planned_ms > since_ms
        )

    def of(self, purse: Purse) -> list[Order]:
        """The open orders of a wallet."""
        return [order for order in self.open.values() if order.purse == purse]

    def next_nonce(self, purse: Purse, latest_nonce: int) -> int:
        """The lowest nonce that is free, `latest_nonce` being what the chain counts."""
        taken = {order.nonce for order in self.of(purse)}
        nonce = max(latest_nonce, self.consumed.get(purse, 0))  # an endpoint may lag
        while nonce in taken:
            nonce += 1
        return nonce

    def known_nonces(self, purse: Purse) -> int:
        """How many transactions of the wallet the log knows of, as the chain counts them."""
        signed = [order.nonce + 1 for order in self.of(purse) if order.nonce is not None]
        return max([self.consumed.get(purse, 0), self.accepted.get(purse, 0), *signed])

    def _resumed(self, data: money.PayoutsResumed) -> None:
        if self.paused is not None and self.paused.by == GUARD:
            self.watched.clear()  # the operator has seen to what the guard found
        self.paused = None
        if data.wallet:
            self.accepted[Purse(data.wallet, data.chain_id)] = data.nonce

    def _planned(self, data: money.OrderPlanned, time_ms: int) -> None:
        if data.order in self.known:
            return
        self.known.add(data.order)
        order = Order(
            order=data.order,
            wallet=data.wallet,
            chain_id=data.chain_id,
            kind=data.kind,
            asset=data.asset,
            to=data.to,
            value_wei=int(data.value_wei),
            data=data.data,
            lines=data.lines,
            note=data.note,
            planned_ms=time_ms,
        )
        self.purses.add(order.purse)
        self._put(order)
        if order.kind in PAYOUT_KINDS:
            self._remember_payout(order)

    def _remember_payout(self, order: Order) -> None:
        while self.spent and (oldest := next(iter(self.spent))):
            if self.spent[oldest].planned_ms > order.planned_ms - 2 * DAY_MS:
                break
            del self.spent[oldest]
        self.spent[order.order] = Spent(order.asset, order.planned_ms, order.amount_wei)
        for line in order.lines:
            self.last_paid[line.address] = order.planned_ms

    def _signed(self, data: money.OrderSigned, time_ms: int) -> None:
        order = self.open.get(data.order)
        if order is None or any(a.tx == data.tx for a in order.attempts):
            return
        attempt = Attempt(
            number=data.attempt,
            nonce=data.nonce,
            tx=data.tx,
            raw=data.raw,
            gas_limit=data.gas_limit,
            max_fee_wei=int(data.max_fee_wei),
            priority_fee_wei=int(data.priority_fee_wei),
            signed_ms=time_ms,
        )
        state: State = "signed" if order.state == "planned" else order.state
        self._change(order, attempts=(*order.attempts, attempt), state=state)

    def _sent(self, data: money.OrderSent, time_ms: int) -> None:
        order = self.open.get(data.order)
        if order is None:
            return
        attempts = tuple(
            msgspec.structs.replace(a, sent_ms=a.sent_ms or time_ms, answer=data.answer)
            if a.tx == data.tx
            else a
            for a in order.attempts
        )
        state: State = "sent" if order.state == "signed" else order.state
        self._change(order, attempts=attempts, state=state)

    def _mined(self, data: money.OrderMined) -> None:
        if order := self.open.get(data.order):
            self._change(
                order, state="mined", tx=data.tx, block=data.block, block_hash=data.block_hash
            )

    def _ended(self, data: money.OrderConfirmed | money.OrderVoided, time_ms: int) -> None:
        order = self.open.pop(data.order, None)
        if order is None:
            return
        self.counts[order.state] -= 1
        if order.nonce is not None:
            after = max(self.consumed.get(order.purse, 0), order.nonce + 1)
            self.consumed[order.purse] = after
        ended = msgspec.structs.replace(
            order,
            state="confirmed" if isinstance(data, money.OrderConfirmed) else "voided",
            tx=data.tx,
            block=data.block if isinstance(data, money.OrderConfirmed) else order.block,
            fee_wei=int(data.fee_wei),
            lines=data.lines,
            ended_ms=time_ms,
            reason="" if isinstance(data, money.OrderConfirmed) else data.reason,
        )
        self.counts[ended.state] += 1
        self.ended.append(ended)
        if isinstance(data, money.OrderVoided):
            self._voided(ended, time_ms)
        elif ended.kind in PAYOUT_KINDS:
            self._paid(ended)

    def _paid(self, order: Order) -> None:
        for line in order.lines:
            key = (order.asset, line.address)
            self.paid[key] = self.paid.get(key, 0) + int(line.send_wei)

    def _voided(self, order: Order, time_ms: int) -> None:
        if order.tx or not order.attempts:  # else only endpoints say that nothing was sent
            self.spent.pop(order.order, None)
        if order.kind == "batch-payout":
            self.singles.update(line.address for line in order.lines)
        if order.attempts and not order.tx:
            self.watched[order.order] = order
        self.watched = {
            name: each
            for name, each in self.watched.items()
            if each.ended_ms > time_ms - WATCHED_MS
        }

    def _put(self, order: Order) -> None:
        self.open[order.order] = order
        self.counts[order.state] += 1

    def _change(self, order: Order, **changes: object) -> None:
        self.counts[order.state] -= 1
        self._put(msgspec.structs.replace(order, **changes))
