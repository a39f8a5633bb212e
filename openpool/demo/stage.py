"""What runs in a demo: its processes, how to speak to them, and waiting for them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import Struct
from rich.console import Console

from openpool.cli.api import Api
from openpool.core.errors import SetupError
from openpool.core.views import JobView
from openpool.demo.ai import Workload
from openpool.demo.children import Child, Children
from openpool.demo.live_runner import LiveRunnerPort
from openpool.demo.money_ground import Ground
from openpool.demo.orchestrator import StandIn
from openpool.demo.told import Told

LOOK_S = 0.02


class Announcement(Struct, frozen=True):
    """What `openpool serve --json` says once it listens."""

    web_url: str
    worker_port: str
    join_link: str
    operator_token_file: str


class Delivered(Struct, frozen=True):
    """The part of a job-delivered event that is told."""

    worker: str
    took_ms: int


@dataclass(frozen=True, slots=True)
class Killed:
    """The victim, and what it was doing."""

    child: Child
    job: JobView


@dataclass(slots=True)
class Stage:
    """Everything that runs, and how to speak to it."""

    folder: Path
    console: Console
    orchestrator: StandIn
    live: LiveRunnerPort
    children: Children
    pool: Announcement
    pool_child: Child
    api: Api
    ground: Ground | None
    """The chain, where there is one."""
    workers: dict[str, Child] = field(default_factory=dict)
    """By name."""
    killed: Killed | None = None
    workloads: Sequence[str] = ()
    """The AI work that is shown."""
    ai: dict[str, Workload] = field(default_factory=dict)
    money: Told | None = None

    def say(self, text: str) -> None:
        say(self.console, text)

    def check(self) -> None:
        """Raises SetupError if a process has ended that should still run."""
        self.children.check(self.killed.child if self.killed else None)

    @property
    def config(self) -> Path:
        return self.folder / "openpool.yaml"


async def until(holds: Callable[[], Awaitable[bool]], limit_s: float, what: str) -> None:
    """Ask again and again: the pool is another process. Raises SetupError after `limit_s`."""
    limit = asyncio.timeout(limit_s)
    try:
        async with limit:
            while not await holds():  # noqa: ASYNC110
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        if not limit.expired():
            raise
        raise SetupError(f"Waited {limit_s:g} s in vain for {what}; see the logs.") from None


def say(console: Console, text: str) -> None:
    """A line of progress."""
    console.print(f"[green]•[/green] {text}", highlight=False, soft_wrap=True)
