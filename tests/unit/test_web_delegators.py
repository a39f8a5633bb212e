"""Delegators' page and API: what is shown is what the chain says, and nothing is ever signed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from livepeer_chain import ANN, LPT, POOL, ModelChain, network
from webpool import NOW_MS, served, web_pool

from openpool.chain.interface import At, Block
from openpool.core.livepeer.transactions import call_data
from openpool.treasury.delegators import ASKING_MAX, Delegations

API = "/api/v1/delegation"


@asynccontextmanager
async def asking(
    directory: Path, chain: ModelChain | None
) -> AsyncIterator[tuple[httpx.AsyncClient, Delegations | None]]:
    """A served pool whose orchestrator is on that chain."""
    known = None
    if chain:
        known = Delegations(chain, chain, {POOL: "main"}, clock_ms=lambda: NOW_MS)
        await known.refresh()
    async with web_pool(directory, delegation=known) as pool, served(pool) as base:
        async with httpx.AsyncClient(base_url=base, timeout=10) as client:
            yield client, known


async def test_without_a_chain_the_page_says_so(tmp_path: Path) -> None:
    """One sentence on the page, a problem with a reason from the API, and no tab."""
    async with asking(tmp_path, None) as (client, _):
        page = await client.get("/delegators")
        assert page.status_code == 200
        assert "no chain configured" in page.text
        assert 'id="connect"' not in page.text
        answer = await client.get(f"{API}/accounts/{ANN}")
        assert (answer.status_code, answer.json()["code"]) == (404, "setup")
        assert "no chain configured" in answer.json()["detail"]
        assert (
            'href="/delegators">Delegators</a>'
            not in (await client.get("/login")).text.split("<main")[0]
        )


async def test_a_chain_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """Before the first reading the page says why it is empty; later it shows what it knew."""
    chain = network(rounds=3, others=2)
    chain.down = True
    async with asking(tmp_path, chain) as (client, known):
        assert known is not None
        assert "No endpoint of the chain gave an answer" in (await client.get("/delegators")).text
        chain.down = False
        await known.refresh()
        assert "Not current" not in (await client.get("/delegators")).text
        chain.down = True
        await known.refresh()
        page = (await client.get("/delegators")).text
        assert "Not current" in page
        assert "Reward cut" in page
        assert (await client.get(f"{API}/accounts/{ANN}")).status_code == 503


async def test_the_profile_is_the_chains(tmp_path: Path) -> None:
    """Cuts, stake, rank, the ratio of reward calls and every round are those of the chain."""
    chain = network()
    async with asking(tmp_path, chain) as (client, _):
        (profile,) = (await client.get(API)).json()
        protocol = chain.protocol
        stakes = sorted((protocol.d(each).delegated for each in protocol.pool), reverse=True)
        assert profile["address"] == POOL
        assert profile["reward_cut_ppm"] == 200_000
        assert profile["fee_share_ppm"] == 300_000
        assert profile["rank"] == stakes.index(protocol.d(POOL).delegated) + 1
        assert profile["stake_lpt"] == str(protocol.o(POOL).pool(protocol.round.number).stake)
        assert profile["has_rewarded"] is False
        rewards = [log.amount_lpt for who, log in chain.rewards_made if who == POOL]
        told = [int(each["reward_lpt"]) for each in profile["past"] if each["rewarded"]]
        assert told == rewards
        missed = [each["round"] for each in profile["past"] if not each["rewarded"]]
        assert missed == [number for number in range(2, 42) if (number - 2) % 11 == 4]
        assert profile["reward_calls_ppm"] == 36 * 1_000_000 // 40
        written = {n: p.stake for n, p in protocol.o(POOL).pools.items() if p.stake}
        for each in profile["past"]:  # a round without a change has the stake of the one before
            latest = max(number for number in written if number <= each["round"])
            assert int(each["stake_lpt"]) == written[latest]
        fees = [log.paid_wei for _, log in chain.tickets_paid]
        assert [int(each["fees_wei"]) for each in profile["past"]] == fees
        assert profile["past"][0]["delegators_lpt"] == str(rewards[0] - rewards[0] // 4)


async def test_history_goes_on_without_reading_it_again(tmp_path: Path) -> None:
    """After a round has passed it is in the history, once, and older ones are as they were."""
    chain = network(rounds=5, others=2)
    async with asking(tmp_path, chain) as (client, known):
        assert known is not None
        before = (await client.get(API)).json()[0]["past"]
        chain.reward(POOL)
        await known.refresh()
        assert (await client.get(API)).json()[0]["has_rewarded"] is True
        chain.start_round()
        await known.refresh()
        after = (await client.get(API)).json()[0]["past"]
        assert after[:-1] == before
        assert after[-1]["round"] == before[-1]["round"] + 1
        assert int(after[-1]["reward_lpt"]) == chain.rewards_made[-1][1].amount_lpt


async def test_the_calculator_is_exact(tmp_path: Path) -> None:
    """One round's estimate is what new stake gets when that round comes, to the last digits."""
    chain = network(rounds=8, others=3)
    async with asking(tmp_path, chain) as (client, _):
        told = (await client.get(f"{API}/estimates", params={"stake": "1000"})).json()
        first = told["estimates"][0]
        newcomer = "0x" + "9" * 40
        chain.protocol.bond(newcomer, 1000 * LPT, POOL)
        chain.start_round()
        for each in list(chain.protocol.pool):
            chain.reward(each)
        gained = chain.protocol.earnings(newcomer).stake - 1000 * LPT
        assert abs(int(first["rewards_lpt"]) - gained) <= 1
        assert told["rounds_per_year"] == 412
        assert [each["rounds"] for each in told["estimates"]] == [1, 33, 412]


async def test_questions_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    """No stake, words, too much, an unknown orchestrator: each has its sentence."""
    async with asking(tmp_path, network(rounds=2, others=2)) as (client, _):
        for stake in ("0", "many", "-5", "99999999999"):
            answer = await client.get(f"{API}/estimates", params={"stake": stake})
            assert answer.status_code == 400
            page = await client.get("/delegators", params={"stake": stake})
            assert page.status_code == 200
            assert answer.json()["detail"] in page.text
        unknown = await client.get(f"{API}/estimates?stake=1&orchestrator={ANN}")
        assert unknown.status_code == 404
        wrong = await client.post(f"{API}/plan", json={"deed": "claim", "address": "0x" + "z" * 40})
        assert wrong.status_code == 400
        assert "Ethereum address" in wrong.json()["detail"]


async def test_an_account_with_all_it_has(tmp_path: Path) -> None:
    """Stake, unclaimed rewards, fees and locks of a delegator are those of the chain."""
    chain = network()
    async with asking(tmp_path, chain) as (client, _):
        account = (await client.get(f"{API}/accounts/{ANN}")).json()
        has, d = chain.protocol.earnings(ANN), chain.protocol.d(ANN)
        assert account["stake_lpt"] == str(has.stake)
        assert account["rewards_lpt"] == str(has.stake - d.bonded)
        assert account["withdrawable_wei"] == account["fees_wei"] == str(has.fees_wei)
        assert account["delegate"] == POOL
        assert account["locks"] == [
            {"lock": 0, "amount_lpt": str(1_500 * LPT), "withdraw_round": 29}
        ]


async def test_a_plan_warns_and_builds(tmp_path: Path) -> None:
    """Staking before the reward warns of the loss, and gives an approval and a bond to sign."""
    chain = network()
    async with asking(tmp_path, chain) as (client, _):
        wish = {"deed": "stake", "address": ANN, "amount": "100", "to": POOL}
        plan = (await client.post(f"{API}/plan", json=wish)).json()
        assert plan["chain_id"] == 42161
        assert [call["name"] for call in plan["calls"]] == ["approve", "bondWithHint"]
        manager = chain.addresses["BondingManager"]
        approve = call_data("approve(address,uint256)", manager, 100 * LPT)
        assert plan["calls"][0]["data"] == f"0x{approve.hex()}"
        assert [w["code"] for w in plan["warnings"]] == [
            "claim-before-reward",
            "fees-later-this-round",
        ]
        assert int(plan["warnings"][0]["loses_lpt"]) > 0
        chain.reward(POOL)
        later = (await client.post(f"{API}/plan", json=wish)).json()
        assert [w["code"] for w in later["warnings"]] == ["fees-later-this-round"]


async def test_what_would_fail_is_refused_with_a_reason(tmp_path: Path) -> None:
    """Too much, too early, not there: the plan is refused before a transaction exists."""
    chain = network()
    refusals = {
        ("stake", "5000"): "holds 1234.000000000000000005 LPT",
        ("unstake", "99999"): "has staked",
        ("withdraw-fees", "1"): "can be withdrawn now",
        ("withdraw-stake", ""): "",
        ("restake", ""): "",
    }
    async with asking(tmp_path, chain) as (client, _):
        for (deed, amount), reason in refusals.items():
            wish = {"deed": deed, "address": ANN, "amount": amount}
            answer = await client.post(f"{API}/plan", json=wish)
            assert answer.status_code == (403 if reason else 200), deed
            assert reason in answer.text
        chain.initialized = False
        answer = await client.post(f"{API}/plan", json={"deed": "claim", "address": ANN})
        assert "has not been initialized" in answer.json()["detail"]


async def test_not_too_many_ask_at_once(tmp_path: Path) -> None:
    """While the chain is slow only so many questions wait for it; the others are told to wait."""
    chain = network(rounds=2, others=2)
    slow, held = asyncio.Event(), chain.block

    async def block(at: At = "latest") -> Block:
        await slow.wait()
        return await held(at)

    async with asking(tmp_path, chain) as (client, _):
        chain.block = block  # type: ignore[method-assign]
        waiting = [asyncio.create_task(client.get(f"{API}/accounts/{ANN}")) for _ in range(20)]
        refused, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert refused.pop().result().json()["code"] == "no-capacity"
        slow.set()
        answers = [(await each).status_code for each in waiting]
        assert (answers.count(200), answers.count(503)) == (ASKING_MAX, 20 - ASKING_MAX)


async def test_reading_the_chain_is_limited(tmp_path: Path) -> None:
    """Nobody can make the pool ask its node without end."""
    chain = network(rounds=2, others=2)
    known = Delegations(chain, chain, {POOL: "main"}, clock_ms=lambda: NOW_MS)
    async with web_pool(tmp_path, tries=3, delegation=known) as pool, served(pool) as base:
        async with httpx.AsyncClient(base_url=base) as client:
            answers = [await client.get(f"{API}/accounts/{ANN}") for _ in range(5)]
            assert [each.status_code for each in answers] == [200, 200, 200, 429, 429]
            assert chain.reads == 3
            signing_in = await client.post("/api/v1/enroll/nonce", json={"address": ANN})
            assert signing_in.status_code == 200
