"""Money for the story of `web.storybook`: a month of rounds, luck, payouts in every state.

`MoneyStory` makes events beside those of the work, so that the books balance; `StoryPayouts` is the
window on them. For looking at pages, never for a pool. Must not be taken for measurements.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from hashlib import sha256
from random import Random

from msgspec import Struct

from openpool.core.enrolment import checked_address
from openpool.core.events import AnyPayload, CommissionTaken, Event, FeeCredited
from openpool.core.money import events as m
from openpool.core.money.accounts import WORKER, holdback_account, wallet_account, worker_account
from openpool.core.money.events import Asset, OrderKind, OrderLine
from openpool.core.money.orders import TYPES, OrderBook
from openpool.core.money.payout_plan import Plan, Rules, Standing, plan
from openpool.core.money.payout_views import (
    Chosen,
    NextPayout,
    NextPayouts,
    OrderView,
    OwnerView,
    PayoutsView,
    chosen_by,
    in_flight,
    liabilities,
    order_view,
    orders_shown,
    owner_view,
    runway_days,
)
from openpool.core.money.reconcile import Figures, explanation
from openpool.core.payment import SURE
from openpool.core.units import ETHER, commission
from openpool.store.interface import EventFilter, Reader
from openpool.web.storybook import CAST, COMMISSION_PPM, MINUTE_MS, ORCHESTRATORS, Character

CHAIN_ID = 42161
HOUR_MS = 3_600_000
ROUND_MS = 22 * HOUR_MS
FIRST_ROUND = 4_071
PRICE_WEI = 500
MICRO = ETHER // 1_000_000
FACE_WEI = 800 * MICRO
GAS_WEI = 4 * MICRO
RUN_EVERY = 5
"""Rounds between two payouts."""
RULES = Rules(threshold_wei=2_000 * MICRO, minimum_wei=500 * MICRO, per_day_max_wei=ETHER // 2)
REFUSES = "the address is a contract that takes no ETH (execution reverted)."


def made_up(*parts: object) -> str:
    """Thirty-two bytes that look like a hash."""
    return "0x" + sha256("/".join(map(str, parts)).encode()).hexdigest()


def address_of(name: str) -> str:
    return checked_address(made_up("address", name)[:42])


WALLET = address_of("wallet")
BATCH = address_of("batch contract")
GATEWAYS = tuple(address_of(f"gateway {n}") for n in range(3))


class Sending(Struct, frozen=True, kw_only=True):
    """An order of the story: how far it has come, and whom it pays."""

    kind: OrderKind
    lines: tuple[OrderLine, ...]
    until: str
    asset: Asset = "ETH"
    attempts: int = 1
    reason: str = ""


class MoneyStory:
    """Events about money from a month ago to `end_ms`, fitting to the events of `work`."""

    def __init__(
        self, *, end_ms: int, work: Sequence[Event] = (), rounds: int = 31, seed: int = 7
    ) -> None:
        self._end_ms, self._rounds = end_ms, rounds
        self._random = Random(seed)  # noqa: S311 - a story, not a secret
        self._fees = [e for e in work if isinstance(e.data, FeeCredited)]
        self._busy_ms = min((e.time_ms for e in self._fees), default=end_ms)
        self._owed: dict[str, int] = defaultdict(int)
        self._claims: dict[str, int] = defaultdict(int)
        self._orders = 0

    def starts(self, number: int) -> int:
        """When the round with this number in the story began; the last one is running."""
        return self._end_ms - 9 * HOUR_MS - (self._rounds - 1 - number) * ROUND_MS

    def events(self) -> list[Event]:
        """All of it, in the order of time."""
        told = [*self._opening(), *self._month(), *self._now()]
        return sorted(told, key=lambda event: event.time_ms)

    def _opening(self) -> Iterator[Event]:
        t = self.starts(0)
        filled = m.WalletReconciled(
            wallet=WALLET, asset="ETH", block=self._block(t), direction="in",
            amount_wei=str(16_500 * MICRO),
        )  # fmt: skip
        yield Event(id="wallet/filled", time_ms=t + 10, data=filled)
        for name in ORCHESTRATORS:
            opened = m.ClaimOpened(
                orchestrator=name, address=address_of(name), round=FIRST_ROUND,
                block=self._block(t), pending_wei="0",
            )  # fmt: skip
            yield Event(id=f"chain/{name}/opened", time_ms=t + 20, data=opened)

    def _month(self) -> Iterator[Event]:
        for number in range(self._rounds):
            started = m.RoundStarted(
                round=FIRST_ROUND + number, source="chain", block=self._block(self.starts(number))
            )
            yield Event(
                id=f"round/{FIRST_ROUND + number}", time_ms=self.starts(number), data=started
            )
            for name in ORCHESTRATORS:
                yield from self._round(number, name)
            if number % RUN_EVERY == RUN_EVERY // 2:
                yield from self._run(number)

    # --- what came in --------------------------------------------------------------------------

    def _round(self, number: int, name: str) -> Iterator[Event]:
        """One orchestrator's round: work, tickets, reward; and its end, if it has ended."""
        past = list(self._past(number, name))
        yield from past
        fees = [*past, *self._present(number, name)]
        expected_wei = sum(int(e.data.fee_wei) for e in fees if isinstance(e.data, FeeCredited))
        for event in fees:
            if isinstance(event.data, FeeCredited):
                self._owed[event.data.address] += int(event.data.worker_wei)
        yield from self._observed(number, name)
        realised_wei = yield from self._tickets(number, name, expected_wei)
        if number < self._rounds - 1:
            yield from self._closed(number, name, expected_wei, realised_wei)

    def _present(self, number: int, name: str) -> list[Event]:
        start_ms, end_ms = self.starts(number), self.starts(number + 1)
        return [
            event
            for event in self._fees
            if start_ms <= event.time_ms < end_ms
            and isinstance(event.data, FeeCredited)
            and event.data.orchestrator == name
        ]

    def _past(self, number: int, name: str) -> Iterator[Event]:
        """Work before the story of the work begins: one large job for everybody and round."""
        t = self.starts(number) + 5 * HOUR_MS
        if t >= self._busy_ms:
            return
        for who in (each for each in CAST if each.share):
            size_wei = who.share * self._random.randrange(120, 230) * MICRO
            job = f"{name}.{FIRST_ROUND + number}.{CAST.index(who)}"
            yield from _work(t + CAST.index(who) * MINUTE_MS, job, name, who, size_wei)

    def _observed(self, number: int, name: str) -> Iterator[Event]:
        first = name == ORCHESTRATORS[0]
        stake = (41_000 + 17 * number) * ETHER
        seen = m.OrchestratorObserved(
            orchestrator=name, address=address_of(name), round=FIRST_ROUND + number, active=True,
            reward_cut_ppm=100_000, fee_share_ppm=0, stake_lpt=str(stake),
            own_stake_lpt=str(stake // 9), pending_fees_wei="0", rank=38 if first else 61,
            last_reward_round=FIRST_ROUND + number - 1,
        )  # fmt: skip
        t = self.starts(number)
        yield Event(id=f"chain/{name}/{number}/seen", time_ms=t + 1_000, data=seen)
        if number == self._rounds - 6 and not first:
            missed = m.RewardMissed(orchestrator=name, round=FIRST_ROUND + number)
            yield Event(id=f"chain/{name}/{number}/reward", time_ms=t + ROUND_MS, data=missed)
            return
        reward = 17 * ETHER + number * ETHER // 40
        called = m.RewardCalled(
            orchestrator=name, round=FIRST_ROUND + number, amount_lpt=str(reward),
            own_lpt=str(reward // 5), treasury_lpt=str(reward // 9),
            tx=made_up(name, number, "reward"),
        )  # fmt: skip
        yield Event(id=f"chain/{name}/{number}/reward", time_ms=t + 2 * HOUR_MS, data=called)
        if first and number % RUN_EVERY == 0:
            shared = m.RewardShared(
                orchestrator=name, round=FIRST_ROUND + number, address=CAST[0].address,
                amount_lpt=str(reward // 50),
            )  # fmt: skip
            yield Event(id=f"round/{number}/reward", time_ms=t + 3 * HOUR_MS, data=shared)

    def _tickets(self, number: int, name: str, expected_wei: int) -> Generator[Event, None, int]:
        """Winning tickets and what they brought, which is also the value."""
        dice, t = self._random, self.starts(number)
        chances = max(expected_wei * 20 // FACE_WEI, 1)
        wins = sum(dice.random() < 0.05 for _ in range(chances))
        span_ms = min(ROUND_MS, self._end_ms - t) - HOUR_MS
        for win in range(wins):
            ticket = m.TicketRedeemed(
                orchestrator=name, round=FIRST_ROUND + number, gateway=dice.choice(GATEWAYS),
                face_value_wei=str(FACE_WEI), paid_wei=str(FACE_WEI), win_prob=str(SURE // 40_000),
                tx=made_up(name, number, win), log_index=win,
            )  # fmt: skip
            at = t + span_ms * (win + 1) // (wins + 1)
            yield Event(id=f"chain/{name}/{number}/ticket/{win}", time_ms=at, data=ticket)
        realised_wei = wins * FACE_WEI
        self._claims[name] += realised_wei
        realised = m.RevenueRealised(
            orchestrator=name, round=FIRST_ROUND + number, from_block=self._block(t),
            to_block=self._block(t + span_ms), amount_wei=str(realised_wei),
            paid_wei=str(realised_wei), tickets=wins, pending_wei=str(self._claims[name]),
        )  # fmt: skip
        at = t + span_ms + 40 * MINUTE_MS
        yield Event(id=f"chain/{name}/revenue/{number}", time_ms=at, data=realised)
        return realised_wei

    def _closed(
        self, number: int, name: str, expected_wei: int, realised_wei: int
    ) -> Iterator[Event]:
        start_ms, end_ms = self.starts(number), self.starts(number + 1)
        settled = m.RoundSettled(
            orchestrator=name, round=FIRST_ROUND + number, scheme="per-job", rule="holdback",
            rule_version="1", rule_hash=made_up("holdback")[2:], start_ms=start_ms, end_ms=end_ms,
            expected_wei=str(expected_wei), realised_wei=str(realised_wei),
            shared_wei=str(expected_wei), carried_wei="0", rule_options="rate=10%",
        )  # fmt: skip
        yield Event(id=f"round/{name}/{number}/settled", time_ms=end_ms + 60_000, data=settled)
        yield from self._held(number, name, end_ms + 60_001)
        closed = m.RevenueReconciled(
            orchestrator=name, round=FIRST_ROUND + number, expected_wei=str(expected_wei),
            realised_wei=str(realised_wei), claim_chain_wei=str(self._claims[name]),
            claim_books_wei=str(self._claims[name]), difference_wei="0",
            explanation=_explained(expected_wei, realised_wei),
        )  # fmt: skip
        yield Event(id=f"round/{name}/{number}/closed", time_ms=end_ms + 90_000, data=closed)

    def _held(self, number: int, name: str, t: int) -> Iterator[Event]:
        """The rule holds a part back from whoever is new."""
        new = _named("delta-1660").address
        if number < self._rounds - 6 or name != ORCHESTRATORS[0]:
            return
        amount_wei = min(40 * MICRO, self._owed[new])
        self._owed[new] -= amount_wei
        held = m.AdjustmentMade(
            orchestrator=name, round=FIRST_ROUND + number, rule="holdback",
            debit=worker_account(new), credit=holdback_account(new), amount_wei=str(amount_wei),
            reason="10 % of its first rounds, released after 5 rounds",
        )  # fmt: skip
        if amount_wei:
            yield Event(id=f"round/{number}/held", time_ms=t, data=held)

    # --- what went out -------------------------------------------------------------------------

    def _run(self, number: int) -> Iterator[Event]:
        """Fees are withdrawn, and everybody who is owed enough is paid in one transaction."""
        t = self.starts(number) + 12 * HOUR_MS
        for name, claim_wei in list(self._claims.items()):
            taken = m.FeesWithdrawn(
                orchestrator=name, recipient=WALLET, wallet=WALLET, amount_wei=str(claim_wei),
                tx=made_up(name, number, "withdrawal"),
            )  # fmt: skip
            if claim_wei and number < self._rounds - RUN_EVERY:
                self._claims[name] = 0
                yield Event(id=f"chain/{name}/withdrawn/{number}", time_ms=t, data=taken)
        due = {a: owed for a, owed in self._owed.items() if owed >= RULES.threshold_wei}
        if not due or t > self._end_ms - HOUR_MS:
            return
        lines = tuple(self._line(address, owed) for address, owed in due.items())
        sending = Sending(kind="batch-payout", lines=lines, until="confirmed")
        yield from self._order(t + HOUR_MS, sending)

    def _line(self, address: str, amount_wei: int) -> OrderLine:
        self._owed[address] -= amount_wei
        return OrderLine(
            account=worker_account(address), address=address, amount_wei=str(amount_wei),
            send_wei=str(amount_wei),
        )  # fmt: skip

    def _now(self) -> Iterator[Event]:
        """The end: orders at every step, one address that cannot be paid, a choice, the brake."""
        t = self._end_ms
        yield from self._stake(t - 50 * HOUR_MS)
        refused = self._single(_named("fjord-3060"), "voided", reason=REFUSES)
        yield from self._order(t - 30 * HOUR_MS, refused)
        blocked = m.AddressBlocked(address=_named("fjord-3060").address, reason=REFUSES)
        yield Event(id="payouts/blocked", time_ms=t - 30 * HOUR_MS + 9, data=blocked)
        yield from self._braked(t - 26 * HOUR_MS)
        for name, until, ago_ms, attempts in (
            ("basalt-a4000", "mined", 6 * MINUTE_MS, 1),
            ("cobalt-t4", "sent", 5 * MINUTE_MS, 2),
            ("gneiss-2070", "signed", 40_000, 1),
            ("delta-1660", "planned", 20_000, 1),
        ):
            yield from self._order(t - ago_ms, self._single(_named(name), until, attempts))
        chosen = m.PayoutChosen(
            address=_named("ember-cpu").address, asset="ETH", threshold_wei=str(9_000 * MICRO)
        )
        yield Event(id="payouts/chosen", time_ms=t - 70 * HOUR_MS, data=chosen)

    def _single(self, who: Character, until: str, attempts: int = 1, reason: str = "") -> Sending:
        owed_wei = self._owed[who.address]
        line = self._line(who.address, owed_wei)
        if until == "voided":
            self._owed[who.address] += owed_wei
        return Sending(
            kind="payout", lines=(line,) if owed_wei else (), until=until, attempts=attempts,
            reason=reason,
        )  # fmt: skip

    def _stake(self, t: int) -> Iterator[Event]:
        owner = CAST[0].address
        stake = OrderLine(
            account=worker_account(owner), address=owner, amount_wei=str(ETHER), send_wei=str(ETHER)
        )
        sending = Sending(kind="stake-payout", lines=(stake,), until="confirmed", asset="LPT")
        yield from self._order(t, sending)

    def _braked(self, t: int) -> Iterator[Event]:
        paused = m.PayoutsPaused(reason="New batch contract, to be looked at first.", by="operator")
        yield Event(id="payouts/paused", time_ms=t, data=paused)
        resumed = m.PayoutsResumed(by="operator")
        yield Event(id="payouts/resumed", time_ms=t + 2 * HOUR_MS, data=resumed)

    def _order(self, t: int, sending: Sending) -> Iterator[Event]:
        """An order and what became of it, as far as `until`."""
        if not sending.lines:
            return
        self._orders += 1
        name = f"payout-{self._orders}"
        for step, data in enumerate(_steps(name, self._orders, sending, self._block(t))):
            yield Event(id=f"order/{name}/{step}", time_ms=t + step * 1_500, data=data)

    def _block(self, t: int) -> int:
        """Arbitrum makes four blocks a second."""
        return 400_000_000 + (t - self.starts(0)) // 250


def _explained(expected_wei: int, realised_wei: int) -> str:
    """As it is explained where tickets were paid in full, and delegators get no part of fees."""
    figures = Figures(
        expected=expected_wei, face=realised_wei, paid=realised_wei, realised=realised_wei,
        difference=0,
    )  # fmt: skip
    return explanation(figures, is_followed=True)


def _named(name: str) -> Character:
    return next(who for who in CAST if who.name == name)


def _work(t: int, job: str, orchestrator: str, who: Character, wei: int) -> Iterator[Event]:
    kept, paid = commission(wei, COMMISSION_PPM)
    credited = FeeCredited(
        job=job, orchestrator=orchestrator, worker=who.id, address=who.address,
        pixels=wei // PRICE_WEI, price_wei=str(PRICE_WEI), price_source="status", fee_wei=str(wei),
        carry="0/1", commission_ppm=COMMISSION_PPM, worker_wei=str(paid),
    )  # fmt: skip
    yield Event(id=f"{job}/fee-credited", time_ms=t, data=credited)
    taken = CommissionTaken(
        job=job, orchestrator=orchestrator, worker=who.id, commission_wei=str(kept)
    )
    yield Event(id=f"{job}/commission-taken", time_ms=t, data=taken)


def _steps(name: str, nonce: int, sending: Sending, block: int) -> Iterator[AnyPayload]:
    lines, kind, asset, until = sending.lines, sending.kind, sending.asset, sending.until
    total_wei = sum(int(line.send_wei) for line in lines) if asset == "ETH" else 0
    tx = made_up(name, sending.attempts)
    yield m.OrderPlanned(
        order=name, wallet=WALLET, chain_id=CHAIN_ID, kind=kind, asset=asset,
        to=lines[0].address if len(lines) == 1 else BATCH, value_wei=str(total_wei), data="0x",
        lines=lines, note="run",
    )  # fmt: skip
    if until == "planned":
        return
    for attempt in range(1, sending.attempts + 1):
        signed = m.OrderSigned(
            order=name, wallet=WALLET, attempt=attempt, nonce=nonce, tx=made_up(name, attempt),
            raw="0x", gas_limit=60_000, max_fee_wei=str(10**8 * attempt), priority_fee_wei="0",
        )  # fmt: skip
        yield signed
        if until != "signed":
            yield m.OrderSent(order=name, tx=signed.tx, answer="ok")
    if until == "voided":
        yield m.OrderVoided(
            order=name, wallet=WALLET, kind=kind, asset=asset, reason=sending.reason, tx=tx,
            fee_wei=str(GAS_WEI), lines=lines,
        )  # fmt: skip
    if until not in ("mined", "confirmed"):
        return
    where = made_up(block)
    yield m.OrderMined(order=name, tx=tx, block=block, block_hash=where)
    if until == "confirmed":
        yield m.OrderConfirmed(
            order=name, wallet=WALLET, kind=kind, asset=asset, tx=tx, block=block,
            block_hash=where, fee_wei=str(GAS_WEI * len(lines)), lines=lines,
        )  # fmt: skip


class StoryPayouts:
    """Implements `web.interface.Payouts` over a log that nobody else works on."""

    def __init__(
        self,
        reader: Reader,
        append: Callable[[Event], Awaitable[None]],
        clock_ms: Callable[[], int],
    ) -> None:
        self._reader, self._append, self._clock_ms = reader, append, clock_ms

    def _book(self) -> OrderBook:
        book = OrderBook()
        for stored in self._reader.events(EventFilter(types=TYPES, limit=5_000)):
            book.apply(stored.event)
        return book

    def _owed(self) -> dict[str, int]:
        rows = self._reader.balances(WORKER)
        return {row.account.removeprefix(WORKER): row.amount_wei for row in rows}

    def _funds(self, book: OrderBook) -> int:
        name = wallet_account(WALLET)
        held = -sum(row.amount_wei for row in self._reader.balances(name) if row.account == name)
        return held - in_flight(book)

    def _plan(self, book: OrderBook) -> Plan:
        busy = {line.address: o.order for o in book.open.values() for line in o.lines}
        standing = Standing(
            owed=self._owed(), funds_wei=self._funds(book), gas_wei=GAS_WEI,
            gas_most_wei=2 * GAS_WEI, spent_wei=book.spent_wei(self._clock_ms()),
            choices=book.choices, blocked=book.blocked, busy=busy,
            paused=book.paused.reason if book.paused else "",
        )  # fmt: skip
        return plan("ETH", RULES, standing)

    async def view(self) -> PayoutsView:
        """Everything for the operator."""
        book, now_ms = self._book(), self._clock_ms()
        planned, funds_wei = self._plan(book), self._funds(book)
        nexts = self._next(book)
        return PayoutsView(
            mode="on", wallet=WALLET, chain_id=CHAIN_ID,
            paused=book.paused.reason if book.paused else "",
            paused_by=book.paused.by if book.paused else "", problem="", held="",
            funds_wei=str(funds_wei), missing_wei=str(planned.missing_wei),
            owed_wei=str(liabilities(self._owed())),
            owed_lpt="0", paid_wei=str(sum(v for (a, _), v in book.paid.items() if a == "ETH")),
            in_flight_wei=str(in_flight(book)), spent_today_wei=str(book.spent_wei(now_ms)),
            per_day_max_wei=str(RULES.per_day_max_wei), spent_today_lpt="0", per_day_max_lpt="0",
            runway_days=runway_days(book, funds_wei, now_ms), next_run_ms=now_ms + 31 * HOUR_MS,
            counts=dict(book.counts), orders=orders_shown(book),
            next=nexts.page(book), next_addresses=nexts.addresses, blocked=dict(book.blocked),
        )  # fmt: skip

    async def orders(
        self, state: str, address: str, limit: int, before: str = ""
    ) -> tuple[OrderView, ...]:
        return orders_shown(self._book(), address, state, limit, before)

    async def next(self, after: str, limit: int) -> tuple[NextPayout, ...]:
        book = self._book()
        return self._next(book).page(book, after, limit)

    def _next(self, book: OrderBook) -> NextPayouts:
        return NextPayouts([(self._plan(book), RULES)])

    async def order(self, order: str) -> OrderView | None:
        found = self._book().get(order)
        return order_view(found) if found else None

    async def owner(self, address: str) -> OwnerView:
        book = self._book()
        return owner_view(address, self._next(book).of(address, book), RULES, book)

    async def plan_now(self) -> tuple[NextPayout, ...]:
        book = self._book()
        return self._next(book).page(book)

    async def run_soon(self) -> None:
        """Nobody pays here."""

    async def pause(self, reason: str) -> None:
        await self._tell(
            m.PayoutsPaused(reason=reason or "The operator paused them.", by="operator")
        )

    async def resume(self) -> None:
        await self._tell(m.PayoutsResumed(by="operator"))

    async def unblock(self, address: str) -> None:
        await self._tell(m.AddressUnblocked(address=address, by="operator"))

    async def choose(
        self, address: str, asset: Asset, threshold_wei: int, staked: bool | None
    ) -> Chosen:
        before = chosen_by(address, RULES, self._book())
        chosen = m.PayoutChosen(
            address=address,
            asset=asset,
            threshold_wei=str(threshold_wei),
            staked=bool(before.staked if staked is None else staked),
        )
        await self._tell(chosen)
        return chosen_by(address, RULES, self._book())

    async def _tell(self, data: AnyPayload) -> None:
        seq, _ = self._reader.head()
        await self._append(
            Event(id=f"story/{data.type}/{seq}", time_ms=self._clock_ms(), data=data)
        )
