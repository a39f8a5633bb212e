"""What a pool's web shows about money, from real code over the story of `web.money_story`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from openpool.core.events import Event
from openpool.core.money.events import RoundStarted
from openpool.core.money.terms import GroupTerms, Promise, RuleTerms
from openpool.ethereum import Account
from openpool.store.sqlite import SqliteStore
from openpool.treasury.books import RevenueBooks
from openpool.treasury.corrections import Corrections
from openpool.treasury.desk import RevenueDesk
from openpool.treasury.disputes import Disputes
from openpool.treasury.statements import Statements
from openpool.treasury.terms import PublishedTerms
from openpool.wallet import Wallet
from openpool.web.money_story import CHAIN_ID, HOUR_MS, RULES, StoryPayouts, address_of
from openpool.web.statement_interface import Proofs
from openpool.web.storybook import CAST, COMMISSION_PPM, ORCHESTRATORS

POOL = "Northern Lights"
DAY_MS = 24 * HOUR_MS
PROMISE = Promise(
    text="Work honestly. The pool keeps 25 % of each fee.",
    commission_ppm=COMMISSION_PPM,
    groups=(GroupTerms(group="partners", commission_ppm=150_000),),
    scheme="per-job",
    window_rounds=0,
    rules=(RuleTerms(rule="holdback", options=(("rate", "10%"),)),),
    threshold_wei=str(RULES.threshold_wei),
    minimum_wei=str(RULES.minimum_wei),
    assets=("ETH", "LPT"),
    every_ms=5 * 22 * HOUR_MS,
    gas_paid_by="pool",
    gas_share_max_ppm=5_000,
    reward_share_ppm=20_000,
    dispute_ms=14 * DAY_MS,
    notice_ms=7 * DAY_MS,
)
COMING = replace(PROMISE, commission_ppm=220_000, scheme="proportional")
CLAIM = "I counted two more segments in my worker's log than are in my account."


@dataclass
class Clock:
    """Says what it is told."""

    now_ms: int

    def __call__(self) -> int:
        return self.now_ms


@dataclass
class Money:
    """What `web.interface.Deps` wants."""

    revenue: RevenueDesk
    payouts: StoryPayouts
    proofs: Proofs


async def tell(
    store: SqliteStore, folder: Path, events: Iterable[Event], clock_ms: Callable[[], int]
) -> Money:
    """Write the story down, with statements when rounds end; what people are shown of it."""
    told = sorted(events, key=lambda event: event.time_ms)
    clock, key = Clock(told[0].time_ms), Wallet(Account.from_key("22" * 32))
    terms = PublishedTerms(
        store=store, signer=key, clock_ms=clock, pool_name=POOL, chain_id=CHAIN_ID
    )
    await terms.publish(PROMISE)
    statements = Statements(
        store=store,
        signer=key,
        clock_ms=clock,
        folder=folder / "statements",
        pool_name=POOL,
        chain_id=CHAIN_ID,
        terms=terms,
    )
    await statements.start()
    for part in _by_rounds(told):
        await store.append(part).durable()
        clock.now_ms = part[-1].time_ms
        await statements.make_due()
    clock.now_ms -= 2 * DAY_MS
    await terms.publish(COMING)
    clock.now_ms += 2 * DAY_MS - 3 * HOUR_MS
    proofs = _proofs(store, folder, clock, terms, statements, key)
    await _dispute(store, proofs)
    clock.now_ms = clock_ms()
    return Money(
        revenue=RevenueDesk(
            books=RevenueBooks(store),
            orchestrators={name: address_of(name) for name in ORCHESTRATORS},
            clock_ms=clock_ms,
        ),
        payouts=StoryPayouts(store, lambda event: _append(store, event), clock_ms),
        proofs=proofs,
    )


def _by_rounds(events: list[Event]) -> list[list[Event]]:
    """Cut half an hour after the starts of rounds, when they are settled."""
    parts: list[list[Event]] = [[]]
    cut_ms = 0
    for event in events:
        if cut_ms and event.time_ms > cut_ms:
            parts.append([])
            cut_ms = 0
        if isinstance(event.data, RoundStarted):
            cut_ms = event.time_ms + HOUR_MS // 2
        parts[-1].append(event)
    return parts


async def _append(store: SqliteStore, event: Event) -> None:
    await store.append([event]).durable()


def _proofs(
    store: SqliteStore,
    folder: Path,
    clock: Clock,
    terms: PublishedTerms,
    statements: Statements,
    key: Wallet,
) -> Proofs:
    corrections = Corrections(store=store, clock_ms=clock)
    return Proofs(
        statements=statements,
        terms=terms,
        disputes=Disputes(
            store=store,
            statements=statements,
            terms=terms,
            corrections=corrections,
            clock_ms=clock,
            folder=folder / "disputes",
            pool_name=POOL,
        ),
        corrections=corrections,
        signer=key.address,
        chain_id=CHAIN_ID,
    )


async def _dispute(store: SqliteStore, proofs: Proofs) -> None:
    """An owner says that the newest statement lacks something."""
    if proofs.statements.rows:
        newest = proofs.statements.rows[-1].round
        await proofs.disputes.open(CAST[2].address, f"statement:{newest}", CLAIM)
