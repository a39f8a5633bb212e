"""What the web needs of statements, terms, disputes and corrections. Part of `web.interface`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from openpool.core.money.corrections import Mending
from openpool.core.money.disputes import Dispute
from openpool.core.money.terms import Published


class StatementRow(Protocol):
    """A statement that was made."""

    @property
    def round(self) -> int: ...
    @property
    def made_ms(self) -> int: ...
    @property
    def receipts(self) -> int: ...
    @property
    def root(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def signer(self) -> str: ...


class Statements(Protocol):
    """Statements and receipts. What returns bytes reads files: called in a thread. Iterators read
    while they go on, and may raise Unavailable."""

    @property
    def rows(self) -> Sequence[StatementRow]: ...
    def file(self, round: int) -> bytes | None: ...
    def all_receipts(self, round: int) -> Iterator[bytes] | None: ...
    def receipts_of(self, round: int, address: str) -> Iterator[bytes] | None: ...
    def receipt_of(self, job: str, address: str) -> bytes | None: ...
    def signed_receipt(self, job: str, address: str) -> bytes | None:
        """The receipt by itself, signed; also of a job that is in no statement yet."""


class TermsBook(Protocol):
    """All versions of the terms."""

    @property
    def versions(self) -> Sequence[Published]: ...
    def in_force(self) -> Published: ...
    def pending(self) -> Published | None: ...
    def file(self, version: int = 0) -> bytes | None: ...


class Disputes(Protocol):
    """Disputes, opened by owners and ended by the operator."""

    async def all(self, address: str = "") -> list[Dispute]: ...
    async def get(self, dispute: str) -> Dispute | None: ...
    async def pack(self, dispute: str) -> bytes | None: ...
    async def open(self, address: str, subject: str, claim: str) -> Dispute: ...
    async def end(
        self, dispute: str, *, upheld: bool, reason: str, correction: Mending | None = None
    ) -> Dispute: ...


class Corrections(Protocol):
    """The operator's corrections."""

    async def make(
        self,
        *,
        corrects: str,
        debit: str,
        credit: str,
        amount_wei: str,
        reason: str,
        correction: str = "",
        dispute: str = "",
    ) -> tuple[str, bool]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Proofs:
    """All that owners and operators check and mend with."""

    statements: Statements
    terms: TermsBook
    disputes: Disputes
    corrections: Corrections
    signer: str
    """Address of the pool's signing key."""
    chain_id: int
