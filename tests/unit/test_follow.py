"""Following revenue: ranges, rounds, restarts and failures, on a chain in memory."""

from itertools import pairwise
from typing import Any

import pytest
from stories import START_MS
from toychain import ADDRESS, WALLET, ToyChain

from openpool.core.errors import Unavailable
from openpool.core.events import Event, FeeCredited
from openpool.core.money import events as money
from openpool.core.money.ledger import Balances, balance_faults, transfers_of
from openpool.store.interface import EventFilter
from openpool.store.memory import MemoryStore
from openpool.treasury.books import RevenueBooks
from openpool.treasury.closing import Closing
from openpool.treasury.faults import Trouble
from openpool.treasury.follow import Follower
from openpool.treasury.rounds import ClockRounds
from openpool.treasury.wallets import WalletWatch

ELSEWHERE = "0x" + "0E" * 20
NAME = "main"


def follower(
    chain: Any, store: MemoryStore, *, wallets: tuple[str, ...] = (WALLET,), **more: Any
) -> Follower:
    """A follower that knows nothing but the log, like after a restart."""
    books = RevenueBooks(store)
    clock = Clock()
    return Follower(
        chain=chain,
        livepeer=chain,
        books=books,
        closing=Closing(books=books, orchestrators=[NAME], clock_ms=clock, lpt_share_ppm=500_000),
        wallets=WalletWatch(
            chain=chain, livepeer=chain, books=books, wallets=wallets, clock_ms=clock
        ),
        orchestrators=more.pop("orchestrators", {NAME: ADDRESS}),
        clock_ms=clock,
        **more,
    )


class Clock:
    """Later at every look."""

    def __init__(self) -> None:
        self._now_ms = START_MS

    def __call__(self) -> int:
        self._now_ms += 1
        return self._now_ms


def credit(job: str, fee: int, worker: int, address: str = "0xw") -> Event:
    data = FeeCredited(
        job=job,
        orchestrator=NAME,
        worker="w",
        address=address,
        pixels=1,
        price_wei="1",
        price_source="config",
        fee_wei=str(fee),
        carry="0",
        commission_ppm=0,
        worker_wei=str(worker),
        scheme="proportional",
    )
    return Event(id=f"{job}/fee", time_ms=START_MS, data=data)


def told(store: MemoryStore, kind: type[Any]) -> list[Any]:
    events = (stored.event.data for stored in store.events(EventFilter(limit=10_000)))
    return [data for data in events if isinstance(data, kind)]


def balance(store: MemoryStore, account: str) -> int:
    return {each.account: each.amount_wei for each in store.balances()}.get(account, 0)


def a_life(chain: ToyChain, store: MemoryStore) -> None:
    """Two rounds and a bit: tickets of every kind, withdrawals to both sides, one reward."""
    chain.ticket(100, 100, 90)
    chain.ticket(100, 40, 36)
    chain.mine(cut=200_000)
    chain.withdraw(WALLET, 60)
    chain.reward(50, 30)
    chain.ticket(100, 0, 0)
    chain.next_round()
    chain.ticket(1000, 1000, 900)
    chain.withdraw(ELSEWHERE, 500)
    chain.mine()
    chain.next_round()
    chain.ticket(7, 7, 7)
    chain.mine()


def begun() -> ToyChain:
    """A chain on which something is pending already."""
    chain = ToyChain()
    chain.ticket(500, 500, 400)
    chain.mine()
    return chain


async def test_old_revenue_is_the_operators() -> None:
    """What was pending when following begins is booked as the operator's, not as revenue."""
    chain, store = begun(), MemoryStore()
    await follower(chain, store).look()
    assert [each.pending_wei for each in told(store, money.ClaimOpened)] == ["400"]
    assert told(store, money.RevenueRealised) == []
    assert (balance(store, "claim:main"), balance(store, "operator")) == (-400, 400)


async def test_the_books_follow_the_chain() -> None:
    """Revenue is what the claim grew by; withdrawals go to the wallet or to the operator."""
    chain, store = begun(), MemoryStore()
    await follower(chain, store).look()
    a_life(chain, store)
    await follower(chain, store).look()
    by_round = {}
    for each in told(store, money.RevenueRealised):
        by_round[each.round] = by_round.get(each.round, 0) + int(each.amount_wei)
    assert by_round == {1: 126, 2: 900, 3: 7}
    assert balance(store, "claim:main") == -chain.states[-1].pending
    assert balance(store, f"wallet:{WALLET}") == -60
    assert balance(store, "operator") == 400 - 500
    assert [each.round for each in told(store, money.RoundStarted)] == [1, 2, 3]
    assert [int(each.paid_wei) for each in told(store, money.TicketRedeemed)] == [
        100, 40, 0, 1000, 7,
    ]  # fmt: skip
    assert [(each.round, each.own_lpt) for each in told(store, money.RewardCalled)] == [(1, "30")]
    assert [each.round for each in told(store, money.RewardMissed)] == [2]
    assert not balance_faults((b.account, b.amount_wei) for b in store.balances())


async def test_ranges_follow_each_other_and_stay_within_rounds() -> None:
    """Each range starts where the last one ended, and ends with its round at the latest."""
    chain, store = begun(), MemoryStore()
    await follower(chain, store).look()
    a_life(chain, store)
    await follower(chain, store).look()
    ranges = told(store, money.RevenueRealised)
    (opened,) = told(store, money.ClaimOpened)
    assert ranges[0].from_block == opened.block
    assert all(a.to_block == b.from_block for a, b in pairwise(ranges))
    for each in ranges:
        rounds = {chain.states[n].round for n in range(each.from_block + 1, each.to_block + 1)}
        assert rounds <= {each.round}


async def uninterrupted() -> dict[str, Any]:
    chain, store = begun(), MemoryStore()
    await follower(chain, store).look()
    a_life(chain, store)
    await follower(chain, store).look()
    return {each.event.id: each.event.data for each in store.events(EventFilter(limit=1000))}


async def test_a_restart_after_every_step_changes_nothing() -> None:
    """A pool that restarts after each step writes the same events as one that never does."""
    chain, store = begun(), MemoryStore()
    await follower(chain, store).look()
    a_life(chain, store)
    for _ in range(20):
        await follower(chain, store).step()
    events = store.events(EventFilter(limit=1000))
    assert {each.event.id: each.event.data for each in events} == await uninterrupted()


async def test_a_failure_at_every_call_changes_nothing() -> None:
    """Whichever request fails, the next attempt, after a restart, completes the same log."""
    wanted = await uninterrupted()
    for call in range(1, 200):
        chain, store = begun(), MemoryStore()
        await follower(chain, store).look()
        a_life(chain, store)
        chain.calls, chain.fails_at = 0, call
        broken = follower(chain, store)
        await broken.look()
        if chain.calls < call:
            assert call > 30
            return
        assert broken.problem == "The endpoint is away."
        await follower(chain, store).look()
        events = store.events(EventFilter(limit=1000))
        assert {each.event.id: each.event.data for each in events} == wanted
    raise AssertionError("there is no end to its requests")


class Killed(BaseException):
    """The process is gone."""


class DyingStore(MemoryStore):
    """Dies at an append, before or after it is written."""

    at, is_written = 0, False

    def append(self, events: Any) -> Any:
        self.at -= 1
        if self.at == 0 and not self.is_written:
            raise Killed
        receipt = super().append(events)
        if self.at == 0:
            raise Killed
        return receipt


@pytest.mark.parametrize("is_written", [False, True])
async def test_a_death_at_every_write_changes_nothing(is_written: bool) -> None:
    """Whether what was written last reached the disk or not, the log becomes the same."""
    wanted = await uninterrupted()
    for at in range(1, 100):
        chain, store = begun(), DyingStore()
        await follower(chain, store).look()
        a_life(chain, store)
        store.at, store.is_written = at, is_written
        try:
            await follower(chain, store).look()
        except Killed:
            await follower(chain, store).look()
        else:
            assert at > 5
            return
        events = store.events(EventFilter(limit=1000))
        assert {each.event.id: each.event.data for each in events} == wanted
    raise AssertionError("there is no end to its writes")


async def test_a_block_that_may_be_reorganised_is_not_followed() -> None:
    """Blocks that are not safe yet are left alone: what replaces them is what is booked."""
    chain, store = begun(), MemoryStore()
    chain.confirmations = 2
    following = follower(chain, store)
    await following.look()
    chain.ticket(100, 100, 100)
    chain.ticket(900, 900, 900)
    await following.look()
    assert [each.paid_wei for each in told(store, money.TicketRedeemed)] == ["500"]
    chain.states.pop()
    chain.found_tickets.pop()
    for _ in range(3):
        chain.mine()
    await following.look()
    assert [each.paid_wei for each in told(store, money.TicketRedeemed)] == ["500", "100"]
    assert (
        sum(int(each.amount_wei) for each in told(store, money.RevenueRealised)) == 500
    )  # 400 + 100


async def test_an_endpoint_that_lags_behind_is_waited_for() -> None:
    """A safe block older than what is known moves nothing."""
    chain, store = begun(), MemoryStore()
    following = follower(chain, store)
    await following.look()
    a_life(chain, store)
    await following.look()
    before = store.head()
    chain.confirmations = 9
    await following.look()
    assert (store.head(), following.problem) == (before, "")


async def test_blocks_without_news_are_not_written() -> None:
    """A quiet chain writes nothing, and what comes after the quiet is booked whole."""
    chain, store = begun(), MemoryStore()
    following = follower(chain, store)
    await following.look()
    chain.mine()
    await following.look()
    before = store.head()
    for _ in range(5):
        chain.mine()
        await following.look()
    assert store.head() == before
    chain.ticket(100, 100, 90)
    await follower(chain, store).look()
    (realised,) = told(store, money.RevenueRealised)
    assert (realised.from_block, realised.to_block, realised.amount_wei) == (2, 9, "90")


async def test_following_can_begin_in_the_past() -> None:
    """With `from_block` revenue counts from that block on, round by round."""
    chain, store = begun(), MemoryStore()
    a_life(chain, store)
    await follower(chain, store, from_block=2).look()
    assert sum(int(each.amount_wei) for each in told(store, money.RevenueRealised)) == 1033
    assert [each.round for each in told(store, money.RoundStarted)] == [1, 2, 3]


async def test_a_new_address_is_not_followed_under_an_old_name() -> None:
    """The books of an orchestrator belong to one address; another one is told to be renamed."""
    chain, store = begun(), MemoryStore()
    await follower(chain, store).look()
    chain.ticket(5, 5, 5)
    moved = follower(chain, store, orchestrators={NAME: ELSEWHERE})
    await moved.look()
    assert moved.problem.startswith("Orchestrator main was followed at 0x0A0A")
    assert told(store, money.RevenueRealised) == []


async def test_a_second_orchestrator_begins_when_it_is_added() -> None:
    """It opens at the block that is known then, and both are followed side by side."""
    chain, store = begun(), MemoryStore()
    await follower(chain, store).look()
    chain.ticket(10, 10, 10)
    both = follower(chain, store, orchestrators={NAME: ADDRESS, "other": ELSEWHERE})
    await both.look()
    chain.ticket(20, 20, 20)
    chain.next_round()
    await both.look()
    opened = {each.orchestrator: each.block for each in told(store, money.ClaimOpened)}
    assert opened == {NAME: 2, "other": 3}
    got = {NAME: 0, "other": 0}
    for each in told(store, money.RevenueRealised):
        got[each.orchestrator] += int(each.amount_wei)
    assert got == {NAME: 30, "other": 20}  # the toy chain tells everybody the same
    kinds = [stored.event.type for stored in store.events(EventFilter(limit=100))]
    assert kinds.index("round-started", 1) > max(
        i for i, kind in enumerate(kinds[:-3]) if kind == "revenue-realised"
    )


async def test_a_claim_that_shrank_is_a_difference_and_not_negative_revenue() -> None:
    """ETH that left the claim without a withdrawal is told when the round is reconciled."""
    chain, store = begun(), MemoryStore()
    await follower(chain, store).look()
    chain.mine(pending=390)
    chain.ticket(50, 50, 50)
    chain.next_round()
    await follower(chain, store).look()
    (reconciled,) = told(store, money.RevenueReconciled)
    assert (reconciled.realised_wei, reconciled.claim_chain_wei) == ("40", "440")
    chain.mine(pending=400)
    chain.next_round()
    await follower(chain, store).look()
    last = told(store, money.RevenueReconciled)[-1]
    assert (last.realised_wei, last.difference_wei) == ("0", "-40")
    assert last.explanation.startswith("The chain holds 0.00000000000000004 ETH less")


async def test_a_round_is_closed_by_what_is_in_the_log_before_the_next() -> None:
    """Expected is what was credited in the round; the reward is shared by its work, exactly."""
    chain, store = begun(), MemoryStore()
    following = follower(chain, store)
    await following.look()
    await store.append([credit("j1", 100, 75), credit("j2", 60, 25, "0xv")]).durable()
    chain.ticket(120, 120, 120)
    chain.reward(101, 61)
    chain.next_round()
    await following.step()
    await store.append([credit("j3", 1000, 750)]).durable()  # before the round is closed
    await follower(chain, store).look()
    (first,) = told(store, money.RevenueReconciled)
    assert (first.expected_wei, first.realised_wei, first.difference_wei) == ("160", "120", "0")
    assert "Luck: tickets came to 25.0 % below" in first.explanation
    shared = {each.address: each.amount_lpt for each in told(store, money.RewardShared)}
    assert shared == {"0xv": "8", "0xw": "22"}
    assert balance(store, "lpt/operator") == -30
    chain.next_round()
    await follower(chain, store).look()
    assert told(store, money.RevenueReconciled)[-1].expected_wei == "1000"
    fresh = RevenueBooks(store)
    standing = (await fresh.refresh()).standing(NAME)
    assert (standing.expected_wei, standing.realised_wei) == (1160, 120)


def order(kind: str, wallet: str = WALLET, **more: Any) -> Event:
    base: dict[str, Any] = {"order": "o1", "wallet": wallet, "kind": "payout", "asset": "ETH"}
    line = money.OrderLine(account="commission", address="0xw", amount_wei="20", send_wei="20")
    data: Any
    if kind == "planned":
        data = money.OrderPlanned(
            **base, chain_id=1, to="0xw", value_wei="20", data="0x", lines=(line,)
        )
    else:
        data = money.OrderConfirmed(
            **base, tx="0xp", block=more["block"], block_hash="0x", fee_wei="3", lines=(line,)
        )
    return Event(id=f"order/o1/{kind}", time_ms=START_MS, data=data)


async def test_a_wallet_is_compared_when_no_order_is_open() -> None:
    """What the operator put in is booked; while an order is open nothing is concluded."""
    chain, store = begun(), MemoryStore()
    following = follower(chain, store)
    chain.mine(wallet=1000)
    await following.look()
    assert balance(store, f"wallet:{WALLET}") == -1000
    await store.append([order("planned")]).durable()
    chain.mine(wallet=977)
    await following.look()
    assert len(told(store, money.WalletReconciled)) == 1
    await store.append([order("confirmed", block=chain.head)]).durable()
    await following.look()
    chain.mine(wallet=900)
    await following.look()
    (first, second) = told(store, money.WalletReconciled)
    assert (first.direction, first.amount_wei) == ("in", "1000")
    assert (second.direction, second.amount_wei) == ("out", "77")
    assert balance(store, f"wallet:{WALLET}") == -900


async def test_dust_cannot_fill_the_log() -> None:
    """Whoever sends a wei again and again is booked once a round, and then in one sum."""
    chain, store = begun(), MemoryStore()
    following = follower(chain, store)
    for _ in range(5):
        chain.mine(wallet=chain.states[-1].wallet + 1)
        await following.look()
    assert [each.amount_wei for each in told(store, money.WalletReconciled)] == ["1"]
    chain.next_round()
    await following.look()
    assert [each.amount_wei for each in told(store, money.WalletReconciled)] == ["1", "4"]


async def test_wallets_are_compared_where_nothing_is_followed() -> None:
    """A pool that pays on a chain without Livepeer knows what its wallet holds."""
    chain, store = begun(), MemoryStore()
    chain.mine(wallet=9)
    watch = WalletWatch(
        chain=chain,
        livepeer=None,
        books=RevenueBooks(store),
        wallets=[WALLET],
        clock_ms=Clock(),
    )
    await watch.look()
    chain.calls, chain.fails_at = 0, 1
    await watch.look()
    assert balance(store, f"wallet:{WALLET}") == -9


async def test_rounds_go_on_when_the_chain_comes_back_after_the_clock() -> None:
    """Without endpoints rounds are the clock's for a while; the chain's next round takes over."""
    chain, store = begun(), MemoryStore()
    await follower(chain, store).look()
    chain.ticket(10, 10, 10)
    await ClockRounds(
        books=(books := RevenueBooks(store)),
        closing=Closing(books=books, orchestrators=[NAME], clock_ms=Clock()),
        round_ms=1_000,
        clock_ms=lambda: START_MS + 5_000,
    ).look()
    await follower(chain, store).look()
    chain.next_round()
    await follower(chain, store).look()
    starts = [(each.round, each.source) for each in told(store, money.RoundStarted)]
    assert starts == [(1, "chain"), (2, "clock"), (2, "chain")]
    assert sum(int(each.amount_wei) for each in told(store, money.RevenueRealised)) == 10


async def test_an_order_in_a_later_block_is_not_mistaken_for_money_put_in() -> None:
    """An order that was confirmed behind the safe block is waited for."""
    chain, store = begun(), MemoryStore()
    following = follower(chain, store)
    chain.mine(wallet=1000)
    await following.look()
    chain.confirmations = 1
    chain.mine(wallet=977)
    await store.append([order("planned"), order("confirmed", block=chain.head)]).durable()
    await following.look()
    chain.mine()
    await following.look()
    assert [each.amount_wei for each in told(store, money.WalletReconciled)] == ["1000"]
    assert balance(store, f"wallet:{WALLET}") == -977


async def test_every_transfer_of_a_life_sums_to_zero() -> None:
    """The events alone give sound books, and the claim account equals the chain's claim."""
    chain, store = begun(), MemoryStore()
    await follower(chain, store).look()
    a_life(chain, store)
    await follower(chain, store).look()
    balances = Balances()
    for stored in store.events(EventFilter(limit=1000)):
        for transfer in transfers_of(stored.event):
            balances.post(transfer)
    assert balances.faults() == []
    assert balances.amounts["claim:main"] == -chain.states[-1].pending


def test_a_trouble_is_logged_once(capsys: pytest.CaptureFixture[str]) -> None:
    """When it begins, when it becomes another one, and when it is over; not at every look."""
    trouble = Trouble("chain-not-followed")
    for text in ("no answer", "no answer", "a lie", "a lie"):
        trouble.tell(Unavailable(text))
    trouble.over()
    trouble.over()
    told = capsys.readouterr().out
    assert told.count("no answer") == told.count("a lie") == told.count("followed-over") == 1
    assert trouble.text == ""
