"""The pool as a Live Runner: tells orchestrators which apps the workers serve, and keeps it so.

Every app is one *runner* at every orchestrator: registered by heartbeats, its capacity that of all
workers together. A runner that loses its workers is drained by lowering its capacity, never by
its status, which would cut off sessions. Who an app is to an orchestrator (id and secret) is
remembered over our restarts, and over the orchestrator's, so that customers find it again.
Read next: `pool.live_runner_http`, where the customers' requests then arrive.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal

import msgspec
import structlog
from msgspec import Struct, structs

from openpool.core.call_instructions import SessionLost
from openpool.core.call_requests import CallRequest
from openpool.core.calls import App, Offer
from openpool.core.desk_views import RunnerView
from openpool.core.errors import OpenPoolError, Unavailable
from openpool.core.prices import RunnerPrice
from openpool.core.units import PPM
from openpool.link.tls import Trust
from openpool.link.trickle import ChannelClosed
from openpool.pool import live_runner_channels as channels
from openpool.pool.live_runner_answers import Whole
from openpool.pool.live_runner_http import CHANNELS_PATH, Place, RunnerDoor
from openpool.pool.live_runner_talk import NAME_CHARS_MAX, Refused, Talk
from openpool.wire import live_runner as wire
from openpool.wire.framing import MESSAGE_BYTES_MAX
from openpool.wire.live_runner import Heartbeat, HeartbeatReply

log = structlog.get_logger()

BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Waits after an orchestrator could not be reached. The last one repeats: it is well within the
20 s after which a silent runner is forgotten."""
REFUSED_S = 30.0
"""Wait after a refusal that only a person can end."""
SWEEP_S = 1.0
SWEEP_TRIES = 8
"""An orchestrator that has just forgotten a runner takes it again under its old id only after its
next sweep, which it makes every 5 s."""
PAUSE_S = 0.01
"""Between two messages of an o2r channel: a flood of them is slowed down, not obeyed."""
LOOK_S = 0.5
"""How often the workers' offers are looked at."""
GAP_S = 0.2
"""Least time between two heartbeats of a runner, whatever happens."""
SILENT_S = 300.0
"""How long a customer may write nothing into a channel."""
INTERVAL = timedelta(seconds=5)
INTERVAL_MAX_S = 60.0
GOODBYE_S = 3.0
"""How long an orchestrator has to hear that we stop."""
APPS_MAX = 1_000
SESSIONS_MAX = 10_000
"""Sessions of one runner that are followed; an orchestrator that claims more is not believed."""

Recall = Callable[[str], object]
"""Reads a setting of the store; None if there is none."""
Remember = Callable[[str, object], Awaitable[None]]
"""Writes a setting of the store."""
PriceOf = Callable[[App, bool], RunnerPrice | None]
"""The price of an app, for sessions or single requests; None off-chain, where nothing is paid."""


class Kept(Struct, frozen=True):
    """What is remembered of a runner."""

    runner_id: str
    secret: str
    o2r: str


@dataclass(frozen=True, slots=True)
class Served:
    """What all workers together serve of an app."""

    capacity: int
    gpu: str
    vram_mb: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A session of an app is over."""

    place: Place
    session: str
    """As the exchange knows it."""
    lasted_s: float


@dataclass(slots=True)
class Runner:
    """One app at one orchestrator."""

    place: Place
    served: Served | None = None
    """None if nobody serves it (any more)."""
    id: str = ""
    secret: str = ""
    """Empty while it is not registered."""
    o2r: str = ""
    since: dict[str, float] = field(default_factory=dict)
    """The sessions that the orchestrator has sold, and when we heard of it."""
    poke: asyncio.Event = field(default_factory=asyncio.Event)
    ears: asyncio.Task[None] | None = None
    failures: int = 0
    sweeps: int = 0
    problem: str = ""

    @property
    def capacity(self) -> int:
        """What to announce: all there is, or while draining just what is in use."""
        return self.served.capacity if self.served else max(1, len(self.since))

    @property
    def idle(self) -> bool:
        """Whether it need not be registered."""
        return self.served is None and not self.since


class LiveRunner:
    """The apps of the pool at one orchestrator. `run` it; `serve` says what there is."""

    def __init__(
        self,
        *,
        orchestrator: str,
        url: str,
        secret: str,
        trust: Trust,
        door: RunnerDoor,
        price_of: PriceOf,
        recall: Recall,
        remember: Remember,
        ended: Callable[[Ended], None],
        share_ppm: int = PPM,
        version: str = "",
        goodbye_s: float = GOODBYE_S,
    ) -> None:
        """`url` is the orchestrator's service address, `secret` its -orchSecret. `share_ppm` is the
        part of the capacity that it is offered. `ended` hears of each session that is over.
        `goodbye_s` is how long it has to hear that we stop; with 0 we just fall silent."""
        self.orchestrator = orchestrator
        self._talk = Talk(url, trust)
        self._secret = secret
        self._door = door
        self._price_of = price_of
        self._recall, self._remember = recall, remember
        self._ended = ended
        self._share_ppm = share_ppm
        self._version = version
        self._goodbye_s = goodbye_s
        self._runners: dict[tuple[App, bool], Runner] = {}
        self._wanted: Mapping[tuple[App, bool], Served] = {}
        self._draining = False
        self._changed = asyncio.Event()
        self._left = asyncio.Event()
        self._writing = asyncio.Lock()
        self._kept: dict[str, Kept] = {}

    # --- what there is -------------------------------------------------------------------------

    def serve(self, offers: Iterable[Offer]) -> None:
        """These are the offers of all workers now."""
        self._wanted = {} if self._draining else summed(offers)
        self._changed.set()

    def drain(self) -> None:
        """Sell nothing more: each app is unregistered when its last session has ended."""
        self._draining = True
        self.serve(())

    async def wait_empty(self) -> None:
        """Wait until nothing is registered any more."""
        while any(runner.secret for runner in self._runners.values()):
            self._left.clear()
            await self._left.wait()

    @property
    def problem(self) -> str:
        """Why apps are not sold, in one sentence; empty if all is well."""
        return next((each.problem for each in self._runners.values() if each.problem), "")

    def views(self) -> list[RunnerView]:
        """Every app that is sold here, or should be."""
        return [
            RunnerView(
                orchestrator=self.orchestrator,
                pipeline=place.app.pipeline,
                model=place.app.model,
                session=place.lasting,
                registered=bool(each.secret),
                capacity=each.served.capacity if each.served else 0,
                sessions=len(each.since),
                problem=each.problem,
            )
            for each in self._runners.values()
            if (place := each.place) and not (each.idle and not each.secret)
        ]

    def registered(self) -> dict[str, str]:
        """Runner ids of what is registered now, by app."""
        runners = self._runners.values()
        return {str(each.place.app): each.id for each in runners if each.secret}

    def sessions(self) -> dict[str, int]:
        """How many sessions are sold now, by app."""
        return {str(each.place.app): len(each.since) for each in self._runners.values()}

    # --- running -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the apps registered until cancelled; then unregister them."""
        self._kept = _read_kept(self._recall(self._key))
        async with self._talk:
            try:
                async with asyncio.TaskGroup() as self._tasks:
                    while True:
                        self._changed.clear()
                        self._take_up()
                        await self._changed.wait()
            finally:
                await self._say_goodbye()

    def _take_up(self) -> None:
        """Make runners of new apps, and have each look at what it serves now."""
        for key in [key for key in self._wanted if key not in self._runners]:
            if len(self._runners) >= APPS_MAX:
                log.warning("too-many-apps", orchestrator=self.orchestrator, most=APPS_MAX)
                break
            app, lasting = key
            runner = Runner(Place(self.orchestrator, app, lasting))
            if kept := self._kept.get(_name(runner.place)):
                runner.id, runner.secret, runner.o2r = kept.runner_id, kept.secret, kept.o2r
            self._runners[key] = runner
            self._tasks.create_task(self._keep(runner), name=f"runner {app}")
        for key, runner in self._runners.items():
            served = self._wanted.get(key)
            if served != runner.served:
                runner.served = served
                runner.poke.set()

    async def _keep(self, runner: Runner) -> None:
        """Beat for one runner for ever."""
        while True:
            runner.poke.clear()
            if runner.idle:
                await self._unregister(runner)
                await runner.poke.wait()
                continue
            wait_s = await self._beat(runner)
            await asyncio.sleep(min(GAP_S, wait_s))
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, wait_s - GAP_S)):
                    await runner.poke.wait()

    async def _beat(self, runner: Runner) -> float:
        """One heartbeat; how long to wait until the next."""
        now = asyncio.get_running_loop().time
        began = now()
        try:
            reply = await self._heartbeat(runner)
        except Refused as refused:
            return await self._refused(runner, refused)
        except OpenPoolError as error:
            runner.failures += 1
            self._complain(runner, str(error))
            return BACKOFF_S[min(runner.failures, len(BACKOFF_S)) - 1]
        runner.failures = runner.sweeps = 0
        runner.problem = ""
        if reply.heartbeat_secret or reply.runner_id != runner.id:
            await self._registered(runner, reply)
        self._reconcile(runner, reply.session_ids or [], began)
        self._listen(runner)
        asked_s = wire.read_duration(reply.heartbeat_interval, INTERVAL).total_seconds()
        return min(max(asked_s, GAP_S), INTERVAL_MAX_S)

    async def _heartbeat(self, runner: Runner) -> HeartbeatReply:
        place, served = runner.place, runner.served
        price = self._price_of(place.app, place.lasting)
        gpu = wire.Gpu(name=served.gpu, vram_mb=served.vram_mb) if served and served.gpu else None
        beat = Heartbeat(
            runner_id=runner.id,
            runner_url=self._door.address(place),
            app=str(place.app),
            version=self._version,
            mode="persistent" if place.lasting else "single-shot",
            capacity=self._shared(runner.capacity),
            gpu=gpu,
            price_info=wire.PriceInfo(price=Decimal(price.usd), unit=price.unit) if price else None,
            session_ids=list(runner.since),
        )
        return await self._talk.heartbeat(beat, runner.secret or self._secret)

    def _shared(self, capacity: int) -> int:
        return max(1, capacity * self._share_ppm // PPM)

    async def _refused(self, runner: Runner, refused: Refused) -> float:
        """After 401 or 404 the runner is not known any more: register anew, as who it was."""
        if refused.status in (401, 404):
            if runner.secret:
                await self._forgotten(runner)
                return 0.0
            if runner.id and runner.sweeps < SWEEP_TRIES and refused.status == 404:
                runner.sweeps += 1
                return SWEEP_S
            if runner.id:
                runner.id, runner.sweeps = "", 0
                return 0.0
        if kept := self._kept.get(_name(runner.place)):
            runner.id = kept.runner_id  # for the time when we are let in
        self._complain(runner, _advice(refused, str(runner.place.app)))
        return REFUSED_S

    def _complain(self, runner: Runner, problem: str) -> None:
        if runner.problem != problem:
            runner.problem = problem
            app = str(runner.place.app)
            log.warning(
                "runner-not-registered", orchestrator=self.orchestrator, app=app, problem=problem
            )

    async def _registered(self, runner: Runner, reply: HeartbeatReply) -> None:
        runner.id = reply.runner_id
        runner.secret = reply.heartbeat_secret or runner.secret
        runner.o2r = reply.o2r.url if reply.o2r else ""
        self._hush(runner)
        log.info("runner-registered", orchestrator=self.orchestrator, app=str(runner.place.app))
        await self._keep_secret(runner)

    async def _forgotten(self, runner: Runner) -> None:
        """The orchestrator does not know this runner: all its sessions are over."""
        runner.secret = runner.o2r = ""
        self._hush(runner)
        for session in list(runner.since):
            self._end(runner, session)
        await self._keep_secret(runner)

    async def _unregister(self, runner: Runner) -> None:
        if not runner.secret:
            return
        try:
            await self._talk.unregister(runner.id, runner.secret)
        except OpenPoolError as error:  # then it expires by itself
            log.info("runner-not-unregistered", orchestrator=self.orchestrator, reason=str(error))
        await self._forgotten(runner)
        self._left.set()
        log.info("runner-unregistered", orchestrator=self.orchestrator, app=str(runner.place.app))

    async def _say_goodbye(self) -> None:
        runners = list(self._runners.values()) if self._goodbye_s else []
        try:
            async with asyncio.timeout(self._goodbye_s), asyncio.TaskGroup() as tasks:
                for runner in runners:
                    tasks.create_task(self._unregister(runner))
        except TimeoutError:
            log.info("goodbye-too-slow", orchestrator=self.orchestrator)

    # --- sessions ------------------------------------------------------------------------------

    def _reconcile(self, runner: Runner, sessions: list[str], began: float) -> None:
        """The orchestrator's own list counts, but not against what was sold since we asked."""
        for session in sessions:
            self._begin(runner, session, began)
        there = set(sessions)
        for session in [each for each, at in runner.since.items() if at < began]:
            if session not in there:
                self._end(runner, session)
        self._door.tidy(runner.place, runner.since)

    def _begin(self, runner: Runner, session: str, at: float) -> None:
        if len(runner.since) < SESSIONS_MAX and 0 < len(session) <= NAME_CHARS_MAX:
            runner.since.setdefault(session, at)

    def _end(self, runner: Runner, session: str) -> None:
        at = runner.since.pop(session, None)
        if at is None:
            return
        lasted_s = asyncio.get_running_loop().time() - at
        name = self._door.end_session(self.orchestrator, session)
        if runner.place.lasting:
            self._ended(Ended(place=runner.place, session=name, lasted_s=lasted_s))
        if runner.served is None:
            runner.poke.set()

    async def stop_session(self, session: str) -> None:
        """The worker of a session is gone: nobody shall pay for it. `session` is its name at the
        exchange."""
        found = self._door.sessions.get(session)
        runner = found and self._runners.get((found.place.app, found.place.lasting))
        if not found or not runner or found.place.orchestrator != self.orchestrator:
            return
        try:
            await self._talk.stop_session(runner.id, found.id, found.token)
        except OpenPoolError as error:
            log.warning("session-not-stopped", orchestrator=self.orchestrator, reason=str(error))
        self._end(runner, found.id)

    async def open_channels(self, call: CallRequest, session: str, token: str) -> bytes:
        """Make trickle channels for a call and have it served over them; JSON for the customer."""
        runner = self._runners.get((call.app, call.lasting))
        if runner is None or not runner.secret:
            raise Unavailable
        made = await self._talk.make_channels(runner.id, session, token, channels.WISHES)
        self._tasks.create_task(self._tie(runner.place, call, session, token, made))
        shown = [structs.replace(each, internal_url="") for each in made]
        return wire.encode(wire.Channels(channels=shown))

    async def _tie(
        self, place: Place, call: CallRequest, session: str, token: str, made: list[wire.Channel]
    ) -> None:
        call = structs.replace(call, path=call.path.replace(CHANNELS_PATH, "/live", 1))
        subscriber = self._talk.subscriber(
            made[0], silence_s=SILENT_S, piece_bytes_max=MESSAGE_BYTES_MAX
        )
        with suppress(OpenPoolError):  # the session is over
            async with self._door.in_session(place, session, token):
                publisher = self._talk.publisher(made[1])
                await channels.tie(self._door.exchange, call, subscriber, publisher, SILENT_S)

    # --- o2r -----------------------------------------------------------------------------------

    def _listen(self, runner: Runner) -> None:
        if runner.place.lasting and runner.o2r and (runner.ears is None or runner.ears.done()):
            runner.ears = self._tasks.create_task(self._hear(runner, runner.o2r))

    def _hush(self, runner: Runner) -> None:
        if runner.ears is not None:
            runner.ears.cancel()
            runner.ears = None

    async def _hear(self, runner: Runner, url: str) -> None:
        """Read the channel of events. They are hints: the next heartbeat tells what is true."""
        subscriber = self._talk.events(url)
        try:
            while True:
                async with subscriber.piece() as piece:
                    if piece is not None:
                        data = b"".join([chunk async for chunk in piece.body])
                        self._heard(runner, data)
                await asyncio.sleep(PAUSE_S)
        except (ChannelClosed, OpenPoolError) as end:
            # listened to again after the next heartbeat
            log.debug("o2r-ended", orchestrator=self.orchestrator, reason=type(end).__name__)

    def _heard(self, runner: Runner, data: bytes) -> None:
        event = wire.decode(data or b"{}", wire.SessionEvent, "a message of the o2r channel")
        if event.event == "reserved":
            self._begin(runner, event.session, asyncio.get_running_loop().time())
        elif event.event == "released":
            self._end(runner, event.session)

    # --- memory --------------------------------------------------------------------------------

    @property
    def _key(self) -> str:
        return f"live-runner/{self.orchestrator}"

    async def _keep_secret(self, runner: Runner) -> None:
        name = _name(runner.place)
        self._kept[name] = Kept(runner.id, runner.secret, runner.o2r)
        async with self._writing:  # or an older state might be written last
            try:
                await self._remember(self._key, msgspec.to_builtins(self._kept))
            except Unavailable as error:
                log.error("runner-not-remembered", reason=str(error))


class LiveRunners:
    """The apps of the pool at all orchestrators, and the door through which their requests come.

    Run it with `run`, and tell it which sessions lost their worker.
    """

    def __init__(
        self,
        door: RunnerDoor,
        runners: Sequence[LiveRunner],
        offers: Callable[[], Iterable[Offer]],
    ) -> None:
        """`offers` are those of all workers at this moment."""
        self.door = door
        self.runners = {runner.orchestrator: runner for runner in runners}
        self._offers = offers
        self._draining = False
        self._tasks: asyncio.TaskGroup | None = None
        door.open_channels = self._open_channels

    async def run(self, listening: asyncio.Event | None = None) -> None:
        """Serve and keep registered until cancelled. `listening` is set once requests can come."""
        async with self.door.running(), asyncio.TaskGroup() as self._tasks:
            if listening is not None:
                listening.set()
            for runner in self.runners.values():
                self._tasks.create_task(runner.run(), name=f"live runner {runner.orchestrator}")
            await self._watch()

    async def _open_channels(self, call: CallRequest, session: str, token: str) -> Whole:
        shown = await self.runners[call.orchestrator].open_channels(call, session, token)
        return Whole(200, {"content-type": "application/json"}, shown)

    async def _watch(self) -> None:
        before: list[Offer] = []
        while not self._draining:
            offers = list(self._offers())
            if offers != before:
                before = offers
                for runner in self.runners.values():
                    runner.serve(offers)
            await asyncio.sleep(LOOK_S)

    def views(self) -> list[RunnerView]:
        """Every app at every orchestrator."""
        return [view for runner in self.runners.values() for view in runner.views()]

    async def drain(self) -> None:
        """Sell nothing more, and wait until the sessions that run have ended."""
        self._draining = True
        for runner in self.runners.values():
            runner.drain()
        for runner in self.runners.values():
            await runner.wait_empty()

    def session_lost(self, what: SessionLost) -> None:
        """The worker of a session is gone: nobody shall pay for it any longer."""
        runner = self.runners.get(what.orchestrator)
        if runner is not None and self._tasks is not None:
            self._tasks.create_task(runner.stop_session(what.session))


def summed(offers: Iterable[Offer]) -> dict[tuple[App, bool], Served]:
    """What there is of each app, over all workers: sessions and single requests apart."""
    totals: dict[tuple[App, bool], Served] = {}
    for offer in offers:
        if offer.capacity <= 0:
            continue
        key = (offer.app, offer.session)
        before = totals.get(key, Served(0, "", 0))
        totals[key] = Served(
            capacity=before.capacity + offer.capacity,
            gpu=before.gpu or offer.gpu,
            vram_mb=max(before.vram_mb, offer.vram_mb),
        )
    return totals


def _name(place: Place) -> str:
    return f"{place.app}{'|session' if place.lasting else ''}"


def _read_kept(stored: object) -> dict[str, Kept]:
    try:
        return msgspec.convert(stored or {}, dict[str, Kept])
    except msgspec.MsgspecError:
        return {}  # then all are registered under new ids


def _advice(refused: Refused, app: str) -> str:
    if refused.status == 401:
        return (
            "the orchestrator says our secret is wrong; set orchestrators[].secret to the value "
            "of its -orchSecret"
        )
    if refused.status == 404:
        return (
            "the orchestrator takes no live runners; start it with -useLiveRunners and -orchSecret"
        )
    hint = ""
    if "price" in str(refused):
        hint = "; ai.prices needs a row for it with unit request, or second for sessions"
    return f"the orchestrator does not take {app}: {refused}{hint}"
