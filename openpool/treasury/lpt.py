"""Payouts of LPT: what `lpt/worker:<address>` holds, liquid or as stake with the orchestrator.

Liquid is a transfer of the token from the wallet. As stake it is `transferBond` out of the wallet's
own bond: no waiting and no market, after the orchestrator has called reward in the round (before,
the contract refuses it for a payee that delegates already). Gas is ETH, so the pool pays it; at
the market's price it must be a small part of the payout, as it must of one in ETH.
Must not sign or write; `treasury.payer` does.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from fractions import Fraction

import structlog

from openpool.chain.contracts import BondingManager, Token
from openpool.chain.interface import Call, Livepeer, Reverted
from openpool.core.errors import BadMessage
from openpool.core.money.accounts import LPT, WORKER, worker_account
from openpool.core.money.events import OrderKind, OrderLine, OrderPlanned
from openpool.core.money.orders import Order
from openpool.core.money.payout_plan import (
    NO_PRICE,
    Payment,
    Plan,
    Rules,
    Standing,
    gas_in,
    plan,
    too_dear,
)
from openpool.core.money.payouts import Fees
from openpool.core.units import ETHER
from openpool.treasury.journal import Journal
from openpool.treasury.market import Market, average_lpt
from openpool.treasury.planner import Planner, Prepared, Skipped, price_wei
from openpool.treasury.sender import Sender, TooMuchGas
from openpool.treasury.sights import Look

NOBODY = "0x" + "0" * 40
log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class LptOptions:
    """What `lpt` of the settings says."""

    threshold_lpt: int
    per_payout_max_lpt: int = 500 * ETHER
    per_day_max_lpt: int = 2_500 * ETHER
    staked: bool = False
    """How those are paid who did not choose."""


class LptPayouts:
    """Pays LPT. Implements `treasury.payer.Part`."""

    def __init__(
        self,
        *,
        sender: Sender,
        planner: Planner,
        journal: Journal,
        livepeer: Livepeer,
        market: Market | None,
        options: LptOptions,
    ) -> None:
        """`market` says what gas is in LPT; None: the two are not compared."""
        self._sender, self._planner, self._journal = sender, planner, journal
        self._livepeer, self._market = livepeer, market
        self._options = options
        self._plan: Plan | None = None

    @property
    def rules(self) -> Rules:
        """The pool's own; what part gas may be is promised to workers, the same as for ETH."""
        return Rules(
            threshold_wei=self._options.threshold_lpt,
            minimum_wei=self._options.threshold_lpt,
            gas_share_max_ppm=self._planner.options.rules.gas_share_max_ppm,
            per_payout_max_wei=self._options.per_payout_max_lpt,
            per_day_max_wei=self._options.per_day_max_lpt,
        )

    def elsewhere(self) -> dict[str, str]:
        """Who is not paid in ETH because of this: nobody, it is LPT that is owed."""
        return {}

    def shown(self) -> list[tuple[Plan, Rules]]:
        return [(self._plan, self.rules)] if self._plan else []

    async def rehearse(self, look: Look, fees: Fees, now_ms: int) -> None:
        """Make the plan of this moment."""
        await self._replan({}, look, fees, now_ms)

    async def due(
        self, name: Callable[[], str], look: Look, fees: Fees, now_ms: int
    ) -> AsyncIterator[Prepared]:
        """One order after the other; the caller may stop at any. What somebody leaves of the day's
        limit, because the chain refuses or gas is dearer than planned, is for the next ones."""
        skipped: dict[str, str] = {}
        tried: set[str] = set()
        while True:
            standing, planned = await self._replan(skipped, look, fees, now_ms)
            payments = [each for each in planned.payments if each.address not in tried]
            if not payments:
                return
            for payment in payments:
                tried.add(payment.address)
                prepared = await self._prepare(name(), payment, standing, look, fees)
                if isinstance(prepared, Skipped):
                    skipped[payment.address] = prepared.why
                else:
                    yield prepared

    async def _replan(
        self, skipped: dict[str, str], look: Look, fees: Fees, now_ms: int
    ) -> tuple[Standing, Plan]:
        standing = await self._standing(skipped, look, fees, now_ms)
        self._plan = plan("LPT", self.rules, standing)
        return standing, self._plan

    def _wants_stake(self, address: str) -> bool:
        chosen = self._journal.book.choices.get(address)
        return self._options.staked if chosen is None else chosen.staked

    async def _standing(
        self, skipped: dict[str, str], look: Look, fees: Fees, now_ms: int
    ) -> Standing:
        owed = {a: wei for a, wei in (await self._journal.owed(LPT + WORKER)).items() if wei > 0}
        if not owed:
            return Standing(owed={}, funds_wei=0, gas_wei=0, gas_most_wei=0)
        # a transfer is the least that it costs; each is estimated before it is sent
        gas = await self._sender.estimate(Call(to=self._sender.wallet))
        book = self._journal.book
        staked = {address for address in owed if self._wants_stake(address)}
        funds_lpt = await self._liquid_lpt()  # first: it finds the contracts
        price, no_price = await self._price()
        return Standing(
            owed=owed,
            funds_wei=funds_lpt,
            gas_funds_wei=await self._planner.funds_wei(),
            gas_wei=gas * price_wei(look),
            gas_most_wei=self._sender.limit(gas) * fees.max_fee_wei,
            lpt_per_eth=price,
            no_price=no_price,
            staked=staked,
            stake_funds_wei=await self._staked_lpt() if staked else 0,
            spent_wei=book.spent_wei(now_ms, "LPT"),
            choices={},  # thresholds that owners choose are in ETH
            blocked=book.blocked,
            busy={line.address: o.order for o in self._open() for line in o.lines},
            last_paid=book.last_paid,
            elsewhere=skipped,
            paused="" if book.paused is None else book.paused.reason,
        )

    async def _price(self) -> tuple[Fraction | None, str]:
        """LPT per ETH if there is a market, and why it is not known if it should be."""
        if self._market is None:
            return None, ""
        token = self._livepeer.addresses["LivepeerToken"]
        try:
            return await average_lpt(self._sender.chain, self._market, token), ""
        except (Reverted, BadMessage) as error:
            log.warning("lpt-price-unknown", reason=str(error))
            return None, NO_PRICE

    def _open(self, kind: OrderKind | None = None) -> list[Order]:
        orders = self._journal.book.open.values()
        return [o for o in orders if o.asset == "LPT" and kind in (None, o.kind)]

    async def _liquid_lpt(self) -> int:
        balance = await self._livepeer.lpt_balance(self._sender.wallet)
        return balance - sum(o.amount_wei for o in self._open("payout") if o.state != "mined")

    async def _staked_lpt(self) -> int:
        """The wallet's bond, once the reward of the round is called; before, nothing."""
        state = await self._livepeer.delegator(self._sender.wallet)
        if state.status != "bonded" or not state.delegate:
            return 0
        orchestrator = await self._livepeer.orchestrator(state.delegate)
        now = await self._livepeer.round()
        if orchestrator.active and orchestrator.last_reward_round < now.number:
            return 0
        on_its_way = sum(o.amount_wei for o in self._open("stake-payout") if o.state != "mined")
        return state.pending_stake_lpt - on_its_way

    async def _prepare(
        self, name: str, payment: Payment, standing: Standing, look: Look, fees: Fees
    ) -> Prepared | Skipped:
        kind: OrderKind = "stake-payout" if payment.address in standing.staked else "payout"
        call = self._call(kind, payment)
        try:
            gas = await self._sender.estimate(call)
        except (Reverted, TooMuchGas) as error:
            # of passing nature: stake of this round, the token's own rules
            why = f"The chain does not take this payment now, so it is tried again later: {error}"
            return Skipped(address=payment.address, why=why)
        gas_limit = self._sender.limit(gas)
        gas_lpt = gas_in("LPT", gas * price_wei(look), standing.lpt_per_eth)
        most_wei = gas_limit * fees.max_fee_wei
        if why := too_dear("LPT", payment.amount_wei, gas_lpt, most_wei, self.rules):
            return Skipped(address=payment.address, why=why)
        return Prepared(planned=self._planned(name, kind, call, payment), gas_limit=gas_limit)

    def _planned(self, name: str, kind: OrderKind, call: Call, payment: Payment) -> OrderPlanned:
        line = OrderLine(
            account=worker_account(payment.address),
            address=payment.address,
            amount_wei=str(payment.amount_wei),
            send_wei=str(payment.send_wei),
        )
        return OrderPlanned(
            order=name,
            wallet=self._sender.wallet,
            chain_id=self._sender.chain.chain_id,
            kind=kind,
            asset="LPT",
            to=call.to,
            value_wei="0",
            data=f"0x{call.data.hex()}",
            lines=(line,),
        )

    def _call(self, kind: OrderKind, payment: Payment) -> Call:
        at = self._livepeer.addresses
        if kind == "payout":
            data = Token.transfer.encode(payment.address, payment.send_wei)
            return Call(to=at["LivepeerToken"], data=data)
        hints = (NOBODY,) * 4
        data = BondingManager.transfer_bond.encode(payment.address, payment.send_wei, *hints)
        return Call(to=at["BondingManager"], data=data)
