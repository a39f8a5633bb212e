"""A customer of orchestrators that sell Live Runner apps: finds an app, pays, and uses it.

Asks first and pays when it is told to (402), with tickets that nobody redeems. See
docs/protocol.md, and `demo.live_runner` for the other side.
"""

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import Self

import aiohttp

from openpool.core.errors import NoCapacity, Unavailable
from openpool.core.payment import Payment
from openpool.link.tls import client_context
from openpool.wire import livepeer_pb2 as pb
from openpool.wire.payments import (
    PAYMENT_HEADER,
    SEGMENT_HEADER,
    Credentials,
    encode_credentials,
    encode_payment,
)

PAYER_HEADER = "Livepeer-Payer-Address"
SENDER = "0x00000000000000000000000000000000000000b2"
ANSWER_S = 120.0


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int
    content_type: str
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Session:
    """A reserved session. `app_url` is where its requests go."""

    id: str
    app_url: str
    control_url: str


class LiveGateway:
    """One customer. Use as `async with LiveGateway(url) as gateway:`."""

    def __init__(self, orchestrator_url: str, *, tickets: int = 1) -> None:
        """`tickets` is how many are sent for each payment."""
        self._url = orchestrator_url.rstrip("/")
        self._tickets = tickets
        self._tls = client_context(verify=False, alpn=("http/1.1",))
        self.http: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        timeout = aiohttp.ClientTimeout(total=ANSWER_S, sock_connect=5)
        self.http = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.http.close()

    async def discover(self) -> list[dict[str, object]]:
        """All runners that the orchestrator shows."""
        async with self.http.get(f"{self._url}/discovery") as response:
            entries = json.loads(await response.read())
        return [runner for entry in entries for runner in entry.get("runners") or []]

    async def find(self, app: str) -> str:
        """The URL of an app with room for one more. Unavailable if it is not sold, else
        NoCapacity."""
        runners = [runner for runner in await self.discover() if runner["app"] == app]
        if not runners:
            raise Unavailable(f"the orchestrator sells no {app}")
        for runner in runners:
            if int(str(runner["capacity_available"])) > 0:
                return str(runner["url"])
        raise NoCapacity

    @asynccontextmanager
    async def stream(
        self,
        app: str,
        path: str,
        body: bytes | AsyncIterator[bytes] | aiohttp.FormData | None = None,
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request to a single-shot app, its answer as it comes."""
        url = await self.find(app)
        paid = await self._pay(url, path)
        async with self.http.request(
            method, url + path, data=body, headers={**(headers or {}), **paid}
        ) as response:
            yield response

    async def request(
        self,
        app: str,
        path: str,
        body: bytes | AsyncIterator[bytes] | aiohttp.FormData | None = None,
        *,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request to a single-shot app."""
        async with self.stream(app, path, body, method=method, headers=headers) as response:
            return Reply(response.status, response.content_type, await response.read())

    @asynccontextmanager
    async def session(self, app: str) -> AsyncIterator[Session]:
        """Reserve a session, and stop it at the end."""
        url = await self.find(app)
        paid = await self._pay(url)
        async with self.http.post(url, headers=paid) as response:
            if response.status != 200:
                raise Unavailable(f"no session: {response.status} {await response.text()}")
            made = json.loads(await response.read())
        session = Session(made["session_id"], made["app_url"], made["control_url"])
        try:
            yield session
        finally:
            async with self.http.post(f"{session.control_url}/stop"):
                pass

    async def _pay(self, url: str, path: str = "") -> dict[str, str]:
        """The headers that pay for a request below this URL; none where nothing is to be paid."""
        if not any(
            runner["url"] == url and runner.get("price_info") for runner in await self.discover()
        ):
            return {}
        async with self.http.post(url + path, headers={PAYER_HEADER: SENDER}) as response:
            if response.status != 402:
                raise Unavailable(f"no price: {response.status} {await response.text()}")
            challenge = json.loads(await response.read())
        info = pb.OrchestratorInfo.FromString(base64.b64decode(challenge["payment_params"]))
        params, price = info.ticket_params, info.price_info
        payment = Payment(
            sender=SENDER,
            tickets=self._tickets,
            face_value_wei=int.from_bytes(params.face_value, "big"),
            win_prob=int.from_bytes(params.win_prob, "big"),
            price_wei=Fraction(price.pricePerUnit, price.pixelsPerUnit),
        )
        manifest = challenge["manifest_id"]
        credentials = Credentials(manifest=manifest, session=info.auth_token.session_id)
        return {
            PAYMENT_HEADER: encode_payment(payment),
            SEGMENT_HEADER: encode_credentials(credentials),
        }
