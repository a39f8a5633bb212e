"""The shell that settles rounds: once each, the same after any crash, whatever rules do."""

import asyncio
from pathlib import Path
from random import Random

import pytest
from roundlog import InProcess, RoundLog, settled

from openpool.core.events import Event
from openpool.core.money import events as money
from openpool.core.money.events import Scheme
from openpool.core.money.rules import RuleFault
from openpool.rules import holdback
from openpool.store import replay
from openpool.store.memory import MemoryStore
from openpool.store.sqlite import SqliteStore
from openpool.treasury.settle import Settler

SETTLED = {"round-settled", "share-credited", "adjustment-made", "rule-refused"}


class Asked(InProcess):
    """A rule of ours that can be closed."""

    closed = 0

    def close(self) -> None:
        self.closed += 1


def settler(store: MemoryStore | SqliteStore, scheme: Scheme, *rules: Asked) -> Settler:
    return Settler(store=store, scheme=scheme, window_rounds=3, rules=rules)


def random_log(seed: int, scheme: Scheme) -> list[Event]:
    """Some rounds of work and luck, not settled."""
    random, log = Random(seed), RoundLog(scheme)
    for worker in "abcd":
        log.enroll(worker, random.choice(["", "fast"]))
    for number in range(1, random.randint(3, 9)):
        log.start(number, settled=False)
        for _ in range(random.randint(0, 6)):
            log.work(random.choice("abcd"), random.randint(0, 10**6))
        if random.random() < 0.6:
            log.win(random.randint(0, 10**7))
    return log.events


def decided(store: MemoryStore) -> list[Event]:
    return [each.event for each in store.all_events() if each.event.type in SETTLED]


@pytest.mark.parametrize("scheme", ["per-job", "proportional", "window"])
async def test_a_restart_anywhere_gives_the_same_settlements(scheme: Scheme) -> None:
    """A settler that lives through the whole log, and one that is born anew at each event and
    reads no more than it must, settle the same rounds in the same way."""
    for seed in range(25):
        events = random_log(seed, scheme)
        steady, reborn = MemoryStore(), MemoryStore()
        one = settler(steady, scheme, Asked(holdback, "holdback", rounds="2"))
        for event in events:
            steady.append([event])
            await one.settle_due()
            reborn.append([event])
            await settler(reborn, scheme, Asked(holdback, "holdback", rounds="2")).settle_due()
        assert decided(steady) == decided(reborn)
        assert steady.balances() == reborn.balances()
        assert sum(balance.amount_wei for balance in steady.balances()) == 0


async def test_a_settlement_that_was_lost_is_made_again_the_same() -> None:
    """The pool died after the round began and before it was settled; more work came in between."""
    events = random_log(3, "proportional")
    starts = [n for n, event in enumerate(events) if event.type == "round-started"]
    prompt, late = MemoryStore(), MemoryStore()
    prompt.append(events[: starts[2] + 1])
    await settler(prompt, "proportional").settle_due()
    late.append(events[: starts[3]])
    await settler(late, "proportional").settle_due()
    assert decided(prompt) == decided(late)
    assert {event.type for event in decided(late)} == {"round-settled", "share-credited"}


async def test_two_settlers_count_once() -> None:
    """The same settlement appended twice is in the books once."""
    store = MemoryStore()
    store.append(random_log(5, "proportional"))
    first, second = settler(store, "proportional"), settler(store, "proportional")
    await asyncio.gather(first.settle_due(), second.settle_due())
    before = store.balances()
    assert await settler(store, "proportional").settle_due() == 0
    assert store.balances() == before
    alone = MemoryStore()
    alone.append(random_log(5, "proportional"))
    await settler(alone, "proportional").settle_due()
    assert alone.balances() == before


@pytest.mark.parametrize("scheme", ["proportional", "window"])
async def test_a_change_of_terms_is_like_a_restart_with_them(scheme: Scheme) -> None:
    """A longer window and a rule count from the next round's end on, and it makes no difference
    whether the pool lived through the change."""
    for seed in range(15):
        events = random_log(seed, scheme)
        middle = len(events) // 2
        lived, reborn = MemoryStore(), MemoryStore()
        one = settler(lived, scheme)
        for store in (lived, reborn):
            store.append(events[:middle])
        rules = [Asked(holdback, "holdback", rounds="2")]
        await one.change(scheme=scheme, window_rounds=5, rules=rules)
        await settler(reborn, scheme).settle_due()
        assert decided(lived) == decided(reborn)
        for store in (lived, reborn):
            store.append(events[middle:])
        await one.settle_due()
        other = Settler(store=reborn, scheme=scheme, window_rounds=5, rules=rules)
        await other.settle_due()
        assert decided(lived) == decided(reborn)
        assert lived.balances() == reborn.balances()


async def test_the_books_on_disk_agree(tmp_path: Path) -> None:
    """With the real store: settled, opened again, and replayed from the log alone."""
    events = random_log(7, "window")
    async with SqliteStore(tmp_path) as store:
        await store.append(events).durable()
        assert await settler(store, "window").settle_due() > 0
    async with SqliteStore(tmp_path) as store:
        assert await settler(store, "window").settle_due() == 0
    assert replay.check(tmp_path).faults == ()


async def test_a_refused_rule_is_recorded_and_the_round_is_settled() -> None:
    """The rule's process is ended each time, so that no round depends on the one before."""

    class Late(Asked):
        def adjustments(self, round: object) -> object:
            raise RuleFault("it did not answer within 10 s")

    store, rule = MemoryStore(), Late(name="late")
    store.append(random_log(9, "proportional"))
    await settler(store, "proportional", rule).settle_due()
    kinds = [event.data for event in decided(store)]
    refused = [data for data in kinds if isinstance(data, money.RuleRefused)]
    assert refused
    assert {data.reason for data in refused} == {"it did not answer within 10 s"}
    assert len(refused) == sum(isinstance(data, money.RoundSettled) for data in kinds)
    assert rule.closed == len(refused)


async def test_nothing_is_taken_from_a_worker_while_somebody_else_does() -> None:
    """A settlement waits for whoever holds the lock, and then sees what was left."""
    store, spending = MemoryStore(), asyncio.Lock()
    log = RoundLog("per-job")
    log.enroll("a")
    log.start(1)
    log.work("a", 100, 0)
    log.start(2, settled=False)
    store.append(log.events)
    one = Settler(
        store=store,
        scheme="per-job",
        window_rounds=3,
        rules=[Asked(holdback, "holdback", rate="100%")],
        spending=spending,
    )
    async with spending, asyncio.TaskGroup() as tasks:
        task = tasks.create_task(one.settle_due())
        done, _ = await asyncio.wait([task], timeout=0.05)
        assert not done
        account = f"worker:{log.events[0].data.address}"
        paid = money.CorrectionMade(
            correction="1", corrects="", debit=account, credit="operator", amount_wei="60",
            reason="as if paid",
        )  # fmt: skip
        store.append([Event(id="paid", time_ms=1, data=paid)])
        spending.release()
        await task
        await spending.acquire()
    held = [event.data for event in decided(store) if isinstance(event.data, money.AdjustmentMade)]
    assert [each.amount_wei for each in held] == ["40"]
    assert settled(decided(store)).rule == "holdback"
