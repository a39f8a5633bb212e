"""Who belongs to a pool: `enroll`, `tokens`, `invite`, `approve`, `ban`.

Owners of workers speak for themselves with the token that enrolling left on their machine
(`--pool`); the operator speaks for any worker with the operator's token.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openpool.cli.asking import Asked, Spoken, as_anyone, as_operator
from openpool.cli.groups import Group
from openpool.cli.options import Json, examples
from openpool.cli.output import ago, note, print_json, show_facts, show_table
from openpool.core.errors import SetupError

if TYPE_CHECKING:
    from openpool.web.answers import TokenView

tokens = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    epilog=examples(
        "openpool tokens list w_abc…", "openpool tokens rotate --pool pool.example.org:8936"
    ),
)


Link = Annotated[str, typer.Argument(metavar="JOIN_LINK", help="openpool://… from the pool.")]
WalletFile = Annotated[
    Path | None,
    typer.Option("--wallet", metavar="FILE", help="Keystore or private key file, mode 0600."),
]
NewWallet = Annotated[
    bool, typer.Option("--new-wallet", help="Make the keystore file first, with a new key.")
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file", "--passphrase", metavar="FILE", help="Else it is asked for. Mode 0600."
    ),
]
Name = Annotated[
    str, typer.Option("--name", metavar="NAME", help="A name for this worker, unique per address.")
]
Yes = Annotated[bool, typer.Option("--accept-terms", help="Accept the pool's terms unasked.")]
WorkerId = Annotated[str, typer.Argument(metavar="WORKER", help="The worker's id, w_….")]
MaybeWorker = Annotated[
    str, typer.Argument(metavar="WORKER", help="The worker's id; not needed with --pool.")
]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command(
        epilog=examples(
            "openpool enroll 'openpool://…' --wallet key.json --name rig-1",
            "openpool enroll 'openpool://…' --wallet new.json --new-wallet",
        )
    )(enroll)
    app.add_typer(tokens, name="tokens", help="List, rotate and revoke the tokens of a worker.")
    app.command(epilog=examples("openpool invite", "openpool invite --note 'for Ann' --json"))(
        invite
    )
    app.command(epilog=examples("openpool approve w_abc…"))(approve)
    app.command(epilog=examples("openpool ban w_abc… --reason 'sends black frames'"))(ban)


def enroll(
    link: Link,
    wallet: WalletFile = None,
    new_wallet: NewWallet = False,
    passphrase_file: PassphraseFile = None,
    name: Name = "worker",
    accept_terms: Yes = False,
    as_json: Json = False,
) -> None:
    """Prove an address, accept the pool's terms, and get a token for a worker.

    The token is shown this once, and kept in ~/.openpool for `openpool worker` on this machine.
    """
    from openpool.cli.enrolling import enrol
    from openpool.core.joinlink import parse_join_link

    enrolled = enrol(
        parse_join_link(link),
        wallet=wallet,
        new_wallet=new_wallet,
        passphrase_file=passphrase_file,
        name=name,
        accept_terms=accept_terms,
    )
    if as_json:
        print_json({"worker": enrolled.worker, "token": enrolled.secret, "state": enrolled.state})
        return
    show_facts([("worker", enrolled.worker), ("state", enrolled.state), ("token", enrolled.secret)])
    if enrolled.state == "pending":
        note("The operator has to approve this worker before it gets work.")


@tokens.command(
    "list",
    epilog=examples(
        "openpool tokens list w_abc…", "openpool tokens list --pool pool.example.org:8936"
    ),
)
@as_anyone
def list_tokens(
    asked: Spoken,
    worker: MaybeWorker = "",
) -> None:
    """List the tokens of a worker, without their secrets."""
    from openpool.web.answers import TokenView

    of = _meant(asked, worker)
    found = asked.ask(lambda api: api.get(list[TokenView], f"/workers/{of}/tokens"))
    if asked.as_json:
        print_json(found)
        return
    now_ms = _now_ms()
    show_table(
        ["token", "label", "made", "last used", "state"],
        [
            (
                t.token,
                t.label,
                ago(t.created_ms, now_ms),
                ago(t.last_used_ms, now_ms),
                _state(t, now_ms),
            )
            for t in found
        ],
        empty="This worker has no token.",
    )


@tokens.command("rotate", epilog=examples("openpool tokens rotate --pool pool.example.org:8936"))
@as_anyone
def rotate_token(
    asked: Spoken,
    worker: MaybeWorker = "",
    label: Annotated[
        str, typer.Option("--label", metavar="TEXT", help="A note on the new token.")
    ] = "",
) -> None:
    """Make a new token; the old ones go on working for a grace period, so nothing stops."""
    from openpool.core.enrolment import Enrolled

    of = _meant(asked, worker)
    made = asked.ask(lambda api: api.post(Enrolled, f"/workers/{of}/tokens", {"label": label}))
    _keep(asked, of, made.secret)
    if asked.as_json:
        print_json({"worker": made.worker, "token": made.secret, "state": made.state})
    else:
        show_facts([("worker", made.worker), ("token", made.secret)])


@tokens.command("revoke", epilog=examples("openpool tokens revoke abcd… w_abc…"))
@as_anyone
def revoke_token(
    asked: Spoken,
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="The token's id, from the list.")],
    worker: MaybeWorker = "",
) -> None:
    """Make a token worthless at once; what runs with it is disconnected."""
    of = _meant(asked, worker)
    asked.ask(lambda api: api.send("DELETE", f"/workers/{of}/tokens/{token}"))
    asked.done(f"The token {token} is revoked.")


@as_operator
def invite(
    asked: Asked,
    text: Annotated[
        str, typer.Option("--note", metavar="TEXT", help="For whom it is; only you see it.")
    ] = "",
    group: Annotated[
        str, typer.Option("--group", metavar="GROUP", help="The group of whoever uses it.")
    ] = "",
) -> None:
    """Make an invitation that is good once, and the join link that holds it."""
    from openpool.web.answers import Invitation

    body = {"note": text} | ({"group": group} if group else {})
    made = asked.ask(lambda api: api.post(Invitation, "/invites", body))
    asked.show(made, lambda made: typer.echo(made.join_link))


@as_operator
def approve(
    asked: Asked,
    worker: WorkerId,
) -> None:
    """Let a pending worker work, or take back a ban."""
    asked.ask(lambda api: api.send("POST", f"/workers/{worker}/approve"))
    asked.done(f"The worker {worker} is approved.")


@as_operator
def ban(
    asked: Asked,
    worker: WorkerId,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; recorded in the log.")
    ],
) -> None:
    """Shut a worker out at once. What it has earned stays its own."""
    asked.ask(lambda api: api.send("POST", f"/workers/{worker}/ban", {"reason": reason}))
    asked.done(f"The worker {worker} is banned.")


def _meant(asked: Spoken, worker: str) -> str:
    """The id of the worker that is named, or that speaks. Raises SetupError."""
    identity = asked.identity
    meant = worker or (identity.worker if identity else "")
    if not meant:
        raise SetupError("Say which worker, by its id (w_…), or speak for one with --pool.")
    return meant


def _keep(
    asked: Spoken,
    worker: str,
    secret: str,
) -> None:
    """Remember a new token of our own."""
    from msgspec.structs import replace

    from openpool.identity import save_identity

    identity = asked.identity
    if identity is not None and worker == identity.worker:
        save_identity(replace(identity, token=secret))


def _now_ms() -> int:
    import time

    return time.time_ns() // 1_000_000


def _state(token: "TokenView", now_ms: int) -> str:
    if token.revoked_ms:
        return f"revoked {ago(token.revoked_ms, now_ms)}"
    if not token.expires_ms:
        return "good"
    return "expired" if token.expires_ms <= now_ms else "rotated, good for a while"
