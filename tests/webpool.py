"""A pool's web over a real store and real enrolment, with the story of `web.storybook` in its log.

`python tests/webpool.py [PORT]` serves it for looking at; tests use `web_pool`.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import webmoney
from litestar import Litestar
from livepeer_chain import story_of_delegators

from openpool.core.call_requests import CallRequest
from openpool.core.errors import NoCapacity
from openpool.core.events import Event
from openpool.ethereum import Account, encode_defunct
from openpool.pool.customers import Customers
from openpool.pool.enrolment import Enrolment
from openpool.store.sqlite import SqliteStore
from openpool.web.app import create_app
from openpool.web.call_story import CallStory, StoryDesk
from openpool.web.delegation import Delegation
from openpool.web.interface import CallAnswer, Deps
from openpool.web.money_story import MoneyStory
from openpool.web.serve import serve
from openpool.web.storybook import COMMISSION_PPM, Story, StoryPool

OPERATOR = "opo_the-operator-token-of-the-tests"
NOW_MS = 1_795_000_000_000
TERMS = "Work honestly. The pool keeps 25 % of each fee."


@dataclass
class WebPool:
    """What a test needs."""

    store: SqliteStore
    enrolment: Enrolment
    live: StoryPool
    deps: Deps
    app: Litestar
    customers: Customers
    now_ms: int
    tokens: dict[str, str] = field(default_factory=dict)
    """Secrets by name of worker."""
    workers: dict[str, str] = field(default_factory=dict)
    """Ids by name of worker."""

    async def append(self, *events: Event) -> None:
        await self.store.append(events).durable()

    async def enrol(self, name: str, key: str = "11" * 32) -> str:
        """Enrol a worker with a wallet; returns its id."""
        account = Account.from_key(key)
        message = await self.enrolment.nonce(account.address)
        enrolled = await self.enrolment.enroll(
            message=message,
            signature=sign(message, key),
            name=name,
            terms=self.enrolment.terms().digest,
        )
        self.tokens[name], self.workers[name] = enrolled.secret, enrolled.worker
        return enrolled.worker


def sign(message: str, key: str = "11" * 32) -> str:
    signed = Account.from_key(key).sign_message(encode_defunct(text=message))
    return "0x" + bytes(signed.signature).hex()


@asynccontextmanager
async def web_pool(
    directory: Path,
    story: Iterable[Event] = (),
    *,
    now_ms: int = 0,
    public: bool = True,
    tries: int = 1000,
    clock: str = "still",
    address: str = "127.0.0.1:8080",
    desk: StoryDesk | None = None,
    delegation: Delegation | None = None,
    money: bool = False,
) -> AsyncIterator[WebPool]:
    """A pool that takes calls if there is a `desk`; `money` says that the story tells of money.

    The clock stands still at `now_ms`, or is the wall's with `clock="wall"`.
    """

    def clock_ms() -> int:
        return time.time_ns() // 1_000_000 if clock == "wall" else now_ms or NOW_MS

    async with SqliteStore(directory) as store:
        told = await webmoney.tell(store, directory, story, clock_ms) if money else None
        if told is None:
            await store.append(list(story)).durable()
        enrolment = Enrolment(
            store=store,
            appender=store,
            clock_ms=clock_ms,
            pool_name="Northern Lights",
            domain=address,
            uri=f"http://{address}",
            chain_id=42161,
            public=public,
            terms=TERMS,
            secret_key=b"k" * 32,
            commission_ppm=lambda group: COMMISSION_PPM,
        )
        await enrolment.start()
        live = StoryPool()
        customers = Customers(
            store=store,
            clock_ms=clock_ms,
            secret_key=b"k" * 32,
            requests_per_minute=60,
            wei_per_usd=lambda: 320_512_820_512_820,
        )
        await customers.start()
        deps = Deps(
            reader=store,
            subscribe=store.subscribe,
            live=live,
            enrolment=enrolment,
            operator_token_check=lambda secret: secret == OPERATOR,
            join_link=_join_link,
            clock_ms=clock_ms,
            pool_name="Northern Lights",
            version="0.1.0",
            commission_ppm=COMMISSION_PPM,
            worker_port="pool.example.org:8936",
            tries_per_minute=tries,
            customers=customers if desk else None,
            exchange=StoryExchange(desk) if desk else None,
            desk=desk,
            runners=desk.runners if desk else lambda: (),
            call_price=desk.price if desk else lambda app, source: None,
            delegation=delegation,
            revenue=told.revenue if told else None,
            payouts=told.payouts if told else None,
            proofs=told.proofs if told else None,
        )
        yield WebPool(store, enrolment, live, deps, create_app(deps), customers, clock_ms())


class StoryExchange:
    """Knows what is offered; it serves nothing, which is what other tests are for."""

    def __init__(self, desk: StoryDesk) -> None:
        self.apps = desk.apps

    def call(self, request: CallRequest, body: object) -> AbstractAsyncContextManager[CallAnswer]:
        raise NoCapacity


def _join_link(invite: str = "") -> str:
    pin = "3f" * 32
    more = f"&invite={invite}" if invite else ""
    return f"openpool://pool.example.org:8936?pin={pin}&web=https://pool.example.org{more}"


@asynccontextmanager
async def served(pool: WebPool) -> AsyncIterator[str]:
    """The pool's web on a free port; its base address."""
    started = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(serve(pool.app, "127.0.0.1", 0, started=started))
        async with asyncio.timeout(10):
            await started.wait()
        host, port = pool.app.state.address
        try:
            yield f"http://{host}:{port}"
        finally:
            task.cancel()


@asynccontextmanager
async def running(
    directory: Path,
    story: Iterable[Event] = (),
    *,
    public: bool = True,
    tries: int = 1000,
    desk: StoryDesk | None = None,
    delegation: Delegation | None = None,
) -> AsyncIterator[tuple[WebPool, httpx.AsyncClient]]:
    """A served pool and a client for it that keeps no cookies unless told."""
    async with (
        web_pool(
            directory, story, public=public, tries=tries, desk=desk, delegation=delegation
        ) as pool,
        served(pool) as base,
        httpx.AsyncClient(base_url=base, timeout=10) as client,
    ):
        yield pool, client


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def happened(ahead: list[Event], now_ms: int) -> list[Event]:
    """What has happened by now of what will, in its order; what is still to come stays in `ahead`:
    a story tells of a call at once, and it may take a minute."""
    past = sorted((each for each in ahead if each.time_ms <= now_ms), key=lambda each: each.time_ms)
    ahead[:] = [each for each in ahead if each.time_ms > now_ms]
    return past


async def main(port: int, hours: int, started: asyncio.Event) -> None:
    """Serve a story that ends now and goes on; `started` is set once it is served."""
    now_ms = time.time_ns() // 1_000_000
    story = Story(start_ms=now_ms - hours * 3_600_000, end_ms=now_ms)
    print("telling the story …", flush=True)
    calls = CallStory(start_ms=now_ms - hours * 3_600_000, end_ms=now_ms)
    work = [*story.events(), *calls.events()]
    ahead = [*work, *MoneyStory(end_ms=now_ms, work=work).events()]
    events = happened(ahead, now_ms)
    with tempfile.TemporaryDirectory() as directory:
        async with web_pool(
            Path(directory),
            events,
            clock="wall",
            address=f"127.0.0.1:{port}",
            desk=StoryDesk(),
            delegation=await story_of_delegators(),
            money=True,
        ) as pool:
            await pool.customers.add("Ann's reader", requests_per_minute=0, spend_limit="20 USD")
            await pool.customers.add(
                "Northern Subtitles", requests_per_minute=600, spend_limit="none"
            )
            pool.live.tell(now_ms)
            async with asyncio.TaskGroup() as group:
                group.create_task(serve(pool.app, "127.0.0.1", port, started=started))
                await started.wait()
                print(f"http://127.0.0.1:{port}  operator token: {OPERATOR}", flush=True)
                while True:
                    await asyncio.sleep(3)
                    now = time.time_ns() // 1_000_000
                    pool.live.tell(now)
                    ahead += [*story.segment(now - 1_500), *calls.call(now - 1_500)]
                    await pool.append(*happened(ahead, now))


if __name__ == "__main__":
    asyncio.run(
        main(
            int(sys.argv[1]) if len(sys.argv) > 1 else 8090,
            int(sys.argv[2]) if len(sys.argv) > 2 else 25,
            asyncio.Event(),
        )
    )
