"""Delegating on a real chain: what was told before is what happens."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from eth_utils.crypto import keccak
from msgspec.structs import replace

from openpool.chain import contracts as c
from openpool.chain.abi import Method
from openpool.chain.client import open_chain
from openpool.chain.interface import Call, Chain, DelegatorState, Reverted
from openpool.chain.interface import Livepeer as Reading
from openpool.chain.livepeer import open_livepeer
from openpool.chain.signers import WalletSigner
from openpool.cli import run
from openpool.core.errors import NotAllowed, Timeout
from openpool.core.livepeer import bonding
from openpool.core.livepeer.delegation import Plan, Wish
from openpool.core.livepeer.outlook import project, with_more_stake
from openpool.core.units import ETHER
from openpool.demo.evm import CHAIN_ID, DEPLOYER, Evm, Livepeer, account, address, keystore_of
from openpool.private_files import write_private
from openpool.treasury.delegator_sending import Limits, send_all
from openpool.treasury.delegators import Delegations, delegator_of, orchestrator_of, pool_of
from openpool.wallet import Wallet

LPT = ETHER
SET_CONTRACT = Method("setContractInfo", "bytes32", "address", "bytes20")
POOL, OTHER, ANN = address("pool"), address("other"), address("ann")


@asynccontextmanager
async def reading(protocol: Livepeer) -> AsyncIterator[tuple[Delegations, Chain, Reading]]:
    """The pool's orchestrator, read from the chain of the test."""
    async with open_chain([protocol.evm.url], chain_id=CHAIN_ID, agree=1) as chain:
        livepeer = await open_livepeer(chain, protocol.addresses["Controller"])
        named = {POOL: "main"}
        yield Delegations(chain, livepeer, named, clock_ms=lambda: 1), chain, livepeer


@pytest.fixture
async def network(protocol: Livepeer) -> Livepeer:
    """The pool's orchestrator and another one, active; Ann has LPT and stakes nothing yet."""
    await protocol.add_orchestrator(
        "pool", stake_lpt=20_000 * LPT, reward_cut_ppm=250_000, fee_share_ppm=300_000
    )
    await protocol.add_orchestrator("other", stake_lpt=50_000 * LPT)
    await protocol.fund_gateway("gateway")
    await protocol.evm.actor("ann")
    await protocol.give_lpt(ANN, 5_000 * LPT)
    await protocol.next_round()
    return protocol


async def execute(evm: Evm, plan: Plan) -> None:
    """Carry out a plan, each call with a transaction of its own."""
    for call in plan.calls:
        await evm.send(plan.address, Call(to=call.to, data=call.data, value_wei=call.value_wei))


async def a_round(protocol: Livepeer, fees_wei: int = 0) -> None:
    """A round in which everybody calls reward, after a ticket perhaps."""
    await protocol.next_round()
    if fees_wei:
        await protocol.win("gateway", "pool", fees_wei)
    for name in ("other", "pool"):
        await protocol.reward(name)


async def test_the_profile_is_what_the_chain_says(network: Livepeer) -> None:
    """Cuts, stake, rank, rewards, misses and fees of each round, as the contracts logged them."""
    async with reading(network) as (known, chain, livepeer):
        await a_round(network, 10**17)
        await network.next_round()
        await network.reward("other")  # the pool misses this one
        await a_round(network)
        await network.next_round()
        await known.refresh()
        assert known.problem == ""
        (profile,) = known.profiles()
        assert (profile.reward_cut_ppm, profile.fee_share_ppm) == (250_000, 300_000)
        assert (profile.standing.rank, profile.standing.size) == (2, 2)
        state = await livepeer.orchestrator(POOL)
        assert profile.outlook.pool_stake_lpt == state.total_stake_lpt
        assert profile.stake_lpt == (await livepeer.pool(POOL, profile.round)).total_stake_lpt
        head = (await chain.block()).number
        rewards = [log.amount_lpt for log in await livepeer.rewards(POOL, 0, head)]
        assert [each.rewarded for each in profile.past] == [False, True, False, True]
        assert [each.reward_lpt for each in profile.past if each.rewarded] == rewards
        assert [each.fees_wei for each in profile.past] == [0, 10**17, 0, 0]


async def test_stake_earns_what_was_projected(network: Livepeer) -> None:
    """Ann stakes by the plan, and after some rounds has to the last digits what was foretold."""
    async with reading(network) as (known, _, livepeer):
        for name in ("other", "pool"):
            await network.reward(name)
        await known.refresh()
        amount, fees, rounds = 1_234 * LPT + 5, 3 * 10**16 + 1, 4
        start = with_more_stake(known.profiles()[0].outlook, amount)
        told = project(amount, replace(start, fees_wei=fees, reward_calls_ppm=10**6), rounds)
        plan = await known.plan(Wish(deed="stake", address=ANN, amount=amount))
        assert [call.name for call in plan.calls] == ["approve", "bondWithHint"]
        await execute(network.evm, plan)
        staked = await known.account(ANN)
        assert (staked.status, staked.delegate, staked.stake_lpt) == ("pending", POOL, amount)
        for each in told:
            await a_round(network, fees)
            has = await livepeer.delegator(ANN)
            assert abs(has.pending_stake_lpt - each.stake_lpt) <= 2
            assert abs(has.pending_fees_wei - each.fees_wei) <= 2
        assert told[-1].stake_lpt > amount
        assert told[-1].fees_wei > 0


async def earnings(livepeer: Reading, who: DelegatorState, now: int) -> bonding.Earnings:
    """What the core makes of the four pools that it asks for."""
    delegator = delegator_of(who)
    state = await livepeer.orchestrator(who.delegate)
    needed = bonding.rounds_needed(delegator, orchestrator_of(state), now)
    pools = {number: pool_of(await livepeer.pool(who.delegate, number)) for number in needed}
    return bonding.earnings(
        delegator, orchestrator_of(state, pools), now, is_itself=who.address == who.delegate
    )


async def test_earnings_follow_from_four_pools(network: Livepeer) -> None:
    """The core's earnings equal the contract's own for all, whenever they last claimed."""
    async with reading(network) as (known, _, livepeer):
        await execute(network.evm, await known.plan(Wish(deed="stake", address=ANN)))
        for number in range(4):
            await a_round(network, 10**16 + number)
            if number == 1:
                await execute(network.evm, await known.plan(Wish(deed="claim", address=ANN)))
            now = (await livepeer.round()).number
            for who in (ANN, POOL):
                has = await livepeer.delegator(who)
                mine = await earnings(livepeer, has, now)
                assert mine.stake == has.pending_stake_lpt
                assert mine.fees_wei == has.pending_fees_wei


async def test_the_loss_of_a_hasty_claim_is_foretold(network: Livepeer) -> None:
    """Claiming before the reward costs exactly what the warning says, and waiting costs nothing."""
    async with reading(network) as (known, _, livepeer):
        ben = address("ben")
        await network.evm.actor("ben")
        await network.give_lpt(ben, 5_000 * LPT)
        for who in (ANN, ben):
            await execute(network.evm, await known.plan(Wish(deed="stake", address=who)))
        await a_round(network)
        await network.next_round()
        plan = await known.plan(Wish(deed="claim", address=ANN))
        assert plan.warnings[0].code == "claim-before-reward"
        await execute(network.evm, plan)
        await network.reward("pool")
        hasty, patient = [await livepeer.pending_stake(who) for who in (ANN, ben)]
        assert patient - hasty == plan.warnings[0].loses_lpt > 0


async def test_stake_goes_out_and_back_in(network: Livepeer) -> None:
    """Unbonded LPT waits its rounds, can be staked again, and at last is withdrawn whole."""
    async with reading(network) as (known, _, livepeer):
        await network.reward("pool")
        await execute(network.evm, await known.plan(Wish(deed="stake", address=ANN)))
        with pytest.raises(NotAllowed, match="is new"):
            await known.plan(Wish(deed="unstake", address=ANN))
        await a_round(network)
        for amount in (700 * LPT, 300 * LPT):
            wish = Wish(deed="unstake", address=ANN, amount=amount)
            await execute(network.evm, await known.plan(wish))
        first, second = (await known.account(ANN)).locks
        assert (first.amount_lpt, second.amount_lpt) == (700 * LPT, 300 * LPT)
        await execute(network.evm, await known.plan(Wish(deed="restake", address=ANN, lock=0)))
        with pytest.raises(NotAllowed, match=f"before round {second.withdraw_round}"):
            await known.plan(Wish(deed="withdraw-stake", address=ANN))
        await network.next_round(second.withdraw_round - await network.round())
        await execute(network.evm, await known.plan(Wish(deed="withdraw-stake", address=ANN)))
        assert await livepeer.lpt_balance(ANN) == 300 * LPT
        await network.reward("pool")
        wish = Wish(deed="unstake", address=ANN)
        await execute(network.evm, await known.plan(wish))
        account_ = await known.account(ANN)
        assert (account_.status, account_.stake_lpt) == ("unbonded", 0)
        wish = Wish(deed="restake", address=ANN, lock=account_.locks[0].lock, to=POOL)
        await execute(network.evm, await known.plan(wish))
        assert (await known.account(ANN)).stake_lpt == account_.locks[0].amount_lpt


async def test_stake_moves_whole(network: Livepeer) -> None:
    """Staking with another orchestrator takes along what was elsewhere, rewards and all."""
    async with reading(network) as (known, _, livepeer):
        wish = Wish(deed="stake", address=ANN, amount=2_000 * LPT, to=OTHER)
        await execute(network.evm, await known.plan(wish))
        await a_round(network)
        had = (await known.account(ANN)).stake_lpt
        move = Wish(deed="stake", address=ANN, amount=0, to=POOL)
        plan = await known.plan(move)
        assert [call.name for call in plan.calls] == ["bondWithHint"]
        assert "Moves your whole stake" in plan.calls[0].what
        before = (await livepeer.orchestrator(POOL)).total_stake_lpt
        await execute(network.evm, plan)
        assert (await known.account(ANN)).delegate == POOL
        assert (await livepeer.orchestrator(POOL)).total_stake_lpt == before + had


async def test_fees_can_be_withdrawn_once_claimed(network: Livepeer) -> None:
    """Fees that came after the round's claim are not offered until the next round."""
    async with reading(network) as (known, _, _):
        await execute(network.evm, await known.plan(Wish(deed="stake", address=ANN)))
        await a_round(network, 10**18)
        first = (await known.account(ANN)).withdrawable_wei
        assert first > 0
        await execute(network.evm, await known.plan(Wish(deed="claim", address=ANN)))
        await network.win("gateway", "pool", 10**18)
        now = await known.account(ANN)
        assert now.withdrawable_wei == first
        to = address("somebody new")
        await execute(network.evm, await known.plan(Wish(deed="withdraw-fees", address=ANN, to=to)))
        assert await network.evm.balance(to) == first
        with pytest.raises(NotAllowed, match="can be withdrawn now"):
            await known.plan(Wish(deed="withdraw-fees", address=ANN))


async def test_the_contracts_would_refuse_too(network: Livepeer) -> None:
    """What the plan refuses by name, the contracts refuse: an uninitialized round."""
    async with reading(network) as (known, _, _):
        plan = await known.plan(Wish(deed="stake", address=ANN))
        length = await network.read("RoundsManager", c.RoundsManager.round_length)
        await network.evm.mine(length)
        with pytest.raises(NotAllowed, match="has not been initialized"):
            await known.plan(Wish(deed="stake", address=ANN))
        with pytest.raises(Reverted):
            await execute(network.evm, plan)


# ---- the command line ----------------------------------------------------------------------------


def flags(protocol: Livepeer) -> list[str]:
    controller = protocol.addresses["Controller"]
    settings = [f"chain.id={CHAIN_ID}", f"chain.controller={controller}", "chain.agree=1"]
    return [
        "--rpc",
        protocol.evm.url,
        *(part for each in settings for part in ("--set", each)),
    ]


async def command(*arguments: str) -> int:
    return await asyncio.to_thread(run, ["delegator", *arguments])


async def test_unsigned_transactions_do_what_they_say(
    network: Livepeer, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `stake` prints is signed by a key elsewhere, sent as it is, and Ann is a delegator."""
    asked = ["stake", "250", "--to", POOL, "--from", ANN, *flags(network)]
    assert await command(*asked) == 0
    printed = json.loads(capsys.readouterr().out)
    key, evm = account("ann"), network.evm
    for nonce, each in enumerate(printed["transactions"]):
        assert each["what"]
        assert each["from"] == ANN
        signed = key.sign_transaction(
            {
                "chainId": each["chainId"],
                "nonce": nonce,
                "to": each["to"],
                "data": each["data"],
                "value": int(each["value"]),
                "gas": 2_000_000,
                "maxFeePerGas": 10**10,
                "maxPriorityFeePerGas": 0,
            }
        )
        await evm.rpc("eth_sendRawTransaction", f"0x{signed.raw_transaction.hex()}")
    await evm.settled()
    async with reading(network) as (known, _, _):
        assert (await known.account(ANN)).stake_lpt == 250 * LPT


async def test_a_keystore_signs_and_sends(
    network: Livepeer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a keystore both transactions are mined in their order, and receipts are told."""
    key = keystore_of("ann", tmp_path / "key.json", "secret words")
    secret = tmp_path / "pass.txt"
    write_private(secret, b"secret words\n")
    signing = ["--keystore", str(key), "--passphrase", str(secret), *flags(network)]
    asked = ["stake", "250", "--to", POOL, *signing]
    assert await command(*asked) == 2  # nobody is there to be asked
    assert "--yes" in capsys.readouterr().err
    assert await command(*asked, "--yes", "--json") == 0
    told = capsys.readouterr()
    assert [each["function"] for each in json.loads(told.out)] == ["approve", "bondWithHint"]
    assert "Delegates 250 LPT to" in told.err
    assert "secret words" not in told.out + told.err
    async with reading(network) as (known, _, _):
        assert (await known.account(ANN)).stake_lpt == 250 * LPT
    other = ["claim", "--from", POOL, "--yes", "--anyway", *signing]
    await network.next_round()
    assert await command(*other) == 1
    assert "The key is that of" in capsys.readouterr().err


async def test_dear_gas_is_not_paid(network: Livepeer) -> None:
    """Above the limits nothing is signed: the chain sees no transaction."""
    signer = WalletSigner(Wallet(account("ann")))
    async with reading(network) as (known, chain, _):
        plan = await known.plan(Wish(deed="stake", address=ANN))
        for limits in (Limits(gas_price_max_wei=1), Limits(gas_max=21_000)):
            with pytest.raises(NotAllowed, match=r"chain\.gas"):
                [each async for each in send_all(chain, signer, plan, limits)]
        assert await chain.nonce(ANN, at="pending") == 0


async def test_a_transaction_that_is_not_mined_is_told_by_its_hash(network: Livepeer) -> None:
    """Waiting ends, and says what to look for; the bytes were sent once."""
    signer = WalletSigner(Wallet(account("ann")))
    async with reading(network) as (known, chain, _):
        plan = await known.plan(Wish(deed="stake", address=ANN))
        await network.evm.automine(False)
        sent = []
        with pytest.raises(Timeout, match="not mined yet"):
            async for each in send_all(chain, signer, plan, Limits(wait_s=0.2, poll_s=0.05)):
                sent.append(each.tx)
        assert await chain.nonce(ANN, at="pending") == 1
        await anext(send_all(chain, signer, plan, Limits()))  # follows, and replaces nothing
        assert await chain.nonce(ANN, at="pending") == 2
        await network.evm.mine()
        receipt = await chain.receipt(sent[0])
        assert receipt is not None
        assert receipt.ok


async def test_a_call_that_fails_on_chain_is_told(network: Livepeer) -> None:
    """Governance got there first, in the same block: the failure of the call is said."""
    signer = WalletSigner(Wallet(account("ann")))
    async with reading(network) as (known, chain, _):
        await execute(network.evm, await known.plan(Wish(deed="stake", address=ANN)))
        await a_round(network, 10**18)
        plan = await known.plan(Wish(deed="withdraw-fees", address=ANN))
        await network.evm.automine(False)
        sending = send_all(chain, signer, plan, Limits(wait_s=5, poll_s=0.05))
        sent = await anext(sending)
        moved = SET_CONTRACT.encode(keccak(text="Minter"), OTHER, bytes(20))
        first = {"maxFeePerGas": hex(10**12), "maxPriorityFeePerGas": hex(10**11)}
        who = {"from": address(DEPLOYER), "to": network.addresses["Controller"]}
        await network.evm.rpc("eth_sendTransaction", who | first | {"data": f"0x{moved.hex()}"})
        await network.evm.mine()
        with pytest.raises(NotAllowed, match=f"refused withdrawFees; see transaction {sent.tx}"):
            await anext(sending)


async def test_the_trap_is_refused_by_its_name(
    network: Livepeer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A claim before the reward needs --anyway; standard output stays empty without it."""
    async with reading(network) as (known, _, _):
        await execute(network.evm, await known.plan(Wish(deed="stake", address=ANN)))
    await network.next_round()
    asked = ["claim", "--from", ANN, *flags(network)]
    assert await command(*asked) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "claim-before-reward" in told.err
    assert "--anyway" in told.err
    assert await command(*asked, "--anyway") == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["transactions"][0]["function"] == "claimEarnings"
    assert "claim-before-reward" in told.err


async def test_show_and_simulate(network: Livepeer, capsys: pytest.CaptureFixture[str]) -> None:
    """Both answer for people and as JSON, and what is given changes the estimate."""
    await a_round(network)
    assert await command("show", "--to", POOL, *flags(network)) == 0
    text = capsys.readouterr().out
    assert "25 % kept by the orchestrator" in text
    assert await command("show", ANN, "--json", *flags(network)) == 0
    assert json.loads(capsys.readouterr().out)["balance_lpt"] == str(5_000 * LPT)
    told = []
    for more in ([], ["--reward-cut", "100%"]):
        asked = ["simulate", "100", "--to", POOL, "--rounds", "5", "--json", *more]
        assert await command(*asked, *flags(network)) == 0
        told.append(json.loads(capsys.readouterr().out)["estimates"])
    plain, greedy = ([int(each["rewards_lpt"]) for each in table] for table in told)
    assert min(plain) > 0
    assert set(greedy) == {0}
