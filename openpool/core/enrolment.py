"""The rules of joining: who a worker is, what its owner signs, what a token looks like.

An owner proves an Ethereum address by signing an EIP-4361 message that the pool wrote; the pool
reads it back strictly and checks every field. Pure: signatures, randomness, clock and storage are
in `pool.enrolment`. What may go wrong has one sentence each, safe to show to the other side.

    pending ──approve──► approved ──ban──► banned        (a public pool approves at once)
       └───────────────────ban───────────────┘
"""

import re
from datetime import UTC, datetime, timedelta
from hashlib import blake2b, sha256
from typing import Literal

from msgspec import Struct

from openpool.core.errors import BadMessage, NotAllowed, Unauthorized
from openpool.core.texts import base32

State = Literal["pending", "approved", "banned"]

MESSAGE_CHARS_MAX = 2_000
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,30}[A-Za-z0-9])?")
CLOCK_SKEW_MS = 60_000
TERMS_URN = "urn:openpool:terms:sha256:"


class Terms(Struct, frozen=True, kw_only=True):
    """What an owner accepts when enrolling a worker."""

    text: str
    digest: str
    """Hex SHA-256 of the text."""
    commission_ppm: int
    public: bool
    """Whether everybody may enrol; otherwise the operator invites or approves."""


class Enrolled(Struct, frozen=True, kw_only=True):
    """The answer to an enrolment or a rotation. The secret is shown this once."""

    worker: str
    secret: str
    state: State


class SignedIn(Struct, frozen=True, kw_only=True):
    """An address whose owner signed in, and the workers that are paid to it."""

    address: str
    workers: tuple[str, ...]


class AuthenticatedWorker(Struct, frozen=True, kw_only=True):
    """Whose secret it is."""

    worker: str
    address: str
    group: str
    state: State
    token: str
    commission_ppm: int


# --- identities --------------------------------------------------------------------------------


def checked_address(text: str) -> str:
    """The address with its checksum. All lower case is taken as it is; raises BadMessage."""
    if not re.fullmatch(r"0x[0-9a-fA-F]{40}", text):
        raise BadMessage("An Ethereum address is 0x and 40 hexadecimal digits; check for typos.")
    # imported late: it takes a quarter of a second, and most who need the types need no address
    from eth_utils.address import is_checksum_address, to_checksum_address

    if text[2:].islower() or text[2:].isdigit():
        return str(to_checksum_address(text))
    if not is_checksum_address(text):
        raise BadMessage(f"The checksum of the address {text} does not match; check for typos.")
    return text


def checked_name(text: str) -> str:
    """The name of a worker. Raises BadMessage."""
    if not NAME.fullmatch(text):
        raise BadMessage(
            "A worker's name is up to 32 letters, digits, spaces, dots, dashes or underscores, "
            "beginning and ending with a letter or digit."
        )
    return text


def worker_id(address: str, name: str) -> str:
    """The id of the worker of that name of that address; the same whenever it enrols."""
    digest = sha256(f"openpool worker\n{address.lower()}\n{name}".encode()).digest()
    return "w_" + base32(digest)[:12]


def terms_digest(text: str) -> str:
    """What an owner accepts, as hex SHA-256."""
    return sha256(text.encode()).hexdigest()


# --- tokens ------------------------------------------------------------------------------------

TOKEN = re.compile(r"op_([a-z2-7]{12})_[a-z2-7]{52}")


def token_text(public: bytes, secret: bytes) -> str:
    """A token's secret text `op_<id>_<256 bit>` from 8 and 32 random bytes."""
    return f"op_{base32(public)[:12]}_{base32(secret)}"


def token_id(text: str) -> str:
    """The public id within a token's secret text. Raises Unauthorized if it is no token."""
    match = TOKEN.fullmatch(text)
    if not match:
        raise Unauthorized(
            "This is not a token of this pool: a worker gets its token (op_…) by enrolling, the "
            "operator's is in the file that the pool names when it starts."
        )
    return match[1]


def token_hash(text: str, key: bytes) -> bytes:
    """What is stored of a token: a keyed hash, useless without the pool's key."""
    return blake2b(text.encode(), key=key, digest_size=32, person=b"openpool token").digest()


# --- the message that a wallet signs -----------------------------------------------------------


class Message(Struct, frozen=True, kw_only=True):
    """An EIP-4361 message, as far as this pool writes them: no optional field but these."""

    domain: str
    address: str
    statement: str
    uri: str
    chain_id: int
    nonce: str
    issued_ms: int
    expires_ms: int
    terms: str
    """Digest of the terms of the pool."""


LINES: tuple[tuple[str, str], ...] = (
    ("domain", r"(\S{1,255}) wants you to sign in with your Ethereum account:"),
    ("address", r"(0x[0-9a-fA-F]{40})"),
    ("", r"()"),
    ("statement", r"([^\n\r]{1,300})"),
    ("", r"()"),
    ("uri", r"URI: (\S{1,300})"),
    ("", r"Version: (1)"),
    ("chain_id", r"Chain ID: ([1-9][0-9]{0,15})"),
    ("nonce", r"Nonce: ([A-Za-z0-9]{8,96})"),
    ("issued_ms", r"Issued At: (\S{24})"),
    ("expires_ms", r"Expiration Time: (\S{24})"),
    ("", r"(Resources:)"),
    ("terms", r"- " + TERMS_URN + r"([0-9a-f]{64})"),
)
"""The message line by line: which field it holds, and its form."""


def build_message(message: Message) -> str:
    """The text that the wallet shows and signs."""
    return "\n".join(
        (
            f"{message.domain} wants you to sign in with your Ethereum account:",
            message.address,
            "",
            message.statement,
            "",
            f"URI: {message.uri}",
            "Version: 1",
            f"Chain ID: {message.chain_id}",
            f"Nonce: {message.nonce}",
            f"Issued At: {_time_text(message.issued_ms)}",
            f"Expiration Time: {_time_text(message.expires_ms)}",
            "Resources:",
            f"- {TERMS_URN}{message.terms}",
        )
    )


def parse_message(text: str) -> Message:
    """The inverse of `build_message`; nothing else is understood. Raises BadMessage."""
    lines = text[: MESSAGE_CHARS_MAX + 1].split("\n")
    if len(text) > MESSAGE_CHARS_MAX or len(lines) != len(LINES):
        raise BadMessage(
            "This is not the message to sign; sign the text exactly as the pool gave it."
        )
    found: dict[str, str] = {}
    for number, ((name, pattern), line) in enumerate(zip(LINES, lines, strict=True), 1):
        match = re.fullmatch(pattern, line)
        if not match:
            raise BadMessage(
                f"Line {number} of the signed message is not as the pool wrote it; "
                "sign the text exactly as the pool gave it."
            )
        if name:
            found[name] = match[1]
    return Message(
        domain=found["domain"],
        address=checked_address(found["address"]),
        statement=found["statement"],
        uri=found["uri"],
        chain_id=int(found["chain_id"]),
        nonce=found["nonce"],
        issued_ms=_time_ms(found["issued_ms"]),
        expires_ms=_time_ms(found["expires_ms"]),
        terms=found["terms"],
    )


def check_message(message: Message, expected: Message, now_ms: int) -> None:
    """Check what was signed against what this pool asks to be signed now.

    Raises Unauthorized, or NotAllowed where only the terms have changed.
    """
    again = "ask the pool for a new message to sign."
    if (message.domain, message.uri) != (expected.domain, expected.uri):
        raise Unauthorized(
            f"The message is for {message.domain} ({message.uri}), but this pool is "
            f"{expected.domain} ({expected.uri}); {again}"
        )
    if message.chain_id != expected.chain_id:
        raise Unauthorized(
            f"The message is for chain {message.chain_id}, but this pool uses chain "
            f"{expected.chain_id}; {again}"
        )
    if message.expires_ms <= now_ms:
        raise Unauthorized(f"The message expired at {_time_text(message.expires_ms)}; {again}")
    if message.issued_ms > now_ms + CLOCK_SKEW_MS:
        raise Unauthorized(f"The message was issued in the future; {again}")
    if message.terms != expected.terms:
        raise NotAllowed(f"The pool's terms have changed since the message was written; {again}")
    if message.statement != expected.statement:
        raise Unauthorized(f"The statement in the message is not this pool's; {again}")


def _time_text(time_ms: int) -> str:
    seconds, ms = divmod(time_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ms:03d}Z"


def _time_ms(text: str) -> int:
    try:
        time = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    except ValueError:
        raise BadMessage(
            "A time in the signed message is not as the pool wrote it; "
            "sign the text exactly as the pool gave it."
        ) from None
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
