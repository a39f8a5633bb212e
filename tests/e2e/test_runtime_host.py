"""The host of runtimes with real processes: what goes wrong in one costs one call."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
from odd_runtime import Odd, Parallel, Talkative
from runtimes import APP, host_of, request, settings, whole

from openpool.core.calls import App
from openpool.core.errors import NoCapacity
from openpool.wire.framing import CONTENT_TYPE as MESSAGES
from openpool.wire.framing import pack
from openpool.worker.runtimes.frames import Call
from openpool.worker.runtimes.host import Host
from openpool.worker.runtimes.process import RuntimeFailed


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Child processes find the odd runtimes, too."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))


async def wait_offers(host: Host, warm: int) -> None:
    """Until so many apps are warm."""
    async with asyncio.timeout(20):
        async for offers in host.board:
            if sum(offer.warm for offer in offers) == warm:
                return


async def until(true: Callable[[], bool]) -> None:
    """Until it is so."""
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def pid_of(host: Host) -> int:
    return int(await whole(await host.answer(request("/pid"))))


async def test_a_call_is_answered_by_a_warm_process(tmp_path: Path) -> None:
    """What was sent comes back as it was, and the process stays for the next call."""
    async with host_of(settings(), cache=tmp_path).running() as host:
        await wait_offers(host, 1)
        answer = await host.answer(request("/echo", b"hello", content_type="text/odd"))
        assert (answer.status, answer.headers["content-type"]) == (200, "text/odd")
        assert answer.headers["content-length"] == "5"
        assert await whole(answer) == b"hello"
        assert await pid_of(host) == await pid_of(host)
        assert [offer.capacity for offer in host.offers()] == [1]


async def test_a_crash_costs_one_call(tmp_path: Path) -> None:
    """The process is gone with its call, which may go elsewhere; soon there is another process."""
    async with host_of(settings(), cache=tmp_path).running() as host:
        await wait_offers(host, 1)
        before = await pid_of(host)
        with pytest.raises(RuntimeFailed, match="SIGSEGV"):
            await host.answer(request("/crash"))
        await wait_offers(host, 1)
        assert await pid_of(host) != before


async def test_while_one_process_crashes_the_others_go_on(tmp_path: Path) -> None:
    """Two processes of one runtime do not share their fate."""
    async with host_of(settings(processes=2), cache=tmp_path).running() as host:
        await wait_capacity(host, 2)
        drip = await host.answer(request("/drip", str(tmp_path / "note").encode()))
        with pytest.raises(RuntimeFailed):
            await host.answer(request("/crash"))
        assert await anext(drip.body) == b"drop\n"
        await drip.body.aclose()


async def wait_capacity(host: Host, capacity: int) -> None:
    async with asyncio.timeout(20):
        async for offers in host.board:
            if sum(offer.capacity for offer in offers) == capacity:
                return


async def test_a_hang_ends_at_the_time_limit(tmp_path: Path) -> None:
    """A runtime that never answers is killed when its time is over."""
    async with host_of(settings(time_limit_s=1), cache=tmp_path).running() as host:
        await wait_offers(host, 1)
        before = time.monotonic()
        with pytest.raises(RuntimeFailed, match="longer than 1 s"):
            await host.answer(request("/hang"))
        assert time.monotonic() - before < 3


async def test_a_leak_ends_at_the_memory_limit(tmp_path: Path) -> None:
    """A runtime that eats memory is killed before the machine suffers."""
    async with host_of(settings(memory_mb=300), cache=tmp_path).running() as host:
        await wait_offers(host, 1)
        with pytest.raises(RuntimeFailed, match="more than 300 MB"):
            await host.answer(request("/leak"))


async def test_temporary_files_go_with_their_process(tmp_path: Path) -> None:
    """What a killed process had on the disk of customers' data is removed, not left for ever."""
    note = tmp_path / "note"
    async with host_of(settings(), cache=tmp_path).running() as host:
        await wait_offers(host, 1)
        with pytest.raises(RuntimeFailed, match="SIGKILL"):
            await host.answer(request("/litter", str(note).encode()))
        left = Path(note.read_text())
        (keeper,) = host._served.values()
        assert left.is_relative_to(keeper._folder)  # type: ignore[attr-defined]
        await until(lambda: not left.exists())


async def test_a_bad_request_is_answered(tmp_path: Path) -> None:
    """The client hears what is wrong; the process lives on."""
    async with host_of(settings(), cache=tmp_path).running() as host:
        await wait_offers(host, 1)
        before = await pid_of(host)
        answer = await host.answer(request("/bad"))
        assert answer.status == 400
        assert json.loads(await whole(answer))["error"]["message"] == "the request is odd"
        assert await pid_of(host) == before


async def test_a_bug_says_nothing_of_the_inside(tmp_path: Path) -> None:
    """The client hears that the runtime failed, not what was in it; the process lives on."""
    async with host_of(settings(), cache=tmp_path).running() as host:
        await wait_offers(host, 1)
        before = await pid_of(host)
        with pytest.raises(RuntimeFailed) as failure:
            await host.answer(request("/bug"))
        assert "secret" not in str(failure.value)
        assert await pid_of(host) == before


async def test_words_that_cannot_be_sent_cost_one_call(tmp_path: Path) -> None:
    """A library's error in letters that are none reaches the client, and the process lives on."""
    async with host_of(settings(), cache=tmp_path).running() as host:
        await wait_offers(host, 1)
        before = await pid_of(host)
        answer = await host.answer(request("/garbled", b"x"))
        assert (answer.status, b"? is half a letter" in await whole(answer)) == (400, True)
        with pytest.raises(RuntimeFailed, match="failed on this request"):
            await host.answer(request("/garbled"))
        assert await pid_of(host) == before


async def test_unknown_apps_and_paths_are_named(tmp_path: Path) -> None:
    """A model or a path that is not there is the client's mistake."""
    async with host_of(settings(), cache=tmp_path).running() as host:
        other = await host.answer(request("/echo", app=App("test", "other/model")))
        assert (other.status, b"test/other/model" in await whole(other)) == (404, True)
        path = await host.answer(request("/nothing"))
        assert (path.status, b"/nothing" in await whole(path)) == (404, True)


async def test_an_answer_streams_in_order(tmp_path: Path) -> None:
    """No chunk is lost or out of order."""
    async with host_of(settings(), cache=tmp_path).running() as host:
        await wait_offers(host, 1)
        lines = (await whole(await host.answer(request("/count")))).split()
        assert lines == [str(i).encode() for i in range(1000)]


async def test_whoever_hangs_up_stops_the_runtime(tmp_path: Path) -> None:
    """A cancelled stream ends the generator in the process, which stays warm."""
    note = tmp_path / "note"
    async with host_of(settings(), cache=tmp_path).running() as host:
        await wait_offers(host, 1)
        before = await pid_of(host)
        answer = await host.answer(request("/drip", str(note).encode()))
        assert await anext(answer.body) == b"drop\n"
        started = time.monotonic()
        await answer.body.aclose()
        assert await pid_of(host) == before
        assert time.monotonic() - started < 1
        assert note.read_text() == "stopped"


async def test_whoever_hangs_up_unread_stops_the_runtime(tmp_path: Path) -> None:
    """Closing an answer that nobody has begun to read counts as well."""
    note = tmp_path / "note"
    async with host_of(settings(), cache=tmp_path).running() as host:
        await wait_offers(host, 1)
        answer = await host.answer(request("/drip", str(note).encode()))
        await answer.body.aclose()
        await pid_of(host)
        assert note.read_text() == "stopped"


async def test_a_runtime_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    """Soon after the client left, whatever it does: 0.6 s, and what a busy machine adds."""
    note = tmp_path / "note"
    async with host_of(settings(), cache=tmp_path).running() as host:
        await wait_offers(host, 1)
        before = await pid_of(host)
        answer = await host.answer(request("/stuck", str(note).encode()))
        assert await anext(answer.body) == b"first\n"
        await until(note.exists)
        started = time.monotonic()
        await answer.body.aclose()
        await until(lambda: not psutil.pid_exists(before))
        assert time.monotonic() - started < 2
        assert await pid_of(host) != before


async def test_a_cancelled_wait_stops_the_runtime(tmp_path: Path) -> None:
    """A client that leaves before the answer begins frees the process, too."""
    async with host_of(settings(), cache=tmp_path).running() as host:
        await wait_offers(host, 1)
        before = await pid_of(host)
        note = tmp_path / "note"
        waiting = asyncio.ensure_future(host.answer(request("/hang", str(note).encode())))
        await until(note.exists)
        waiting.cancel()
        await asyncio.wait([waiting])
        started = time.monotonic()
        assert await pid_of(host) != before
        assert time.monotonic() - started < 4


async def test_death_in_mid_stream_breaks_the_answer_off(tmp_path: Path) -> None:
    """What came before is delivered; then the reader hears that it broke."""
    async with host_of(settings(), cache=tmp_path).running() as host:
        await wait_offers(host, 1)
        answer = await host.answer(request("/die"))
        assert await anext(answer.body) == b"first\n"
        with pytest.raises(RuntimeFailed, match="SIGKILL"):
            await anext(answer.body)


async def test_a_slow_reader_holds_the_runtime_back(tmp_path: Path) -> None:
    """Nothing piles up: a runtime whose answer is not read waits."""
    note = tmp_path / "note"
    async with host_of(settings(), cache=tmp_path).running() as host:
        await wait_offers(host, 1)
        answer = await host.answer(request("/flood", str(note).encode()))
        await anext(answer.body)
        seen, now = -1, 0
        while seen != now:
            await asyncio.sleep(0.3)
            seen, now = now, note.stat().st_size
        assert now * 65536 < 3 << 20
        assert len(await whole(answer)) == 64 * (1 << 20) - 65536


async def test_a_large_body_arrives_whole(tmp_path: Path) -> None:
    """Bodies that do not fit into memory's share go through a file, which is gone afterwards."""
    async with host_of(settings(), cache=tmp_path).running() as host:
        await wait_offers(host, 1)
        body = bytes(range(256)) * (40_000)
        answer = await host.answer(request("/echo", body))
        assert await whole(answer) == body
        (keeper,) = host._served.values()
        left = keeper._folder.rglob("*")  # type: ignore[attr-defined]
        assert [path for path in left if path.is_file()] == []


async def test_a_huge_upload_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """300 MB announced are refused at once; unannounced ones as soon as they are too many."""
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1 << 20
            yield bytes(1 << 20)

    async with host_of(settings(request_mb=8), cache=tmp_path).running() as host:
        await wait_offers(host, 1)
        announced = request("/size", endless(), content_length=str(300_000_000))
        answer = await host.answer(announced)
        assert (answer.status, read) == (413, 0)
        answer = await host.answer(request("/size", endless()))
        assert answer.status == 413
        assert read < 10 << 20
        assert b"larger than 8 MB" in await whole(answer)


async def test_calls_queue_a_little_and_are_then_refused(tmp_path: Path) -> None:
    """One call may wait for a busy process; those after it go elsewhere at once."""
    async with host_of(settings(), cache=tmp_path).running() as host:
        await wait_offers(host, 1)
        first = await host.answer(request("/drip", str(tmp_path / "note").encode()))
        second = asyncio.ensure_future(host.answer(request("/pid")))
        await asyncio.sleep(0)
        with pytest.raises(NoCapacity):
            await host.answer(request("/pid"))
        await first.body.aclose()
        assert (await second).status == 200
        await whole(await second)


async def test_one_process_serves_several_calls_at_once(tmp_path: Path) -> None:
    """A runtime that can is given as many as its owner wants, and offers as many."""
    async with host_of(settings(Parallel, parallel=3), cache=tmp_path).running() as host:
        await wait_capacity(host, 3)
        async with asyncio.timeout(9):
            met = [asyncio.ensure_future(host.answer(request("/meet"))) for _ in range(3)]
            pids = {await whole(await each) for each in met}
        assert pids == {str(await pid_of(host)).encode()}


async def test_a_slow_reader_does_not_hold_up_other_calls(tmp_path: Path) -> None:
    """While nobody reads one answer, it waits, and another call of the process is answered."""
    note = tmp_path / "note"
    async with host_of(settings(Parallel, parallel=2), cache=tmp_path).running() as host:
        await wait_capacity(host, 2)
        answer = await host.answer(request("/flood", str(note).encode()))
        assert await whole(await host.answer(request("/size", b"12345"))) == b"5"
        assert note.stat().st_size * 65536 < 4 << 20
        assert len(await whole(answer)) == 64 << 20


async def test_leaving_one_of_several_calls_costs_no_other(tmp_path: Path) -> None:
    """A concurrent runtime hears that a client has left, and its process goes on."""
    note = tmp_path / "note"
    async with host_of(settings(Parallel, parallel=2), cache=tmp_path).running() as host:
        await wait_capacity(host, 2)
        before = await pid_of(host)
        waiting = asyncio.ensure_future(host.answer(request("/linger", str(note).encode())))
        await until(lambda: note.exists() and note.read_text() == "lingering")
        waiting.cancel()
        await asyncio.wait([waiting])
        await until(lambda: note.read_text() == "left")
        assert await pid_of(host) == before


async def test_the_time_limit_of_one_call_costs_no_other(tmp_path: Path) -> None:
    """A concurrent runtime's call ends at its limit with the reason; the process goes on."""
    note = tmp_path / "note"
    limited = settings(Parallel, parallel=2, time_limit_s=0.2)
    async with host_of(limited, cache=tmp_path).running() as host:
        await wait_capacity(host, 2)
        before = await pid_of(host)
        with pytest.raises(RuntimeFailed, match=r"longer than 0\.2 s"):
            await host.answer(request("/linger", str(note).encode()))
        await until(lambda: note.read_text() == "left")
        assert await pid_of(host) == before


async def test_a_missing_model_is_not_offered(tmp_path: Path) -> None:
    """The worker's owner reads one sentence; the pool hears of nothing; others are served."""
    missing = settings(model="gone", options={"missing": "yes"})
    async with host_of(missing, settings(), cache=tmp_path).running() as host:
        await wait_offers(host, 1)
        await until(lambda: bool(host.faults))
        assert host.faults == {App("test", "gone"): "The model odd is not on this machine."}
        assert [offer.app for offer in host.offers()] == [APP]


async def test_models_share_graphics_memory(tmp_path: Path) -> None:
    """What does not fit is offered cold, and moves in when it is asked for."""
    one = settings(model="one", vram_mb=6000, options={"vram": "6000"})
    two = settings(model="two", vram_mb=6000, options={"vram": "6000"})
    async with host_of(one, two, cache=tmp_path, vram_budget_mb=8000).running() as host:
        await wait_offers(host, 1)
        assert {o.app.model: o.warm for o in host.offers()} == {"one": True, "two": False}
        answer = await host.answer(request("/echo", b"hi", app=App("test", "two")))
        assert await whole(answer) == b"hi"
        swapped = {"one": False, "two": True}
        await until(lambda: {o.app.model: o.warm for o in host.offers()} == swapped)


async def test_a_missing_model_keeps_no_graphics_memory(tmp_path: Path) -> None:
    """What cannot be loaded does not keep others out."""
    gone = settings(model="gone", vram_mb=6000, options={"missing": "yes"})
    other = settings(model="other", vram_mb=6000)
    async with host_of(gone, other, cache=tmp_path, vram_budget_mb=8000).running() as host:
        await until(lambda: App("test", "gone") in host.faults)
        answer = await host.answer(request("/echo", b"hi", app=App("test", "other")))
        assert await whole(answer) == b"hi"


async def test_sessions_take_turns_in_one_process(tmp_path: Path) -> None:
    """Two clients talk to one process at the same time, and neither hears the other."""
    async with host_of(settings(Talkative), cache=tmp_path).running() as host:
        await wait_offers(host, 1)
        assert [(o.capacity, o.session) for o in host.offers()] == [(4, True)]
        ours, theirs = Messages(), Messages()
        one = await host.answer(request("/echo?say=a", ours, content_type=MESSAGES))
        two = await host.answer(request("/echo?say=b", theirs, content_type=MESSAGES))
        assert one.headers["content-type"] == "application/jsonl"
        ours.say(b"x")
        theirs.say(b"y")
        first = json.loads(await anext(one.body))
        second = json.loads(await anext(two.body))
        assert (first[:2], second[:2]) == (["ax", 1], ["by", 1])
        assert first[2] == second[2]
        ours.say(b"z")
        assert json.loads(await anext(one.body))[:2] == ["az", 2]
        ours.end()
        assert await whole(one) == b""
        await two.body.aclose()


async def test_a_client_who_floods_and_never_reads_waits_alone(tmp_path: Path) -> None:
    """What it sends is taken only as far as its answers are; a session that says nothing costs
    nothing, and both leave the process to others."""
    sent = 0

    async def flood() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1 << 16
            yield pack(b"x" * (1 << 16))

    async with host_of(settings(Talkative), cache=tmp_path).running() as host:
        await wait_offers(host, 1)
        flooding = await host.answer(request("/echo", flood(), content_type=MESSAGES))
        silent = await host.answer(request("/echo", Messages(), content_type=MESSAGES))
        seen = -1
        while seen != sent:
            seen = sent
            await asyncio.sleep(0.3)
        assert sent < 4 << 20
        before = await pid_of(host)
        await flooding.body.aclose()
        await silent.body.aclose()
        assert await pid_of(host) == before


async def test_long_work_on_a_message_holds_up_no_other_session(tmp_path: Path) -> None:
    """A client whose message takes for ever waits alone, and may leave at no cost to others."""
    async with host_of(settings(Talkative), cache=tmp_path).running() as host:
        await wait_offers(host, 1)
        ours, theirs = Messages(), Messages()
        one = await host.answer(request("/echo", ours, content_type=MESSAGES))
        two = await host.answer(request("/echo", theirs, content_type=MESSAGES))
        ours.say(b"dawdle")
        theirs.say(b"x")
        first = json.loads(await anext(two.body))
        await one.body.aclose()
        ours.end()
        theirs.say(b"y")
        assert json.loads(await anext(two.body)) == ["y", 2, first[2]]
        await two.body.aclose()
        assert await pid_of(host) == first[2]


async def test_whoever_leaves_in_the_middle_of_work_costs_nobody_the_process(
    tmp_path: Path,
) -> None:
    """Work that cannot be stopped at once is waited for where others have calls in the process."""
    note = tmp_path / "note"
    async with host_of(settings(Talkative), cache=tmp_path).running() as host:
        await wait_offers(host, 1)
        ours, theirs = Messages(), Messages()
        one = await host.answer(request("/echo", ours, content_type=MESSAGES))
        two = await host.answer(request("/echo", theirs, content_type=MESSAGES))
        theirs.say(b"x")
        first = json.loads(await anext(two.body))
        ours.say(b"nap:" + str(note).encode())
        await until(note.exists)
        await one.body.aclose()
        theirs.say(b"y")
        assert json.loads(await anext(two.body)) == ["y", 2, first[2]]
        await two.body.aclose()


async def test_a_call_given_to_a_process_that_is_dying_costs_itself(tmp_path: Path) -> None:
    """It ends with its process before anybody minds it, and the worker goes on."""
    async with host_of(settings(), cache=tmp_path).running() as host:
        await wait_offers(host, 1)
        (keeper,) = host._served.values()
        (slot,) = keeper._slots  # type: ignore[attr-defined]
        talk = slot.begin(Call(path="/crash", content_type=""))
        await until(lambda: slot.process is None)
        await slot.mind(talk, 1.0)
        with pytest.raises(RuntimeFailed, match="SIGSEGV"):
            await talk.head()
        await wait_offers(host, 1)


async def test_a_bad_message_ends_its_session_with_a_line(tmp_path: Path) -> None:
    """The client of a session hears what was wrong as its last line; opening may be refused."""
    async with host_of(settings(Talkative), cache=tmp_path).running() as host:
        await wait_offers(host, 1)
        said = Messages()
        answer = await host.answer(request("/echo", said, content_type=MESSAGES))
        said.say(b"bad")
        assert json.loads(await whole(answer))["error"]["message"] == "a bad message"
        refused = await host.answer(request("/echo?say=no", Messages(), content_type=MESSAGES))
        assert (refused.status, b"not today" in await whole(refused)) == (400, True)


def children() -> set[int]:
    """Processes that this one, or one of its own, has started."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


async def test_a_process_that_is_ending_is_not_left_behind(tmp_path: Path) -> None:
    """Also when the worker stops just while one of its processes does."""
    for _ in range(5):
        before = children()
        async with host_of(settings(options={"missing": "yes"}), cache=tmp_path).running() as host:
            await until(lambda: bool(host.faults))
            started = children() - before
        assert not [pid for pid in started if psutil.pid_exists(pid)]


async def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """Every process ends with the host, also one that hangs in a call."""
    before = children()
    async with host_of(settings(Odd, processes=2), cache=tmp_path).running() as host:
        await wait_capacity(host, 2)
        answer = await host.answer(request("/stuck"))
        await anext(answer.body)
        started = children() - before
        assert len(started) == 2
    assert not [pid for pid in started if psutil.pid_exists(pid)]


class Messages(AsyncIterator[bytes]):
    """A session's input, said bit by bit."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    def say(self, message: bytes) -> None:
        self._queue.put_nowait(pack(message))

    def end(self) -> None:
        self._queue.put_nowait(None)

    async def __anext__(self) -> bytes:
        piece = await self._queue.get()
        if piece is None:
            raise StopAsyncIteration
        return piece
