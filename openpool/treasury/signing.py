"""Signing documents with the pool's own key, which signs nothing else and holds no money.

Must not make or read keys: whoever composes the pool hands one in.
"""

from typing import Protocol

from openpool.core.money.documents import Signed, digest_of, signed_bytes, signed_text


class Signs(Protocol):
    """Who has the pool's signing key (`wallet.Wallet` is one). Equal texts have equal
    signatures, so that a document made again is the same to the byte."""

    @property
    def address(self) -> str: ...
    def sign(self, message: str) -> str:
        """The signature of a text (EIP-191), `0x…`, 65 bytes."""


def signed(signer: Signs, kind: str, document: bytes) -> bytes:
    """The file of a document."""
    signature = signer.sign(signed_text(kind, digest_of(document)))
    return signed_bytes(document, signer.address, signature)


__all__ = ["Signed", "Signs", "signed"]
