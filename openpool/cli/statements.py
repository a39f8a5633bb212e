"""`openpool statements` and `openpool dispute`: what a pool proved, and saying that it is wrong.

Owners speak for themselves with the token that enrolling left on their machine (`--pool`); the
operator with the operator's token. Checking a statement is `openpool verify`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openpool.cli.asking import Asked, Spoken, as_anyone, as_operator
from openpool.cli.groups import Group
from openpool.cli.options import Limit, examples
from openpool.cli.output import ago, note, print_json, show, show_facts, show_table
from openpool.core.errors import SetupError

if TYPE_CHECKING:
    from openpool.cli.api import Api
    from openpool.core.money.disputes import Dispute

statements = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    epilog=examples(
        "openpool statements list", "openpool statements fetch 3120 --pool pool.example.org:8936"
    ),
)
dispute = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    epilog=examples(
        "openpool dispute list",
        "openpool dispute open statement:3120 'My payout is missing' \\",
        "    --pool pool.example.org:8936",
    ),
)

DisputeId = Annotated[str, typer.Argument(metavar="DISPUTE", help="The dispute's id, d….")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(statements, name="statements", help="List and fetch signed statements.")
    app.add_typer(dispute, name="dispute", help="Say that a job, payout or statement is wrong.")


@statements.command(
    "list", epilog=examples("openpool statements list --pool pool.example.org:8936")
)
@as_anyone
def list_statements(asked: Spoken, limit: Limit = 50) -> None:
    """List the statements that the pool made, the newest first."""
    from openpool.web.answers import StatementView

    found = asked.ask(lambda api: api.get(list[StatementView], "/statements", limit=limit))
    if asked.as_json:
        print_json(found)
        return
    now_ms = _now_ms()
    show_table(
        ["round>", "made", "receipts>", "digest", "signer"],
        [(s.round, ago(s.made_ms, now_ms), s.receipts, s.digest, s.signer) for s in found],
        empty="No statement was made yet.",
    )


@statements.command(
    "fetch",
    epilog=examples(
        "openpool statements fetch 3120 --pool pool.example.org:8936",
        "openpool verify 3120.json --receipts 3120.receipts.jsonl",
    ),
)
@as_anyone
def fetch(
    asked: Spoken,
    round: Annotated[int, typer.Argument(metavar="ROUND", min=0, help="Number of the round.")],
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where to.")] = Path(),
) -> None:
    """Fetch a statement and one's receipts in it (all of them as the operator)."""

    async def ask(api: "Api") -> tuple[bytes, bytes]:
        statement = await api.download(f"/statements/{round}")
        return statement, await api.download("/receipts", round=round)

    contents = asked.ask(ask)
    paths = [to / f"{round}.json", to / f"{round}.receipts.jsonl"]
    try:
        to.mkdir(parents=True, exist_ok=True)
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
    except OSError as error:
        raise SetupError(f"{to} cannot be written: {(error.strerror or '').lower()}.") from None
    if asked.as_json:
        print_json({"statement": str(paths[0]), "receipts": str(paths[1])})
    else:
        note(f"Check it with: openpool verify {paths[0]} --receipts {paths[1]}")


@dispute.command(
    "open",
    epilog=examples(
        "openpool dispute open job:main.3f.17 'It had 60 frames' \\",
        "    --pool pool.example.org:8936",
    ),
)
@as_anyone
def open_dispute(
    asked: Spoken,
    subject: Annotated[
        str, typer.Argument(metavar="SUBJECT", help="job:<id>, payout:<order>, statement:<round>.")
    ],
    claim: Annotated[str, typer.Argument(metavar="CLAIM", help="What is wrong, in words.")],
) -> None:
    """Open a dispute as the owner. The pool keeps the evidence as it is now."""
    from openpool.core.money.disputes import Dispute

    if not asked.pool:
        raise SetupError("Only an owner opens disputes: say for which pool, --pool HOST:PORT.")
    body: dict[str, str | int] = {"subject": subject, "claim": claim}
    made = asked.ask(lambda api: api.post(Dispute, "/disputes", body))
    asked.show(made, _show)


@dispute.command("list", epilog=examples("openpool dispute list", "openpool dispute list --json"))
@as_anyone
def list_disputes(asked: Spoken) -> None:
    """List one's disputes, or all of them as the operator."""
    from openpool.core.money.disputes import Dispute

    found = asked.ask(lambda api: api.get(list[Dispute], "/disputes"))
    if asked.as_json:
        print_json(found)
        return
    now_ms = _now_ms()
    show_table(
        ["dispute", "about", "by", "opened", "state"],
        [(d.dispute, d.subject, d.address, ago(d.opened_ms, now_ms), _state(d)) for d in found],
        empty="No dispute was opened.",
    )


@dispute.command(
    "show",
    epilog=examples(
        "openpool dispute show d12ab…", "openpool dispute show d12ab… --evidence e.json"
    ),
)
@as_anyone
def show_dispute(
    asked: Spoken,
    dispute: DisputeId,
    evidence: Annotated[
        Path | None, typer.Option("--evidence", metavar="FILE", help="Write the evidence there.")
    ] = None,
) -> None:
    """Show a dispute, and keep its evidence in a file."""
    from openpool.core.money.disputes import Dispute

    async def ask(api: "Api") -> tuple[Dispute, bytes]:
        found = await api.get(Dispute, f"/disputes/{dispute}")
        return found, await api.download(f"/disputes/{dispute}/evidence") if evidence else b""

    found, content = asked.ask(ask)
    if evidence is not None:
        _check_evidence(found, content)
        try:
            evidence.write_bytes(content)
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise SetupError(f"{evidence} cannot be written: {reason}.") from None
        note(f"The evidence is in {evidence}, and is what the pool recorded.")
    asked.show(found, _show)


def _check_evidence(found: "Dispute", content: bytes) -> None:
    from hashlib import sha256

    from openpool.core.errors import BadMessage

    if sha256(content).hexdigest() != found.evidence:
        raise BadMessage("The evidence is not what the pool recorded when the dispute was opened.")


@dispute.command(
    "end",
    epilog=examples(
        "openpool dispute end d12ab… --reject --reason 'The video has 30 frames'",
        "openpool dispute end d12ab… --uphold --reason 'Yes' \\",
        "    --corrects main.3f.17/fee-credited \\",
        "    --debit commission --credit worker:0xAb… --amount-wei 5000",
    ),
)
@as_operator
def end_dispute(
    asked: Asked,
    dispute: DisputeId,
    uphold: Annotated[bool, typer.Option("--uphold/--reject", help="Whether it is right.")],
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; the owner reads it.")
    ],
    corrects: Annotated[
        str, typer.Option("--corrects", metavar="EVENT", help="The event that is to be mended.")
    ] = "",
    debit: Annotated[str, typer.Option("--debit", metavar="ACCOUNT", help="Who gives.")] = "",
    credit: Annotated[str, typer.Option("--credit", metavar="ACCOUNT", help="Who gets.")] = "",
    amount_wei: Annotated[str, typer.Option("--amount-wei", metavar="WEI", help="How much.")] = "",
) -> None:
    """Decide a dispute as the operator, with a correction where one follows."""
    from openpool.core.money.disputes import Dispute

    body: dict[str, str | int] = {
        "upheld": uphold,
        "reason": reason,
        "corrects": corrects,
        "debit": debit,
        "credit": credit,
        "amount_wei": amount_wei,
    }
    path = f"/disputes/{dispute}/end"
    ended = asked.ask(lambda api: api.post(Dispute, path, body))
    asked.show(ended, _show)


def _show(found: "Dispute") -> None:
    show_facts(
        [
            ("dispute", found.dispute),
            ("about", found.subject),
            ("by", found.address),
            ("state", _state(found)),
            ("evidence", found.evidence),
        ]
    )
    show(f"“{found.claim}”")
    if found.reason:
        show(f"Decision: {found.reason}")
    if found.correction:
        show(f"Correction: {found.correction}")


def _state(found: "Dispute") -> str:
    if found.open:
        return "open"
    return "upheld" if found.upheld else "rejected"


def _now_ms() -> int:
    import time

    return time.time_ns() // 1_000_000
