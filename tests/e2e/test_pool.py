"""A pool between the orchestrator stand-in and workers, all parts real."""

import asyncio
import ssl
import stat
from collections import Counter
from functools import lru_cache
from pathlib import Path

import pytest

from openpool.app import run
from openpool.config import load
from openpool.core.capabilities import DEFAULT
from openpool.core.events import (
    JobDelivered,
    JobReceived,
    OrchestratorDown,
    OrchestratorRestarted,
)
from openpool.core.facts import Delivered
from openpool.core.instructions import Deliver, DeliverError
from openpool.core.model import Segment
from openpool.demo.children import free_port
from openpool.demo.media import make_segments
from openpool.demo.orchestrator import StandIn
from openpool.link.client import TranscoderClient
from openpool.link.interface import Ended, GrpcStatus
from openpool.link.tls import Trust, load_or_create_identity
from openpool.pool.media import Media
from openpool.pool.upstream import Upstream
from openpool.store.interface import EventFilter
from openpool.wire.results import RenditionData
from openpool.worker.engine import transcode
from openpool.worker.terms import EngineSettings
from tests.network import PROFILES, RunningPool, pool, worker, write_config


@lru_cache
def segments() -> tuple[bytes, ...]:
    return tuple(make_segments(320, 180, 30, 1, 3))


async def honest(source: bytes, segment: Segment) -> list[RenditionData]:
    result = await asyncio.to_thread(transcode, source, segment, EngineSettings())
    return [
        RenditionData(data=each.data, pixels=each.pixels, container=each.container)
        for each in result.renditions
    ]


async def never(_source: bytes, _segment: Segment) -> list[RenditionData]:
    await asyncio.Event().wait()
    raise AssertionError


def counts(running: RunningPool) -> Counter[str]:
    return Counter(running.store.counts())


async def test_a_segment_goes_there_and_back_and_is_paid_exactly(tmp_path: Path) -> None:
    """Real video returns as asked for, and the books hold the exact fee, split 25 to 75."""
    async with StandIn("o-secret", local_verify=True) as orchestrator:
        async with pool(write_config(tmp_path, [orchestrator])) as running:
            token = await running.enroll("box")
            async with worker(running, token, honest) as box:
                await orchestrator.wait_registered(1)
                for seq, data in enumerate(segments()):
                    outcome = await orchestrator.submit("stream", seq, data, 1000, PROFILES)
                    assert outcome.ok, outcome.error
                    assert [r.profile.name for r in outcome.renditions] == ["P240", "P144"]
                await box.until(lambda: len(box.answers) == 3)
                assert [answer.status for answer in box.answers] == [200, 200, 200]
            await running.settled()
            balances = {b.account: b.amount_wei for b in running.store.balances()}
    pixels = 3 * 30 * (320 * 180 + 256 * 144)
    fee = pixels * 1000 // 3
    assert balances["commission"] == fee // 4
    assert balances[f"worker:{running.accounts['box']}"] == fee - fee // 4
    assert sum(balances.values()) == 0


async def test_a_worker_learns_nothing_that_is_not_its_own(tmp_path: Path) -> None:
    """Session, stream name, task id and segment address are the pool's own, not the upstream's."""
    async with StandIn("o-secret") as orchestrator:
        async with pool(write_config(tmp_path, [orchestrator])) as running:
            token = await running.enroll("box")
            async with worker(running, token, honest) as box:
                await orchestrator.wait_registered(1)
                for seq in range(2):
                    await orchestrator.submit("secret-name", seq, segments()[0], 1000, PROFILES)
                session = orchestrator.session_id("secret-name")
                first, second = box.tasks
    assert session
    assert first.session == second.session != session
    assert "secret-name" not in repr(box.tasks)
    assert session not in repr(box.tasks)
    assert str(orchestrator.port) not in first.url
    assert first.url != second.url


async def test_another_workers_segment_and_result_are_out_of_reach(tmp_path: Path) -> None:
    """A guessed segment address is not found; a result for somebody else's task is refused."""
    async with StandIn("o-secret") as orchestrator:
        async with pool(write_config(tmp_path, [orchestrator])) as running:
            mine, other = await running.enroll("mine"), await running.enroll("other")
            async with worker(running, mine, never) as box:
                await orchestrator.wait_registered(1)
                submitting = asyncio.ensure_future(
                    orchestrator.submit("s", 0, segments()[0], 1000, PROFILES)
                )
                await box.until(lambda: box.tasks)
                task = box.tasks[0]
                async with worker(running, other, honest) as thief:
                    one = RenditionData(data=b"x" * 100, pixels=1)
                    answer = await thief.client.post_result(task.task_id, [one, one], 1)
                    assert answer.status == 403
                    assert "another worker" in answer.text
                    answer = await thief.client.post_result(12345, [one], 1)
                    assert answer.status == 404
                    with pytest.raises(Exception, match="404"):
                        async with thief.client.fetch(task.url[:-6] + "000.ts"):
                            pass
                    # the thief is a good second worker: the hedge goes to it
                    outcome = await submitting
    assert outcome.ok, outcome.error


async def test_a_lost_workers_segment_moves_at_once(tmp_path: Path) -> None:
    """A worker that goes away in mid-segment costs nothing: the next one does it in time."""
    async with StandIn("o-secret") as orchestrator:
        async with pool(write_config(tmp_path, [orchestrator])) as running:
            first, second = await running.enroll("first"), await running.enroll("second")
            async with worker(running, first, never) as dying:
                await orchestrator.wait_registered(1)
                submitting = asyncio.ensure_future(
                    orchestrator.submit("s", 0, segments()[0], 1000, PROFILES)
                )
                await dying.until(lambda: dying.tasks)
            async with worker(running, second, honest):
                outcome = await submitting
            await running.settled()
            balances = {b.account: b.amount_wei for b in running.store.balances("worker:")}
    assert outcome.ok, outcome.error
    assert list(balances) == [f"worker:{running.accounts['second']}"]


async def test_a_liar_is_refused_and_earns_nothing(tmp_path: Path) -> None:
    """A result that is not what was asked for is refused with its reason, and done elsewhere."""

    async def lie(source: bytes, segment: Segment) -> list[RenditionData]:
        return [*(await honest(source, segment))[:1], RenditionData(data=source, pixels=10**9)]

    async with StandIn("o-secret", local_verify=True) as orchestrator:
        async with pool(write_config(tmp_path, [orchestrator])) as running:
            liar, good = await running.enroll("liar"), await running.enroll("good")
            async with worker(running, liar, lie, capacity=8) as lying:
                await orchestrator.wait_registered(1)
                submitting = asyncio.ensure_future(
                    orchestrator.submit("s", 0, segments()[0], 2000, PROFILES)
                )
                await lying.until(lambda: lying.answers)
                async with worker(running, good, honest):
                    outcome = await submitting
            await running.settled()
            accounts = [b.account for b in running.store.balances("worker:")]
            refused = running.store.events(EventFilter(types=("result-refused",)))
    assert outcome.ok, outcome.error
    assert lying.answers[0].status == 422
    assert accounts == [f"worker:{running.accounts['good']}"]
    assert len(refused) >= 1


async def test_an_unusable_source_is_told_the_gateway_and_nobody_is_blamed(tmp_path: Path) -> None:
    """Garbage from a gateway comes back as an input error, so gateways keep the orchestrator."""

    async def broken(_source: bytes, _segment: Segment) -> list[RenditionData]:
        return [RenditionData(data=b"\x47" * 188, pixels=1)] * 2

    async with StandIn("o-secret") as orchestrator:
        async with pool(write_config(tmp_path, [orchestrator])) as running:
            token = await running.enroll("box")
            async with worker(running, token, broken):
                await orchestrator.wait_registered(1)
                outcome = await orchestrator.submit("s", 0, b"no video" * 1000, 1000, PROFILES)
            await running.settled()
            after = counts(running)
    assert outcome.error in {"TranscoderInvalidVideo", "Invalid argument", "Demuxer not found"}
    assert after["fee-credited"] == 0
    assert after["worker-cooled-down"] == 0


async def test_one_worker_that_doubts_its_input_is_checked_by_the_pool(tmp_path: Path) -> None:
    """A worker's word that the input is broken goes up once the pool has opened it itself; said of
    good input it is no reason to give up, and it counts against the worker."""
    async with StandIn("o-secret") as orchestrator:
        async with pool(write_config(tmp_path, [orchestrator])) as running:
            doubting, good = await running.enroll("doubting"), await running.enroll("good")
            async with worker(running, doubting, never, capacity=8) as first:

                async def doubt(_source: bytes, _segment: Segment) -> list[RenditionData]:
                    task = first.tasks[-1]
                    await first.client.post_error(task.task_id, "TranscoderInvalidVideo")
                    return []

                first.transcode = doubt
                await orchestrator.wait_registered(1)
                broken = await orchestrator.submit("a", 0, b"no video" * 1000, 2000, PROFILES)
                submitting = asyncio.ensure_future(
                    orchestrator.submit("b", 0, segments()[0], 2000, PROFILES)
                )
                await first.until(lambda: len(first.tasks) == 2)
                async with worker(running, good, honest):
                    fine = await submitting
    assert broken.error == "TranscoderInvalidVideo"
    assert broken.took_ms < 2000
    assert fine.ok, fine.error


async def test_two_orchestrators_share_the_workers_and_keep_their_own_books(tmp_path: Path) -> None:
    """Each orchestrator has its own secret, registration and fee account."""
    async with StandIn("one") as first, StandIn("two") as second:
        async with pool(write_config(tmp_path, [first, second])) as running:
            token = await running.enroll("box")
            async with worker(running, token, honest, capacity=8):
                await first.wait_registered(1)
                await second.wait_registered(1)
                outcomes = await asyncio.gather(
                    first.submit("a", 0, segments()[0], 2000, PROFILES),
                    second.submit("b", 0, segments()[1], 2000, PROFILES),
                )
            await running.settled()
            balances = {b.account: b.amount_wei for b in running.store.balances("fees:")}
    assert [o.error for o in outcomes] == ["", ""]
    assert set(balances) == {"fees:orch0", "fees:orch1"}


async def test_an_address_where_no_orchestrator_is_costs_the_others_nothing(
    tmp_path: Path,
) -> None:
    """A web server, or nothing at all, where one should be: the log says so, and the rest works."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    identity = load_or_create_identity(tmp_path)
    tls.load_cert_chain(identity.cert_path, identity.key_path)
    web = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", ssl=tls)
    port = web.sockets[0].getsockname()[1]
    nobody = f"127.0.0.1:{free_port()}"
    reasons: dict[str, str] = {}
    async with StandIn("o-secret") as real, web:
        async with pool(write_config(tmp_path, [real, f"127.0.0.1:{port}", nobody])) as running:
            told = running.store.subscribe()
            async with worker(running, await running.enroll("box"), honest):
                async with asyncio.timeout(10):
                    while len(reasons) < 2:
                        downs = [stored.event.data for stored in await anext(told)]
                        reasons |= {
                            e.orchestrator: e.reason
                            for e in downs
                            if isinstance(e, OrchestratorDown)
                        }
                await real.wait_registered(1)
                assert (await real.submit("stream", 0, segments()[0], 1000, PROFILES)).ok
    assert reasons == {
        "orch1": "the server does not speak HTTP/2: is this an orchestrator?",
        "orch2": f"cannot connect to {nobody}: connection refused",
    }


async def test_a_restarted_orchestrator_never_gets_a_result_of_its_former_life(
    tmp_path: Path,
) -> None:
    """Task ids begin again at 0 after a restart; a late result for the old task 0 is dropped."""
    release = asyncio.Event()

    async def late(source: bytes, segment: Segment) -> list[RenditionData]:
        await release.wait()
        return await honest(source, segment)

    async with StandIn("o-secret") as orchestrator:
        async with pool(write_config(tmp_path, [orchestrator])) as running:
            token = await running.enroll("box")
            async with worker(running, token, late) as box:
                await orchestrator.wait_registered(1)
                old = asyncio.ensure_future(
                    orchestrator.submit("old", 0, segments()[0], 2000, PROFILES)
                )
                await box.until(lambda: box.tasks)
                await orchestrator.restart()
                assert (await old).error
                await orchestrator.wait_registered(1)
                new = asyncio.ensure_future(
                    orchestrator.submit("new", 0, segments()[1], 2000, PROFILES)
                )
                await box.until(lambda: len(box.tasks) == 2)
                release.set()
                outcome = await new
            await running.settled()
            received = running.store.events(EventFilter(types=("job-received",)))
            delivered = running.store.events(EventFilter(types=("job-delivered",)))
            restarted = running.store.events(EventFilter(types=("orchestrator-restarted",)))
    assert outcome.ok, outcome.error
    tasks = [e.event.data.task_id for e in received if isinstance(e.event.data, JobReceived)]
    assert tasks == [0, 0]
    jobs = [e.event.data.job for e in received if isinstance(e.event.data, JobReceived)]
    done = [e.event.data.job for e in delivered if isinstance(e.event.data, JobDelivered)]
    assert done == [jobs[1]]
    assert isinstance(restarted[0].event.data, OrchestratorRestarted)


async def test_a_result_that_meets_a_restarted_orchestrator_is_not_sent() -> None:
    """Also before the pool has registered with it again: the certificate is enough to know."""
    delivered: asyncio.Queue[Delivered] = asyncio.Queue()
    async with StandIn("o-secret") as orchestrator, asyncio.TaskGroup() as tasks:
        host, _, port = orchestrator.address.rpartition(":")
        trust = Trust.first_use()
        async with TranscoderClient(
            host, int(port), secret="o-secret", trust=trust, worker_version="t"
        ) as client:
            upstream = Upstream(
                name="main",
                client=client,
                feed=lambda fact: delivered.put_nowait(fact),  # type: ignore[arg-type]
                clock_ms=lambda: 0,
                media=Media(),
                tasks=tasks,
            )
            async with client.register(capacity=1, capabilities=DEFAULT, version="") as stream:
                former = upstream.incarnation = stream.fingerprint
            await orchestrator.restart()
            fields = {"job": "main.x.1", "orchestrator": "main", "incarnation": former}
            upstream.deliver(
                Deliver(
                    **fields, attempt=1, task_id=1, pixels=(), source_pixels=0, deadline_ms=5000
                ),
                OnDisk(),
            )
            upstream.deliver_error(DeliverError(**fields, task_id=1, text="late"), OnDisk())
            async with asyncio.timeout(4):
                said = [await delivered.get() for _ in range(2)]
    assert [each.accepted for each in said] == [False, False]
    assert all("restarted" in each.reason for each in said)


class OnDisk:
    """A receipt for nothing."""

    async def durable(self) -> None:
        return None


async def test_a_full_pool_answers_early_and_says_so(tmp_path: Path) -> None:
    """With nobody to work, the answer comes long before the deadline and names the reason."""
    async with StandIn("o-secret") as orchestrator:
        async with pool(write_config(tmp_path, [orchestrator])) as running:
            token = await running.enroll("box")
            async with worker(running, token, never, capacity=1) as box:
                await orchestrator.wait_registered(1)
                held = asyncio.ensure_future(
                    orchestrator.submit("held", 0, segments()[0], 2000, PROFILES)
                )
                await box.until(lambda: box.tasks)
            outcome = await held
    assert outcome.error
    assert outcome.took_ms < 8000
    assert orchestrator.counters.evicted == 0


@pytest.mark.parametrize(
    ("secret", "capacity", "status", "text"),
    [
        ("op_wrong", 4, GrpcStatus.UNAUTHENTICATED, "token"),
        ("", 4, GrpcStatus.UNAUTHENTICATED, ""),
        ("good", 0, GrpcStatus.UNKNOWN, "zero capacity"),
    ],
)
async def test_a_worker_that_may_not_join_is_told_why(
    tmp_path: Path, secret: str, capacity: int, status: GrpcStatus, text: str
) -> None:
    """A wrong secret lets a stock worker keep trying; zero capacity is said in its own words."""
    async with pool(write_config(tmp_path, ["127.0.0.1:9"])) as running:
        token = await running.enroll("box")
        ended = await refused(running, token if secret == "good" else secret, capacity)
    assert ended.status is status
    assert text in ended.message
    assert ended.message != "invalid secret"


async def refused(running: RunningPool, secret: str, capacity: int = 1) -> Ended:
    address = running.running.worker_port
    trust = Trust.exact(running.process.identity.fingerprint)
    async with TranscoderClient(address.host, address.port, secret=secret, trust=trust) as client:
        with pytest.raises(Ended) as caught:
            async with client.register(
                capacity=capacity, capabilities=None, version="0.9.1"
            ) as registration:
                async with asyncio.timeout(5):
                    async for _ in registration:
                        pass
    return caught.value


async def test_a_revoked_token_ends_its_stream_and_a_rotated_one_does_not(tmp_path: Path) -> None:
    """Rotation has no downtime; revoking ends the stream; only a ban says `invalid secret`."""
    async with pool(write_config(tmp_path, ["127.0.0.1:9"])) as running:
        enrolment = running.process.enrolment
        token = await running.enroll("box")
        known = await enrolment.authenticate(token)
        async with worker(running, token, never):
            newer = await enrolment.rotate_token(known.worker, "")
            async with worker(running, newer.secret, never):
                await enrolment.revoke_token(known.worker, known.token)
                ended = await refused(running, token)
                assert ended.status is GrpcStatus.UNAUTHENTICATED
                assert len(running.process.downstream.connections) == 1
        await enrolment.ban(known.worker, "cheated")
        assert (await refused(running, newer.secret)).message == "invalid secret"


async def test_nobody_else_reads_the_folder_that_a_first_start_makes(tmp_path: Path) -> None:
    """The log tells of owners and customers, so the new data folder is its operator's alone."""
    config = load(write_config(tmp_path, ["127.0.0.1:1"]), environment={}).config
    stopping = asyncio.Event()
    async with asyncio.timeout(30):
        await run(config, stopping=stopping, started=lambda _: stopping.set())
    assert stat.S_IMODE(config.data_dir.stat().st_mode) == 0o700
