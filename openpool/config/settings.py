"""Every setting of a pool: its name, kind, default and meaning. The one place that knows them.

Read it top down: `Config` at the end is the whole. No component imports this; `openpool.app`
hands each its plain arguments. How values get here is in `config.load`.
"""

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal, get_args

from openpool.config import kinds
from openpool.config.kinds import HostPort, Money, Secret
from openpool.config.money import (
    ChainSettings,
    LptSettings,
    PayoutSettings,
    RevenueSettings,
    StatementSettings,
)
from openpool.config.sections import Section, Setting
from openpool.core.calls import Unit

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
LOOPBACK = {"127.0.0.1", "::1", "localhost"}


class PoolSettings(Section, frozen=True, kw_only=True):
    """The pool as people see it."""

    name: Annotated[str, Setting(kinds.TITLE, "What the pool is called on its pages")] = "Open Pool"
    terms: Annotated[
        Path,
        Setting(kinds.PATH, "Text file with the terms that a worker's owner accepts"),
    ] = Path()


class GroupSettings(Section, frozen=True, kw_only=True):
    """What is different for one group of workers."""

    commission: Annotated[
        int | None,
        Setting(kinds.RATE, "What the pool keeps of this group's fees; empty: as of all others"),
    ] = None


class OrchestratorSettings(Section, frozen=True, kw_only=True):
    """An unmodified go-livepeer orchestrator for which the pool works."""

    name: Annotated[str, Setting(kinds.NAME, "Its name in logs, events and metrics")] = "main"
    address: Annotated[
        HostPort, Setting(kinds.HOST_PORT, "Where it listens: its -serviceAddr, as seen from here")
    ]
    secret: Annotated[Secret, Setting(kinds.SECRET, "Its -orchSecret")]
    status_url: Annotated[
        str, Setting(kinds.URL, "Its -cliAddr, from which prices are read; empty: not reachable")
    ] = ""
    share: Annotated[
        int,
        Setting(kinds.RATE, "The part of the pool's capacity that is offered to it"),
    ] = 1_000_000
    certificate: Annotated[
        Literal["restart", "pin"],
        Setting(
            kinds.choice("restart", "pin"),
            "What a new certificate means: the orchestrator restarted, or (pin) refuse it, since "
            "its operator keeps one certificate",
        ),
    ] = "restart"
    source_host: Annotated[
        HostPort | None,
        Setting(
            kinds.OPTIONAL_HOST_PORT,
            "Where to fetch segments, if the orchestrator's own address cannot be reached",
        ),
    ] = None
    live_runner_url: Annotated[
        str,
        Setting(kinds.URL, "Its -liveRunnerAddr, if it has one; empty: https://<address>"),
    ] = ""
    eth_address: Annotated[
        str,
        Setting(kinds.ADDRESS, "Its address on chain, whose revenue is followed; empty: not known"),
    ] = ""


class PriceSettings(Section, frozen=True, kw_only=True):
    """What a pixel pays."""

    source: Annotated[
        Literal["config", "status", "metrics"],
        Setting(
            kinds.choice("config", "status", "metrics"),
            "Where the price comes from: wei_per_pixel below, the orchestrator's /status, or what "
            "each stream really pays by its /metrics (-monitor -metricsPerStream)",
        ),
    ] = "config"
    wei_per_pixel: Annotated[
        Fraction,
        Setting(kinds.PRICE, "Wei for one encoded pixel; also used until a source has answered"),
    ] = Fraction(0)
    refresh_ms: Annotated[
        int, Setting(kinds.integer(1_000, HOUR_MS), "Time between two looks at the source")
    ] = 10_000


class WorkerSettings(Section, frozen=True, kw_only=True):
    """The port that workers dial, and who may join."""

    listen: Annotated[HostPort, Setting(kinds.LISTEN, "Where workers are served")] = HostPort(
        "0.0.0.0",  # noqa: S104 - workers come from everywhere
        8936,
    )
    public_address: Annotated[
        HostPort | None,
        Setting(kinds.OPTIONAL_HOST_PORT, "How workers reach that port; part of join links"),
    ] = None
    mode: Annotated[
        Literal["public", "private"],
        Setting(
            kinds.choice("public", "private"),
            "public: everybody who enrols may work; private: by invitation or after approval",
        ),
    ] = "public"
    max: Annotated[
        int, Setting(kinds.integer(1, 100_000), "Most worker connections at one time")
    ] = 10_000


class EnrolmentSettings(Section, frozen=True, kw_only=True):
    """How owners prove their Ethereum address."""

    domain: Annotated[
        str,
        Setting(
            kinds.DOMAIN,
            "The domain a wallet signs for; empty: the host and port of web.public_url",
        ),
    ] = ""
    chain_id: Annotated[
        int, Setting(kinds.integer(1, 2**53), "The chain a wallet signs for; 42161 is Arbitrum One")
    ] = 42_161
    nonce_ms: Annotated[
        int, Setting(kinds.integer(10_000, HOUR_MS), "Time to sign before a nonce expires")
    ] = 10 * MINUTE_MS
    grace_ms: Annotated[
        int,
        Setting(
            kinds.integer(0, 30 * 24 * HOUR_MS),
            "How long a rotated token goes on working, so that rotation needs no downtime",
        ),
    ] = 24 * HOUR_MS
    workers_per_address: Annotated[
        int, Setting(kinds.integer(1, 100_000), "Most workers that one address may enrol")
    ] = 200


class TlsSettings(Section, frozen=True, kw_only=True):
    """The certificate of the web pages."""

    cert: Annotated[
        Path,
        Setting(
            kinds.PATH,
            "Certificate chain (PEM); empty: the pool's own certificate, or plain HTTP where "
            "web.listen is a loopback address or web.public_url is set",
        ),
    ] = Path()
    key: Annotated[Path, Setting(kinds.PATH, "Private key (PEM) of that certificate")] = Path()


class WebSettings(Section, frozen=True, kw_only=True):
    """Dashboard, REST API and metrics."""

    listen: Annotated[HostPort, Setting(kinds.LISTEN, "Where pages and API are served")] = HostPort(
        "127.0.0.1", 8080
    )
    public_url: Annotated[
        str,
        Setting(kinds.URL, "How people reach that; empty: http(s)://<web.listen>"),
    ] = ""
    tls: TlsSettings = TlsSettings()


class DispatchSettings(Section, frozen=True, kw_only=True):
    """How jobs are handed out under their deadline."""

    answer_margin_ms: Annotated[
        int,
        Setting(
            kinds.integer(100, 8_000),
            "How long before the orchestrator gives up an answer goes back at the latest",
        ),
    ] = 1_000
    target: Annotated[
        int,
        Setting(
            kinds.RATE,
            "A worker is good enough if it will finish within this part of a segment's duration; "
            "among those, work is shared fairly. Less is faster, more is fairer to slow workers",
        ),
    ] = 550_000
    hedge: Annotated[
        bool, Setting(kinds.BOOLEAN, "Whether a slow first try is repeated on a second worker")
    ] = True
    hedge_share: Annotated[
        int, Setting(kinds.RATE, "The part of all jobs that may be repeated before they are late")
    ] = 100_000
    headroom: Annotated[
        int,
        Setting(kinds.RATE, "The part of the workers' capacity that is kept for second tries"),
    ] = 100_000
    slots_per_group: Annotated[
        int,
        Setting(
            kinds.integer(1, 1_000),
            "Sessions in one slot group; an orchestrator that gives up on a job drops one group",
        ),
    ] = 8
    attempts_max: Annotated[
        int, Setting(kinds.integer(1, 20), "Most workers on which one segment is tried")
    ] = 5
    queue_max: Annotated[
        int, Setting(kinds.integer(0, 100_000), "Most jobs waiting for a free worker")
    ] = 1_000
    cooldown_failures: Annotated[
        int, Setting(kinds.integer(1, 1_000), "Failures in a row that send a worker to cool down")
    ] = 5
    cooldown_ms: Annotated[
        int,
        Setting(
            kinds.integer(1_000, 24 * HOUR_MS),
            "The first cooling down; each further one takes twice as long",
        ),
    ] = MINUTE_MS
    session_idle_ms: Annotated[
        int,
        Setting(kinds.integer(1_000, HOUR_MS), "When a stream without segments is forgotten"),
    ] = 75_000
    drain_ms: Annotated[
        int, Setting(kinds.integer(0, 10 * MINUTE_MS), "How long running jobs may end at shutdown")
    ] = 20_000


class VerifySettings(Section, frozen=True, kw_only=True):
    """How results are opened and measured before they are delivered."""

    processes: Annotated[
        int,
        Setting(kinds.integer(0, 256), "Processes that open results; 0: one for every two cores"),
    ] = 0
    level: Annotated[
        Literal["packets", "frames"],
        Setting(
            kinds.choice("packets", "frames"),
            "packets: every frame is counted, not decoded; frames: a sample is decoded as well",
        ),
    ] = "frames"
    sample: Annotated[
        int,
        Setting(
            kinds.RATE,
            "The part of results of which frames are decoded; ten times as many of a new worker's",
        ),
    ] = 10_000
    timeout_ms: Annotated[
        int, Setting(kinds.integer(100, MINUTE_MS), "Longest time for opening one result")
    ] = 5_000


class AiPriceSettings(Section, frozen=True, kw_only=True):
    """What work of one kind costs; the row that names pipeline and model most exactly counts."""

    pipeline: Annotated[str, Setting(kinds.NAME, "What is priced: llm, speech-to-text, ocr …")]
    model: Annotated[str, Setting(kinds.MODEL, "One model; empty: all of the pipeline")] = ""
    price: Annotated[Money, Setting(kinds.MONEY, "The price of `per` units")]
    per: Annotated[
        int, Setting(kinds.integer(1, 10**15), "How many units that buys, like 1000000 tokens")
    ] = 1
    unit: Annotated[
        Unit | Literal[""],
        Setting(
            kinds.choice("", *get_args(Unit)),
            "What is counted; empty: what the pipeline is usually counted in. Orchestrators buy by "
            "request, and sessions by second",
        ),
    ] = ""


class AiTokenizerSettings(Section, frozen=True, kw_only=True):
    """The tokenizer of a model, with which the tokens that workers tell are recounted."""

    file: Annotated[Path, Setting(kinds.PATH, "A tokenizer.json, as Hugging Face has it")]
    model: Annotated[
        str, Setting(kinds.MODEL, "The model whose it is; empty: all that have none of their own")
    ] = ""


class LiveRunnerSettings(Section, frozen=True, kw_only=True):
    """Selling the workers' apps through orchestrators that run with -useLiveRunners."""

    enabled: Annotated[
        bool, Setting(kinds.BOOLEAN, "Whether apps are registered with the orchestrators")
    ] = False
    listen: Annotated[
        HostPort, Setting(kinds.LISTEN, "Where orchestrators send requests for apps")
    ] = HostPort("127.0.0.1", 8937)
    public_url: Annotated[
        str,
        Setting(kinds.URL, "How orchestrators reach that; empty: http://<ai.live_runner.listen>"),
    ] = ""


class AiSettings(Section, frozen=True, kw_only=True):
    """HTTP work: AI and whatever else travels as a request and its answer."""

    enabled: Annotated[
        bool, Setting(kinds.BOOLEAN, "Whether workers may offer apps and customers may use them")
    ] = True
    prices: tuple[AiPriceSettings, ...] = ()
    tokenizers: tuple[AiTokenizerSettings, ...] = ()
    usd_per_eth: Annotated[
        Fraction,
        Setting(kinds.NUMBER, "What one ETH is worth, for prices and limits in USD; 0: not known"),
    ] = Fraction(0)
    requests_per_minute: Annotated[
        int,
        Setting(
            kinds.integer(1, 1_000_000), "What a customer may ask who has no limit of their own"
        ),
    ] = 600
    body_bytes_max: Annotated[
        int, Setting(kinds.integer(1_000_000, 10**10), "Largest request of a customer")
    ] = 100_000_000
    timeout_ms: Annotated[
        int,
        Setting(
            kinds.integer(1_000, 24 * HOUR_MS),
            "Longest time of a single request, from its arrival to the end of its answer",
        ),
    ] = 10 * MINUTE_MS
    idle_ms: Annotated[
        int,
        Setting(
            kinds.integer(1_000, HOUR_MS),
            "How long a client may leave an answer unread, or a worker be silent within one",
        ),
    ] = MINUTE_MS
    checkpoint_ms: Annotated[
        int,
        Setting(
            kinds.integer(1_000, HOUR_MS),
            "How often it is written down what a session has used so far; if the pool dies, the "
            "session is paid up to there",
        ),
    ] = MINUTE_MS
    grpc: Annotated[
        bool,
        Setting(
            kinds.BOOLEAN,
            "Whether apps are also sold the older way, as a remote AI worker of each orchestrator, "
            "and stock AI workers may join; up to go-livepeer 0.9.1",
        ),
    ] = False
    live_runner: LiveRunnerSettings = LiveRunnerSettings()


class LimitSettings(Section, frozen=True, kw_only=True):
    """What one peer, or all together, may take."""

    memory_bytes: Annotated[
        int,
        Setting(
            kinds.integer(64_000_000, 10**13),
            "Memory for the segments and results of running jobs",
        ),
    ] = 4_000_000_000


class LogSettings(Section, frozen=True, kw_only=True):
    """What goes to standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Setting(kinds.choice("debug", "info", "warning", "error"), "The least that is logged"),
    ] = "info"
    format: Annotated[
        Literal["auto", "json", "text"],
        Setting(
            kinds.choice("auto", "json", "text"),
            "auto: text on a terminal, JSON lines anywhere else",
        ),
    ] = "auto"


class Config(Section, frozen=True, kw_only=True):
    """All settings of a pool."""

    pool: PoolSettings = PoolSettings()
    data_dir: Annotated[
        Path, Setting(kinds.PATH, "Folder of the event log, the books and the pool's keys")
    ] = Path("data")
    commission: Annotated[int, Setting(kinds.RATE, "What the pool keeps of every fee")] = 250_000
    groups: dict[str, GroupSettings] = {}  # noqa: RUF012 - a Struct copies it
    orchestrators: tuple[OrchestratorSettings, ...] = ()
    price: PriceSettings = PriceSettings()
    workers: WorkerSettings = WorkerSettings()
    enrolment: EnrolmentSettings = EnrolmentSettings()
    web: WebSettings = WebSettings()
    dispatch: DispatchSettings = DispatchSettings()
    verify: VerifySettings = VerifySettings()
    ai: AiSettings = AiSettings()
    chain: ChainSettings = ChainSettings()
    revenue: RevenueSettings = RevenueSettings()
    payouts: PayoutSettings = PayoutSettings()
    lpt: LptSettings = LptSettings()
    statements: StatementSettings = StatementSettings()
    limits: LimitSettings = LimitSettings()
    log: LogSettings = LogSettings()

    def commission_ppm(self, group: str) -> int:
        """What the pool keeps of the fees of workers in this group."""
        found = self.groups.get(group)
        if found is None or found.commission is None:
            return self.commission
        return found.commission

    @property
    def web_url(self) -> str:
        """How people reach the pages."""
        if self.web.public_url:
            return self.web.public_url
        scheme = "https" if self.web_certificate else "http"
        return f"{scheme}://{reachable(self.web.listen)}"

    @property
    def web_certificate(self) -> Literal["", "file", "pool"]:
        """Whose certificate the pages show: that of `web.tls`, or the pool's own where people come
        from outside and no proxy encrypts for it; empty is plain HTTP."""
        if self.web.tls.cert != Path():
            return "file"
        exposed = self.web.listen.host not in LOOPBACK
        return "pool" if exposed and not self.web.public_url else ""

    @property
    def domain(self) -> str:
        """The domain that wallets sign for."""
        return self.enrolment.domain or self.web_url.split("://", 1)[1].split("/", 1)[0]

    @property
    def worker_address(self) -> HostPort:
        """How workers reach the worker port."""
        return self.workers.public_address or reachable(self.workers.listen)


def reachable(listen: HostPort) -> HostPort:
    """An address under which this machine reaches a port that it listens on."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
    return HostPort(everywhere.get(listen.host, listen.host), listen.port)
