"""Signs orders and gives them to the chain: first to disk, then out.

The only place that asks for a signature of money. Must not decide what is done
(`core.money.payouts`) nor whom to pay (`treasury.planner`).
"""

from msgspec import Struct

from openpool.chain.interface import (
    Call,
    Chain,
    ChainUnavailable,
    Reverted,
    SendRefused,
    Signed,
    Signer,
    Transaction,
)
from openpool.chain.signers import checked
from openpool.core.errors import OpenPoolError
from openpool.core.money import events as money
from openpool.core.money.events import OrderPlanned, OrderSigned
from openpool.core.money.orders import Attempt, Order, Purse
from openpool.core.money.payouts import Fees
from openpool.core.units import PPM
from openpool.treasury.journal import Journal


class GasOffer(Struct, frozen=True, kw_only=True):
    """How much gas a transaction gets."""

    margin_ppm: int = 300_000
    """On top of the estimate."""
    most: int = 3_000_000


class TooMuchGas(OpenPoolError):
    """It needs more gas than is ever offered."""

    code = "too-much-gas"


class Sender:
    """Signs with one wallet."""

    def __init__(self, chain: Chain, signer: Signer, journal: Journal, gas: GasOffer) -> None:
        self.chain = chain
        self.signer = signer
        self._journal = journal
        self._gas = gas

    @property
    def wallet(self) -> str:
        return self.signer.address

    @property
    def purse(self) -> Purse:
        return Purse(self.wallet, self.chain.chain_id)

    async def estimate(self, call: Call) -> int:
        """The gas that the chain expects. Raises Reverted, TooMuchGas, ChainUnavailable."""
        gas = await self.chain.estimate_gas(call, sender=self.wallet)
        if gas > self._gas.most:
            raise TooMuchGas(f"It needs {gas} gas, and at most {self._gas.most} is offered.")
        return gas

    def limit(self, gas: int) -> int:
        """What is offered where this much is expected."""
        return min(gas * (PPM + self._gas.margin_ppm) // PPM, self._gas.most)

    async def plan_and_sign(
        self, planned: OrderPlanned, gas_limit: int, nonce: int, fees: Fees
    ) -> None:
        """Plan an order, take the nonce, sign and keep the bytes: all of it, or nothing, is on
        disk when this returns."""
        call = call_of(planned.to, planned.data, int(planned.value_wei))
        signed = await self._signed(planned.order, call, gas_limit, nonce, fees)
        await self._journal.record(planned, self._fact(planned.order, 1, signed))

    async def sign(self, order: Order, nonce: int, fees: Fees) -> None:
        """Sign an order that was planned before. Raises Reverted, TooMuchGas."""
        call = call_of(order.to, order.data, order.value_wei)
        gas_limit = self.limit(await self.estimate(call))
        signed = await self._signed(order.order, call, gas_limit, nonce, fees)
        await self._journal.record(self._fact(order.order, 1, signed))

    async def replace(self, order: Order, fees: Fees) -> None:
        """Sign the same payment again, with the same nonce and more fee."""
        newest = order.newest
        call = call_of(order.to, order.data, order.value_wei)
        gas_limit = newest.gas_limit
        if newest.answer == "refused":  # perhaps for too little gas
            gas_limit = max(gas_limit, await self._limit_again(call))
        signed = await self._signed(order.order, call, gas_limit, newest.nonce, fees)
        await self._journal.record(self._fact(order.order, newest.number + 1, signed))

    async def send(self, order: str, attempt: Attempt) -> str:
        """Give the bytes to the chain. What it answers is kept, and is not the outcome.
        Raises ChainUnavailable; the bytes may have arrived all the same."""
        answer = "ok"
        try:
            await self.chain.send(bytes.fromhex(attempt.raw.removeprefix("0x")))
        except SendRefused as refused:
            answer = "ok" if refused.fault == "known" else refused.fault
        if not attempt.sent_ms or answer != attempt.answer:
            await self._journal.record(money.OrderSent(order=order, tx=attempt.tx, answer=answer))
        return answer

    async def _limit_again(self, call: Call) -> int:
        try:
            return self.limit(await self.estimate(call))
        except (Reverted, TooMuchGas, ChainUnavailable):
            return 0

    async def _signed(
        self, order: str, call: Call, gas_limit: int, nonce: int, fees: Fees
    ) -> tuple[Transaction, Signed]:
        transaction = Transaction(
            chain_id=self.chain.chain_id,
            nonce=nonce,
            to=call.to,
            value_wei=call.value_wei,
            data=call.data,
            gas_limit=gas_limit,
            max_fee_wei=fees.max_fee_wei,
            priority_fee_wei=fees.priority_fee_wei,
        )
        return transaction, await checked(self.signer, transaction)

    def _fact(self, order: str, attempt: int, signed: tuple[Transaction, Signed]) -> OrderSigned:
        transaction, result = signed
        return OrderSigned(
            order=order,
            wallet=self.wallet,
            attempt=attempt,
            nonce=transaction.nonce,
            tx=result.tx,
            raw=f"0x{result.raw.hex()}",
            gas_limit=transaction.gas_limit,
            max_fee_wei=str(transaction.max_fee_wei),
            priority_fee_wei=str(transaction.priority_fee_wei),
        )


def call_of(to: str, data: str, value_wei: int) -> Call:
    """What an order asks of the chain."""
    return Call(to=to, data=bytes.fromhex(data.removeprefix("0x")), value_wei=value_wei)
