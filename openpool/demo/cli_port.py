"""The orchestrator's CLI port, as far as a pool reads it: `GET /status` and `GET /metrics`.

Prices appear as `"1200"` or `"1/3"` wei per pixel, values in gwei, pixels in millions, counters
without `_total`: all as go-livepeer prints them (docs/protocol.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from aiohttp import web

from openpool.core.units import GWEI, price_text
from openpool.demo.roster import Member

VERSION = "0.9.1"
SENDER = "0x00000000000000000000000000000000000000b2"
"""The gateway that pays."""


class Books(Protocol):
    """What the CLI port shows."""

    price_wei: Fraction

    def members(self) -> Sequence[Member]: ...

    @property
    def pixels_billed(self) -> Mapping[str, int]:
        """Encoded pixels by manifest id."""

    @property
    def value_wei(self) -> Mapping[str, Fraction]:
        """Expected value of the tickets received, by manifest id."""


@dataclass(frozen=True, slots=True)
class _Metric:
    name: str
    help: str
    kind: str
    samples: Sequence[tuple[str, float]]
    """Labels beyond those that every metric has, and the value."""

    def text(self) -> str:
        lines = [
            f"# HELP livepeer_{self.name} {self.help}",
            f"# TYPE livepeer_{self.name} {self.kind}",
        ]
        for labels, value in self.samples:
            lines.append(f"livepeer_{self.name}{{{labels}}} {value!r}")
        return "\n".join(lines) + "\n"


class CliPort:
    """A plain HTTP server on loopback."""

    def __init__(self, books: Books, host: str, port: int = 0) -> None:
        """A port of 0 is chosen freely."""
        self._books = books
        self._host = host
        self._port = port
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/status", self._status)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()

    async def _status(self, request: web.Request) -> web.Response:
        return web.json_response(status(self._books))

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(text=metrics(self._books))


def status(books: Books) -> dict[str, object]:
    """The status document, field names exactly as the orchestrator's."""
    members = books.members()
    return {
        "Manifests": {},
        "InternalManifests": {},
        "StreamInfo": {},
        "OrchestratorPool": [],
        "OrchestratorPoolInfos": None,
        "Version": VERSION,
        "GolangRuntimeVersion": "none: a stand-in",
        "GOArch": "amd64",
        "GOOS": "linux",
        "RegisteredTranscodersNumber": len(members),
        "RegisteredTranscoders": [
            {"Address": member.peer, "Capacity": member.capacity} for member in members
        ],
        "LocalTranscoding": False,
        "BroadcasterPrices": {"default": price_text(books.price_wei)},
    }


def metrics(books: Books) -> str:
    """What Prometheus reads from an orchestrator that runs with `-monitor -metricsPerStream`."""
    members = books.members()
    every = 'node_id="stand-in",node_type="orch"'
    values = [
        (f'manifest_id="{_escaped(manifest)}",{every},sender="{SENDER}"', float(wei / GWEI))
        for manifest, wei in sorted(books.value_wei.items())
    ]
    pixels = [
        (f'manifest_id="{_escaped(manifest)}",{every}', count / 1e6)
        for manifest, count in sorted(books.pixels_billed.items())
    ]
    load = sum(member.load for member in members)
    capacity = sum(member.capacity for member in members)
    rows = [
        _Metric("mil_pixels_processed", "MilPixelsProcessed", "counter", pixels),
        _Metric("ticket_value_recv", "TicketValueRecv", "counter", values),
        _Metric("transcoders_capacity", "Total advertised capacity", "gauge", [(every, capacity)]),
        _Metric("transcoders_load", "Total load", "gauge", [(every, load)]),
        _Metric("transcoders_number", "Transcoders connected", "gauge", [(every, len(members))]),
    ]
    return "".join(row.text() for row in rows if row.samples)


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
