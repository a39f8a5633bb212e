"""Statements, receipts, terms, disputes and corrections over HTTP.

Statements and terms are everybody's, and are served as the bytes that were signed. Receipts belong
to the owner of the payout address, to whom a worker's token speaks as well. Deciding is the
operator's. Read `web.statement_interface` for what is asked of the pool.
"""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Annotated

import msgspec
from litestar import Response, Router, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody, PathParameter, QueryParameter
from litestar.response import Stream
from msgspec import Meta, Struct

from openpool.core.enrolment import checked_address
from openpool.core.errors import BadMessage, NotAllowed
from openpool.core.money.corrections import Mending
from openpool.core.money.disputes import Dispute
from openpool.core.money.terms import Promise, Published, differences
from openpool.core.paging import behind
from openpool.web.answers import CorrectionView, Movement, StatementView
from openpool.web.api import Limit
from openpool.web.auth import Visitor
from openpool.web.context import FromVisitor, FromWeb, Web
from openpool.web.door import need_operator, need_sign_in
from openpool.web.earnings import csv_text, movements, rows
from openpool.web.problems import NotFound, NotSetUp, documented
from openpool.web.statement_interface import Proofs, StatementRow

SIGNED_IN: list[dict[str, list[str]]] = [{"bearer": []}, {"session": []}]
LINES_AT_ONCE = 200
"""Of a file that is read while it is sent."""
FileName = Annotated[str, PathParameter(min_length=1, max_length=40)]
PathId = Annotated[str, PathParameter(min_length=1, max_length=60)]
PathRound = Annotated[int, PathParameter(ge=0, le=2**53)]
Round = Annotated[int, QueryParameter(ge=0, le=2**53, description="Number of a round.")]
BeforeRound = Annotated[
    int, QueryParameter(ge=0, le=2**53, description="Round of the last one seen; 0: none.")
]
Job = Annotated[str, QueryParameter(min_length=1, max_length=300, description="A job or call.")]
Address = Annotated[
    str, QueryParameter(max_length=60, description="A payout address; the operator must say it.")
]
Year = Annotated[int, QueryParameter(ge=0, le=9998, description="UTC; 0 is all years.")]
Proof = Annotated[bool, QueryParameter(description="With its proof instead of a signature.")]
Line = Annotated[str, Meta(max_length=300)]


class TermsNotice(Struct, frozen=True, kw_only=True):
    """What holds, and what will."""

    version: int
    digest: str
    applies_ms: int
    promise: Promise
    next_version: int = 0
    """0: no change was announced."""
    next_digest: str = ""
    next_applies_ms: int = 0
    changes: list[str] = []
    """What will be different, one line each."""


class DisputeRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    subject: Line
    """`job:<id>`, `payout:<order>` or `statement:<round>`."""
    claim: Annotated[str, Meta(max_length=2_000)]


class EndRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    upheld: bool
    reason: Annotated[str, Meta(min_length=1, max_length=2_000)]
    corrects: Line = ""
    """Id of the event to be mended, or its number; empty if nothing is to be moved."""
    debit: Line = ""
    credit: Line = ""
    amount_wei: Annotated[str, Meta(max_length=100)] = ""


class CorrectionRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    corrects: Line
    """Id of the event that was wrong, or its number in the log."""
    debit: Line
    credit: Line
    amount_wei: Annotated[str, Meta(max_length=100)]
    reason: Annotated[str, Meta(min_length=1, max_length=500)]
    correction: Annotated[str, Meta(max_length=60, pattern="^[A-Za-z0-9._-]*$")] = ""
    """Its name, if it is to have a certain one; the same name counts once."""


def _proofs(web: Web) -> Proofs:
    if web.deps.proofs is None:
        raise NotSetUp("This pool publishes no statements.")
    return web.deps.proofs


def _file(content: bytes | None, name: str, kind: str = "application/json") -> Response[bytes]:
    if content is None:
        raise NotFound(f"This pool has no {name}; /api/v1/statements lists what it signed.")
    return Response(
        content,
        media_type=kind,
        headers={"Content-Disposition": f'inline; filename="{name}"'},
    )


async def owned_address(web: Web, visitor: Visitor, address: str = "") -> str:
    """The payout address that a question is about: the visitor's own; the operator names one."""
    need_sign_in(visitor)
    wanted = checked_address(address) if address else ""
    if visitor.role == "operator":
        if not wanted:
            raise BadMessage("Say whose: add `address=` with a payout address.")
        return wanted
    own = visitor.address
    if not own and visitor.workers:
        row = await asyncio.to_thread(web.deps.reader.worker, visitor.workers[0])
        own = row.address if row else ""
    if not own or wanted not in ("", own):
        raise NotAllowed("You can ask for your own payout address only.")
    return own


# --- for everybody -------------------------------------------------------------------------------


@get("/statements", responses=documented(404), tags=["statements"])
async def statements(
    web: FromWeb, before: BeforeRound = 0, limit: Limit = 100
) -> list[StatementView]:
    """Statements, the newest first; page with `before` = the last `round` seen. No sign-in
    needed."""
    return [
        StatementView(
            round=row.round,
            made_ms=row.made_ms,
            receipts=row.receipts,
            root=row.root,
            digest=row.digest,
            signer=row.signer,
            url=f"/statements/{row.round}.json",
        )
        for row in rows_before(_proofs(web).statements.rows, before, limit)
    ]


def rows_before(rows: Sequence[StatementRow], before: int, limit: int) -> list[StatementRow]:
    """So many statements that were made before that of a round (0: up to the newest), the newest
    first; none if there is no such one."""
    newest = reversed(rows)
    if before:
        newest = behind(newest, lambda row: row.round == before)
    return list(islice(newest, limit))


@get("/statements/{name:str}", responses=documented(404), tags=["statements"])
async def statement_file(web: FromWeb, name: FileName) -> Response[bytes]:
    """The signed statement `<round>.json`, exactly as it was signed."""
    number, _, rest = name.partition(".")
    if rest != "json" or not (number.isascii() and number.isdigit()) or len(number) > 16:
        raise NotFound("A statement is called by the number of its round, like 3120.json.")
    content = await asyncio.to_thread(_proofs(web).statements.file, int(number))
    return _file(content, f"{int(number)}.json")


@get("/statements/{round:int}", responses=documented(404), tags=["statements"])
async def statement(web: FromWeb, round: PathRound) -> Response[bytes]:
    """The same by the number of its round."""
    content = await asyncio.to_thread(_proofs(web).statements.file, round)
    return _file(content, f"{round}.json")


@get("/terms.json", responses=documented(404), tags=["join"])
async def terms_file(
    web: FromWeb,
    version: Annotated[int, QueryParameter(ge=0, le=10**6, description="0: in force.")] = 0,
) -> Response[bytes]:
    """The pool's terms, signed: those in force, or a certain version."""
    return _file(_proofs(web).terms.file(version), "terms.json")


@get("/.well-known/openpool.json", responses=documented(404), tags=["public"])
async def well_known(web: FromWeb) -> dict[str, str | int]:
    """Who signs for this pool, and where its documents are."""
    proofs = _proofs(web)
    newest = proofs.statements.rows[-1].round if proofs.statements.rows else None
    return {
        "pool": web.deps.pool_name,
        "chain_id": proofs.chain_id,
        "signer": proofs.signer,
        "terms": "/terms.json",
        "terms_digest": proofs.terms.in_force().digest,
        "statements": "/api/v1/statements",
        "newest_statement": f"/statements/{newest}.json" if newest is not None else "",
    }


@get("/terms/notice", responses=documented(404), tags=["join"])
async def terms_notice(web: FromWeb) -> TermsNotice:
    """What holds now, and the change that was announced, if any."""
    book = _proofs(web).terms
    return notice(book.in_force(), book.pending())


def notice(current: Published, coming: Published | None) -> TermsNotice:
    """The same as a value, for pages."""
    return TermsNotice(
        version=current.terms.version,
        digest=current.digest,
        applies_ms=current.terms.applies_ms,
        promise=current.terms.promise,
        next_version=coming.terms.version if coming else 0,
        next_digest=coming.digest if coming else "",
        next_applies_ms=coming.terms.applies_ms if coming else 0,
        changes=differences(current.terms.promise, coming.terms.promise) if coming else [],
    )


# --- for owners ----------------------------------------------------------------------------------


@get("/receipts", responses=documented(401, 403, 404), security=SIGNED_IN, tags=["statements"])
async def receipts(
    web: FromWeb, visitor: FromVisitor, round: Round, address: Address = ""
) -> Stream:
    """The visitor's receipts of a round, a line each with the proof that it is in the statement.
    The operator gets all of them, without proofs, unless it names an address."""
    made = _proofs(web).statements
    need_sign_in(visitor)
    if visitor.role == "operator" and not address:
        lines = made.all_receipts(round)
    else:
        lines = made.receipts_of(round, await owned_address(web, visitor, address))
    return await _lines(lines, f"{round}.receipts.jsonl")


async def _lines(lines: Iterator[bytes] | None, name: str) -> Stream:
    """A file that is read while it is sent. The first part is read before anything is sent, so
    that a file that is missing or damaged is an answer of its own."""
    if lines is None:
        raise NotFound(f"This pool has no {name}; /api/v1/statements lists what it signed.")
    parts = iter(lambda: b"".join(line + b"\n" for line in islice(lines, LINES_AT_ONCE)), b"")
    first = await asyncio.to_thread(next, parts, b"")
    return Stream(
        chain([first], parts),
        media_type="application/x-ndjson",
        headers={"Content-Disposition": f'inline; filename="{name}"'},
    )


@get("/receipts/one", responses=documented(401, 403, 404), security=SIGNED_IN, tags=["statements"])
async def one_receipt(
    web: FromWeb, visitor: FromVisitor, job: Job, address: Address = "", proof: Proof = False
) -> Response[bytes]:
    """The receipt of one job or call, signed by itself; with `proof=true` instead with the proof
    that it is in its statement."""
    made = _proofs(web).statements
    own = await owned_address(web, visitor, address)
    content = await asyncio.to_thread(made.receipt_of if proof else made.signed_receipt, job, own)
    return _file(content, "receipt.json")


@get("/earnings.csv", responses=documented(401, 403), security=SIGNED_IN, tags=["statements"])
async def earnings_csv(
    web: FromWeb, visitor: FromVisitor, year: Year = 0, address: Address = ""
) -> Response[str]:
    """Everything that an address earned and was paid, as CSV. At most a million rows."""
    own = await owned_address(web, visitor, address)
    text = await asyncio.to_thread(lambda: csv_text(rows(web.deps.reader, own, year)))
    name = f"earnings-{year or 'all'}.csv"
    return Response(
        text,
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@get("/earnings.json", responses=documented(401, 403), security=SIGNED_IN, tags=["statements"])
async def earnings_json(
    web: FromWeb, visitor: FromVisitor, year: Year = 0, address: Address = ""
) -> list[Movement]:
    """The same as JSON, LPT before ETH, each from the oldest to the newest."""
    own = await owned_address(web, visitor, address)
    return await asyncio.to_thread(lambda: movements(rows(web.deps.reader, own, year)))


@get("/disputes", responses=documented(401, 404), security=SIGNED_IN, tags=["disputes"])
async def disputes(web: FromWeb, visitor: FromVisitor, address: Address = "") -> list[Dispute]:
    """The visitor's disputes, or all."""
    need_sign_in(visitor)
    if visitor.role != "operator" or address:
        address = await owned_address(web, visitor, address)
    return await _proofs(web).disputes.all(address)


@post("/disputes", responses=documented(401, 403, 404), security=SIGNED_IN, tags=["disputes"])
async def open_dispute(
    web: FromWeb, visitor: FromVisitor, data: JSONBody[DisputeRequest]
) -> Dispute:
    """Say that a job, a payout or a statement is wrong. The evidence is kept as it is now."""
    if visitor.role == "operator":
        raise NotAllowed("An owner opens disputes; sign in with a wallet or a worker's token.")
    own = await owned_address(web, visitor)
    return await _proofs(web).disputes.open(own, data.subject, data.claim)


@get(
    "/disputes/{dispute:str}", responses=documented(401, 404), security=SIGNED_IN, tags=["disputes"]
)
async def dispute(web: FromWeb, visitor: FromVisitor, dispute: PathId) -> Dispute:
    """One dispute."""
    return await seen_dispute(web, visitor, dispute)


@get(
    "/disputes/{dispute:str}/evidence",
    responses=documented(401, 404),
    security=SIGNED_IN,
    tags=["disputes"],
)
async def evidence(web: FromWeb, visitor: FromVisitor, dispute: PathId) -> Response[bytes]:
    """The evidence as it was when the dispute was opened; its SHA-256 is in the log."""
    found = await seen_dispute(web, visitor, dispute)
    content = await _proofs(web).disputes.pack(found.dispute)
    return _file(content, f"{found.dispute}.json")


async def seen_dispute(web: Web, visitor: Visitor, dispute: str) -> Dispute:
    """A dispute that this visitor may see. Raises NotFound."""
    need_sign_in(visitor)
    found = await _proofs(web).disputes.get(dispute)
    if found is None or (
        visitor.role != "operator" and found.address != await owned_address(web, visitor)
    ):
        raise NotFound("There is no such dispute, or it is not yours.")
    return found


# --- for the operator ----------------------------------------------------------------------------


@post(
    "/disputes/{dispute:str}/end",
    status_code=200,
    responses=documented(401, 403, 404),
    security=SIGNED_IN,
    tags=["operator"],
)
async def end_dispute(
    web: FromWeb, visitor: FromVisitor, dispute: PathId, data: JSONBody[EndRequest]
) -> Dispute:
    """Decide a dispute, with a correction if one follows. Operator only."""
    need_operator(visitor)
    mending = Mending(
        corrects=data.corrects, debit=data.debit, credit=data.credit, amount_wei=data.amount_wei
    )
    return await _proofs(web).disputes.end(
        dispute,
        upheld=data.upheld,
        reason=data.reason,
        correction=mending if data.corrects else None,
    )


@post("/corrections", responses=documented(401, 403, 404), security=SIGNED_IN, tags=["operator"])
async def correct(
    web: FromWeb, visitor: FromVisitor, data: JSONBody[CorrectionRequest]
) -> CorrectionView:
    """Mend an entry of the books by a new one. Operator only."""
    need_operator(visitor)
    name, is_new = await _proofs(web).corrections.make(**msgspec.structs.asdict(data))
    return CorrectionView(correction=name, is_new=is_new)


API: list[HTTPRouteHandler] = [
    statements,
    statement,
    terms_notice,
    receipts,
    one_receipt,
    earnings_csv,
    earnings_json,
    disputes,
    open_dispute,
    dispute,
    evidence,
    end_dispute,
    correct,
]


def statement_routes() -> list[Router | HTTPRouteHandler]:
    """All routes of this file."""
    api = Router("/api/v1", route_handlers=API)
    return [api, statement_file, terms_file, well_known]
