"""`openpool verify --rpc`: what a statement says was paid, against a real chain."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace
from statement_log import BOB, MoneyLog, signed

from openpool.chain.contracts import Multicall3, Token
from openpool.chain.interface import Call
from openpool.cli.checking import Files, check
from openpool.cli.onchain import MULTICALL3, check_payouts
from openpool.core.errors import Unavailable
from openpool.core.money.events import OrderConfirmed, OrderLine
from openpool.core.money.statements import Opening, Statement
from openpool.core.units import ETHER
from openpool.demo.evm import Evm, Livepeer, address

PAID_WEI = 12_345


def stated(chain_id: int, **changes: object) -> Statement:
    """A statement with one payout, whose confirmation is changed like this."""
    log = MoneyLog()
    log.round(1)
    log.work(20)
    log.paid("p", BOB, PAID_WEI)
    log.round(2)
    statement, _ = log.statement(1, Opening(round=1))
    facts = list(statement.facts)
    place = next(n for n, fact in enumerate(facts) if isinstance(fact.data, OrderConfirmed))
    confirmed = replace(facts[place].data, **changes)
    facts[place] = replace(facts[place], data=confirmed)
    return replace(statement, facts=tuple(facts), chain_id=chain_id)


async def pay(evm: Evm, to: str, value_wei: int, data: bytes = b"") -> dict[str, str]:
    """What a confirmation says of a transaction that really happened."""
    await evm.actor("payer")
    call = Call(to=to, value_wei=value_wei, data=data)
    return told(await evm.send(address("payer"), call))


def told(receipt: Mapping[str, str]) -> dict[str, str]:
    """What a confirmation says of it."""
    return {
        "tx": receipt["transactionHash"],
        "block_hash": receipt["blockHash"],
        "wallet": address("payer"),
    }


async def texts(statement: Statement, url: str) -> list[str]:
    findings, checked = await check_payouts(statement, url)
    assert checked == 1
    return [finding.text for finding in findings]


async def test_a_payout_that_really_happened_is_right(evm: Evm, anvil_url: str) -> None:
    """To that address, of that amount, in that block."""
    done = await pay(evm, BOB, PAID_WEI)
    assert await texts(stated(evm.chain_id, **done), anvil_url) == []


async def test_what_did_not_happen_like_that_is_found(evm: Evm, anvil_url: str) -> None:
    """Less, to somebody else, in another block, or not at all."""
    less = await pay(evm, BOB, PAID_WEI - 1)
    (text,) = await texts(stated(evm.chain_id, **less), anvil_url)
    assert "did not give" in text
    other = await pay(evm, address("somebody"), PAID_WEI)
    (text,) = await texts(stated(evm.chain_id, **other), anvil_url)
    assert "did not give" in text
    right = await pay(evm, BOB, PAID_WEI)
    moved = right | {"block_hash": "0x" + "00" * 32}
    (text,) = await texts(stated(evm.chain_id, **moved), anvil_url)
    assert "another block" in text
    (text,) = await texts(stated(evm.chain_id, tx="0x" + "12" * 32), anvil_url)
    assert "knows no transaction" in text
    (text,) = await texts(stated(evm.chain_id, **right | {"wallet": BOB}), anvil_url)
    assert "was not made by the pool's wallet" in text


async def test_a_batch_counts_only_through_the_known_contract(
    evm: Evm, protocol: Livepeer, anvil_url: str
) -> None:
    """Its parts are read from the call; a contract of the pool's own could do anything."""
    calls = [(BOB, False, PAID_WEI, b""), (address("somebody"), False, 5, b"")]
    data = Multicall3.aggregate3_value.encode(calls)
    code = await evm.rpc("eth_getCode", await evm.deploy("Multicall3"), "latest")
    await evm.rpc("anvil_setCode", MULTICALL3, code)
    done = await pay(evm, MULTICALL3, PAID_WEI + 5, data)
    assert await texts(stated(evm.chain_id, kind="batch-payout", **done), anvil_url) == []
    elsewhere = await pay(evm, await evm.deploy("Multicall3"), PAID_WEI + 5, data)
    (text,) = await texts(stated(evm.chain_id, kind="batch-payout", **elsewhere), anvil_url)
    assert "did not give" in text


async def test_lpt_counts_as_tokens_and_as_stake(
    evm: Evm, protocol: Livepeer, anvil_url: str
) -> None:
    """What the token or the staking contract logged for the address, of that amount."""
    await evm.actor("payer")
    await protocol.give_lpt(address("payer"), 10 * ETHER)
    got = await protocol.call("payer", "LivepeerToken", Token.transfer, BOB, PAID_WEI)
    done = told(got) | {"asset": "LPT"}
    assert await texts(stated(evm.chain_id, **done), anvil_url) == []
    more = OrderLine(account=f"lpt/worker:{BOB}", address=BOB, amount_wei="99999", send_wei="99999")
    (text,) = await texts(stated(evm.chain_id, lines=(more,), **done), anvil_url)
    assert "did not give" in text


async def test_an_endpoint_of_another_chain_or_none_is_one_sentence(
    evm: Evm, anvil_url: str
) -> None:
    """Nothing is found wrong with a statement because of a wrong endpoint."""
    with pytest.raises(Unavailable, match="serves chain"):
        await check_payouts(stated(1), anvil_url)
    with pytest.raises(Unavailable, match="no usable answer"):
        await check_payouts(stated(1), "http://127.0.0.1:9")


async def test_the_command_looks_payouts_up(evm: Evm, anvil_url: str, tmp_path: Path) -> None:
    """With --rpc the payouts are part of the report."""
    import asyncio

    done = await pay(evm, BOB, PAID_WEI)
    path = tmp_path / "s.json"
    path.write_bytes(signed(stated(evm.chain_id, **done)))
    report = await asyncio.to_thread(check, Files(statement=path, rpc=anvil_url))
    assert report.ok, report.findings
    assert f"1 payout transactions were looked up on chain {evm.chain_id}." in report.checked
