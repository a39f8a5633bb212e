"""What the operator should look at, from the pool's state. Pure."""

from collections.abc import Mapping, Sequence
from typing import Literal

from openpool.core.desk_views import DeskView, RunnerView
from openpool.core.events import Event
from openpool.core.money.events import RoundSettled, RuleRefused
from openpool.core.money.payout_views import PayoutsView
from openpool.core.money.revenue_views import RevenueView
from openpool.core.texts import plural
from openpool.core.views import OrchestratorView, PoolView
from openpool.store.interface import WorkerRow
from openpool.web.format import ether_text
from openpool.web.shapes import Alert, Figures, online, serving, state_of

MANY_MIN = 3
"""Fewer failures within an hour are not called many, however little work there was."""


def alerts(
    live: PoolView,
    desk: DeskView | None,
    rows: Sequence[WorkerRow],
    hour: Figures,
    runners: Sequence[RunnerView] = (),
) -> list[Alert]:
    """What the operator should look at about the work."""
    found = [
        Alert(
            level="bad",
            title=f"{o.orchestrator} is down.",
            text=f"No segments come from it{_because(o.problem)}. {_dialling(o)}",
        )
        for o in live.orchestrators
        if state_of(o) == "down"
    ]
    if live.orchestrators and not online(live) and not serving(desk):
        text = "Every segment is refused until one joins. Send the join link to somebody."
        found.append(
            Alert(level="bad", title="No worker is connected.", text=text, link="/workers")
        )
    return (
        found
        + _load_alerts(live, hour)
        + _runner_alerts(runners)
        + _call_alerts(desk, hour)
        + _worker_alerts(live, rows, hour)
    )


def worst_first(found: Sequence[Alert]) -> list[Alert]:
    """In the order in which somebody should look at them."""
    return sorted(found, key=lambda each: {"bad": 0, "warn": 1}.get(each.level, 2))


def _runner_alerts(runners: Sequence[RunnerView]) -> list[Alert]:
    """One for each orchestrator that does not sell what it should."""
    problems: dict[str, list[str]] = {}
    for each in runners:
        if each.problem and each.capacity:
            problems.setdefault(each.orchestrator, []).append(each.problem)
    return [
        Alert(
            level="bad",
            title=f"{name} does not sell {plural(len(why), 'model')}.",
            text=f"{why[0][:1].upper()}{why[0][1:]}.",
            link="/models",
        )
        for name, why in problems.items()
    ]


def _call_alerts(desk: DeskView | None, hour: Figures) -> list[Alert]:
    found = []
    full = (
        [a for a in desk.apps if a.waiting or (a.capacity and a.taken >= a.capacity)]
        if desk
        else []
    )
    if full:
        names = ", ".join(f"{app.pipeline}/{app.model}" for app in full[:3])
        more = f" and {len(full) - 3} more" if len(full) > 3 else ""
        text = f"Every place for {names}{more} is taken. More workers would help."
        found.append(Alert(level="warn", title="Models are full.", text=text, link="/models"))
    if _many(hour.calls_failed, hour.calls + hour.calls_failed):
        share = f"{hour.calls_failed} of {hour.calls + hour.calls_failed} calls"
        text = f"{share} had no answer within the last hour."
        link = "/events?type=call-failed"
        found.append(Alert(level="bad", title="Many calls fail.", text=text, link=link))
    return found


def _many(failed: int, among: int) -> bool:
    """One in twenty; one or two in all are no trend."""
    return failed >= MANY_MIN and failed * 20 > among


def _dialling(o: OrchestratorView) -> str:
    if o.groups:
        return "The pool keeps dialling."
    return "It is dialled again once there is a worker."


def _because(problem: str) -> str:
    return f" ({problem})" if problem else ""


def _load_alerts(live: PoolView, hour: Figures) -> list[Alert]:
    found = []
    busy = [worker.state == "full" for worker in online(live).values()]
    if live.waiting:
        wait = plural(live.waiting, "segment") + (" waits" if live.waiting == 1 else " wait")
        text = f"{wait} for a free worker. More workers would help."
        found.append(Alert(level="bad", title="The pool is full.", text=text))
    elif busy and all(busy):
        text = "New streams are turned away. More workers, or more sessions per worker, would help."
        found.append(Alert(level="warn", title="All capacity is used.", text=text))
    if _many(hour.failed, hour.segments + hour.failed):
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


def _worker_alerts(live: PoolView, rows: Sequence[WorkerRow], hour: Figures) -> list[Alert]:
    found = []
    if hour.refused:
        text = f"{hour.refused} results of the last hour were not what was asked for."
        link = "/events?type=result-refused"
        found.append(Alert(level="warn", title="Results were refused.", text=text, link=link))
    cooling = [worker for worker in online(live).values() if worker.state == "cooling"]
    if cooling:
        text = "Several failures in a row: no work for a while."
        title = f"{len(cooling)} worker{'s are' if len(cooling) > 1 else ' is'} cooling down."
        found.append(Alert(level="warn", title=title, text=text, link="/workers?sort=status"))
    pending = sum(row.state == "pending" for row in rows)
    if pending:
        title = f"{pending} worker{'s wait' if pending > 1 else ' waits'} for approval."
        text = "No work until you approve."
        found.append(Alert(level="info", title=title, text=text, link="/workers?sort=status"))
    return found


def rule_alerts(newest: Sequence[Event]) -> list[Alert]:
    """Revenue rules that the last settled round did without. `newest` are the latest events
    `rule-refused` and `round-settled`, in any order."""
    last = max((e.data.round for e in newest if isinstance(e.data, RoundSettled)), default=0)
    return [
        Alert(
            level="bad",
            title=f"The revenue rule {event.data.rule} was left out.",
            text=f"Round {last} of {event.data.orchestrator} was settled without it: "
            f"{event.data.reason}.",
            link="/events?type=rule-refused",
        )
        for event in newest
        if isinstance(event.data, RuleRefused) and event.data.round == last
    ]


def money_alerts(revenue: RevenueView | None, payouts: PayoutsView | None) -> list[Alert]:
    """What the operator should look at about money, worst first."""
    found = [
        Alert(level=each.level, title=each.title, text=each.text)
        for each in (revenue.alerts if revenue else ())
    ]
    return worst_first(found + (payout_alerts(payouts) if payouts else []))


def payout_alerts(view: PayoutsView) -> list[Alert]:
    """What keeps workers from being paid."""
    if view.mode == "off":
        return []
    found = []
    if view.held:
        found.append(_money("bad", "Nothing new is paid.", view.held))
    if view.missing_wei != "0":
        text = (
            f"It lacks {ether_text(int(view.missing_wei))} to pay all who are due. Send ETH to "
            f"{view.wallet}, or withdraw fees to it: `openpool revenue withdraw`."
        )
        found.append(_money("bad", "The hot wallet holds too little.", text))
    if view.problem:
        found.append(_money("warn", "Payouts wait.", view.problem))
    if view.paused:
        found.append(_money("warn", "Payouts are paused.", view.paused))
    if view.blocked:
        found.append(_blocked(view.blocked))
    return found


def _blocked(blocked: Mapping[str, str]) -> Alert:
    address, why = next(iter(blocked.items()))
    undo = "Once that is mended: `openpool payouts unblock {}`."
    if len(blocked) == 1:
        text = f"Nothing is sent to it: {why.rstrip('.')}. {undo.format(address)}"
        return _money("info", "An address is blocked.", text)
    text = f"Nothing is sent to them; the money page says why. {undo.format('ADDRESS')}"
    return _money("info", f"{len(blocked)} addresses are blocked.", text)


def _money(level: Literal["bad", "warn", "info"], title: str, text: str) -> Alert:
    return Alert(level=level, title=title, text=text, link="/money")
