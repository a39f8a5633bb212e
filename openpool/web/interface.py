"""What the web needs from the rest of the pool, and nothing more.

The composition root hands in one `Deps`; no other folder of ours is imported by the web except
the core's vocabulary and the store's interface. Amounts are `int` wei, times wall-clock ms.
Every call may raise the errors of `core.errors`; their texts are shown to the visitor.
Read `web.app` next.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from openpool.core.call_requests import CallRequest
from openpool.core.calls import App, CallSource, Offer
from openpool.core.customers import Customer, NewKey
from openpool.core.desk_views import DeskView, RunnerView
from openpool.core.enrolment import AuthenticatedWorker, Enrolled, SignedIn, Terms
from openpool.core.explain import Reason
from openpool.core.money.events import Asset
from openpool.core.money.payout_views import Chosen, NextPayout, OrderView, OwnerView, PayoutsView
from openpool.core.money.revenue_views import RevenueView, RoundView
from openpool.core.prices import Quote
from openpool.core.transcodes import Made
from openpool.core.views import PoolView
from openpool.store.interface import Reader, StoredEvent, TokenRow
from openpool.web.delegation import Delegation
from openpool.web.statement_interface import Proofs


class LivePool(Protocol):
    """Synchronous and fast; called in the event loop."""

    def snapshot(self, now_ms: int) -> PoolView: ...
    def explain(self, worker: str, now_ms: int) -> Sequence[Reason]: ...


class LiveDesk(Protocol):
    """The same for calls."""

    def snapshot(self, now_ms: int) -> DeskView: ...
    def explain(self, worker: str, now_ms: int) -> Sequence[Reason]: ...


class LiveVideo(Protocol):
    """Sessions of live video."""

    def watch(
        self, app: App, customer: str, query: str, messages: AsyncIterator[bytes | str]
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes | str]]:
        """What the worker answers: for live video, lines of JSON about what is seen in the
        pictures or segments that `messages` are.

        `query` goes to the worker's runtime. Raises CallFailed on entering or from the answers, or
        what is wrong with a message; leaving ends the session.
        """


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


class Customers(Protocol):
    """Who may use the pool's own API."""

    def admit(self, secret: str) -> str:
        """The customer whose request this is; raises Unauthorized or LimitReached."""

    def owner(self, secret: str) -> str:
        """The customer whose key this is; raises Unauthorized."""

    def all(self) -> Sequence[Customer]: ...
    def get(self, customer: str) -> Customer: ...
    def keys(self, customer: str) -> Sequence[TokenRow]: ...
    async def add(self, name: str, *, requests_per_minute: int, spend_limit: str) -> NewKey: ...
    async def rotate(self, customer: str, label: str) -> NewKey:
        """A new key; the old ones stay good for a day or so."""

    async def revoke(self, customer: str, key: str) -> int:
        """End one key, or with "" all; how many ended."""

    async def set_limits(
        self, customer: str, *, requests_per_minute: int | None, spend_limit: str
    ) -> Customer: ...
    async def paid(self, customer: str, amount: str, reference: str, by: str) -> Customer:
        """Put a payment into the books, each reference once. Raises BadMessage, NotAllowed."""


class Revenue(Protocol):
    """What orchestrators bring in."""

    async def view(self) -> RevenueView: ...
    async def rounds(self, orchestrator: str, before: int | None, limit: int) -> list[RoundView]:
        """Rounds of an orchestrator, the newest first, from the one behind `before` on. Raises
        BadMessage."""

    async def record(self, orchestrator: str, amount: str, reference: str) -> bool:
        """Book what came in where there is no chain; whether the reference is new. Raises
        BadMessage, NotAllowed."""


class Payouts(Protocol):
    """Who is paid, when, and why not yet."""

    async def view(self) -> PayoutsView: ...
    async def orders(
        self, state: str, address: str, limit: int, before: str = ""
    ) -> tuple[OrderView, ...]: ...
    async def next(self, after: str, limit: int) -> tuple[NextPayout, ...]:
        """Those that are paid next, from the one behind `after` (`asset/address`) on."""

    async def order(self, order: str) -> OrderView | None: ...
    async def owner(self, address: str) -> OwnerView: ...
    async def plan_now(self) -> tuple[NextPayout, ...]:
        """What a run would pay now; nothing is signed or sent."""

    async def run_soon(self) -> None: ...
    async def pause(self, reason: str) -> None: ...
    async def resume(self) -> None: ...
    async def unblock(self, address: str) -> None: ...
    async def choose(
        self, address: str, asset: Asset, threshold_wei: int, staked: bool | None
    ) -> Chosen:
        """How an owner wants to be paid; 0 is the pool's threshold, and with `staked` None that
        stays as it is. Raises BadMessage."""


class CallAnswer(Protocol):
    """The answer of a worker."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> AsyncIterator[bytes]: ...
    @property
    def length(self) -> int | None: ...


class Exchange(Protocol):
    """Has calls served by workers."""

    def call(
        self, request: CallRequest, body: AsyncIterator[bytes] | bytes
    ) -> AbstractAsyncContextManager[CallAnswer]:
        """Raises CallFailed on entering or from the answer's body, or what is wrong with the
        request's; leaving ends the call. A wait for the request's body may be cancelled."""

    def apps(self) -> Mapping[App, Sequence[Offer]]: ...


class Transcoder(Protocol):
    """Has customers' segments transcoded."""

    async def transcode(
        self, customer: str, content_type: str, query: Mapping[str, str], body: bytes
    ) -> Sequence[Made]:
        """The renditions that the request asks for, checked and paid. Raises BadMessage,
        CallFailed; a wait for it may be cancelled."""


DEFAULT_GROUP = "default"
DEFAULT_LIVE_FPS = 5
"""Pictures a second that the page of live video sends, unless told otherwise."""
LIVE_MESSAGE_BYTES_MAX = 8_000_000
"""Largest picture or segment of a live session."""
OPERATOR_CUSTOMER = "operator"
"""Who pays for what the operator tries on the pages; no customer has this id."""

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
    public_url: str = ""
    """Where others reach the pages, without a slash at the end; empty where only this machine or
    network does."""
    metrics_public: bool = False
    """Whether `/metrics` may be scraped without the operator's token."""
    customers: Customers | None = None
    exchange: Exchange | None = None
    """None of both: the pool has no API of its own for customers."""
    desk: LiveDesk | None = None
    """None: the pool takes no calls."""
    runners: Callable[[], Sequence[RunnerView]] = lambda: ()
    """Which apps are to be sold through Live Runner, and how that goes."""
    call_price: Callable[[App, CallSource], Quote | None] = lambda app, source: None
    """What a unit of an app pays, for calls that come this way."""
    transcoder: Transcoder | None = None
    """None: customers may not post segments of video."""
    live_video: LiveVideo | None = None
    delegation: Delegation | None = None
    """None: no chain is configured."""
    revenue: Revenue | None = None
    payouts: Payouts | None = None
    """None: the pool has no wallet to pay from."""
    proofs: Proofs | None = None
    """None: no statements, terms of its own, disputes or corrections."""
    explorer: str = ""
    """A block explorer, like `https://arbiscan.io`; empty: pages link to none."""
    body_bytes_max: int = 100_000_000
    """Largest request of a customer."""
    idle_s: float = 60.0
    """How long a customer may leave an answer unread."""
    tries_per_minute: int = 12
    """Sign-ins, nonces and enrolments that one client may try."""
