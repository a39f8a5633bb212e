"""Segments that customers post, brought to the same workers as those of orchestrators.

To the core this is an orchestrator named `direct` without slot groups: what was posted is its
source, and what is delivered to it goes to the customer who waits. The customer pays. Must not
decide who works on what: that is the core. Must not know HTTP: that is `web.transcode`.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction

from openpool.core import customers
from openpool.core.call_requests import CallFailed
from openpool.core.errors import BadMessage, NoCapacity, OpenPoolError
from openpool.core.facts import (
    Delivered,
    Fact,
    OrchestratorSeen,
    PriceKnown,
    SegmentReceived,
    SessionEnded,
    SourceLost,
)
from openpool.core.geometry import (
    MAX_SEGMENT_BYTES,
    MAX_SEGMENT_MS,
    frames_expected,
    rendition_size,
)
from openpool.core.instructions import Deliver, DeliverError
from openpool.core.jobs import deadline_ms
from openpool.core.lifecycle import TIME_IS_UP
from openpool.core.model import Profile, Segment
from openpool.core.transcodes import DIRECT, Made, checked_session, needs, read_profiles
from openpool.pool.checkers import CheckerHung, CheckerLost, Checkers
from openpool.pool.findings import Fault, Measure, Probe
from openpool.pool.media import Media
from openpool.store.interface import Receipt
from openpool.wire.forms import Form, read_form
from openpool.wire.results import RenditionData

MEASURE_S = 5.0
LATE_MS = 2_000
"""How long after a job's deadline its answer is still waited for; the core always gives one."""
HUNG_UP = "the customer hung up"
LATE = "The pool could not transcode this in time; send shorter segments or try again."
CODECS = frozenset({"h264"})
UNOPENABLE = "The video crashes or blocks what opens it; send a clean file."
WORDS: Mapping[str, str] = {
    "TranscoderInvalidVideo": "it cannot be decoded",
    "TranscoderInvalidResolution": "its size cannot be encoded in that profile",
    "TranscoderUnrecognizedFormat": "its format is not known",
    "No keyframes in input": "it has no key frame",
    "Unsupported input codec": "its codec is not supported; send H.264",
    "Unsupported input pixel format": "its pixel format is not supported; send 4:2:0 with 8 bits",
    "Encoded frames runaway": "it would have far more frames at that rate than it has",
}
"""What the texts that orchestrators know mean to a person."""

Price = Callable[[], tuple[Fraction, str]]
"""Wei per pixel, and where that is known from."""
Hold = Callable[[str, str, Fraction, int], None]
"""Job, customer, price of a pixel, pixels: what it may cost is held until its end is in the log.
Raises SpendLimitReached."""

Answer = asyncio.Future[Sequence[RenditionData]]


@dataclass(slots=True)
class DirectVideo:
    """What stands where an orchestrator's `Upstream` stands."""

    feed: Callable[[Fact], None]
    media: Media
    checkers: Checkers
    price: Price
    hold: Hold
    epoch: int
    waiting: dict[str, Answer] = field(default_factory=dict)
    """By job: who waits for its renditions."""
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    @property
    def incarnation(self) -> str:
        """Task ids begin from zero at each start of the pool."""
        return f"start-{self.epoch}"

    def seen(self) -> None:
        """Make the core know this start, so that what was asked for before it is given up."""
        self.feed(OrchestratorSeen(orchestrator=DIRECT, incarnation=self.incarnation))

    # --- what customers ask --------------------------------------------------------------------

    async def transcode(
        self, customer: str, content_type: str, query: Mapping[str, str], body: bytes
    ) -> list[Made]:
        """Have the posted segment transcoded; `profiles` and `session` are in the form or `query`.

        Raises BadMessage for what cannot be transcoded, CallFailed for what was not.
        """
        form = await asyncio.to_thread(read_form, content_type, body, "file")
        source = form.file("file")
        profiles = read_profiles(_value(form, query, "profiles"))
        session = checked_session(_value(form, query, "session"))
        if not 0 < len(source) <= MAX_SEGMENT_BYTES:
            raise BadMessage(f"A segment has 1 to {MAX_SEGMENT_BYTES} bytes.")
        probe = await self._measured(source)
        segment = _segment(probe, profiles)
        pixels = sum(_pixels(profile, probe, segment) for profile in profiles)
        renditions = await self._done(customer, session, segment, source, pixels)
        return [
            _made(profile, probe, rendition)
            for profile, rendition in zip(profiles, renditions, strict=True)
        ]

    async def _measured(self, source: bytes) -> Probe:
        """Look at a source first: nobody need work on one that is no video. Raises BadMessage."""
        try:
            found = await self.checkers.ask(Measure(), source, MEASURE_S)
        except (CheckerLost, CheckerHung):
            raise BadMessage(UNOPENABLE) from None
        if isinstance(found, Fault):
            raise BadMessage(f"The video {found.text}.")
        assert isinstance(found, Probe)  # what a Measure is answered by
        if found.codec not in CODECS:
            raise BadMessage(f"The video is in {found.codec[:20]}; send H.264.")
        return found

    async def _done(
        self, customer: str, session: str, segment: Segment, source: bytes, pixels: int
    ) -> Sequence[RenditionData]:
        """Hand a segment to the core and wait for what comes of it."""
        number = next(self._numbers)
        job = f"{DIRECT}.{self.incarnation}.{number}"
        name = f"{customer}/{session}" if session else f"{customer}//{number}"
        price_wei, known_from = self.price()
        with self._waiting(job, source) as answer:
            self.hold(job, customer, price_wei, pixels)
            self.feed(
                PriceKnown(orchestrator=DIRECT, manifest="", price_wei=price_wei, source=known_from)
            )
            self.feed(
                SegmentReceived(  # without an address: the source is here already
                    orchestrator=DIRECT,
                    incarnation=self.incarnation,
                    group="",
                    task_id=number,
                    session=name,
                    manifest=customer,
                    segment=segment,
                    payer=customers.payer(customer),
                )
            )
            renditions = await _in_time(answer, segment)
        if not session:
            self.feed(SessionEnded(orchestrator=DIRECT, session=name))
        return renditions

    @contextmanager
    def _waiting(self, job: str, source: bytes) -> Iterator[Answer]:
        """Hold a job's source for the workers, and its answer; whoever leaves ends the job."""
        answer: Answer = asyncio.get_running_loop().create_future()
        self.media.begin(job)
        try:
            self.media.feed(job, source)
        except NoCapacity as full:
            self.media.forget(job)
            raise CallFailed("insufficient-capacity", str(full)) from None
        self.media.finish(job)
        self.waiting[job] = answer
        try:
            yield answer
        finally:
            del self.waiting[job]
            if not answer.done() or answer.cancelled():
                self.feed(SourceLost(job=job, reason=HUNG_UP))

    # --- what the core says --------------------------------------------------------------------

    def deliver(self, what: Deliver, _receipt: Receipt) -> None:
        """A checked result: for the customer, if one still waits."""
        renditions = self.media.result(what.attempt)
        self._settle(what.job, lambda answer: answer.set_result(renditions))

    def deliver_error(self, what: DeliverError, _receipt: Receipt) -> None:
        """Nothing came of a job: say so to whoever waits."""
        self._settle(what.job, lambda answer: answer.set_exception(_failure(what)))

    def _settle(self, job: str, settle: Callable[[Answer], None]) -> None:
        answer = self.waiting.get(job)
        if answer is None or answer.done():
            self.feed(Delivered(job=job, accepted=False, reason=HUNG_UP))
        else:
            settle(answer)
            self.feed(Delivered(job=job, accepted=True))


def _value(form: Form, query: Mapping[str, str], name: str) -> str:
    return form.values.get(name) or query.get(name, "")


def _segment(probe: Probe, profiles: tuple[Profile, ...]) -> Segment:
    """What is to be done with a source. Raises BadMessage."""
    duration_ms = max(1, (probe.span_us + probe.last_gap_us) // 1000)
    if duration_ms > MAX_SEGMENT_MS:
        raise BadMessage(f"A segment lasts {MAX_SEGMENT_MS // 1000} s at most; cut the video.")
    for profile in profiles:
        try:
            rendition_size(profile, probe.width, probe.height)
        except ValueError:
            raise BadMessage(
                f"The video is {probe.width}x{probe.height}, which cannot become {profile.name}."
            ) from None
    return Segment(seq=0, duration_ms=duration_ms, profiles=profiles, capabilities=needs(profiles))


def _pixels(profile: Profile, probe: Probe, segment: Segment) -> int:
    """The most that this rendition can have."""
    width, height = rendition_size(profile, probe.width, probe.height)
    _, frames = frames_expected(profile, probe.source_info(segment.duration_ms))
    return width * height * frames


def _made(profile: Profile, source: Probe, rendition: RenditionData) -> Made:
    width, height = rendition_size(profile, source.width, source.height)
    return Made(
        name=profile.name,
        container=profile.container,
        width=width,
        height=height,
        data=rendition.data,
    )


async def _in_time(answer: Answer, segment: Segment) -> Sequence[RenditionData]:
    """Raises BadMessage, CallFailed."""
    try:
        async with asyncio.timeout(deadline_ms(LATE_MS, segment.duration_ms) / 1000):
            return await answer
    except TimeoutError:
        raise CallFailed("timeout", LATE) from None


def _failure(what: DeliverError) -> OpenPoolError:
    text = what.text.removeprefix("Open Pool: ")
    if what.input_fault:
        return BadMessage(f"The video cannot be transcoded: {WORDS.get(text, text)}.")
    if not what.tried:
        return CallFailed("insufficient-capacity", f"{text[:1].upper()}{text[1:]}.")
    if text == TIME_IS_UP:
        return CallFailed("timeout", LATE)
    return CallFailed("worker-failed", f"{text[:1].upper()}{text[1:]}.")
