"""The pool towards its orchestrators: slot groups, sources, deliveries.

Each orchestrator is a stock go-livepeer node to which the pool looks like several remote
transcoders ("slot groups"), so that an eviction costs one group and never the pool. A group that
ends cleanly is registered again at once; transport errors back off. The certificate an
orchestrator shows identifies its incarnation: it makes a new one at every start, and its task ids
begin from zero again.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import structlog
from msgspec import structs

from openpool.core.errors import OpenPoolError, Unauthorized
from openpool.core.facts import (
    Delivered,
    Fact,
    GroupDown,
    GroupUp,
    OrchestratorLost,
    OrchestratorSeen,
    SegmentReceived,
    SessionEnded,
    SourceLost,
)
from openpool.core.geometry import MAX_SEGMENT_BYTES
from openpool.core.instructions import CloseGroup, Deliver, DeliverError, FetchSource, OpenGroup
from openpool.link.client import TranscoderClient
from openpool.link.interface import Ended, GrpcStatus
from openpool.pool.media import Media
from openpool.store.interface import Receipt
from openpool.wire.messages import BadTask, Notification

log = structlog.get_logger()

BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Waits between failed dials; the last one repeats. Jittered by a quarter."""
REFUSED_WAIT_S = 30.0
"""Wait after the orchestrator said that our secret is wrong: a person has to act."""
RETRY_DELIVERY_S = 0.1
ERROR_TIMEOUT_S = 2.0
RESTARTED = "the orchestrator has restarted; this task is not its own any more"


@dataclass(slots=True)
class Group:
    """A slot group's registration, kept up while it is wanted."""

    wanted: OpenGroup
    task: asyncio.Task[None] | None = None
    up: bool = False


@dataclass(slots=True)
class Upstream:
    """One orchestrator."""

    name: str
    client: TranscoderClient
    feed: Callable[[Fact], None]
    clock_ms: Callable[[], int]
    media: Media
    tasks: asyncio.TaskGroup
    remember: Callable[[str], None] = lambda fingerprint: None
    """Told of each new certificate, so that it can be pinned."""
    source_host: str = ""
    """Host and port to fetch sources from instead of the one in their URL, where that is not
    reachable from here."""
    groups: dict[str, Group] = field(default_factory=dict)
    incarnation: str = ""
    seen: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once a registration showed the certificate that sources must come under."""
    problem: str = ""
    """Why it cannot be reached, in one sentence; empty while it can."""

    # --- slot groups ---------------------------------------------------------------------------

    def open_group(self, wanted: OpenGroup, _receipt: Receipt) -> None:
        """Register a group and keep it registered until it is closed."""
        group = self.groups[wanted.group] = Group(wanted)
        group.task = self.tasks.create_task(self._keep(group), name=f"group {wanted.group}")

    def close_group(self, which: CloseGroup, _receipt: Receipt) -> None:
        """Unregister a group."""
        group = self.groups.pop(which.group, None)
        if group is not None and group.task is not None:
            group.task.cancel()

    def close(self) -> None:
        """Unregister everything: the orchestrator sends no more work."""
        for group in list(self.groups.values()):
            if group.task is not None:
                group.task.cancel()
        self.groups.clear()

    async def _keep(self, group: Group) -> None:
        failures = 0
        while True:
            wait_s = 0.0
            try:
                await self._register(group)
            except Ended as ended:
                # after an ending with OK (an eviction) come back at once
                wait_s = 0.0 if ended.status is GrpcStatus.OK else self._refused(ended)
            except OpenPoolError as error:
                self._trouble(str(error))
                wait_s = BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]
                failures += 1
            finally:
                failures = 0 if group.up else failures
                self._down(group)
            await asyncio.sleep(wait_s * random.uniform(0.75, 1.25))  # noqa: S311 - only jitter

    def _refused(self, ended: Ended) -> float:
        if ended.status is GrpcStatus.UNAVAILABLE:
            self._trouble(f"the orchestrator went away: {ended.message}")
            return BACKOFF_S[0]
        if ended.message == "invalid secret":
            self._trouble(
                "the orchestrator says our secret is wrong; set orchestrators[].secret to the "
                "value of its -orchSecret"
            )
            return REFUSED_WAIT_S
        self._trouble(f"the orchestrator refused us: {ended.message or ended.status.name}")
        return BACKOFF_S[2]

    def _trouble(self, problem: str) -> None:
        if problem != self.problem:
            log.warning("orchestrator-not-reached", orchestrator=self.name, problem=problem)
        self.problem = problem

    async def _register(self, group: Group) -> None:
        wanted = group.wanted
        async with self.client.register(
            capacity=wanted.capacity,
            capabilities=wanted.capabilities,
            version=wanted.version,
            on_bad_task=self._bad_task,
        ) as registration:
            self._up(group, registration.fingerprint)
            async for notification in registration:
                self._received(notification, wanted.group, registration.fingerprint)

    def _up(self, group: Group, incarnation: str) -> None:
        if self.problem or not self.incarnation:
            log.info("orchestrator-reached", orchestrator=self.name)
        self.problem = ""
        self.seen.set()
        if incarnation != self.incarnation:
            self.incarnation = incarnation
            self.remember(incarnation)
        self.feed(OrchestratorSeen(orchestrator=self.name, incarnation=incarnation))
        group.up = True
        self.feed(GroupUp(orchestrator=self.name, group=group.wanted.group))

    def _down(self, group: Group) -> None:
        if group.up:
            group.up = False
            reason = self.problem or "the stream ended"
            self.feed(GroupDown(orchestrator=self.name, group=group.wanted.group, reason=reason))
        if self.problem and not any(each.up for each in self.groups.values()):
            self.feed(OrchestratorLost(orchestrator=self.name, reason=self.problem))

    def _received(self, notification: Notification, group: str, incarnation: str) -> None:
        if notification.segment is None:
            self.feed(SessionEnded(orchestrator=self.name, session=notification.session))
            return
        self.feed(
            SegmentReceived(
                orchestrator=self.name,
                incarnation=incarnation,
                group=group,
                task_id=notification.task_id,
                session=notification.session,
                manifest=notification.manifest,
                segment=notification.segment,
                source_url=notification.url,
            )
        )

    def _bad_task(self, task: BadTask) -> None:
        """A task that cannot be read is answered, or the orchestrator would evict the group."""
        log.warning("task-unreadable", orchestrator=self.name, reason=str(task))
        self.tasks.create_task(self._refuse(task), name=f"refuse {task.task_id}")

    async def _refuse(self, task: BadTask) -> None:
        with suppress(OpenPoolError):
            await self.client.post_error(
                task.task_id, str(task), timeout_s=ERROR_TIMEOUT_S, incarnation=self.incarnation
            )

    # --- sources -------------------------------------------------------------------------------

    def fetch_source(self, what: FetchSource, _receipt: Receipt) -> None:
        """Start fetching a source; workers may read it while it arrives."""
        self.media.begin(what.job)
        self.tasks.create_task(self._fetch(what), name=f"fetch {what.job}")

    async def _fetch(self, what: FetchSource) -> None:
        try:
            async with asyncio.timeout((what.deadline_ms - self.clock_ms()) / 1000):
                await self.seen.wait()  # after our restart, jobs are taken up before groups are
                await self._fetch_into(what)
        except (OpenPoolError, TimeoutError) as error:
            reason = str(error) or "the orchestrator did not send the segment in time"
            self.media.finish(what.job, reason)
            self.feed(SourceLost(job=what.job, reason=reason))

    async def _fetch_into(self, what: FetchSource) -> None:
        left_s = (what.deadline_ms - self.clock_ms()) / 1000
        async with self.client.fetch(
            what.url, limit=MAX_SEGMENT_BYTES, timeout_s=left_s, via=self.source_host
        ) as source:
            self.media.set_length(what.job, source.length)
            async for chunk in source.body:
                if not self.media.feed(what.job, chunk):
                    return
        self.media.finish(what.job)

    # --- deliveries ----------------------------------------------------------------------------

    def deliver(self, what: Deliver, _receipt: Receipt) -> None:
        """Send a result upstream and report what the orchestrator said."""
        self.tasks.create_task(self._deliver(what), name=f"deliver {what.job}")

    async def _deliver(self, what: Deliver) -> None:
        renditions = [
            structs.replace(rendition, pixels=pixels)
            for rendition, pixels in zip(self.media.result(what.attempt), what.pixels, strict=True)
        ]
        reason = "the orchestrator did not take the result before its deadline"
        while (left_ms := what.deadline_ms - self.clock_ms()) > 0:
            try:
                async with asyncio.timeout(left_ms / 1000):
                    answer = await self.client.post_result(
                        what.task_id,
                        renditions,
                        what.source_pixels,
                        incarnation=what.incarnation,
                        timeout_s=left_ms / 1000,
                    )
                reason = "" if answer.status == 200 else f"the orchestrator answered {answer}"
                break
            except Unauthorized:  # it shows another certificate than when the task came
                reason = RESTARTED
                break
            except (TimeoutError, OpenPoolError):
                pass
            await asyncio.sleep(RETRY_DELIVERY_S)
        self.feed(Delivered(job=what.job, accepted=not reason, reason=reason))

    def deliver_error(self, what: DeliverError, _receipt: Receipt) -> None:
        """Tell the orchestrator that a task failed, so that it does not evict the group."""
        self.tasks.create_task(self._deliver_error(what), name=f"error {what.job}")

    async def _deliver_error(self, what: DeliverError) -> None:
        reason = ""
        try:
            async with asyncio.timeout(ERROR_TIMEOUT_S):
                await self.client.post_error(what.task_id, what.text, incarnation=what.incarnation)
        except Unauthorized:  # it shows another certificate than when the task came
            reason = RESTARTED
        except (OpenPoolError, TimeoutError) as error:
            reason = str(error) or "the orchestrator did not take the error in time"
            log.warning("error-not-delivered", job=what.job, reason=reason)
        self.feed(Delivered(job=what.job, accepted=not reason, reason=reason))
