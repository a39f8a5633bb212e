"""The one who pays: looks at the chain, asks the decision table, does what it says.

A thin shell around `core.money.payouts` and `core.money.payout_plan`. What it knows is in the log;
what it holds in memory (when it last sent something, or looked for a proof) only makes it more
patient after a restart. So a crash at any point is answered by the same loop: fold, look,
decide. Must be alone with its wallet: the store's lock keeps a second pool away, and transactions
made elsewhere with the same key are noticed and survived.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import structlog

from openpool.chain.interface import (
    Chain,
    ChainUnavailable,
    Livepeer,
    Receipt,
    Reverted,
    Signer,
)
from openpool.core.errors import OpenPoolError, SetupError, Unauthorized, Unavailable
from openpool.core.money import events as money
from openpool.core.money.events import Asset, OrderKind, OrderLine
from openpool.core.money.orders import GUARD, Order
from openpool.core.money.payout_plan import Plan, Rules
from openpool.core.money.payouts import (
    UNPROVED,
    Confirm,
    Fees,
    Foreign,
    Mark,
    Outcome,
    Patience,
    Replace,
    Send,
    Sight,
    Sign,
    Step,
    Void,
    Wait,
    gap,
    next_step,
    offered,
    settled_lines,
)
from openpool.core.texts import plural
from openpool.treasury.batch import BATCH_MIN, Batcher
from openpool.treasury.journal import Journal, Store
from openpool.treasury.planner import Planner, PlannerOptions, Prepared, Skipped, debits_of
from openpool.treasury.sender import GasOffer, Sender, TooMuchGas
from openpool.treasury.sights import Look, look, receipt_of
from openpool.treasury.swap import received_lpt

log = structlog.get_logger()
IN_FLIGHT_MAX = 32
"""Unmined transactions of one wallet; endpoints drop more than a few dozen."""
BUSY_POLL_MS = 1_000
"""Time between two looks while something is on its way."""
SOON_MS = 60_000
"""How soon a run follows where somebody waits for nothing but the wallet, or for certainty."""
Mode = Literal["off", "shadow", "on"]


class Part(Protocol):
    """Another way of paying, beside plain ETH: `treasury.lpt`, `treasury.swap`."""

    def elsewhere(self) -> dict[str, str]:
        """Whom plain payouts leave alone, and why."""

    def shown(self) -> Sequence[tuple[Plan, Rules]]:
        """The newest plans, for people."""

    async def rehearse(self, look: Look, fees: Fees, now_ms: int) -> None:
        """Make the plans of this moment, and do nothing about them."""

    def due(
        self, name: Callable[[], str], look: Look, fees: Fees, now_ms: int
    ) -> AsyncIterator[Prepared]:
        """Orders to be carried out now, one after the other."""


@dataclass(frozen=True, kw_only=True)
class PayerOptions:
    """What `payouts` and `chain` of the settings say."""

    planner: PlannerOptions
    mode: Mode = "off"
    patience: Patience = field(default_factory=Patience)
    batch_contract: str = ""
    """Multicall3, if payouts may be put together."""
    gas: GasOffer = field(default_factory=GasOffer)
    every_ms: int = 4 * 3_600_000
    poll_ms: int = 30_000


class Payer:
    """Carries out orders from one wallet. Implements `treasury.interface.Orders`."""

    def __init__(
        self,
        *,
        chain: Chain,
        signer: Signer,
        store: Store,
        clock_ms: Callable[[], int],
        options: PayerOptions,
        livepeer: Livepeer | None = None,
        spending: asyncio.Lock | None = None,
    ) -> None:
        """`livepeer` is needed for what concerns LPT only. `spending`: see `treasury.journal`."""
        self.options = options
        self.parts: list[Part] = []
        self.journal = Journal(store, clock_ms, spending)
        self.sender = Sender(chain, signer, self.journal, options.gas)
        self.planner = Planner(self.sender, self.journal, options.planner)
        contract = options.batch_contract
        self.batcher = Batcher(self.sender, self.planner, contract) if contract else None
        self.problem = ""
        """What keeps it from working right now, in one sentence."""
        self.held = ""
        """Why nothing new is paid although nobody paused it."""
        self.last_plan: Plan | None = None
        self.funds_wei = 0
        """What the wallet could spend when the plan was made."""
        self.next_run_ms = 0
        self._chain = chain
        self._livepeer = livepeer
        self._clock_ms = clock_ms
        self._checked_nonce = False
        self._held_nonce = 0
        """How many transactions the chain counts, of those that `held` is about."""
        self._resent: dict[str, int] = {}
        """By transaction: when this process sent it."""
        self._sought: dict[str, int] = {}
        """By order: when a proof of what used its nonce was last looked for, and is missing."""
        self._gap_since_ms = 0
        self._skipped: dict[str, str] = {}
        self._turn = asyncio.Lock()
        self._wake = asyncio.Event()

    # --- what others ask -------------------------------------------------------------------------

    async def plan(
        self,
        *,
        order: str,
        kind: OrderKind,
        to: str,
        data: bytes = b"",
        value_wei: int = 0,
        asset: Asset = "ETH",
        lines: Sequence[OrderLine] = (),
        note: str = "",
    ) -> bool:
        """See `treasury.interface.Orders`."""
        if order in self.journal.book.known:
            return False
        planned = money.OrderPlanned(
            order=order,
            wallet=self.sender.wallet,
            chain_id=self._chain.chain_id,
            kind=kind,
            asset=asset,
            to=to,
            value_wei=str(value_wei),
            data=f"0x{data.hex()}",
            lines=tuple(lines),
            note=note,
        )
        await self.journal.record(planned)
        self._wake.set()
        return True

    def order(self, order: str) -> Order | None:
        return self.journal.book.get(order)

    async def pause(self, reason: str, by: str = "operator") -> None:
        """Nothing new is signed from now on; what is on its way is followed to its end."""
        await self.journal.record(money.PayoutsPaused(reason=reason, by=by))

    async def resume(self, by: str = "operator") -> None:
        """Go on, also where they were held: what `held` said has been looked at, and is not asked
        again after a restart."""
        resumed = money.PayoutsResumed(by=by)
        if self.held:
            purse, nonce = self.sender.purse, self._held_nonce
            resumed = money.PayoutsResumed(
                by=by, wallet=purse.wallet, chain_id=purse.chain_id, nonce=nonce
            )
        await self.journal.record(resumed)
        self.held = ""
        self.run_soon()

    async def choose(self, address: str, asset: Asset, threshold_wei: int, *, staked: bool) -> None:
        """An owner's wish. It also frees an address that was blocked: its owner acts."""
        chosen = money.PayoutChosen(
            address=address, asset=asset, threshold_wei=str(threshold_wei), staked=staked
        )
        if self.journal.book.choices.get(address) != chosen:
            await self.journal.record(chosen)
        await self.unblock(address, by=address)

    async def unblock(self, address: str, by: str = "operator") -> None:
        if address in self.journal.book.blocked:
            await self.journal.record(money.AddressUnblocked(address=address, by=by))

    def run_soon(self) -> None:
        """Do not wait for the next run."""
        self.next_run_ms = 0
        self._wake.set()

    # --- the loop --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Read the log back; to be awaited once, before anything else. Raises SetupError if it
        is that of another chain: what is owed there is not paid here."""
        await self.journal.load()
        others = {purse.chain_id for purse in self.journal.book.purses} - {self._chain.chain_id}
        if others:
            raise SetupError(
                f"The log holds payouts on chain {min(others)}, but chain.id is "
                f"{self._chain.chain_id}: use another data folder for another chain."
            )

    async def run(self) -> None:
        """Pay for ever; ends by cancellation, or by a failed disk."""
        while True:
            self._wake.clear()
            await self.tick_safely()
            busy = any(not o.ended and o.state != "mined" for o in self.journal.book.open.values())
            # nobody tells what becomes of a transaction, so the chain is asked; sooner on our news
            wait_ms = min(BUSY_POLL_MS, self.options.poll_ms) if busy else self.options.poll_ms
            try:
                await asyncio.wait_for(self._wake.wait(), wait_ms / 1000)
            except TimeoutError:
                continue

    async def tick_safely(self) -> None:
        """One look, and what follows. The world's faults become `problem`, and are tried again."""
        self.journal.check()
        try:
            await self.tick()
        except OpenPoolError as error:
            self.journal.check()
            if isinstance(error, Unauthorized) and self.journal.book.paused is None:
                await self.pause(str(error), by=GUARD)  # a signer that signs something else
            if str(error) != self.problem:
                log.warning("payouts-wait", reason=str(error))
            self.problem = str(error)
        else:
            self.problem = self._unproved()

    def _unproved(self) -> str:
        """What the operator is told about orders whose nonce seems used, for all one can see."""
        self._sought = {o: ms for o, ms in self._sought.items() if o in self.journal.book.open}
        return f"Order {next(iter(self._sought))}: {UNPROVED}" if self._sought else ""

    async def tick(self) -> None:
        """Look once at every order, do what is next, and start a run if it is time."""
        async with self._turn:
            self.journal.check()
            seen = await self._follow_all()
            if self.options.mode == "off":
                return
            fees = self._fees(seen)
            if fees is None:
                raise Unavailable("Gas costs more than chain.gas_price_max allows; payouts wait.")
            if self.options.mode == "on":
                await self._close_gap(seen, fees)
            if self._clock_ms() >= self.next_run_ms:
                await self._pay(seen, fees)

    def _fees(self, seen: Look) -> Fees | None:
        price, most_wei = seen.price, self.options.patience.max_fee_max_wei
        return offered(price.base_fee_wei, price.priority_fee_wei, most_wei)

    # --- orders that are open --------------------------------------------------------------------

    async def _follow_all(self) -> Look:
        """Look at this wallet's orders, and at those of wallets that were used before."""
        chain_id, mine = self._chain.chain_id, self.sender.wallet
        orders = [o for o in self.journal.book.open.values() if o.chain_id == chain_id]
        for wallet in sorted({o.wallet for o in orders} - {mine}):
            await self._follow([o for o in orders if o.wallet == wallet], wallet)
        return await self._follow([o for o in orders if o.wallet == mine], mine)

    async def _follow(self, orders: list[Order], wallet: str) -> Look:
        seen = await look(self._chain, wallet, orders)
        if wallet == self.sender.wallet:
            await self._compare_nonce(seen)
        for order in sorted(orders, key=lambda o: (o.nonce is None, o.nonce, o.planned_ms)):
            sight = await self._sight(order, seen)
            if sight is not None:
                await self._do(order, self._step(order, sight), seen, sight)
        return seen

    async def _sight(self, order: Order, seen: Look) -> Sight | None:
        """None while gas is too dear for an order that has no signature yet."""
        fees = self._fees(seen)
        if fees is None and not order.attempts:
            return None
        return Sight(
            final_block=seen.final_block,
            final_nonce=seen.final_nonce,
            latest_nonce=seen.latest_nonce,
            outcome=seen.outcome(order),
            fees=fees or Fees(max_fee_wei=0, priority_fee_wei=0),
            resent_ms=self._resent.get(order.newest.tx, 0) if order.attempts else 0,
            foreign=await self._foreign(order, seen),
        )

    async def _foreign(self, order: Order, seen: Look) -> Foreign | None:
        """What used the nonce of an order that is in no block, if an endpoint can prove it."""
        used = order.nonce is not None and seen.final_nonce > order.nonce
        if order.nonce is None or not used or seen.outcome(order) is not None:
            self._sought.pop(order.order, None)
            return None
        now_ms, sought_ms = self._clock_ms(), self._sought.get(order.order)
        if sought_ms is not None and now_ms < sought_ms + self.options.patience.resend_after_ms:
            return None
        self._sought[order.order] = now_ms
        final_block = seen.final_block
        found = await self._chain.used_by(order.wallet, order.nonce, final_block=final_block)
        if found is None:
            return None
        return Foreign(tx=found.tx, to=found.to, value_wei=found.value_wei, data=found.data)

    def _step(self, order: Order, sight: Sight) -> Step:
        return next_step(
            order,
            sight,
            self._clock_ms(),
            patience=self.options.patience,
            paused=self.journal.book.paused is not None or bool(self.held),
            ours=order.wallet == self.sender.wallet,
            blocked=frozenset(self.journal.book.blocked),
        )

    async def _do(self, order: Order, step: Step, seen: Look, sight: Sight) -> None:
        active = self.options.mode == "on"
        match step:
            case Wait():
                return
            case Mark(outcome=outcome):
                await self._mark(order, outcome)
            case Confirm(outcome=outcome):
                await self._confirm(order, outcome, seen)
            case Void():
                await self._void(order, step)
            case Sign() if active:
                nonce = self.journal.book.next_nonce(self.sender.purse, seen.latest_nonce)
                await self._sign(order, nonce, seen, sight.fees)
            case Send() if active:
                await self._send(order)
            case Replace(fees=fees) if active:
                await self.sender.replace(order, fees)
                await self._send(self.journal.book.open[order.order])

    async def _mark(self, order: Order, outcome: Outcome) -> None:
        await self.journal.record(
            money.OrderMined(
                order=order.order,
                tx=outcome.tx,
                block=outcome.block,
                block_hash=outcome.block_hash,
            )
        )

    async def _confirm(self, order: Order, outcome: Outcome, seen: Look) -> None:
        receipt = seen.receipts[order.order]
        is_swap = order.kind == "swap"
        received_lpt = await self._received_lpt(receipt, order.wallet) if is_swap else 0
        await self.journal.record(
            money.OrderConfirmed(
                order=order.order,
                wallet=order.wallet,
                kind=order.kind,
                asset=order.asset,
                tx=outcome.tx,
                block=outcome.block,
                block_hash=outcome.block_hash,
                fee_wei=str(outcome.fee_wei),
                lines=settled_lines(order, outcome.fee_wei, received_lpt),
            )
        )

    async def _received_lpt(self, receipt: Receipt, wallet: str) -> int:
        """What an exchange brought. Raises ChainUnavailable: without an answer it stays open."""
        if self._livepeer is None:
            raise ChainUnavailable("An exchange cannot be settled without chain.controller.")
        await self._livepeer.round()  # whoever asks first finds the contracts
        token = self._livepeer.addresses["LivepeerToken"]
        if not (amount := received_lpt(receipt, token, wallet)):
            raise ChainUnavailable(f"The receipt of the exchange {receipt.tx} names no LPT.")
        return amount

    async def _void(self, order: Order, step: Void) -> None:
        voided = money.OrderVoided(
            order=order.order,
            wallet=order.wallet,
            kind=order.kind,
            asset=order.asset,
            reason=step.reason,
            tx=step.outcome.tx if step.outcome else "",
            fee_wei=str(step.outcome.fee_wei) if step.outcome else "0",
            lines=order.lines,
        )
        blocks = [money.AddressBlocked(address=a, reason=step.reason) for a in step.blocked]
        log.warning("order-voided", order=order.order, reason=step.reason)
        await self.journal.record(voided, *blocks)

    async def _sign(self, order: Order, nonce: int, seen: Look, fees: Fees) -> None:
        try:
            await self.sender.sign(order, nonce, fees)
        except (Reverted, TooMuchGas) as error:
            await self._void(order, Void(f"It was never signed. {error}"))
            return
        await self._send(self.journal.book.open[order.order])

    async def _send(self, order: Order) -> None:
        await self.sender.send(order.order, order.newest)
        self._resent[order.newest.tx] = self._clock_ms()

    # --- nonces that are not ours ----------------------------------------------------------------

    async def _compare_nonce(self, seen: Look) -> None:
        """Once after a start: a chain that is ahead of the log means that the wallet was used
        elsewhere meanwhile, or that the log is an old copy, which does not know what was paid."""
        book, wallet = self.journal.book, self.sender.wallet
        if self._checked_nonce:
            return
        expected = book.known_nonces(self.sender.purse)
        # not yet mined ones count as well: what an old log does not know may be that new
        pending = await self._chain.nonce(wallet, at="pending")
        counted = max(seen.latest_nonce, pending)
        foreign = counted - expected
        if foreign > 0 and (expected or await self._owes()):
            self._held_nonce = counted
            self.held = (
                f"The chain has {plural(foreign, 'transaction')} of the wallet that this pool's "
                "log does not know: it was used elsewhere, or the log is an old copy from before "
                "payouts made since. Compare `openpool payouts list` with the chain, then "
                "`openpool payouts resume`."
            )
            return
        self._checked_nonce, self.held = True, ""

    async def _owes(self) -> bool:
        """Whether a log without payouts has debts: it may be a copy from before the first one."""
        owed = {**await self.journal.owed("worker:"), **await self.journal.owed("lpt/worker:")}
        return any(amount > 0 for amount in owed.values())

    async def _close_gap(self, seen: Look, fees: Fees) -> None:
        """Fill a nonce that nothing uses, if it keeps others waiting and stays so."""
        book, wallet, now_ms = self.journal.book, self.sender.wallet, self._clock_ms()
        mine = book.of(self.sender.purse)
        nonce = gap(mine, seen.latest_nonce)
        if nonce is None:
            self._gap_since_ms = 0
            return
        self._gap_since_ms = self._gap_since_ms or now_ms
        if now_ms < self._gap_since_ms + self.options.patience.replace_after_ms:
            return
        note = "Fills a nonce that nothing used, so that later ones can be mined."
        planned = self.planner.planned(self._name("gap"), "approve", wallet, 0, [], note=note)
        await self.journal.record(planned)
        await self._sign(book.open[planned.order], nonce, seen, fees)

    async def _was_paid_after_all(self) -> bool:
        """Whether an order that was given up turns up in a block: then something is very wrong
        with the endpoints, and the brake is pulled before anybody is paid twice."""
        for order in list(self.journal.book.watched.values()):
            if receipt := await receipt_of(self._chain, order):
                await self.pause(
                    f"Order {order.order} had been given up and is in block {receipt.block} all "
                    "the same; what it paid is missing in the books. The endpoints lied: replace "
                    "them, and correct the account of its recipient before you resume.",
                    by=GUARD,
                )
                return True
        return False

    # --- runs ------------------------------------------------------------------------------------

    async def _pay(self, seen: Look, fees: Fees) -> None:
        """Plan for everybody, and sign and send as many as may be on their way at one time."""
        if await self._was_paid_after_all():
            return
        plan = await self._make_plan(seen, fees)
        if self.options.mode != "on" or self.held:
            await self._rehearse_parts(seen, fees)
            self._end_run(plan)
            return
        if not plan.payments:
            if await self._pay_parts(seen, fees):
                self._end_run(plan)
            return
        if await self._pay_together(plan, seen, fees):
            return
        for payment in plan.payments[: self._free_places()]:
            prepared = await self.planner.prepare(self._name("payout"), payment, seen, fees)
            if isinstance(prepared, Skipped):
                await self._skip(prepared)
            else:
                await self._carry_out(prepared, seen, fees)

    async def _pay_parts(self, seen: Look, fees: Fees) -> bool:
        """Whether all that is due in other ways is on its way."""
        for part in self.parts:
            due = part.due(lambda: self._name("payout"), seen, fees, self._clock_ms())
            async for prepared in due:
                if not self._free_places():
                    return False
                await self._carry_out(prepared, seen, fees)
        return True

    async def rehearse(self) -> None:
        """Make the plan of this moment, and do nothing about it. Raises ChainUnavailable."""
        async with self._turn:
            seen = await look(self._chain, self.sender.wallet, [])
            if fees := self._fees(seen):
                await self._make_plan(seen, fees)
                await self._rehearse_parts(seen, fees)

    async def _rehearse_parts(self, seen: Look, fees: Fees) -> None:
        for part in self.parts:
            await part.rehearse(seen, fees, self._clock_ms())

    async def _make_plan(self, seen: Look, fees: Fees) -> Plan:
        self.funds_wei = await self.planner.funds_wei()
        elsewhere = dict(self._skipped)
        for part in self.parts:
            elsewhere |= part.elsewhere()
        args = (seen, fees, self._clock_ms(), elsewhere)
        self.last_plan = await self.planner.make(*args, funds_wei=self.funds_wei)
        return self.last_plan

    async def _pay_together(self, plan: Plan, seen: Look, fees: Fees) -> bool:
        """Whether a batch went out; the rest is for the next look."""
        if self.batcher is None or len(plan.payments) < BATCH_MIN or not self._free_places():
            return False
        name, singles = self._name("batch"), self.journal.book.singles
        prepared = await self.batcher.prepare(name, plan.payments, fees, singles)
        if prepared is None:
            return False
        await self._carry_out(prepared, seen, fees)
        return True

    async def _carry_out(self, prepared: Prepared, seen: Look, fees: Fees) -> None:
        """Take the money out of its accounts and sign in one, unless it is not there any more."""
        planned = prepared.planned
        nonce = self.journal.book.next_nonce(self.sender.purse, seen.latest_nonce)
        async with self.journal.spending:
            if not await self.journal.covers(debits_of(planned)):
                return
            await self.sender.plan_and_sign(planned, prepared.gas_limit, nonce, fees)
        await self._send(self.journal.book.open[planned.order])

    async def _skip(self, skipped: Skipped) -> None:
        self._skipped[skipped.address] = skipped.why
        if skipped.blocked:
            blocked = money.AddressBlocked(address=skipped.address, reason=skipped.why)
            await self.journal.record(blocked)

    def _end_run(self, plan: Plan) -> None:
        wait_ms = self.options.every_ms
        if plan.missing_wei:
            wait_ms = min(wait_ms, SOON_MS)
        self._skipped = {}
        self.next_run_ms = self._clock_ms() + wait_ms

    def _free_places(self) -> int:
        mine = self.journal.book.of(self.sender.purse)
        return max(IN_FLIGHT_MAX - sum(o.waits_for_block for o in mine), 0)

    def _name(self, what: str) -> str:
        """The name of a new order: how many there are makes it unique."""
        return f"{what}-{len(self.journal.book.known) + 1}"
