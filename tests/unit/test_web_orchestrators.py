"""What the operator is told about orchestrators: reached, not reached, or not dialled yet."""

from openpool.core.capabilities import DEFAULT
from openpool.core.facts import OrchestratorLost, OrchestratorSeen, Tick, WorkerDown, WorkerUp
from openpool.core.pool import Pool
from openpool.core.settings import PoolSettings
from openpool.web.alerts import alerts
from openpool.web.shapes import Figures, state_of

WORKER = WorkerUp(
    worker="w_1",
    address="0x" + "a1" * 20,
    connection="c1",
    kind="openpool",
    capacity=4,
    capabilities=DEFAULT,
    version="0.9.1",
    commission_ppm=0,
    peer="10.0.0.7",
)
LOST = OrchestratorLost(orchestrator="main", reason="connection refused")
DOWN = "main is down. No segments come from it (connection refused)."
NOBODY = "No worker is connected."


def said(pool: Pool) -> tuple[str, list[str]]:
    """The state of the only orchestrator, and what is told at the top of the overview."""
    live = pool.snapshot(0)
    found = alerts(live, None, (), Figures())
    return state_of(live.orchestrators[0]), [f"{each.title} {each.text}" for each in found]


def test_an_orchestrator_is_down_only_once_it_was_dialled_in_vain() -> None:
    """Before there is a worker nothing is dialled, so nothing is said to be down."""
    pool = Pool(PoolSettings(), {"main": 1}, 1)
    state, (alert,) = said(pool)
    assert state == "idle"
    assert alert.startswith(NOBODY)
    pool.handle(WORKER, 0)
    pool.handle(LOST, 1)
    assert said(pool) == ("down", [f"{DOWN} The pool keeps dialling."])
    pool.handle(OrchestratorSeen(orchestrator="main", incarnation="cert"), 2)
    assert said(pool) == ("up", [])


def test_nobody_dials_for_a_pool_that_has_lost_its_workers() -> None:
    """What was not reached stays down, and is said to be dialled again when there is a worker."""
    pool = Pool(PoolSettings(), {"main": 1}, 1)
    pool.handle(WORKER, 0)
    pool.handle(LOST, 1)
    pool.handle(WorkerDown(connection="c1", reason="the stream ended"), 2)
    pool.handle(Tick(), 60_000)
    state, found = said(pool)
    assert state == "down"
    assert found[0] == f"{DOWN} It is dialled again once there is a worker."
    assert found[1].startswith(NOBODY)
