"""The part of the composition root for money: terms, rounds, revenue, payouts, statements.

Reads the settings so that none of those parts has to. Without `chain.endpoints` rounds are made by
the clock and nothing is paid; books, terms and statements are the same. Used by `openpool.app`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from openpool.app_calls import rate
from openpool.chain.client import open_chain
from openpool.chain.feed import PriceWatch
from openpool.chain.interface import Chain, Signer, WrongChain
from openpool.chain.livepeer import LivepeerContracts
from openpool.chain.signers import open_signer
from openpool.config import Config
from openpool.core.errors import SetupError, Unavailable
from openpool.core.money.payout_plan import Rules
from openpool.core.money.payouts import Patience
from openpool.core.money.swap import SwapRules
from openpool.core.money.terms import GroupTerms, Promise, RuleTerms
from openpool.pool.driver import wall_ms
from openpool.pool.usd import UsdRate
from openpool.private_files import ensure_secret
from openpool.rules.process import prepared
from openpool.store.sqlite import SqliteStore
from openpool.treasury.books import RevenueBooks
from openpool.treasury.closing import Closing
from openpool.treasury.corrections import Corrections
from openpool.treasury.delegators import Delegations
from openpool.treasury.desk import RevenueDesk
from openpool.treasury.disputes import Disputes
from openpool.treasury.follow import Follower
from openpool.treasury.lpt import LptOptions, LptPayouts
from openpool.treasury.market import Market
from openpool.treasury.payer import Payer, PayerOptions
from openpool.treasury.payer_view import PayerView
from openpool.treasury.planner import PlannerOptions
from openpool.treasury.reward import RewardWatch
from openpool.treasury.round_ends import RoundEnds
from openpool.treasury.rounds import ClockRounds
from openpool.treasury.sender import GasOffer
from openpool.treasury.settle import Settler
from openpool.treasury.statements import Statements
from openpool.treasury.swap import Swaps
from openpool.treasury.terms import PublishedTerms
from openpool.treasury.wallets import WalletWatch
from openpool.wallet import Wallet, open_wallet
from openpool.web.statement_interface import Proofs

SIGNING_KEY = "signing.key"
LOOK_S = 3.0
"""So long a start waits for an endpoint to say which chain it serves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """All parts, and how they run. Those that need a chain are None without one."""

    terms: PublishedTerms
    statements: Statements
    settler: Settler
    ends: RoundEnds
    closing: Closing
    rounds: Follower | ClockRounds
    revenue: RevenueDesk
    proofs: Proofs
    payer: Payer | None
    payouts: PayerView | None
    rewards: RewardWatch | None
    wallets: WalletWatch | None
    delegations: Delegations | None
    livepeer: LivepeerContracts | None
    usd: PriceWatch | None

    async def start(self) -> None:
        """Read the log back; to be awaited before anything else."""
        await self.statements.start()
        if self.payer is not None:
            await self.payer.start()

    async def run(self) -> None:
        """Do all of it; ends by cancellation."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.terms.run(), name="terms")
            tasks.create_task(self.rounds.run(), name="rounds")
            tasks.create_task(self.ends.run(), name="settlement and statements")
            if self.payer is not None:
                tasks.create_task(self.payer.run(), name="payouts")
            if self.rewards is not None:
                tasks.create_task(self.rewards.run(), name="rewards")
            if self.wallets is not None and isinstance(self.rounds, ClockRounds):
                tasks.create_task(self.wallets.run(), name="wallets")
            if self.delegations is not None:
                tasks.create_task(self.delegations.run(), name="delegations")
            if self.livepeer is not None:
                tasks.create_task(self.livepeer.run(), name="contracts")
            if self.usd is not None:
                tasks.create_task(self.usd.run(), name="usd")


def signing_key(config: Config) -> Wallet:
    """The key that signs terms and statements, made at the first start. It holds no money."""
    path = config.data_dir / SIGNING_KEY
    ensure_secret(path, "The pool's signing key")
    return open_wallet(path, lambda: "")


def make_terms(config: Config, store: SqliteStore, key: Wallet) -> PublishedTerms:
    """The terms as they were published so far."""
    terms = PublishedTerms(
        store=store,
        signer=key,
        clock_ms=wall_ms,
        pool_name=config.pool.name,
        chain_id=config.chain.id,
    )
    terms.load()
    return terms


def promise(config: Config, text: str) -> Promise:
    """What the settings promise to workers. `text` is what owners accept."""
    revenue, payouts, lpt = config.revenue, config.payouts, config.lpt
    return Promise(
        text=text,
        commission_ppm=config.commission,
        groups=tuple(
            GroupTerms(group=name, commission_ppm=group.commission)
            for name, group in sorted(config.groups.items())
            if group.commission is not None
        ),
        scheme=revenue.scheme,
        window_rounds=revenue.window_rounds,
        rules=tuple(RuleTerms(rule=hook.rule, options=hook.options) for hook in revenue.hooks),
        threshold_wei=str(payouts.threshold),
        minimum_wei=str(payouts.minimum),
        assets=("ETH", "LPT") if lpt.swap else ("ETH",),
        every_ms=payouts.every_ms,
        gas_paid_by=payouts.gas_paid_by,
        gas_share_max_ppm=payouts.gas_share_max,
        reward_share_ppm=lpt.share,
        dispute_ms=config.statements.dispute_ms,
        notice_ms=config.statements.notice_ms,
    )


@asynccontextmanager
async def open_money(
    config: Config, store: SqliteStore, terms: PublishedTerms, key: Wallet
) -> AsyncIterator[Money]:
    """Everything about money, for as long as the block lasts. Asks no endpoint by itself."""
    if not config.chain.endpoints:
        yield _make(config, store, terms, key, None)
        return
    settings = config.chain
    urls = [each.url.reveal() for each in settings.endpoints]
    async with open_chain(
        urls,
        chain_id=settings.id,
        agree=settings.agree,
        timeout_s=settings.timeout_ms / 1000,
        priority_fee_max_wei=settings.priority_fee_max,
    ) as chain:
        await _refuse_another_chain(chain)
        yield _make(config, store, terms, key, chain)


async def _refuse_another_chain(chain: Chain) -> None:
    """Raises SetupError if the endpoints serve another chain than the settings say. One that does
    not answer soon holds up nothing: it may come up later."""
    try:
        async with asyncio.timeout(LOOK_S):
            await chain.block()
    except WrongChain as error:
        raise SetupError(str(error)) from None
    except (Unavailable, TimeoutError):
        return


def _make(
    config: Config, store: SqliteStore, terms: PublishedTerms, key: Wallet, chain: Chain | None
) -> Money:
    controller = config.chain.controller
    livepeer = LivepeerContracts(chain, controller) if chain and controller else None
    signer = _signer(config) if chain else None
    followed = {o.name: o.eth_address for o in config.orchestrators if o.eth_address}
    books = RevenueBooks(store)
    wallets = _wallets(config, books, chain, livepeer, signer)
    spending = asyncio.Lock()
    promised = terms.in_force().terms.promise
    payer = None
    if chain and signer:
        payer = _payer(config, promised, store, chain, signer, livepeer, spending)
    rewards = _rewards(config, livepeer, followed, payer) if livepeer else None
    closing = Closing(
        books=books,
        orchestrators=[o.name for o in config.orchestrators],
        clock_ms=wall_ms,
        lpt_share_ppm=promised.reward_share_ppm,
    )
    rounds = _rounds(config, books, closing, chain, livepeer, followed, wallets)
    usd, watch = UsdRate(rate(config)), _usd(config, chain)
    if watch is not None:
        usd.follow(watch.known)
    settler = _settler(promised, store, spending)
    statements = _statements(config, store, terms, key, settler)
    corrections = Corrections(store=store, clock_ms=wall_ms, spending=spending)
    return Money(
        terms=terms,
        statements=statements,
        settler=settler,
        ends=RoundEnds(store, settler, statements),
        closing=closing,
        rounds=rounds,
        revenue=RevenueDesk(
            books=books,
            orchestrators={o.name: o.eth_address for o in config.orchestrators},
            clock_ms=wall_ms,
            wallets=[signer.address] if signer else [],
            follower=rounds if isinstance(rounds, Follower) else None,
            rewards=rewards,
            wei_per_usd=usd.wei_per_usd,
        ),
        proofs=Proofs(
            statements=statements,
            terms=terms,
            disputes=Disputes(
                store=store,
                statements=statements,
                terms=terms,
                corrections=corrections,
                clock_ms=wall_ms,
                folder=config.data_dir / "disputes",
                pool_name=config.pool.name,
            ),
            corrections=corrections,
            signer=key.address,
            chain_id=config.chain.id,
        ),
        payer=payer,
        payouts=_payouts(config, payer, livepeer) if payer else None,
        rewards=rewards,
        wallets=wallets,
        delegations=_delegations(config, chain, livepeer, followed),
        livepeer=livepeer,
        usd=watch,
    )


def _payouts(config: Config, payer: Payer, livepeer: LivepeerContracts | None) -> PayerView:
    lpt = config.lpt
    per_day_max_lpt = lpt.per_day_max if livepeer else 0
    return PayerView(payer, lpt=lpt.swap, staked=lpt.staked, per_day_max_lpt=per_day_max_lpt)


def _usd(config: Config, chain: Chain | None) -> PriceWatch | None:
    """The price feed, where the settings do not say themselves what an ETH costs."""
    settings = config.chain
    if chain is None or config.ai.usd_per_eth or not settings.price_feed:
        return None
    return PriceWatch(chain, settings.price_feed, clock_ms=wall_ms, keep_ms=settings.price_keep_ms)


def _signer(config: Config) -> Signer | None:
    """The hot wallet; None if the settings name none."""
    payouts = config.payouts
    if payouts.keystore == Path() and not payouts.signer_url:
        return None
    return open_signer(
        keystore=payouts.keystore,
        passphrase=payouts.passphrase,
        url=payouts.signer_url,
        address=payouts.signer_address,
    )


def _payer(
    config: Config,
    promised: Promise,
    store: SqliteStore,
    chain: Chain,
    signer: Signer,
    livepeer: LivepeerContracts | None,
    spending: asyncio.Lock,
) -> Payer:
    payouts, settings = config.payouts, config.chain
    rules = Rules(
        threshold_wei=int(promised.threshold_wei),
        minimum_wei=int(promised.minimum_wei),
        gas_paid_by_worker=promised.gas_paid_by == "worker",
        gas_share_max_ppm=promised.gas_share_max_ppm,
        per_payout_max_wei=payouts.per_payout_max,
        per_day_max_wei=payouts.per_day_max,
    )
    options = PayerOptions(
        planner=PlannerOptions(rules=rules, keep_wei=payouts.keep, contracts=payouts.contracts),
        mode=payouts.mode,
        patience=Patience(
            replace_after_ms=payouts.replace_after_ms, max_fee_max_wei=settings.gas_price_max
        ),
        batch_contract=payouts.batch_contract if payouts.batch == "cheaper" else "",
        gas=GasOffer(margin_ppm=settings.gas_margin, most=settings.gas_max),
        every_ms=payouts.every_ms,
        poll_ms=settings.poll_ms,
    )
    payer = Payer(
        chain=chain,
        signer=signer,
        store=store,
        clock_ms=wall_ms,
        options=options,
        livepeer=livepeer,
        spending=spending,
    )
    if livepeer is not None:
        _pay_lpt(config, payer, livepeer)
    return payer


def _pay_lpt(config: Config, payer: Payer, livepeer: LivepeerContracts) -> None:
    """Exchanges come first: what they bring is paid like any other LPT."""
    lpt = config.lpt
    market = Market(weth=lpt.weth, pool=lpt.pool, quoter=lpt.quoter, router=lpt.router)
    if lpt.swap:
        payer.parts.append(
            Swaps(
                sender=payer.sender,
                planner=payer.planner,
                journal=payer.journal,
                livepeer=livepeer,
                market=market,
                rules=SwapRules(
                    most_wei=lpt.swap_max,
                    slippage_ppm=lpt.slippage,
                    deviation_ppm=lpt.deviation,
                    deadline_ms=lpt.deadline_ms,
                ),
            )
        )
    payer.parts.append(
        LptPayouts(
            sender=payer.sender,
            planner=payer.planner,
            journal=payer.journal,
            livepeer=livepeer,
            market=market if lpt.pool else None,
            options=LptOptions(
                threshold_lpt=lpt.threshold,
                per_payout_max_lpt=lpt.per_payout_max,
                per_day_max_lpt=lpt.per_day_max,
                staked=lpt.staked,
            ),
        )
    )


def _rewards(
    config: Config, livepeer: LivepeerContracts, followed: dict[str, str], payer: Payer | None
) -> RewardWatch:
    # an order that nobody may sign would stay open, and its wallet could not be compared
    calls = config.lpt.call_reward and config.payouts.mode == "on" and payer is not None
    return RewardWatch(
        livepeer=livepeer,
        orchestrators=followed,
        late_ppm=config.lpt.reward_late,
        orders=payer if calls else None,
        wallet=payer.sender.wallet if payer and calls else "",
        poll_s=config.chain.poll_ms / 1000,
    )


def _wallets(
    config: Config,
    books: RevenueBooks,
    chain: Chain | None,
    livepeer: LivepeerContracts | None,
    signer: Signer | None,
) -> WalletWatch | None:
    if chain is None or signer is None:
        return None
    return WalletWatch(
        chain=chain,
        livepeer=livepeer,
        books=books,
        wallets=[signer.address],
        clock_ms=wall_ms,
        tag=config.chain.follow,
        poll_s=config.chain.poll_ms / 1000,
    )


def _rounds(
    config: Config,
    books: RevenueBooks,
    closing: Closing,
    chain: Chain | None,
    livepeer: LivepeerContracts | None,
    followed: dict[str, str],
    wallets: WalletWatch | None,
) -> Follower | ClockRounds:
    if chain is None or livepeer is None or not followed:
        return ClockRounds(
            books=books, closing=closing, round_ms=config.revenue.round_ms, clock_ms=wall_ms
        )
    return Follower(
        chain=chain,
        livepeer=livepeer,
        books=books,
        closing=closing,
        orchestrators=followed,
        clock_ms=wall_ms,
        wallets=wallets,
        tag=config.chain.follow,
        from_block=config.revenue.from_block,
        poll_s=config.chain.poll_ms / 1000,
    )


def _settler(promised: Promise, store: SqliteStore, spending: asyncio.Lock) -> Settler:
    return Settler(
        store=store,
        scheme=promised.scheme,
        window_rounds=promised.window_rounds,
        rules=prepared((each.rule, dict(each.options)) for each in promised.rules),
        spending=spending,
    )


def _statements(
    config: Config,
    store: SqliteStore,
    terms: PublishedTerms,
    key: Wallet,
    settler: Settler,
) -> Statements:
    return Statements(
        store=store,
        signer=key,
        clock_ms=wall_ms,
        folder=config.data_dir / "statements",
        pool_name=config.pool.name,
        chain_id=config.chain.id,
        terms=terms,
        is_settled=settler.is_settled,
    )


def _delegations(
    config: Config,
    chain: Chain | None,
    livepeer: LivepeerContracts | None,
    followed: dict[str, str],
) -> Delegations | None:
    if chain is None or livepeer is None or not followed:
        return None
    by_address = {address: name for name, address in followed.items()}
    return Delegations(chain, livepeer, by_address, clock_ms=wall_ms, poll_ms=config.chain.poll_ms)
