"""A token as it is stored: a worker's or a customer's, made alike and over alike.

Must not know what a token opens; that is said by `pool.enrolment` and `pool.customers`.
"""

from openpool.core.enrolment import token_hash
from openpool.core.texts import one_line
from openpool.store.interface import TokenRow

LABEL_CHARS_MAX = 100


def token_row(
    token: str, secret: str, *, owner: str, hash_key: bytes, now_ms: int, label: str
) -> TokenRow:
    """A new token of an owner, whose secret is stored as a keyed hash only."""
    return TokenRow(
        token=token,
        worker=owner,
        secret_hash=token_hash(secret, hash_key),
        created_ms=now_ms,
        last_used_ms=0,
        expires_ms=0,
        revoked_ms=0,
        label=one_line(label, LABEL_CHARS_MAX),
    )


def is_over(row: TokenRow, now_ms: int) -> bool:
    """Whether a token opens nothing any more: revoked, or past its grace period."""
    return bool(row.revoked_ms or (row.expires_ms and row.expires_ms <= now_ms))


def replaced_ms(row: TokenRow, now_ms: int, grace_ms: int) -> int:
    """When a token that is replaced now is over: after its grace period, or earlier if it was
    replaced before."""
    ends_ms = now_ms + grace_ms
    return min(row.expires_ms or ends_ms, ends_ms)
