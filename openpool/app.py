"""The composition root: builds a pool from its configuration, runs it, and stops it in order.

The only file that knows every folder. It decides nothing; it hands each part what it needs.
"""

import asyncio
import gc
import hmac
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import structlog

from openpool import __version__
from openpool.app_calls import (
    make_ai_upstreams,
    make_customers,
    make_desk,
    make_exchange,
    make_live_runners,
    make_tokenizers,
    pixel_price,
    pricer,
    rate,
)
from openpool.app_money import Money, make_terms, open_money, promise, signing_key
from openpool.app_settings import core_settings, make_verifier, terms_text
from openpool.app_terms import put_into_force
from openpool.config import Config, OrchestratorSettings
from openpool.config.kinds import HostPort
from openpool.core.call_state import lost
from openpool.core.errors import Unavailable
from openpool.core.events import (
    AnyPayload,
    Event,
    JobReceived,
    PoolStarted,
    PoolStopped,
    PriceChanged,
)
from openpool.core.facts import JobRestored, PriceKnown, WorkerKnown, WorkerRemoved
from openpool.core.instructions import (
    Assign,
    CancelAttempt,
    CheckResult,
    CloseGroup,
    Deliver,
    DeliverError,
    EndSession,
    FetchSource,
    ForgetJob,
    OpenGroup,
    Settle,
)
from openpool.core.joinlink import JoinLink, build_join_link
from openpool.core.pool import Pool
from openpool.core.transcodes import DIRECT
from openpool.core.units import price
from openpool.link.client import TranscoderClient
from openpool.link.server import WorkerPort
from openpool.link.tls import Identity, Trust, load_or_create_identity, server_context
from openpool.pool.ai_downstream import AiDownstream
from openpool.pool.ai_upstream import AiUpstreams
from openpool.pool.customers import Customers
from openpool.pool.direct_video import DirectVideo
from openpool.pool.downstream import Downstream
from openpool.pool.driver import Driver, wall_ms
from openpool.pool.enrolment import Enrolment
from openpool.pool.exchange import Exchange
from openpool.pool.live_runner import LiveRunners
from openpool.pool.live_video import LiveVideo
from openpool.pool.media import Media
from openpool.pool.pricing import Pricing
from openpool.pool.tokenizers import Tokenizers
from openpool.pool.upstream import Upstream
from openpool.pool.usd import UsdRate
from openpool.pool.verify import Verifier
from openpool.private_files import ensure_secret
from openpool.store.interface import EventFilter
from openpool.store.sqlite import SqliteStore
from openpool.treasury.terms import PublishedTerms
from openpool.wallet import Wallet
from openpool.web.app import create_app
from openpool.web.interface import Deps
from openpool.web.serve import serve

log = structlog.get_logger()

PRICES_RESTORED = 1_000
"""How many of the latest prices are taken up again after a restart, for jobs restored with it."""


class _Stopped(Exception):
    """Ends the pool's task group."""


@dataclass(frozen=True, slots=True)
class Running:
    """Where a running pool is reached."""

    web_url: str
    join_link: str
    worker_port: HostPort
    operator_token_file: Path


@dataclass(slots=True)
class PoolProcess:
    """A pool on one machine."""

    config: Config
    store: SqliteStore
    identity: Identity
    secret: bytes
    operator_token: str
    epoch: int
    driver: Driver
    media: Media
    verifier: Verifier
    tokenizers: Tokenizers
    signing_key: Wallet
    terms: PublishedTerms
    enrolment: Enrolment
    customers: Customers
    upstreams: dict[str, Upstream] = field(default_factory=dict)
    downstream: Downstream | None = None
    exchange: Exchange | None = None
    live_runners: LiveRunners | None = None
    ai_upstreams: AiUpstreams | None = None
    direct_video: DirectVideo | None = None
    usd: UsdRate = field(default_factory=UsdRate)
    money: Money | None = None
    worker_port: int = 0
    """The port in use, where the settings leave it to the system."""
    web_url: str = ""

    # --- running -------------------------------------------------------------------------------

    async def run(self, stopping: asyncio.Event, started: Callable[[Running], None]) -> None:
        """Serve until `stopping` is set, then drain. Raises what made serving impossible."""
        await self._append_start()
        await self.enrolment.start()
        await self.customers.start()
        await self.verifier.start()
        try:
            await self.tokenizers.start()
            async with self._opened_money() as money, asyncio.TaskGroup() as tasks:
                tasks.create_task(money.run(), name="money")
                await self._serve(tasks, stopping, started)
                raise _Stopped
        except* _Stopped:
            pass
        finally:
            for upstream in self.upstreams.values():
                await upstream.client.close()
            await self.verifier.close()
        await self._append(PoolStopped(epoch=self.epoch, reason="asked to stop"), "stopped")

    @asynccontextmanager
    async def _opened_money(self) -> AsyncIterator[Money]:
        """Money, with the log read back. Raises SetupError before anything else is served."""
        async with open_money(self.config, self.store, self.terms, self.signing_key) as money:
            self.money = money
            await money.start()
            if money.usd is not None:
                self.usd.follow(money.usd.known)
            yield money

    async def _serve(
        self,
        tasks: asyncio.TaskGroup,
        stopping: asyncio.Event,
        started: Callable[[Running], None],
    ) -> None:
        self.exchange = self._make_exchange(tasks)
        downstream = self.downstream = self._make_downstream(tasks)
        self._make_upstreams(tasks)
        if self.config.ai.enabled:
            self.direct_video = self._make_direct_video()
        self._wire(downstream)
        await self._restore(downstream)
        listen = self.config.workers.listen
        tls = server_context(self.identity)
        port = WorkerPort(downstream, tls, host=listen.host, port=listen.port, ai=downstream.ai)
        await port.start()
        self.worker_port = port.port
        async with port.running():
            tasks.create_task(self.driver.run(), name="driver")
            tasks.create_task(self.enrolment.run(), name="enrolment")
            tasks.create_task(self.customers.run(), name="customers")
            tasks.create_task(self.exchange.run(), name="exchange")
            tasks.create_task(self._watch_disk(), name="disk")
            for orchestrator in self.config.orchestrators:
                tasks.create_task(self._pricing(orchestrator).run(), name="pricing")
            await self._serve_live_runners(tasks, self.exchange)
            self._serve_ai_workers(tasks, self.exchange)
            await self._serve_web(tasks)
            gc.freeze()  # what is here now stays; collecting it again and again only costs time
            started(self._running())
            await stopping.wait()
            await self._drain()

    async def _serve_live_runners(self, tasks: asyncio.TaskGroup, exchange: Exchange) -> None:
        if not (self.config.ai.enabled and self.config.ai.live_runner.enabled):
            return
        self.live_runners = make_live_runners(
            self.config,
            exchange=exchange,
            store=self.store,
            secret=self.secret,
            trust=self._trust,
            usd=self.usd,
        )
        listening = asyncio.Event()
        tasks.create_task(self.live_runners.run(listening), name="live runners")
        await listening.wait()

    def _serve_ai_workers(self, tasks: asyncio.TaskGroup, exchange: Exchange) -> None:
        if not self._sells_by_grpc:
            return
        self.ai_upstreams = make_ai_upstreams(
            self.config,
            exchange=exchange,
            capacities=self.driver.desk.capacities,
            trust=self._trust,
        )
        tasks.create_task(self.ai_upstreams.run(), name="ai workers")

    async def _serve_web(self, tasks: asyncio.TaskGroup) -> None:
        web = self.config.web
        ready = asyncio.Event()
        ssl = {
            "": None,
            "file": (web.tls.cert, web.tls.key),
            "pool": (self.identity.cert_path, self.identity.key_path),
        }[self.config.web_certificate]
        app = create_app(self._web_deps())
        tasks.create_task(
            serve(app, web.listen.host, web.listen.port, ssl=ssl, started=ready), name="web"
        )
        await ready.wait()
        self.web_url = self.config.web_url.replace(":0", f":{app.state.address[1]}", 1)

    async def _drain(self) -> None:
        """Take no new work, let the running jobs end, for as long as the settings allow."""
        log.info("draining", limit_ms=self.config.dispatch.drain_ms)
        for upstream in self.upstreams.values():
            upstream.close()
        if self.ai_upstreams is not None:
            self.ai_upstreams.drain()
        try:
            async with asyncio.timeout(self.config.dispatch.drain_ms / 1000):
                if self.live_runners is not None:
                    await self.live_runners.drain()
                if self.ai_upstreams is not None:
                    await self.ai_upstreams.wait_idle()
                await self.driver.wait_idle()
        except TimeoutError:
            jobs, calls = self.driver.pool.snapshot(wall_ms()), self.driver.desk.snapshot(wall_ms())
            log.warning("drain-timeout", jobs=len(jobs.jobs), calls=len(calls.calls))
            if self.ai_upstreams is not None:
                await self.ai_upstreams.give_up()
            if self.exchange is not None:
                await self.exchange.give_up()

    async def _watch_disk(self) -> None:
        reason = await self.store.wait_failed()
        raise Unavailable(reason)

    async def _append_start(self) -> None:
        """The calls that were open when the pool last died are over; then it begins anew."""
        open_calls = await asyncio.to_thread(self.store.open_calls)
        workers = await asyncio.to_thread(self.store.workers)
        banned = {row.worker for row in workers if row.state == "banned"}
        for story in open_calls:
            self.driver.feed(lost(story, banned))
        await self._append(PoolStarted(epoch=self.epoch, version=__version__), "started")

    async def _append(self, data: AnyPayload, name: str) -> None:
        event = Event(id=f"pool/{self.epoch}/{name}", time_ms=wall_ms(), data=data)
        await self.store.append([event]).durable()

    def token_ended(self, token: str, reason: str) -> None:
        """A token was revoked: the streams that it opened end."""
        if self.downstream is not None:
            self.downstream.end_token(token, reason)
        if self.exchange is not None:
            self.exchange.end_token(token, reason)

    def worker_banned(self, worker: str, reason: str) -> None:
        """A worker was banned: its streams end for good, its results are not wanted."""
        self.driver.feed(WorkerRemoved(worker=worker, reason=reason))
        if self.downstream is not None:
            self.downstream.end_worker(worker)
        if self.exchange is not None:
            self.exchange.end_worker(worker)

    def _running(self) -> Running:
        return Running(
            web_url=self.web_url,
            join_link=self._join_link(),
            worker_port=self._worker_address(),
            operator_token_file=self.config.data_dir / "operator.token",
        )

    # --- parts ---------------------------------------------------------------------------------

    def _make_downstream(self, tasks: asyncio.TaskGroup) -> Downstream:
        return Downstream(
            feed=self.driver.feed,
            media=self.media,
            tasks=tasks,
            authenticate=self.enrolment.authenticate,
            admit=self.enrolment.admit,
            check=self.verifier.check,
            prepare=self.verifier.prepare,
            source_fault=self.verifier.source_fault,
            secret=self.secret,
            epoch=self.epoch,
            workers_max=self.config.workers.max,
            calls=self.exchange.line if self.exchange and self.config.ai.enabled else None,
            ai=AiDownstream(self.exchange, self.enrolment.authenticate)
            if self.exchange and self._sells_by_grpc
            else None,
        )

    @property
    def _sells_by_grpc(self) -> bool:
        return self.config.ai.enabled and self.config.ai.grpc

    def _make_exchange(self, tasks: asyncio.TaskGroup) -> Exchange:
        return make_exchange(
            self.config,
            driver=self.driver,
            tasks=tasks,
            epoch=self.epoch,
            admit=self.enrolment.admit,
            checkers=self.verifier.checkers,
            tokenizers=self.tokenizers,
            customers=self.customers,
            usd=self.usd,
        )

    def _make_upstreams(self, tasks: asyncio.TaskGroup) -> None:
        for settings in self.config.orchestrators:
            self.upstreams[settings.name] = Upstream(
                name=settings.name,
                client=TranscoderClient(
                    settings.address.host,
                    settings.address.port,
                    secret=settings.secret.reveal(),
                    trust=self._trust(settings),
                ),
                remember=partial(self._remember_certificate, settings, tasks),
                feed=self.driver.feed,
                clock_ms=wall_ms,
                media=self.media,
                tasks=tasks,
                source_host=str(settings.source_host or ""),
            )

    def _make_direct_video(self) -> DirectVideo:
        return DirectVideo(
            feed=self.driver.feed,
            media=self.media,
            checkers=self.verifier.checkers,
            price=pixel_price(self.config, self.usd),
            hold=self.customers.begin,
            epoch=self.epoch,
        )

    def _trust(self, settings: OrchestratorSettings) -> Trust:
        """Any certificate (a stock orchestrator makes one at each start), or the first one seen."""
        if settings.certificate == "pin":
            return Trust(pinned=self.store.setting(_pin_key(settings)) or "")
        return Trust.first_use()

    def _remember_certificate(
        self, settings: OrchestratorSettings, tasks: asyncio.TaskGroup, fingerprint: str
    ) -> None:
        if settings.certificate == "pin":
            tasks.create_task(self.store.set_setting(_pin_key(settings), fingerprint))

    def _wire(self, downstream: Downstream) -> None:
        """Who performs which instruction."""
        on = self.driver.on
        on(Assign, downstream.assign)
        on(CancelAttempt, downstream.cancel_attempt)
        on(EndSession, downstream.end_session)
        on(CheckResult, downstream.check_result)
        on(Settle, downstream.settle)
        on(ForgetJob, downstream.forget_job)
        ups: dict[str, Upstream] = self.upstreams
        answering: dict[str, Upstream | DirectVideo] = {**ups}
        if self.direct_video is not None:
            answering[DIRECT] = self.direct_video
        on(OpenGroup, lambda what, receipt: ups[what.orchestrator].open_group(what, receipt))
        on(CloseGroup, lambda what, receipt: ups[what.orchestrator].close_group(what, receipt))
        on(FetchSource, lambda what, receipt: ups[what.orchestrator].fetch_source(what, receipt))
        on(Deliver, lambda what, receipt: answering[what.orchestrator].deliver(what, receipt))
        on(
            DeliverError,
            lambda what, receipt: answering[what.orchestrator].deliver_error(what, receipt),
        )

    async def _restore(self, downstream: Downstream) -> None:
        """Take up the jobs that were open when the pool last died."""
        prices = EventFilter(types=("price-changed",), newest_first=True, limit=PRICES_RESTORED)
        for stored in reversed(await asyncio.to_thread(self.store.events, prices)):
            self.driver.feed(_price_known(stored.event))
        jobs = await asyncio.to_thread(self.store.open_jobs, wall_ms())
        groups = {row.worker: row for row in await asyncio.to_thread(self.store.workers)}
        for event, attempts in jobs:
            received = event.data
            if not isinstance(received, JobReceived) or not self._is_served(received.orchestrator):
                continue
            for attempt, worker in attempts:
                row = groups[worker]
                self.driver.feed(
                    WorkerKnown(
                        worker=worker,
                        address=row.address,
                        commission_ppm=self.terms.commission_ppm(row.group),
                    )
                )
                downstream.expect(attempt, received.job, worker)
            self.driver.feed(JobRestored(received=received, attempts=tuple(attempts)))

    def _is_served(self, orchestrator: str) -> bool:
        """Whether jobs from before a restart are to be taken up; a customer's are given up then,
        since nobody waits for them any more."""
        if orchestrator == DIRECT and self.direct_video is not None:
            self.direct_video.seen()
            return True
        return orchestrator in self.upstreams

    def _pricing(self, settings: OrchestratorSettings) -> Pricing:
        price = self.config.price
        return Pricing(
            orchestrator=settings.name,
            source=price.source,
            configured=price.wei_per_pixel or None,
            cli_url=settings.status_url,
            feed=self.driver.feed,
            poll_s=price.refresh_ms / 1000,
        )

    # --- what the web shows --------------------------------------------------------------------

    def _web_deps(self) -> Deps:
        return Deps(
            reader=self.store,
            subscribe=self.store.subscribe,
            live=self.driver.pool,
            enrolment=self.enrolment,
            operator_token_check=self._is_operator,
            join_link=self._join_link,
            clock_ms=wall_ms,
            pool_name=self.config.pool.name,
            version=__version__,
            commission_ppm=self.terms.commission_ppm(""),
            worker_port=str(self._worker_address()),
            public_url=self.config.web.public_url,
            customers=self.customers if self.config.ai.enabled else None,
            exchange=self.exchange,
            desk=self.driver.desk if self.config.ai.enabled else None,
            runners=lambda: self.live_runners.views() if self.live_runners else (),
            call_price=pricer(self.config, self.usd),
            transcoder=self.direct_video,
            live_video=LiveVideo(self.exchange) if self.exchange else None,
            revenue=self.money.revenue if self.money else None,
            payouts=self.money.payouts if self.money else None,
            proofs=self.money.proofs if self.money else None,
            delegation=self.money.delegations if self.money else None,
            explorer=self.config.chain.explorer_url,
            body_bytes_max=self.config.ai.body_bytes_max,
            idle_s=self.config.ai.idle_ms / 1000,
        )

    def _is_operator(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self.operator_token.encode())

    def _join_link(self, invite: str = "") -> str:
        address = self._worker_address()
        return build_join_link(
            JoinLink(
                host=address.host,
                port=address.port,
                pin=self.identity.fingerprint,
                web=self.web_url or self.config.web_url,
                invite=invite,
            )
        )

    def _worker_address(self) -> HostPort:
        address = self.config.worker_address
        return address if address.port else HostPort(address.host, self.worker_port)


def _price_known(event: Event) -> PriceKnown:
    """What a `price-changed` event said."""
    assert isinstance(event.data, PriceChanged)
    return PriceKnown(
        orchestrator=event.data.orchestrator,
        manifest=event.data.manifest,
        price_wei=price(event.data.price_wei),
        source=event.data.source,
    )


def _pin_key(settings: OrchestratorSettings) -> str:
    return f"certificate/{settings.name}"


async def build(config: Config, store: SqliteStore) -> PoolProcess:
    """A pool process over an open store, whose terms are published."""
    data_dir = config.data_dir
    key = signing_key(config)
    terms = make_terms(config, store, key)
    await terms.publish(promise(config, terms_text(config.pool.terms)))
    secret = bytes.fromhex(ensure_secret(data_dir / "pool.secret", "The pool's secret"))
    address = config.worker_address
    epoch = store.last_epoch() + 1
    core = Pool(
        core_settings(config, terms),
        orchestrators={each.name: each.share for each in config.orchestrators},
        epoch=epoch,
        carries=store.carries(),
    )
    verifier = make_verifier(config, secret)
    usd = UsdRate(rate(config))
    process: PoolProcess
    process = PoolProcess(
        config=config,
        store=store,
        identity=load_or_create_identity(data_dir, (address.host, "localhost", "127.0.0.1")),
        secret=secret,
        operator_token=ensure_secret(data_dir / "operator.token", "The operator's token"),
        epoch=epoch,
        driver=Driver(core, make_desk(config, epoch, core.fees), store),
        media=Media(config.limits.memory_bytes),
        verifier=verifier,
        signing_key=key,
        terms=terms,
        tokenizers=make_tokenizers(config, verifier.checkers),
        enrolment=Enrolment(
            store=store,
            appender=store,
            clock_ms=wall_ms,
            pool_name=config.pool.name,
            domain=config.domain,
            uri=config.web_url,
            chain_id=config.enrolment.chain_id,
            public=config.workers.mode == "public",
            terms=terms_text(config.pool.terms),
            secret_key=secret,
            commission_ppm=terms.commission_ppm,
            groups=config.groups,
            nonce_ms=config.enrolment.nonce_ms,
            grace_ms=config.enrolment.grace_ms,
            workers_per_address=config.enrolment.workers_per_address,
            on_revoked=lambda worker, token, reason: process.token_ended(token, reason),
            on_banned=lambda worker, reason: process.worker_banned(worker, reason),
        ),
        customers=make_customers(config, store, secret, usd),
        usd=usd,
    )
    terms.on_applied = lambda: put_into_force(terms, process.driver, store, process.money)
    return process


async def run(
    config: Config, *, stopping: asyncio.Event, started: Callable[[Running], None] = print
) -> None:
    """Run a pool until `stopping` is set. Raises SetupError where a person must act.

    `started` is called once everything listens.
    """
    async with SqliteStore(config.data_dir) as store:
        process = await build(config, store)
        await process.run(stopping, started)
