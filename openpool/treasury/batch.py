"""Many payouts in one transaction, where that costs less gas: Multicall3's `aggregate3Value`.

All of it succeeds or nothing is sent, so one recipient could spoil it for all: only plain accounts
get into a batch. They have no code (a contract may refuse, or burn gas; delegated code, EIP-7702,
is code), and they exist (the first payment to an account costs more inside a batch than outside).
The chain tries the whole batch first, and what the contract returns is checked: an address without
Multicall3 would take the money and return nothing. A batch that fails all the same is voided, and
its payees are paid one by one.
"""

from collections.abc import Sequence

from openpool.chain.contracts import Multicall3
from openpool.chain.interface import Call, Reverted
from openpool.core.errors import BadMessage
from openpool.core.money.accounts import worker_account
from openpool.core.money.events import OrderLine
from openpool.core.money.payout_plan import Payment
from openpool.core.money.payouts import Fees
from openpool.treasury.asking import ask_all
from openpool.treasury.planner import Planner, Prepared
from openpool.treasury.sender import Sender, TooMuchGas

BATCH_MIN = 2
BATCH_MAX = 100


class Batcher:
    """Puts payments together."""

    def __init__(self, sender: Sender, planner: Planner, contract: str) -> None:
        self._sender = sender
        self._planner = planner
        self._contract = contract

    async def prepare(
        self, name: str, payments: Sequence[Payment], fees: Fees, singles: set[str]
    ) -> Prepared | None:
        """One order for as many of them as fit; None if paying them one by one is better."""
        wanted = [p for p in payments if p.address not in singles][:BATCH_MAX]
        plain = await self._plain([p.address for p in wanted])
        chosen = [p for p in wanted if p.address in plain]
        if len(chosen) < BATCH_MIN:
            return None
        gas = await self._gas(chosen)
        single = await self._sender.estimate(Call(to=chosen[0].address, value_wei=1))
        if gas is None or gas >= single * len(chosen):
            return None
        gas_limit = self._sender.limit(gas)
        each_wei = -(-gas_limit * fees.max_fee_wei // len(chosen))
        lines = self._lines(chosen, each_wei)
        if any(int(line.send_wei) <= 0 for line in lines):
            return None
        call = batch_call(self._contract, [(line.address, int(line.send_wei)) for line in lines])
        planned = self._planner.planned(
            name, "batch-payout", call.to, call.value_wei, lines, data=call.data
        )
        return Prepared(planned=planned, gas_limit=gas_limit)

    def _lines(self, payments: Sequence[Payment], gas_each_wei: int) -> list[OrderLine]:
        by_worker = self._planner.options.rules.gas_paid_by_worker
        return [
            OrderLine(
                account=worker_account(each.address),
                address=each.address,
                amount_wei=str(each.amount_wei),
                send_wei=str(each.amount_wei - (gas_each_wei if by_worker else 0)),
            )
            for each in payments
        ]

    async def _gas(self, payments: Sequence[Payment]) -> int | None:
        """What the batch needs; None if the chain would not carry it out."""
        call = batch_call(self._contract, [(p.address, p.send_wei) for p in payments])
        try:
            told = await self._sender.chain.call(call, sender=self._sender.wallet)
            (results,) = Multicall3.aggregate3_value.decode(told)
            if len(results) != len(payments) or not all(done for done, _ in results):
                return None
            return await self._sender.estimate(call)
        except (Reverted, TooMuchGas, BadMessage):
            return None

    async def _plain(self, addresses: Sequence[str]) -> set[str]:
        found = await ask_all(self._is_plain, addresses)
        return {address for address, plain in zip(addresses, found, strict=True) if plain}

    async def _is_plain(self, address: str) -> bool:
        chain = self._sender.chain
        if await chain.code(address):
            return False
        return bool(await chain.balance(address) or await chain.nonce(address))


def batch_call(contract: str, payments: Sequence[tuple[str, int]]) -> Call:
    """The call that pays (address, wei) each, or nobody."""
    parts = [(address, False, value_wei, b"") for address, value_wei in payments]
    value_wei = sum(value for _, value in payments)
    data = Multicall3.aggregate3_value.encode(parts)
    return Call(to=contract, data=data, value_wei=value_wei)
