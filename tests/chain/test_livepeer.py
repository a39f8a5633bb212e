"""Our contracts behave as Livepeer's, and what they say is read to the last digit."""

import random
import subprocess
from pathlib import Path
from shutil import which

import pytest
import structlog.testing
from conftest import Open
from evm import Faulty, lie
from livepeer_model import Protocol

from openpool.chain import contracts as c
from openpool.chain.interface import Disagreement, Reverted
from openpool.chain.livepeer import ContractChange, LivepeerContracts, open_livepeer
from openpool.core.errors import SetupError
from openpool.core.livepeer.bonding import NOBODY
from openpool.core.units import ETHER
from openpool.demo.evm import (
    DEPLOYER,
    FIRST_ROUND,
    SUPPLY_LPT,
    UNBONDING_ROUNDS,
    Livepeer,
    address,
)

ROOT = Path(__file__).parents[2]
B = c.BondingManager
BONDING = "BondingManager"


@pytest.fixture
async def livepeer(protocol: Livepeer, chain_of: Open) -> LivepeerContracts:
    chain = await chain_of(protocol.evm.url)
    return await open_livepeer(chain, protocol.addresses["Controller"])


# --- the contracts --------------------------------------------------------------------------------


@pytest.mark.skipif(
    which("node") is None or not (ROOT / "node_modules/solc").is_dir(),
    reason="needs node and solc: npm ci",
)
def test_the_compiled_contracts_are_those_of_the_sources() -> None:
    """Compiling again gives the committed file, byte for byte."""
    command = ["node", "scripts/contracts.js", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def model() -> Protocol:
    """The pure maths, in the state that a fresh deployment is in."""
    made = Protocol(
        inflation=250_000,
        inflation_change=500,
        target_bonding_rate=500_000_000,
        unbonding_period=UNBONDING_ROUNDS,
        pool_max=100,
        treasury_cut=0,
        supply=SUPPLY_LPT + SUPPLY_LPT // 100 * 2,
    )
    made.initialize_round(FIRST_ROUND + 1)
    return made


@pytest.mark.parametrize("seed", range(3))
async def test_contracts_and_pure_maths_agree(
    protocol: Livepeer, livepeer: LivepeerContracts, seed: int
) -> None:
    """Bonds, unbonds, rewards, tickets and claims in any order leave the same numbers in both."""
    pure = model()
    dice = random.Random(seed)
    people = ["ann", "bob", "cora", "dan"]
    for name in people:
        await protocol.evm.actor(name)
    for name, stake in (("ann", 5_000), ("bob", 7_000)):
        amount = stake * ETHER + dice.randrange(10**18)
        await protocol.bond(name, amount, address(name))
        cuts = (dice.randrange(10**6), dice.randrange(10**6))
        await protocol.call(name, BONDING, B.transcoder, *cuts)
        pure.supply += amount
        pure.bond(address(name), amount, address(name))
        pure.transcoder(address(name), *cuts)
    await protocol.fund_gateway("gateway")
    pure.fund(address("gateway"), 10 * ETHER, ETHER)
    done = [await step(protocol, pure, dice, people) for _ in range(30)]
    assert len(set(done)) > 5
    await compare(protocol, livepeer, pure, people)


async def step(protocol: Livepeer, pure: Protocol, dice: random.Random, people: list[str]) -> None:
    """The same deed in both worlds, unless the contract refuses it."""
    who, to = dice.choice(people), dice.choice(people[:2])
    deed = dice.choice(["round", "round", "bond", "unbond", "reward", "reward", "win", "claim"])
    amount = dice.randrange(1, 100 * ETHER)
    before = pure.copy()
    try:
        match deed:
            case "round":
                pure.initialize_round(await protocol.next_round())
            case "bond":
                pure.supply += amount  # the actor gets new LPT to bond, whatever comes of it
                before.supply += amount
                pure.bond(address(who), amount, address(to))
                await protocol.bond(who, amount, address(to))
            case "unbond":
                pure.unbond(address(who), amount)
                await protocol.call(who, BONDING, B.unbond, amount)
            case "reward":
                pure.reward(address(to))
                await protocol.reward(to)
            case "win":
                pure.redeem(address("gateway"), address(to), amount // 1000)
                await protocol.win("gateway", to, amount // 1000)
            case "claim":
                pure.claim_earnings(address(who))
                await protocol.call(who, BONDING, B.claim_earnings, 0)
    except (Reverted, ZeroDivisionError, KeyError):
        vars(pure).update(vars(before))
        return ""
    return deed


async def compare(
    protocol: Livepeer, livepeer: LivepeerContracts, pure: Protocol, people: list[str]
) -> None:
    for who in map(address, people):
        has = pure.earnings(who)
        assert await protocol.read(BONDING, B.pending_stake, who, 0) == has.stake
        assert await protocol.read(BONDING, B.pending_fees, who, 0) == has.fees_wei
        assert await protocol.read(BONDING, B.total_stake, who) == pure.d(who).delegated
        for number in range(FIRST_ROUND, pure.round.number + 2):
            ours = pure.o(who).pool(number)
            call = {
                "to": protocol.addresses[BONDING],
                "data": "0x" + B.get_pool.encode(who, number).hex(),
            }
            told = bytes.fromhex((await protocol.evm.rpc("eth_call", call, "latest"))[2:])
            assert B.get_pool.decode(told) == (
                ours.stake,
                ours.reward_cut_ppm,
                ours.fee_share_ppm,
                ours.reward_factor,
                ours.fee_factor,
            )


async def test_tickets_are_refused_as_on_chain(protocol: Livepeer) -> None:
    """Used, forged, lost, uncovered and expired tickets do not pay."""
    await protocol.add_orchestrator("orch")
    await protocol.fund_gateway("gateway", deposit_wei=ETHER, reserve_wei=0)
    await protocol.next_round()
    orch = address("orch")
    good, signature = await protocol.ticket("gateway", orch, 1_000)
    await protocol.redeem("orch", good, signature)
    forged = signature[:-2] + bytes([signature[-2] ^ 1]) + signature[-1:]
    late, late_signature = await protocol.ticket("gateway", orch, 1_000)
    for ticket, sig, rand, why in (
        (good, signature, 7, "ticket is used"),
        (*await protocol.ticket("gateway", orch, 1_000, win_prob=0), 7, "did not win"),
        (*await protocol.ticket("gateway", orch, 2 * ETHER), 7, "do not cover"),
        (late, forged, 7, "invalid signature"),
        (late, late_signature, 8, "does not match recipientRandHash"),
    ):
        with pytest.raises(Reverted, match=why):
            await protocol.redeem("orch", ticket, sig, rand)
    await protocol.next_round(2)
    with pytest.raises(Reverted, match="ticket is expired"):
        await protocol.redeem("orch", late, late_signature)


async def test_stake_changes_hands(protocol: Livepeer, livepeer: LivepeerContracts) -> None:
    """`transferBond` hands stake over at once; unbonded stake comes after seven rounds."""
    orch = await protocol.add_orchestrator("orch", stake_lpt=100 * ETHER)
    await protocol.next_round()
    worker = address("worker")
    await protocol.call("orch", BONDING, B.transfer_bond, worker, 30 * ETHER, *[NOBODY] * 4)
    heir = await livepeer.delegator(worker)
    assert (heir.status, heir.bonded_lpt, heir.delegate) == ("pending", 30 * ETHER, orch)
    await protocol.evm.actor("worker")
    await protocol.next_round()
    await protocol.call("worker", BONDING, B.unbond, 10 * ETHER)
    (lock,) = await livepeer.locks(worker)
    assert (lock.amount_lpt, lock.withdraw_round) == (10 * ETHER, await protocol.round() + 7)
    with pytest.raises(Reverted, match="withdraw round"):
        await protocol.call("worker", BONDING, B.withdraw_stake, lock.lock)
    await protocol.next_round(7)
    await protocol.call("worker", BONDING, B.withdraw_stake, lock.lock)
    assert await livepeer.lpt_balance(worker) == 10 * ETHER
    assert await livepeer.locks(worker) == []


# --- what is read from them -----------------------------------------------------------------------


async def test_rounds_and_parameters(protocol: Livepeer, livepeer: LivepeerContracts) -> None:
    """The round with its lock at the end, and what governance set."""
    now = await livepeer.round()
    assert (now.number, now.initialized, now.locked) == (FIRST_ROUND + 1, True, False)
    await protocol.evm.mine(now.start_block + now.length - 1 - await protocol.evm.block_number())
    assert (await livepeer.round()).locked
    await protocol.evm.mine()
    later = await livepeer.round()
    assert (later.number, later.initialized) == (now.number + 1, False)
    parameters = await livepeer.parameters()
    assert parameters.unbonding_rounds == UNBONDING_ROUNDS
    assert parameters.mintable_lpt == parameters.total_supply_lpt * parameters.inflation // 10**9


async def test_an_orchestrator_and_its_income(
    protocol: Livepeer, livepeer: LivepeerContracts
) -> None:
    """State, pool, set, tickets and what they paid, rewards less the treasury's, withdrawals."""
    orch = await protocol.add_orchestrator("orch", reward_cut_ppm=250_000, fee_share_ppm=100_000)
    await protocol.add_orchestrator("rival", stake_lpt=20_000 * ETHER)
    await protocol.fund_gateway("gateway", deposit_wei=ETHER, reserve_wei=ETHER)
    await protocol.call(DEPLOYER, BONDING, c.Method("setTreasuryRewardCutRate", "uint256"), 10**26)
    await protocol.call("orch", BONDING, B.set_reward_caller, address("helper"))
    await protocol.evm.actor("helper")
    number = await protocol.next_round()
    start = await protocol.evm.block_number()
    await protocol.call("helper", BONDING, B.reward_for, orch)
    await protocol.win("gateway", "orch", ETHER // 2)
    await protocol.win("gateway", "orch", ETHER)
    await protocol.call("orch", BONDING, B.withdraw_fees, address("hot"), ETHER // 4)
    end = await protocol.evm.block_number()

    state = await livepeer.orchestrator(orch)
    assert (state.active, state.registered, state.last_reward_round) == (True, True, number)
    assert (state.reward_cut_ppm, state.fee_share_ppm) == (250_000, 100_000)
    assert state.reward_caller == address("helper")
    (reward,) = await livepeer.rewards(orch, start, end)
    assert reward.amount_lpt == reward.treasury_lpt * 9
    assert state.total_stake_lpt == 10_000 * ETHER + reward.amount_lpt
    pool = await livepeer.pool(orch, number)
    assert (pool.total_stake_lpt, pool.reward_cut_ppm) == (10_000 * ETHER, 250_000)
    assert await livepeer.active_set() == [
        (address("rival"), 20_000 * ETHER),
        (orch, state.total_stake_lpt),
    ]
    tickets = await livepeer.tickets(orch, start, end)
    assert [(t.gateway, t.face_value_wei) for t in tickets] == [
        (address("gateway"), ETHER // 2),
        (address("gateway"), ETHER),
    ]
    assert [t.paid_wei for t in tickets] == [ETHER // 2, ETHER]
    assert await livepeer.tickets(address("rival"), start, end) == []
    (withdrawal,) = await livepeer.withdrawals(orch, start, end)
    assert (withdrawal.recipient, withdrawal.amount_wei) == (address("hot"), ETHER // 4)
    assert await protocol.evm.balance(address("hot")) == ETHER // 4
    delegator = await livepeer.delegator(orch)
    assert delegator.pending_fees_wei == await livepeer.pending_fees(orch)
    assert delegator.pending_stake_lpt == await livepeer.pending_stake(orch) > 10_000 * ETHER


async def test_an_underfunded_ticket_pays_less_than_it_says(
    protocol: Livepeer, livepeer: LivepeerContracts
) -> None:
    """Income is what moved: the deposit and this orchestrator's share of the reserve."""
    orch = await protocol.add_orchestrator("orch")
    await protocol.add_orchestrator("rival")
    await protocol.fund_gateway("gateway", deposit_wei=100, reserve_wei=1_000)
    await protocol.next_round()
    await protocol.win("gateway", "orch", 1_000)
    (ticket,) = await livepeer.tickets(orch, 0, await protocol.evm.block_number())
    assert (ticket.face_value_wei, ticket.paid_wei) == (1_000, 100 + 500)


async def test_new_code_behind_a_contract_is_noticed(
    protocol: Livepeer, livepeer: LivepeerContracts
) -> None:
    """A change at the Controller is followed, and said once."""
    assert await livepeer.refresh() == []
    before = livepeer.addresses["BondingManagerTarget"]
    after = await protocol.evm.deploy("AcceptsEther")
    await protocol.set_contract("BondingManagerTarget", after)
    assert await livepeer.refresh() == []  # it may still be undone
    await protocol.evm.finalize()
    with structlog.testing.capture_logs() as logged:
        changes = await livepeer.refresh()
    assert changes == [ContractChange(name="BondingManagerTarget", before=before, after=after)]
    assert logged[0]["event"] == "contract-changed"
    assert await livepeer.refresh() == []


async def test_endpoints_must_agree_on_the_contracts(
    protocol: Livepeer, faulty: Faulty, chain_of: Open
) -> None:
    """One that names other contracts than the rest is found out before any is used."""
    chain = await chain_of(protocol.evm.url, faulty.url)
    thief = bytes.fromhex(address("thief")[2:]).rjust(32, b"\0").hex()
    faulty.on("eth_call", lie(lambda _: f"0x{thief}"))
    with pytest.raises(Disagreement):
        await open_livepeer(chain, protocol.addresses["Controller"])


async def test_a_controller_that_is_none_is_a_sentence(protocol: Livepeer, chain_of: Open) -> None:
    """No contract there, or another one: what to correct is said."""
    chain = await chain_of(protocol.evm.url)
    with pytest.raises(SetupError, match=r"There is no contract at 0x.* correct chain\.controller"):
        await open_livepeer(chain, address("nobody"))
    with pytest.raises(SetupError, match="does not know BondingManager, TicketBroker"):
        await open_livepeer(chain, protocol.addresses["LivepeerToken"])
