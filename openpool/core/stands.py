"""Who serves which app: lines, their stands, and the choice among them.

A *stand* is one app on one line. It has as many places as its offer says; a call without a session
takes one until it ends, streamed or not, and a session takes one until the session ends. All stands
of an app, and the calls that wait for one, are its *counter*. Must not know how a call goes: that
is `core.desk`.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from openpool.core.call_facts import CallReceived
from openpool.core.calls import App, Offer
from openpool.core.estimate import Estimate, load_level
from openpool.core.events import WorkerCooledDown
from openpool.core.jobs import tidy_reason
from openpool.core.settings import DeskSettings
from openpool.core.step import Outbox, Timers

if TYPE_CHECKING:
    from openpool.core.call_state import Call

RELIEF = 4
"""Successes that make up for one failure."""
UNPROVEN_FACTOR = 8
"""A stand without a result looks so much slower while it has work: one call to begin with."""
NEAR = 1.25
"""Stands that cost up to so much more than the best are equals; whoever had least work gets it."""
NEAR_MS = 5.0
BACKLOG = 16
"""Calls that a stand may be behind the others and still make up for."""


@dataclass(slots=True, eq=False)
class Server:
    """One worker, as far as calls are concerned."""

    name: str
    address: str
    commission_ppm: int
    lines: dict[str, "Line"] = field(default_factory=dict)
    cooling_until_ms: int = 0
    """0 when it is not cooling down."""
    faults: int = 0
    """`RELIEF` for a failure, back by one for a success."""
    cooldowns: int = 0
    """How often in a row it had to cool down."""
    banned: str = ""
    """Why it was banned; empty if it was not."""
    last_reason: str = ""
    """Why its latest failure happened."""
    last_assigned_ms: int = 0
    assigned: int = 0
    completed: int = 0
    failed: int = 0
    """Failures that count against it."""


@dataclass(slots=True, eq=False)
class Line:
    """One connection on which a worker serves calls."""

    id: str
    owner: Server
    peer: str
    since_ms: int
    up: bool = True
    vram_mb: int = 0
    """Graphics memory for all models together; 0 is not known."""
    stands: dict[App, "Stand"] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        return self.up and not self.owner.cooling_until_ms


class Times:
    """How long calls take: to the end of an answer, or to its first byte where answers are
    streamed, for the end of those is also up to how quickly the client reads."""

    def __init__(self, usual: "Times | None" = None) -> None:
        self.whole: Estimate = Estimate(usual.whole) if usual else Estimate(memory=64)
        self.first: Estimate = Estimate(usual.first) if usual else Estimate(memory=64)
        self.whole_ms = 0
        """Of the calls of late, whatever there was to do in them; as is the next."""
        self.first_ms = 0

    def of(self, streaming: bool) -> Estimate:
        return self.first if streaming else self.whole

    def observe(self, call: "Call", now_ms: int) -> None:
        """Learn from a good answer that ends now."""
        whole_ms, first_ms = now_ms - call.assigned_ms, call.started_ms - call.assigned_ms
        self.whole_ms = _towards(self.whole_ms, whole_ms)
        self.first_ms = _towards(self.first_ms, first_ms)
        streaming = call.asked.streaming
        took_ms = first_ms if streaming else whole_ms
        self.of(streaming).observe(took_ms, max(1, call.asked.work), call.load, now_ms)


def _towards(known_ms: int, news_ms: int) -> int:
    return known_ms + (news_ms - known_ms) // 8 if known_ms else news_ms


@dataclass(slots=True, eq=False)
class Stand:
    """One app on one line."""

    counter: "Counter"
    line: Line
    times: Times
    offer: Offer
    capacity: int
    """0 when it is not offered any more, while its last calls end."""
    warm: bool
    taken: int = 0
    """Places taken, by calls and by sessions."""
    calls: dict[str, "Call"] = field(default_factory=dict)
    """Calls that run here."""
    share: float = 0.0
    """Work given to it so far, per place, counted as in a fair queue."""

    @property
    def worker(self) -> str:
        return self.line.owner.name

    @property
    def load(self) -> int:
        """Level of load that a further call would meet."""
        return load_level(self.taken, self.capacity)

    @property
    def occupied(self) -> bool:
        return bool(self.taken or self.calls)

    def late_ms(self, work: int, streaming: bool, now_ms: int) -> float:
        """The time that 19 of 20 such calls stay below, the model being warm."""
        known = self.times.of(streaming)
        if known.samples:
            return known.late(self.load, now_ms) * work
        usual_ms = self.counter.usual.of(streaming).p95[0] * work
        return usual_ms * UNPROVEN_FACTOR if self.taken else usual_ms

    def predict_ms(self, work: int, streaming: bool) -> int:
        """The expected time of a call, the model being warm; 0 if nothing is known."""
        known, usual = self.times.of(streaming), self.counter.usual.of(streaming)
        best = known if known.samples else usual
        return best.predict_ms(work, self.load) if best.samples else 0

    def loads(self) -> int:
        """How many models must be loaded or thrown out before this one can serve; -1 if it does
        not fit beside those in use."""
        if self.warm:
            return 0
        needed, room = self.offer.vram_mb, self.line.vram_mb
        if not needed or not room:
            return 1
        others = [each for each in self.line.stands.values() if each is not self]
        in_use = sum(each.offer.vram_mb for each in others if each.occupied)
        if in_use + needed > room:
            return -1
        resident = sum(each.offer.vram_mb for each in others if each.occupied or each.warm)
        return 1 if resident + needed <= room else 2

    def make_room(self) -> None:
        """This model is going to be loaded: idle ones that must make room count as gone, until
        the line says what it has in memory."""
        if self.loads() == 2:
            for each in self.line.stands.values():
                if each is not self and not each.occupied and each.offer.vram_mb:
                    each.warm = False


class Counter:
    """One app: where it is served, and who waits for it."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.stands: dict[str, Stand] = {}
        """By line; only those that may get calls."""
        self.members = 0
        """Lines with a stand of this app, those that get no calls for now too."""
        self.usual = Times()
        """What is usual for this app: the first guess about a new stand."""
        self.waiting: dict[str, Call] = {}
        """Oldest first."""
        self.completed = 0
        self.failed = 0
        self.refused = 0
        """Calls that found no place."""
        self.level = 0.0
        """The share of those who get calls now, as in a fair queue: where newcomers start."""
        self._step = 0.0
        """What one call usually adds to a share."""

    @property
    def capacity(self) -> int:
        """Places of all stands that may get calls."""
        return sum(stand.capacity for stand in self.stands.values())

    def choose(
        self, asked: CallReceived, now_ms: int, cold_load_ms: int, without: Collection[str] = ()
    ) -> Stand | None:
        """The stand that should get a call: soonest done, and among equals who had least work.

        A cold model counts as `cold_load_ms`, twice if another must make room. None if no place is
        free. `without` are workers that must not get it.
        """
        free: list[tuple[float, Stand]] = []
        work, streaming = asked.work, asked.streaming
        for stand in self.stands.values():
            if stand.taken >= stand.capacity or stand.worker in without:
                continue
            loads = 0 if stand.warm else stand.loads()
            if loads >= 0:
                free.append((stand.late_ms(work, streaming, now_ms) + loads * cold_load_ms, stand))
        if not free:
            return None
        near_ms = min(cost for cost, _ in free) * NEAR + NEAR_MS
        return min((stand for cost, stand in free if cost <= near_ms), key=_share)

    def charge(self, stand: Stand, work: int) -> None:
        """Count work against a stand's share. Who was away long does not catch up at once."""
        step = work / max(1, stand.capacity)
        self._step += (step - self._step) / 64
        start = max(stand.share, self.level - BACKLOG * self._step)
        self.level = max(self.level, start)
        stand.share = start + step


def _share(stand: Stand) -> float:
    return stand.share


class Stands:
    """Every line and counter."""

    def __init__(self, settings: DeskSettings, out: Outbox, timers: Timers) -> None:
        self.settings = settings
        self.out = out
        self.timers = timers
        self.servers: dict[str, Server] = {}
        self.lines: dict[str, Line] = {}
        self.counters: dict[App, Counter] = {}
        self.freed: dict[App, Counter] = {}
        """Apps for which a place may have come free while calls wait."""

    def know(self, name: str, address: str, commission_ppm: int) -> Server:
        """The worker of that name, with this account."""
        server = self.servers.get(name)
        if server is None:
            server = self.servers[name] = Server(name, address, commission_ppm)
        server.address, server.commission_ppm = address, commission_ppm
        return server

    # --- lines and what they offer ----------------------------------------------------------------
    def connect(self, line_id: str, server: Server, peer: str) -> None:
        """A line is there; it offers nothing yet."""
        line = Line(line_id, server, peer, self.out.now_ms)
        self.lines[line_id] = server.lines[line_id] = line

    def disconnect(self, line: Line) -> None:
        """A line is gone, with all its stands."""
        line.up = False
        for stand in list(line.stands.values()):
            self._withdraw(stand)
            self._remove(stand)
        del self.lines[line.id]
        del line.owner.lines[line.id]

    def offer(self, line: Line, offers: tuple[Offer, ...], vram_mb: int) -> None:
        """What a line offers now; of two offers of one app the first counts."""
        line.vram_mb = max(0, vram_mb)
        wanted: dict[App, Offer] = {}
        for offer in offers[: self.settings.offers_max]:
            if offer.capacity > 0:
                wanted.setdefault(offer.app, offer)
        for app, stand in list(line.stands.items()):
            if app not in wanted:
                self._withdraw(stand)
                self.tidy(stand)
        for app, offer in wanted.items():
            self._offer(line, app, offer)

    def _offer(self, line: Line, app: App, offer: Offer) -> None:
        counter = self.counters.get(app)
        if counter is None:
            counter = self.counters[app] = Counter(app)
        capacity = min(offer.capacity, self.settings.capacity_max)
        stand = line.stands.get(app)
        if stand is None:
            times = Times(counter.usual)
            stand = Stand(counter, line, times, offer, capacity, offer.warm, share=counter.level)
            line.stands[app] = stand
            counter.members += 1
        stand.offer, stand.capacity, stand.warm = offer, capacity, offer.warm
        if line.usable:
            self._open(stand)

    # --- trust ------------------------------------------------------------------------------------
    def praise(self, server: Server) -> None:
        """An answer of this worker was good."""
        server.completed += 1
        server.faults = max(0, server.faults - 1)
        if not server.faults:
            server.cooldowns = 0

    def blame(self, server: Server, reason: str) -> None:
        """A call failed by this worker's fault; after too many it has to cool down."""
        server.failed += 1
        server.faults += RELIEF
        server.last_reason = tidy_reason(reason)
        if server.faults >= RELIEF * self.settings.cooldown_failures:
            self._cool_down(server)

    def _cool_down(self, server: Server) -> None:
        """It gets nothing for now; what it has goes on."""
        if server.cooling_until_ms:
            return
        settings = self.settings
        wait_ms = min(settings.cooldown_ms << min(server.cooldowns, 20), settings.cooldown_ms_max)
        server.cooldowns += 1
        server.cooling_until_ms = self.out.now_ms + wait_ms
        for line in server.lines.values():
            for stand in line.stands.values():
                stand.counter.stands.pop(line.id, None)
        self.timers.at(server.cooling_until_ms, partial(self._warm_up, server))
        self.out.note(
            f"{server.name}/calls-cooled-down/{self.out.serial()}",
            WorkerCooledDown(
                worker=server.name, until_ms=server.cooling_until_ms, reason=server.last_reason
            ),
        )

    def _warm_up(self, server: Server) -> None:
        """Cooled down: one more failure sends it back."""
        server.cooling_until_ms = 0
        server.faults = RELIEF * max(0, self.settings.cooldown_failures - 1)
        for line in server.lines.values():
            for stand in line.stands.values():
                if stand.capacity:
                    self._open(stand)

    # --- places -----------------------------------------------------------------------------------
    def take(self, stand: Stand) -> None:
        """One more place is taken."""
        assert stand.taken < stand.capacity, "over capacity"
        stand.taken += 1

    def give_back(self, stand: Stand) -> None:
        """A place is free again."""
        stand.taken -= 1
        self.note_freed(stand)
        self.tidy(stand)

    def note_freed(self, stand: Stand) -> None:
        """Something came free here; on a line that counts its memory, for its other models too."""
        line = stand.line
        for each in line.stands.values() if line.vram_mb else (stand,):
            if each.counter.waiting:
                self.freed[each.counter.app] = each.counter

    def tidy(self, stand: Stand) -> None:
        """Forget a stand that is not offered any more, when its last call has ended."""
        if stand.capacity == 0 and not stand.occupied and stand.line.up:
            self._remove(stand)

    def forget_if_unused(self, counter: Counter) -> None:
        """Drop an app that nobody serves or waits for, so that changing offers leave nothing."""
        if not counter.members and not counter.waiting:
            self.counters.pop(counter.app, None)

    def _remove(self, stand: Stand) -> None:
        if stand.line.stands.pop(stand.counter.app, None) is not None:
            stand.counter.members -= 1
            self.forget_if_unused(stand.counter)

    def _open(self, stand: Stand) -> None:
        stand.counter.stands[stand.line.id] = stand
        if stand.counter.waiting:
            self.freed[stand.counter.app] = stand.counter

    def _withdraw(self, stand: Stand) -> None:
        stand.capacity = 0
        stand.counter.stands.pop(stand.line.id, None)

    def all(self) -> Iterator[Stand]:
        """Every stand of every line."""
        for line in self.lines.values():
            yield from line.stands.values()

    def check(self) -> None:
        """Derive everything a second time and compare; raises AssertionError."""
        for line in self.lines.values():
            assert line.up
            assert line.owner.lines[line.id] is line
            for app, stand in line.stands.items():
                assert stand.line is line
                assert stand.counter is self.counters[app]
                assert stand.capacity or stand.occupied
                open_ = line.usable and stand.capacity > 0
                assert (stand.counter.stands.get(line.id) is stand) == open_
        for app, counter in self.counters.items():
            assert all(stand.line.up for stand in counter.stands.values())
            assert counter.members == sum(app in line.stands for line in self.lines.values())
            assert counter.members or counter.waiting
