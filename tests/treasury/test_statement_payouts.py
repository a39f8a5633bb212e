"""Payouts that the real payer made on a real chain, in a statement that is checked against it."""

from dataclasses import replace
from pathlib import Path

import pytest
from modelchain import ModelSigner
from msgspec.structs import replace as changed
from payers import MILLI, OPTIONS, Pool

from openpool.chain.client import open_chain
from openpool.cli.onchain import check_payouts
from openpool.core.events import Event
from openpool.core.money.events import OrderConfirmed, RoundStarted
from openpool.core.money.statement_check import check_statement
from openpool.core.money.statements import Closing, Opening, Statement, make
from openpool.core.units import ETHER
from openpool.demo.evm import CHAIN_ID, MULTICALL3, Evm, Livepeer, address
from openpool.store.interface import EventFilter

PAYEES = [address(f"payee {number}") for number in range(4)]


async def a_statement(pool: Pool) -> Statement:
    """Over all that the pool's log has."""
    for number in (1, 2):
        started = RoundStarted(round=number, source="clock")
        event = Event(id=f"round/{number}", time_ms=pool.now_ms, data=started)
        await pool.store.append([event]).durable()
    stored = pool.store.events(EventFilter(limit=10_000))
    closing = Closing(
        pool="p",
        chain_id=CHAIN_ID,
        round=1,
        seq=stored[-1].seq,
        chain=stored[-1].chain,
        time_ms=stored[-1].event.time_ms,
        terms="",
    )
    entries = [(each.seq, each.event) for each in stored]
    return make(Opening(round=1), closing, entries, lambda receipt: None)


@pytest.mark.parametrize("together", [True, False], ids=["batch", "one by one"])
@pytest.mark.parametrize("by_workers", [True, False], ids=["workers' gas", "pool's gas"])
async def test_what_was_paid_is_what_the_chain_says(
    evm: Evm,
    protocol: Livepeer,
    anvil_url: str,
    tmp_path: Path,
    *,
    together: bool,
    by_workers: bool,
) -> None:
    """Whoever pays the gas, and however many are paid at once; and one wei more is found."""
    rules = changed(OPTIONS.planner.rules, gas_paid_by_worker=by_workers)
    options = replace(
        OPTIONS,
        planner=replace(OPTIONS.planner, rules=rules),
        batch_contract=MULTICALL3 if together else "",
    )
    async with open_chain([anvil_url], chain_id=CHAIN_ID, agree=1) as chain:
        signer = ModelSigner()
        await evm.set_balance(signer.address, 10 * ETHER)
        await evm.automine(False)
        pool = await Pool(tmp_path, evm, chain, signer, options).open()
        for number, payee in enumerate(PAYEES):
            await evm.set_balance(payee, 1)
            await pool.owe(payee, 50 * MILLI + number)
        await pool.settle()
        statement = await a_statement(pool)
        owed = {row.account: int(row.closing_wei) for row in statement.accounts}
        assert owed == {f"worker:{p}": pool.balance(f"worker:{p}") for p in PAYEES}
        pool.close()
    assert list(check_statement(statement)) == []
    findings, count = await check_payouts(statement, anvil_url)
    assert (findings, count) == ([], 1 if together else len(PAYEES))
    place, fact = next(
        (n, f) for n, f in enumerate(statement.facts) if isinstance(f.data, OrderConfirmed)
    )
    assert isinstance(fact.data, OrderConfirmed)
    line = fact.data.lines[0]
    more = changed(line, send_wei=str(int(line.send_wei) + 1))
    lied = changed(fact, data=changed(fact.data, lines=(more, *fact.data.lines[1:])))
    facts = (*statement.facts[:place], lied, *statement.facts[place + 1 :])
    findings, _ = await check_payouts(changed(statement, facts=facts), anvil_url)
    assert [finding.path for finding in findings] == [f"facts[{place}].data.lines[0]"]
