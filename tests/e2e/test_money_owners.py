"""Owners choose how they are paid, from a browser with their wallet, and are told why they wait.

A whole pool on a real EVM with a market: ETH from a threshold on, LPT bought within bounds, and the
workers' part of inflation rewards, liquid or as stake.
"""

import html
import re

import httpx
import pytest
from evm import *  # noqa: F403
from moneypool import *  # noqa: F403
from moneypool import HOT_WALLET, ORCHESTRATOR, WALLET, Ground, MoneyPool, money_pool, replayed

from openpool.chain import contracts as c
from openpool.core.units import ETHER
from openpool.demo.evm import LPT_PER_ETH, TICK, address
from openpool.demo.orchestrator import StandIn
from openpool.web.format import lpt_about

OWNERS = ("Ann", "Bob", "Cora")
FEES_WEI = ETHER // 10
REWARD_PPM = 400_000


def settings(ground: Ground) -> str:
    at = ground.protocol.addresses
    return f"""
revenue: {{scheme: proportional}}
{ground.chain()}
{ground.payouts()}
lpt:
  share: 40%
  threshold: 0.01 LPT
  swap: true
  weth: "{at["WrappedEther"]}"
  pool: "{at["SwapPool"]}"
  quoter: "{at["SwapQuoter"]}"
  router: "{at["SwapRouter"]}"
"""


async def choose(browser: httpx.AsyncClient, **form: str) -> httpx.Response:
    return await browser.post("/earnings/choose", data=form)


async def reads(browser: httpx.AsyncClient) -> str:
    """The text of the owner's page, without markup."""
    page = (await browser.get("/earnings")).raise_for_status().text
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


async def says(money: MoneyPool, browser: httpx.AsyncClient, text: str) -> None:
    """Wait until the owner's page says this."""

    async def found() -> bool:
        return text in await reads(browser)

    await money.until(found, f"the page to say {text!r}")


async def lpt_of(money: MoneyPool, owner: str) -> int:
    read = money.ground.protocol.read
    return int(await read("LivepeerToken", c.Token.balance_of, address(owner)))


async def a_round(money: MoneyPool) -> None:
    for owner in OWNERS:
        await money.work(owner)
    await money.ground.protocol.reward(ORCHESTRATOR)
    await money.ground.protocol.win("gateway", ORCHESTRATOR, FEES_WEI)
    await money.end_round()


@pytest.fixture
async def staked(ground: Ground) -> Ground:
    """The hot wallet has stake to hand out, and no LPT beside it."""
    await ground.protocol.bond(HOT_WALLET, 2_000_000 * ETHER, address(ORCHESTRATOR))
    await ground.evm.set_balance(WALLET, ETHER)
    await ground.protocol.next_round()
    return ground


async def test_owners_are_paid_as_they_choose(staked: Ground) -> None:
    """Each choice is kept, what is refused is said in a sentence, the page names the reason of each
    wait, and what arrives on chain is what was chosen."""
    async with StandIn("o-secret") as orchestrator:
        async with money_pool(staked, orchestrator, settings(staked)) as money:
            await money.followed()
            await money.enrol(*OWNERS)
            async with (
                money.signed_in("Ann") as ann,
                money.signed_in("Bob") as bob,
                money.signed_in("Cora") as cora,
            ):
                await choices(ann, bob, cora)
                # the market offers a tenth less than on average
                await staked.protocol.set_lpt_price(LPT_PER_ETH * 9 // 10, average_tick=TICK)
                await a_round(money)
                await fees(money, ann, bob, cora)
                await rewards(money, ann, bob)
            await money.verified(await money.end_round())
    await replayed(money.folder)


async def choices(ann: httpx.AsyncClient, bob: httpx.AsyncClient, cora: httpx.AsyncClient) -> None:
    refused = await choose(ann, threshold="0.00001 ETH")
    assert refused.status_code == 400
    assert "The threshold must be 0.0001 ETH or more" in html.unescape(refused.text)
    theirs = await choose(ann, address=address("Bob"), threshold="1 ETH")
    assert theirs.status_code == 403
    assert (await choose(ann, threshold="0.06 ETH", asset="ETH")).status_code == 303
    assert (await choose(bob, threshold="pool", hand_over="staked")).status_code == 303
    assert (await choose(cora, threshold="0.0001 ETH", asset="LPT")).status_code == 303


async def fees(
    money: MoneyPool, ann: httpx.AsyncClient, bob: httpx.AsyncClient, cora: httpx.AsyncClient
) -> None:
    """ETH to Bob at once, to Ann once she is content with less, LPT to Cora at a fair price."""
    evm, share_wei = money.ground.evm, FEES_WEI // 3 * 3 // 4
    await says(money, bob, "Paid 0.025 ETH")
    assert await evm.balance(address("Bob")) == share_wei
    await says(money, ann, "more, and the threshold of 0.06 ETH is reached.")
    await says(money, cora, "2 % apart. It is tried again later.")
    assert [await evm.balance(address(name)) for name in ("Ann", "Cora")] == [0, 0]
    await choose(ann, threshold="0.02 ETH", asset="ETH")
    await money.ground.protocol.set_lpt_price()
    await says(money, ann, "Paid 0.025 ETH")
    assert await evm.balance(address("Ann")) == share_wei
    bought = await bought_lpt(money)
    fair = share_wei * LPT_PER_ETH // ETHER
    assert fair * 96 // 100 < bought <= fair


async def bought_lpt(money: MoneyPool) -> int:
    """LPT that the exchange brought; it is owed to Cora then."""

    def swapped() -> bool:
        return any(each.kind == "swap" for each in money.events("order-confirmed"))

    await money.until(swapped, "the exchange")
    (swap,) = [each for each in money.events("order-confirmed") if each.kind == "swap"]
    (line,) = swap.lines
    return int(line.received_lpt)


async def rewards(money: MoneyPool, ann: httpx.AsyncClient, bob: httpx.AsyncClient) -> None:
    """Tokens to Ann and Cora once the wallet has any, stake to Bob after the round's reward."""
    protocol = money.ground.protocol
    shared = {each.address: int(each.amount_lpt) for each in money.events("reward-shared")}
    (reward,) = money.events("reward-called")
    assert sum(shared.values()) == int(reward.own_lpt) * REWARD_PPM // 1_000_000
    await says(money, ann, "LPT : The pool's wallet holds too little at the moment")
    await protocol.give_lpt(WALLET, sum(shared.values()))
    await protocol.reward(ORCHESTRATOR)
    await says(money, ann, f"Paid 0.025 ETH and {shown(shared[address('Ann')])}")
    await says(money, bob, f"Paid 0.025 ETH and {shown(shared[address('Bob')])}")
    assert await lpt_of(money, "Ann") == shared[address("Ann")]
    assert await lpt_of(money, "Bob") == 0
    process = money.running.process.money
    assert process is not None
    assert process.livepeer is not None
    stake = await process.livepeer.delegator(address("Bob"))
    assert (stake.delegate, stake.bonded_lpt) == (address(ORCHESTRATOR), shared[address("Bob")])


def shown(amount_lpt: int) -> str:
    """As pages write it."""
    return f"{lpt_about(amount_lpt)} LPT"
