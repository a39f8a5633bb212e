"""Who belongs to a pool: `enroll`, `tokens`, `invite`, `approve`, `ban`.

Owners of workers speak for themselves with the token that enrolling left on their machine
(`--pool`); the operator speaks for any worker with the operator's token.
"""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from openpool.cli.options import ConfigFile, Json, Set, Url, examples, load
from openpool.cli.output import ago, note, print_json, show_facts, show_table
from openpool.core.errors import SetupError

if TYPE_CHECKING:
    from openpool.cli.api import Api, TokenView
    from openpool.identity import Identity

T = TypeVar("T")
tokens = typer.Typer(no_args_is_help=True)


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
    typer.Option("--passphrase-file", metavar="FILE", help="Else it is asked for. Mode 0600."),
]
Name = Annotated[str, typer.Option("--name", help="A name for this worker, unique per address.")]
Yes = Annotated[bool, typer.Option("--accept-terms", help="Accept the pool's terms unasked.")]
WorkerId = Annotated[str, typer.Argument(metavar="WORKER", help="The worker's id, w_….")]
MaybeWorker = Annotated[
    str, typer.Argument(metavar="WORKER", help="The worker's id; not needed with --pool.")
]
Pool = Annotated[
    str,
    typer.Option("--pool", metavar="HOST:PORT", help="Speak as the worker enrolled from here."),
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
def list_tokens(
    worker: MaybeWorker = "",
    pool: Pool = "",
    config: ConfigFile = None,
    assignments: Set = None,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """List the tokens of a worker, without their secrets."""
    from openpool.cli.api import TokenView

    speaker = _Speaker(pool, worker, config, assignments, url)
    found = speaker.ask(lambda api, w: api.get(list[TokenView], f"/workers/{w}/tokens"))
    if as_json:
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
def rotate_token(
    worker: MaybeWorker = "",
    pool: Pool = "",
    label: Annotated[str, typer.Option("--label", help="A note on the new token.")] = "",
    config: ConfigFile = None,
    assignments: Set = None,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Make a new token; the old ones go on working for a grace period, so nothing stops."""
    from openpool.core.enrolment import Enrolled

    speaker = _Speaker(pool, worker, config, assignments, url)
    made = speaker.ask(lambda api, w: api.post(Enrolled, f"/workers/{w}/tokens", {"label": label}))
    speaker.keep(made.secret)
    if as_json:
        print_json({"worker": made.worker, "token": made.secret, "state": made.state})
    else:
        show_facts([("worker", made.worker), ("token", made.secret)])


@tokens.command("revoke", epilog=examples("openpool tokens revoke abcd… w_abc…"))
def revoke_token(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="The token's id, from the list.")],
    worker: MaybeWorker = "",
    pool: Pool = "",
    config: ConfigFile = None,
    assignments: Set = None,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Make a token worthless at once; what runs with it is disconnected."""
    speaker = _Speaker(pool, worker, config, assignments, url)
    speaker.ask(lambda api, w: api.send("DELETE", f"/workers/{w}/tokens/{token}"))
    _done(as_json, f"The token {token} is revoked.")


def invite(
    text: Annotated[str, typer.Option("--note", help="For whom it is; only you see it.")] = "",
    group: Annotated[str, typer.Option("--group", help="The group of whoever uses it.")] = "",
    config: ConfigFile = None,
    assignments: Set = None,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Make an invitation that is good once, and the join link that holds it."""
    from openpool.cli.api import Invitation, operator_api

    body = {"note": text} | ({"group": group} if group else {})

    async def ask() -> Invitation:
        async with operator_api(load(config, assignments).config, url) as api:
            return await api.post(Invitation, "/invites", body)

    made = asyncio.run(ask())
    if as_json:
        print_json(made)
    else:
        typer.echo(made.join_link)


def approve(
    worker: WorkerId,
    config: ConfigFile = None,
    assignments: Set = None,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Let a pending worker work, or take back a ban."""
    speaker = _Speaker("", worker, config, assignments, url)
    speaker.ask(lambda api, w: api.send("POST", f"/workers/{w}/approve"))
    _done(as_json, f"The worker {worker} is approved.")


def ban(
    worker: WorkerId,
    reason: Annotated[str, typer.Option("--reason", help="Why; recorded in the log.")],
    config: ConfigFile = None,
    assignments: Set = None,
    url: Url = "",
    as_json: Json = False,
) -> None:
    """Shut a worker out at once. What it has earned stays its own."""
    speaker = _Speaker("", worker, config, assignments, url)
    speaker.ask(lambda api, w: api.send("POST", f"/workers/{w}/ban", {"reason": reason}))
    _done(as_json, f"The worker {worker} is banned.")


class _Speaker:
    """Whoever gives the command: the operator, or a worker that was enrolled from this machine."""

    def __init__(
        self,
        pool: str,
        worker: str,
        config: Path | None,
        assignments: list[str] | None,
        url: str,
    ) -> None:
        from openpool.cli.api import operator_api

        self._identity = _identity_of(pool) if pool else None
        self._worker = worker or (self._identity.worker if self._identity else "")
        if not self._worker:
            raise SetupError("Say which worker, by its id (w_…), or speak for one with --pool.")
        if self._identity is not None:
            from openpool.cli.enrolling import worker_api

            self._api = worker_api(self._identity, url)
        else:
            self._api = operator_api(load(config, assignments).config, url)

    def ask(self, question: "Callable[[Api, str], Coroutine[object, object, T]]") -> T:
        """What the pool answers."""

        async def ask() -> T:
            async with self._api as api:
                return await question(api, self._worker)

        return asyncio.run(ask())

    def keep(self, secret: str) -> None:
        """Remember a new token of our own."""
        from msgspec.structs import replace

        from openpool.identity import save_identity

        if self._identity is not None and self._worker == self._identity.worker:
            save_identity(replace(self._identity, token=secret))


def _identity_of(pool: str) -> "Identity":
    from openpool.identity import load_identity

    identity = load_identity(pool)
    if identity is None:
        raise SetupError(f"This machine is not enrolled at {pool}; `openpool enroll` does that.")
    return identity


def _now_ms() -> int:
    import time

    return time.time_ns() // 1_000_000


def _state(token: "TokenView", now_ms: int) -> str:
    if token.revoked_ms:
        return f"revoked {ago(token.revoked_ms, now_ms)}"
    if not token.expires_ms:
        return "good"
    return "expired" if token.expires_ms <= now_ms else "rotated, good for a while"


def _done(as_json: bool, sentence: str) -> None:
    if as_json:
        print_json({"ok": True})
    else:
        typer.echo(sentence)
