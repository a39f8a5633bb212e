"""One process of a runtime over time: loaded, used, lost, loaded again."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from openpool.worker.agent import Backoff
from openpool.worker.runtimes.base import ModelMissing
from openpool.worker.runtimes.budget import VramBudget
from openpool.worker.runtimes.frames import Call, Setup
from openpool.worker.runtimes.process import RuntimeFailed, RuntimeProcess, Talk, start

log = structlog.get_logger()

CANCEL_S = 0.6
"""How long a process may take to stop a call that nobody wants before it is killed."""
SHARED_CANCEL_S = 10.0
"""The same where its end would cost others their calls."""
LOAD_S_MAX = 600.0
RESTART_S_FIRST = 0.1
RESTART_S_MAX = 30.0
MISSING_S = 60.0
"""When to look again for a model that was not there."""
SETTLED_S = 10.0
"""A process that lived this long does not count as a failed start."""


class Slot:
    """A place for one process. Also a tenant of the graphics memory."""

    def __init__(
        self,
        setup: Setup,
        *,
        name: str,
        talks_max: int,
        memory_mb_max: int,
        folder: Path,
        vram_mb: int,
        budget: VramBudget,
        changed: Callable[[], None],
    ) -> None:
        self.wanted = asyncio.Event()
        """Whether it should be loaded."""
        self.used_at = 0.0
        self.process: RuntimeProcess | None = None
        """Once its model is loaded, until it ends."""
        self.fault = ""
        """Why it is not loaded, if it should be."""
        self._setup = setup
        self._name = name
        self._talks_max = talks_max
        self._memory_mb_max = memory_mb_max
        self._folder = folder
        self._vram_mb = vram_mb
        self._budget = budget
        self._changed = changed
        self._backoff = Backoff(RESTART_S_FIRST, RESTART_S_MAX)
        self._talks = 0

    @property
    def vram_mb(self) -> int:
        """Graphics memory that it takes, or is thought to take."""
        return self.process.vram_mb if self.process else self._vram_mb

    @property
    def is_idle(self) -> bool:
        """Whether it is loaded and serves nothing."""
        return self.process is not None and not self._talks

    @property
    def is_loading(self) -> bool:
        """Whether it will probably be warm soon."""
        return self.wanted.is_set() and self.process is None and not self.fault

    @property
    def has_room(self) -> bool:
        """Whether it can begin a call now."""
        process = self.process
        return bool(process and not process.fault and self._talks < self._talks_max)

    def leave(self) -> None:
        """Make room for another runtime."""
        self.wanted.clear()
        if self.process:
            log.info("unloaded", runtime=self._name)
            self.process.kill("The model was unloaded.")

    def begin(self, call: Call) -> Talk:
        """Give the process a call; `mind` must then run until it is over."""
        assert self.process is not None
        self.used_at = time.monotonic()
        self._talks += 1
        return self.process.begin(call)

    async def mind(self, talk: Talk, limit_s: float | None) -> None:
        """See that a call ends: in time, and soon after nobody wants it any more."""
        try:
            why = "The call was cancelled."
            if not await _within(talk.stopping, limit_s):
                why = f"The runtime took longer than {limit_s:g} s."
                talk.cancel(RuntimeFailed(why))
            if not await _within(talk.done, SHARED_CANCEL_S if self._talks > 1 else CANCEL_S):
                talk.kill(why)
            await talk.done.wait()
        finally:
            self._talks -= 1
            self._changed()

    async def keep(self) -> None:
        """Have a process whenever one is wanted."""
        while True:
            await self.wanted.wait()
            if not self._budget.admit(self):  # somebody else came while the model was missing
                self.wanted.clear()
                continue
            started = time.monotonic()
            wait_s = await self._live()
            if time.monotonic() - started >= SETTLED_S:
                self._backoff.reset()
            self._changed()
            if self.wanted.is_set():
                await asyncio.sleep(max(wait_s, self._backoff.next()))
                self.fault = ""

    async def _live(self) -> float:
        """One process from start to end; gives how long to wait at least before the next."""
        process: RuntimeProcess | None = None
        try:
            process = await start(self._setup, self._memory_mb_max, self._folder)
            await process.load(LOAD_S_MAX)
            self._vram_mb = process.vram_mb or self._vram_mb
            self.process, self.fault = process, ""
            log.info("loaded", runtime=self._name, vram_mb=process.vram_mb)
            self._changed()
            how = await process.run()
        except ModelMissing as missing:
            self.fault = str(missing)
            self._budget.release(self)
            log.error("not available", runtime=self._name, reason=str(missing))
            return MISSING_S
        except RuntimeFailed as failure:
            how = str(failure)
        finally:
            self.process = None
            if process is not None:
                await process.close()
        self.fault = how if self.wanted.is_set() else ""
        if self.fault:
            log.warning(
                "ended", runtime=self._name, reason=how, error=process and process.last_error
            )
        return 0.0


async def _within(event: asyncio.Event, limit_s: float | None) -> bool:
    """Whether the event happens in this time."""
    try:
        async with asyncio.timeout(limit_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
