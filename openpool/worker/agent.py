"""The worker's life: registers with its pool, does the tasks that come, answers every one of them.

A result is offered until its deadline, over lost connections and restarts of the pool; the pool
takes it whether or not this worker is registered at that moment. Transcoding itself is handed in
(`worker.sessions`, or anything with the same signature). Next: `worker.service`, which wires this
to a machine and to signals.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import uniform

import structlog

from openpool.core.errors import (
    BadMessage,
    OpenPoolError,
    PeerError,
    SetupError,
    Unauthorized,
    Unavailable,
)
from openpool.core.model import Segment
from openpool.link.client import Answer, TranscoderClient
from openpool.link.interface import Ended, GrpcStatus
from openpool.wire.messages import BadTask, Notification
from openpool.wire.results import RenditionData
from openpool.worker.terms import TranscodeResult

log = structlog.get_logger()

Transcode = Callable[[str, bytes, Segment, int], Awaitable[TranscodeResult]]
"""Session, source, what is asked for, and a time limit in ms. Raises OpenPoolError."""
EndSession = Callable[[str], None]

DEADLINE_S_MIN = 8.0
DURATIONS_MAX = 4
"""A task must be answered within max(8 s, 4 x its duration): then the pool has given it up."""
REPORT_S = 1.0
"""Kept for telling the pool that transcoding took too long."""
FETCH_S_MAX = 10.0
FETCH_TRIES = 3
POST_S_MAX = 30.0
ERROR_TRIES = 3
RETRY_FIRST_S = 0.2
RECONNECT_S_MAX = 15.0
POST_RETRY_S_MAX = 2.0
SETTLED_S = 2.0
"""A registration that lasted this long counts as a success."""
WAITING_PER_SLOT = 4
"""Tasks that may wait, per task that may run: a pool that sends more is refused."""
BUSY = "TranscoderBusy"
TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
FATAL = {
    "invalid secret": "The pool refuses this worker's token for good: it was revoked or banned. "
    "Enrol again, or ask the operator of the pool.",
    "zero capacity": "The pool refuses a worker with zero sessions: set at least one.",
}
"""What a server says to a worker that should stop, and what that means for its owner."""


@dataclass(slots=True)
class Counters:
    """What this worker did since it started."""

    registrations: int = 0
    received: int = 0
    delivered: int = 0
    """Results that the pool took."""
    unwanted: int = 0
    """Results that it refused, or did not need any more."""
    failed: int = 0
    """Tasks answered with an error, or not answered in time."""
    cancelled: int = 0
    reposts: int = 0
    media_ms: int = 0
    busy_ms: int = 0

    @property
    def rtf(self) -> float:
        """Real-time factor: time to fetch, transcode and deliver, over the time of the media."""
        return self.busy_ms / self.media_ms if self.media_ms else 0.0


@dataclass(slots=True)
class Backoff:
    """Waiting times that double; the jitter keeps a thousand workers from coming back at once."""

    first_s: float = RETRY_FIRST_S
    longest_s: float = RECONNECT_S_MAX
    _next_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._next_s = self.first_s

    def next(self) -> float:
        wait_s = self._next_s * uniform(0.5, 1.0)  # noqa: S311  no secret
        self._next_s = min(self._next_s * 2, self.longest_s)
        return wait_s


class Agent:
    """One worker towards one pool."""

    def __init__(
        self,
        client: TranscoderClient,
        transcode: Transcode,
        *,
        capacity: int,
        capabilities: int,
        version: str,
        end_session: EndSession = lambda session: None,
        drain_s: float = 30.0,
        reconnect_s_max: float = RECONNECT_S_MAX,
    ) -> None:
        self.counters = Counters()
        self.is_registered = False
        self._client = client
        self._transcode = transcode
        self._end_session = end_session
        self._capacity = capacity
        self._capabilities = capabilities
        self._version = version
        self._drain_s = drain_s
        self._backoff = Backoff(longest_s=reconnect_s_max)
        self._slots = asyncio.Semaphore(capacity * 2)
        self._tasks_max = capacity * 2 * (1 + WAITING_PER_SLOT)
        self._running: dict[int, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup
        self._registered: asyncio.Timeout | None = None
        self._draining = False

    @property
    def running(self) -> int:
        """Tasks that are not answered yet."""
        return len(self._running)

    async def run(self) -> None:
        """Work until `drain`. Raises SetupError if the pool will never take this worker."""
        fatal: SetupError | None = None
        async with asyncio.TaskGroup() as self._group:
            try:
                await self._stay_registered_until_drained()
                await self._finish_tasks()
            except SetupError as error:
                fatal = error
                self._cancel_tasks()
        if fatal:
            raise fatal

    def drain(self) -> None:
        """Take no more tasks; `run` returns when those that run are answered."""
        self._draining = True
        if self._registered and not self._registered.expired():
            self._registered.reschedule(0)

    # --- registration --------------------------------------------------------------------------

    async def _stay_registered_until_drained(self) -> None:
        if self._draining:
            return
        try:
            async with asyncio.timeout(None) as self._registered:
                await self._stay_registered()
        except TimeoutError:
            if not self._draining:
                raise
        finally:
            self._registered = None

    async def _stay_registered(self) -> None:
        while True:
            started = time.monotonic()
            ending = await self._serve_registration()
            self.is_registered = False
            settled = time.monotonic() - started >= SETTLED_S
            if settled:
                self._backoff.reset()
            is_clean = isinstance(ending, Ended) and ending.status == GrpcStatus.OK
            wait_s = 0.0 if is_clean and settled else self._backoff.next()
            log.warning("disconnected", reason=_words(ending), again_in_s=round(wait_s, 1))
            await asyncio.sleep(wait_s)

    async def _serve_registration(self) -> Exception:
        """Serve one registration; gives how it ended. Raises SetupError."""
        try:
            async with self._client.register(
                capacity=self._capacity,
                capabilities=self._capabilities,
                version=self._version,
                on_bad_task=self._on_bad_task,
            ) as registration:
                self.is_registered = True
                self.counters.registrations += 1
                log.info("connected", sessions=self._capacity)
                async for notification in registration:
                    self._on_notification(notification)
        except Ended as ending:
            if ending.message in FATAL:
                raise SetupError(FATAL[ending.message]) from None
            return ending
        except Unauthorized as error:
            # Later on it may be a stranger between us and the pool, who will go away again.
            if not self.counters.registrations:
                raise SetupError(str(error)) from None
            return error
        except (Unavailable, BadMessage) as error:
            return error
        return Unavailable("the registration was closed")

    # --- notifications -------------------------------------------------------------------------

    def _on_notification(self, notification: Notification) -> None:
        if notification.cancelled_task_id is not None:
            self._cancel(notification.cancelled_task_id)
        elif notification.url:
            self._start(notification)
        elif notification.session:
            self._end_session(notification.session)

    def _start(self, notification: Notification) -> None:
        task_id = notification.task_id
        if task_id in self._running:
            return
        self.counters.received += 1
        if notification.segment is None:
            self._answer_later(task_id, "empty seg data")
        elif len(self._running) >= self._tasks_max:
            self._answer_later(task_id, BUSY)
        else:
            work = self._do(notification, notification.segment)
            self._keep(task_id, self._group.create_task(work, name=f"task {task_id}"))

    def _on_bad_task(self, bad: BadTask) -> None:
        self._answer_later(bad.task_id, str(bad))

    def _answer_later(self, task_id: int, text: str) -> None:
        if task_id not in self._running and len(self._running) < 2 * self._tasks_max:
            answering = self._post_error(task_id, text, time.monotonic() + DEADLINE_S_MIN)
            self._keep(task_id, self._group.create_task(answering, name=f"error {task_id}"))

    def _keep(self, task_id: int, task: asyncio.Task[None]) -> None:
        self._running[task_id] = task
        task.add_done_callback(lambda _: self._running.pop(task_id, None))

    def _cancel(self, task_id: int) -> None:
        if task := self._running.get(task_id):
            log.info("cancelled by the pool", task=task_id)
            self.counters.cancelled += 1
            task.cancel()

    # --- one task ------------------------------------------------------------------------------

    async def _do(self, notification: Notification, segment: Segment) -> None:
        task_id = notification.task_id
        started = time.monotonic()
        allowed_s = max(DEADLINE_S_MIN, DURATIONS_MAX * segment.duration_ms / 1000)
        deadline = started + allowed_s
        try:
            async with asyncio.timeout(allowed_s), self._slots:
                source = await self._fetch(notification.url, deadline)
                left_ms = max(1, int((deadline - REPORT_S - time.monotonic()) * 1000))
                result = await self._transcode(notification.session, source, segment, left_ms)
                answer = await self._post_result(task_id, result, deadline)
        except TimeoutError:
            self.counters.failed += 1
            log.warning("not answered in time", task=task_id, allowed_s=allowed_s)
        except OpenPoolError as error:
            log.warning("failed", task=task_id, reason=str(error))
            await self._post_error(task_id, str(error), deadline)
        else:
            took_ms = round((time.monotonic() - started) * 1000)
            self._note(task_id, answer, result, took_ms)

    def _note(self, task_id: int, answer: Answer, result: TranscodeResult, took_ms: int) -> None:
        if answer.status != 200:
            self.counters.unwanted += 1
            log.warning("not taken", task=task_id, status=answer.status, reason=answer.text)
            return
        self.counters.delivered += 1
        self.counters.media_ms += result.media_ms
        self.counters.busy_ms += took_ms
        log.debug("delivered", task=task_id, took_ms=took_ms, media_ms=result.media_ms)

    async def _fetch(self, url: str, deadline: float) -> bytes:
        """The source segment. Raises OpenPoolError."""
        backoff = Backoff()
        for attempt in range(1, FETCH_TRIES + 1):
            try:
                limit_s = min(FETCH_S_MAX, deadline - time.monotonic())
                async with self._client.fetch(url, timeout_s=limit_s) as source:
                    return b"".join([chunk async for chunk in source.body])
            except Unavailable:
                if attempt == FETCH_TRIES:
                    raise
            await asyncio.sleep(backoff.next())
        raise AssertionError("unreachable")

    async def _post_result(self, task_id: int, result: TranscodeResult, deadline: float) -> Answer:
        """Offer a result until the pool has answered it; the caller bounds the time."""
        renditions = [
            RenditionData(data=each.data, pixels=each.pixels, container=each.container)
            for each in result.renditions
        ]
        backoff = Backoff(longest_s=POST_RETRY_S_MAX)
        while True:
            try:
                answer = await self._client.post_result(
                    task_id,
                    renditions,
                    result.source_pixels,
                    timeout_s=min(POST_S_MAX, deadline - time.monotonic()),
                )
            except (Unavailable, PeerError) as error:
                log.info("result not delivered yet", task=task_id, reason=str(error))
            else:
                if answer.status not in TRY_AGAIN:
                    return answer
            self.counters.reposts += 1
            await asyncio.sleep(backoff.next())

    async def _post_error(self, task_id: int, text: str, deadline: float) -> None:
        """Tell the pool that a task failed, so that it can go elsewhere at once."""
        self.counters.failed += 1
        backoff = Backoff()
        for _ in range(ERROR_TRIES):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return
            try:
                await self._client.post_error(task_id, text, timeout_s=min(5.0, left_s))
            except (Unavailable, PeerError) as error:
                log.info("error not reported yet", task=task_id, reason=str(error))
                await asyncio.sleep(backoff.next())
            else:
                return

    # --- the end -------------------------------------------------------------------------------

    async def _finish_tasks(self) -> None:
        """Wait for the running tasks as long as allowed, then give them up."""
        if self._running:
            log.info("draining", tasks=len(self._running), at_most_s=self._drain_s)
            await asyncio.wait(set(self._running.values()), timeout=self._drain_s)
        if self._running:
            log.warning("given up", tasks=len(self._running))
            self._cancel_tasks()

    def _cancel_tasks(self) -> None:
        for task in self._running.values():
            task.cancel()


def _words(ending: Exception) -> str:
    if isinstance(ending, Ended):
        return ending.message or "the pool ended the registration"
    return str(ending)
