"""One runtime with its processes: what it offers, and which of them serves a call.

A crash, a hang or a leak costs the call at which it happened (`runtimes.slot`). All runtimes of a
worker together are a `runtimes.host`.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from openpool.core.calls import App, Offer
from openpool.core.errors import NoCapacity, OpenPoolError
from openpool.link.line import LineAnswer, LineRequest
from openpool.wire.framing import CONTENT_TYPE as MESSAGES
from openpool.worker.offers import RuntimeSettings
from openpool.worker.runtimes.base import Runtime
from openpool.worker.runtimes.body import Body
from openpool.worker.runtimes.budget import VramBudget
from openpool.worker.runtimes.frames import Call, Setup
from openpool.worker.runtimes.process import Talk
from openpool.worker.runtimes.slot import LOAD_S_MAX, Slot
from openpool.worker.runtimes.spool import Spool

QUEUE_S = 5.0
"""How long a call may wait for a process that is busy with another."""


class Keeper:
    """Serves one app from processes of its own."""

    def __init__(
        self,
        settings: RuntimeSettings,
        kind: type[Runtime],
        *,
        cache: Path,
        folder: Path,
        budget: VramBudget,
        tasks: asyncio.TaskGroup,
        changed: Callable[[], None],
    ) -> None:
        """`folder` is a private one for temporary files; `changed` hears of a change of offer."""
        self.app = App(kind.pipeline, settings.model)
        self._settings = settings
        self._kind = kind
        self._folder = folder
        self._budget = budget
        self._tasks = tasks
        self._changed = changed
        self._freed = asyncio.Event()
        self._waiting = 0
        self._talks_max = settings.sessions if kind.session else settings.parallel
        """Calls that one process serves at once."""
        self._slots = [self._slot(cache) for _ in range(settings.processes)]

    def _slot(self, cache: Path) -> Slot:
        settings = self._settings
        setup = Setup(
            runtime=f"{self._kind.__module__}:{self._kind.__qualname__}",
            model=settings.model,
            options=dict(settings.options),
            cache=str(cache),
            parallel=settings.parallel,
        )
        return Slot(
            setup,
            name=str(self.app),
            talks_max=self._talks_max,
            memory_mb_max=settings.memory_mb,
            folder=self._folder,
            vram_mb=settings.vram_mb,
            budget=self._budget,
            changed=self._on_change,
        )

    def start(self) -> None:
        """Load as many processes as there is room for, and keep them up from now on."""
        for slot in self._slots:
            if self._budget.admit(slot):
                slot.wanted.set()
            self._tasks.create_task(slot.keep(), name=f"runtime {self.app}")

    def offer(self) -> Offer | None:
        """What can be done at this moment; None if nothing."""
        warm = [slot for slot in self._slots if slot.process]
        able = warm + [slot for slot in self._slots if not slot.wanted.is_set()]
        if not able:
            return None
        return Offer(
            app=self.app,
            capacity=len(able) * self._talks_max,
            warm=bool(warm),
            streaming=self._kind.streaming,
            session=self._kind.session,
            vram_mb=sum(slot.vram_mb for slot in warm or able[:1]),
        )

    @property
    def fault(self) -> str:
        """Why nothing is offered, for the worker's owner; empty if all is well."""
        return next((slot.fault for slot in self._slots if slot.fault), "")

    def serves(self, path: str) -> bool:
        """Whether the runtime answers requests to this path."""
        return path in self._kind.paths

    async def answer(
        self, path: str, options: Mapping[str, str], request: LineRequest
    ) -> LineAnswer:
        """Serve one call. Raises BadRequest, TooLarge, NoCapacity and RuntimeFailed."""
        kind = request.headers.get("content-type", "")
        if self._kind.session and kind.startswith(MESSAGES):
            call = Call(path=path, content_type=kind, session=True, options=dict(options))
            talk = await self._begin(call, None)
            self._tasks.create_task(_feed(talk, request), name=f"session {self.app}")
            return await _answer(talk)
        async with Spool(self._folder, self._settings.request_mb * 1_000_000) as spool:
            await spool.take(request.body, request.headers.get("content-length", ""))
            file = str(spool.file or "")
            call = Call(path=path, content_type=kind, body=spool.data, body_file=file)
            talk = await self._begin(call, self._settings.time_limit_s)
            return await _answer(talk)

    async def _begin(self, call: Call, limit_s: float | None) -> Talk:
        slot = await self._find_slot()
        talk = slot.begin(call)
        self._tasks.create_task(slot.mind(talk, limit_s), name=f"call {self.app}")
        return talk

    async def _find_slot(self) -> Slot:
        """A process with room for a call. Raises NoCapacity."""
        if self._waiting >= len(self._slots) * self._talks_max:
            raise self._busy()
        self._waiting += 1
        try:
            give_up = time.monotonic() + QUEUE_S
            while not (free := [slot for slot in self._slots if slot.has_room]):
                self._wake_one()
                await self._wait_freed(give_up)
            return min(free, key=lambda slot: slot.used_at)
        finally:
            self._waiting -= 1

    async def _wait_freed(self, give_up: float) -> None:
        loading = any(slot.is_loading for slot in self._slots)
        left_s = LOAD_S_MAX if loading else give_up - time.monotonic()
        self._freed.clear()
        try:
            async with asyncio.timeout(left_s):
                await self._freed.wait()
        except TimeoutError:
            raise self._busy() from None

    def _busy(self) -> NoCapacity:
        return NoCapacity(f"{self.app} is busy on this worker; try another.")

    def _wake_one(self) -> None:
        """Load one that is cold, if graphics memory can be had for it."""
        if any(slot.is_loading for slot in self._slots):
            return
        for slot in self._slots:
            if not slot.wanted.is_set() and self._budget.admit(slot, evict=True):
                slot.wanted.set()
                return

    def _on_change(self) -> None:
        self._freed.set()
        self._changed()


class _Body(Body):
    """The body of an answer. Closing it, even before its beginning, stops the call."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk

    async def __anext__(self) -> bytes:
        piece = await self._talk.next()
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        self._talk.cancel()


async def _answer(talk: Talk) -> LineAnswer:
    try:
        head = await talk.head()
    except asyncio.CancelledError:
        talk.cancel()
        raise
    headers = {"content-type": head.content_type}
    if head.length is not None:
        headers["content-length"] = str(head.length)
    return LineAnswer(head.status, headers, _Body(talk))


async def _feed(talk: Talk, request: LineRequest) -> None:
    """Carry a session's input until it ends. A client that is gone ends it."""
    try:
        async with asyncio.TaskGroup() as tasks:
            feeding = tasks.create_task(talk.feed(request.body))
            await talk.done.wait()
            feeding.cancel()
    except* OpenPoolError:
        talk.cancel()
