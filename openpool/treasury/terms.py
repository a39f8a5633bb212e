"""Publishes the pool's terms, and knows which of them hold now.

At start the settings become a promise; where it differs from the newest version, a new one is
signed and written to the log before anybody is told. Must not read settings itself.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

import structlog

from openpool.core.errors import BadMessage, SetupError
from openpool.core.events import Event
from openpool.core.money.documents import digest_of, signed_bytes, signed_text
from openpool.core.money.events import TermsPublished
from openpool.core.money.terms import (
    KIND,
    Promise,
    Published,
    Terms,
    commission_ppm,
    differences,
    encode_terms,
    in_force,
    next_terms,
    pending,
    published,
)
from openpool.store.interface import Appender, EventFilter, StoredEvent
from openpool.treasury.signing import Signs

log = structlog.get_logger()

HOUR_MS = 3_600_000
VERSIONS_MAX = 10_000
LOOK_MS = 60_000
"""Longest sleep: a clock that was set does not make terms apply a week late."""


class Store(Appender, Protocol):
    """The part of the store that is needed here (see `store.interface`)."""

    def events(self, which: EventFilter) -> list[StoredEvent]: ...


async def nothing() -> None:
    """What happens when terms apply, unless somebody has something to do then."""


class PublishedTerms:
    """All versions of the terms. `load` reads what was published, `publish` adds to it."""

    def __init__(
        self,
        *,
        store: Store,
        signer: Signs,
        clock_ms: Callable[[], int],
        pool_name: str,
        chain_id: int,
        on_applied: Callable[[], Awaitable[None]] = nothing,
    ) -> None:
        self.on_applied = on_applied
        """Called when an announced version begins to apply."""
        self._store, self._signer = store, signer
        self._clock_ms = clock_ms
        self._pool_name, self._chain_id = pool_name, chain_id
        self._versions: list[Published] = []
        self._published = asyncio.Event()

    def load(self) -> None:
        """Read the versions out of the log. Raises SetupError if there is one that this program
        does not understand."""
        which = EventFilter(types=("terms-published",), limit=VERSIONS_MAX)
        found = [stored.event.data for stored in self._store.events(which)]
        try:
            self._versions = [published(each) for each in found if isinstance(each, TermsPublished)]
        except BadMessage as error:
            raise SetupError(str(error)) from None

    async def publish(self, promise: Promise) -> Published:
        """Publish a new version if the promise is new; the newest version. On disk on return."""
        terms = next_terms(
            self._versions,
            promise,
            pool=self._pool_name,
            chain_id=self._chain_id,
            signer=self._signer.address,
            now_ms=self._clock_ms(),
        )
        if terms is None:
            return self._versions[-1]
        document = encode_terms(terms)
        digest = digest_of(document)
        event = TermsPublished(
            version=terms.version,
            digest=digest,
            applies_ms=terms.applies_ms,
            document=document.decode(),
            signer=self._signer.address,
            signature=self._signer.sign(signed_text(KIND, digest)),
        )
        name = f"terms/{terms.version}"
        receipt = self._store.append([Event(id=name, time_ms=terms.published_ms, data=event)])
        await receipt.durable()
        self._versions.append(published(event))
        self._published.set()
        self._say(terms)
        return self._versions[-1]

    def _say(self, terms: Terms) -> None:
        current = self.at(terms.published_ms)
        changes = differences(current.terms.promise, terms.promise) if current else []
        log.info(
            "terms-published",
            version=terms.version,
            applies_in_hours=(terms.applies_ms - terms.published_ms) // HOUR_MS,
            changes=changes,
        )

    async def run(self) -> None:
        """Call `on_applied` whenever an announced version begins to apply; ends by cancellation."""
        known = self.in_force().digest
        while True:
            await self._change()
            now = self.in_force().digest
            if now != known:
                known = now
                await self.on_applied()

    async def _change(self) -> None:
        """Wait until other terms may be in force."""
        coming = self.pending()
        until_ms = coming.terms.applies_ms - self._clock_ms() if coming else LOOK_MS
        self._published.clear()
        try:
            async with asyncio.timeout(max(1, min(until_ms, LOOK_MS)) / 1000):
                await self._published.wait()
        except TimeoutError:
            pass

    # --- what holds ----------------------------------------------------------------------------

    @property
    def versions(self) -> Sequence[Published]:
        """All of them, the oldest first."""
        return self._versions

    def in_force(self) -> Published:
        """The version that holds now. SetupError before anything was published."""
        found = self.at(self._clock_ms())
        if found is None and self._versions:
            first = datetime.fromtimestamp(self._versions[0].terms.applies_ms / 1000, UTC)
            raise SetupError(
                f"The pool's first terms are of {first:%Y-%m-%d %H:%M} UTC, which by the clock of "
                "this machine is still to come; set the clock right."
            )
        if found is None:
            raise SetupError("The pool has published no terms yet; start it once.")
        return found

    def at(self, time_ms: int) -> Published | None:
        """The version that held then; None before the first applied."""
        return in_force(self._versions, time_ms)

    def pending(self) -> Published | None:
        """The version that was announced and will apply."""
        return pending(self._versions, self._clock_ms())

    def commission_ppm(self, group: str) -> int:
        """What the pool keeps, now, of the fees of this group's workers."""
        return commission_ppm(self.in_force().terms.promise, group)

    def file(self, version: int = 0) -> bytes | None:
        """The signed document of a version; 0 is the one in force. None if there is none."""
        if not version:
            found = self.at(self._clock_ms())
        else:
            found = next((v for v in self._versions if v.terms.version == version), None)
        return signed_bytes(found.document, found.signer, found.signature) if found else None
