"""`openpool worker` without its command line: an agent on this machine, its signals, its exit code.

The first SIGTERM or SIGINT drains, the second one stops at once. What goes wrong for good is one
sentence and exit code 2. Next: `worker.agent`.
"""

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, nullcontext, suppress
from typing import Protocol

import structlog
from rich.console import Console
from rich.live import Live
from rich.text import Text

from openpool import __version__
from openpool.core.capabilities import COMPATIBLE_VERSION
from openpool.core.errors import SetupError
from openpool.link.client import TranscoderClient
from openpool.link.tls import Trust
from openpool.worker.agent import Agent, Transcode
from openpool.worker.line_agent import LineAgent
from openpool.worker.offers import WorkerOffers
from openpool.worker.runtimes.host import Host
from openpool.worker.sessions import SessionPool
from openpool.worker.terms import EngineSettings

log = structlog.get_logger()

EXIT_DRAINED = 0
EXIT_SETUP = 2
EXIT_STOPPED = 130


class Part(Protocol):
    """One of the things that a worker does for its pool."""

    async def run(self) -> None:
        """Do it until `drain`. Raises SetupError if the pool will never take this worker."""

    def drain(self) -> None:
        """Take nothing more; `run` returns when what runs is done."""


async def run_worker(
    *,
    host: str,
    port: int,
    pin: str,
    token: str,
    sessions: int,
    capabilities: int,
    settings: EngineSettings | None = None,
    version: str = COMPATIBLE_VERSION,
    drain_s: float = 30.0,
    transcode: Transcode | None = None,
    offers: WorkerOffers | None = None,
    status_line: bool = False,
    on_agent: Callable[[Agent], None] = lambda agent: None,
) -> int:
    """Work for the pool at `host:port` until told to stop; gives the exit code.

    `pin` is the fingerprint of the pool's certificate, from the join link; without it the
    certificate must come from an authority. `transcode` replaces FFmpeg, for benchmarks. With zero
    `sessions` nothing is transcoded; `offers` are the AI runtimes. `on_agent` receives the agent
    before it starts.
    """

    def trust() -> Trust:
        return Trust.exact(pin) if pin else Trust.authorities()

    parts: list[Part] = []
    async with AsyncExitStack() as stack:
        if offers is not None:
            runtimes = await stack.enter_async_context(Host(offers).running())
            parts.append(_line(runtimes, host, port, trust(), token, drain_s))
        if not sessions:
            return await _run(parts)
        client = TranscoderClient(
            host, port, secret=token, trust=trust(), worker_version=__version__
        )
        await stack.enter_async_context(client)
        pool = SessionPool(sessions, settings or EngineSettings())
        stack.push_async_callback(pool.close)
        agent = Agent(
            client,
            transcode or pool.transcode,
            capacity=sessions,
            capabilities=capabilities,
            version=version,
            end_session=pool.end_session,
            drain_s=drain_s,
        )
        on_agent(agent)
        with _status_line(agent) if status_line else nullcontext():
            code = await _run([agent, *parts])
        log.info("stopped", delivered=agent.counters.delivered, failed=agent.counters.failed)
        return code


def _line(
    runtimes: Host, host: str, port: int, trust: Trust, token: str, drain_s: float
) -> LineAgent:
    return LineAgent(
        host,
        port,
        trust,
        token=token,
        board=runtimes.board,
        handler=runtimes.answer,
        drain_s=drain_s,
    )


async def _run(parts: Sequence[Part]) -> int:
    running = asyncio.ensure_future(_run_all(parts))
    with _signals(parts, running):
        try:
            await running
        except SetupError as error:
            print(error, file=sys.stderr)
            return EXIT_SETUP
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            return EXIT_STOPPED
    return EXIT_DRAINED


async def _run_all(parts: Sequence[Part]) -> None:
    fatal: list[BaseException] = []
    try:
        async with asyncio.TaskGroup() as tasks:
            for part in parts:
                tasks.create_task(part.run())
    except* SetupError as errors:
        fatal += errors.exceptions
    if fatal:
        raise fatal[0]


@contextmanager
def _signals(parts: Sequence[Part], running: "asyncio.Future[None]") -> Iterator[None]:
    """The first signal drains, the second stops."""
    seen = 0

    def on_signal() -> None:
        nonlocal seen
        seen += 1
        if seen == 1:
            log.info("stopping after what runs")
            for part in parts:
                part.drain()
        else:
            running.cancel()

    loop = asyncio.get_running_loop()
    kinds = (signal.SIGTERM, signal.SIGINT)
    with suppress(NotImplementedError):  # Windows: there, Ctrl-C simply stops
        for kind in kinds:
            loop.add_signal_handler(kind, on_signal)
    try:
        yield
    finally:
        with suppress(NotImplementedError):
            for kind in kinds:
                loop.remove_signal_handler(kind)


@contextmanager
def _status_line(agent: Agent) -> Iterator[None]:
    """A line at the bottom of the terminal that says how it goes."""
    console = Console(stderr=True)
    with Live(
        get_renderable=lambda: _status(agent),
        console=console,
        refresh_per_second=2,
        transient=True,
    ):
        yield


def _status(agent: Agent) -> Text:
    counters = agent.counters
    state = "registered" if agent.is_registered else "not connected"
    return Text(
        f"{state} · {agent.running} running · {counters.delivered} done · {counters.failed} failed"
        f" · rtf {counters.rtf:.2f} · {max(0, counters.registrations - 1)} reconnects"
    )
