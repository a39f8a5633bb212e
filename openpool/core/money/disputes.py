"""Disputes: an owner says that a job, a payout or a statement is wrong, and somebody decides.

Opening one freezes the evidence: a pack of everything that the log holds about the subject, whose
hash goes into the log. What is decided is in the log as well, with the correction that follows.
A fold over events; must not read the log itself, sign or know the clock.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from openpool.core.errors import BadMessage, NotAllowed
from openpool.core.events import Event
from openpool.core.money.events import DisputeEnded, DisputeOpened
from openpool.core.texts import plural

SubjectKind = Literal["job", "payout", "statement"]
SUBJECT = re.compile(r"(job|payout|statement):([\x21-\x7e]{1,200})")
CLAIM_CHARS_MAX = 2_000
OPEN_MAX = 20
"""Open disputes of one address."""
PACK_EVENTS_MAX = 2_000


class Subject(Struct, frozen=True, kw_only=True):
    """What a dispute is about."""

    kind: SubjectKind
    name: str
    """A job's or call's id, an order, or the number of a round."""


class Dispute(Struct, frozen=True, kw_only=True):
    """A dispute as it stands."""

    dispute: str
    address: str
    subject: str
    claim: str
    evidence: str
    """SHA-256 of the evidence pack, hex."""
    opened_ms: int
    open: bool = True
    upheld: bool = False
    reason: str = ""
    correction: str = ""
    ended_ms: int = 0


class PackEvent(Struct, frozen=True, kw_only=True):
    """An event of the log, with the hash that ties it to the log's head."""

    seq: int
    id: str
    time_ms: int
    chain: str
    data: dict[str, Any]


class Pack(Struct, frozen=True, kw_only=True):
    """The evidence: everything that the pool knew about the subject when the dispute was opened."""

    format: Literal["openpool-evidence-1"] = "openpool-evidence-1"
    pool: str
    dispute: str
    address: str
    subject: str
    claim: str
    seq: int
    """Head of the log then, as is the next."""
    chain: str
    events: tuple[PackEvent, ...]
    statement: msgspec.Raw
    """The signed statement that it is part of, or null if there is none yet."""
    receipts: tuple[msgspec.Raw, ...]
    """Lines of a file of receipts, each with its proof."""
    findings: tuple[str, ...]
    """What the pool's own check of these receipts found."""


encode_pack = msgspec.json.Encoder().encode


def parse_subject(text: str) -> Subject:
    """What `job:<id>`, `payout:<order>` or `statement:<round>` names. Raises BadMessage."""
    match = SUBJECT.fullmatch(text)
    if not match:
        raise BadMessage("Say what it is about: job:<id>, payout:<order> or statement:<round>.")
    kind: SubjectKind = match[1]  # type: ignore[assignment]
    if kind == "statement" and not (match[2].isdigit() and len(match[2]) < 16):
        raise BadMessage("A statement is named by the number of its round, like statement:3120.")
    return Subject(kind=kind, name=match[2])


def check_claim(text: str) -> str:
    """The claim without white space around it. Raises BadMessage."""
    claim = text.strip()
    if not 0 < len(claim) <= CLAIM_CHARS_MAX:
        raise BadMessage(f"Say in up to {CLAIM_CHARS_MAX} characters what is wrong.")
    return claim


def check_window(about_ms: int, dispute_ms: int, now_ms: int) -> None:
    """Whether it may still be opened; `about_ms` is when the statement about it was made, or the
    event itself where there is no statement yet. Raises NotAllowed."""
    if now_ms > about_ms + dispute_ms:
        days = plural(dispute_ms // 86_400_000, "day")
        raise NotAllowed(f"This could be disputed for {days}; that time has passed.")


def check_room(disputes: Iterable[Dispute], address: str) -> None:
    """Raises NotAllowed if this address has as many open disputes as one may have."""
    if sum(each.open and each.address == address for each in disputes) >= OPEN_MAX:
        raise NotAllowed(f"You have {OPEN_MAX} open disputes; wait until one has ended.")


def disputes_of(events: Sequence[Event]) -> dict[str, Dispute]:
    """All disputes, the oldest first."""
    found: dict[str, Dispute] = {}
    for event in events:
        match event.data:
            case DisputeOpened() as opened:
                found[opened.dispute] = Dispute(
                    dispute=opened.dispute,
                    address=opened.address,
                    subject=opened.subject,
                    claim=opened.claim,
                    evidence=opened.evidence,
                    opened_ms=event.time_ms,
                )
            case DisputeEnded() as ended if ended.dispute in found:
                found[ended.dispute] = msgspec.structs.replace(
                    found[ended.dispute],
                    open=False,
                    upheld=ended.upheld,
                    reason=ended.reason,
                    correction=ended.correction,
                    ended_ms=event.time_ms,
                )
    return found
