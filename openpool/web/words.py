"""Events in words, for the pages. Pure."""

from openpool.core.events import (
    AnyPayload,
    AttemptFailed,
    CallAssigned,
    CallAttemptFailed,
    CallCheckpointed,
    CallCompleted,
    CallFailed,
    CallReceived,
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
    LineClosed,
    LineOpened,
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
from openpool.core.money.events import (
    AdjustmentMade,
    CustomerPaid,
    RoundSettled,
    RuleRefused,
    ShareCredited,
)
from openpool.core.texts import plural
from openpool.web.format import duration_text, ether_text, grouped, large_text, significant_text
from openpool.web.interface import OPERATOR_CUSTOMER
from openpool.web.payout_words import of_payouts

LEVELS = {
    "bad": {
        "job-failed",
        "call-failed",
        "result-refused",
        "orchestrator-down",
        "worker-banned",
        "rule-refused",
        "order-voided",
        "payouts-paused",
    },
    "warn": {
        "address-blocked",
        "attempt-failed",
        "call-attempt-failed",
        "line-closed",
        "job-hedged",
        "worker-cooled-down",
        "worker-disconnected",
        "orchestrator-restarted",
        "token-revoked",
        "group-closed",
        "pool-stopped",
    },
    "good": {
        "job-delivered",
        "call-completed",
        "fee-credited",
        "customer-paid",
        "order-confirmed",
        "orchestrator-up",
        "worker-approved",
    },
}
"""How the type of an event is coloured; others are neutral."""


def level(kind: str) -> str:
    return next((name for name, kinds in LEVELS.items() if kind in kinds), "")


def describe(data: AnyPayload) -> str:
    """One line that says what happened; the worker and the job are shown beside it."""
    return (
        _of_jobs(data)
        or _of_calls(data)
        or _of_workers(data)
        or _of_shares(data)
        or of_payouts(data)
        or _of_the_pool(data)
    )


def _of_jobs(data: AnyPayload) -> str:
    match data:
        case JobReceived(orchestrator=o, seq=seq, duration_ms=ms, profiles=profiles):
            what = plural(len(profiles), "rendition")
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
            what = plural(len(renditions), "rendition")
            return f"{what} checked, {large_text(pixels)} pixels, after {duration_text(ms)}"
        case JobDelivered(orchestrator=o, took_ms=ms, duration_ms=length):
            return f"delivered to {o} in {duration_text(ms)} for {duration_text(length)} of video"
        case JobFailed(reason=reason, attempts=attempts):
            return f"failed after {plural(attempts, 'attempt')}: {reason}"
        case FeeCredited(worker_wei=wei, fee_wei=fee, pipeline=pipeline) if pipeline:
            what = f"{amount(data.pixels, data.unit)} of {pipeline}"
            return f"earned {ether_text(int(wei))} of {ether_text(int(fee))} for {what}"
        case FeeCredited(worker_wei=wei, fee_wei=fee):
            return f"earned {ether_text(int(wei))} of {ether_text(int(fee))}"
        case CommissionTaken(commission_wei=wei):
            return f"the pool kept {ether_text(int(wei))}"
    return ""


WHY = {
    "chosen": "",
    "session": ", whose session it is",
    "waited": ", after it had waited for a place",
    "retry": ", as another try",
}


def _of_calls(data: AnyPayload) -> str:
    match data:
        case CallReceived(pipeline=pipeline, model=model):
            return f"{_client(data.customer, data.orchestrator)} called {pipeline}/{model}"
        case CallAssigned(predicted_ms=ms, reason=reason, warm=warm):
            took = f", expected to take {duration_text(ms)}" if ms else ""
            cold = "" if warm else "; the model has to be loaded first"
            return f"given to it{WHY.get(reason, '')}{took}{cold}"
        case CallAttemptFailed(reason=reason, blamed=blamed):
            return reason + ("" if blamed else " (not the worker's fault)")
        case CallCheckpointed(units=units, unit=unit):
            return f"goes on: {amount(units, unit)} so far, paid up to there if the pool dies"
        case CallCompleted():
            return _completed(data)
        case CallFailed(code="cancelled", pipeline=pipeline, model=model):
            return f"{_client(data.customer, data.orchestrator)} hung up on {pipeline}/{model}"
        case CallFailed(attempts=attempts, reason=reason, pipeline=pipeline, model=model):
            tries = f" after {plural(attempts, 'attempt')}" if attempts else ""
            return f"{pipeline}/{model} had no answer{tries}: {reason}"
        case LineOpened():
            return "opened a line for calls"
        case LineClosed(reason=reason):
            return f"its line for calls ended: {reason}"
    return ""


def _client(customer: str, orchestrator: str) -> str:
    """Who made a call."""
    if customer == OPERATOR_CUSTOMER:
        return "the operator"
    return f"customer {customer}" if customer else orchestrator or "somebody"


def _completed(data: CallCompleted) -> str:
    what = f"{data.pipeline}/{data.model}"
    took = f"{what} answered in {duration_text(data.took_ms)}"
    if not data.checked:
        return f"{took}, and not accepted: {data.note or 'it was not checked'}"
    hung_up = ", until the client hung up" if data.cancelled else ""
    return f"{took}{hung_up}: {amount(data.units, data.unit)}"


def usd(price: str, unit: str) -> str:
    """A price of the list: `"1/5 per 1000000"` as `0.2 USD per 1 000 000 tokens`."""
    cost, _, per = price.partition(" per ")
    return f"{significant_text(cost)} USD per {counted(int(per or 1), unit)}"


def counted(units: int, unit: str) -> str:
    """`1 token`, `1 234 567 tokens`, `850 ms`: exactly."""
    return f"{grouped(units)} {unit}{'' if units == 1 or unit == 'ms' else 's'}"


def amount(units: int, unit: str) -> str:
    """`1 token`, `12.3 k tokens`, `850 ms`."""
    if unit == "ms":
        return duration_text(units)
    return f"{large_text(units)} {unit}{'' if units == 1 else 's'}"


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
            return f"connected with {plural(capacity, 'session')} ({kind} {version})".replace(
                " )", ")"
            )
        case WorkerDisconnected(reason=reason):
            return f"disconnected: {reason}"
        case WorkerCooledDown(reason=reason):
            return f"gets no work for a while: {reason}"
    return ""


def _of_shares(data: AnyPayload) -> str:
    match data:
        case RoundSettled(orchestrator=o, round=number, shared_wei=wei, realised_wei=realised):
            sums = f"{ether_text(int(wei))} shared, {ether_text(int(realised))} realised"
            return f"round {number} of {o} settled: {sums} ({data.scheme})"
        case ShareCredited(address=address, round=number, share_wei=wei):
            return f"{address} got {ether_text(int(wei))} of round {number}"
        case AdjustmentMade(rule=rule, debit=debit, credit=credit, amount_wei=wei, reason=reason):
            return f"{rule}: {ether_text(int(wei))} from {debit} to {credit} ({reason})"
        case RuleRefused(rule=rule, round=number, reason=reason):
            return f"round {number} was settled without the rule {rule}: {reason}"
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
            return f"{group} offers {plural(capacity, 'slot')} to {o}"
        case GroupClosed(orchestrator=o, group=group, reason=reason):
            return f"{group} no longer offers slots to {o}: {reason}"
        case CustomerPaid(customer=customer, amount_wei=wei, reference=reference):
            return f"customer {customer} paid {ether_text(int(wei))} ({reference})"
        case PriceChanged(orchestrator=o, price_wei=price, source=source):
            return f"{o} pays {significant_text(price)} wei per pixel (from {source})"
    return data.type


def _nth(number: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if number % 100 in (11, 12, 13) else endings.get(number % 10, 'th')}"


def subject(data: AnyPayload) -> str:
    """The worker an event is about, or ""."""
    return str(getattr(data, "worker", ""))


def job_of(event_id: str) -> str:
    """The job that a fee's event is about, from the event's id; empty for anything else."""
    job, _, kind = event_id.rpartition("/")
    return job if kind == "fee-credited" else ""


def order_of(event_id: str) -> str:
    """The order that an event is about, from the event's id; empty for anything else."""
    kind, _, rest = event_id.partition("/")
    return rest.partition("/")[0] if kind == "order" else ""


_ENTRIES = {
    "fee": "work",
    "share": "share of a round",
    "set-aside": "payout",
    "returned": "payout that came back",
    "adjustment": "by the pool's rule",
    "reward": "share of a reward",
    "swapped": "bought with fees",
}


def entry(kind: str) -> str:
    """What kind of entry in an owner's account it is."""
    return _ENTRIES.get(kind, kind)
