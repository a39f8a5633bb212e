"""Prices from the orchestrator."""

import asyncio
from fractions import Fraction

import pytest
from aiohttp import web

from openpool.core.facts import Fact, PriceKnown
from openpool.pool.pricing import Pricing, price_of_status, prices_of_metrics

METRICS = """\
# TYPE livepeer_ticket_value_recv counter
livepeer_ticket_value_recv{manifest_id="m1",sender="0xa"} 1.5
livepeer_ticket_value_recv{manifest_id="m1",sender="0xb"} 0.5
livepeer_ticket_value_recv{manifest_id="m2",sender="0xa"} 7
# TYPE livepeer_mil_pixels_processed counter
livepeer_mil_pixels_processed{manifest_id="m1"} 3
livepeer_mil_pixels_processed{manifest_id="m2"} 0
"""


@pytest.mark.parametrize(
    ("text", "price"), [("1200", Fraction(1200)), ("1/3", Fraction(1, 3)), ("0.25", Fraction(1, 4))]
)
def test_the_base_price_is_read_exactly(text: str, price: Fraction) -> None:
    """Whole and fractional prices come out of /status without rounding."""
    body = f'{{"BroadcasterPrices":{{"default":"{text}"}},"Version":"0.9.1"}}'.encode()
    assert price_of_status(body) == price


def test_an_orchestrator_off_chain_has_no_price() -> None:
    """Off chain the price list is empty, and nothing is made up."""
    assert price_of_status(b'{"BroadcasterPrices":{}}') is None


def test_a_stream_pays_what_its_tickets_are_worth() -> None:
    """Ticket value over billed pixels is the price; a stream without pixels has none yet."""
    assert prices_of_metrics(METRICS) == {"m1": Fraction(2 * 10**9, 3 * 10**6)}


class Asked:
    """Paths that were asked for, and a way to wait for more."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self._changed = asyncio.Event()

    def note(self, path: str) -> None:
        self.paths.append(path)
        self._changed.set()

    async def wait(self, path: str, times: int) -> None:
        async with asyncio.timeout(10):
            while self.paths.count(path) < times:
                self._changed.clear()
                await self._changed.wait()


async def serve(routes: dict[str, str], asked: Asked) -> tuple[web.AppRunner, str]:
    app = web.Application()
    for path, body in routes.items():

        async def handler(request: web.Request, body: str = body) -> web.Response:
            asked.note(request.path)
            return web.Response(text=body)

        app.router.add_get(path, handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


async def test_prices_are_told_once_until_they_change() -> None:
    """Polling a real HTTP server tells the core each price, with where it came from, only once."""
    asked = Asked()
    routes = {"/status": '{"BroadcasterPrices":{"default":"1200"}}', "/metrics": METRICS}
    runner, url = await serve(routes, asked)
    told: list[Fact] = []
    pricing = Pricing(
        orchestrator="o",
        source="metrics",
        configured=Fraction(5),
        cli_url=url,
        feed=told.append,
        poll_s=0.01,
    )
    task = asyncio.ensure_future(pricing.run())
    await asked.wait("/metrics", 4)
    task.cancel()
    await runner.cleanup()
    assert [(f.manifest, f.source) for f in told if isinstance(f, PriceKnown)] == [
        ("", "config"),
        ("", "status"),
        ("m1", "metrics"),
    ]


@pytest.mark.parametrize(
    "body", ["no JSON", '{"BroadcasterPrices":{"default":"free"}}', '{"BroadcasterPrices":3}']
)
async def test_an_answer_that_makes_no_sense_is_one_clear_sentence(body: str) -> None:
    """An unusable answer is named, with what to check, and the next look comes all the same."""
    asked = Asked()
    runner, url = await serve({"/status": body}, asked)
    told: list[Fact] = []
    pricing = Pricing(
        orchestrator="o",
        source="status",
        configured=None,
        cli_url=url,
        feed=told.append,
        poll_s=0.01,
    )
    task = asyncio.ensure_future(pricing.run())
    await asked.wait("/status", 2)
    task.cancel()
    await runner.cleanup()
    assert "status_url" in pricing.problem
    assert told == []
