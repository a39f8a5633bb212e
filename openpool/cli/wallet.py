"""`openpool wallet`: make a hot wallet, and see whose keystore a file is.

Works without a pool. Must not print a key or a passphrase.
"""

from pathlib import Path
from typing import Annotated

import typer

from openpool.cli.groups import Group
from openpool.cli.options import Json, examples
from openpool.cli.output import note, print_json, show_facts

wallet = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    epilog=examples("openpool wallet new hot-wallet.json", "openpool wallet show hot-wallet.json"),
)

Keystore = Annotated[Path, typer.Argument(metavar="FILE", help="The keystore file (v3).")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        "--passphrase",
        metavar="FILE",
        help="File (0600) with the passphrase; else FILE.pass.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(wallet, name="wallet", help="Make a hot wallet for payouts.")


@wallet.command("new", epilog=examples("openpool wallet new hot-wallet.json"))
def new(keystore: Keystore, passphrase_file: PassphraseFile = None, as_json: Json = False) -> None:
    """Make a new key in a new keystore, with a random passphrase if there is no file with one."""
    from openpool.private_files import ensure_secret
    from openpool.wallet import create_wallet

    secret = passphrase_file or _beside(keystore)
    made = create_wallet(keystore, ensure_secret(secret, "The passphrase file"))
    if as_json:
        facts = {"address": made.address, "keystore": str(keystore), "passphrase": str(secret)}
        print_json(facts)
        return
    show_facts([("address", made.address), ("keystore", keystore), ("passphrase", secret)])
    note(
        "Keep a copy of both files elsewhere. Set payouts.keystore and payouts.passphrase to them."
    )


@wallet.command("show", epilog=examples("openpool wallet show hot-wallet.json"))
def show(keystore: Keystore, passphrase_file: PassphraseFile = None, as_json: Json = False) -> None:
    """Open a keystore and show its address: that proves that the passphrase fits."""
    from openpool.wallet import open_wallet, passphrase_from

    found = open_wallet(keystore, passphrase_from(passphrase_file or _beside(keystore)))
    if as_json:
        print_json({"address": found.address})
    else:
        show_facts([("address", found.address)])


def _beside(keystore: Path) -> Path:
    return keystore.with_name(f"{keystore.name}.pass")
