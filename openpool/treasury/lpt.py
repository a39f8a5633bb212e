"""Payouts of LPT: what `lpt/worker:<address>` holds, liquid or as stake with the orchestrator.

Liquid is a transfer of the token from the wallet. As stake it is `transferBond` out of the wallet's
own bond: no waiting and no market, after the orchestrator has called reward in the round (before,
the contract refuses it for a payee that delegates already). Gas is ETH, so the pool pays it.
Must not sign or write; `treasury.payer` does.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from openpool.chain.contracts import BondingManager, Token
from openpool.chain.interface import Call, Livepeer, Reverted
from openpool.core.money.accounts import LPT, WORKER, worker_account
from openpool.core.money.events import OrderKind, OrderLine, OrderPlanned
from openpool.core.money.orders import Order
from openpool.core.money.payout_plan import Payment, Plan, Rules, Standing, plan
from openpool.core.money.payouts import Fees
from openpool.treasury.journal import Journal
from openpool.treasury.planner import Planner, Prepared, price_wei
from openpool.treasury.sender import Sender, TooMuchGas
from openpool.treasury.sights import Look

NOBODY = "0x" + "0" * 40
NO_LIMIT = 2**255


@dataclass(frozen=True, kw_only=True)
class LptOptions:
    threshold_lpt: int
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
        options: LptOptions,
    ) -> None:
        self._sender, self._planner, self._journal = sender, planner, journal
        self._livepeer = livepeer
        self._options = options
        self.plans: tuple[Plan, ...] = ()
        self.rules = Rules(
            threshold_wei=options.threshold_lpt,
            minimum_wei=options.threshold_lpt,
            per_payout_max_wei=NO_LIMIT,
            per_day_max_wei=NO_LIMIT,
        )

    def elsewhere(self) -> dict[str, str]:
        """Who is not paid in ETH because of this: nobody, it is LPT that is owed."""
        return {}

    def shown(self) -> list[tuple[Plan, Rules]]:
        return [(plan, self.rules) for plan in self.plans]

    async def due(
        self, name: Callable[[], str], look: Look, fees: Fees, now_ms: int
    ) -> AsyncIterator[Prepared]:
        """One order after the other; the caller may stop at any."""
        owed = {a: wei for a, wei in (await self._journal.owed(LPT + WORKER)).items() if wei > 0}
        if not owed:
            self.plans = ()
            return
        staked = {address for address in owed if self._wants_stake(address)}
        liquid = await self._plan(owed, owed.keys() - staked, look, fees, await self._liquid_lpt())
        stake = await self._plan(owed, staked, look, fees, await self._staked_lpt())
        self.plans = (liquid, stake)
        for payment in liquid.payments:
            if prepared := await self._prepare(name(), "payout", payment):
                yield prepared
        for payment in stake.payments:
            if prepared := await self._prepare(name(), "stake-payout", payment):
                yield prepared

    def _wants_stake(self, address: str) -> bool:
        chosen = self._journal.book.choices.get(address)
        return self._options.staked if chosen is None else chosen.staked

    async def _plan(
        self, owed: dict[str, int], who: set[str], look: Look, fees: Fees, funds_lpt: int
    ) -> Plan:
        # gas is bounded by chain.gas_max and by the estimate of each; a transfer is the least
        gas = await self._sender.estimate(Call(to=self._sender.wallet))
        book = self._journal.book
        standing = Standing(
            owed={address: owed[address] for address in sorted(who)},
            funds_wei=funds_lpt,
            gas_funds_wei=await self._planner.funds_wei(),
            gas_wei=gas * price_wei(look),
            gas_most_wei=self._sender.limit(gas) * fees.max_fee_wei,
            choices={},  # thresholds that owners choose are in ETH
            blocked=book.blocked,
            busy={line.address: o.order for o in self._open() for line in o.lines},
            last_paid=book.last_paid,
            paused="" if book.paused is None else book.paused.reason,
        )
        return plan("LPT", self.rules, standing)

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

    async def _prepare(self, name: str, kind: OrderKind, payment: Payment) -> Prepared | None:
        call = self._call(kind, payment)
        try:
            gas = await self._sender.estimate(call)
        except (Reverted, TooMuchGas):
            return None  # of passing nature: stake of this round, the token's own rules
        line = OrderLine(
            account=worker_account(payment.address),
            address=payment.address,
            amount_wei=str(payment.amount_wei),
            send_wei=str(payment.send_wei),
        )
        planned = OrderPlanned(
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
        return Prepared(planned=planned, gas_limit=self._sender.limit(gas))

    def _call(self, kind: OrderKind, payment: Payment) -> Call:
        at = self._livepeer.addresses
        if kind == "payout":
            data = Token.transfer.encode(payment.address, payment.send_wei)
            return Call(to=at["LivepeerToken"], data=data)
        hints = (NOBODY,) * 4
        data = BondingManager.transfer_bond.encode(payment.address, payment.send_wei, *hints)
        return Call(to=at["BondingManager"], data=data)
