"""Many payouts in one transaction, on a real chain with Multicall3."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from evm import Faulty
from modelchain import ModelSigner
from payers import MILLI, OPTIONS, Pool

from openpool.chain.client import open_chain
from openpool.core.units import ETHER
from openpool.demo.evm import CHAIN_ID, MULTICALL3, Evm, Livepeer, address

PAYEES = [address(f"payee {number}") for number in range(8)]


@pytest.fixture
async def pool(evm: Evm, protocol: Livepeer, faulty: Faulty, tmp_path: Path) -> AsyncIterator[Pool]:
    """A pool that pays together, and owes something to eight."""
    async with open_chain([faulty.url], chain_id=CHAIN_ID, agree=1) as chain:
        signer = ModelSigner()
        await evm.set_balance(signer.address, 10 * ETHER)
        await evm.automine(False)
        options = replace(OPTIONS, batch_contract=MULTICALL3)
        pool = await Pool(tmp_path, evm, chain, signer, options).open()
        for number, payee in enumerate(PAYEES):
            await evm.set_balance(payee, 1)
            await pool.owe(payee, 50 * MILLI + number)
        yield pool
        pool.close()


async def all_paid(pool: Pool) -> bool:
    return [await pool.got(p) - 1 for p in PAYEES] == [50 * MILLI + n for n in range(8)]


async def test_one_transaction_pays_many(evm: Evm, pool: Pool) -> None:
    """Each gets exactly what is owed, in one order with a line for each, for less gas."""
    await pool.settle()
    (order,) = pool.payer.journal.book.ended
    assert (order.kind, len(order.lines)) == ("batch-payout", 8)
    assert await all_paid(pool)
    assert all(pool.balance(f"worker:{p}") == 0 for p in PAYEES)
    spent = 10 * ETHER - await evm.balance(pool.signer.address)
    assert pool.balance(f"wallet:{pool.signer.address}") == spent
    receipt = await evm.rpc("eth_getTransactionReceipt", order.tx)
    assert int(receipt["gasUsed"], 16) < 8 * 21_000
    assert await evm.balance(MULTICALL3) == 0


async def test_the_gas_of_a_batch_is_shared(evm: Evm, pool: Pool) -> None:
    """Where workers pay the gas, each bears an equal part, to the wei."""
    options = pool.payer.options
    rules = options.planner.rules
    from msgspec.structs import replace as changed

    planner = replace(options.planner, rules=changed(rules, gas_paid_by_worker=True))
    pool.options = replace(options, planner=planner)
    await pool.crash()
    await pool.settle()
    (order,) = [o for o in pool.payer.journal.book.ended if o.lines]
    gas = [int(line.gas_wei) for line in order.lines]
    assert sum(gas) == order.fee_wei
    assert max(gas) - min(gas) <= 1
    assert pool.balance("gas") == 0
    for number, line in enumerate(order.lines):
        left = pool.balance(f"worker:{line.address}")
        paid = await pool.got(line.address) - 1
        assert paid + left + gas[number] == int(line.amount_wei)


async def test_only_plain_accounts_get_into_a_batch(evm: Evm, pool: Pool) -> None:
    """Contracts, delegated accounts and new accounts are paid on their own."""
    code = {PAYEES[0]: "0x00", PAYEES[1]: "0xef0100" + "00" * 19 + "01"}
    for payee, content in code.items():
        await evm.rpc("anvil_setCode", payee, content)
    await evm.set_balance(PAYEES[2], 0)
    await pool.settle()
    kinds = {o.kind: {line.address for line in o.lines} for o in pool.payer.journal.book.ended}
    assert kinds["batch-payout"] == set(PAYEES[3:])
    assert len(pool.payer.journal.book.ended) == 4


async def test_a_batch_that_fails_is_paid_one_by_one(evm: Evm, pool: Pool) -> None:
    """A payee becomes a contract that refuses, between trying and mining: nobody is paid by the
    batch, everybody else is right after it."""
    await pool.tick()
    await evm.rpc("anvil_setCode", PAYEES[3], "0x60006000fd")
    await pool.settle()
    batch, *singles = pool.payer.journal.book.ended
    assert (batch.kind, batch.state) == ("batch-payout", "voided")
    assert {line.address for o in singles for line in o.lines} == set(PAYEES) - {PAYEES[3]}
    assert all(o.kind == "payout" and o.state == "confirmed" for o in singles)
    assert pool.balance(f"worker:{PAYEES[3]}") == 50 * MILLI + 3
    assert list(pool.payer.journal.book.blocked) == [PAYEES[3]]


async def test_no_multicall_there(evm: Evm, pool: Pool) -> None:
    """An address without the contract would swallow the money; it is found out by trying."""
    await evm.rpc("anvil_setCode", MULTICALL3, "0x")
    await pool.settle()
    assert {o.kind for o in pool.payer.journal.book.ended} == {"payout"}
    assert await all_paid(pool)
    assert await evm.balance(MULTICALL3) == 0
