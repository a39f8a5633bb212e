"""The one loop: facts in, remembered facts out, then deeds. In that order, always.

`feed` is synchronous and never waits for the disk: dispatch must not. What must be on disk first
(the answer to a worker) receives the step's receipt and waits for it itself.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from openpool.core.facts import Fact, Tick
from openpool.core.instructions import Instruction
from openpool.core.pool import Pool
from openpool.store.interface import Appender, Receipt

Performer = Callable[[Any, Receipt], None]
"""Performs one kind of instruction; must return at once (it may start a task in a group)."""


def wall_ms() -> int:
    """The wall clock in ms since 1970."""
    return time.time_ns() // 1_000_000


class Driver:
    """Feeds the core, appends its events, performs its instructions, wakes it when it asks."""

    def __init__(
        self, pool: Pool, appender: Appender, clock_ms: Callable[[], int] = wall_ms
    ) -> None:
        self.pool = pool
        self.clock_ms = clock_ms
        self._appender = appender
        self._performers: dict[type, Performer] = {}
        self._inbox: deque[Fact] = deque()
        self._feeding = False
        self._rewake = asyncio.Event()
        self._failed: BaseException | None = None
        self._fed = asyncio.Event()

    def on(self, kind: type[Instruction], performer: Performer) -> None:
        """Have `performer` perform instructions of this kind."""
        self._performers[kind] = performer

    def feed(self, fact: Fact) -> None:
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

    def _step(self, fact: Fact) -> None:
        step = self.pool.handle(fact, self.clock_ms())
        receipt = self._appender.append(step.events)
        for instruction in step.instructions:
            self._performers[type(instruction)](instruction, receipt)

    async def run(self) -> None:
        """Send ticks when the core wants them. Raises what a bug in the core raised."""
        while True:
            if self._failed is not None:
                raise self._failed
            wake_at = self.pool.wake_at()
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

    async def wait_idle(self) -> None:
        """Wait until every job has its answer."""
        while not self.pool.is_idle:
            self._fed.clear()
            await self._fed.wait()
