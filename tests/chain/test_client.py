"""The chain's client against a real local chain, and against endpoints that misbehave."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import structlog.testing
from aiohttp import web
from conftest import Open
from eth_utils.crypto import keccak
from evm import Fault, Faulty, drop_answer, drop_request, hang, http_status, huge, lie, refuse

from openpool.chain.contracts import Token
from openpool.chain.interface import (
    Call,
    ChainUnavailable,
    Disagreement,
    Reverted,
    SendRefused,
    WrongChain,
)
from openpool.demo.evm import CHAIN_ID, Evm, Livepeer, address
from openpool.link.tls import load_or_create_identity, server_context

BOB = "0x" + "b0" * 19 + "0B"


async def raw_transfer(evm: Evm, name: str, nonce: int = 0, **changes: int) -> bytes:
    """One wei from an actor who has money, signed."""
    actor = await evm.actor(name)
    fields = {
        "chainId": CHAIN_ID,
        "nonce": nonce,
        "to": address("somebody"),
        "value": 1,
        "gas": 21_000,
        "maxFeePerGas": 10**9,
        "maxPriorityFeePerGas": 0,
    }
    return bytes(actor.sign_transaction(fields | changes).raw_transaction)


# --- one good endpoint ----------------------------------------------------------------------------


async def test_what_a_chain_says_is_read(evm: Evm, chain_of: Open) -> None:
    """Blocks, balances, nonces, code and gas come out as the chain has them."""
    chain = await chain_of(evm.url)
    tx = await chain.send(await raw_transfer(evm, "ann"))
    await evm.settled()
    await evm.mine(3)
    latest, final = await chain.block(), await chain.block("finalized")
    assert latest.number == await evm.block_number() > final.number > 0
    assert await chain.block(latest.number) == latest
    assert await chain.balance(address("somebody")) == await evm.balance(address("somebody"))
    assert await chain.nonce(address("ann")) == await chain.nonce(address("ann"), at="pending") == 1
    assert await chain.nonce(address("ann"), at=0) == 0
    assert await chain.code(address("ann")) == b""
    receipt = await chain.receipt(tx)
    assert receipt is not None
    assert receipt.ok
    assert receipt.fee_wei >= receipt.gas_used == 21_000
    assert (await chain.gas_price()).base_fee_wei > 0
    assert await chain.estimate_gas(Call(to=BOB, value_wei=1), sender=address("ann")) >= 21_000


async def test_calls_and_logs_of_a_contract(protocol: Livepeer, chain_of: Open) -> None:
    """Many reads are one answer each, a refusal is told as such, and logs come in order."""
    chain = await chain_of(protocol.evm.url)
    token = protocol.addresses["LivepeerToken"]
    for amount in (1, 2, 3):
        await protocol.give_lpt(address("ann"), amount)
    balance = Call(to=token, data=Token.balance_of.encode(address("ann")))
    refused = Call(to=token, data=Token.transfer.encode(BOB, 10**30))
    good, bad = await chain.calls([balance, refused])
    assert Token.balance_of.one(good) == 6
    assert isinstance(bad, Reverted)
    assert "exceeds balance" in str(bad)
    with pytest.raises(Reverted, match="exceeds balance"):
        await chain.estimate_gas(refused, sender=address("ann"))
    to_ann = bytes.fromhex(address("ann")[2:]).rjust(32, b"\0")
    logs = await chain.logs(
        addresses=[token],
        topics=[[Token.transferred.topic], None, [to_ann]],
        from_block=0,
        to_block=await protocol.evm.block_number(),
    )
    assert [Token.transferred.decode(log.topics, log.data)[2] for log in logs] == [1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [({"nonce": 0}, "nonce-too-low"), ({"value": 10**30}, "insufficient-funds")],
)
async def test_a_refused_transaction_says_why(
    evm: Evm, chain_of: Open, changes: dict[str, int], fault: str
) -> None:
    """A used nonce and a key without funds are told apart."""
    chain = await chain_of(evm.url)
    await chain.send(await raw_transfer(evm, "ann"))
    await evm.settled()
    with pytest.raises(SendRefused) as caught:
        await chain.send(await raw_transfer(evm, "ann", **({"nonce": 1} | changes)))
    assert caught.value.fault == fault


async def test_a_transaction_that_waits_is_known(evm: Evm, chain_of: Open) -> None:
    """Sent twice it is `known`, and another of the same nonce and price is underpriced."""
    chain = await chain_of(evm.url)
    await evm.automine(False)
    raw = await raw_transfer(evm, "ann")
    assert await chain.receipt(await chain.send(raw)) is None
    faults = []
    for again in (raw, await raw_transfer(evm, "ann", value=2)):
        with pytest.raises(SendRefused) as caught:
            await chain.send(again)
        faults.append(caught.value.fault)
    assert faults == ["known", "underpriced"]
    assert await chain.nonce(address("ann"), at="pending") == 1


async def test_a_receipt_goes_with_its_block(evm: Evm, chain_of: Open) -> None:
    """After a reorg there is no receipt; the same bytes can be mined again."""
    chain = await chain_of(evm.url)
    raw = await raw_transfer(evm, "ann")
    tx = await chain.send(raw)
    await evm.settled()
    await evm.reorg(1)
    assert await chain.receipt(tx) is None
    assert await chain.send(raw) == tx
    await evm.settled()
    assert await chain.receipt(tx) is not None


# --- endpoints that fail --------------------------------------------------------------------------


async def test_another_endpoint_takes_over(evm: Evm, faulty: Faulty, chain_of: Open) -> None:
    """Dead, slow, huge, limited or nonsensical: the next one is asked, and this one later."""
    chain = await chain_of(faulty.url, evm.url, agree=1, timeout_s=0.3)
    head = await evm.block_number()
    for fault in (
        drop_request,
        hang,
        huge,
        http_status(500),
        refuse("internal error"),
        lie(lambda _: {"number": "latest"}),
        lie(lambda _: None),
    ):
        faulty.heal()
        faulty.on("eth_getBlockByNumber", fault)
        assert (await chain.block()).number == head
    asked = len(faulty.seen)
    await chain.block()
    assert len(faulty.seen) == asked


@pytest.mark.parametrize(
    ("method", "fault", "problem"),
    [
        ("eth_getBlockByNumber", huge, "its answer is too large"),
        (
            "eth_getBlockByNumber",
            lie(lambda block: block | {"number": "0x7"}),
            "it gave another block than was asked for",
        ),
        (
            "eth_getTransactionReceipt",
            lie(lambda receipt: receipt | {"transactionHash": "0x" + "12" * 32}),
            "its receipt is that of another transaction",
        ),
    ],
)
async def test_an_answer_to_something_else_is_none(
    evm: Evm, faulty: Faulty, chain_of: Open, method: str, fault: Fault, problem: str
) -> None:
    """Too much, another block, the receipt of somebody else's transaction: told as just that."""
    chain = await chain_of(faulty.url)
    tx = await chain.send(await raw_transfer(evm, "ann"))
    await evm.settled()
    faulty.on(method, fault)
    with pytest.raises(ChainUnavailable, match=problem):
        await (chain.block(1) if "Block" in method else chain.receipt(tx))


async def test_a_redirect_is_not_followed(evm: Evm, faulty: Faulty, chain_of: Open) -> None:
    """What was configured is asked, and nobody else."""
    chain = await chain_of(faulty.url)
    faulty.on("*", http_status(307, Location=evm.url))
    with pytest.raises(ChainUnavailable, match="answered with status 307"):
        await chain.block()


async def test_one_lost_answer_is_asked_for_again(faulty: Faulty, chain_of: Open) -> None:
    """A single endpoint that drops one connection costs nothing but a moment."""
    chain = await chain_of(faulty.url)
    faulty.on("eth_getBlockByNumber", drop_request, times=1)
    assert (await chain.block()).number >= 0


async def test_an_endpoint_of_another_chain_is_never_used(evm: Evm, chain_of: Open) -> None:
    """One sentence names the endpoint, its chain and the setting."""
    chain = await chain_of(evm.url, chain_id=42_161)
    sentence = r"127\.0\.0\.1:\d+ serves chain 31337, but chain\.id is 42161"
    with structlog.testing.capture_logs() as logged, pytest.raises(WrongChain, match=sentence):
        await chain.block()
    assert [each["event"] for each in logged] == ["endpoint-of-another-chain"]
    with pytest.raises(ChainUnavailable, match="serves chain 31337"):
        await chain.send(b"\x02")


async def test_an_endpoint_that_comes_back_is_asked_for_its_chain_again(
    evm: Evm, faulty: Faulty, chain_of: Open
) -> None:
    """After a failure it could be another machine: the chain is checked before the next use."""
    chain = await chain_of(faulty.url)
    await chain.block()
    faulty.on("eth_getBlockByNumber", drop_request, times=1)
    faulty.on("eth_chainId", lie(lambda _: "0x1"))
    with pytest.raises(WrongChain, match="serves chain 1,"):
        await chain.block()
    faulty.heal()
    assert await chain.block()


async def test_an_endpoint_that_asks_for_patience_gets_it(
    evm: Evm, faulty: Faulty, chain_of: Open
) -> None:
    """429 with Retry-After: nothing is asked of it until then."""
    chain = await chain_of(faulty.url, evm.url, agree=1)
    await chain.block()
    faulty.on("*", http_status(429, Retry_After="20"), times=1)
    await chain.block()
    asked = len(faulty.seen)
    await chain.block()
    await chain.gas_price()
    assert await chain.nonce(BOB, at="pending") == 0  # asks all that may be asked
    assert len(faulty.seen) == asked
    assert chain.endpoints[0].rests_s > 15


async def test_the_only_endpoint_is_waited_for(faulty: Faulty, chain_of: Open) -> None:
    """Where there is no other, the answer comes once the endpoint may be asked again."""
    chain = await chain_of(faulty.url)
    faulty.on("*", http_status(429, Retry_After="1"), times=1)
    assert await chain.block()


async def test_a_limit_told_as_an_error_is_one(evm: Evm, faulty: Faulty, chain_of: Open) -> None:
    """Some say so in JSON-RPC: they are left alone for a moment, too."""
    chain = await chain_of(faulty.url, evm.url, agree=1)
    faulty.on("eth_getBlockByNumber", refuse("Too Many Requests", -32_005))
    await chain.block()
    assert 0 < chain.endpoints[0].rests_s <= 2


async def test_a_refused_key_is_said(evm: Evm, faulty: Faulty, chain_of: Open) -> None:
    """401 and 403 are told as what they are."""
    chain = await chain_of(faulty.url)
    faulty.on("*", http_status(401))
    with pytest.raises(ChainUnavailable, match="refuses access; check the key in its address"):
        await chain.block()


async def test_small_batches_are_enough(evm: Evm, faulty: Faulty, chain_of: Open) -> None:
    """An endpoint that takes three requests at once gets them in threes from then on."""
    chain = await chain_of(faulty.url)
    faulty.batch_max = 3
    calls = [Call(to=BOB, data=bytes([n])) for n in range(10)]
    assert await chain.calls(calls) == [b""] * 10
    assert faulty.count("eth_call") == 10


async def test_a_bad_certificate_is_not_trusted(tmp_path: Path, chain_of: Open) -> None:
    """TLS is verified: a self-signed endpoint gets no request."""
    app = web.Application()
    runner = web.AppRunner(app)
    await runner.setup()
    tls = server_context(load_or_create_identity(tmp_path))
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    chain = await chain_of(f"https://localhost:{runner.addresses[0][1]}")
    with pytest.raises(ChainUnavailable, match="its TLS certificate is not good"):
        await chain.block()
    await runner.cleanup()


async def test_a_key_in_an_address_is_never_shown(evm: Evm, chain_of: Open) -> None:
    """Neither an error nor the log has more of an endpoint than its host."""
    chain = await chain_of("http://user:TOP-SECRET@127.0.0.1:9/v3/TOP-SECRET?key=TOP-SECRET")
    with structlog.testing.capture_logs() as logged, pytest.raises(ChainUnavailable) as caught:
        await chain.block()
    assert "127.0.0.1:9" in str(caught.value)
    assert "TOP-SECRET" not in f"{caught.value}{caught.value.__cause__}{logged}{chain.endpoints}"
    assert logged


# --- endpoints that lie ---------------------------------------------------------------------------


def five_more(answer: str) -> str:
    return hex(int(answer, 16) + 5)


async def test_a_lie_about_a_nonce_stops_everything(
    evm: Evm, faulty: Faulty, chain_of: Open
) -> None:
    """Of two endpoints one lies: nobody can say which, so nothing is done."""
    chain = await chain_of(faulty.url, evm.url)
    faulty.on("eth_getTransactionCount", lie(five_more))
    with pytest.raises(Disagreement, match=r"contradict each other \(127.*\); nothing is done"):
        await chain.nonce(address("ann"))


async def test_two_honest_endpoints_outvote_a_liar(
    evm: Evm, faulty: Faulty, make_faulty: Callable[[], Awaitable[Faulty]], chain_of: Open
) -> None:
    """Balance, nonce, receipt, logs and final block are those of the two that agree."""
    honest = await make_faulty()
    chain = await chain_of(faulty.url, evm.url, honest.url)
    tx = await chain.send(await raw_transfer(evm, "ann"))
    await evm.settled()
    await evm.finalize()
    final = await chain.block("finalized")
    for method in ("eth_getTransactionCount", "eth_getBalance"):
        faulty.on(method, lie(five_more))
    faulty.on("eth_getTransactionReceipt", lie(lambda r: r | {"status": "0x0"}))
    faulty.on("eth_getBlockByNumber", lie(lambda b: b | {"number": five_more(b["number"])}))
    faulty.on("eth_getLogs", lie(lambda _: []))
    assert await chain.nonce(address("ann")) == 1
    assert await chain.balance(address("ann")) == await evm.balance(address("ann"))
    assert await chain.block("finalized") == final
    with pytest.raises(Disagreement):
        await chain.receipt(tx)
    faulty.on("eth_getTransactionReceipt", lie(lambda _: None))
    receipt = await chain.receipt(tx)
    assert receipt is not None
    assert receipt.ok


async def test_an_endpoint_that_lags_does_no_harm(evm: Evm, faulty: Faulty, chain_of: Open) -> None:
    """Two endpoints agree on the newest block that both have; what only one has is not yet so."""
    chain = await chain_of(faulty.url, evm.url)
    await evm.mine(5)
    tx = await chain.send(await raw_transfer(evm, "ann"))
    await evm.settled()
    await evm.mine(2)
    head = await evm.block_number()
    faulty.lag = 3
    assert await chain.nonce(address("ann")) == 0
    assert await chain.receipt(tx) is None
    wanted = {"addresses": [BOB], "topics": [], "from_block": 0}
    with pytest.raises(ChainUnavailable, match=f"does not have block {head} yet"):
        await chain.logs(**wanted, to_block=head)
    faulty.lag = 0
    assert await chain.nonce(address("ann")) == 1
    assert await chain.receipt(tx) is not None
    assert await chain.logs(**wanted, to_block=head) == []


async def test_a_fork_is_found_out(
    evm: Evm, faulty: Faulty, other_anvil_url: str, chain_of: Open
) -> None:
    """An endpoint with another history of the same chain: blocks, logs and calls are refused."""
    chain = await chain_of(faulty.url, evm.url)
    await evm.mine(3)
    await chain.block()
    faulty.upstream = other_anvil_url
    head = await evm.block_number()
    await faulty._ask("anvil_mine", [hex(head + 5), "0x1"])
    for read in (
        chain.block(head),
        chain.block("finalized"),
        chain.logs(addresses=[BOB], topics=[], from_block=1, to_block=head),
    ):
        with pytest.raises(Disagreement):
            await read


async def test_logs_that_nobody_asked_for_are_not_believed(
    protocol: Livepeer, faulty: Faulty, chain_of: Open
) -> None:
    """A log of another contract, or from outside the range, makes the whole answer worthless."""
    chain = await chain_of(faulty.url)
    token = protocol.addresses["LivepeerToken"]
    wanted = {
        "addresses": [token],
        "topics": [[Token.transferred.topic]],
        "from_block": 0,
        "to_block": await protocol.evm.block_number(),
    }
    good = await chain.logs(**wanted)
    assert good
    for change in (
        {"address": BOB.lower()},
        {"blockNumber": "0xffff"},
        {"topics": ["0x" + "1" * 64]},
    ):
        faulty.on("eth_getLogs", lie(lambda logs, c=change: [logs[0] | c]))
        with pytest.raises(ChainUnavailable, match="not asked for"):
            await chain.logs(**wanted)


async def test_long_ranges_are_split_as_the_endpoint_wants(
    protocol: Livepeer, faulty: Faulty, chain_of: Open
) -> None:
    """An endpoint that searches ten blocks at most gives the same logs in more requests."""
    chain = await chain_of(faulty.url)
    wanted = {
        "addresses": [protocol.addresses["LivepeerToken"]],
        "topics": [[Token.transferred.topic]],
        "from_block": 0,
        "to_block": await protocol.evm.block_number(),
    }
    good = await chain.logs(**wanted)

    async def narrow(ask):  # type: ignore[no-untyped-def]
        asked = faulty.seen[-1][1][0]
        if int(asked["toBlock"], 16) - int(asked["fromBlock"], 16) >= 10:
            return {"error": {"code": -32_005, "message": "query exceeds max block range 10"}}
        return await ask()

    faulty.on("eth_getLogs", narrow)
    assert await chain.logs(**wanted) == good
    assert faulty.count("eth_getLogs") > 4


async def test_a_transaction_goes_to_every_endpoint(
    evm: Evm, faulty: Faulty, chain_of: Open
) -> None:
    """One that takes it is enough, whatever the others do; its hash is our own reckoning."""
    chain = await chain_of(faulty.url, evm.url)
    raw = await raw_transfer(evm, "ann")
    faulty.on("eth_sendRawTransaction", drop_request)
    assert await chain.send(raw) == f"0x{keccak(raw).hex()}"
    await evm.settled()
    second = await raw_transfer(evm, "ann", 1)
    alone = await chain_of(faulty.url)
    faulty.on("eth_sendRawTransaction", drop_answer)
    with pytest.raises(ChainUnavailable, match="No endpoint answered whether it took"):
        await alone.send(second)
    await evm.settled()
    assert await chain.receipt(f"0x{keccak(second).hex()}")
    faulty.on("eth_sendRawTransaction", lie(lambda _: "0x" + "12" * 32))
    with pytest.raises(ChainUnavailable, match="another hash"):
        await alone.send(await raw_transfer(evm, "ann", 2))
