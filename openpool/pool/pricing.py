"""What a pixel pays: from the configuration, or read from the orchestrator.

`status` reads the base price an orchestrator quotes (`GET /status` of its CLI port); `metrics`
reads, per stream, the expected value of the tickets it received and the pixels it billed, which
together are the price really paid. Whichever is used is recorded with every fee.
"""

import asyncio
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Literal

import aiohttp
import msgspec
import structlog
from prometheus_client.parser import text_string_to_metric_families

from openpool.core.decoding import UNREADABLE
from openpool.core.errors import reason_of
from openpool.core.facts import Fact, PriceKnown
from openpool.core.units import GWEI, price

log = structlog.get_logger()

POLL_S = 10.0
TIMEOUT_S = 5.0
BODY_BYTES_MAX = 16_000_000
VALUE = "livepeer_ticket_value_recv"
PIXELS = "livepeer_mil_pixels_processed"

PriceSource = Literal["config", "status", "metrics"]


class Status(msgspec.Struct):
    """The part of the orchestrator's status that matters here."""

    BroadcasterPrices: dict[str, str] = {}


def price_of_status(body: bytes) -> Fraction | None:
    """The base price in wei per pixel from `/status`, or None where it has none (off chain)."""
    status = msgspec.json.decode(body, type=Status)
    text = status.BroadcasterPrices.get("default")
    return None if text is None else price(text)


def prices_of_metrics(text: str) -> dict[str, Fraction]:
    """Wei per pixel really paid, by manifest, from the orchestrator's `/metrics`."""
    value = _by_manifest(text, VALUE)
    million_pixels = _by_manifest(text, PIXELS)
    return {
        manifest: value[manifest] * GWEI / (million_pixels[manifest] * 1_000_000)
        for manifest in value
        if million_pixels.get(manifest)
    }


def _by_manifest(text: str, name: str) -> dict[str, Fraction]:
    totals: dict[str, Fraction] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            manifest = sample.labels.get("manifest_id", "")
            if sample.name.removesuffix("_total") == name and manifest:
                # repr keeps every digit the orchestrator printed; money never sees the float
                amount = Fraction(repr(float(sample.value)))
                totals[manifest] = totals.get(manifest, Fraction(0)) + amount
    return totals


class Pricing:
    """Keeps the core informed of one orchestrator's prices."""

    def __init__(
        self,
        *,
        orchestrator: str,
        source: PriceSource,
        configured: Fraction | None,
        cli_url: str,
        feed: Callable[[Fact], None],
        poll_s: float = POLL_S,
    ) -> None:
        self._orchestrator = orchestrator
        self._source = source
        self._configured = configured
        self._cli_url = cli_url.rstrip("/")
        self._feed = feed
        self._poll_s = poll_s
        self._known: dict[str, Fraction] = {}
        self.problem = ""

    async def run(self) -> None:
        """Tell the configured price at once, then poll the orchestrator if that is wanted."""
        if self._configured is not None:
            self._tell([("", self._configured)], "config")
        if self._source == "config":
            return
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                await self._poll(session)
                await asyncio.sleep(self._poll_s)

    async def _poll(self, session: aiohttp.ClientSession) -> None:
        try:
            base = price_of_status(await self._get(session, "/status"))
            self._tell([] if base is None else [("", base)], "status")
            if self._source == "metrics":
                body = await self._get(session, "/metrics")
                self._tell(prices_of_metrics(body.decode()).items(), "metrics")
            self.problem = ""
        except (aiohttp.ClientError, TimeoutError, ValueError, *UNREADABLE) as error:
            self._trouble(
                f"cannot read prices from {self._cli_url} ({reason_of(error)}); check "
                "orchestrators[].status_url and that its CLI port can be reached"
            )

    def _trouble(self, problem: str) -> None:
        if problem != self.problem:
            log.warning("price-unknown", orchestrator=self._orchestrator, problem=problem)
        self.problem = problem

    async def _get(self, session: aiohttp.ClientSession, path: str) -> bytes:
        async with session.get(self._cli_url + path) as response:
            response.raise_for_status()
            body = await response.content.read(BODY_BYTES_MAX)
            while not response.content.at_eof() and len(body) < BODY_BYTES_MAX:
                body += await response.content.read(BODY_BYTES_MAX - len(body))
            return body

    def _tell(self, prices: Iterable[tuple[str, Fraction]], source: str) -> None:
        for manifest, value in prices:
            if self._known.get(manifest) != value:
                self._known[manifest] = value
                self._feed(
                    PriceKnown(
                        orchestrator=self._orchestrator,
                        manifest=manifest,
                        price_wei=value,
                        source=source,
                    )
                )
