"""Certificates: made once, kept private, pinned by their fingerprint."""

import ssl
import stat
from pathlib import Path

import pytest

from openpool.core.errors import SetupError, Unauthorized
from openpool.link.server import WorkerPort
from openpool.link.tls import Trust, fingerprint, load_or_create_identity, server_context
from tests.wire.kit import Desk


def test_a_certificate_is_made_once(tmp_path: Path) -> None:
    """The second start finds the first one's certificate, so that join links stay good."""
    folder = tmp_path / "data"
    first = load_or_create_identity(folder, ["pool.example", "203.0.113.7"])
    assert load_or_create_identity(folder) == first
    assert len(first.fingerprint) == 64
    other = load_or_create_identity(tmp_path / "other")
    assert other.fingerprint != first.fingerprint


def test_the_key_is_ours_alone(tmp_path: Path) -> None:
    """Nobody else on the machine may read the key."""
    identity = load_or_create_identity(tmp_path)
    assert stat.S_IMODE(identity.key_path.stat().st_mode) == 0o600


def test_broken_files_are_named(tmp_path: Path) -> None:
    """A certificate that is none, and a key that belongs to another, are named."""
    identity = load_or_create_identity(tmp_path / "a")
    other = load_or_create_identity(tmp_path / "b")
    identity.key_path.write_bytes(other.key_path.read_bytes())
    with pytest.raises(SetupError, match=r"pool-cert\.pem"):
        server_context(identity)
    identity.cert_path.write_text("nonsense")
    with pytest.raises(SetupError, match=r"pool-cert\.pem"):
        load_or_create_identity(tmp_path / "a")


def test_an_exact_pin_accepts_one_certificate(tmp_path: Path) -> None:
    """However the fingerprint is spelt, it means one certificate; any other is refused."""
    identity = load_or_create_identity(tmp_path)
    der = ssl.PEM_cert_to_DER_cert(identity.cert_path.read_text())
    spelt = ":".join(identity.fingerprint[i : i + 2].upper() for i in range(0, 64, 2))
    trust = Trust.exact(spelt)
    assert trust.current == identity.fingerprint
    assert trust.check(der) == identity.fingerprint
    with pytest.raises(Unauthorized, match="not the pinned"):
        trust.check(b"another")
    assert trust.current == identity.fingerprint


def test_first_use_follows_the_certificate() -> None:
    """Any certificate is taken, and the latest one is what later connections must show."""
    trust = Trust.first_use()
    assert trust.current == ""
    for der in (b"before the restart", b"after the restart"):
        assert trust.check(der) == trust.current == fingerprint(der)


async def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """Two ports cannot share a number; the second one says which and what to do."""
    tls = server_context(load_or_create_identity(tmp_path))
    first = WorkerPort(Desk(), tls, host="127.0.0.1")
    async with first.running():
        second = WorkerPort(Desk(), tls, host="127.0.0.1", port=first.port)
        with pytest.raises(
            SetupError, match=f"cannot listen on 127.0.0.1:{first.port}; that port is in use"
        ):
            await second.start()
