"""From delivered jobs to a statement that a worker checks on a machine of its own."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import httpx
from msgspec.structs import replace

from openpool.core.events import Event
from openpool.core.model import Segment
from openpool.core.money.events import RoundStarted
from openpool.demo.media import make_segments
from openpool.demo.orchestrator import StandIn
from openpool.store.interface import EventFilter
from openpool.wire.results import RenditionData
from openpool.worker.engine import transcode
from openpool.worker.terms import EngineSettings
from tests.network import PROFILES, RunningPool, pool, worker, write_config


async def honest(source: bytes, segment: Segment) -> list[RenditionData]:
    result = await asyncio.to_thread(transcode, source, segment, EngineSettings())
    return [
        RenditionData(data=each.data, pixels=each.pixels, container=each.container)
        for each in result.renditions
    ]


async def ended(running: RunningPool) -> int:
    """End the round that is running, and have it stated; its number."""
    money = running.process.money
    assert money is not None
    await running.store.append([]).durable()
    starts = running.store.events(EventFilter(types=("round-started",)))
    last = starts[-1].event.data
    assert isinstance(last, RoundStarted)
    number = last.round + 1
    event = Event(
        id=f"round/clock/{number}",
        time_ms=starts[-1].event.time_ms + 1,
        data=RoundStarted(round=number, source="clock"),
    )
    await running.store.append([event]).durable()
    await money.settler.settle_due()
    await money.statements.make_due()
    assert money.statements.rows[-1].round == last.round
    return last.round


def verify(folder: Path, *arguments: str) -> tuple[int, dict[str, object]]:
    """Run the command where there is nothing but the given files."""
    done = subprocess.run(
        [sys.executable, "-m", "openpool", "verify", *arguments, "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONSAFEPATH": "1"},
    )
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


async def test_a_worker_checks_its_pay_on_its_own_machine(tmp_path: Path) -> None:
    """Real jobs, a signed statement, receipts with proofs; `openpool verify` in an empty folder
    agrees, and finds a forged wei."""
    alone = tmp_path / "alone"
    alone.mkdir()
    async with StandIn("o-secret") as orchestrator:
        async with pool(write_config(tmp_path, [orchestrator])) as running:
            mine, other = await running.enroll("mine"), await running.enroll("other")
            async with worker(running, mine, honest), worker(running, other, honest):
                await orchestrator.wait_registered(1)
                for seq, data in enumerate(make_segments(320, 180, 30, 1, 4)):
                    outcome = await orchestrator.submit(f"s{seq % 2}", seq, data, 1000, PROFILES)
                    assert outcome.ok, outcome.error
                await running.settled()
            number = await ended(running)
            owed = {b.account: b.amount_wei for b in running.store.balances()}
            base = running.running.web_url
            async with httpx.AsyncClient(base_url=base) as client:
                who = {"Authorization": f"Bearer {mine}"}
                signer = (await client.get("/.well-known/openpool.json")).json()["signer"]
                for path, name, headers in (
                    (f"/statements/{number}.json", "s.json", {}),
                    ("/terms.json", "t.json", {}),
                    (f"/api/v1/receipts?round={number}", "r.jsonl", who),
                ):
                    answer = await client.get(path, headers=headers)
                    assert answer.status_code == 200, answer.text
                    (alone / name).write_bytes(answer.content)
    address = running.accounts["mine"]
    files = ["s.json", "--receipts", "r.jsonl", "--terms", "t.json"]
    who_signed = ["--signer", signer, "--address", address]
    code, report = await asyncio.to_thread(verify, alone, *files, *who_signed)
    assert (code, report["ok"], report["findings"]) == (0, True, [])
    rows = {row["address"]: row for row in report["addresses"]}  # type: ignore[attr-defined]
    assert sum(row["jobs"] for row in rows.values()) == 4
    for name in ("mine", "other"):
        account = running.accounts[name]
        if account in rows:
            assert int(rows[account]["balance_wei"]) == owed[f"worker:{account}"]
    statement = (alone / "s.json").read_bytes()
    (alone / "s.json").write_bytes(statement.replace(b'"closing_wei":"', b'"closing_wei":"1', 1))
    code, report = await asyncio.to_thread(verify, alone, *files)
    assert (code, report["ok"]) == (1, False)


async def test_new_terms_reach_a_worker_that_stays_connected(tmp_path: Path) -> None:
    """A change of commission counts from when it applies, without a new connection."""
    async with StandIn("o-secret") as orchestrator:
        file = write_config(tmp_path, [orchestrator], "statements: {notice_ms: 0}")
        async with pool(file) as running:
            terms = running.process.terms
            applied, put_into_force = asyncio.Event(), terms.on_applied

            async def on_applied() -> None:
                await put_into_force()
                applied.set()

            terms.on_applied = on_applied
            token = await running.enroll("box")
            async with worker(running, token, honest):
                await orchestrator.wait_registered(1)
                (data,) = make_segments(320, 180, 30, 1, 1)
                first = await orchestrator.submit("s", 0, data, 1000, PROFILES)
                promise = terms.in_force().terms.promise
                await terms.publish(replace(promise, commission_ppm=500_000))
                async with asyncio.timeout(10):
                    await applied.wait()
                second = await orchestrator.submit("s", 1, data, 1000, PROFILES)
                assert first.ok
                assert second.ok
                await running.settled()
            fees = running.store.events(EventFilter(types=("fee-credited",)))
    rates = [getattr(stored.event.data, "commission_ppm", 0) for stored in fees]
    assert rates == [250_000, 500_000]
