"""Customers post segments: the real API, pool and engine, and the books to the wei."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.parser import BytesParser
from email.policy import HTTP
from functools import lru_cache
from pathlib import Path

import av
import httpx
import pytest
from msgspec import structs
from network import PROFILES as BOTH
from network import RunningPool, pool, worker, write_config

from openpool.core.events import FeeCredited, JobDelivered, JobFailed, JobReceived, Payload
from openpool.core.model import Segment
from openpool.demo.media import make_segments
from openpool.demo.orchestrator import StandIn
from openpool.store.interface import EventFilter
from openpool.store.replay import check
from openpool.store.sqlite import SqliteStore
from openpool.wire.results import RenditionData
from openpool.worker.engine import transcode
from openpool.worker.terms import EngineSettings

PROFILES = [
    {"name": "P240", "width": 320, "height": 180, "bitrate_bps": 300_000},
    {"name": "P144", "width": 256, "height": 144, "bitrate_bps": 150_000, "container": "mp4"},
]
PIXELS = 30 * (320 * 180 + 256 * 144)


@lru_cache
def segment() -> bytes:
    return make_segments(320, 180, 30, 1, 1)[0]


async def honest(source: bytes, what: Segment) -> list[RenditionData]:
    result = await asyncio.to_thread(transcode, source, what, EngineSettings())
    return [
        RenditionData(data=each.data, pixels=each.pixels, container=each.container)
        for each in result.renditions
    ]


async def never(_source: bytes, _what: Segment) -> list[RenditionData]:
    await asyncio.Event().wait()
    raise AssertionError


async def until(condition: Callable[[], object]) -> None:
    """Wait until it holds: for what a running pool tells nobody about."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@asynccontextmanager
async def selling_pool(folder: Path, extra: str = "") -> AsyncIterator[RunningPool]:
    """A pool without an orchestrator that answers."""
    async with pool(write_config(folder, ["127.0.0.1:9"], extra)) as running:
        yield running


@asynccontextmanager
async def customer(
    running: RunningPool, requests_per_minute: int = 0, spend_limit: str = "none"
) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a new customer's key; `client.headers["x-who"]` is the customer's id."""
    made = await running.process.customers.add(
        "Ann", requests_per_minute=requests_per_minute, spend_limit=spend_limit
    )
    headers = {"authorization": f"Bearer {made.secret}", "x-who": made.customer}
    async with httpx.AsyncClient(
        base_url=running.running.web_url, headers=headers, timeout=20
    ) as client:
        yield client


async def post(
    client: httpx.AsyncClient, data: bytes, *, accept: str = "*/*", **fields: str
) -> httpx.Response:
    return await client.post(
        "/v1/transcode",
        data={"profiles": json.dumps(PROFILES), **fields},
        files={"file": ("in.ts", data, "video/mp2t")},
        headers={"accept": accept},
    )


def told(running: RunningPool, kind: type[Payload]) -> list[Payload]:
    """What the log holds of one kind."""
    name = str(kind.__struct_config__.tag)
    found = running.store.events(EventFilter(types=(name,), limit=100))
    return [stored.event.data for stored in found]


def parts(answer: httpx.Response) -> dict[str, bytes]:
    """The renditions in a multipart answer, as an independent reader finds them."""
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + answer.content)
    found = {}
    for part in message.iter_parts():
        data = part.get_payload(decode=True)
        assert isinstance(data, bytes)
        found[str(part.get_param("name", header="content-disposition"))] = data
    return found


def size(data: bytes) -> tuple[int, int, int]:
    """Width, height and frames, by decoding."""
    with av.open(io.BytesIO(data), "r") as container:
        frames = list(container.decode(video=0))
    return frames[0].width, frames[0].height, len(frames)


def code(answer: httpx.Response) -> tuple[int, str]:
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    return answer.status_code, answer.json()["error"]["code"]


async def test_a_segment_comes_back_as_asked_and_its_customer_pays_exactly(tmp_path: Path) -> None:
    """Real renditions in parts; the fee is the customer's, to the wei, and the log proves it."""
    async with selling_pool(tmp_path) as running, customer(running) as client:
        async with worker(running, await running.enroll("box"), honest):
            answer = await post(client, segment())
            assert answer.status_code == 200, answer.text
            assert answer.headers["content-type"].startswith("multipart/mixed")
            found = parts(answer)
            await running.settled()
        who = f"customer:{client.headers['x-who']}"
        balances = {each.account: each.amount_wei for each in running.store.balances()}
        (received,) = told(running, JobReceived)
        (fee,) = told(running, FeeCredited)
        spent = running.process.customers.get(client.headers["x-who"])
        await until(lambda: running.process.customers.get(spent.customer).spent_wei)
    report = check(running.process.config.data_dir)
    assert (report.faults, report.fees_wei) == ((), PIXELS * 1000 // 3)
    assert list(map(size, found.values())) == [(320, 180, 30), (256, 144, 30)]
    assert list(found) == ["P240", "P144"]
    price_wei = PIXELS * 1000 // 3
    assert balances[who] == -price_wei
    assert balances["commission"] == price_wei // 4
    assert balances[f"worker:{running.accounts['box']}"] == price_wei - price_wei // 4
    assert sum(balances.values()) == 0
    assert isinstance(received, JobReceived)
    assert isinstance(fee, FeeCredited)
    assert (received.orchestrator, received.payer, fee.orchestrator) == ("direct", who, who)


async def test_json_has_the_same_renditions_in_base64(tmp_path: Path) -> None:
    """Whoever accepts JSON gets JSON; a body that is the video itself names its profiles in the
    query."""
    async with selling_pool(tmp_path) as running, customer(running) as client:
        async with worker(running, await running.enroll("box"), honest):
            answer = await client.post(
                "/v1/transcode",
                params={"profiles": json.dumps(PROFILES)},
                content=segment(),
                headers={"accept": "application/json", "content-type": "video/mp2t"},
            )
    assert answer.status_code == 200, answer.text
    first, second = answer.json()["data"]
    assert (first["name"], first["width"], first["height"]) == ("P240", 320, 180)
    assert second["content_type"] == "video/mp4"
    assert size(base64.b64decode(second["data"])) == (256, 144, 30)


async def test_the_price_list_goes_before_the_price_of_orchestrators(tmp_path: Path) -> None:
    """A row for `transcode` is what customers pay by the pixel."""
    prices = "ai: {prices: [{pipeline: transcode, price: 7 wei, per: 2}]}"
    async with selling_pool(tmp_path, prices) as running, customer(running) as client:
        async with worker(running, await running.enroll("box"), honest):
            assert (await post(client, segment())).status_code == 200
            await running.settled()
        (fee,) = told(running, FeeCredited)
    assert isinstance(fee, FeeCredited)
    assert (fee.price_wei, fee.pixels, fee.fee_wei) == ("7/2", PIXELS, str(PIXELS * 7 // 2))


async def test_a_session_stays_with_its_worker(tmp_path: Path) -> None:
    """Segments of one session go to one worker; those without a session leave none behind."""
    async with selling_pool(tmp_path) as running, customer(running) as client:
        one, two = await running.enroll("one"), await running.enroll("two")
        async with worker(running, one, honest) as first, worker(running, two, honest) as second:
            for _ in range(3):
                assert (await post(client, segment(), session="cam")).status_code == 200
            assert sorted([len(first.tasks), len(second.tasks)]) == [0, 3]
            assert len({task.session for task in [*first.tasks, *second.tasks]}) == 1
            assert "cam" not in repr(first.tasks + second.tasks)
            assert (await post(client, segment())).status_code == 200
            assert len(running.process.driver.pool.roster.sessions) == 1


async def test_a_lying_worker_earns_nothing_and_the_customer_sees_nothing_of_it(
    tmp_path: Path,
) -> None:
    """A wrong result is refused before it is delivered, and another worker does the segment."""

    async def lie(source: bytes, what: Segment) -> list[RenditionData]:
        return [*(await honest(source, what))[:1], RenditionData(data=source, pixels=10**9)]

    async with selling_pool(tmp_path) as running, customer(running) as client:
        async with worker(running, await running.enroll("liar"), lie) as liar:
            posting = asyncio.ensure_future(post(client, segment()))
            await liar.until(lambda: liar.tasks)
            async with worker(running, await running.enroll("box"), honest):
                answer = await posting
                await running.settled()
        balances = {each.account: each.amount_wei for each in running.store.balances("worker:")}
    assert answer.status_code == 200, answer.text
    assert list(map(size, parts(answer).values())) == [(320, 180, 30), (256, 144, 30)]
    assert list(balances) == [f"worker:{running.accounts['box']}"]


@pytest.mark.parametrize(
    ("data", "profiles", "words"),
    [
        (b"this is no video" * 100, json.dumps(PROFILES), "The video"),
        (b"", json.dumps(PROFILES), "bytes"),
        (None, "", "profiles"),
        (None, "[]", "1 to 10"),
        (None, "nonsense", "not valid JSON"),
        (None, json.dumps([PROFILES[0]] * 2), "one name"),
        (None, json.dumps([{**PROFILES[0], "width": -1}]), "$[0].width"),
        (None, json.dumps([{**PROFILES[0], "name": 'x"\r\nX-Evil: 1'}]), "$[0].name"),
    ],
)
async def test_bad_requests_are_told_in_words(
    tmp_path: Path, data: bytes | None, profiles: str, words: str
) -> None:
    """What cannot be transcoded is answered at once, and no worker is bothered with it."""
    async with selling_pool(tmp_path) as running, customer(running) as client:
        async with worker(running, await running.enroll("box"), honest) as box:
            answer = await post(client, segment() if data is None else data, profiles=profiles)
        assert not box.tasks
    assert code(answer) == (400, "invalid_request")
    assert words in answer.json()["error"]["message"]


async def test_without_workers_the_answer_says_so(tmp_path: Path) -> None:
    """No worker is 503, at once, and the pool keeps nothing of the segment."""
    async with selling_pool(tmp_path) as running, customer(running) as client:
        answer = await post(client, segment())
        assert code(answer) == (503, "insufficient_capacity")
        assert "no worker" in answer.json()["error"]["message"].lower()
        assert running.process.media.held_bytes == 0


async def test_limits_hold(tmp_path: Path) -> None:
    """Keys, requests a minute, what may be owed and the size of a body are as on other routes."""
    async with selling_pool(tmp_path, "ai: {body_bytes_max: 1000000}") as running:
        async with customer(running, requests_per_minute=2, spend_limit="1 wei") as client:
            async with worker(running, await running.enroll("box"), honest):
                assert code(await post(client, b"x" * 1_200_000)) == (413, "request_too_large")
                assert (await post(client, segment())).status_code == 200
                await running.settled()
                who = client.headers["x-who"]
                await until(lambda: running.process.customers.get(who).spent_wei)
                assert code(await post(client, segment())) == (429, "insufficient_quota")
            assert code(await client.get("/v1/transcode"))[0] == 429
            client.headers["authorization"] = "Bearer sk-no"
            assert code(await post(client, segment())) == (401, "invalid_api_key")
        async with customer(running, requests_per_minute=1) as client:
            assert code(await post(client, segment())) == (503, "insufficient_capacity")
            assert code(await post(client, segment())) == (429, "rate_limit_exceeded")


async def test_segments_at_once_cannot_owe_more_than_the_limit(tmp_path: Path) -> None:
    """What a running segment will cost is held: beside it another one must fit, or is refused;
    once it is over, only what it cost counts."""
    limit_wei = PIXELS * 1000 // 3 * 3 // 2
    async with (
        selling_pool(tmp_path) as running,
        customer(running, spend_limit=f"{limit_wei} wei") as client,
        worker(running, await running.enroll("box"), never) as box,
    ):
        first = asyncio.ensure_future(post(client, segment()))
        await box.until(lambda: box.tasks)
        assert code(await post(client, segment())) == (429, "insufficient_quota")
        first.cancel()
        await asyncio.wait({first})
        await until(lambda: told(running, JobFailed))
        await running.settled()
        assert len(told(running, JobReceived)) == 1
        second = asyncio.ensure_future(post(client, segment()))
        await box.until(lambda: len(box.tasks) == 2)
        second.cancel()
        await asyncio.wait({second})


async def test_whoever_hangs_up_ends_the_work_and_pays_nothing(tmp_path: Path) -> None:
    """The job fails at once, no worker is blamed, and the bytes are forgotten."""
    async with selling_pool(tmp_path) as running, customer(running) as client:
        async with worker(running, await running.enroll("box"), never) as box:
            posting = asyncio.ensure_future(post(client, segment()))
            await box.until(lambda: box.tasks)
            posting.cancel()
            await asyncio.wait({posting})
            await until(lambda: told(running, JobFailed))
        await running.settled()
        (failed,) = told(running, JobFailed)
        assert isinstance(failed, JobFailed)
        assert "hung up" in failed.reason
        assert not told(running, FeeCredited)
        await until(lambda: running.process.media.held_bytes == 0)


async def test_orchestrators_and_customers_share_the_workers(tmp_path: Path) -> None:
    """One worker serves both, each pays its own, and no slot group is registered for customers."""
    async with StandIn("o-secret", local_verify=True) as orchestrator:
        async with pool(write_config(tmp_path, [orchestrator])) as running:
            async with customer(running) as client:
                async with worker(running, await running.enroll("box"), honest):
                    await orchestrator.wait_registered(1)
                    outcome, answer = await asyncio.gather(
                        orchestrator.submit("s", 0, segment(), 1000, BOTH),
                        post(client, segment()),
                    )
                    assert outcome.ok, outcome.error
                    assert answer.status_code == 200, answer.text
                    await running.settled()
                groups = {
                    one.orchestrator: len(one.groups)
                    for one in running.process.driver.pool.snapshot(0).orchestrators
                }
            balances = {each.account for each in running.store.balances()}
    assert groups["direct"] == 0
    assert {"fees:orch0", f"customer:{client.headers['x-who']}"} <= balances


async def test_after_a_crash_what_was_asked_before_is_given_up(tmp_path: Path) -> None:
    """Nobody waits any more for a segment from before a crash: it ends as failed, and numbers that
    begin from zero again are no trouble."""
    async with selling_pool(tmp_path) as running, customer(running) as client:
        assert (await post(client, segment())).status_code == 503
        await running.settled()
        (received,) = running.store.events(EventFilter(types=("job-received",)))
        data = running.process.config.data_dir
    was = received.event
    assert isinstance(was.data, JobReceived)
    late = structs.replace(was.data, job="direct.start-1.77", task_id=77, deadline_ms=2**43)
    async with SqliteStore(data) as store:
        event = structs.replace(was, id="direct.start-1.77/received", data=late)
        await store.append([event]).durable()
    async with selling_pool(tmp_path) as running, customer(running) as client:
        failed = [each for each in told(running, JobFailed) if isinstance(each, JobFailed)]
        assert [each.job for each in failed if "restarted" in each.reason] == [late.job]
        async with worker(running, await running.enroll("box"), honest):
            assert (await post(client, segment())).status_code == 200
            await running.settled()
        (done,) = told(running, JobDelivered)
    assert isinstance(done, JobDelivered)
    assert done.job == "direct.start-2.0"
    assert check(data).faults == ()
