"""What only the store on disk promises: locking, failing disks, restarts, other processes."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import apsw
import pytest
from faulty_disk import FullDisk
from stories import START_MS, Story, at, received

from openpool.core.errors import SetupError, Unavailable
from openpool.core.money.events import RewardShared
from openpool.store import database, replay
from openpool.store.interface import EventFilter
from openpool.store.memory import MemoryStore
from openpool.store.reader import SqliteReader
from openpool.store.sqlite import SqliteStore


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


def is_one_sentence(text: str) -> bool:
    return text.endswith(".") and "\n" not in text and "Traceback" not in text


# --- restarts ---


def test_turnover_of_a_database_without_it_is_summed_up(tmp_path: Path) -> None:
    """A database of the version before gets the exact sums of the transfers that it holds."""
    reward = RewardShared(orchestrator="o", round=1, address="0xa", amount_lpt=str(10**40))
    with closing(SqliteStore(tmp_path)) as store:
        store.append([*Story(3).events(jobs=20), at("r1", reward), at("r2", reward)])
    with closing(apsw.Connection(str(tmp_path / database.FILE))) as connection:
        connection.execute("DROP TABLE turnover; DROP TABLE checkpoint")
        connection.pragma("user_version", 4)
    with closing(SqliteStore(tmp_path)) as store:
        assert store.turnover()["lpt/reward"] == 2 * 10**40
    assert replay.check(tmp_path).faults == ()


async def test_a_restart_continues_the_log_and_the_books(directory: Path) -> None:
    """A store opened again goes on where it stopped, as if it had never been closed."""
    story = Story(5)
    first, second = story.events(40), story.events(40)
    async with SqliteStore(directory) as store:
        await store.append(first).durable()
    async with SqliteStore(directory) as store:
        await store.append([*first[-5:], *second]).durable()
        restarted = (store.head(), store.balances(), store.workers(), store.carries())
    async with SqliteStore(directory / "other") as store:
        await store.append([*first, *second]).durable()
        assert (store.head(), store.balances(), store.workers(), store.carries()) == restarted


async def test_closing_writes_what_waits(directory: Path) -> None:
    """Events handed in just before closing are on disk afterwards."""
    events = Story(6).events(50)
    store = SqliteStore(directory)
    for event in events:
        store.append([event])
    store.close()
    assert SqliteReader(directory).head()[0] == len(events)


def test_it_works_without_an_event_loop(directory: Path) -> None:
    """Tools without asyncio can append and wait."""
    store = SqliteStore(directory)
    receipt = store.append([at("e", received("j"))])
    receipt.wait()
    assert store.head()[0] == 1
    store.close()


@pytest.mark.parametrize("seed", range(3))
async def test_disk_and_memory_agree(directory: Path, seed: int) -> None:
    """The same batches, cut at random and partly repeated, leave both stores with equal books."""
    random, memory = Random(seed), MemoryStore()
    events = Story(seed).events(120)
    async with SqliteStore(directory) as store:
        for start in range(0, len(events), 10):
            batch = events[start : start + 10] + random.choices(events[: start + 10], k=5)
            batch = sorted(batch, key=events.index)
            memory.append(batch)
            store.append(batch)
            if random.random() < 0.3:
                await store.append([]).durable()
        await store.append([]).durable()
        span = {"start_ms": START_MS, "end_ms": START_MS + 10**6, "step_ms": 60_000}
        for worker in ("", "w0", "w1"):
            assert store.series(**span, worker=worker) == memory.series(**span, worker=worker)
        assert list(store.all_events()) == list(memory.all_events())
        assert store.transfers(limit=10_000) == memory.transfers(limit=10_000)
        assert (store.balances(), store.carries()) == (memory.balances(), memory.carries())
        assert (store.workers(), store.counts()) == (memory.workers(), memory.counts())


# --- group commit ---


async def test_one_of_many_who_wait_may_give_up(directory: Path) -> None:
    """Cancelling one waiter of a group disturbs neither the others nor the commit."""
    async with SqliteStore(directory) as store:
        receipts = [store.append([event]) for event in Story(7).events(20)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(receipt.durable()) for receipt in receipts]
            await asyncio.sleep(0)
            tasks[0].cancel()
        assert not any(task.cancelled() for task in tasks[1:])
        assert store.head()[0] == len(receipts)


async def test_append_never_waits_for_the_disk(directory: Path) -> None:
    """While the disk is stuck, append returns, and the receipts follow when it works again."""
    async with SqliteStore(directory) as store:
        with closing(apsw.Connection(str(directory / database.FILE))) as blocker:
            blocker.execute("BEGIN IMMEDIATE")
            receipts = [store.append([event]) for event in Story(8).events(20)]
            assert store.head()[0] == 0
            blocker.execute("ROLLBACK")
        for receipt in receipts:
            await receipt.durable()
        assert store.head()[0] == len(receipts)


async def test_a_disk_that_cannot_keep_up_stops_the_store(directory: Path) -> None:
    """When too many events wait the store says so and stops; what was taken is still written."""
    async with SqliteStore(directory, events_max=100) as store:
        events = Story(9).events(60)
        with closing(apsw.Connection(str(directory / database.FILE))) as blocker:
            blocker.execute("BEGIN IMMEDIATE")
            taken = [store.append([event]) for event in events[:100]]
            while store.waiting < 100:  # what the writer took at once does not wait any more
                taken.append(store.append([events[len(taken)]]))
            refused = store.append([events[len(taken)]])
            blocker.execute("ROLLBACK")
        with pytest.raises(Unavailable, match="cannot keep up") as raised:
            await refused.durable()
        assert is_one_sentence(str(raised.value))
        assert store.failure == str(raised.value)
        for receipt in taken:
            await receipt.durable()
        assert store.head()[0] == len(taken)


# --- failing disks ---


@pytest.fixture(params=[(apsw.FullError, "is full"), (apsw.IOError, "cannot be written")])
def broken(request: pytest.FixtureRequest) -> Iterator[tuple[FullDisk, str]]:
    error, words = request.param
    disk = FullDisk(f"disk-{error.__name__}", error)
    yield disk, words
    disk.unregister()


async def test_a_failed_disk_loses_nothing_that_was_acknowledged(
    directory: Path, broken: tuple[FullDisk, str]
) -> None:
    """A full or broken disk gives one sentence, stops the store, leaves nothing half-written."""
    disk, words = broken
    story = Story(10)
    store = SqliteStore(directory, vfs=disk.name)
    listener = store.subscribe()
    kept = story.events(20)
    await store.append(kept).durable()
    disk.full = True
    failing = [store.append(job) for job in story.jobs(20)]
    for receipt in failing:
        with pytest.raises(Unavailable, match=words) as raised:
            await receipt.durable()
        assert is_one_sentence(str(raised.value))
        assert str(directory) in str(raised.value)
    assert store.failure == await store.wait_failed() == str(raised.value)
    with pytest.raises(Unavailable, match=words):
        await store.append(story.job()).durable()
    with pytest.raises(Unavailable, match=words):
        await store.set_setting("a", 1)
    await asyncio.to_thread(store.close)
    assert [stored.event for batch in [b async for b in listener] for stored in batch] == kept

    async with SqliteStore(directory) as again:
        assert [stored.event for stored in again.all_events()] == kept
        assert sum(balance.amount_wei for balance in again.balances()) == 0
        await again.append(story.job()).durable()


def test_a_full_disk_at_the_start_is_said_in_one_sentence(
    directory: Path, broken: tuple[FullDisk, str]
) -> None:
    """A pool that cannot even create its database says why."""
    disk, words = broken
    disk.full = True
    with pytest.raises(SetupError, match=words) as raised:
        SqliteStore(directory, vfs=disk.name)
    assert is_one_sentence(str(raised.value))


# --- who may open it ---


def test_a_second_pool_is_told_which_process_holds_the_data(directory: Path) -> None:
    """Another process that opens the same directory reads the holder's id and what to do."""
    store = SqliteStore(directory)
    program = (
        "import sys; from pathlib import Path; from openpool.store.sqlite import SqliteStore\n"
        "try: SqliteStore(Path(sys.argv[1]))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    second = subprocess.run(
        [sys.executable, "-c", program, str(directory)], capture_output=True, text=True, timeout=60
    )
    store.close()
    assert second.stderr == ""
    assert f"SetupError Another pool (process {os.getpid()}) already uses" in second.stdout
    SqliteStore(directory).close()


def test_a_failed_start_frees_the_lock(directory: Path) -> None:
    """After a start that failed the directory can be used again by the same process."""
    directory.mkdir()
    (directory / database.FILE).write_bytes(b"this is no database, " * 100)
    with pytest.raises(SetupError):
        SqliteStore(directory)
    (directory / database.FILE).unlink()
    SqliteStore(directory).close()


def test_a_database_from_a_newer_version_is_refused(directory: Path) -> None:
    """A newer schema is named, and nothing is changed."""
    SqliteStore(directory).close()
    with closing(apsw.Connection(str(directory / database.FILE))) as connection:
        connection.pragma("user_version", 999)
    for open_it in (SqliteStore, SqliteReader):
        with pytest.raises(SetupError, match=r"newer Open Pool \(schema 999") as raised:
            open_it(directory)
        assert is_one_sentence(str(raised.value))


def test_a_damaged_database_is_refused(directory: Path) -> None:
    """A file that is no database, and one whose pages are overwritten, each give one sentence."""
    SqliteStore(directory).close()
    file = directory / database.FILE
    whole = file.read_bytes()
    for damaged in (b"garbage" * 1000, whole[:20] + os.urandom(len(whole) - 20), whole[:3000]):
        file.write_bytes(damaged)
        with pytest.raises(SetupError, match="damaged") as raised:
            SqliteStore(directory)
        assert is_one_sentence(str(raised.value))


def test_another_programs_database_is_refused(directory: Path) -> None:
    """A SQLite file of some other program is left alone."""
    directory.mkdir()
    with closing(apsw.Connection(str(directory / database.FILE))) as connection:
        connection.pragma("application_id", 1234)
        connection.execute("CREATE TABLE theirs (a)")
    with pytest.raises(SetupError, match="another program"):
        SqliteStore(directory)


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """A file where the directory should be gives a sentence with the path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match=r"The data folder .* cannot be used"):
        SqliteStore(tmp_path / "file")


def test_reading_before_the_first_start_says_so(tmp_path: Path) -> None:
    """A reader without a database says to start the pool."""
    with pytest.raises(SetupError, match="start the pool once"):
        SqliteReader(tmp_path)


def test_an_old_sqlite_is_refused() -> None:
    """A SQLite that can lose commits is refused by name."""
    with pytest.raises(SetupError, match=r"SQLite 3\.51\.2 can lose data"):
        database.check_library("3.51.2")
    database.check_library("3.51.3")


# --- readers ---


async def test_readers_in_threads_see_only_whole_commits(directory: Path) -> None:
    """While events are written, readers in many threads always find books that sum to zero."""
    async with SqliteStore(directory) as store:
        done = threading.Event()

        def read() -> int:
            rounds = 0
            while not done.is_set() or rounds == 0:
                assert sum(balance.amount_wei for balance in store.balances()) == 0
                seq, chain = store.head()
                found = store.events(EventFilter(after_seq=seq - 1, limit=1))
                assert seq == 0 or found[0].chain == chain
                rounds += 1
            return rounds

        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(asyncio.to_thread(read)) for _ in range(4)]
            for job in Story(11).jobs(100):
                await store.append(job).durable()
            done.set()
        assert all(reader.result() > 0 for reader in readers)


async def test_a_reader_beside_the_pool_sees_its_events(directory: Path) -> None:
    """A second reader of the same directory, as another process has it, needs no lock."""
    async with SqliteStore(directory) as store:
        reader = SqliteReader(directory)
        await store.append(Story(12).events(10)).durable()
        assert reader.head() == store.head()
        assert reader.balances() == store.balances()
        reader.close()


async def test_a_slow_listener_sees_a_gap_and_finds_it_in_the_log(directory: Path) -> None:
    """A listener that falls behind loses the oldest events; the numbers show which."""
    async with SqliteStore(directory) as store:
        listener = store.subscribe()
        events = [at(f"e{n}", received(f"j{n}")) for n in range(10_050)]
        await store.append(events).durable()
        batch = await anext(listener)
        assert (batch[0].seq, batch[-1].seq, len(batch)) == (51, 10_050, 10_000)
        assert len(store.events(EventFilter(before_seq=batch[0].seq))) == 50


# --- the schema ---


def test_the_schema_file_is_what_all_migrations_add_up_to(tmp_path: Path) -> None:
    """`schema.sql`, which people read, creates exactly the tables that the migrations create."""

    def tables(*scripts: str) -> list[tuple[str, str]]:
        with closing(apsw.Connection(":memory:")) as connection:
            database.add_functions(connection)
            for script in scripts:
                connection.execute(script)
            return list(connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY name"))

    schema = (Path(database.__file__).parent / "schema.sql").read_text()
    assert tables(schema) == tables(*(sql for _, sql in database.migrations()))


def test_every_table_is_strict(directory: Path) -> None:
    """No column quietly takes a value of another type."""
    SqliteStore(directory).close()
    with closing(apsw.Connection(str(directory / database.FILE))) as connection:
        loose = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND strict = 0"
        found = [name for (name,) in connection.execute(loose) if not name.startswith("sqlite_")]
    assert found == []
