"""The worker's side of enrolling: prove an address to a pool's API and keep the token.

Used by `openpool enroll`, and by `openpool worker` when this machine has no token for a pool yet.
"""

import asyncio
import hashlib
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import typer
from msgspec import Struct

from openpool.cli.api import Api
from openpool.cli.output import note, percent
from openpool.core.enrolment import Enrolled, Terms
from openpool.core.errors import SetupError
from openpool.core.joinlink import JoinLink
from openpool.identity import Identity, check_pin, home, load_identity, save_identity
from openpool.wallet import Wallet, create_wallet, open_wallet, passphrase_from

T = TypeVar("T")


class Challenge(Struct, frozen=True, kw_only=True):
    """What the pool asks to be signed."""

    message: str


def enrol(
    link: JoinLink,
    *,
    wallet: Path | None,
    new_wallet: bool,
    passphrase_file: Path | None,
    name: str,
    accept_terms: bool,
) -> Enrolled:
    """Enrol a worker and keep its token in the private folder. Raises OpenPoolError."""
    pin = check_pin(link, load_identity(link.address))
    web = _web_address(link)
    if wallet is None:
        raise SetupError(
            "Say which wallet is to be paid: --wallet FILE, and --new-wallet to make a new one "
            f"(for example --wallet {home() / 'wallet.json'} --new-wallet)."
        )
    terms = asyncio.run(_terms(Api(web, tls=tls_of(web, pin))))
    _accept(terms, accept_terms)
    signer = _wallet(wallet, new_wallet, passphrase_file)  # a new one is not left behind by a no
    enrolled = asyncio.run(_enrol(Api(web, tls=tls_of(web, pin)), link, signer, name, terms))
    save_identity(
        Identity(pool=link.address, pin=pin, worker=enrolled.worker, token=enrolled.secret, web=web)
    )
    return enrolled


def worker_api(identity: Identity, url: str = "") -> Api:
    """The API of a pool, as one of its workers."""
    web = url or identity.web
    if not web:
        raise SetupError(f"The web address of {identity.pool} is not known; say it with --url.")
    return Api(web, identity.token, tls=tls_of(web, identity.pin))


async def _terms(connection: Api) -> Terms:
    async with connection as api:
        return await api.get(Terms, "/terms")


async def _enrol(
    connection: Api, link: JoinLink, signer: Wallet, name: str, terms: Terms
) -> Enrolled:
    async with connection as api:
        challenge = await api.post(Challenge, "/enroll/nonce", {"address": signer.address})
        _check_challenge(challenge.message, signer.address, terms.digest)
        body = {
            "message": challenge.message,
            "signature": signer.sign(challenge.message),
            "name": name,
            "terms": terms.digest,
        }
        if link.invite:
            body["invite"] = link.invite
        return await api.post(Enrolled, "/enroll", body)


def _check_challenge(message: str, address: str, digest: str) -> None:
    """Sign nothing but a sign-in for this address and these terms, whoever asks."""
    from openpool.core.enrolment import parse_message

    parsed = parse_message(message)
    if parsed.address != address or parsed.terms != digest:
        raise SetupError(
            "The pool asks to sign something else than it said, so nothing was signed; "
            "ask its operator."
        )


def _accept(terms: Terms, accepted: bool) -> None:
    note(terms.text.strip())
    note(f"The pool keeps {percent(terms.commission_ppm)} of every fee.")
    if accepted:
        return
    if not sys.stdin.isatty():
        raise SetupError("Read the terms above; then run this again with --accept-terms.")
    if not typer.confirm("Accept these terms?", err=True):
        raise SetupError("The terms were not accepted, so the worker is not enrolled.")


def _web_address(link: JoinLink) -> str:
    if not link.web:
        raise SetupError(
            "The join link has no `web=` address, where enrolling is done; ask the operator for "
            "the whole link, or start the worker with --token."
        )
    parts = urlsplit(link.web)
    if parts.scheme == "http" and parts.hostname not in {"localhost", "127.0.0.1", "::1"}:
        note(
            f"Warning: {link.web} is not encrypted, so whoever listens on the way can take the "
            "token. Better ask the operator for an https:// address."
        )
    return link.web


def tls_of(web: str, pin: str, timeout_s: float = 10.0) -> ssl.SSLContext | None:
    """Trust the pool's own certificate, known by its pin, or what an authority vouches for."""
    parts = urlsplit(web)
    if parts.scheme != "https":
        return None
    context = ssl.create_default_context()
    shown = _shown_certificate(parts.hostname or "", parts.port or 443, timeout_s)
    if shown and hashlib.sha256(ssl.PEM_cert_to_DER_cert(shown)).hexdigest() == pin:
        context.check_hostname = False
        context.load_verify_locations(cadata=shown)
    return context


def _shown_certificate(host: str, port: int, timeout_s: float) -> str:
    """The certificate that a server shows, not yet trusted; empty if it cannot be reached."""
    try:
        return ssl.get_server_certificate((host, port), timeout=timeout_s)
    except (OSError, ValueError):
        return ""  # the request itself will say what is wrong


def _wallet(path: Path, new: bool, passphrase_file: Path | None) -> Wallet:
    passphrase = _passphrase(passphrase_file, confirm=new)
    if not new:
        return open_wallet(path, passphrase)
    wallet = create_wallet(path, passphrase())
    note(f"A new wallet {wallet.address} is in {path}; keep it and its passphrase safe.")
    return wallet


def _passphrase(path: Path | None, *, confirm: bool) -> Callable[[], str]:
    if path is not None:
        return passphrase_from(path)

    def ask() -> str:
        if not sys.stdin.isatty():
            raise SetupError("The wallet needs a passphrase; say where it is: --passphrase-file.")
        text: str = typer.prompt(
            "Passphrase of the wallet", hide_input=True, confirmation_prompt=confirm, err=True
        )
        return text

    return ask
