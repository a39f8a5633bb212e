"""Rounds by the clock, the operator's record, the views, the API, and the watch over reward."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from stories import START_MS
from test_follow import NAME, Clock, balance, begun, credit, follower, told
from toychain import ADDRESS, WALLET, ToyChain
from webpool import OPERATOR, WebPool, bearer, served, web_pool

from openpool.chain import contracts
from openpool.cli import run
from openpool.core.errors import BadMessage, NotAllowed, SetupError
from openpool.core.events import Event
from openpool.core.money import events as money
from openpool.core.money.orders import Order
from openpool.core.money.revenue_views import RevenueView
from openpool.store.memory import MemoryStore
from openpool.treasury.books import RevenueBooks
from openpool.treasury.closing import Closing
from openpool.treasury.desk import RevenueDesk
from openpool.treasury.reward import RewardWatch
from openpool.treasury.rounds import ClockRounds
from openpool.web.app import create_app

DAY_MS = 86_400_000


class Wall:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.ms = START_MS - START_MS % DAY_MS + 1

    def __call__(self) -> int:
        return self.ms


def by_the_clock(store: MemoryStore, wall: Wall) -> tuple[ClockRounds, RevenueDesk]:
    books = RevenueBooks(store)
    closing = Closing(books=books, orchestrators=[NAME], clock_ms=wall)
    rounds = ClockRounds(books=books, closing=closing, round_ms=DAY_MS, clock_ms=wall)
    return rounds, RevenueDesk(books=books, orchestrators={NAME: ""}, clock_ms=wall)


async def test_rounds_begin_at_midnight_whatever_the_downtime() -> None:
    """A round a day, one after a week of downtime, none twice; each is closed by the next."""
    store, wall = MemoryStore(), Wall()
    await by_the_clock(store, wall)[0].look()
    await store.append([credit("a", 7, 5)]).durable()
    for hours in (1, 22, 1, 5, 24 * 7, 0):
        wall.ms += hours * 3_600_000
        await by_the_clock(store, wall)[0].look()
    assert [(each.round, each.source) for each in told(store, money.RoundStarted)] == [
        (1, "clock"), (2, "clock"), (3, "clock"),
    ]  # fmt: skip
    shown = (await by_the_clock(store, wall)[1].view()).orchestrators[0].rounds
    assert [row.round for row in shown] == [3, 2, 1]
    assert [row.end_ms for row in shown[1:]] == [row.start_ms for row in shown[:2]]
    assert shown[0].end_ms == 0
    closed = told(store, money.RevenueReconciled)
    assert [(each.round, each.expected_wei) for each in closed] == [(1, "7"), (2, "0")]
    assert closed[0].explanation.startswith("Not followed on chain")


async def test_rounds_come_in_pages() -> None:
    """The newest first, each once, of an orchestrator that there is."""
    store, wall = MemoryStore(), Wall()
    rounds, desk = by_the_clock(store, wall)
    await rounds.look()
    await store.append([credit("a", 7, 5)]).durable()
    for _ in range(6):
        wall.ms += DAY_MS
        await rounds.look()
    seen: list[int] = []
    while page := await desk.rounds(NAME, seen[-1] if seen else None, 3):
        seen += [row.round for row in page]
    assert seen == [7, 6, 5, 4, 3, 2, 1]
    assert await desk.rounds(NAME, 99, 3) == []
    with pytest.raises(BadMessage, match="no orchestrator of this name"):
        await desk.rounds("x", None, 3)


async def test_what_the_operator_records_counts_once() -> None:
    """It is revenue of the running round, in the operator's hand; the same reference is no more."""
    store, wall = MemoryStore(), Wall()
    rounds, desk = by_the_clock(store, wall)
    with pytest.raises(BadMessage, match="once the pool runs"):
        await desk.record(NAME, "1 ETH", "early")
    await rounds.look()
    await store.append([credit("a", 4 * 10**17, 10**17)]).durable()
    assert await desk.record(NAME, "0.5 ETH", "2026-11")
    assert not await desk.record(NAME, "0.7 ETH", "2026-11")
    assert (balance(store, "claim:main"), balance(store, "operator")) == (0, -5 * 10**17)
    (view,) = (await desk.view()).orchestrators
    assert (view.realised_wei, view.fees_wei) == (str(5 * 10**17), str(5 * 10**17 - 10**17))
    assert (view.luck.ratio_ppm, view.luck.spread_ppm) == (1_250_000, None)
    for amount, reference, name in (
        ("0 ETH", "x", NAME),
        ("much", "x", NAME),
        ("20 USD", "x", NAME),
        ("1 ETH", "", NAME),
        ("1 ETH", "x", "stranger"),
    ):
        with pytest.raises(BadMessage):
            await desk.record(name, amount, reference)


async def followed() -> tuple[ToyChain, MemoryStore, RevenueDesk]:
    chain, store = begun(), MemoryStore()
    following = follower(chain, store)
    await following.look()
    for paid in (100, 40):
        chain.ticket(100, paid, paid)
    chain.next_round()
    chain.mine(wallet=55)
    await following.look()
    desk = RevenueDesk(
        books=RevenueBooks(store),
        orchestrators={NAME: ADDRESS},
        clock_ms=Clock(),
        wallets=[WALLET],
        follower=following,
    )
    return chain, store, desk


async def test_two_orchestrators_with_one_address_are_refused() -> None:
    """Their revenue would count twice; the sentence names both."""
    with pytest.raises(SetupError, match="Orchestrators a and b have the same eth_address"):
        follower(ToyChain(), MemoryStore(), orchestrators={"a": ADDRESS, "b": ADDRESS})


async def test_nothing_is_recorded_by_hand_that_the_chain_tells() -> None:
    """An orchestrator that is followed on chain would be booked twice."""
    _, _, desk = await followed()
    with pytest.raises(NotAllowed, match="followed on chain"):
        await desk.record(NAME, "1 ETH", "x")


async def test_the_view_shows_what_the_log_says() -> None:
    """Rounds and tickets newest first, claims of chain and books, wallets, and what to look at."""
    _, _, desk = await followed()
    view = await desk.view()
    (each,) = view.orchestrators
    assert (view.source, view.round, view.block, view.problem) == ("chain", 2, 6, "")
    assert [row.round for row in each.rounds] == [2, 1]
    assert [(row.luck.won_wei, row.paid_wei, row.reward) for row in each.rounds] == [
        ("0", "0", ""), ("200", "140", "missed"),
    ]  # fmt: skip
    assert [ticket.paid_wei for ticket in each.tickets] == ["40", "100"]
    assert each.pending_wei == each.claim_wei == "540"
    assert (each.rank, each.stake_lpt, each.active) == (2, "5000", True)
    assert [(w.eth_wei, w.open_orders) for w in view.wallets] == [("55", 0)]
    assert [alert.title for alert in view.alerts] == ["Reward of main was missed in round 1."]


async def test_a_restart_shows_the_same_without_reading_old_fees() -> None:
    """Fees of closed rounds are not read again: the events that closed them hold the sums."""
    chain, store = begun(), MemoryStore()
    following = follower(chain, store)
    await following.look()
    for number in range(4):
        await store.append([credit(f"j{number}", 100 + number, 75)]).durable()
        chain.ticket(90, 90, 90)
        chain.next_round()
        await following.look()
    views = []
    for books in (following._books, RevenueBooks(store)):
        desk = RevenueDesk(
            books=books,
            orchestrators={NAME: ADDRESS},
            clock_ms=Clock(),
            follower=following,
        )
        views.append(await desk.view())
    assert views[0] == views[1]
    (each,) = views[1].orchestrators
    assert [row.luck.expected_wei for row in each.rounds] == ["0", "103", "102", "101", "100"]
    assert each.luck.expected_wei == "406"


async def test_alerts_say_what_stands_still() -> None:
    """A chain that cannot be read is the first thing to know."""
    chain, _, desk = await followed()
    chain.fails_at = chain.calls + 1
    assert desk._follower is not None
    await desk._follower.look()
    view = await desk.view()
    assert view.alerts[0].title == "The chain is not followed."
    assert view.alerts[0].text == "The endpoint is away."


@asynccontextmanager
async def asking(directory: Path, desk: RevenueDesk | None) -> AsyncIterator[httpx.AsyncClient]:
    async with web_pool(directory) as pool:
        app = create_app(replace(pool.deps, revenue=desk))
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://pool") as client:
            yield client


async def test_everybody_may_know_the_luck_and_nothing_else(tmp_path: Path) -> None:
    """The public answer has rounds and luck; claims, gateways and wallets are the operator's."""
    _, _, desk = await followed()
    async with asking(tmp_path, desk) as client:
        answer = await client.get("/api/v1/revenue")
        (each,) = answer.json()["orchestrators"]
        assert [row["luck"]["won_wei"] for row in each["rounds"]] == ["0", "200"]
        for secret in ("claim", "gateway", "wallet", "pending", WALLET):
            assert secret not in answer.text
        one = await client.get(f"/api/v1/revenue/{NAME}/rounds?limit=1", headers=bearer(OPERATOR))
        assert [row["round"] for row in one.json()] == [2]
        assert (await client.get(f"/api/v1/revenue/{NAME}/rounds")).status_code == 401
        details = "/api/v1/revenue/details"
        assert (await client.get(details)).status_code == 401
        told_ = await client.get(details, headers=bearer(OPERATOR))
        assert msgspec.json.decode(told_.content, type=RevenueView) == await desk.view()


async def test_the_operator_records_through_the_api(tmp_path: Path) -> None:
    """Only the operator, only what is right, and a repetition says that it is one."""
    store, wall = MemoryStore(), Wall()
    rounds, desk = by_the_clock(store, wall)
    await rounds.look()
    body = {"amount": "0.5 ETH", "reference": "2026-11"}
    path = f"/api/v1/revenue/{NAME}/records"
    async with asking(tmp_path, desk) as client:
        assert (await client.post(path, json=body)).status_code == 401
        client.headers.update(bearer(OPERATOR))
        answers = [(await client.post(path, json=body)).json() for _ in range(2)]
        assert answers == [{"new": True}, {"new": False}]
        for wrong in ({"amount": "-1 ETH", "reference": "x"}, {"amount": "1 ETH"}, {}):
            assert (await client.post(path, json=wrong)).status_code == 400
    async with asking(tmp_path / "other", None) as client:
        assert (await client.get("/api/v1/revenue")).status_code == 404


async def test_metrics_and_alerts_come_from_the_same_view(tmp_path: Path) -> None:
    """Prometheus and the operator's status tell what the view says."""
    _, _, desk = await followed()
    async with asking(tmp_path, desk) as client:
        client.headers.update(bearer(OPERATOR))
        lines = (await client.get("/metrics")).text.splitlines()
        assert "openpool_round 2.0" in lines
        assert 'openpool_pending_fees_gwei{orchestrator="main"} 5.4e-07' in lines
        assert 'openpool_claim_difference_gwei{orchestrator="main"} 0.0' in lines
        assert "openpool_chain_stalled 0.0" in lines
        assert not any(line.startswith("openpool_luck_ratio{") for line in lines), "no work yet"
        alerts = (await client.get("/api/v1/status")).json()["alerts"]
        assert "Reward of main was missed in round 1." in {each["title"] for each in alerts}


async def test_what_was_earned_does_not_depend_on_what_was_realised(tmp_path: Path) -> None:
    """Public totals are what work was worth over all time; revenue and payouts change them not."""
    async with web_pool(tmp_path) as pool:
        await pool.append(credit("a", 100, 75))
        earned = (await pool_totals(pool)).json()
        revenue = money.RevenueRealised(
            orchestrator=NAME,
            round=1,
            from_block=1,
            to_block=2,
            amount_wei="1000",
            paid_wei="1000",
            tickets=1,
        )
        await pool.append(Event(id="r", time_ms=START_MS, data=revenue))
        assert (await pool_totals(pool)).json() == earned
        assert (earned["fees_wei"], earned["credited_wei"]) == ("75", "75")


async def pool_totals(pool: WebPool) -> httpx.Response:
    transport = httpx.ASGITransport(app=pool.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://pool") as client:
        return (await client.get("/api/v1/public")).raise_for_status()


async def test_the_command_shows_what_the_api_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`openpool revenue show` for people and for programs, `record` for the operator."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENPOOL_OPERATOR_TOKEN", OPERATOR)
    _, _, desk = await followed()
    async with web_pool(tmp_path / "pool") as pool:
        pool.app = create_app(replace(pool.deps, revenue=desk))
        async with served(pool) as base:
            capfd.readouterr()
            assert await asyncio.to_thread(run, ["revenue", "show", "--url", base]) == 0
            said = capfd.readouterr()
            assert "Round 2 by the chain" in said.out
            assert "not paid" in said.out
            assert "Reward of main was missed in round 1." in said.err
            assert await asyncio.to_thread(run, ["revenue", "show", "--url", base, "--json"]) == 0
            shown = msgspec.json.decode(capfd.readouterr().out, type=RevenueView)
            assert shown == await desk.view()
            record = ["revenue", "record", "main", "1 ETH", "--reference", "x", "--url", base]
            assert await asyncio.to_thread(run, record) == 1
            assert "followed on chain" in capfd.readouterr().err


class Plans:
    """Orders that are written down only."""

    def __init__(self) -> None:
        self.planned: dict[str, dict[str, Any]] = {}
        self.voided: set[str] = set()

    async def plan(self, *, order: str, lines: Sequence[Any] = (), **what: Any) -> bool:
        is_new = order not in self.planned
        self.planned.setdefault(order, what)
        return is_new

    def order(self, order: str) -> Order | None:
        if order not in self.voided:
            return None
        return Order(
            order=order,
            wallet=WALLET,
            chain_id=1,
            kind="reward",
            asset="ETH",
            to="",
            value_wei=0,
            data="",
            lines=(),
            note="",
            planned_ms=0,
            state="voided",
            reason="it reverted.",
        )


class Stage(ToyChain):
    """A round of 100 blocks, and who may call reward."""

    caller = ""
    passed = 0
    initialized = True

    async def round(self, **at: Any) -> Any:
        now = await super().round(**at)
        return msgspec.structs.replace(now, block=self.passed, initialized=self.initialized)

    async def orchestrator(self, address: str, **at: Any) -> Any:
        state = await super().orchestrator(address, **at)
        return msgspec.structs.replace(state, reward_caller=self.caller)


def watch(chain: Stage, orders: Plans | None = None, wallet: str = WALLET) -> RewardWatch:
    return RewardWatch(
        livepeer=chain,
        orchestrators={NAME: ADDRESS},
        late_ppm=250_000,
        orders=orders,
        wallet=wallet,
    )


async def test_a_reward_that_is_not_called_is_told_in_time() -> None:
    """Fine at first, a warning after a quarter of the round, an alarm later, and then called."""
    chain, levels = Stage(), []
    for passed in (10, 30, 90):
        chain.passed = passed
        watching = watch(chain)
        await watching.look()
        levels.append(watching.views[NAME].level)
    assert levels == ["ok", "warn", "bad"]
    assert "does not call it" in watching.views[NAME].text
    chain.reward(5, 5)
    await watching.look()
    assert (watching.views[NAME].called, watching.views[NAME].level) == (True, "ok")
    chain.mine(active=False, last_reward=0)
    await watching.look()
    assert (watching.views[NAME].active, watching.views[NAME].level) == (False, "ok")


async def test_the_pool_calls_reward_once_a_round_if_it_may() -> None:
    """As reward caller or as the orchestrator itself; the order's name makes it one."""
    chain, orders = Stage(addresses={"BondingManager": "0xB0"}), Plans()
    await watch(chain, orders).look()
    assert orders.planned == {}, "the wallet is not the reward caller"
    chain.caller = WALLET
    chain.initialized = False
    await watch(chain, orders).look()
    assert orders.planned == {}, "nobody has initialized the round"
    chain.initialized = True
    for _ in range(2):
        watching = watch(chain, orders)
        await watching.look()
    assert list(orders.planned) == ["reward/main/1"]
    order = orders.planned["reward/main/1"]
    assert (order["kind"], order["to"]) == ("reward", "0xB0")
    assert contracts.BondingManager.reward_for.arguments(order["data"]) == (ADDRESS,)
    chain.next_round()
    await watch(chain, orders, wallet=ADDRESS).look()
    assert orders.planned["reward/main/2"]["data"] == contracts.BondingManager.reward.encode()
    chain.reward(5, 5)
    orders.planned.clear()
    await watch(chain, orders).look()
    assert orders.planned == {}


async def test_a_wallet_that_may_not_call_reward_is_told_how_to() -> None:
    """The sentence names both addresses and what to send."""
    chain = Stage()
    watching = watch(chain, Plans())
    await watching.look()
    text = watching.views[NAME].text
    assert f"send setRewardCaller({WALLET}) from {ADDRESS}" in text


async def test_a_call_that_failed_is_tried_again_but_not_for_ever() -> None:
    """What a reverted call leaves is time for two more; then a person is told why."""
    chain, orders = Stage(addresses={"BondingManager": "0xB0"}), Plans()
    chain.caller = WALLET
    for _ in range(5):
        watching = watch(chain, orders)
        await watching.look()
        orders.voided = set(orders.planned)
    assert list(orders.planned) == ["reward/main/1", "reward/main/1/2", "reward/main/1/3"]
    assert watching.views[NAME].text.endswith("times to call it, and failed: it reverted.")
