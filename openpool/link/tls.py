"""Certificates: the pool's own self-signed one, and how the other side's is trusted.

Neither stock workers nor orchestrators have certificates that an authority signed, so both sides
go by fingerprint: the SHA-256 of the whole certificate, in hex. No secret is ever sent before the
peer's certificate was checked.
"""

import hashlib
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from openpool.core.errors import SetupError, Unauthorized

LINE_ALPN = "openpool-line"
"""By this protocol name a worker says that it wants to be called; see `link.line`."""

_VALID = timedelta(days=20 * 365)


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its key, as PEM files."""

    cert_path: Path
    key_path: Path
    fingerprint: str
    """What workers pin: it is part of every join link."""


def load_or_create_identity(folder: Path, names: Sequence[str] = ("localhost",)) -> Identity:
    """The pool's persistent certificate in `folder`, made on first use (key readable by us only).

    `names` are the host names and addresses to put in. SetupError if the files are unusable.
    """
    cert_path, key_path = folder / "pool-cert.pem", folder / "pool-key.pem"
    try:
        if not (cert_path.exists() and key_path.exists()):
            folder.mkdir(parents=True, exist_ok=True)
            _create(cert_path, key_path, names)
        der = ssl.PEM_cert_to_DER_cert(cert_path.read_text())
    except (OSError, ValueError) as error:
        raise SetupError(f"cannot use the certificate {cert_path}: {error}") from None
    return Identity(cert_path=cert_path, key_path=key_path, fingerprint=fingerprint(der))


def fingerprint(der: bytes) -> str:
    """SHA-256 of a certificate in DER form, 64 hex digits."""
    return hashlib.sha256(der).hexdigest()


def server_context(identity: Identity) -> ssl.SSLContext:
    """TLS for a worker port: a line or HTTP/2 for who asks for it, HTTP/1.1 for all others.

    SetupError if certificate and key do not fit together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Compression and renegotiation only ever cost memory and security.
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([LINE_ALPN, "h2", "http/1.1"])
    try:
        context.load_cert_chain(identity.cert_path, identity.key_path)
    except (OSError, ssl.SSLError) as error:
        raise SetupError(f"cannot use the certificate {identity.cert_path}: {error}") from None
    return context


@lru_cache
def client_context(*, verify: bool, alpn: tuple[str, ...] = ("h2",)) -> ssl.SSLContext:
    """TLS for dialling out. Without `verify` the caller must put the peer to `Trust.check`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(alpn))
    if verify:
        context.load_default_certs()
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Trust:
    """Which certificate the other side must show, and the one that it showed last.

    - `Trust.exact(fingerprint)`  this one and no other (a worker towards its pool)
    - `Trust.first_use()`         any; it is remembered, and the caller sees when it changes, since
                                  an orchestrator makes a new one at each start
    - `Trust.authorities()`       one that a certificate authority vouches for
    """

    def __init__(self, *, pinned: str = "", verify: bool = False) -> None:
        self._pinned = pinned.lower().replace(":", "")
        self.verify = verify
        """Whether TLS itself must verify the certificate."""
        self.current = self._pinned
        """The fingerprint to expect now; empty before the first connection."""

    @classmethod
    def exact(cls, fingerprint: str) -> "Trust":
        return cls(pinned=fingerprint)

    @classmethod
    def first_use(cls) -> "Trust":
        return cls()

    @classmethod
    def authorities(cls) -> "Trust":
        return cls(verify=True)

    def check(self, der: bytes) -> str:
        """The fingerprint of a trusted certificate; Unauthorized if it is not the pinned one."""
        shown = fingerprint(der)
        if self._pinned and shown != self._pinned:
            raise Unauthorized(
                f"the server shows the certificate {shown[:16]}…, not the pinned "
                f"{self._pinned[:16]}…; nothing was sent. Ask for a new join link if it was renewed"
            )
        self.current = shown
        return shown


def _create(cert_path: Path, key_path: Path, names: Sequence[str]) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Open Pool")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectAlternativeName([_name(n) for n in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _write_private(key_path, pem)
    cert_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write_private(path: Path, data: bytes) -> None:
    """Never readable by others, not even between creation and chmod."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(data)
