"""The part of the composition root for HTTP work: prices, the desk, the exchange, customers.

Reads the settings so that none of those parts has to. Used by `openpool.app` only.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction

from msgspec import structs

from openpool import __version__
from openpool.config import Config, OrchestratorSettings
from openpool.config.settings import reachable
from openpool.core.call_requests import CallFailed
from openpool.core.calls import App, CallSource, Offer
from openpool.core.desk import Desk
from openpool.core.errors import Unavailable
from openpool.core.money.fees import Fees
from openpool.core.prices import (
    ANY,
    PriceList,
    PriceRow,
    Quote,
    Rate,
    RunnerPrice,
    rate_of,
    runner_unit,
)
from openpool.core.settings import DeskSettings
from openpool.core.usage import SPEECH_FACTOR, ai_worker_unit, units_of
from openpool.link.ai_client import AiWorkerClient
from openpool.link.tls import Trust
from openpool.pool.ai_upstream import AiUpstream, AiUpstreams
from openpool.pool.answers import Answers
from openpool.pool.answers.nouns import opener
from openpool.pool.checkers import Checkers
from openpool.pool.customers import Customers
from openpool.pool.driver import Driver, wall_ms
from openpool.pool.exchange import Admit, Exchange, Price
from openpool.pool.live_runner import Ended, LiveRunner, LiveRunners
from openpool.pool.live_runner_http import RunnerDoor
from openpool.pool.tokenizers import Tokenizers
from openpool.pool.usd import UsdRate
from openpool.store.sqlite import SqliteStore

ANY_RATE = Rate(wei_per_usd=1, time_ms=0, source="")
"""Shows whether there is a price that needs a rate."""
NO_RATE = "The price is in USD, and what that is worth is not known just now; try again shortly."


def price_list(config: Config) -> PriceList:
    """The price list of the settings."""
    return PriceList(
        PriceRow(
            pipeline=row.pipeline,
            model=row.model or ANY,
            unit=row.unit or units_of(row.pipeline)[0],
            amount=row.price.amount,
            currency="usd" if row.price.currency == "USD" else "wei",
            per=row.per,
        )
        for row in config.ai.prices
    )


def rate(config: Config) -> Rate | None:
    """What a USD is worth by the settings; None if they do not say."""
    if not config.ai.usd_per_eth:
        return None
    return rate_of(str(config.ai.usd_per_eth), wall_ms(), "config")


def pricer(config: Config, usd: UsdRate) -> Price:
    """What a unit of an app pays, for calls that come this or that way."""
    prices = price_list(config)

    def price(app: App, source: CallSource, lasting: bool = False) -> Quote | None:
        if source == "ai-worker":
            return _ai_worker_quote(prices, app, usd())
        if source == "live-runner":
            return prices.quote(app, usd(), runner_unit(session=lasting))
        return prices.quote(app, usd(), *units_of(app.pipeline))

    return price


def charger(config: Config, usd: UsdRate) -> Price:
    """Like `pricer`, for work that is about to be done: while a price is in USD and nobody knows
    what that is worth, it raises CallFailed rather than have the work done for nothing."""
    price, in_usd = pricer(config, usd), pricer(config, UsdRate(ANY_RATE))

    def charge(app: App, source: CallSource, lasting: bool = False) -> Quote | None:
        quote = price(app, source, lasting)
        if quote is None and in_usd(app, source, lasting) is not None:
            raise CallFailed("insufficient-capacity", NO_RATE)
        return quote

    return charge


def pixel_price(config: Config, usd: UsdRate) -> Callable[[], tuple[Fraction, str]]:
    """What a pixel pays that a customer's segment is transcoded to, and where that is known from:
    the price list, or else the price that orchestrators have."""
    prices = price_list(config)

    def price() -> tuple[Fraction, str]:
        quote = prices.quote(App("transcode", ""), usd(), "pixel")
        if quote is not None:
            return quote.price_wei, quote.source
        if prices.quote(App("transcode", ""), ANY_RATE, "pixel") is not None:
            raise Unavailable(NO_RATE)
        known = config.price.wei_per_pixel
        return known, "config" if known else "none"

    return price


def _ai_worker_quote(prices: PriceList, app: App, now: Rate | None) -> Quote | None:
    """By the unit in which an orchestrator debits; speech it counts in thousandths."""
    try:
        quote = prices.quote(app, now, ai_worker_unit(app.pipeline))
    except ValueError:
        return None
    if quote is not None and quote.unit == "character":
        return structs.replace(quote, price_wei=quote.price_wei / SPEECH_FACTOR)
    return quote


def make_desk(config: Config, epoch: int, fees: Fees) -> Desk:
    """The desk; it shares the carries of the pool's own fees."""
    dispatch = config.dispatch
    return Desk(
        DeskSettings(
            cooldown_failures=dispatch.cooldown_failures,
            cooldown_ms=dispatch.cooldown_ms,
            checkpoint_ms=config.ai.checkpoint_ms,
        ),
        epoch,
        fees,
    )


def make_customers(config: Config, store: SqliteStore, secret: bytes, usd: UsdRate) -> Customers:
    """Who may use the direct API."""
    return Customers(
        store=store,
        clock_ms=wall_ms,
        secret_key=secret,
        requests_per_minute=config.ai.requests_per_minute,
        wei_per_usd=usd.wei_per_usd,
        grace_ms=config.enrolment.grace_ms,
    )


def make_tokenizers(config: Config, checkers: Checkers) -> Tokenizers:
    """What recounts tokens, for the models whose tokenizers are named."""
    named = config.ai.tokenizers if config.ai.enabled else ()
    files = {row.model: row.file for row in named}
    return Tokenizers(checkers, files, config.verify.timeout_ms / 1000)


def make_exchange(
    config: Config,
    *,
    driver: Driver,
    tasks: asyncio.TaskGroup,
    epoch: int,
    admit: Admit,
    checkers: Checkers,
    tokenizers: Tokenizers,
    customers: Customers,
    usd: UsdRate,
) -> Exchange:
    """The exchange, performing what the desk decides."""
    exchange = Exchange(
        feed=driver.feed,
        tasks=tasks,
        clock_ms=wall_ms,
        epoch=epoch,
        admit=admit,
        price=charger(config, usd),
        answers=Answers(
            opener(checkers, config.verify.timeout_ms / 1000),
            tokenizers,
            shown_at_once=max(1, checkers.size // 2),
        ),
        budget=customers,
        body_bytes_max=config.ai.body_bytes_max,
        timeout_ms=config.ai.timeout_ms,
        idle_ms=config.ai.idle_ms,
    )
    exchange.perform(driver.on)
    return exchange


def make_live_runners(
    config: Config,
    *,
    exchange: Exchange,
    store: SqliteStore,
    secret: bytes,
    trust: Callable[[OrchestratorSettings], Trust],
    usd: UsdRate,
) -> LiveRunners:
    """What sells the workers' apps through the orchestrators."""
    live, prices = config.ai.live_runner, price_list(config)
    door = RunnerDoor(
        exchange,
        key=secret,
        host=live.listen.host,
        port=live.listen.port,
        public_url=live.public_url
        or (f"http://{reachable(live.listen)}" if live.listen.port else ""),
        body_bytes_max=config.ai.body_bytes_max,
        idle_s=config.ai.idle_ms / 1000,
    )

    def price_of(app: App, session: bool) -> RunnerPrice | None:
        return prices.runner_price(app, session=session, rate=usd())

    def ended(what: Ended) -> None:
        place = what.place
        exchange.close_session(place.app, what.session, orchestrator=place.orchestrator)

    def offers() -> Iterator[Offer]:
        for each in exchange.offers.values():
            yield from each

    runners = [
        LiveRunner(
            orchestrator=settings.name,
            url=settings.live_runner_url or f"https://{settings.address}",
            secret=settings.secret.reveal(),
            trust=trust(settings),
            door=door,
            price_of=price_of,
            recall=store.setting,
            remember=store.set_setting,
            ended=ended,
            share_ppm=settings.share,
            version=__version__,
        )
        for settings in config.orchestrators
    ]
    made = LiveRunners(door, runners, offers)
    exchange.on_session_lost(made.session_lost)
    return made


def make_ai_upstreams(
    config: Config,
    *,
    exchange: Exchange,
    capacities: Callable[[], Mapping[App, int]],
    trust: Callable[[OrchestratorSettings], Trust],
) -> AiUpstreams:
    """What sells the workers' apps the older way."""
    return AiUpstreams(
        [
            AiUpstream(
                orchestrator=settings.name,
                client=AiWorkerClient(
                    settings.address.host,
                    settings.address.port,
                    secret=settings.secret.reveal(),
                    trust=trust(settings),
                ),
                exchange=exchange,
                capacities=capacities,
                share_ppm=settings.share,
                source_host=str(settings.source_host or ""),
                input_bytes_max=config.ai.body_bytes_max,
            )
            for settings in config.orchestrators
        ]
    )
