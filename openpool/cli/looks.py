"""`openpool status` and `openpool workers`: a running pool at this moment."""

from typing import TYPE_CHECKING, Annotated

import typer

from openpool.cli.asking import Asked, as_operator
from openpool.cli.options import examples
from openpool.cli.output import (
    ago,
    counted,
    ether,
    grouped,
    print_json,
    ratio,
    show,
    show_facts,
    show_table,
)

if TYPE_CHECKING:
    from openpool.cli.api import Api
    from openpool.web.shapes import Figures, OrchestratorView, Status, Worker, WorkerDetail


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command(epilog=examples("openpool status", "openpool status --json"))(status)
    app.command(epilog=examples("openpool workers", "openpool workers w_abc… --json"))(workers)


@as_operator
def status(asked: Asked) -> None:
    """Show what is connected, how fast, how full, and what needs attention."""
    from openpool.web.shapes import OrchestratorView, Status

    async def question(api: "Api") -> tuple[Status, list[OrchestratorView]]:
        return await api.get(Status, "/status"), await api.get(
            list[OrchestratorView], "/orchestrators"
        )

    now, orchestrators = asked.ask(question)
    if asked.as_json:
        print_json({"status": now, "orchestrators": orchestrators})
    else:
        _show_status(now, orchestrators)


def _show_status(now: "Status", orchestrators: "list[OrchestratorView]") -> None:
    show_facts(
        [
            ("pool", f"{now.pool} {now.version}"),
            ("orchestrators", f"{now.orchestrators_up} of {now.orchestrators} up"),
            (
                "workers",
                f"{now.workers_online} online of {now.workers}, {now.workers_pending} pending",
            ),
            ("capacity", f"{now.used} of {now.capacity} used, {now.upstream_capacity} offered"),
            (
                "in flight",
                f"{counted(now.jobs_in_flight, 'job')}, {counted(now.calls_in_flight, 'call')}",
            ),
            ("last hour", _figures(now.last_hour)),
            ("last 24 hours", _figures(now.day)),
            (
                "all time",
                f"{ether(now.fees_wei)} fees, {ether(now.credited_wei)} to workers, "
                f"{ether(now.commission_wei)} kept",
            ),
            ("log", f"{counted(now.log_events, 'event')}, head {now.log_head[:16] or '—'}"),
        ]
    )
    show_table(
        ["orchestrator", "state", "capacity>", "used>", "groups>", "price (wei/pixel)>"],
        [
            (
                o.orchestrator,
                o.state,
                o.capacity,
                o.used,
                len(o.groups),
                o.price_wei,
            )
            for o in orchestrators
        ],
        empty="No orchestrator has been seen yet.",
    )
    for alert in now.alerts:
        show(f"[{alert.level}] {alert.title} {alert.text}")


def _figures(figures: "Figures") -> str:
    return (
        f"{counted(figures.segments, 'segment')}, {figures.failed} failed, "
        f"{figures.refused} refused, {figures.hedged} hedged, "
        f"rtf {ratio(figures.busy_ms, figures.media_ms)}, "
        f"{ether(figures.fee_wei)}"
    )


@as_operator
def workers(
    asked: Asked,
    worker: Annotated[str, typer.Argument(metavar="WORKER", help="Only this one.")] = "",
) -> None:
    """List the workers; or show one, and why it gets work or none."""
    from openpool.web.shapes import Status, Worker, WorkerDetail

    async def question(api: "Api") -> tuple[int, list[Worker] | WorkerDetail]:
        if worker:
            return 0, await api.get(WorkerDetail, f"/workers/{worker}")
        now = await api.get(Status, "/status")
        return now.now_ms, await api.get(list[Worker], "/workers")

    now_ms, found = asked.ask(question)
    if asked.as_json:
        print_json(found)
    elif isinstance(found, list):
        _show_workers(found, now_ms)
    else:
        _show_worker(found)


def _show_workers(found: "list[Worker]", now_ms: int) -> None:
    show_table(
        [
            "worker",
            "name",
            "address",
            "status",
            "used>",
            "rtf>",
            "segments, 24 h>",
            "segments>",
            "earned>",
            "seen",
        ],
        [
            (
                w.worker,
                w.name,
                w.address,
                w.status,
                f"{w.used}/{w.capacity}",
                ratio(w.rtf_ppm, 1_000_000) if w.rtf_ppm else "—",
                w.day.segments,
                w.segments,
                ether(w.credited_wei),
                ago(w.last_seen_ms, now_ms),
            )
            for w in found
        ],
        empty="No worker has enrolled yet; `openpool invite` makes a join link.",
    )


def _show_worker(detail: "WorkerDetail") -> None:
    w = detail.worker
    show_facts(
        [
            ("worker", f"{w.worker} ({w.name})"),
            ("address", w.address),
            ("group", w.group),
            ("state", f"{w.state}, {w.status}"),
            ("software", f"{w.kind} {w.version}".strip() or "—"),
            ("sessions", f"{w.used} of {w.capacity} used"),
            ("last 24 hours", _figures(w.day)),
            (
                "all time",
                f"{counted(w.segments, 'segment')}, {w.failed} failed, {w.refused} refused",
            ),
            ("earned", f"{grouped(w.credited_wei)} wei ({ether(w.credited_wei)})"),
            ("owed to address", f"{grouped(detail.owed_wei)} wei"),
            ("rtf", ratio(w.rtf_ppm, 1_000_000) if w.rtf_ppm else "not known yet"),
        ]
    )
    for reason in detail.reasons:
        show(f"{'✓' if reason.holds else '✗'} {reason.text}")
