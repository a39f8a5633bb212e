"""What a worker's machine remembers of the pools that it joined: one private file for each.

    ~/.openpool/pools/<host>_<port>.json     pool address, certificate pin, worker id, token

The pin is kept from the first visit on, so that another certificate is noticed. Must not print a
token. Used by the command line only; the worker itself takes plain arguments.
"""

import os
import re
from pathlib import Path

import msgspec
from msgspec import Struct

from openpool.core.decoding import UNREADABLE
from openpool.core.errors import SetupError
from openpool.core.joinlink import JoinLink
from openpool.private_files import read_private, write_private

HOME_VARIABLE = "OPENPOOL_HOME"


class Identity(Struct, frozen=True, kw_only=True):
    """A worker of one pool, as its machine knows it."""

    pool: str
    """`host:port` of the worker port."""
    pin: str
    worker: str
    token: str
    web: str = ""

    def __repr__(self) -> str:
        return f"Identity(pool={self.pool!r}, worker={self.worker!r}, token=****)"


def home() -> Path:
    """The folder of all private files: `$OPENPOOL_HOME`, or `~/.openpool`."""
    return Path(os.environ.get(HOME_VARIABLE) or Path.home() / ".openpool")


def identity_path(pool: str, folder: Path | None = None) -> Path:
    """The file for the pool at this `host:port`."""
    return (folder or home()) / "pools" / (re.sub(r"[^A-Za-z0-9.-]", "_", pool) + ".json")


def load_identity(pool: str, folder: Path | None = None) -> Identity | None:
    """Who this machine is at a pool, or None if it never enrolled there. Raises SetupError."""
    path = identity_path(pool, folder)
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(read_private(path, "The identity file"), type=Identity)
    except UNREADABLE:
        raise SetupError(
            f"The identity file {path} cannot be read; remove it and enrol again."
        ) from None


def save_identity(identity: Identity, folder: Path | None = None) -> Path:
    """Keep an identity, replacing an older one of the same pool. Raises SetupError."""
    path = identity_path(identity.pool, folder)
    write_private(path, msgspec.json.format(msgspec.json.encode(identity)) + b"\n")
    return path


def check_pin(link: JoinLink, known: Identity | None) -> str:
    """The certificate pin to insist on, from the link or from the first visit.

    Raises SetupError if both are there and differ.
    """
    if known is None or not known.pin or not link.pin or known.pin == link.pin:
        return link.pin or (known.pin if known else "")
    raise SetupError(
        f"The join link has another certificate than {link.address} had when this machine "
        f"enrolled; if the operator really changed it, remove {identity_path(link.address)}."
    )
