"""`make demo`: an orchestrator stand-in, a pool and three workers, each in a process of its own.

AI work of every kind is sold, real segments go round, one worker is killed in the middle of one,
and at the end the books are proved. Processes are started with the commands that a person would
type; what happens is read from the pool's API. Progress goes to standard error, the summary to
standard output (`--json`).
"""

import asyncio
import json
import secrets
import shutil
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from fractions import Fraction
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from openpool.cli.api import Api
from openpool.core.errors import OpenPoolError, SetupError
from openpool.core.views import JobView
from openpool.demo import ai, money, report
from openpool.demo.children import Child, Children, free_port
from openpool.demo.gateway import Gateway, StreamPlan, ladder, make_sources
from openpool.demo.live_gateway import LiveGateway
from openpool.demo.live_runner import LiveRunnerPort
from openpool.demo.money_ground import Ground, open_ground
from openpool.demo.orchestrator import Outcome, StandIn
from openpool.demo.report import Summary
from openpool.demo.stage import LOOK_S, Announcement, Delivered, Killed, Stage, say, until
from openpool.ethereum import Account
from openpool.private_files import read_private_text, write_private
from openpool.web.shapes import Balances, EventView, Status, Worker

FOLDER = Path("demo-data")
MARK = "made-by-openpool-demo"
PRICE_WEI = "1200"
WORKERS = 3
SESSIONS = 2
STREAMS = 3
SEGMENT_MS = 2000
LATER = 2
"""Segments of the second round."""
KILL_AFTER = 4
"""Segments that are back before a worker is killed."""
START_S = 60.0
BOOKS_S = 15.0
PICTURE_WORKER, WORD_WORKER = "worker-1", "worker-2"
"""Between them they offer all AI workloads."""
COLUMNS = (
    TextColumn("  {task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
)
INTERRUPTED = 130


async def run(
    *,
    once: bool = False,
    as_json: bool = False,
    segments: int = 24,
    port: int = 0,
    keep: bool = False,
    folder: Path = FOLDER,
) -> int:
    """The whole demo; returns the exit code, 0 only if nothing was lost and the books match.

    `port` is the dashboard's; 0 takes a free one. `keep` moves what an earlier demo left in
    `folder` out of the way instead of removing it. Ends early on SIGINT and SIGTERM.
    """
    console = Console(stderr=True)
    code = INTERRUPTED
    async with _until_signal():
        folder = _cleared(folder, keep)
        plans = ladder(STREAMS, segments - LATER, SEGMENT_MS)
        later = msgspec.structs.replace(plans[-1], manifest="later", count=LATER, seed=STREAMS)
        sources = await _make_sources(console, [*plans, later])
        async with _stage(console, folder, port) as stage:
            summary, settled = await _show(stage, plans, later, sources)
            code = 0 if summary.good and settled else 1
            if as_json:
                print(msgspec.json.encode(summary).decode(), flush=True)
            if not once:
                await _go_on(stage, plans[-1], sources[plans[-1].manifest])
    say(console, "Everything is stopped.")
    return code


# --- before --------------------------------------------------------------------------------------


@asynccontextmanager
async def _until_signal() -> AsyncIterator[None]:
    """SIGINT and SIGTERM end the block, quietly and with all its clean-up."""
    loop = asyncio.get_running_loop()
    names = (signal.SIGINT, signal.SIGTERM)
    limit = asyncio.timeout(None)

    def end() -> None:
        for name in names:  # what comes now is clean-up, which takes its time but not for ever
            loop.add_signal_handler(name, lambda: None)
        limit.reschedule(loop.time())

    try:
        async with limit:
            for name in names:
                loop.add_signal_handler(name, end)
            yield
    except TimeoutError:
        if not limit.expired():
            raise
    finally:
        for name in names:
            loop.remove_signal_handler(name)


def _cleared(folder: Path, keep: bool) -> Path:
    """The folder, absolute and empty."""
    if folder.exists():
        if not (folder / MARK).exists() and any(folder.iterdir()):
            raise SetupError(f"{folder} exists and is not a demo's; run this somewhere else.")
        if keep:
            folder.rename(folder.with_name(f"{folder.name}-{time.time_ns() // 10**9}"))
        else:
            shutil.rmtree(folder)
    folder.mkdir(mode=0o700, parents=True)
    (folder / MARK).touch()
    return folder.absolute()


async def _make_sources(console: Console, plans: list[StreamPlan]) -> dict[str, list[bytes]]:
    count = sum(plan.count for plan in plans)
    sizes = ", ".join(f"{plan.manifest} {plan.height}p" for plan in plans)
    say(console, f"Making {count} segments of {SEGMENT_MS / 1000:g} s with sound: {sizes}")
    return {plan.manifest: await asyncio.to_thread(make_sources, plan) for plan in plans}


@asynccontextmanager
async def _stage(console: Console, folder: Path, port: int) -> AsyncIterator[Stage]:
    secret = secrets.token_hex(16)
    children = Children(folder / "logs")
    async with AsyncExitStack() as stack:
        orchestrator = await stack.enter_async_context(StandIn(secret, price_wei=PRICE_WEI))
        say(console, f"Orchestrator stand-in on {orchestrator.address}, {PRICE_WEI} wei per pixel")
        stack.push_async_callback(children.stop)
        live = await stack.enter_async_context(
            LiveRunnerPort(secret, wei_per_usd=Fraction(10**18, ai.USD_PER_ETH), interval_s=1.0)
        )
        ground = await stack.enter_async_context(open_ground())
        config = _write_config(folder, orchestrator, live, ground, port)
        pool, child = await _start_pool(children, config, "pool")
        token = read_private_text(Path(pool.operator_token_file), "The operator's token")
        api = await stack.enter_async_context(Api(pool.web_url, token))
        stage = Stage(folder, console, orchestrator, live, children, pool, child, api, ground)
        stage.workloads = await asyncio.to_thread(ai.wanted)
        stage.say(f"Pool on {pool.worker_port}, dashboard at [bold]{pool.web_url}[/bold]")
        for number in range(1, WORKERS + 1):
            await _start_worker(stage, f"worker-{number}")
        await _wait_for_workers(stage, WORKERS)
        await _tell_of_workers(stage)
        yield stage


def _write_config(
    folder: Path, orchestrator: StandIn, live: LiveRunnerPort, ground: Ground | None, port: int
) -> Path:
    secret_file = folder / "orchestrator.secret"
    write_private(secret_file, orchestrator.secret.encode() + b"\n")
    config = folder / "openpool.yaml"
    # fixed ports, since workers look for the pool where it was before it was killed
    ports = (port or free_port(), free_port())
    config.write_text(_config(folder, orchestrator, live, ground, secret_file, ports))
    return config


async def _start_pool(children: Children, config: Path, name: str) -> tuple[Announcement, Child]:
    child = await children.start(name, ["serve", "--config", str(config), "--json"], talks=True)
    return msgspec.json.decode(await child.first_line(START_S), type=Announcement), child


def _config(
    folder: Path,
    orchestrator: StandIn,
    live: LiveRunnerPort,
    ground: Ground | None,
    secret_file: Path,
    ports: tuple[int, int],
) -> str:
    """Only what has to be said: everything else is the pool's own default."""
    on_chain = f'\n    eth_address: "{ground.orchestrator}"' if ground else ""
    return f"""\
data_dir: {json.dumps(str(folder / "data"))}
pool:
  name: Demo pool
orchestrators:
  - name: stand-in
    address: {orchestrator.address}
    secret: {json.dumps(f"file:{secret_file}")}
    status_url: {orchestrator.cli_url}
    live_runner_url: {live.url}{on_chain}
price:
  source: status
workers:
  listen: 127.0.0.1:{ports[1]}
web:
  listen: 127.0.0.1:{ports[0]}
ai:
  live_runner: {{enabled: true, listen: "127.0.0.1:0"}}
{ai.PRICES}{ground.settings(folder) if ground else ""}"""


async def _start_worker(stage: Stage, name: str) -> None:
    """As its owner would: a wallet, the join link, and nothing else."""
    home = stage.folder / name
    wallet = home / "wallet.key"
    account = Account.create()
    write_private(wallet, account.key.hex().encode() + b"\n")
    arguments = ["worker", stage.pool.join_link, "--wallet", str(wallet), "--name", name]
    if workloads := _workloads(stage, name):
        runtimes = await asyncio.to_thread(ai.write_runtimes, home / "models", workloads)
        arguments += ["--runtimes", str(runtimes)]
    stage.workers[name] = await stage.children.start(
        name,
        [*arguments, "--accept-terms", "--sessions", str(SESSIONS)],
        {"OPENPOOL_HOME": str(home)},
    )


def _workloads(stage: Stage, worker: str) -> list[str]:
    """The AI work that a worker offers."""
    if worker not in (PICTURE_WORKER, WORD_WORKER):
        return []
    pictures = worker == PICTURE_WORKER
    return [each for each in stage.workloads if (each in ai.PICTURES) is pictures]


async def _wait_for_workers(stage: Stage, count: int) -> None:
    async def registered() -> bool:
        stage.check()
        status = await stage.api.get(Status, "/status")
        return status.upstream_capacity >= count * SESSIONS

    await until(registered, START_S, "the workers to join")


async def _tell_of_workers(stage: Stage) -> None:
    for worker in await stage.api.get(list[Worker], "/workers"):
        stage.say(f"{worker.name} enrolled by wallet, is paid to {worker.address}")


# --- the show ------------------------------------------------------------------------------------


async def _show(
    stage: Stage, plans: list[StreamPlan], later: StreamPlan, sources: dict[str, list[bytes]]
) -> tuple[Summary, bool]:
    """The summary, and whether the pool's fees are what the orchestrator billed."""
    await _show_ai(stage)
    total = sum(plan.count for plan in [*plans, later])
    with Progress(*COLUMNS, console=stage.console) as progress:
        bar = progress.add_task("segments", total=total)

        warm = asyncio.Event()

        def on_outcome(outcome: Outcome) -> None:
            progress.advance(bar)
            if gateway.tally.returned >= KILL_AFTER:
                warm.set()
            if not outcome.ok:
                stage.say(f"[red]lost[/red] {outcome.manifest} {outcome.seq}: {outcome.error}")

        gateway = Gateway(
            stage.orchestrator, folder=stage.folder / "renditions", on_outcome=on_outcome
        )
        try:
            async with asyncio.TaskGroup() as group:
                killer = group.create_task(_kill_one(stage, warm))
                await gateway.run(plans, sources)
                killer.cancel()
        except* OpenPoolError as failed:
            raise _first(failed) from None
    settled = await _settled(stage)
    await _tell_of_rescue(stage)

    async def work() -> None:
        nonlocal settled
        await gateway.run([later], sources)
        settled = await _settled(stage) and settled

    if stage.ground is None:
        await work()
        stage.say("No local Ethereum here, so payouts are left out: install npm, run it again")
    else:
        stage.money = await money.show(stage, stage.ground, lambda: _restart(stage), work)
    return await _report(stage, gateway), settled


async def _restart(stage: Stage) -> None:
    """Start the pool again; its workers and its orchestrator come back by themselves."""
    stage.pool, stage.pool_child = await _start_pool(stage.children, stage.config, "pool-again")
    await _wait_for_workers(stage, sum(worker.running for worker in stage.workers.values()))


def _first(group: BaseExceptionGroup[OpenPoolError]) -> OpenPoolError:
    """One sentence for a person out of what several tasks met with."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


async def _show_ai(stage: Stage) -> None:
    """One job of every AI workload, bought from the orchestrator."""
    stage.say(
        f"{PICTURE_WORKER} loads models for pictures, {WORD_WORKER} for words and sound; the "
        "orchestrator sells them through Live Runner"
    )
    if len(stage.workloads) < len(ai.WORKLOADS):
        stage.say("No ffmpeg command here can speak, so speech is left out: apt-get install ffmpeg")
    async with LiveGateway(stage.live.url) as gateway:
        customer = ai.Customer(gateway)
        apps = await customer.wait_offered(stage.workloads)
        with Progress(*COLUMNS, console=stage.console) as progress:
            bar = progress.add_task("AI jobs ", total=len(stage.workloads))
            await customer.use(stage.workloads, apps, lambda: progress.advance(bar))
    fees = await ai.gather(stage.api, customer.told)
    stage.ai = ai.summed(customer.told, fees)
    ai.show(stage.console, customer.told, fees, await stage.api.get(list[Worker], "/workers"))


async def _kill_one(stage: Stage, warm: asyncio.Event) -> None:
    """SIGKILL to a worker that the pool knows to be in the middle of a segment."""
    await warm.wait()
    names = {w.worker: w.name for w in await stage.api.get(list[Worker], "/workers")}
    found = None
    while found is None:
        await asyncio.sleep(LOOK_S)
        found = _busy(await stage.api.get(list[JobView], "/jobs"))
    job, worker = found
    child = stage.workers[names[worker]]
    child.kill()
    stage.killed = Killed(child, job)
    stage.say(
        f"[bold red]{child.name} killed[/bold red] (SIGKILL) while it transcodes segment "
        f"{job.seq} of {job.manifest}"
    )


def _busy(jobs: Sequence[JobView]) -> tuple[JobView, str] | None:
    """The worker that got its segment last, so that it is surely not done yet."""
    running = [(attempt.since_ms, job, attempt.worker) for job in jobs for attempt in job.attempts]
    latest = max(running, key=lambda each: each[0], default=None)
    return latest and latest[1:]


async def _tell_of_rescue(stage: Stage) -> None:
    """Who finished the segment of the worker that was killed."""
    if stage.killed is None:
        return
    job = stage.killed.job
    events = await stage.api.get(list[EventView], "/events", type="job-delivered", job=job.job)
    names = {w.worker: w.name for w in await stage.api.get(list[Worker], "/workers")}
    for event in events:
        done = msgspec.convert(event.data, Delivered)
        stage.say(
            f"Segment {job.seq} of {job.manifest} came back from {names[done.worker]} instead, "
            f"{done.took_ms / 1000:.1f} s after the orchestrator had asked"
        )


async def _settled(stage: Stage) -> bool:
    """Wait until the pool has credited, to the wei, what the orchestrator billed its gateways."""
    transcoding_wei = sum(stage.orchestrator.value_wei.values())
    billed_wei = str(transcoding_wei + sum(stage.live.debited_wei.values()))
    credited_wei = ""

    async def all_credited() -> bool:
        nonlocal credited_wei
        credited_wei = (await stage.api.get(Status, "/status")).fees_wei
        return credited_wei == billed_wei

    try:
        await until(all_credited, BOOKS_S, "the fees")
    except SetupError:
        stage.say(f"[red]The pool has fees of {credited_wei} wei, billed were {billed_wei}[/red]")
        return False
    return True


async def _report(stage: Stage, gateway: Gateway) -> Summary:
    stage.check()
    matches, said = await report.replay_check(str(stage.config))
    summary = await report.gather(
        stage.api, gateway.tally, gateway.finished, matches, stage.ai, stage.money
    )
    workers = await stage.api.get(list[Worker], "/workers")
    report.show_renditions(stage.console, gateway.finished)
    stage.say(f"They are in {stage.folder / 'renditions'}/<stream>/<rendition>/")
    report.show_workers(stage.console, workers, await report.rtfs(stage.api, workers))
    balances = await stage.api.get(Balances, "/ledger/balances")
    report.show_books(stage.console, balances, workers)
    segments = summary.segments
    stage.say(
        f"{segments.returned} of {segments.sent} segments returned, {segments.lost} lost, "
        f"{segments.hedged} hedged, {segments.retried} retried"
    )
    stage.say(f"openpool replay --check: {said.splitlines()[-1] if said else matches}")
    return summary


# --- afterwards ----------------------------------------------------------------------------------


async def _go_on(stage: Stage, plan: StreamPlan, source: list[bytes]) -> None:
    """Keep one stream running at live pace, so that the dashboard has something to show."""
    token = stage.pool.operator_token_file
    stage.say(f"Dashboard: [bold]{stage.pool.web_url}[/bold]  sign in with the token in {token}")
    stage.say("One stream goes on at live pace. Ctrl-C stops everything.")
    while True:
        gateway = Gateway(stage.orchestrator, live_pace=True)
        await gateway.run([plan], {plan.manifest: source})
        for error in gateway.tally.errors:
            stage.say(f"[red]lost[/red] {error}")
        stage.check()
