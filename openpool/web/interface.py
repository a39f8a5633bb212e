"""What the web needs from the rest of the pool, and nothing more.

The composition root hands in one `Deps`; no other folder of ours is imported by the web except
the core's vocabulary and the store's interface. Amounts are `int` wei, times wall-clock ms.
Every call may raise the errors of `core.errors`; their texts are shown to the visitor.
Read `web.app` next.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from openpool.core.enrolment import AuthenticatedWorker, Enrolled, SignedIn, Terms
from openpool.core.explain import Reason
from openpool.core.views import PoolView
from openpool.store.interface import Reader, StoredEvent, TokenRow


class LivePool(Protocol):
    """Synchronous and fast; called in the event loop."""

    def snapshot(self, now_ms: int) -> PoolView: ...
    def explain(self, worker: str, now_ms: int) -> Sequence[Reason]: ...


class Enrolment(Protocol):
    """Who belongs to the pool."""

    def terms(self) -> Terms: ...
    async def nonce(self, address: str) -> str:
        """The message (EIP-4361) that the wallet is to sign; good once, for some minutes."""

    async def enroll(
        self, *, message: str, signature: str, name: str, terms: str, invite: str
    ) -> Enrolled: ...
    async def sign_in(self, message: str, signature: str) -> SignedIn: ...
    async def authenticate(self, secret: str) -> AuthenticatedWorker:
        """The worker that a secret belongs to; raises Unauthorized."""

    async def tokens(self, worker: str) -> Sequence[TokenRow]: ...
    async def rotate_token(self, worker: str, label: str) -> Enrolled:
        """A new secret; the old ones stay good for a day or so, so that nothing stops."""

    async def revoke_token(self, worker: str, token: str) -> None: ...
    async def approve(self, worker: str) -> None: ...
    async def ban(self, worker: str, reason: str) -> None: ...
    async def invite(self, note: str, group: str) -> str:
        """The code of a new invitation into a group of workers, good once."""


DEFAULT_GROUP = "default"

Subscribe = Callable[[], AsyncIterator[Sequence[StoredEvent]]]
"""Committed events in log order from now on; ends when the store closes."""


class JoinLink(Protocol):
    """The link with which `openpool worker` joins: address, certificate pin, maybe an invite."""

    def __call__(self, invite: str = "") -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Deps:
    """Everything the web is made from."""

    reader: Reader
    subscribe: Subscribe
    live: LivePool
    enrolment: Enrolment
    operator_token_check: Callable[[str], bool]
    join_link: JoinLink
    clock_ms: Callable[[], int]
    pool_name: str
    version: str
    commission_ppm: int
    worker_port: str = ""
    """`host:port` that stock workers dial; shown in the join instructions."""
    metrics_public: bool = False
    """Whether `/metrics` may be scraped without the operator's token."""
    tries_per_minute: int = 12
    """Sign-ins, nonces and enrolments that one client may try."""
