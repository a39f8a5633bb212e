"""Events in words, for the pages. Pure."""

from openpool.core.events import (
    AnyPayload,
    AttemptFailed,
    CommissionTaken,
    FeeCredited,
    GroupClosed,
    GroupOpened,
    JobAssigned,
    JobDelivered,
    JobFailed,
    JobHedged,
    JobReceived,
    JobVerified,
    OrchestratorDown,
    OrchestratorRestarted,
    OrchestratorUp,
    PoolStarted,
    PoolStopped,
    PriceChanged,
    ResultRefused,
    TokenIssued,
    TokenRevoked,
    WorkerApproved,
    WorkerBanned,
    WorkerConnected,
    WorkerCooledDown,
    WorkerDisconnected,
    WorkerEnrolled,
)
from openpool.web.format import duration_text, ether_text, large_text

LEVELS = {
    "bad": {"job-failed", "result-refused", "orchestrator-down", "worker-banned"},
    "warn": {
        "attempt-failed",
        "job-hedged",
        "worker-cooled-down",
        "worker-disconnected",
        "orchestrator-restarted",
        "token-revoked",
        "group-closed",
        "pool-stopped",
    },
    "good": {"job-delivered", "fee-credited", "orchestrator-up", "worker-approved"},
}
"""How the type of an event is coloured; others are neutral."""


def level(kind: str) -> str:
    return next((name for name, kinds in LEVELS.items() if kind in kinds), "")


def times(count: int, noun: str) -> str:
    """`1 session`, `2 sessions`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def describe(data: AnyPayload) -> str:
    """One line that says what happened; the worker and the job are shown beside it."""
    return _of_jobs(data) or _of_workers(data) or _of_the_pool(data)


def _of_jobs(data: AnyPayload) -> str:
    match data:
        case JobReceived(orchestrator=o, seq=seq, duration_ms=ms, profiles=profiles):
            what = times(len(profiles), "rendition")
            return f"{o} sent segment {seq} of {duration_text(ms)}, {what} wanted"
        case JobAssigned(predicted_ms=ms, reason=reason):
            return f"given to it ({reason}), expected to take {duration_text(ms)}"
        case JobHedged(waited_ms=ms):
            return f"also given to it after {duration_text(ms)}, to be safe"
        case AttemptFailed(reason=reason, blamed=blamed):
            return reason + ("" if blamed else " (not the worker's fault)")
        case ResultRefused(reason=reason):
            return f"result refused: {reason}"
        case JobVerified(pixels=pixels, took_ms=ms, renditions=renditions):
            what = times(len(renditions), "rendition")
            return f"{what} checked, {large_text(pixels)} pixels, after {duration_text(ms)}"
        case JobDelivered(orchestrator=o, took_ms=ms, duration_ms=length):
            return f"delivered to {o} in {duration_text(ms)} for {duration_text(length)} of video"
        case JobFailed(reason=reason, attempts=attempts):
            return f"failed after {times(attempts, 'attempt')}: {reason}"
        case FeeCredited(worker_wei=wei, fee_wei=fee):
            return f"earned {ether_text(int(wei))} of {ether_text(int(fee))}"
        case CommissionTaken(commission_wei=wei):
            return f"the pool kept {ether_text(int(wei))}"
    return ""


def _of_workers(data: AnyPayload) -> str:
    match data:
        case WorkerEnrolled(name=name, address=address):
            return f"{name} enrolled, to be paid at {address}"
        case WorkerApproved():
            return "approved"
        case WorkerBanned(reason=reason):
            return f"banned: {reason}"
        case TokenIssued(token=token):
            return f"token {token} issued"
        case TokenRevoked(token=token, reason=reason):
            return f"token {token} revoked: {reason}"
        case WorkerConnected(kind=kind, capacity=capacity, version=version):
            return f"connected with {times(capacity, 'session')} ({kind} {version})".replace(
                " )", ")"
            )
        case WorkerDisconnected(reason=reason):
            return f"disconnected: {reason}"
        case WorkerCooledDown(reason=reason):
            return f"gets no work for a while: {reason}"
    return ""


def _of_the_pool(data: AnyPayload) -> str:
    match data:
        case PoolStarted(version=version, epoch=epoch):
            return f"version {version} started for the {_nth(epoch)} time"
        case PoolStopped(reason=reason):
            return f"stopped: {reason}"
        case OrchestratorUp(orchestrator=o):
            return f"{o} is reached"
        case OrchestratorDown(orchestrator=o, reason=reason):
            return f"{o} is not reached: {reason}"
        case OrchestratorRestarted(orchestrator=o):
            return f"{o} shows a new certificate: it was restarted"
        case GroupOpened(orchestrator=o, group=group, capacity=capacity):
            return f"{group} offers {times(capacity, 'slot')} to {o}"
        case GroupClosed(orchestrator=o, group=group, reason=reason):
            return f"{group} no longer offers slots to {o}: {reason}"
        case PriceChanged(orchestrator=o, price_wei=price, source=source):
            return f"{o} pays {price} wei per pixel (from {source})"
    return data.type


def _nth(number: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if number % 100 in (11, 12, 13) else endings.get(number % 10, 'th')}"


def subject(data: AnyPayload) -> str:
    """The worker an event is about, or ""."""
    return str(getattr(data, "worker", ""))
