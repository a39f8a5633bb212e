"""Revenue on a real EVM with our contracts: the books equal the chain to the wei.

Tickets paid whole, in part from the reserve and not at all; claims in between, which move fees
about; withdrawals to the hot wallet and elsewhere; delegators; rewards called and missed; restarts
after every step, and a reorganisation of the newest blocks.
"""

from itertools import pairwise

import pytest
from evm import Faulty, lie
from revenueworld import *  # noqa: F403 - the fixture `world`
from revenueworld import ELSEWHERE, ORCHESTRATOR, WALLET, World, credit

from openpool.chain.client import open_chain
from openpool.chain.livepeer import open_livepeer
from openpool.core.livepeer import bonding
from openpool.core.money import events as money
from openpool.core.units import ETHER
from openpool.demo.evm import address


async def a_life(world: World) -> int:
    """Two rounds of everything; the number of the first. Books and chain agree all the way."""
    protocol, win = world.protocol, world.protocol.win
    await win("gateway", "orchestrator", 777)
    await world.catch_up()
    first = await protocol.round()
    await world.store.append([credit("a1", 3 * ETHER), credit("a2", ETHER)]).durable()
    await protocol.reward("orchestrator")
    await win("gateway", "orchestrator", 123_456_789_012_345_679)
    await world.catch_up()
    await world.agrees()
    await world.claim()
    await world.withdraw(WALLET, 50_000_000_000_000_003)
    await win("gateway", "orchestrator", 2 * ETHER)  # the delegators' part of it is forfeited
    await world.catch_up()
    await world.agrees()
    await win("gateway", "orchestrator", ETHER + 7)  # 0.12 of it from the reserve
    await win("gateway", "orchestrator", ETHER // 2)  # more than its share of the reserve
    await win("gateway", "orchestrator", ETHER // 4)  # nothing is left of that
    await protocol.next_round()
    await world.catch_up()
    await world.agrees()
    await win("gateway", "orchestrator", ETHER // 10 + 1)
    await world.withdraw(ELSEWHERE, ETHER // 10 + 1)
    await world.evm.set_balance(WALLET, await world.evm.balance(WALLET) + 11)
    await protocol.next_round()
    await protocol.reward("orchestrator")
    await world.claim()
    await world.withdraw(WALLET, ETHER // 5)
    await world.catch_up()
    await world.agrees()
    return first


@pytest.mark.parametrize("restarts", [False, True])
async def test_the_books_equal_the_chain_to_the_wei(
    world: World,
    restarts: bool,
) -> None:
    """Through two rounds of everything, at every step that is followed."""
    world.restarts = restarts
    await world.catch_up()
    first = await a_life(world)
    check_tickets(world, first)
    check_ranges(world)
    check_rewards(world, first)
    withdrawn = [(each.wallet, int(each.amount_wei)) for each in world.told(money.FeesWithdrawn)]
    assert withdrawn == [(WALLET, 5 * 10**16 + 3), ("", 10**17 + 1), (WALLET, 2 * 10**17)]
    (put_in,) = world.told(money.WalletReconciled)
    assert (put_in.direction, put_in.amount_wei) == ("in", "11")
    assert world.balance("operator") == 11 - 10**17 - 1
    closed = world.told(money.RevenueReconciled)
    assert [(each.round, each.difference_wei) for each in closed] == [
        (first, "0"),
        (first + 1, "0"),
    ]
    assert "of the tickets' face value was not paid" in closed[0].explanation


def check_tickets(world: World, first: int) -> None:
    """The chain moved the face value, a part of it, or nothing."""
    tickets = world.told(money.TicketRedeemed)
    assert {each.round for each in tickets} == {first, first + 1}
    paid = [int(each.paid_wei) for each in tickets]
    face = [int(each.face_value_wei) for each in tickets]
    assert [f - p for f, p in zip(face, paid, strict=True)][:4] == [0, 0, 0, 0]
    assert 0 < paid[4] < face[4]
    assert paid[5] == 0 < face[5]
    # half of the reserve, since two orchestrators share it
    assert sum(paid[:6]) == 3 * ETHER + ETHER // 2
    assert {each.gateway for each in tickets} == {address("gateway")}


def check_ranges(world: World) -> None:
    """Each range begins where the one before ended, and brings no more than its tickets."""
    ranges = world.told(money.RevenueRealised)
    (opened,) = world.told(money.ClaimOpened)
    assert ranges[0].from_block == opened.block
    assert all(a.to_block == b.from_block for a, b in pairwise(ranges))
    assert all(int(each.amount_wei) <= int(each.paid_wei) for each in ranges)
    grown = sum(int(each.amount_wei) for each in ranges)
    out = sum(int(each.amount_wei) for each in world.told(money.FeesWithdrawn))
    assert int(opened.pending_wei) + grown - out == int(ranges[-1].pending_wei)
    assert sum(each.tickets for each in ranges) == len(world.told(money.TicketRedeemed))


def check_rewards(world: World, first: int) -> None:
    """One called, one missed, one called early; the workers' part is shared by work, exactly."""
    called = world.told(money.RewardCalled)
    assert [each.round for each in called] == [first, first + 2]
    assert [each.round for each in world.told(money.RewardMissed)] == [first + 1]
    shared = {each.address: int(each.amount_lpt) for each in world.told(money.RewardShared)}
    workers_part = int(called[0].own_lpt) * 400_000 // 1_000_000
    assert sum(shared.values()) == workers_part == -world.balance("lpt/operator")
    assert abs(shared["0xa1"] - 3 * shared["0xa2"]) <= 3
    rounds = [each.round for each in world.told(money.RoundStarted)]
    assert rounds == [first, first + 1, first + 2]


async def test_fees_by_the_contracts_are_fees_by_the_maths(
    world: World,
) -> None:
    """What a ticket brings the orchestrator is what `core.livepeer` computes from the state before
    it, with and without a claim in the same round."""
    await world.catch_up()
    await world.protocol.reward("orchestrator")
    for claims in (False, True):
        if claims:
            await world.claim()
        expected = await by_the_maths(world, 123_456_789_012_345_679)
        await world.protocol.win("gateway", "orchestrator", 123_456_789_012_345_679)
        await world.catch_up()
        assert int(world.told(money.RevenueRealised)[-1].amount_wei) == expected


async def by_the_maths(world: World, fees_wei: int) -> int:
    """What the orchestrator's claim will grow by."""
    now = await world.livepeer.round()
    state = await world.livepeer.orchestrator(ORCHESTRATOR)
    held = await world.livepeer.delegator(ORCHESTRATOR)
    params = await world.livepeer.parameters()
    before = bonding.Orchestrator(
        last_reward_round=state.last_reward_round,
        reward_cut_ppm=state.reward_cut_ppm,
        fee_share_ppm=state.fee_share_ppm,
        last_stake_round=state.last_active_stake_update_round,
        activation_round=state.activation_round,
        deactivation_round=state.deactivation_round,
        active_rewards=state.active_cumulative_rewards,
        unclaimed_rewards=state.cumulative_rewards,
        unclaimed_fees_wei=state.cumulative_fees,
        last_fee_round=state.last_fee_round,
        pools={
            number: bonding.Pool(
                stake=pool.total_stake_lpt,
                reward_cut_ppm=pool.reward_cut_ppm,
                fee_share_ppm=pool.fee_share_ppm,
                reward_factor=pool.cumulative_reward_factor,
                fee_factor=pool.cumulative_fee_factor,
            )
            for number in {
                now.number - 1,
                now.number,
                state.last_reward_round,
                state.last_fee_round,
                held.last_claim_round,
                state.last_active_stake_update_round,
            }
            for pool in [await world.livepeer.pool(ORCHESTRATOR, number)]
        },
    )
    round_ = bonding.Round(
        number=now.number,
        active_stake=params.total_active_stake_lpt,
        mintable=params.mintable_lpt,
        minted=params.minted_lpt,
        treasury_cut=params.treasury_cut,
    )
    itself = bonding.Delegator(
        bonded=held.bonded_lpt,
        fees_wei=held.fees_wei,
        delegate=ORCHESTRATOR,
        last_claim_round=held.last_claim_round,
    )
    after = bonding.receive_fees(before, fees_wei, round_)
    has = [bonding.earnings(itself, o, now.number, is_itself=True) for o in (before, after)]
    assert has[0].fees_wei == held.pending_fees_wei
    return has[1].fees_wei - has[0].fees_wei


async def test_a_reorganised_ticket_is_not_revenue(
    world: World,
) -> None:
    """A ticket whose block is replaced before it is final never reaches the books."""
    await world.catch_up()
    await world.protocol.win("gateway", "orchestrator", ETHER)
    await world.follow()
    assert world.told(money.TicketRedeemed) == []
    await world.evm.reorg(1)
    await world.protocol.win("gateway", "orchestrator", ETHER // 2)
    await world.catch_up()
    await world.agrees()
    assert [each.paid_wei for each in world.told(money.TicketRedeemed)] == [str(ETHER // 2)]


async def test_endpoints_that_disagree_move_nothing(world: World, faulty: Faulty) -> None:
    """While one of two endpoints lies about what is pending nothing is booked, and it is told."""
    urls = [world.evm.url, faulty.url]
    await world.catch_up()
    async with open_chain(urls, chain_id=world.evm.chain_id, agree=2) as both:
        world.chain = both
        world.livepeer = await open_livepeer(both, world.protocol.addresses["Controller"])
        await world.protocol.win("gateway", "orchestrator", ETHER)
        await world.evm.finalize()
        before = world.store.head()
        faulty.on("eth_call", lie(lambda answer: answer[:-2] + "77"))
        following = world.follower()
        await following.look()
        assert following.problem
        assert world.store.head() == before
        faulty.heal()
        await following.look()
        assert following.problem == ""
        await world.agrees()
        assert len(world.told(money.TicketRedeemed)) == 1
