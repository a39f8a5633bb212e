"""Signs and sends the transactions of a delegator's plan, each after the one before is mined.

For a person at a terminal who sees what happens: nothing is kept, and an interruption is told with
the hash to look for. The pool's own money goes through `treasury.sender`. Must not decide what is
sent.
"""

import asyncio
from collections.abc import AsyncIterator

from msgspec import Struct

from openpool.chain.interface import (
    Call,
    Chain,
    Receipt,
    SendRefused,
    Signed,
    Signer,
    Transaction,
)
from openpool.chain.signers import checked
from openpool.core.errors import NotAllowed, Timeout
from openpool.core.livepeer.delegation import Plan
from openpool.core.livepeer.maths import pct
from openpool.core.livepeer.transactions import Unsigned

BASE_FEES = 3
"""The offer for gas, in base fees: enough for the base fee to double twice in a few blocks."""


class Limits(Struct, frozen=True, kw_only=True):
    """What is offered for gas at most, and how long to wait for a transaction."""

    gas_margin_ppm: int = 300_000
    gas_max: int = 3_000_000
    gas_price_max_wei: int = 5 * 10**9
    wait_s: float = 180.0
    poll_s: float = 1.0


class Sent(Struct, frozen=True, kw_only=True):
    """A transaction under way, or with its receipt, mined."""

    call: Unsigned
    tx: str
    receipt: Receipt | None = None


async def send_all(chain: Chain, signer: Signer, plan: Plan, limits: Limits) -> AsyncIterator[Sent]:
    """Send the calls in their order; each is told twice, when sent and when mined.

    Raises Reverted before a call that would fail is sent, NotAllowed if gas costs too much or a
    call failed on chain, Timeout if one is not mined in time.
    """
    if signer.address != plan.address:
        raise NotAllowed(f"The key is that of {signer.address}, not of {plan.address}.")
    for call in plan.calls:
        signed = await _signed(chain, signer, call, limits)
        await _send(chain, signed)
        yield Sent(call=call, tx=signed.tx)
        receipt = await _mined(chain, signed.tx, limits)
        if not receipt.ok:
            raise NotAllowed(f"The contracts refused {call.name}; see transaction {signed.tx}.")
        yield Sent(call=call, tx=signed.tx, receipt=receipt)


async def _signed(chain: Chain, signer: Signer, call: Unsigned, limits: Limits) -> Signed:
    asked = Call(to=call.to, data=call.data, value_wei=call.value_wei)
    gas = await chain.estimate_gas(asked, sender=signer.address)
    gas_limit = gas + pct(gas, limits.gas_margin_ppm)
    if gas > limits.gas_max:
        raise NotAllowed(f"{call.name} needs {gas} gas; chain.gas_max is {limits.gas_max}.")
    price = await chain.gas_price()
    if price.base_fee_wei + price.priority_fee_wei > limits.gas_price_max_wei:
        raise NotAllowed("Gas is dearer than chain.gas_price_max at the moment; try again later.")
    offered = BASE_FEES * price.base_fee_wei + price.priority_fee_wei
    transaction = Transaction(
        chain_id=chain.chain_id,
        nonce=await chain.nonce(signer.address, at="pending"),
        to=call.to,
        value_wei=call.value_wei,
        data=call.data,
        gas_limit=min(gas_limit, limits.gas_max),
        max_fee_wei=min(offered, limits.gas_price_max_wei),
        priority_fee_wei=price.priority_fee_wei,
    )
    return await checked(signer, transaction)


async def _send(chain: Chain, signed: Signed) -> None:
    try:
        await chain.send(signed.raw)
    except SendRefused as refused:
        if refused.fault != "known":
            raise


async def _mined(chain: Chain, tx: str, limits: Limits) -> Receipt:
    try:
        async with asyncio.timeout(limits.wait_s):
            while True:
                receipt = await chain.receipt(tx)
                if receipt:
                    return receipt
                await asyncio.sleep(limits.poll_s)  # an endpoint tells nothing by itself
    except TimeoutError:
        raise Timeout(f"Transaction {tx} is not mined yet; look for it later.") from None
