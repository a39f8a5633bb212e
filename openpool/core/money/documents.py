"""Documents that the pool signs for everybody: statements and terms.

A file is one line of JSON: the document, who signed it, and the signature (EIP-191) of a text that
names the kind of document and its SHA-256. Only one form of the bytes is accepted, so that a
changed byte is a changed document. Must not sign or recover signatures: a key is given to shells.
"""

import re
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct

from openpool.core.decoding import UNREADABLE
from openpool.core.enrolment import checked_address
from openpool.core.errors import BadMessage

SIGNATURE = re.compile(r"0x[0-9a-f]{130}")
DEPTH_MAX = 16


class Signed(Struct, frozen=True, kw_only=True):
    """A document as it is published."""

    document: msgspec.Raw
    """The exact bytes that were signed for."""
    signer: str
    """Address of the pool's signing key, with its checksum."""
    signature: str

    @property
    def digest(self) -> str:
        """SHA-256 of the document, hex."""
        return digest_of(bytes(self.document))


def digest_of(document: bytes) -> str:
    return sha256(document).hexdigest()


def signed_text(kind: str, digest: str) -> str:
    """What is signed: the kind keeps a signature from being used for something else."""
    return f"openpool {kind} sha256 {digest}"


def signed_bytes(document: bytes, signer: str, signature: str) -> bytes:
    """The file."""
    return msgspec.json.encode(
        Signed(document=msgspec.Raw(document), signer=signer, signature=signature)
    )


def opened(data: bytes, *, bytes_max: int) -> Signed:
    """The parts of a signed file; its signature is not checked yet. Raises BadMessage."""
    data = data[:-1] if data.endswith(b"\n") else data
    if len(data) > bytes_max:
        raise BadMessage(f"The file is larger than {bytes_max} bytes, so it is no such document.")
    check_canonical(data, "The file")
    try:
        signed = msgspec.json.decode(data, type=Signed)
    except msgspec.ValidationError as error:
        raise BadMessage(f"The file is no signed document of a pool: {error}.") from None
    if signed_bytes(bytes(signed.document), signed.signer, signed.signature) != data:
        raise BadMessage("The file has more in it than a document, its signer and signature.")
    if not SIGNATURE.fullmatch(signed.signature):
        raise BadMessage("The signature is not 0x and 130 lower-case hexadecimal digits.")
    if checked_address(signed.signer) != signed.signer:
        raise BadMessage("The signer's address is not written with its checksum.")
    return signed


def check_canonical(data: bytes, what: str) -> None:
    """Raises BadMessage unless this is JSON in the one form that is accepted: no white space,
    no key twice, characters and numbers in their shortest form."""
    try:
        value = msgspec.json.decode(data)
        same = msgspec.json.encode(value) == data and _depth(value) <= DEPTH_MAX
    except (*UNREADABLE, ValueError):
        raise BadMessage(f"{what} is not JSON, so it was changed or cut off.") from None
    if not same:
        raise BadMessage(
            f"{what} is not in the form that the pool signed (one line without white space), so it "
            "was changed; take it as it was published."
        )


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0
