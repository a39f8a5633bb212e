"""One contract for every store."""

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from stories import (
    START_MS,
    Story,
    assigned,
    at,
    attempt_failed,
    credited,
    delivered,
    failed,
    hedged,
    received,
    refused,
    taken,
    verified,
)

from openpool.core import events as e
from openpool.core.errors import Unavailable
from openpool.core.events import Event
from openpool.core.money.events import RewardShared
from openpool.store.interface import (
    Balance,
    CustomerRow,
    EventFilter,
    InviteRow,
    RollupPoint,
    StoredEvent,
    TokenRow,
)
from openpool.store.memory import MemoryStore
from openpool.store.sqlite import SqliteStore

Store = MemoryStore | SqliteStore
MINUTE = 60_000
FIRST_MINUTE = START_MS - START_MS % MINUTE


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path)
    yield opened
    await close(opened)


async def close(store: Store) -> None:
    """The store on disk may be closed from a thread; the one in memory lives in the loop."""
    if isinstance(store, MemoryStore):
        store.close()
    else:
        await asyncio.to_thread(store.close)


async def put(store: Store, *data: e.AnyPayload, job: str = "j", time_ms: int = START_MS) -> None:
    """Append payloads as events with made-up ids, and wait for the disk."""
    events = [at(f"{job}/{n}/{each.type}", each, time_ms) for n, each in enumerate(data)]
    await store.append(events).durable()


def ids(found: list[StoredEvent]) -> list[str]:
    return [stored.event.id for stored in found]


# --- the log ---


async def test_an_empty_log_has_no_head(store: Store) -> None:
    """A new store has no events, no balances and epoch 0."""
    assert store.head() == (0, "")
    assert (store.events(EventFilter()), store.balances(), store.last_epoch()) == ([], [], 0)


async def test_events_come_back_as_they_were_written(store: Store) -> None:
    """Every event of a story is read back equal, numbered 1, 2, 3 …, and the head is the newest."""
    events = Story(1).events(jobs=20)
    await store.append(events).durable()
    found = list(store.all_events())
    assert [stored.event for stored in found] == events
    assert [stored.seq for stored in found] == list(range(1, len(events) + 1))
    assert store.head() == (len(events), found[-1].chain)


async def test_the_chain_hash_is_as_documented(store: Store) -> None:
    """Anybody can recompute the head from the events with SHA-256, the same in every store."""
    await store.append([at("a", e.WorkerApproved(worker="w"), 7)]).durable()
    await store.append([at("b", e.WorkerApproved(worker="v"), 8)]).durable()
    chain = b""
    for header, worker in ((b'["a",7,1]', b"w"), (b'["b",8,1]', b"v")):
        data = b'{"type":"worker-approved","worker":"' + worker + b'"}'
        leaf = sha256(b"\x00" + header + b"\n" + data).digest()
        chain = sha256(b"\x02" + chain + leaf).digest()
    assert store.head() == (2, chain.hex())


async def test_an_event_counts_once(store: Store) -> None:
    """The same events again, in the same batch or later, change nothing at all."""
    events = Story(2).events(jobs=10)
    await store.append([*events, *events]).durable()
    before = (store.head(), store.balances(), store.counts(), store.workers(), store.transfers())
    await store.append(list(reversed(events))).durable()
    after = (store.head(), store.balances(), store.counts(), store.workers(), store.transfers())
    assert after == before


async def test_turnover_is_what_all_transfers_of_a_kind_moved(store: Store) -> None:
    """It only ever grows, whatever becomes of the balances."""
    await store.append(Story(2).events(jobs=30)).durable()
    moved: dict[str, int] = {}
    for transfer in store.transfers(limit=1_000):
        moved[transfer.kind] = moved.get(transfer.kind, 0) + transfer.amount_wei
    assert store.turnover() == moved
    assert moved.keys() == {"fee", "commission"}
    reward = RewardShared(orchestrator="o", round=1, address="0xa", amount_lpt=str(10**40))
    await store.append([Event(id="r", time_ms=1, data=reward)]).durable()
    assert store.turnover() == moved | {"lpt/reward": 10**40}


async def test_the_first_event_with_an_id_stays(store: Store) -> None:
    """A different event under a known id is dropped: what is written is never changed."""
    await store.append([at("fee", credited("j", "w", 100, 75))]).durable()
    await store.append([at("fee", credited("j", "w", 999, 999))]).durable()
    assert [each.amount_wei for each in store.transfers()] == [75]


async def test_filters_choose_events(store: Store) -> None:
    """Events can be chosen by type, worker, job, time and how their ids begin, and combinations."""
    await put(store, received("a"), assigned("a", 1, "w1"), job="a", time_ms=START_MS)
    await put(store, received("b"), assigned("b", 1, "w2"), job="b", time_ms=START_MS + 5)
    await put(store, e.WorkerApproved(worker="w1"), job="c", time_ms=START_MS + 9)

    def chosen(**fields: object) -> list[int]:
        return [stored.seq for stored in store.events(EventFilter(**fields))]  # type: ignore[arg-type] - keyword arguments of the filter

    assert chosen() == [1, 2, 3, 4, 5]
    assert chosen(types=("job-assigned",)) == [2, 4]
    assert chosen(types=("job-assigned", "worker-approved", "job-assigned")) == [2, 4, 5]
    assert chosen(worker="w1") == [2, 5]
    assert chosen(worker="w1", types=("job-assigned",)) == [2]
    assert chosen(job="b") == [3, 4]
    assert chosen(since_ms=START_MS + 5) == [3, 4, 5]
    assert chosen(id_prefix="b/") == [3, 4]
    assert chosen(id_prefix="b/", types=("job-assigned",)) == [4]
    assert chosen(id_prefix="%") == []
    assert chosen(types=("no-such-type",)) == []
    assert chosen(worker="nobody") == []


async def test_the_log_can_be_paged_both_ways(store: Store) -> None:
    """Pages forwards and backwards meet without a gap or a repetition."""
    await put(store, *[assigned("j", n, "w") for n in range(1, 8)])

    def page(**fields: object) -> list[int]:
        return [stored.seq for stored in store.events(EventFilter(limit=3, **fields))]  # type: ignore[arg-type] - keyword arguments of the filter

    assert [page(), page(after_seq=3), page(after_seq=6)] == [[1, 2, 3], [4, 5, 6], [7]]
    assert [page(newest_first=True), page(newest_first=True, before_seq=5)] == [
        [7, 6, 5],
        [4, 3, 2],
    ]
    both = ("job-assigned", "job-hedged")
    assert page(newest_first=True, types=both, before_seq=7, after_seq=4) == [6, 5]
    assert store.events(EventFilter(limit=0)) == []


async def test_counts_and_epoch(store: Store) -> None:
    """Events are counted by type, and the epoch is that of the newest start."""
    await put(store, e.PoolStarted(epoch=1, version="1"), job="a")
    await put(store, e.PoolStarted(epoch=2, version="1"), received("j"), job="b")
    assert store.counts() == {"job-received": 1, "pool-started": 2}
    assert store.last_epoch() == 2


async def test_text_of_any_kind_survives(store: Store) -> None:
    """Quotes, NULs, line breaks and characters beyond the basic plane come back unchanged."""
    odd = "a'b\"c\\d\x00e\n\u2028 🚀 ﷽"
    event = at(odd.replace("\x00", ""), e.WorkerBanned(worker=odd, reason=odd))
    await store.append([event]).durable()
    await store.append([event]).durable()
    assert [stored.event for stored in store.events(EventFilter(worker=odd))] == [event]


@pytest.mark.parametrize(
    "event",
    [
        at("nul\x00", received("j")),
        at("half a \ud800 character", received("j")),
        at("e", received("half a \ud800 character")),
        at("e", received("j"), -1),
        at("e", received("j"), 2**63),
    ],
)
async def test_an_event_that_cannot_be_kept_fails_only_its_maker(
    store: Store, event: e.Event
) -> None:
    """An id, text or time that no log can hold raises at once; the store goes on."""
    with pytest.raises(ValueError):
        store.append([event])
    await put(store, received("k"))
    assert (store.head()[0], store.failure) == (1, None)


async def test_absurd_durations_do_not_stop_the_store(store: Store) -> None:
    """Figures beyond 64 bits in a rollup are cut there, and the events stay as they were."""
    absurd = msgspec.structs.replace(delivered("j", 1, "w"), duration_ms=2**62)
    for n in range(4):
        await put(store, received(f"j{n}", 2**70), absurd, job=f"j{n}")
    assert store.failure is None
    assert store.counts()["job-delivered"] == 4


async def test_what_is_not_money_is_refused_before_it_is_written(store: Store) -> None:
    """An event with a broken amount raises at once and leaves no trace."""
    with pytest.raises(ValueError, match="whole wei"):
        store.append([at("ok", received("j")), at("bad", taken("j", "w", -1))])
    await store.append([at("next", received("k"))]).durable()
    assert ids(list(store.all_events())) == ["next"]


# --- the books ---


async def test_books_add_up(store: Store) -> None:
    """A fee of 100 is owed by the orchestrator, 75 to the worker and 25 to the pool."""
    await put(store, credited("j", "w", 100, 75), taken("j", "w", 25))
    assert store.balances() == [
        Balance(account="commission", amount_wei=25),
        Balance(account="fees:orch", amount_wei=-100),
        Balance(account="worker:0xw", amount_wei=75),
    ]
    assert store.balances("worker:") == [Balance(account="worker:0xw", amount_wei=75)]
    assert store.balances("work%") == []


async def test_a_long_story_sums_to_zero(store: Store) -> None:
    """After many jobs at fractional prices everybody has what the pixels were worth, to the wei."""
    story = Story(3)
    for job in story.jobs(200):
        store.append(job)
    await store.append([]).durable()
    assert sum(balance.amount_wei for balance in store.balances()) == 0
    rows = store.transfers(limit=10_000)
    paid = sum(row.amount_wei for row in rows)
    assert paid == -sum(b.amount_wei for b in store.balances("fees:"))


async def test_amounts_beyond_64_bits_are_exact(store: Store) -> None:
    """A balance of 2**80 + 3 wei keeps its last wei, in balances, transfers, rollups and rows."""
    big = 2**79 + 1
    await put(store, credited("j", "w", big, big), job="a")
    await put(store, credited("k", "w", big + 1, big + 1), job="b")
    total = 2 * big + 1
    assert store.balances("worker:") == [Balance(account="worker:0xw", amount_wei=total)]
    assert [row.amount_wei for row in store.transfers()] == [big + 1, big]
    (row,) = store.workers()
    assert row.credited_wei == total
    (point,) = store.series(start_ms=START_MS, end_ms=START_MS + 1, step_ms=MINUTE)
    assert (point.fee_wei, point.worker_wei) == (total, total)


async def test_transfers_of_an_account_newest_first(store: Store) -> None:
    """An account's transfers, whether it pays or receives, come page by page, newest first."""
    for n in range(1, 5):
        await put(store, credited(f"j{n}", "w", n, n), taken(f"j{n}", "w", 1), job=f"j{n}")
    mine = store.transfers(account="worker:0xw", limit=3)
    assert [each.amount_wei for each in mine] == [4, 3, 2]
    rest = store.transfers(account="worker:0xw", before=mine[-1].id, limit=3)
    assert [each.amount_wei for each in rest] == [1]
    assert len(store.transfers(account="fees:orch")) == 8
    assert store.transfers(account="worker:0xnobody") == []
    assert store.transfers(before="no-such-transfer") == []
    newest = store.transfers(limit=1)[0]
    assert (newest.event_id, newest.time_ms) == ("j4/1/commission-taken", START_MS)


async def test_carries_remember_fractions(store: Store) -> None:
    """The last carry of each worker and denominator stays; a carry of nothing is forgotten."""
    huge = 10**30 + 1
    await put(
        store,
        credited("a", "w", 1, 1, price="1/3", carry="2/3"),
        credited("b", "w", 1, 1, price="5/6", carry="1/2"),
        credited("c", "w", 1, 1, price=f"1/{huge}", carry=f"{huge - 1}/{huge}"),
        credited("d", "v", 1, 1, price="1/3", carry="1/3"),
    )
    assert store.carries() == {
        ("w", 3): 2,
        ("w", 6): 3,
        ("w", huge): huge - 1,
        ("v", 3): 1,
    }
    await put(store, credited("e", "w", 1, 1, price="1/3", carry="0"), job="later")
    assert ("w", 3) not in store.carries()


# --- workers and rollups ---


async def test_a_workers_row_follows_its_events(store: Store) -> None:
    """Enrolment, approval, connections, work and earnings add up in the worker's row."""
    enrolled = e.WorkerEnrolled(worker="w", address="0xw", name="Ann", group="gold", terms="t")
    await put(store, enrolled, job="1", time_ms=5)
    assert [row.state for row in store.workers()] == ["pending"]
    connected = e.WorkerConnected(
        worker="w", connection="c", kind="stock", capacity=2, capabilities=1, version="v"
    )
    await put(store, e.WorkerApproved(worker="w"), connected, job="2", time_ms=6)
    gone = e.WorkerDisconnected(worker="w", connection="c", reason="gone")
    await put(store, delivered("j", 1, "w"), credited("j", "w", 9, 7), gone, job="3", time_ms=7)
    blamed, unlucky = attempt_failed("k", 2, "w"), attempt_failed("l", 3, "w", blamed=False)
    await put(store, blamed, unlucky, refused("m", 4, "w"), job="4", time_ms=8)
    row = store.worker("w")
    assert row is not None
    assert row == store.workers()[0]
    assert (row.address, row.name, row.group, row.state) == ("0xw", "Ann", "gold", "approved")
    assert (row.enrolled_ms, row.last_connected_ms, row.last_disconnected_ms) == (5, 6, 7)
    assert (row.segments, row.failed, row.refused, row.credited_wei) == (1, 1, 1, 7)
    await put(store, e.WorkerBanned(worker="w", reason="liar"), job="5")
    banned = store.worker("w")
    assert banned is not None
    assert banned.state == "banned"
    assert store.worker("nobody") is None


async def test_rollups_count_what_happened_in_a_minute(store: Store) -> None:
    """A delivered segment counts with its own verified time and pixels, per worker and for all."""
    await put(
        store,
        received("j"),
        assigned("j", 1, "slow"),
        hedged("j", 2, "w"),
        refused("j", 1, "slow"),
        verified("j", 2, "w", pixels=77),
        delivered("j", 2, "w"),
        credited("j", "w", 100, 75),
        attempt_failed("k", 3, "slow"),
        failed("k"),
    )
    span = {"start_ms": FIRST_MINUTE, "end_ms": FIRST_MINUTE + MINUTE, "step_ms": MINUTE}
    done = RollupPoint(
        start_ms=FIRST_MINUTE,
        segments=1,
        failed=0,
        refused=0,
        hedged=1,
        media_ms=2_000,
        busy_ms=700,
        latency_ms=1_100,
        pixels=77,
        fee_wei=100,
        worker_wei=75,
    )
    assert store.series(**span, worker="w") == [done]
    (slow,) = store.series(**span, worker="slow")
    assert (slow.segments, slow.failed, slow.refused, slow.hedged) == (0, 1, 1, 0)
    (everyone,) = store.series(**span)
    assert (everyone.segments, everyone.failed, everyone.refused) == (1, 1, 1)
    assert (everyone.pixels, everyone.fee_wei) == (77, 100)


async def test_a_series_has_no_holes(store: Store) -> None:
    """Buckets start at multiples of the step and are there even when nothing happened."""
    for minute in (0, 1, 7):
        time_ms = FIRST_MINUTE + minute * MINUTE + 100
        await put(store, delivered(f"j{minute}", 1, "w"), job=f"j{minute}", time_ms=time_ms)
    step = 2 * MINUTE
    start = FIRST_MINUTE - FIRST_MINUTE % step
    points = store.series(start_ms=start + 5, end_ms=start + 10 * MINUTE, step_ms=step)
    assert [point.start_ms for point in points] == [start + n * step for n in range(5)]
    assert sum(point.segments for point in points) == 3
    assert store.series(start_ms=50, end_ms=50 - MINUTE, step_ms=MINUTE) == []


@pytest.mark.parametrize("step_ms", [0, -MINUTE, 1_000, 90_000])
async def test_a_series_goes_by_whole_minutes(store: Store, step_ms: int) -> None:
    """A step that is no multiple of a minute is refused."""
    with pytest.raises(ValueError, match="multiple"):
        store.series(start_ms=0, end_ms=MINUTE, step_ms=step_ms)


async def test_a_series_has_a_bounded_length(store: Store) -> None:
    """Asking for every minute since 1970 is refused instead of eating the memory."""
    with pytest.raises(ValueError, match="longer step"):
        store.series(start_ms=0, end_ms=START_MS, step_ms=MINUTE)


async def test_open_jobs_are_those_that_can_still_be_saved(store: Store) -> None:
    """Jobs not settled and with their deadline ahead, and those attempts that still run."""
    await put(store, received("done"), delivered("done", 1, "w"), job="done")
    await put(store, received("lost"), failed("lost"), job="lost")
    await put(store, received("late", START_MS + 10), job="late")
    await put(
        store,
        received("open"),
        assigned("open", 1, "w1"),
        attempt_failed("open", 1, "w1"),
        assigned("open", 2, "w2"),
        hedged("open", 3, "w3"),
        job="open",
    )
    ((event, attempts),) = store.open_jobs(START_MS + 10)
    assert event.data == received("open")
    assert attempts == [(2, "w2"), (3, "w3")]
    assert len(store.open_jobs(START_MS)) == 2


async def test_a_start_forgets_jobs_whose_deadline_has_passed(store: Store) -> None:
    """Jobs that died with an earlier process are not kept for ever."""
    await put(store, received("dead", START_MS + 10), received("alive"), job="a")
    started = e.PoolStarted(epoch=2, version="1")
    await put(store, started, job="b", time_ms=START_MS + 10)
    assert [event.data for event, _ in store.open_jobs(0)] == [received("alive")]


# --- the feed ---


async def test_listeners_get_committed_events_in_order(store: Store) -> None:
    """A listener sees every event from its subscription on, in log order, and each once."""
    await put(store, received("before"), job="before")
    listener = store.subscribe()
    events = Story(4).events(jobs=30)
    for event in events:
        store.append([event])
    await store.append(events[:5]).durable()
    heard: list[StoredEvent] = []
    while len(heard) < len(events):
        heard += await anext(listener)
    assert heard == store.events(EventFilter(after_seq=1, limit=1_000))
    assert [stored.event for stored in heard] == events


async def test_listeners_end_when_the_store_closes(store: Store) -> None:
    """Closing ends every listener, and one who comes later ends at once."""
    listener, waiting = store.subscribe(), store.subscribe()
    await put(store, received("j"))
    assert len(await anext(waiting)) == 1
    async with asyncio.TaskGroup() as group, asyncio.timeout(10):
        ended = group.create_task(anext(waiting, None))
        await asyncio.sleep(0)
        await close(store)
    assert ended.result() is None
    assert [len(batch) async for batch in listener] == [1]
    assert [batch async for batch in store.subscribe()] == []


async def test_a_closed_store_takes_nothing(store: Store) -> None:
    """An append after closing fails with one sentence instead of being lost silently."""
    await close(store)
    with pytest.raises(Unavailable, match="closed"):
        await store.append([at("e", received("j"))]).durable()


# --- the registry ---


def token(name: str, **fields: object) -> TokenRow:
    values: dict[str, object] = {
        "token": name,
        "worker": "w",
        "secret_hash": name.encode(),
        "created_ms": 1,
        "last_used_ms": 0,
        "expires_ms": 0,
        "revoked_ms": 0,
        "label": "",
    }
    return TokenRow(**{**values, **fields})  # type: ignore[arg-type] - a row from keyword arguments


async def test_tokens_are_found_by_hash_and_revoked_once(store: Store) -> None:
    """A token is found by the hash of its secret; revoking keeps it on record with the time."""
    await store.put_token(token("b", created_ms=2))
    await store.put_token(token("a"))
    await store.put_token(token("c", worker="v"))
    assert [row.token for row in store.tokens("w")] == ["a", "b"]
    assert [row.token for row in store.tokens()] == ["a", "c", "b"]
    assert store.token_by_hash(b"a") == token("a")
    assert store.token_by_hash(b"?") is None
    await store.touch_token("a", 50)
    await store.touch_token("a", 40)
    await store.expire_token("a", 90)
    assert await store.revoke_token("a", 60) is True
    assert await store.revoke_token("a", 70) is False
    assert await store.revoke_token("nope", 70) is False
    assert store.token_by_hash(b"a") == token("a", last_used_ms=50, expires_ms=90, revoked_ms=60)


async def test_customers_are_kept_and_changed(store: Store) -> None:
    """A customer comes back as it was put, exact to the wei; putting it again changes it."""
    ann = CustomerRow(
        customer="c_a", name="Ann", created_ms=2, requests_per_minute=0, spend_limit_wei=2**90
    )
    ben = CustomerRow(
        customer="c_b", name="Ben", created_ms=1, requests_per_minute=7, spend_limit_wei=None
    )
    await store.put_customer(ann)
    await store.put_customer(ben)
    assert store.customers() == [ben, ann]
    free = msgspec.structs.replace(ann, requests_per_minute=9, spend_limit_wei=0)
    await store.put_customer(free)
    assert store.customers() == [ben, free]


async def test_an_invitation_is_good_once(store: Store) -> None:
    """An invitation can be used once and before it expires; only its hash is kept."""
    invite = InviteRow(secret_hash=b"h", group="gold", label="Ann", created_ms=1, expires_ms=100)
    await store.put_invite(invite)
    assert store.invites() == [invite]
    assert await store.take_invite(b"h", 99) == invite
    assert await store.take_invite(b"h", 99) is None
    await store.put_invite(invite)
    assert await store.take_invite(b"h", 100) is None
    assert store.invites() == []


async def test_settings_hold_any_json(store: Store) -> None:
    """A setting comes back as it was set, big numbers too; an unknown one is None."""
    value = {"price": "1/3", "ppm": 250_000, "list": [1, None, True, 2**70]}
    await store.set_setting("s", value)
    assert store.setting("s") == value
    await store.set_setting("s", "new")
    assert store.setting("s") == "new"
    assert store.setting("unknown") is None
