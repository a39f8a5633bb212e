"""The values that are shown of calls and models: JSON of the API, and what pages are filled with.

Pure. Prices are wei per unit as exact text (`"1200"`, `"1/3"`), fees whole wei as decimal strings.
Read `web.call_views` next, which gathers them.
"""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from msgspec import Struct, structs

from openpool.core.calls import App
from openpool.core.desk_views import AppView, DeskView, RunnerView, StandView
from openpool.core.events import (
    CallAssigned,
    CallAttemptFailed,
    CallCheckpointed,
    CallCompleted,
    CallFailed,
    CallReceived,
    FeeCredited,
)
from openpool.core.prices import Quote
from openpool.core.units import price_text
from openpool.store.interface import AppRow, RollupPoint, StoredEvent


class Price(Struct, frozen=True, kw_only=True):
    """What a unit of an app pays at this moment."""

    unit: str
    price_wei: str
    usd: str
    """As the price list has it, such as `0.5 per 1000000`; empty if the list says wei."""
    source: str


class Server(Struct, frozen=True, kw_only=True):
    """A worker that serves an app."""

    worker: str
    pipeline: str
    model: str
    capacity: int
    taken: int
    calls: int
    """Calls that run."""
    warm: bool
    """Whether the model is in memory."""
    cooling: bool
    gpu: str
    vram_mb: int
    usual_ms: int
    """How long its calls took of late; 0 if none was measured."""
    first_byte_ms: int


class Model(Struct, frozen=True, kw_only=True):
    """An app: who serves it, how busy they are, and what it has done over all time."""

    pipeline: str
    model: str
    workers: int
    warm: int
    capacity: int
    running: int
    """Calls that run."""
    taken: int
    """Places taken, by calls and by sessions."""
    waiting: int
    usual_ms: int
    """How long a call took of late; of all time where none is known of this run of the pool."""
    first_byte_ms: int
    refused: int
    """Calls since the pool's start for which no place was free."""
    calls: int
    failed: int
    fee_wei: str
    price: Price | None
    """None where the pool's price list says nothing: such calls earn nothing."""
    servers: list[Server]


class Attempt(Struct, frozen=True, kw_only=True):
    """One worker's try at a call."""

    attempt: int
    worker: str
    reason: str
    warm: bool
    predicted_ms: int
    time_ms: int
    failed: str
    """Why it came to nothing; empty if it did not."""
    blamed: bool


class Fee(Struct, frozen=True, kw_only=True):
    """How a fee came about, step by step; every line follows from those before it."""

    units: int
    unit: str
    price_wei: str
    price_source: str
    exact_wei: str
    """Units times price, which may end in a fraction of a wei."""
    carry_in: str
    """The fraction of a wei that earlier fees of this worker had left over."""
    carry_out: str
    """What this one leaves for the next."""
    fee_wei: str
    commission_ppm: int
    commission_wei: str
    worker_wei: str
    worker: str
    address: str
    payer: str
    """An orchestrator's name, or `customer:<id>`."""


class Checkpoints(Struct, frozen=True, kw_only=True):
    """What a session had used when that was written down last: up to there it is paid if the pool
    dies."""

    count: int
    last_ms: int
    unit: str
    units: int
    """From the beginning of the session."""
    note: str


class Call(Struct, frozen=True, kw_only=True):
    """A call from its events: what was asked, who tried, what came of it, what it paid."""

    call: str
    received_ms: int
    asked: CallReceived
    attempts: list[Attempt]
    completed: CallCompleted | None
    failed: CallFailed | None
    fee: Fee | None
    checkpoints: Checkpoints | None
    """None if it has none."""


class PipelinePoint(Struct, frozen=True, kw_only=True):
    start_ms: int
    calls: list[int]
    """One for each pipeline, as are the fees."""
    fee_wei: list[str]


class PipelineSeries(Struct, frozen=True, kw_only=True):
    """Calls and fees by pipeline in equal steps of time; the pipeline that earned most first."""

    start_ms: int
    end_ms: int
    step_s: int
    pipelines: list[str]
    points: list[PipelinePoint]


def price_of(quote: Quote | None) -> Price | None:
    if quote is None:
        return None
    return Price(
        unit=quote.unit,
        price_wei=price_text(quote.price_wei),
        usd=quote.usd,
        source=quote.source,
    )


def server(app: AppView, stand: StandView) -> Server:
    return Server(
        worker=stand.worker,
        pipeline=app.pipeline,
        model=app.model,
        capacity=stand.capacity,
        taken=stand.taken,
        calls=stand.calls,
        warm=stand.warm,
        cooling=stand.cooling,
        gpu=stand.gpu,
        vram_mb=stand.vram_mb,
        usual_ms=stand.usual_ms,
        first_byte_ms=stand.first_byte_ms,
    )


def offers_of(worker: str, desk: DeskView | None) -> list[Server]:
    """What a worker serves now."""
    if desk is None:
        return []
    return [
        server(app, stand) for app in desk.apps for stand in app.stands if stand.worker == worker
    ]


class Sold(Struct, frozen=True, kw_only=True):
    """Models that are alike at an orchestrator, for the page."""

    orchestrator: str
    state: str
    """`registered`, `registering`, `not registered`, or `withdrawn`: nobody serves it any more."""
    problem: str
    models: list[str]
    sessions: int


def sold(runners: Iterable[RunnerView]) -> list[Sold]:
    """The models by orchestrator and state, in the order in which they come."""
    alike: dict[tuple[str, str, str], list[RunnerView]] = {}
    for each in runners:
        alike.setdefault((each.orchestrator, _state(each), each.problem), []).append(each)
    return [
        Sold(
            orchestrator=orchestrator,
            state=state,
            problem=problem,
            models=sorted({f"{each.pipeline}/{each.model}" for each in group}),
            sessions=sum(each.sessions for each in group),
        )
        for (orchestrator, state, problem), group in alike.items()
    ]


def _state(runner: RunnerView) -> str:
    if runner.registered:
        return "registered" if runner.capacity else "withdrawn"
    return "not registered" if runner.problem else "registering"


def model_of(app: App, live: AppView | None, row: AppRow | None, quote: Quote | None) -> Model:
    """An app that is served now, or was once, or both."""
    calls = row.calls if row else 0
    mean_ms = row.took_ms // calls if row and calls else 0
    first_ms = row.first_byte_ms // calls if row and calls else 0
    stands = live.stands if live else ()
    return Model(
        pipeline=app.pipeline,
        model=app.model,
        workers=live.workers if live else 0,
        warm=live.warm if live else 0,
        capacity=live.capacity if live else 0,
        running=sum(stand.calls for stand in stands),
        taken=live.taken if live else 0,
        waiting=live.waiting if live else 0,
        usual_ms=(live.usual_ms if live else 0) or mean_ms,
        first_byte_ms=(live.first_byte_ms if live else 0) or first_ms,
        refused=live.refused if live else 0,
        calls=calls,
        failed=row.failed if row else 0,
        fee_wei=str(row.fee_wei if row else 0),
        price=price_of(quote),
        servers=[server(live, stand) for stand in stands] if live else [],
    )


def call_of(
    call: str, story: Iterable[StoredEvent], checkpoints: Checkpoints | None = None
) -> Call | None:
    """A call from its events in order; None if they do not begin with its receipt."""
    asked: CallReceived | None = None
    received_ms = 0
    attempts: dict[int, Attempt] = {}
    completed: CallCompleted | None = None
    failed: CallFailed | None = None
    fee: Fee | None = None
    for stored in story:
        match stored.event.data:
            case CallReceived() as asked:
                received_ms = stored.event.time_ms
            case CallAssigned() as data:
                attempts[data.attempt] = _attempt(data, stored.event.time_ms)
            case CallAttemptFailed() as data if data.attempt in attempts:
                attempts[data.attempt] = _failed(attempts[data.attempt], data)
            case CallCompleted() as completed:
                pass
            case CallFailed() as failed:
                pass
            case FeeCredited() as data:
                fee = fee_of(data)
    if asked is None:
        return None
    return Call(
        call=call,
        received_ms=received_ms,
        asked=asked,
        attempts=list(attempts.values()),
        completed=completed,
        failed=failed,
        fee=fee,
        checkpoints=checkpoints,
    )


def checkpoints_of(count: int, newest: StoredEvent | None) -> Checkpoints | None:
    """The checkpoints of a call; None if it has none."""
    if newest is None:
        return None
    data = newest.event.data
    assert isinstance(data, CallCheckpointed)
    return Checkpoints(
        count=count,
        last_ms=newest.event.time_ms,
        unit=data.unit,
        units=data.units,
        note=data.note,
    )


def without_secrets(call: Call) -> Call:
    """A call as its worker may see it: not what was paid upstream, nor which session it was."""
    asked = structs.replace(call.asked, session="", payer="", tickets=0, tickets_wei="")
    return structs.replace(call, asked=asked)


def _attempt(data: CallAssigned, time_ms: int) -> Attempt:
    return Attempt(
        attempt=data.attempt,
        worker=data.worker,
        reason=data.reason,
        warm=data.warm,
        predicted_ms=data.predicted_ms,
        time_ms=time_ms,
        failed="",
        blamed=False,
    )


def _failed(attempt: Attempt, data: CallAttemptFailed) -> Attempt:
    return Attempt(
        attempt=attempt.attempt,
        worker=attempt.worker,
        reason=attempt.reason,
        warm=attempt.warm,
        predicted_ms=attempt.predicted_ms,
        time_ms=attempt.time_ms,
        failed=data.reason or "no reason was given",
        blamed=data.blamed,
    )


def fee_of(data: FeeCredited) -> Fee:
    """The steps of a fee; what was carried in follows from what came out."""
    exact = data.pixels * Fraction(data.price_wei)
    carry_out, fee_wei = Fraction(data.carry), int(data.fee_wei)
    return Fee(
        units=data.pixels,
        unit=data.unit,
        price_wei=data.price_wei,
        price_source=data.price_source,
        exact_wei=price_text(exact),
        carry_in=price_text(fee_wei + carry_out - exact),
        carry_out=price_text(carry_out),
        fee_wei=data.fee_wei,
        commission_ppm=data.commission_ppm,
        commission_wei=str(fee_wei - int(data.worker_wei)),
        worker_wei=data.worker_wei,
        worker=data.worker,
        address=data.address,
        payer=data.orchestrator,
    )


def pipeline_series(
    found: Mapping[str, Sequence[RollupPoint]], start_ms: int, end_ms: int, step_ms: int
) -> PipelineSeries:
    """Buckets of some pipelines, put together; those without a call in the span are left out."""
    fees = {name: sum(p.call_fee_wei for p in points) for name, points in found.items()}
    calls = {name: sum(p.calls for p in points) for name, points in found.items()}
    names = sorted((n for n in found if calls[n] or fees[n]), key=lambda n: (-fees[n], n))
    steps = -(-(end_ms - start_ms) // step_ms)
    sums = {name: [[0, 0] for _ in range(steps)] for name in names}
    for name in names:
        for point in found[name]:
            step = (point.start_ms - start_ms) // step_ms
            if 0 <= step < steps:
                sums[name][step][0] += point.calls
                sums[name][step][1] += point.call_fee_wei
    points = [
        PipelinePoint(
            start_ms=start_ms + i * step_ms,
            calls=[sums[name][i][0] for name in names],
            fee_wei=[str(sums[name][i][1]) for name in names],
        )
        for i in range(steps)
    ]
    return PipelineSeries(
        start_ms=start_ms,
        end_ms=end_ms,
        step_s=step_ms // 1000,
        pipelines=names,
        points=points,
    )
