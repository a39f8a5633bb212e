"""Live sessions, each transcoded in a process of its own, so that none can harm another.

A poisoned segment may crash its process, hang it or eat memory: that costs this one segment, and
the next gets a fresh process within milliseconds. Processes are kept warm between segments and
between sessions. This module never opens media itself. Next: `worker.nursery`, `worker.engine`.
"""

import asyncio
from collections import OrderedDict

from openpool.core.errors import NoCapacity
from openpool.core.model import Segment
from openpool.worker.nursery import Child, Nursery
from openpool.worker.pipe import Request
from openpool.worker.terms import EngineError, EngineSettings, TranscodeResult

IDLE_MS = 70_000
SEGMENT_MS_MIN = 5_000
DURATIONS_MAX = 4
MEMORY_BYTES_MAX = 4 << 30
MEMORY_CHECK_S = 0.2
NICE = 5


def time_limit_ms(duration_ms: int) -> int:
    """How long a segment may take before its process is killed."""
    return max(SEGMENT_MS_MIN, DURATIONS_MAX * duration_ms)


class SessionPool:
    """Transcodes segments of up to `limit` sessions at once.

    Segments of one session are done one after another, those of different sessions side by side.
    """

    def __init__(
        self,
        limit: int,
        settings: EngineSettings,
        *,
        idle_ms: int = IDLE_MS,
        memory_bytes_max: int = MEMORY_BYTES_MAX,
        nice: int = NICE,
    ) -> None:
        self._limit = limit
        self._settings = settings
        self._idle_s = idle_ms / 1000
        self._memory_bytes_max = memory_bytes_max
        self._nursery = Nursery(nice)
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        """Least recently used first."""
        self._spare: list[_Spare] = []
        self._closed = False

    @property
    def live(self) -> int:
        """Sessions that hold a place."""
        return len(self._sessions)

    @property
    def busy(self) -> int:
        """Segments that are being transcoded or wait for their session."""
        return sum(len(session.calls) for session in self._sessions.values())

    @property
    def memory_bytes(self) -> int:
        """The most memory that each process of a session was seen to take, in all."""
        return sum(s.child.peak_bytes for s in self._sessions.values() if s.child)

    @property
    def processes(self) -> dict[str, int]:
        """The process of each session that has one."""
        return {key: s.child.pid for key, s in self._sessions.items() if s.child}

    async def transcode(
        self, session_id: str, source: bytes, segment: Segment, timeout_ms: int | None = None
    ) -> TranscodeResult:
        """The renditions of a segment, within `timeout_ms` and max(5 s, 4 x its duration).

        Raises InputError if nobody can transcode it, NoCapacity if all sessions are taken, and
        EngineError, one clear sentence, if the process crashed, hung or was cancelled.
        """
        limit_ms = min(time_limit_ms(segment.duration_ms), timeout_ms or 1 << 40)
        session = self._enter(session_id)
        call = _Call(f"The segment took longer than {limit_ms} ms and was stopped.")
        session.calls.add(call)
        try:
            async with asyncio.timeout(limit_ms / 1000) as call.scope, session.lock:
                return await self._run(session, source, segment)
        except TimeoutError:
            raise EngineError(call.why) from None
        finally:
            session.calls.discard(call)
            self._leave(session)

    def cancel(self, session_id: str) -> None:
        """Stop what the session is transcoding; the callers get an EngineError."""
        if session := self._sessions.get(session_id):
            session.stop_calls("The segment was cancelled.")

    def end_session(self, session_id: str) -> None:
        """Give the session's place free; its process, if idle, waits for another session."""
        session = self._sessions.get(session_id)
        if session is None:
            return
        if session.calls:
            session.stop_calls("The session has ended.")
            session.ended = True
        else:
            self._forget(session)

    async def close(self) -> None:
        """End all sessions and processes."""
        self._closed = True
        for session in list(self._sessions.values()):
            session.stop_calls("This worker is stopping.")
            session.stop_timer()
        for spare in self._spare:
            spare.timer.cancel()
        self._spare.clear()
        await self._nursery.close()

    def _enter(self, session_id: str) -> "_Session":
        if self._closed:
            raise EngineError("This worker is stopping.")
        session = self._sessions.get(session_id)
        if session is None:
            if len(self._sessions) >= self._limit:
                self._make_room()
            session = self._sessions[session_id] = _Session(session_id)
        self._sessions.move_to_end(session_id)
        session.ended = False
        session.stop_timer()
        return session

    def _make_room(self) -> None:
        """Take the place of the session that has been idle longest."""
        for session in self._sessions.values():
            if not session.calls:
                self._forget(session)
                return
        raise NoCapacity(f"All {self._limit} sessions of this worker are busy; try another.")

    def _leave(self, session: "_Session") -> None:
        if session.calls:
            return
        if session.ended or self._closed:
            self._forget(session)
        else:
            loop = asyncio.get_running_loop()
            session.timer = loop.call_later(self._idle_s, self._forget, session)

    def _forget(self, session: "_Session") -> None:
        self._sessions.pop(session.id, None)
        session.stop_timer()
        child, session.child = session.child, None
        if child is None:
            return
        if self._closed:
            self._nursery.release(child)
            return
        spare = _Spare(child)
        spare.timer = asyncio.get_running_loop().call_later(self._idle_s, self._let_go, spare)
        self._spare.append(spare)

    def _let_go(self, spare: "_Spare") -> None:
        self._spare.remove(spare)
        self._nursery.release(spare.child)

    async def _run(self, session: "_Session", source: bytes, segment: Segment) -> TranscodeResult:
        child, fresh = session.child, False
        if child is None or not child.is_alive:
            child, fresh = await self._find_child(), True
        session.child = child
        request = Request(segment=segment, settings=self._settings, fresh=fresh)
        watch = _Watch(child, self._memory_bytes_max, self._nursery)
        try:
            return await child.transcode(request, source)
        except (OSError, EOFError, ValueError) as error:
            session.child = None
            self._nursery.kill(child)
            raise EngineError(child.fault or await self._death(child)) from error
        except asyncio.CancelledError:  # a time limit, or nobody wants the result any more
            session.child = None
            self._nursery.kill(child)
            raise
        finally:
            watch.stop()

    async def _find_child(self) -> Child:
        while self._spare:
            spare = self._spare.pop()
            spare.timer.cancel()
            if spare.child.is_alive:
                return spare.child
        return await self._nursery.spawn()

    async def _death(self, child: Child) -> str:
        cause = await self._nursery.epitaph(child)
        return f"The transcoding process died on this segment ({cause})."


class _Call:
    """A segment on its way. `why` is what its caller hears if it is stopped."""

    scope: asyncio.Timeout

    def __init__(self, why: str) -> None:
        self.why = why

    def stop(self, why: str) -> None:
        if not self.scope.expired():
            self.why = why
            self.scope.reschedule(0)


class _Session:
    """What is known of one live session."""

    def __init__(self, session_id: str) -> None:
        self.id = session_id
        self.lock = asyncio.Lock()
        self.child: Child | None = None
        self.calls: set[_Call] = set()
        self.ended = False
        self.timer: asyncio.TimerHandle | None = None

    def stop_calls(self, why: str) -> None:
        """Make every segment of the session fail, saying why."""
        for call in self.calls:
            call.stop(why)

    def stop_timer(self) -> None:
        if self.timer:
            self.timer.cancel()
            self.timer = None


class _Spare:
    """A warm process without a session."""

    timer: asyncio.TimerHandle

    def __init__(self, child: Child) -> None:
        self.child = child


class _Watch:
    """Kills a child that takes too much memory. A limit on its address space would break CUDA."""

    def __init__(self, child: Child, bytes_max: int, nursery: Nursery) -> None:
        self._child = child
        self._bytes_max = bytes_max
        self._nursery = nursery
        self._timer = self._later()

    def stop(self) -> None:
        self._child.measure_memory()
        self._timer.cancel()

    def _later(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(MEMORY_CHECK_S, self._check)

    def _check(self) -> None:
        if self._child.measure_memory() <= self._bytes_max:
            self._timer = self._later()
            return
        limit_mb = self._bytes_max >> 20
        self._child.fault = f"The segment took more than {limit_mb} MB of memory and was stopped."
        self._nursery.kill(self._child)
