"""`openpool worker`: joins a pool and transcodes, or measures how much this machine can take."""

from typing import TYPE_CHECKING, Annotated

import typer

from openpool.cli.membership import Name, NewWallet, PassphraseFile, WalletFile, Yes
from openpool.cli.options import examples
from openpool.core.errors import SetupError

if TYPE_CHECKING:
    pass

TOKEN_VARIABLE = "OPENPOOL_TOKEN"  # noqa: S105 - the name of a variable

Link = Annotated[
    str, typer.Argument(metavar="[JOIN_LINK]", help="openpool://… from the pool's page.")
]
TokenFile = Annotated[
    str,
    typer.Option(
        "--token",
        metavar="TOKEN|file:PATH",
        help="A token from enrolling elsewhere; also $OPENPOOL_TOKEN.",
        envvar=TOKEN_VARIABLE,
        show_envvar=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command(
        epilog=examples(
            "openpool worker --bench",
            "openpool worker 'openpool://…' --wallet key.json --sessions 4",
            "openpool worker 'openpool://…' --token file:/run/secrets/token",
        )
    )(worker)


def worker(
    link: Link = "",
    token: TokenFile = "",
    wallet: WalletFile = None,
    new_wallet: NewWallet = False,
    passphrase_file: PassphraseFile = None,
    name: Name = "worker",
    accept_terms: Yes = False,
) -> None:
    """Join a pool and transcode until SIGTERM, which lets running segments end first.

    Enrols first if this machine has no token for the pool.
    """
    from openpool.core.joinlink import parse_join_link

    if not link:
        raise SetupError("Say which pool to join, by its join link, or measure with --bench.")
    parse_join_link(link)
