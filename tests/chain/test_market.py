"""Our market, our Multicall3 and our odd recipients do what those they stand for do."""

import time

import pytest
from conftest import Open

from openpool.chain.contracts import BondingManager, Multicall3, Swap, Token
from openpool.chain.interface import Call, Reverted
from openpool.core.units import ETHER
from openpool.demo.evm import LPT_PER_ETH, MULTICALL3, TICK, Livepeer, address

FEE = 3_000


async def test_a_swap_fills_as_quoted(protocol: Livepeer, chain_of: Open) -> None:
    """By both routers: the amount of the quote, told by the token's own event."""
    at, evm = protocol.addresses, protocol.evm
    chain = await chain_of(evm.url)
    await evm.actor("ann")
    weth, lpt, amount = at["WrappedEther"], at["LivepeerToken"], ETHER // 10
    quote = Call(to=at["SwapQuoter"], data=Swap.quote.encode((weth, lpt, amount, FEE, 0)))
    out, *_ = Swap.quote.decode(await chain.call(quote))
    assert out < LPT_PER_ETH // 10 * 997 // 1000
    plain = Swap.exact_input.encode((weth, lpt, FEE, address("ann"), amount, out, 0))
    soon = int(time.time()) + 3600
    for data in (
        Swap.multicall.encode(soon, [plain]),
        Swap.exact_input_dated.encode((weth, lpt, FEE, address("ann"), soon, amount, out, 0)),
    ):
        sent = await evm.send(
            address("ann"), Call(to=at["SwapRouter"], data=data, value_wei=amount)
        )
        receipt = await chain.receipt(sent["transactionHash"])
        assert receipt is not None
        got = [
            Token.transferred.decode(log.topics, log.data)
            for log in receipt.logs
            if log.address == lpt and log.topics[0] == Token.transferred.topic
        ]
        assert got == [(at["SwapPool"], address("ann"), out)]
    dear = Swap.exact_input.encode((weth, lpt, FEE, address("ann"), amount, out + 1, 0))
    for data, why in (
        (Swap.multicall.encode(soon, [dear]), "Too little received"),
        (Swap.multicall.encode(1, [plain]), "Transaction too old"),
    ):
        with pytest.raises(Reverted, match=why):
            await evm.send(address("ann"), Call(to=at["SwapRouter"], data=data, value_wei=amount))


async def test_the_average_of_half_an_hour(protocol: Livepeer, chain_of: Open) -> None:
    """Two readings of the pool give the average tick between them, and the price is its power."""
    chain = await chain_of(protocol.evm.url)
    at = protocol.addresses
    read = await chain.call(Call(to=at["SwapPool"], data=Swap.observe.encode([1800, 0])))
    before, now = Swap.observe.decode(read)[0]
    first = Swap.token0.one(await chain.call(Call(to=at["SwapPool"], data=Swap.token0.encode())))
    sign = 1 if first == at["LivepeerToken"] else -1
    assert (now - before) // 1800 == sign * TICK
    assert pytest.approx(ETHER / LPT_PER_ETH, rel=1e-4) == 1.0001**TICK
    find = Swap.get_pool.encode(at["WrappedEther"], at["LivepeerToken"], FEE)
    pool = await chain.call(Call(to=at["SwapFactory"], data=find))
    assert Swap.get_pool.one(pool) == at["SwapPool"]
    slot = await chain.call(Call(to=at["SwapPool"], data=Swap.slot0.encode()))
    root, tick, *_ = Swap.slot0.decode(slot)
    assert tick == sign * TICK
    assert (root / 2**96) ** 2 == pytest.approx(1.0001**tick, rel=1e-4)


async def test_many_payments_in_one(protocol: Livepeer) -> None:
    """All or nothing if no failure is allowed; else what failed stays behind."""
    evm = protocol.evm
    await evm.actor("ann")
    refuses = await evm.deploy("RefusesEther")
    good, bad = (address("bob"), False, 7, b""), (refuses, False, 5, b"")
    data = Multicall3.aggregate3_value.encode([good])
    await evm.send(address("ann"), Call(to=MULTICALL3, data=data, value_wei=7))
    assert await evm.balance(address("bob")) == 7
    data = Multicall3.aggregate3_value.encode([good, bad])
    with pytest.raises(Reverted, match="call failed"):
        await evm.send(address("ann"), Call(to=MULTICALL3, data=data, value_wei=12))
    assert await evm.balance(address("bob")) == 7
    data = Multicall3.aggregate3_value.encode([good, (refuses, True, 5, b"")])
    await evm.send(address("ann"), Call(to=MULTICALL3, data=data, value_wei=12))
    assert await evm.balance(address("bob")) == 14
    assert await evm.balance(MULTICALL3) == 5


async def test_recipients_with_code(protocol: Livepeer, chain_of: Open) -> None:
    """One refuses, one burns all gas, one takes it; none of them can be paid by withdrawFees."""
    evm = protocol.evm
    chain = await chain_of(evm.url)
    await evm.actor("ann")
    odd = {name: await evm.deploy(name) for name in ("RefusesEther", "BurnsGas", "AcceptsEther")}
    pay = {name: Call(to=where, value_wei=1) for name, where in odd.items()}
    with pytest.raises(Reverted, match="no ether, please"):
        await chain.estimate_gas(pay["RefusesEther"], sender=address("ann"))
    with pytest.raises(Reverted):
        await chain.estimate_gas(pay["BurnsGas"], sender=address("ann"))
    assert await chain.estimate_gas(pay["AcceptsEther"], sender=address("ann")) > 21_000
    await protocol.add_orchestrator("orch")
    await protocol.fund_gateway("gateway")
    await protocol.next_round()
    await protocol.win("gateway", "orch", ETHER)
    for where in odd.values():
        with pytest.raises(Reverted):
            await protocol.call("orch", "BondingManager", BondingManager.withdraw_fees, where, 1)
