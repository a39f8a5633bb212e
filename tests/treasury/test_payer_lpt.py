"""Payouts of LPT on a real chain with our contracts: liquid, as stake, converted, exchanged; and
within their limits."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evm import Faulty
from modelchain import ModelSigner
from payers import MILLI, MINUTE_MS, Pool

from openpool.chain.client import open_chain
from openpool.chain.contracts import Token
from openpool.chain.livepeer import LivepeerContracts
from openpool.core.money.orders import DAY_MS
from openpool.core.money.payout_plan import NO_PRICE
from openpool.core.money.swap import SwapRules
from openpool.core.units import ETHER, GWEI
from openpool.demo.evm import CHAIN_ID, LPT_PER_ETH, Evm, Livepeer, account, address
from openpool.treasury.lpt import LptOptions, LptPayouts
from openpool.treasury.market import Market
from openpool.treasury.payer import Payer
from openpool.treasury.payer_view import PayerView
from openpool.treasury.swap import Swaps

ANN, BEN = address("ann"), address("ben")
WALLET = address("hot wallet")
RULES = SwapRules(
    most_wei=200 * MILLI, slippage_ppm=10_000, deviation_ppm=20_000, deadline_ms=120_000
)
MakePool = Callable[..., Awaitable[Pool]]


@pytest.fixture
async def make_pool(
    evm: Evm, protocol: Livepeer, faulty: Faulty, tmp_path: Path
) -> AsyncIterator[MakePool]:
    """A pool whose wallet has ETH, and the parts for LPT."""
    made: list[Pool] = []
    asked = {"chain_id": CHAIN_ID, "agree": 1, "priority_fee_max_wei": 0}  # as on Arbitrum
    async with open_chain([faulty.url], **asked) as chain:
        livepeer = LivepeerContracts(chain, protocol.addresses["Controller"])
        at = protocol.addresses
        market = Market(
            weth=at["WrappedEther"],
            pool=at["SwapPool"],
            quoter=at["SwapQuoter"],
            router=at["SwapRouter"],
        )

        def equip(payer: Payer) -> None:
            shared: dict[str, Any] = {
                "sender": payer.sender,
                "planner": payer.planner,
                "journal": payer.journal,
                "livepeer": livepeer,
            }
            payer.parts.append(Swaps(**shared, market=market, rules=RULES))
            payer.parts.append(LptPayouts(**shared, **settings))

        settings: dict[str, Any] = {}

        async def make(lpt_pool: str | None = at["SwapPool"], **options: int) -> Pool:
            """`lpt_pool`: the market that is asked what gas is in LPT; None: none is."""
            settings["market"] = None if lpt_pool is None else replace(market, pool=lpt_pool)
            settings["options"] = LptOptions(**{"threshold_lpt": ETHER, **options})
            await evm.set_balance(WALLET, 10 * ETHER)
            signer = ModelSigner(account("hot wallet"))
            pool = Pool(tmp_path, evm, chain, signer, equip=equip, livepeer=livepeer)
            made.append(await pool.open())
            return pool

        yield make
    for pool in made:
        pool.close()


async def lpt_of(protocol: Livepeer, who: str) -> int:
    return int(await protocol.read("LivepeerToken", Token.balance_of, who))


async def test_liquid(protocol: Livepeer, make_pool: MakePool) -> None:
    """LPT that is owed is sent as tokens; the pool pays the gas; below the threshold it waits."""
    pool = await make_pool()
    await protocol.give_lpt(WALLET, 10 * ETHER)
    await pool.owe(ANN, 3 * ETHER + 1, f"lpt/worker:{ANN}")
    await pool.owe(BEN, ETHER // 2, f"lpt/worker:{BEN}")
    await pool.settle()
    assert await lpt_of(protocol, ANN) == 3 * ETHER + 1
    assert await lpt_of(protocol, BEN) == 0
    assert pool.balance(f"lpt/worker:{ANN}") == 0
    assert pool.balance(f"lpt/wallet:{WALLET}") == 3 * ETHER + 1
    spent = 10 * ETHER - await pool.evm.balance(WALLET)
    assert pool.balance(f"wallet:{WALLET}") == spent == -pool.balance("gas")


async def said(pool: Pool) -> dict[str, str]:
    """Who waits for LPT, and the sentence for each, as people are shown it."""
    view = await PayerView(pool.payer).view()
    return {each.address: each.why for each in view.next if each.asset == "LPT" and each.why}


async def test_limits_of_lpt(protocol: Livepeer, make_pool: MakePool) -> None:
    """Below the limits all is paid at once; above, a part, and the rest the day after: who has
    waited longest comes first, and who waits is told why."""
    pool = await make_pool(per_payout_max_lpt=5 * ETHER, per_day_max_lpt=8 * ETHER)
    await protocol.give_lpt(WALLET, 20 * ETHER)
    await pool.owe(ANN, 3 * ETHER, f"lpt/worker:{ANN}")
    await pool.settle()
    assert await lpt_of(protocol, ANN) == 3 * ETHER
    await pool.owe(BEN, 7 * ETHER, f"lpt/worker:{BEN}")
    await pool.owe(ANN, 2 * ETHER, f"lpt/worker:{ANN}")
    await pool.settle()
    assert [await lpt_of(protocol, who) for who in (ANN, BEN)] == [3 * ETHER, 5 * ETHER]
    limit = "The limit of 8 LPT within 24 hours is reached; it is paid when that allows."
    assert await said(pool) == {ANN: limit, BEN: limit}
    view = await PayerView(pool.payer, per_day_max_lpt=8 * ETHER).view()
    assert (view.spent_today_lpt, view.per_day_max_lpt) == (str(8 * ETHER), str(8 * ETHER))
    assert view.spent_today_wei == "0"
    await pool.crash()
    pool.now_ms += DAY_MS
    await pool.settle()
    assert [await lpt_of(protocol, who) for who in (ANN, BEN)] == [5 * ETHER, 7 * ETHER]


async def test_gas_of_lpt(evm: Evm, protocol: Livepeer, make_pool: MakePool) -> None:
    """A payout the gas of which is too large a part of it, at the market's price, waits until gas
    is cheaper. It is the gas of the transfer itself that counts; what the one who waits leaves of
    the day's limit is the next one's."""
    pool = await make_pool(per_day_max_lpt=90 * ETHER)
    await protocol.give_lpt(WALLET, 100 * ETHER)
    small, large = sorted((ANN, BEN))  # both have waited equally long
    await pool.owe(small, 3 * ETHER, f"lpt/worker:{small}")
    await pool.owe(large, 90 * ETHER, f"lpt/worker:{large}")
    await evm.base_fee(GWEI)
    await evm.mine()
    await pool.tick()
    assert "LPT now, more than 0.5 % of the payout; it waits until" in (await said(pool))[small]
    (order,) = pool.payer.journal.book.open.values()
    assert [line.address for line in order.lines] == [large]
    await evm.base_fee(GWEI // 100)
    await pool.settle()
    assert await lpt_of(protocol, large) == 90 * ETHER
    assert (await said(pool))[small].startswith("The limit of 90 LPT within 24 hours")
    pool.now_ms += DAY_MS
    await pool.settle()
    assert await lpt_of(protocol, small) == 3 * ETHER


@pytest.mark.parametrize("lpt_pool", [address("nobody"), "LivepeerToken", "SwapFactory"])
async def test_no_price_of_lpt(protocol: Livepeer, make_pool: MakePool, lpt_pool: str) -> None:
    """Where lpt.pool is no market LPT waits, in a sentence that names the setting; ETH does not."""
    pool = await make_pool(lpt_pool=protocol.addresses.get(lpt_pool, lpt_pool))
    await protocol.give_lpt(WALLET, 10 * ETHER)
    await pool.owe(ANN, 3 * ETHER, f"lpt/worker:{ANN}")
    await pool.owe(BEN, 3 * MILLI)
    await pool.settle()
    assert await said(pool) == {ANN: NO_PRICE}
    assert "lpt.pool" in NO_PRICE
    assert await pool.got(BEN) == 3 * MILLI


async def test_no_market_at_all(evm: Evm, protocol: Livepeer, make_pool: MakePool) -> None:
    """With lpt.pool set to none LPT is paid whatever gas costs."""
    pool = await make_pool(lpt_pool=None)
    await protocol.give_lpt(WALLET, 10 * ETHER)
    await pool.owe(ANN, 3 * ETHER, f"lpt/worker:{ANN}")
    await evm.base_fee(20 * GWEI)
    await evm.mine()
    await pool.settle()
    assert await lpt_of(protocol, ANN) == 3 * ETHER


async def test_the_brake_holds_lpt(protocol: Livepeer, make_pool: MakePool) -> None:
    """Paused payouts are paused in LPT as well; a rehearsal says so, and signs nothing."""
    pool = await make_pool()
    await protocol.give_lpt(WALLET, 10 * ETHER)
    await pool.owe(ANN, 3 * ETHER, f"lpt/worker:{ANN}")
    await pool.payer.rehearse()
    assert await said(pool) == {}
    assert not pool.payer.journal.book.known
    await pool.payer.pause("Moving house.")
    await pool.settle()
    assert await said(pool) == {ANN: "Payouts are paused: Moving house."}
    assert await lpt_of(protocol, ANN) == 0


async def test_as_stake(protocol: Livepeer, make_pool: MakePool) -> None:
    """Stake is handed over out of the wallet's own bond, once the reward of the round is called."""
    pool = await make_pool()
    orchestrator = await protocol.add_orchestrator("orchestrator")
    await protocol.bond("hot wallet", 100 * ETHER, orchestrator)
    await protocol.next_round()
    await pool.tick()
    await pool.payer.resume()  # the operator knows that the wallet was used before
    await pool.owe(ANN, 5 * ETHER, f"lpt/worker:{ANN}")
    await pool.payer.choose(ANN, "LPT", 0, staked=True)
    for _ in range(3):
        await pool.tick(MINUTE_MS)
    assert not pool.payer.journal.book.known
    await protocol.reward("orchestrator")
    await pool.settle()
    assert pool.livepeer is not None
    state = await pool.livepeer.delegator(ANN)
    assert (state.bonded_lpt, state.delegate) == (5 * ETHER, orchestrator)
    assert pool.payer.journal.book.ended[-1].kind == "stake-payout"
    assert pool.balance(f"lpt/worker:{ANN}") == 0


async def test_stake_that_is_refused(protocol: Livepeer, make_pool: MakePool) -> None:
    """An owner whose own orchestrator has not called reward cannot take stake in this round, and
    is told so; what is left of the day's limit goes to the next one."""
    pool = await make_pool(staked=True, per_day_max_lpt=5 * ETHER)
    orchestrator = await protocol.add_orchestrator("orchestrator")
    await protocol.bond("hot wallet", 100 * ETHER, orchestrator)
    await protocol.bond("late", ETHER, await protocol.add_orchestrator("other"))
    await protocol.next_round()
    await protocol.reward("orchestrator")
    await pool.tick()
    await pool.payer.resume()  # the operator knows that the wallet was used before
    late, payee = address("late"), max(ANN, BEN)
    assert late < payee  # so it comes first
    await pool.owe(late, 5 * ETHER, f"lpt/worker:{late}")
    await pool.owe(payee, 5 * ETHER, f"lpt/worker:{payee}")
    await pool.settle()
    assert pool.livepeer is not None
    assert (await pool.livepeer.delegator(payee)).bonded_lpt == 5 * ETHER
    await pool.tick(DAY_MS)
    assert await said(pool) == {
        late: "The chain does not take this payment now, so it is tried again later: "
        "The contract refused: ILLEGAL_CLAIM_EARNINGS."
    }


async def test_from_what_the_pool_has(protocol: Livepeer, make_pool: MakePool) -> None:
    """The pool's own LPT goes first, at the average of 30 minutes: no market, no gas, and both
    sides of the books move at once."""
    pool = await make_pool()
    await protocol.give_lpt(WALLET, 100 * ETHER)
    await pool.owe(ANN, 50 * MILLI)
    await pool.payer.choose(ANN, "LPT", 0, staked=False)
    await pool.settle()
    got = await lpt_of(protocol, ANN)
    assert 24_900 * MILLI < got < 25_100 * MILLI
    assert pool.balance(f"worker:{ANN}") == pool.balance(f"lpt/worker:{ANN}") == 0
    assert pool.balance("operator") == 0
    assert pool.balance("lpt/operator") == -got
    assert [o.kind for o in pool.payer.journal.book.ended] == ["payout"]


async def test_another_wallet_after_an_exchange(protocol: Livepeer, make_pool: MakePool) -> None:
    """An exchange of the wallet before is settled with what that one got, and stops nobody."""
    pool = await make_pool()
    await pool.owe(ANN, 135 * MILLI)
    await pool.payer.choose(ANN, "LPT", 0, staked=False)
    await pool.tick()
    (swap,) = pool.payer.journal.book.open.values()
    pool.signer = ModelSigner(account("new wallet"))
    await pool.crash()
    for _ in range(6):
        await pool.tick(MINUTE_MS)
        await pool.evm.finalize()
    ended = pool.payer.journal.book.ended[0]
    assert (ended.order, ended.kind, ended.state) == (swap.order, "swap", "confirmed")
    assert pool.balance(f"lpt/worker:{ANN}") == await lpt_of(protocol, WALLET) > 0


async def test_from_the_market(protocol: Livepeer, make_pool: MakePool) -> None:
    """Two owners' fees are exchanged together; each gets the part of the LPT that really came."""
    pool = await make_pool()
    await pool.owe(ANN, 135 * MILLI)
    await pool.owe(BEN, 45 * MILLI)
    for owner in (ANN, BEN):
        await pool.payer.choose(owner, "LPT", 0, staked=False)
    await pool.settle()
    swap = pool.payer.journal.book.ended[0]
    assert (swap.kind, swap.state, len(swap.lines)) == ("swap", "confirmed", 2)
    ann, ben = await lpt_of(protocol, ANN), await lpt_of(protocol, BEN)
    assert ann == 3 * ben or abs(ann - 3 * ben) <= 3
    assert 0.97 < (ann + ben) / (180 * MILLI * LPT_PER_ETH // ETHER) < 1
    assert await lpt_of(protocol, WALLET) == 0
    assert pool.balance(f"worker:{ANN}") == pool.balance(f"lpt/worker:{BEN}") == 0


async def test_a_market_that_is_pushed(protocol: Livepeer, make_pool: MakePool) -> None:
    """A quote far from the average is not taken, in a sentence; when it is back, it is."""
    pool = await make_pool()
    await protocol.set_lpt_price(LPT_PER_ETH * 90 // 100)
    await pool.owe(ANN, 60 * MILLI)
    await pool.payer.choose(ANN, "LPT", 0, staked=False)
    for _ in range(3):
        await pool.tick(MINUTE_MS)
    assert not pool.payer.journal.book.known
    assert "more than 2 % apart" in pool.payer.parts[0].why  # type: ignore[attr-defined]
    plan = pool.payer.last_plan
    assert plan is not None
    assert plan.waiting[0].why.startswith("Its owner is paid in LPT")
    await protocol.set_lpt_price()
    await pool.settle()
    assert await lpt_of(protocol, ANN) > 0


async def test_a_price_that_moves_while_it_waits(
    evm: Evm, protocol: Livepeer, make_pool: MakePool
) -> None:
    """The market falls between quote and block: the exchange fails, nothing is lost but gas, and
    it is done anew."""
    pool = await make_pool()
    await pool.owe(ANN, 60 * MILLI)
    await pool.payer.choose(ANN, "LPT", 0, staked=False)
    await evm.automine(False)
    await pool.tick()
    raw = pool.payer.journal.book.open["payout-1"].newest.raw
    await evm.drop(pool.payer.journal.book.open["payout-1"].newest.tx)
    await protocol.set_lpt_price(LPT_PER_ETH * 95 // 100)
    await evm.rpc("eth_sendRawTransaction", raw)
    await evm.finalize()
    await protocol.set_lpt_price()
    await pool.settle()
    first, *later = pool.payer.journal.book.ended
    assert (first.kind, first.state) == ("swap", "voided")
    assert [o.kind for o in later] == ["swap", "payout"]
    assert not pool.payer.journal.book.blocked
    assert await lpt_of(protocol, ANN) > 0
