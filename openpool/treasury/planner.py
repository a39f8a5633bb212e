"""Who is paid now: reads what the pure plan needs, and makes orders out of its payments.

Must not sign or write anything; `treasury.payer` does, with `treasury.sender`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import Struct

from openpool.chain.interface import Call, Reverted
from openpool.core.money.accounts import WORKER, in_asset, worker_account
from openpool.core.money.events import OrderKind, OrderLine, OrderPlanned
from openpool.core.money.payout_plan import Payment, Plan, Rules, Standing, plan, too_dear
from openpool.core.money.payouts import Fees
from openpool.treasury.journal import Journal
from openpool.treasury.sender import Sender, TooMuchGas
from openpool.treasury.sights import Look


class Prepared(Struct, frozen=True, kw_only=True):
    """An order that only wants a nonce and a signature."""

    planned: OrderPlanned
    gas_limit: int


class Skipped(Struct, frozen=True, kw_only=True):
    """Somebody who is not paid in this run after all."""

    address: str
    why: str
    blocked: bool = False
    """Whether it stays so until somebody acts."""


@dataclass(frozen=True, kw_only=True)
class PlannerOptions:
    rules: Rules
    keep_wei: int = 0
    """What the wallet always keeps."""
    contracts: bool = True
    """Whether addresses with code are paid."""


class Planner:
    """Plans payouts in ETH."""

    def __init__(self, sender: Sender, journal: Journal, options: PlannerOptions) -> None:
        self.options = options
        self._sender = sender
        self._journal = journal

    async def make(
        self,
        look: Look,
        fees: Fees,
        now_ms: int,
        elsewhere: dict[str, str],
        *,
        funds_wei: int,
    ) -> Plan:
        """The plan of this moment. `elsewhere`: who is not paid this way, and why."""
        book = self._journal.book
        gas = await self._sender.estimate(Call(to=self._sender.wallet))
        standing = Standing(
            owed=await self._journal.owed(WORKER),
            funds_wei=funds_wei,
            gas_wei=gas * price_wei(look),
            gas_most_wei=self._sender.limit(gas) * fees.max_fee_wei,
            spent_wei=book.spent_wei(now_ms),
            choices=book.choices,
            blocked=book.blocked,
            busy=self.busy(),
            last_paid=book.last_paid,
            elsewhere=elsewhere,
            paused="" if book.paused is None else book.paused.reason,
        )
        return plan("ETH", self.options.rules, standing)

    async def funds_wei(self) -> int:
        """What the wallet may still spend: less what it keeps, and what is on its way."""
        balance = await self._sender.chain.balance(self._sender.wallet)
        mine = self._journal.book.of(self._sender.purse)
        on_its_way = sum(order.most_wei for order in mine if order.state != "mined")
        return balance - on_its_way - self.options.keep_wei

    def busy(self) -> dict[str, str]:
        """Who has a payout in ETH on its way, and in which order."""
        orders = self._journal.book.open.values()
        return {
            line.address: order.order
            for order in orders
            for line in order.lines
            if order.asset == "ETH"
        }

    async def prepare(
        self, name: str, payment: Payment, look: Look, fees: Fees
    ) -> Prepared | Skipped:
        """One order for one payee, with gas by the chain's estimate."""
        address = payment.address
        code = await self._sender.chain.code(address)
        if code and not self.options.contracts:
            return Skipped(address=address, why="Addresses with code are not paid by this pool.")
        call = Call(to=address, value_wei=payment.send_wei)
        try:
            gas = await self._sender.estimate(call)
        except (Reverted, TooMuchGas) as error:
            return _refused(address, code, error)
        gas_limit = self._sender.limit(gas)
        most_wei = gas_limit * fees.max_fee_wei
        if why := too_dear(
            "ETH", payment.amount_wei, gas * price_wei(look), most_wei, self.options.rules
        ):
            return Skipped(address=address, why=why)
        send_wei = payment.amount_wei - (most_wei if self.options.rules.gas_paid_by_worker else 0)
        line = OrderLine(
            account=worker_account(address),
            address=address,
            amount_wei=str(payment.amount_wei),
            send_wei=str(send_wei),
        )
        planned = self.planned(name, "payout", address, send_wei, [line])
        return Prepared(planned=planned, gas_limit=gas_limit)

    def planned(
        self,
        name: str,
        kind: OrderKind,
        to: str,
        value_wei: int,
        lines: Sequence[OrderLine],
        *,
        data: bytes = b"",
        note: str = "",
    ) -> OrderPlanned:
        """The fact that an order in ETH is planned for this wallet."""
        return OrderPlanned(
            order=name,
            wallet=self._sender.wallet,
            chain_id=self._sender.chain.chain_id,
            kind=kind,
            asset="ETH",
            to=to,
            value_wei=str(value_wei),
            data=f"0x{data.hex()}",
            lines=tuple(lines),
            note=note,
        )


def debits_of(planned: OrderPlanned) -> dict[str, int]:
    """What an order takes out of which accounts."""
    debits: dict[str, int] = {}
    for line in planned.lines:
        account = in_asset(planned.asset, line.account)
        debits[account] = debits.get(account, 0) + int(line.amount_wei)
    return debits


def price_wei(look: Look) -> int:
    """What a unit of gas costs now."""
    return look.price.base_fee_wei + look.price.priority_fee_wei


def _refused(address: str, code: bytes, error: Exception) -> Skipped:
    """Only a contract can refuse; of a plain account this is an endpoint's mistake."""
    if not code:
        return Skipped(address=address, why="The chain does not say what gas this payment needs.")
    if isinstance(error, TooMuchGas):
        why = f"The contract at this address would use up too much gas. {error}"
    else:
        why = f"The contract at this address refuses the payment: {error}"
    return Skipped(address=address, why=why, blocked=True)
