"""The bytes of running jobs: source segments on their way down, results on their way up.

Bytes live in memory only while their job does, and never pass through the core. A source is
fetched once from the orchestrator and handed on as it arrives, so a worker starts downloading
before the pool has all of it. All bytes together stay under one budget.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from msgspec import structs

from openpool.core.errors import NoCapacity, Unavailable
from openpool.core.model import Profile
from openpool.wire.results import RenditionData

BUDGET_BYTES = 4_000_000_000
READ_TIMEOUT_S = 30.0


@dataclass(slots=True)
class Source:
    """A source segment that may still be arriving."""

    length: int | None = None
    chunks: list[bytes] = field(default_factory=list)
    size: int = 0
    complete: bool = False
    failure: str = ""
    whole: bytes | None = None
    """All of it in one piece, once somebody asked for that."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def _signal(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class Media:
    """Sources by job, results by attempt, within a budget of bytes."""

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self._budget = budget_bytes
        self._held = 0
        self._sources: dict[str, Source] = {}
        self._results: dict[int, list[RenditionData]] = {}

    @property
    def held_bytes(self) -> int:
        """Bytes in memory for running jobs."""
        return self._held

    def _hold(self, size: int) -> None:
        if self._held + size > self._budget:
            raise NoCapacity("the pool holds as many bytes as it may; try again shortly")
        self._held += size

    # --- sources -------------------------------------------------------------------------------

    def begin(self, job: str) -> None:
        """Make room for a job's source, so that readers can wait for it."""
        self._sources.setdefault(job, Source())

    def set_length(self, job: str, length: int | None) -> None:
        """Note the size the orchestrator announced."""
        if source := self._sources.get(job):
            source.length = length
            source._signal()

    def feed(self, job: str, chunk: bytes) -> bool:
        """Add bytes; False when nobody wants the job any more."""
        source = self._sources.get(job)
        if source is None:
            return False
        self._hold(len(chunk))
        source.chunks.append(chunk)
        source.size += len(chunk)
        source._signal()
        return True

    def finish(self, job: str, failure: str = "") -> None:
        """The source is complete, or will never be."""
        if source := self._sources.get(job):
            source.complete, source.failure = not failure, failure
            source._signal()

    def has(self, job: str) -> bool:
        """Whether the job is still open here."""
        return job in self._sources

    async def source_length(self, job: str) -> int | None:
        """The size of a source as soon as anything of it is known. Raises Unavailable."""
        source = self._source(job)
        while not (source.size or source.length or source.complete):
            await self._wait(source)
        return source.size if source.complete else source.length

    async def stream(self, job: str) -> AsyncIterator[bytes]:
        """The bytes of a source as they arrive. Raises Unavailable."""
        source = self._source(job)
        index = 0
        while True:
            while index < len(source.chunks):
                yield source.chunks[index]
                index += 1
            if source.complete:
                return
            await self._wait(source)

    async def source(self, job: str) -> bytes:
        """A whole source. Raises Unavailable."""
        source = self._source(job)
        while not source.complete:
            await self._wait(source)
        if source.whole is None:
            source.whole = b"".join(source.chunks)
        return source.whole

    def _source(self, job: str) -> Source:
        source = self._sources.get(job)
        if source is None:
            raise Unavailable("this segment is not needed any more")
        return source

    async def _wait(self, source: Source) -> None:
        if source.failure:
            raise Unavailable(source.failure)
        changed = source.changed
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                await changed.wait()
        except TimeoutError:
            raise Unavailable("the source segment did not arrive in time") from None
        if source.failure:
            raise Unavailable(source.failure)

    # --- results -------------------------------------------------------------------------------

    def put_result(self, attempt: int, renditions: list[RenditionData]) -> None:
        """Keep a result until its attempt is settled. Raises NoCapacity."""
        self._hold(sum(len(rendition.data) for rendition in renditions))
        self._results[attempt] = renditions

    def result(self, attempt: int) -> list[RenditionData]:
        """The renditions of an attempt; empty when they are gone."""
        return self._results.get(attempt, [])

    def label(self, attempt: int, profiles: Sequence[Profile]) -> None:
        """Call checked renditions what the job calls them, whatever their uploader said."""
        if attempt not in self._results:
            return
        self._results[attempt] = [
            structs.replace(rendition, container=profile.container)
            for rendition, profile in zip(self.result(attempt), profiles, strict=False)
        ]

    def drop_result(self, attempt: int) -> None:
        """Forget an attempt's renditions."""
        for rendition in self._results.pop(attempt, []):
            self._held -= len(rendition.data)

    def forget(self, job: str) -> None:
        """Forget a job's source; readers in the middle of it are told."""
        if source := self._sources.pop(job, None):
            self._held -= source.size
            if not source.complete:
                source.failure = source.failure or "this segment is not needed any more"
                source._signal()
