"""What the operator should look at, from the pool's state. Pure."""

from collections.abc import Sequence

from openpool.store.interface import WorkerRow
from openpool.web.interface import Live
from openpool.web.shapes import Alert, Figures


def alerts(live: Live, rows: Sequence[WorkerRow], hour: Figures, now_ms: int) -> list[Alert]:
    """What the operator should look at, worst first."""
    found = [
        Alert(
            level="bad",
            title=f"{o.orchestrator} is down.",
            text="No segments come from it. The pool keeps dialling; see that it runs.",
        )
        for o in live.orchestrators
        if not o.up
    ]
    if live.orchestrators and not live.workers:
        text = "Every segment is refused until one joins. Send the join link to somebody."
        found.append(
            Alert(level="bad", title="No worker is connected.", text=text, link="/workers")
        )
    return found + _load_alerts(live, hour) + _worker_alerts(live, rows, hour, now_ms)


def _load_alerts(live: Live, hour: Figures) -> list[Alert]:
    found = []
    capacity, used = sum(w.capacity for w in live.workers), sum(w.used for w in live.workers)
    if capacity and used >= capacity:
        text = "New streams are turned away. More workers, or more sessions per worker, would help."
        found.append(Alert(level="warn", title="All capacity is used.", text=text))
    if hour.failed * 20 > hour.segments + hour.failed:
        share = f"{hour.failed} of {hour.segments + hour.failed} segments"
        text = f"{share} were not delivered within the last hour."
        found.append(
            Alert(
                level="bad", title="Many segments fail.", text=text, link="/events?type=job-failed"
            )
        )
    if hour.segments and hour.latency_ms > hour.media_ms:
        text = "Round trips are longer than the segments; gateways will leave this orchestrator."
        found.append(Alert(level="bad", title="Slower than real time.", text=text))
    return found


def _worker_alerts(
    live: Live, rows: Sequence[WorkerRow], hour: Figures, now_ms: int
) -> list[Alert]:
    found = []
    if hour.refused:
        text = f"{hour.refused} results of the last hour were not what was asked for."
        link = "/events?type=result-refused"
        found.append(Alert(level="warn", title="Results were refused.", text=text, link=link))
    cooling = {w.worker for w in live.workers if w.cooled_until_ms > now_ms}
    if cooling:
        text = "They failed several times in a row and get no work for a while."
        title = f"{len(cooling)} worker{'s are' if len(cooling) > 1 else ' is'} cooling down."
        found.append(Alert(level="warn", title=title, text=text, link="/workers?sort=status"))
    pending = sum(row.state == "pending" for row in rows)
    if pending:
        title = f"{pending} worker{'s wait' if pending > 1 else ' waits'} for approval."
        text = "They get no work until you approve them."
        found.append(Alert(level="info", title=title, text=text, link="/workers?sort=status"))
    return found
