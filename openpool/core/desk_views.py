"""The state of the desk as plain values, and why a worker gets no calls: for pages and people."""

from typing import TYPE_CHECKING

from msgspec import Struct

from openpool.core.call_state import Call
from openpool.core.calls import CallSource
from openpool.core.explain import Reason
from openpool.core.stands import Counter, Server, Stand
from openpool.core.texts import plural

if TYPE_CHECKING:
    from openpool.core.desk import Desk


class StandView(Struct, frozen=True, kw_only=True):
    """One app on one line of a worker."""

    worker: str
    line: str
    capacity: int
    taken: int
    """Places taken, by calls and by sessions."""
    calls: int
    """Calls that run."""
    warm: bool
    cooling: bool
    vram_mb: int
    gpu: str
    usual_ms: int
    """How long its calls took of late, to the end of the answer; 0 if none was measured."""
    first_byte_ms: int
    """The same to the first byte."""


class AppView(Struct, frozen=True, kw_only=True):
    """A model: who serves it, and how busy they are."""

    pipeline: str
    model: str
    stands: tuple[StandView, ...]
    workers: int
    warm: int
    """Workers that have the model in memory."""
    capacity: int
    """Places of those that may get calls now."""
    taken: int
    waiting: int
    usual_ms: int
    """How long calls took of late, to the end of the answer; 0 if none was measured."""
    first_byte_ms: int
    completed: int
    """Since the pool's start, as are the next two."""
    failed: int
    refused: int
    """Of the failed: those for which no place was free."""


class CallView(Struct, frozen=True, kw_only=True):
    call: str
    source: CallSource
    customer: str
    orchestrator: str
    pipeline: str
    model: str
    session: str
    streaming: bool
    state: str
    """`waiting`, `running` (no byte of an answer yet) or `started`."""
    worker: str
    attempts: int
    received_ms: int
    deadline_ms: int


class ServerView(Struct, frozen=True, kw_only=True):
    """A worker that had a line since the pool's start."""

    worker: str
    state: str
    """`ready`, `full`, `idle` (offers nothing), `cooling`, `banned` or `away`."""
    lines: int
    apps: tuple[str, ...]
    calls: int
    cooling_until_ms: int
    assigned: int
    completed: int
    failed: int
    last_assigned_ms: int
    last_reason: str


class DeskView(Struct, frozen=True, kw_only=True):
    """Everything at one moment."""

    now_ms: int
    apps: tuple[AppView, ...]
    """By name."""
    workers: tuple[ServerView, ...]
    calls: tuple[CallView, ...]
    """Those under way, oldest first."""
    sessions: int


class RunnerView(Struct, frozen=True, kw_only=True):
    """An app at an orchestrator that is to sell it through Live Runner."""

    orchestrator: str
    pipeline: str
    model: str
    session: bool
    """Sold as sessions; else as single requests."""
    registered: bool
    capacity: int
    """Places of all workers together; 0 while it is withdrawn because nobody serves it."""
    sessions: int
    """Sold at this moment."""
    problem: str
    """Why it is not registered, in one sentence; empty if all is well."""


def snapshot(desk: "Desk", now_ms: int) -> DeskView:
    """Copy what is to be shown."""
    stands: dict[str, list[Stand]] = {}
    for stand in desk.stands.all():
        stands.setdefault(str(stand.counter.app), []).append(stand)
    counters = sorted(desk.stands.counters.values(), key=lambda counter: counter.app)
    return DeskView(
        now_ms=now_ms,
        apps=tuple(_app(counter, stands.get(str(counter.app), [])) for counter in counters),
        workers=tuple(map(_server, desk.stands.servers.values())),
        calls=tuple(map(_call, desk.calls.values())),
        sessions=len(desk.sessions),
    )


def _app(counter: Counter, stands: list[Stand]) -> AppView:
    return AppView(
        pipeline=counter.app.pipeline,
        model=counter.app.model,
        stands=tuple(map(_stand, stands)),
        workers=len({stand.worker for stand in stands}),
        warm=len({stand.worker for stand in stands if stand.warm}),
        capacity=counter.capacity,
        taken=sum(stand.taken for stand in stands),
        waiting=len(counter.waiting),
        usual_ms=counter.usual.whole_ms,
        first_byte_ms=counter.usual.first_ms,
        completed=counter.completed,
        failed=counter.failed,
        refused=counter.refused,
    )


def _stand(stand: Stand) -> StandView:
    return StandView(
        worker=stand.worker,
        line=stand.line.id,
        capacity=stand.capacity,
        taken=stand.taken,
        calls=len(stand.calls),
        warm=stand.warm,
        cooling=stand.line.owner.cooling_until_ms > 0,
        vram_mb=stand.offer.vram_mb,
        gpu=stand.offer.gpu,
        usual_ms=stand.times.whole_ms,
        first_byte_ms=stand.times.first_ms,
    )


def _call(call: Call) -> CallView:
    asked = call.asked
    return CallView(
        call=call.id,
        source=asked.source,
        customer=asked.customer,
        orchestrator=asked.orchestrator,
        pipeline=call.app.pipeline,
        model=call.app.model,
        session=asked.session,
        streaming=asked.streaming,
        state=call.state.value,
        worker=call.stand.worker if call.stand else "",
        attempts=call.attempts,
        received_ms=call.received_ms,
        deadline_ms=asked.deadline_ms,
    )


def _server(server: Server) -> ServerView:
    stands = [stand for line in server.lines.values() for stand in line.stands.values()]
    return ServerView(
        worker=server.name,
        state=state_of(server, stands),
        lines=len(server.lines),
        apps=tuple(sorted({str(stand.counter.app) for stand in stands})),
        calls=sum(len(stand.calls) for stand in stands),
        cooling_until_ms=server.cooling_until_ms,
        assigned=server.assigned,
        completed=server.completed,
        failed=server.failed,
        last_assigned_ms=server.last_assigned_ms,
        last_reason=server.last_reason,
    )


def state_of(server: Server, stands: list[Stand]) -> str:
    """What a worker is doing, in one word."""
    if server.banned:
        return "banned"
    if not server.lines:
        return "away"
    if server.cooling_until_ms:
        return "cooling"
    if not stands:
        return "idle"
    return "ready" if any(stand.taken < stand.capacity for stand in stands) else "full"


def explain(desk: "Desk", name: str, now_ms: int) -> list[Reason]:
    """Why this worker gets no, or few, calls."""
    server = desk.stands.servers.get(name)
    if server is None or not (server.lines or server.banned):
        text = "It has no line for calls open. Start the worker, and see its log for the reason."
        return [Reason(code="away", text=text)]
    if server.banned:
        return [Reason(code="banned", text=f"It was banned: {server.banned}.")]
    if server.cooling_until_ms:
        return [_cooling(server, now_ms)]
    stands = [stand for line in server.lines.values() for stand in line.stands.values()]
    if not stands:
        text = "It offers no app. See its log for what its runtimes lack."
        return [Reason(code="no-offers", text=text)]
    return [reason for stand in stands for reason in _stand_reasons(stand)] or [_share(server)]


def _cooling(server: Server, now_ms: int) -> Reason:
    left_s = max(0, server.cooling_until_ms - now_ms + 999) // 1000
    text = (
        f"It gets no calls for another {left_s} s after repeated failures; "
        f"the last one: {server.last_reason}."
    )
    return Reason(code="cooling", text=text)


def _stand_reasons(stand: Stand) -> list[Reason]:
    app = stand.counter.app
    if stand.taken >= stand.capacity:
        text = (
            f"It is full: it takes {plural(stand.capacity, 'call')} for {app} at once. Raise its "
            "capacity if it can do more."
        )
        return [Reason(code="full", text=text)]
    if stand.loads() < 0:
        text = f"{app} does not fit into graphics memory beside the models that are in use."
        return [Reason(code="no-memory", text=text)]
    warm_elsewhere = any(each.warm for each in stand.counter.stands.values())
    if not stand.warm and warm_elsewhere:
        text = f"Other workers have {app} in memory already; it would have to load it first."
        return [Reason(code="cold", text=text)]
    times, usual = stand.times, stand.counter.usual
    if times.first_ms > 2 * usual.first_ms or times.whole_ms > 2 * usual.whole_ms:
        text = (
            f"For {app} it took {times.first_ms} ms to the first byte and {times.whole_ms} ms in "
            f"all of late, and {usual.first_ms} and {usual.whole_ms} ms are usual: quicker workers "
            "are preferred while they are free."
        )
        return [Reason(code="slow", text=text)]
    return []


def _share(server: Server) -> Reason:
    text = (
        f"It got {plural(server.assigned, 'call')} since the pool was started. Among workers that "
        "are about as quick, calls go by turns, in proportion to their places."
    )
    return Reason(code="share", text=text)
