"""What an operator may decide about dispatch; `openpool.config` fills it in."""

from msgspec import Struct

from openpool.core.money.events import Scheme


class PoolSettings(Struct, frozen=True, kw_only=True):
    """The dials of the core. Times are in ms, rates in ppm."""

    # deadlines
    answer_margin_ms: int = 1_000
    """An answer goes back this long before the orchestrator gives up, whatever happens."""
    target_ppm: int = 550_000
    """A worker is good enough if it will finish within this part of the segment's duration. Less
    is faster, more is fairer to slow workers (`python -m benchmarks dispatch` compares)."""

    # second tries
    hedge: bool = True
    hedge_ppm: int = 100_000
    """Hedges before the soft deadline, as a part of all jobs; later ones are not limited."""
    attempts_max: int = 5
    """Most tries of one job."""

    # waiting for a free worker
    queue_max: int = 1_000
    queue_share_ppm: int = 500_000
    """A job waits at most this part of the time it has."""
    reclaim_idle_ms: int = 4_000
    """A session that was idle for so long may lose its place to a job that has none."""

    # workers
    session_idle_ms: int = 75_000
    """Longer than the 70 s of an orchestrator, which does not always say that a stream ended."""
    capacity_max: int = 1_000
    """Most sessions believed of one connection."""
    cooldown_failures: int = 5
    """Failures, not outweighed by successes, that send a worker to cool down."""
    cooldown_ms: int = 60_000
    """The first cooling down; each further one takes twice as long."""
    cooldown_ms_max: int = 3_600_000
    commission_ppm: int = 250_000
    """For a worker whose account was never told (`WorkerKnown`, `WorkerUp`)."""
    scheme: Scheme = "per-job"
    """How the fees of orchestrators are paid (`core.money.schemes`)."""

    # slot groups
    group_prefix: str = "slots"
    slots_per_group: int = 8
    groups_max: int = 60
    """Most groups per orchestrator; more capacity makes groups larger."""
    group_classes_max: int = 4
    """Most different capability sets registered per orchestrator."""
    headroom_ppm: int = 100_000
    """The part of the workers' sessions that is not offered, kept for second tries."""
    group_debounce_ms: int = 2_000

    # bounds
    linger_ms: int = 10_000
    """How long after its deadline a job is remembered, for late and doubled facts."""
    manifest_prices_max: int = 10_000


class DeskSettings(Struct, frozen=True, kw_only=True):
    """The dials of calls (`core.desk`). Times are in ms."""

    # tries
    attempts_max: int = 3
    """Most workers tried for one call, all before the first byte of an answer."""
    cold_load_ms: int = 10_000
    """A worker that must first load the model counts as so much slower."""

    # waiting for a place: by default a call is refused at once when no place is free
    queue_max: int = 0
    """Most calls that wait for one app."""
    queue_wait_ms: int = 2_000

    # sessions
    checkpoint_ms: int = 60_000
    """How often it is written down what a session that goes on has used."""

    # workers
    session_idle_ms: int = 120_000
    """A session without calls for so long gives up its place."""
    capacity_max: int = 1_000
    """Most calls at once believed of one offer."""
    offers_max: int = 200
    """Most offers believed of one line."""
    cooldown_failures: int = 5
    """Failures, not outweighed by successes, that send a worker to cool down."""
    cooldown_ms: int = 30_000
    """The first cooling down; each further one takes twice as long."""
    cooldown_ms_max: int = 3_600_000

    # bounds
    linger_ms: int = 10_000
    """How long a call is remembered after its end, for late and doubled facts."""
