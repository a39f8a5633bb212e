"""The workers, their connections, and the sessions they hold.

A connection may hold as many sessions as it has capacity. It holds one from the first attempt of a
stream until the stream ends, falls silent, or finds a better home; only then is its place free.
Two connections of one worker count both. Must not know what a job is: that is `core.pool`.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from openpool.core.capabilities import COMPATIBLE_VERSION, fits, version_ok
from openpool.core.estimate import Estimate
from openpool.core.events import WorkerConnected, WorkerCooledDown, WorkerDisconnected
from openpool.core.facts import WorkerDown, WorkerUp
from openpool.core.instructions import EndSession
from openpool.core.model import WorkerKind
from openpool.core.scheduler import Candidate, Lane, Lanes
from openpool.core.settings import PoolSettings
from openpool.core.step import Outbox, Timer, Timers

SessionKey = tuple[str, str]
"""Orchestrator, and its id of the session."""

RECLAIM_SCAN = 32
"""Idle sessions looked at to find one that may lose its place."""
REFUSED_WEIGHT = 2
"""A result that was not what was asked for counts as so many failures."""
RELIEF = 4
"""Successes that make up for one failure."""


@dataclass(slots=True, eq=False)
class Worker:
    """One enrolled worker, connected or not."""

    name: str
    address: str
    commission_ppm: int
    estimate: Estimate
    connections: dict[str, "Connection"] = field(default_factory=dict)
    cooling_until_ms: int = 0
    """0 when it is not cooling down."""
    faults: int = 0
    """`RELIEF` for a failure, back by one for a success."""
    cooldowns: int = 0
    """How often in a row it had to cool down."""
    assigned: int = 0
    delivered: int = 0
    failed: int = 0
    refused: int = 0
    last_assigned_ms: int = 0
    banned: str = ""
    """Why it was banned; empty if it was not."""
    last_reason: str = ""
    """Why its latest failed attempt failed."""

    @property
    def cooling(self) -> bool:
        return self.cooling_until_ms > 0


@dataclass(slots=True, eq=False)
class Connection(Candidate):
    """One registration stream of a worker."""

    id: str = ""
    owner: Worker = field(kw_only=True)
    lane: Lane = field(kw_only=True)
    kind: WorkerKind = field(kw_only=True)
    bits: int = field(kw_only=True)
    version: str = field(kw_only=True)
    peer: str = ""
    since_ms: int = 0
    up: bool = True
    holds: dict[SessionKey, int] = field(default_factory=dict)
    """Sessions held, with the number of attempts that run for each."""

    @property
    def usable(self) -> bool:
        return self.up and not self.owner.cooling

    def can(self, bits: int, min_version: str) -> bool:
        """Whether it can do a job that needs this."""
        return fits(bits, self.lane.bits) and version_ok(self.lane.version, min_version)


@dataclass(slots=True, eq=False)
class Session:
    """A stream of segments."""

    key: SessionKey
    last_ms: int
    home: Connection | None = None
    """Where its next segment should go."""
    ended: bool = False
    holders: dict[str, Connection] = field(default_factory=dict)
    timer: Timer | None = None


class Roster:
    """Keeps who is there, who is free, and who holds what."""

    def __init__(self, settings: PoolSettings, out: Outbox, timers: Timers) -> None:
        self.settings = settings
        self.out = out
        self.timers = timers
        self.workers: dict[str, Worker] = {}
        self.connections: dict[str, Connection] = {}
        self.sessions: dict[SessionKey, Session] = {}
        self.lanes = Lanes()
        self.usual = Estimate(memory=64)
        """What is usual in this pool: the first guess about a new worker."""
        self.freed: deque[Connection] = deque()
        """Connections on which a place came free; `core.pool` gives it to a waiting job."""
        self.capacity_changed = False
        """Set when the slot groups may have to change."""
        self._idle: dict[tuple[str, SessionKey], int] = {}
        """Held but idle sessions, idle longest first, with the time they fell idle."""

    # --- workers ----------------------------------------------------------------------------------
    def know(self, name: str, address: str, commission_ppm: int) -> Worker:
        """The worker of that name, with this account."""
        worker = self.workers.get(name)
        if worker is None:
            worker = Worker(name, address, commission_ppm, Estimate(self.usual))
            self.workers[name] = worker
        worker.address, worker.commission_ppm = address, commission_ppm
        return worker

    def connect(self, fact: WorkerUp) -> None:
        """A worker registered; saying so twice changes nothing."""
        if fact.connection in self.connections or fact.capacity <= 0:
            return
        worker = self.know(fact.worker, fact.address, fact.commission_ppm)
        worker.banned = ""
        version = fact.version if fact.kind == "stock" else COMPATIBLE_VERSION
        connection = Connection(
            worker=worker.name,
            estimate=worker.estimate,
            capacity=min(fact.capacity, self.settings.capacity_max),
            share=self.lanes.level,
            id=fact.connection,
            owner=worker,
            lane=self.lanes.of(fact.capabilities, version),
            kind=fact.kind,
            bits=fact.capabilities,
            version=fact.version,
            peer=fact.peer,
            since_ms=self.out.now_ms,
        )
        self.connections[connection.id] = connection
        worker.connections[connection.id] = connection
        if not worker.cooling:
            self._enter(connection)
        self.out.note(f"{connection.id}/connected", _connected(connection))

    def disconnect(self, fact: WorkerDown) -> Connection | None:
        """Its stream ended: it holds nothing any more. Returns the connection, if it was known."""
        connection = self.connections.pop(fact.connection, None)
        if connection is None:
            return None
        if connection.usable:
            self._leave(connection)
        connection.up = False
        del connection.owner.connections[connection.id]
        for key in list(connection.holds):
            self._drop_hold(connection, self.sessions[key])
        self.out.note(
            f"{connection.id}/disconnected",
            WorkerDisconnected(
                worker=connection.worker, connection=connection.id, reason=fact.reason
            ),
        )
        return connection

    def _enter(self, connection: Connection) -> None:
        connection.lane.capacity += connection.capacity
        connection.lane.members += 1
        self.capacity_changed = True
        self._place(connection)

    def _leave(self, connection: Connection) -> None:
        connection.lane.capacity -= connection.capacity
        connection.lane.members -= 1
        connection.lane.take_out(connection)
        self.capacity_changed = True

    def _place(self, connection: Connection) -> None:
        if connection.usable and len(connection.holds) < connection.capacity:
            connection.lane.put(connection)
            self.freed.append(connection)
        else:
            connection.lane.take_out(connection)

    # --- trust ------------------------------------------------------------------------------------
    def praise(self, worker: Worker) -> None:
        """A result of this worker was good."""
        worker.faults = max(0, worker.faults - 1)
        if not worker.faults:
            worker.cooldowns = 0

    def blame(self, worker: Worker, reason: str, weight: int = 1) -> None:
        """An attempt failed by this worker's fault; after too many it has to cool down."""
        worker.faults += RELIEF * weight
        worker.last_reason = reason
        if worker.faults >= RELIEF * self.settings.cooldown_failures and not worker.cooling:
            self._cool_down(worker, reason)

    def _cool_down(self, worker: Worker, reason: str) -> None:
        settings = self.settings
        wait_ms = min(settings.cooldown_ms << min(worker.cooldowns, 20), settings.cooldown_ms_max)
        for connection in worker.connections.values():
            self._leave(connection)
        worker.cooldowns += 1
        worker.cooling_until_ms = self.out.now_ms + wait_ms
        self.timers.at(worker.cooling_until_ms, partial(self._warm_up, worker))
        for connection in worker.connections.values():
            for key in list(connection.holds):
                self.leave_home(self.sessions[key], connection)
        self.out.note(
            f"{worker.name}/cooled-down/{self.out.serial()}",
            WorkerCooledDown(worker=worker.name, until_ms=worker.cooling_until_ms, reason=reason),
        )

    def _warm_up(self, worker: Worker) -> None:
        """Cooled down: one more failure sends it back."""
        worker.cooling_until_ms = 0
        worker.faults = RELIEF * max(0, self.settings.cooldown_failures - 1)
        for connection in worker.connections.values():
            self._enter(connection)

    # --- sessions ---------------------------------------------------------------------------------
    def session(self, key: SessionKey) -> Session:
        """The session of that key, which is in use now."""
        session = self.sessions.get(key)
        if session is None:
            session = self.sessions[key] = Session(key, self.out.now_ms)
            self._watch(session)
        session.last_ms = self.out.now_ms
        session.ended = False
        return session

    def current(self, session: Session) -> Session:
        """The same stream's session as it is kept now; taken up again if it was forgotten."""
        return self.sessions.setdefault(session.key, session)

    def hold(self, connection: Connection, session: Session) -> None:
        """An attempt for this session begins on this connection."""
        running = connection.holds.get(session.key)
        if running is None:
            assert len(connection.holds) < connection.capacity, "over capacity"
            connection.holds[session.key] = 1
            session.holders[connection.id] = connection
            if len(connection.holds) >= connection.capacity:
                connection.lane.take_out(connection)
        else:
            connection.holds[session.key] = running + 1
            self._idle.pop((connection.id, session.key), None)
        connection.busier(1)

    def release(self, connection: Connection, key: SessionKey) -> None:
        """An attempt for this session has ended on this connection."""
        if not connection.up:
            return
        session = self.sessions[key]
        connection.holds[key] -= 1
        connection.busier(-1)
        if connection.holds[key]:
            return
        if session.home is connection and not session.ended:
            self._idle[connection.id, key] = self.out.now_ms
            self.freed.append(connection)
        else:
            self._give_up(connection, session)

    def move_home(self, session: Session, connection: Connection) -> None:
        """The next segments go here; the old home is left."""
        if session.ended:
            return
        old, session.home = session.home, connection
        if old is not None and old is not connection and not old.holds.get(session.key):
            self._give_up(old, session)

    def leave_home(self, session: Session, connection: Connection) -> None:
        """This connection is not the home of the session any more; frees the place if idle."""
        if session.home is connection:
            session.home = None
        if connection.holds.get(session.key) == 0:
            self._give_up(connection, session)

    def reclaim(self, bits: int, min_version: str, without: Iterable[str]) -> Connection | None:
        """Free a place by ending a session that has been idle long, idle longest first."""
        longest = self.out.now_ms - self.settings.reclaim_idle_ms
        for _, ((connection_id, key), since_ms) in zip(
            range(RECLAIM_SCAN), self._idle.items(), strict=False
        ):
            if since_ms > longest:
                return None
            connection = self.connections[connection_id]
            if connection.can(bits, min_version) and connection.worker not in without:
                self.leave_home(self.sessions[key], connection)
                return connection
        return None

    def give_place(self, connection: Connection) -> bool:
        """Free a place on this connection by ending the session idle longest, if one is idle."""
        idle = [key for key, running in connection.holds.items() if not running]
        if not idle:
            return False
        self.leave_home(
            self.sessions[min(idle, key=lambda k: self.sessions[k].last_ms)], connection
        )
        return True

    def end_session(self, key: SessionKey) -> None:
        """The stream has ended: whoever holds it lets go, at once or after its running attempt."""
        session = self.sessions.get(key)
        if session is None:
            return
        session.ended = True
        session.home = None
        for connection in list(session.holders.values()):
            if not connection.holds[key]:
                self._give_up(connection, session)
        self._forget_if_over(session)

    def end_sessions(self, orchestrator: str) -> None:
        """No stream of this orchestrator goes on."""
        for key in [key for key in self.sessions if key[0] == orchestrator]:
            self.end_session(key)

    def _give_up(self, connection: Connection, session: Session) -> None:
        """Free the place, and tell the worker to free what it keeps."""
        orchestrator, name = session.key
        self.out.do(EndSession(connection=connection.id, orchestrator=orchestrator, session=name))
        self._drop_hold(connection, session)
        self._place(connection)

    def _drop_hold(self, connection: Connection, session: Session) -> None:
        del connection.holds[session.key]
        del session.holders[connection.id]
        self._idle.pop((connection.id, session.key), None)
        if session.home is connection:
            session.home = None
        self._forget_if_over(session)

    def _forget_if_over(self, session: Session) -> None:
        if session.ended and not session.holders and session.key in self.sessions:
            del self.sessions[session.key]
            self.timers.cancel(session.timer)

    def _watch(self, session: Session) -> None:
        idle_ms = self.settings.session_idle_ms
        due_ms = max(session.last_ms + idle_ms, self.out.now_ms + 1)
        session.timer = self.timers.at(due_ms, partial(self._expire, session))

    def _expire(self, session: Session) -> None:
        busy = any(each.holds[session.key] for each in session.holders.values())
        if busy:
            session.last_ms = self.out.now_ms
        if busy or self.out.now_ms < session.last_ms + self.settings.session_idle_ms:
            self._watch(session)
            return
        self.end_session(session.key)

    # --- invariants -------------------------------------------------------------------------------
    def check(self) -> None:
        """Derive everything a second time and compare; raises AssertionError."""
        for connection in self.connections.values():
            _check_connection(connection)
            for key, running in connection.holds.items():
                session = self.sessions[key]
                assert session.holders[connection.id] is connection
                assert running or session.home is connection
                assert ((connection.id, key) in self._idle) == (not running)
        for session in self.sessions.values():
            assert session.home is None or session.home.id in session.holders
            assert all(session.key in each.holds for each in session.holders.values())
            assert session.holders or not session.ended
        for lane in self.lanes.all.values():
            members = [c for c in self.connections.values() if c.lane is lane and c.usable]
            assert lane.members == len(members)
            assert lane.capacity == sum(c.capacity for c in members)
            assert all(each.place == at for at, each in enumerate(lane.free))
            assert {id(c) for c in lane.free} == {
                id(c) for c in members if len(c.holds) < c.capacity
            }


def _check_connection(connection: Connection) -> None:
    assert connection.up
    assert connection.owner.connections[connection.id] is connection
    assert len(connection.holds) <= connection.capacity, "over capacity"
    assert connection.in_flight == sum(connection.holds.values())


def _connected(connection: Connection) -> WorkerConnected:
    return WorkerConnected(
        worker=connection.worker,
        connection=connection.id,
        kind=connection.kind,
        capacity=connection.capacity,
        capabilities=connection.bits,
        version=connection.version,
    )
