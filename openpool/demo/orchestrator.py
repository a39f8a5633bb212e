"""An orchestrator stand-in: the orchestrator's side of the remote-transcoder protocol, faithfully.

It registers, assigns, times out, evicts, accepts and refuses as the real one does, in the same
words, so that a pool that satisfies it can be pointed at a real orchestrator (docs/protocol.md).
Read on: `demo.door` (what arrives on its port), `demo.roster` (who gets a session), `demo.results`
(how results are read), `demo.cli_port` (its CLI port). It knows nothing of the pool behind it;
`submit` is where its gateways come in.
"""

import asyncio
import secrets
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from msgspec import Struct, structs

from openpool.core.capabilities import Capability, bit_set, fits, version_ok
from openpool.core.errors import NoCapacity, Unavailable
from openpool.core.model import Codec, H264Profile, Profile, Segment
from openpool.core.units import price
from openpool.demo.cli_port import CliPort
from openpool.demo.door import Counters, Door
from openpool.demo.life import Failed, Life, Session, TookTooLong
from openpool.demo.results import Part
from openpool.demo.roster import Member
from openpool.link.server import PortLimits, WorkerPort
from openpool.link.tls import load_or_create_identity, server_context
from openpool.wire.messages import Notification

ADDRESS = "0x00000000000000000000000000000000000000a1"
"""The recipient address it names in every task."""
LIMITS = PortLimits(connections_per_ip_max=0)
WAITING_PER_SESSION = 4
RENDITION_BYTES_MIN = 25
DURATION_DEFAULT_MS = 2000
DURATION_MAX_MS = 300_000
FILE_ENDING = {"mpegts": "ts", "mp4": "mp4"}
ENCODER = {
    Codec.H264: Capability.H264,
    Codec.H265: Capability.HEVC_ENCODE,
    Codec.VP8: Capability.VP8_ENCODE,
    Codec.VP9: Capability.VP9_ENCODE,
}
H264_PROFILE = {
    H264Profile.BASELINE: Capability.H264_BASELINE,
    H264Profile.MAIN: Capability.H264_MAIN,
    H264Profile.HIGH: Capability.H264_HIGH,
    H264Profile.CONSTRAINED_HIGH: Capability.H264_CONSTRAINED_HIGH,
}


class Output(Struct, frozen=True, kw_only=True):
    """One rendition as the gateway gets it."""

    profile: Profile
    data: bytes
    pixels: int
    perceptual_hash: bytes | None = None


class Outcome(Struct, frozen=True, kw_only=True):
    """What became of one segment: renditions in job order, or the error text a gateway sees."""

    manifest: str
    seq: int
    renditions: tuple[Output, ...] = ()
    error: str = ""
    took_ms: int = 0

    @property
    def ok(self) -> bool:
        return not self.error


class StandIn:
    """One orchestrator. Use as `async with StandIn(secret) as orchestrator:`."""

    def __init__(
        self,
        secret: str,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        cli_port: int = 0,
        price_wei: str = "1200",
        timeout_min_s: float = 8.0,
        idle_s: float = 70.0,
        max_sessions: int = 1000,
        local_verify: bool = False,
    ) -> None:
        """Ports of 0 are chosen freely, and kept over restarts.

        `local_verify` decodes every rendition, as gateways do, and wants the exact pixel count.
        """
        self.secret = secret
        self.host = host
        self.port = port
        self.price_wei = price(price_wei)
        self.counters = Counters()
        self.pixels_billed: defaultdict[str, int] = defaultdict(int)
        """Encoded pixels by manifest id."""
        self.value_wei: defaultdict[str, Fraction] = defaultdict(Fraction)
        """Expected value of the tickets that gateways sent, by manifest id."""
        self._timeout_min_s = timeout_min_s
        self._idle_s = idle_s
        self._max_sessions = max_sessions
        self._local_verify = local_verify
        self._changed = asyncio.Event()
        self._life = Life()
        self._port: WorkerPort | None = None
        self._cli = CliPort(self, host, cli_port)

    # life

    async def __aenter__(self) -> Self:
        """Open both ports, with a certificate made now and task ids from 0."""
        self._group = await asyncio.TaskGroup().__aenter__()
        try:
            await self._begin_life()
            await self._cli.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._cli.stop()
            await self._end_life()
        finally:
            # an error of the block is the block's own: the group need not wrap it
            await self._group.__aexit__(None, None, None)

    async def restart(self) -> None:
        """Forget tasks, sessions, segments and registrations, as a new process on the old ports."""
        await self._end_life()
        await self._begin_life()

    async def _begin_life(self) -> None:
        self._life = Life()
        door = Door(self.secret, self._life, self.counters, self._changed.set)
        with TemporaryDirectory(prefix="openpool-stand-in-") as folder:
            tls = server_context(load_or_create_identity(Path(folder), [self.host]))
        self._port = WorkerPort(door, tls, host=self.host, port=self.port, limits=LIMITS)
        await self._port.start()
        self.port = self._port.port
        started = asyncio.Event()
        self._group.create_task(self._port.serve(started))
        await started.wait()

    async def _end_life(self) -> None:
        self._life.end()
        if self._port:
            await self._port.close()

    @property
    def address(self) -> str:
        """Host and port that transcoders dial."""
        return f"{self.host}:{self.port}"

    @property
    def cli_url(self) -> str:
        return self._cli.url

    # what drivers and tests see

    def members(self) -> list[Member]:
        """Who is registered now."""
        return self._life.roster.live()

    async def wait_registered(self, count: int = 1, timeout_s: float = 10.0) -> None:
        """Wait until exactly `count` are registered; TimeoutError if that never happens."""
        async with asyncio.timeout(timeout_s):
            while len(self.members()) != count:
                self._changed.clear()
                await self._changed.wait()

    def session_id(self, manifest: str) -> str:
        """The session id of a stream, empty if it has none at the moment."""
        session = self._life.sessions.get(manifest)
        return session.id if session else ""

    def segment_url(self, manifest: str, seq: int) -> str:
        """Where the source segment is served, as long as it is kept."""
        return f"https://{self.address}/stream/{self.session_id(manifest)}/{seq}.tempfile"

    async def submit(
        self,
        manifest: str,
        seq: int,
        data: bytes,
        duration_ms: int,
        profiles: Sequence[Profile],
        *,
        capabilities: int | None = None,
        min_version: str = "",
    ) -> Outcome:
        """Transcode one segment as for a gateway. A failure is an outcome too, never an exception.

        Each manifest has one session, made at its first segment. `capabilities` are what the job
        needs; left out, they are what a gateway derives from the profiles.
        """
        started = time.monotonic()
        segment = Segment(
            seq=seq,
            duration_ms=duration_ms or DURATION_DEFAULT_MS,
            profiles=tuple(profiles),
            capabilities=job_needs(profiles) if capabilities is None else capabilities,
            min_version=min_version,
            orchestrator_address=ADDRESS,
        )
        renditions: tuple[Output, ...] = ()
        error = ""
        try:
            renditions = await self._serve(self._life, manifest, segment, data)
        except (Failed, NoCapacity, Unavailable) as failure:
            error = str(failure)
        took_ms = round((time.monotonic() - started) * 1000)
        return Outcome(
            manifest=manifest, seq=seq, renditions=renditions, error=error, took_ms=took_ms
        )

    def end_session(self, manifest: str) -> None:
        """The stream is over: whoever holds its session is told to free what it keeps."""
        if session := self._life.sessions.pop(manifest, None):
            self._tear_down(self._life, session)

    # one segment

    async def _serve(
        self, life: Life, manifest: str, segment: Segment, data: bytes
    ) -> tuple[Output, ...]:
        if not 0 < segment.duration_ms <= DURATION_MAX_MS:
            raise Failed("invalid duration")
        session = self._session(life, manifest)
        if session.pending > WAITING_PER_SESSION:
            raise Failed("OrchestratorBusy")
        session.stop_idling()
        session.pending += 1
        try:
            async with session.turn:
                parts = await self._transcode(life, session, segment, data)
        finally:
            session.pending -= 1
            self._let_idle(life, session)
        outputs = tuple(
            Output(
                profile=profile,
                data=part.data,
                pixels=part.pixels,
                perceptual_hash=part.perceptual_hash,
            )
            for profile, part in zip(segment.profiles, parts, strict=True)
        )
        pixels = sum(part.pixels for part in parts)
        self.pixels_billed[manifest] += pixels
        self.value_wei[manifest] += pixels * self.price_wei
        if self._local_verify:
            await _verify(outputs)
        return outputs

    def _session(self, life: Life, manifest: str) -> Session:
        if manifest not in life.sessions:
            if len(life.sessions) >= self._max_sessions:
                raise Failed("OrchestratorCapped")
            life.sessions[manifest] = Session(secrets.token_hex(4), manifest)
        return life.sessions[manifest]

    def _let_idle(self, life: Life, session: Session) -> None:
        if session.pending == 0 and life is self._life:
            session.idle = asyncio.get_running_loop().call_later(
                self._idle_s, self._expire, life, session
            )

    def _expire(self, life: Life, session: Session) -> None:
        if life.sessions.get(session.manifest) is session:
            del life.sessions[session.manifest]
        self._tear_down(life, session)

    def _tear_down(self, life: Life, session: Session) -> None:
        session.stop_idling()
        life.memory.forget_session(session.id)
        if member := life.roster.holder(session.id):
            with suppress(Unavailable):
                member.stream.notify(Notification(session=session.id))
        life.roster.release(session.id)

    async def _transcode(
        self, life: Life, session: Session, segment: Segment, data: bytes
    ) -> list[Part]:
        path = f"{session.id}/{segment.seq}.tempfile"
        life.memory.save(path, data)
        notification = Notification(
            url=f"https://{self.address}/stream/{path}",
            session=session.id,
            manifest=session.manifest,
            segment=segment,
        )
        parts = await self._hand_out(life, session, segment, notification)
        if len(parts) != len(segment.profiles):
            raise Failed("MismatchedSegments")
        if any(len(part.data) < RENDITION_BYTES_MIN for part in parts):
            raise Failed("ZeroSegments")
        for profile, part in zip(segment.profiles, parts, strict=True):
            ending = FILE_ENDING[profile.container]
            life.memory.save(f"{session.id}/{profile.name}/{segment.seq}.{ending}", part.data)
        return parts

    async def _hand_out(
        self, life: Life, session: Session, segment: Segment, notification: Notification
    ) -> list[Part]:
        """Try members until one has the task; after that its answer, or its silence, counts."""

        def suits(member: Member) -> bool:
            able = fits(segment.capabilities, member.capabilities)
            return able and version_ok(member.version, segment.min_version)

        while True:
            member = life.roster.choose(session.id, suits)
            task_id, answer = life.tasks.open()
            self.counters.tasks += 1
            try:
                member.stream.notify(structs.replace(notification, task_id=task_id))
            except Unavailable:
                self._give_up_on(life, session, member)
                continue
            try:
                async with asyncio.timeout(self.limit_s(segment.duration_ms)):
                    return await answer
            except TimeoutError:
                self._give_up_on(life, session, member)
                raise TookTooLong from None
            except Failed:
                life.roster.release(session.id)
                raise
            finally:
                life.tasks.close(task_id)

    def limit_s(self, duration_ms: int) -> float:
        """How long a task may take before whoever has it is evicted."""
        return max(self._timeout_min_s, 4 * duration_ms / 1000)

    def _give_up_on(self, life: Life, session: Session, member: Member) -> None:
        life.roster.release(session.id)
        life.roster.leave(member)
        member.over.set()
        self.counters.evicted += 1


def job_needs(profiles: Sequence[Profile]) -> int:
    """What a gateway asks for, for H.264 that was pushed to it over HTTP."""
    needs = bit_set(Capability.H264, Capability.AUTH_TOKEN, Capability.SEGMENT_SLICING)
    for profile in profiles:
        needs |= bit_set(Capability.MP4 if profile.container == "mp4" else Capability.MPEGTS)
        needs |= bit_set(ENCODER[profile.codec])
        needs |= bit_set(*(number for number, asked in _extras(profile) if asked))
    return needs


def _extras(profile: Profile) -> list[tuple[Capability, bool]]:
    return [
        (Capability.FRACTIONAL_FRAMERATES, profile.fps_den > 1),
        (Capability.GOP, profile.gop_ms != 0),
        *(
            (capability, profile.h264_profile == h264_profile)
            for h264_profile, capability in H264_PROFILE.items()
        ),
    ]


async def _verify(outputs: Sequence[Output]) -> None:
    from openpool.demo.pixels import look_at  # brings FFmpeg, which few stand-ins need

    for output in outputs:
        seen = await asyncio.to_thread(look_at, output.data)
        if not seen.pixels or seen.pixels != output.pixels:
            raise Failed("PixelMismatch")
