"""The result verifier: opens what workers send before anything is delivered or paid.

Every result is measured by demuxing (`pool.probe`) and judged against the job (`pool.judge`). A
sample, drawn with the pool's secret once the result can no longer be changed, is also decoded and
looked at (`pool.look`). Files are only opened in child processes (`pool.checkers`). A worker is
never blamed for a source that is broken itself.
"""

import asyncio
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from msgspec.structs import replace

from openpool.core.errors import Unavailable
from openpool.core.model import Segment, Verdict
from openpool.core.units import PPM
from openpool.pool import judge
from openpool.pool.checkers import CheckerHung, CheckerLost, Checkers
from openpool.pool.findings import (
    Answer,
    Compare,
    Fault,
    Look,
    Measure,
    Probe,
    Recount,
    Request,
    See,
)
from openpool.wire.results import RenditionData

INVALID_SOURCE = "TranscoderInvalidVideo"
"""How gateways know a source that cannot be opened: they drop it and keep the orchestrator."""
SOURCES_KEPT = 4_000
NEW_WORKER_CHECKS = 200
NEW_WORKER_FACTOR = 10
UNOPENABLE = "crashes or hangs the pool's checker; send a clean file"


class _InputFault(Exception):
    """The source cannot be transcoded; the text is the one gateways know."""


class Verifier:
    """Checks results in child processes.

    `sample_ppm` of the results that pass are also looked at; of a worker's first results ten times
    as many. `waiting_max` checks may run or wait at once.
    """

    def __init__(
        self,
        processes: int = 2,
        *,
        secret: bytes = b"",
        sample_ppm: int = 10_000,
        limit_s: float = 5.0,
        deep_limit_s: float = 30.0,
        waiting_max: int = 1_000,
        checkers: Checkers | None = None,
    ) -> None:
        self.checkers = checkers or Checkers(processes)
        self._secret = secret or secrets.token_bytes(32)
        self._sample_ppm = sample_ppm
        self._limit_s = limit_s
        self._deep_limit_s = deep_limit_s
        self._waiting_max = waiting_max
        self._running = 0
        self._probes: OrderedDict[str, Probe | Fault] = OrderedDict()
        self._recounts: OrderedDict[str, Probe | Fault] = OrderedDict()
        self._passed: dict[str, int] = {}

    async def start(self) -> None:
        """Start the child processes and wait until they are ready."""
        await self.checkers.start()

    async def close(self) -> None:
        """Kill the child processes."""
        await self.checkers.close()

    async def check(
        self,
        job: str,
        source: bytes,
        renditions: Sequence[RenditionData],
        segment: Segment,
        worker: str = "",
        *,
        deep: bool | None = None,
    ) -> Verdict:
        """Open a result and say whether it is what `segment` asked for.

        `deep` has every rendition looked at (True) or none (False); else the sample decides.
        Raises Unavailable when too many checks wait already.
        """
        with self._admitted():
            started = time.monotonic()
            try:
                verdict = await self._check(job, source, renditions, segment, worker, deep)
            except _InputFault as fault:
                verdict = Verdict(ok=False, reason=str(fault), input_fault=True)
            return replace(verdict, checked_ms=round((time.monotonic() - started) * 1000))

    def passed(self, worker: str) -> int:
        """How many results of a worker were good so far, since the pool started."""
        return self._passed.get(worker, 0)

    async def prepare(self, job: str, source: bytes) -> None:
        """Measure a source before there is a result, so that its check is shorter."""
        with self._admitted(), suppress(_InputFault):
            await self._once(self._probes, job, Measure(), source)

    async def source_fault(self, job: str, source: bytes, segment: Segment) -> str:
        """Why nobody can transcode this source, decoding all of it; empty if it is in order.

        The text is one that makes gateways give up on the segment and not on the orchestrator.
        """
        with self._admitted():
            try:
                measured = await self._measured(job, source, segment)
                await self._recounted(job, source, measured)
            except _InputFault as fault:
                return str(fault)
            return ""

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        if self._running >= self._waiting_max:
            raise Unavailable("too many results are waiting to be checked; try again shortly")
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    async def _check(
        self,
        job: str,
        source: bytes,
        renditions: Sequence[RenditionData],
        segment: Segment,
        worker: str,
        deep: bool | None,
    ) -> Verdict:
        measured = await self._measured(job, source, segment)
        info = measured.source_info(segment.duration_ms)
        fault = judge.count_fault(segment, [len(rendition.data) for rendition in renditions])
        if fault:
            return Verdict(ok=False, reason=fault, source=info)
        opened = await self._ask_all(Measure(), [rendition.data for rendition in renditions])
        found = [each for each in opened if isinstance(each, Probe)]
        claims = [rendition.pixels for rendition in renditions]
        fault = _unopenable(segment, opened)
        fault = fault or await self._fault(job, source, measured, segment, found, claims)
        if not fault:
            picked = self._picked(worker, found, deep)
            fault = await self._look(source, segment, renditions, found, picked)
        if fault:
            return Verdict(ok=False, reason=fault, source=info)
        self._passed[worker] = self.passed(worker) + 1
        passed = map(judge.rendition, segment.profiles, found)
        return Verdict(ok=True, source=info, renditions=tuple(passed))

    async def _fault(
        self,
        job: str,
        source: bytes,
        measured: Probe,
        segment: Segment,
        found: Sequence[Probe],
        claims: Sequence[int],
    ) -> str:
        if fault := judge.form_fault(segment, measured, found):
            return fault
        if fault := judge.timing_fault(segment, measured, found):
            recounted = await self._recounted(job, source, measured)
            if recounted.frames == measured.frames:
                return fault
            if fault := judge.timing_fault(segment, recounted, found):
                return fault
        return judge.claim_fault(segment, found, claims)

    # --- the source ----------------------------------------------------------------------------

    async def _measured(self, job: str, source: bytes, segment: Segment) -> Probe:
        """The source by its packets. Raises _InputFault."""
        measured = await self._once(self._probes, job, Measure(), source)
        if fault := judge.input_fault(measured, segment):
            raise _InputFault(fault)
        return measured

    async def _recounted(self, job: str, source: bytes, measured: Probe) -> Probe:
        """The source as a decoder sees it. Raises _InputFault."""
        return await self._once(self._recounts, job, Recount(measured), source)

    async def _once(
        self, known: OrderedDict[str, Probe | Fault], job: str, request: Request, source: bytes
    ) -> Probe:
        """An answer about a job's source, kept so that a second result costs no second look."""
        if job not in known:
            answer = await self._ask(request, source)
            known[job] = answer if isinstance(answer, Probe) else Fault(INVALID_SOURCE)
            while len(known) > SOURCES_KEPT:
                known.popitem(last=False)
        answer = known[job]
        if isinstance(answer, Fault):
            raise _InputFault(answer.text)
        return answer

    # --- the deeper look -----------------------------------------------------------------------

    def _picked(self, worker: str, found: Sequence[Probe], deep: bool | None) -> list[int]:
        """Which renditions to look at. Nobody without the secret can tell in advance."""
        if deep is not None:
            return list(range(len(found))) if deep else []
        digests = "".join(probe.sha256 for probe in found).encode()
        draw = int.from_bytes(hmac.digest(self._secret, digests, "sha256"))
        is_new = self.passed(worker) < NEW_WORKER_CHECKS
        ppm = self._sample_ppm * (NEW_WORKER_FACTOR if is_new else 1)
        return [draw // PPM % len(found)] if draw % PPM < ppm else []

    async def _look(
        self,
        source: bytes,
        segment: Segment,
        renditions: Sequence[RenditionData],
        found: Sequence[Probe],
        picked: Sequence[int],
    ) -> str:
        if not picked:
            return ""
        seen = await self._ask(See(segment.clip_from_ms, segment.clip_to_ms), source)
        if not isinstance(seen, Look):
            return ""
        for i in picked:
            slack = judge.picture_slack(segment.profiles[i], found[i])
            answer = await self._ask(Compare(seen, slack), renditions[i].data)
            if isinstance(answer, Fault) and answer.text:
                return f"rendition {segment.profiles[i].name!r} {answer.text}"
        return ""

    # --- asking --------------------------------------------------------------------------------

    async def _ask_all(self, request: Request, files: Sequence[bytes]) -> list[Answer]:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._ask(request, data)) for data in files]
        return [task.result() for task in asked]

    async def _ask(self, request: Request, data: bytes) -> Answer:
        limit_s = self._limit_s if isinstance(request, Measure) else self._deep_limit_s
        try:
            try:
                return await self.checkers.ask(request, data, limit_s)
            except CheckerLost:  # may have been the machine's fault, not the file's: once more
                return await self.checkers.ask(request, data, limit_s)
        except (CheckerLost, CheckerHung):
            return Fault(UNOPENABLE)


def _unopenable(segment: Segment, opened: Sequence[Answer]) -> str:
    for profile, answer in zip(segment.profiles, opened, strict=True):
        if isinstance(answer, Fault):
            return f"rendition {profile.name!r} {answer.text}"
    return ""
