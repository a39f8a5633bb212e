"""The one loop: facts in, remembered facts out, then deeds. In that order, always.

`feed` is synchronous and never waits for the disk: dispatch must not. What must be on disk first
(the answer to a worker) receives the step's receipt and waits for it itself. One driver runs the
pool's core and the desk: a fact goes to whichever knows its kind, some go to both.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, get_args

from openpool.core.call_facts import CallFact
from openpool.core.call_instructions import CallInstruction
from openpool.core.desk import Desk
from openpool.core.facts import Fact, Tick
from openpool.core.instructions import Instruction
from openpool.core.pool import Pool
from openpool.core.step import Step
from openpool.pool.clock import SteadyClock
from openpool.store.interface import Appender, Receipt

Performer = Callable[[Any, Receipt], None]
"""Performs one kind of instruction; must return at once (it may start a task in a group)."""


wall_ms = SteadyClock()
"""The clock of this process."""


class _Core(Protocol):
    """What `core.pool` and `core.desk` have in common."""

    def handle(self, fact: Any, now_ms: int) -> Step: ...
    def wake_at(self) -> int | None: ...
    @property
    def is_idle(self) -> bool: ...


class Driver:
    """Feeds the cores, appends their events, performs their instructions, wakes them in time."""

    def __init__(
        self,
        pool: Pool,
        desk: Desk,
        appender: Appender,
        clock_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self.pool, self.desk = pool, desk
        self._cores: tuple[_Core, ...] = (pool, desk)
        self._takers: dict[type, list[_Core]] = {}
        for core, facts in ((pool, Fact), (desk, CallFact)):
            for kind in get_args(facts):
                self._takers.setdefault(kind, []).append(core)
        self.clock_ms = clock_ms
        self._appender = appender
        self._performers: dict[type, Performer] = {}
        self._inbox: deque[Fact | CallFact] = deque()
        self._feeding = False
        self._rewake = asyncio.Event()
        self._failed: BaseException | None = None
        self._fed = asyncio.Event()

    def on(self, kind: type[Instruction] | type[CallInstruction], performer: Performer) -> None:
        """Have `performer` perform instructions of this kind."""
        self._performers[kind] = performer

    def feed(self, fact: Fact | CallFact) -> None:
        """Handle a fact now, or right after the one being handled."""
        self._inbox.append(fact)
        if self._feeding:
            return
        self._feeding = True
        try:
            while self._inbox:
                self._step(self._inbox.popleft())
        except BaseException as error:
            self._failed = error
            raise
        finally:
            self._feeding = False
            self._rewake.set()
            self._fed.set()

    def _step(self, fact: Fact | CallFact) -> None:
        for core in self._takers[type(fact)]:
            step = core.handle(fact, self.clock_ms())
            receipt = self._appender.append(step.events)
            for instruction in step.instructions:
                self._performers[type(instruction)](instruction, receipt)

    async def run(self) -> None:
        """Send ticks when a core wants them. Raises what a bug in a core raised."""
        while True:
            if self._failed is not None:
                raise self._failed
            wake_at = self._wake_at()
            delay_s = 60.0 if wake_at is None else (wake_at - self.clock_ms()) / 1000
            if delay_s <= 0:
                self.feed(Tick())
                await asyncio.sleep(0)
                continue
            self._rewake.clear()
            try:
                async with asyncio.timeout(delay_s):
                    await self._rewake.wait()
            except TimeoutError:
                self.feed(Tick())

    def _wake_at(self) -> int | None:
        times = [at_ms for core in self._cores if (at_ms := core.wake_at()) is not None]
        return min(times, default=None)

    async def wait_idle(self) -> None:
        """Wait until every job and every call has its answer."""
        while not all(core.is_idle for core in self._cores):
            self._fed.clear()
            await self._fed.wait()
