"""The way of a wei, all of it, on a real EVM: ticket, claim, withdrawal, payout; reward by order.

The follower and the payer are the real ones and know each other by the log only. At the end every
account in the books that stands for something on chain is what the chain holds.
"""

from pathlib import Path

import pytest
from payers import OPTIONS
from revenueworld import *  # noqa: F403 - the fixture `world`
from revenueworld import NAME, ORCHESTRATOR, WALLET, World, credit

from openpool.chain import contracts as c
from openpool.chain.signers import WalletSigner
from openpool.core.money import events as money
from openpool.core.units import ETHER
from openpool.demo.evm import account, address
from openpool.private_files import write_private
from openpool.treasury.payer import Payer
from openpool.treasury.reward import RewardWatch
from openpool.wallet import open_wallet

WORKER = address("worker's owner")


class Circle:
    """The payer and the watch over reward beside the follower."""

    def __init__(self, world: World, payer: Payer) -> None:
        self.world, self.payer = world, payer
        self.reward = RewardWatch(
            livepeer=world.livepeer,
            orchestrators={NAME: ORCHESTRATOR},
            late_ppm=250_000,
            orders=payer,
            wallet=WALLET,
        )

    async def pass_time(self) -> None:
        """Until nothing is on its way any more."""
        for _ in range(6):
            await self.reward.look()
            await self.payer.tick_safely()
            if not self.payer.journal.book.open:
                return await self.world.follow()
            await self.world.catch_up()
        raise AssertionError("there is still something on its way")


@pytest.fixture
async def circle(world: World, tmp_path: Path) -> Circle:
    key = tmp_path / "hot.key"
    write_private(key, bytes(account("hot wallet").key).hex().encode())
    signer = WalletSigner(open_wallet(key, lambda: ""))
    now_ms = iter(range(10_000_000, 10**12, 60_000))
    payer = Payer(
        chain=world.chain,
        signer=signer,
        store=world.store,
        clock_ms=lambda: next(now_ms),
        options=OPTIONS,
    )
    await payer.start()
    await world.evm.set_balance(WALLET, 0)
    return Circle(world, payer)


async def test_the_way_of_a_wei(circle: Circle) -> None:
    """Revenue pays a worker, the pool calls reward, and no wallet ever looks as if somebody had
    reached into it but for what the operator put in."""
    world = circle.world
    await world.catch_up()
    await world.evm.set_balance(WALLET, ETHER // 100)
    await world.bonding(c.BondingManager.set_reward_caller, WALLET)
    await circle.pass_time()
    (reward,) = world.told(money.RewardCalled)
    assert circle.reward.views[NAME].called

    await world.store.append([credit("a", ETHER, WORKER)]).durable()
    await world.protocol.win("gateway", "orchestrator", 2 * ETHER)
    await circle.pass_time()
    assert await world.evm.balance(WORKER) == 0, "the wallet cannot pay before it is filled"
    await world.withdraw(WALLET, ETHER + 17)
    await circle.pass_time()
    assert await world.evm.balance(WORKER) == ETHER
    await world.agrees()
    assert [each.tx for each in world.told(money.RewardCalled)] == [reward.tx]
    (put_in,) = world.told(money.WalletReconciled)
    assert (put_in.direction, put_in.amount_wei) == ("in", str(ETHER // 100))
    gas = sum(int(each.fee_wei) for each in world.told(money.OrderConfirmed))
    assert world.balance("gas") == -gas < 0
    assert world.balance(f"worker:{WORKER}") == world.balance("in-flight") == 0

    await world.protocol.next_round()
    await circle.pass_time()
    assert len(world.told(money.RewardCalled)) == 2
    await world.agrees()
    assert [each.difference_wei for each in world.told(money.RevenueReconciled)] == ["0"]
    assert world.told(money.WalletReconciled) == [put_in]
