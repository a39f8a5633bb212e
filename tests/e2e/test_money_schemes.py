"""A whole pool that shares what was realised: work, tickets, shares, payouts, proofs.

Real transcoding, a real EVM, `openpool verify` and `openpool replay` as commands of their own.
"""

import pytest
from moneypool import *  # noqa: F403
from moneypool import WALLET, Ground, MoneyPool, money_pool, replayed

from openpool.core.units import ETHER
from openpool.demo.evm import address
from openpool.demo.orchestrator import StandIn

PLAIN = """
revenue: {scheme: %s, window_rounds: 3}
"""
RULES = """
groups: {friends: {commission: 5%%}}
revenue:
  scheme: %s
  window_rounds: 3
  hooks:
    - rule: holdback
      options: rate=10%%, rounds=1
    - rule: performance-bonus
      options: rate=2%%, success=90%%, jobs=0
"""
REVENUE_WEI = ETHER // 10 + 7
PPM = 1_000_000


async def a_round(money: MoneyPool) -> int:
    """Ann does two segments and Bob one; a ticket wins; the round ends."""
    await money.work("Ann", 2)
    await money.work("Bob", 1)
    accrued = {name: wei for name, wei in money.balances().items() if name.startswith("accrued:")}
    ann, bob = (accrued[f"accrued:orch0:{address(name)}"] for name in ("Ann", "Bob"))
    assert ann > bob > 0
    assert not any(name.startswith("worker:") for name in money.balances())
    await money.ground.protocol.win("gateway", "orchestrator", REVENUE_WEI)
    return await money.end_round()


def fair(money: MoneyPool, pot_wei: int) -> dict[str, tuple[int, int]]:
    """By our own arithmetic: each address's part of a pot by work, and what the pool keeps."""
    worth: dict[str, int] = {}
    rates: dict[str, int] = {}
    for fee in money.events("fee-credited"):
        worth[fee.address] = worth.get(fee.address, 0) + int(fee.fee_wei)
        rates[fee.address] = fee.commission_ppm
    found = {}
    for who, wei in worth.items():
        part_wei = pot_wei * wei // sum(worth.values())
        share_wei = part_wei * (PPM - rates[who]) // PPM
        found[who] = share_wei, part_wei - share_wei
    return found


@pytest.mark.parametrize("scheme", ["proportional", "window"])
@pytest.mark.parametrize("rules", [False, True], ids=["plain", "rules"])
async def test_revenue_is_shared_paid_and_proved(ground: Ground, scheme: str, rules: bool) -> None:
    """Work accrues, the round's end shares what came in, everybody is paid on chain, and a stranger
    can check all of it; rules move what they say out of it, and nothing else."""
    settings = ground.chain() + ground.payouts() + (RULES if rules else PLAIN) % scheme
    async with StandIn("o-secret") as orchestrator:
        async with money_pool(ground, orchestrator, settings) as money:
            await money.followed()
            await money.enrol("Ann", group="friends" if rules else "")
            await money.enrol("Bob")
            rounds = [await a_round(money)]
            await ground.protocol.win("gateway", "orchestrator", REVENUE_WEI)
            rounds.append(await money.end_round())
            await money.paid()
            rounds.append(await money.end_round())
            said = [await money.verified(number) for number in rounds]
            # under `window` a round's revenue is for the work before it, here all at once
            pot_wei = REVENUE_WEI if scheme == "proportional" else 2 * REVENUE_WEI
            parts = fair(money, pot_wei)
            check_shares(money, parts)
            check_rules(money, parts, rules)
            await check_payouts(money, parts, rules)
            assert any("payout" in text for each in said for text in each["checked"])
    await replayed(money.folder)


def check_shares(money: MoneyPool, parts: dict[str, tuple[int, int]]) -> None:
    """Every wei that came in has an owner, or is carried on."""
    shares = [each for each in money.events("share-credited") if int(each.share_wei)]
    told = {each.address: (int(each.share_wei), int(each.commission_wei)) for each in shares}
    assert told == parts
    assert len(shares) == len(parts) == 2
    assert {each.commission_ppm for each in money.events("fee-credited")} <= {50_000, 250_000}
    left_wei = int(money.events("round-settled")[-1].carried_wei)
    assert left_wei == 2 * REVENUE_WEI - sum(map(sum, parts.values()))
    assert money.balances()["claim:orch0"] == -2 * REVENUE_WEI
    assert not any(name.startswith("accrued:") for name in money.balances())


def bonus(share_wei: int) -> int:
    """A fiftieth of what the rule before it has left."""
    return (share_wei - share_wei // 10) // 50


def check_rules(money: MoneyPool, parts: dict[str, tuple[int, int]], rules: bool) -> None:
    """A tenth is held for one round, and a bonus is paid out of commission."""
    moved = sorted(
        (a.rule, a.debit, a.credit, int(a.amount_wei)) for a in money.events("adjustment-made")
    )
    wanted = []
    for who, (share_wei, _) in parts.items() if rules else ():
        held = (f"worker:{who}", f"holdback:{who}", share_wei // 10)
        wanted.append(("holdback", *held))
        wanted.append(("holdback", held[1], held[0], held[2]))
        wanted.append(("performance-bonus", "commission", held[0], bonus(share_wei)))
    assert moved == sorted(wanted)


async def check_payouts(money: MoneyPool, parts: dict[str, tuple[int, int]], rules: bool) -> None:
    """What is on chain at each address is what the books say it earned, and no gas."""
    for who, (share_wei, _) in parts.items():
        earned_wei = share_wei + (bonus(share_wei) if rules else 0)
        assert await money.ground.evm.balance(who) == earned_wei
    await money.until(lambda: wallet_agrees(money), "the wallet in the books")


async def wallet_agrees(money: MoneyPool) -> bool:
    held = await money.ground.evm.balance(WALLET)
    return money.balances()[f"wallet:{WALLET}"] == -held
