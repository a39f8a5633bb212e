"""The Live Runner side of the orchestrator stand-in: runners in front, customers behind.

One port, as the real one has: `POST /runners/heartbeat` and `/runner/...` for runners, `/discovery`
and `/apps/...` for customers, whose requests it passes on to the runner with its own headers added
and theirs untouched. Texts and odd corners are the real one's (docs/protocol.md). Read on:
`demo.runner_registry` (the rules), `demo.trickle`, `demo.live_gateway` (a customer).
"""

import asyncio
import base64
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, TypeVar

import aiohttp
from aiohttp import web
from yarl import URL

from openpool.core.errors import BadMessage
from openpool.core.payment import SURE, Payment
from openpool.demo.live_proxy import Proxy
from openpool.demo.runner_registry import Refused, Registry, Runner
from openpool.demo.trickle import TrickleServer
from openpool.link.tls import load_or_create_identity, server_context
from openpool.wire import live_runner as wire
from openpool.wire import livepeer_pb2 as pb
from openpool.wire.live_runner import Heartbeat
from openpool.wire.payments import (
    PAYMENT_HEADER,
    SEGMENT_HEADER,
    Credentials,
    decode_credentials,
    decode_payment,
)

PAYER_HEADER = "Livepeer-Payer-Address"
RECIPIENT = bytes.fromhex("00" * 19 + "a1")
KEEPALIVE = b'{"keep":"alive"}'
CHANNELS_MAX = 25
BODY_BYTES_MAX = 1 << 20
FACE_VALUE_WEI = 10**15
"""What one of its tickets pays; with the price this fixes how often it wins."""

_Value = TypeVar("_Value")
_Handler = Callable[[web.Request], Any]


class LiveRunnerPort:
    """Use as `async with LiveRunnerPort(secret) as orchestrator:`."""

    def __init__(
        self,
        secret: str,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        wei_per_usd: Fraction | None = None,
        interval_s: float = 5.0,
        ttl_s: float = 20.0,
        keepalive_s: float = 10.0,
        payment_s: float = 5.0,
    ) -> None:
        """Port 0 is chosen freely, and kept over restarts. Without a rate it is off-chain: free."""
        self.host, self.port = host, port
        self.beats: list[Heartbeat] = []
        """Every heartbeat that was answered, in order."""
        self.refusals: list[tuple[str, int]] = []
        """Path and status of what was refused."""
        self.debited_wei: defaultdict[str, int] = defaultdict(int)
        """By app: what customers' balances were charged."""
        self.value_wei: defaultdict[str, Fraction] = defaultdict(Fraction)
        """By app: the expected value of the tickets that were received."""
        self._secret = secret
        self._wei_per_usd = wei_per_usd
        self._interval_s, self._ttl_s = interval_s, ttl_s
        self._keepalive_s, self._payment_s = keepalive_s, payment_s
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    # --- life ----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._group = await asyncio.TaskGroup().__aenter__()
        await self._begin_life()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._end_life()
        finally:
            await self._group.__aexit__(None, None, None)

    async def restart(self) -> None:
        """Forget everything, as a new process with a new certificate on the old port."""
        await self._end_life()
        await self._begin_life()

    async def stop(self) -> None:
        """Be away, until `restart`."""
        await self._end_life()

    async def _begin_life(self) -> None:
        with TemporaryDirectory(prefix="openpool-stand-in-") as folder:
            tls = server_context(load_or_create_identity(Path(folder), [self.host]))
        tls.set_alpn_protocols(["http/1.1"])
        self._trickle = TrickleServer()
        self._http = aiohttp.ClientSession(
            auto_decompress=False, connector=aiohttp.TCPConnector(limit=0)
        )
        self._proxy = Proxy(self._http)
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.add_routes([*self._routes(), *self._trickle.routes("/ai/trickle")])
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, max_field_size=64 << 10,
            shutdown_timeout=0.1,
        )  # fmt: skip
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port, ssl_context=tls, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.registry = Registry(
            secret=self._secret,
            url=self.url,
            trickle=self._trickle,
            wei_per_usd=self._wei_per_usd,
            interval_s=self._interval_s,
            ttl_s=self._ttl_s,
        )
        self._tasks = [
            self._group.create_task(self._sweep(self.registry)),
            self._group.create_task(self._keep_alive(self.registry)),
        ]

    async def _end_life(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._trickle.close_all()
        await self._runner.cleanup()
        await self._http.close()

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.port}"

    async def _sweep(self, registry: Registry) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            registry.sweep()
            self._tell()

    async def _keep_alive(self, registry: Registry) -> None:
        while True:
            await asyncio.sleep(self._keepalive_s)
            for runner in registry.runners.values():
                runner.o2r.write(KEEPALIVE)

    # --- what drivers and tests see ------------------------------------------------------------

    def runners(self, app: str = "") -> list[tuple[str, Runner]]:
        """Who serves now: runner id and registration."""
        return [
            (runner_id, runner)
            for runner_id, runner in self.registry.runners.items()
            if runner.serving and app in ("", runner.beat.app)
        ]

    @property
    def channels(self) -> list[str]:
        """Names of the trickle channels that are open."""
        return list(self._trickle.channels)

    async def until(self, condition: Callable[[], object], timeout_s: float = 10.0) -> None:
        """Wait until `condition` holds; looked at whenever a runner or a session comes or goes."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()

    # --- routes --------------------------------------------------------------------------------

    def _routes(self) -> Sequence[web.RouteDef]:
        runner, session = "/apps/{runner}", "/apps/{runner}/session/{session}"
        inner = "/runner/{runner}/session/{session}"
        table: list[tuple[str, str, _Handler]] = [
            ("POST", wire.HEARTBEAT_PATH, self._heartbeat),
            ("POST", "/runners/{runner}/unregister", self._unregister),
            ("POST", f"{inner}/channels", self._make_channels),
            ("POST", f"{inner}/stop", self._stop_inside),
            ("GET", "/discovery", self._discovery),
            ("POST", f"{runner}/session", self._reserve),
            ("POST", f"{session}/stop", self._stop),
            ("POST", f"{session}/payment", self._pay),
            ("*", f"{session}/app{{path:(/.*)?}}", self._proxy_session),
            ("*", f"{runner}/app{{path:(/.*)?}}", self._proxy_single),
        ]
        return [web.route(method, path, self._plain(handler)) for method, path, handler in table]

    def _plain(self, handler: _Handler) -> _Handler:
        """Refusals become what the real one answers: a status and a line of text."""

        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                response: web.StreamResponse = await handler(request)
                return response
            except Refused as refused:
                self.refusals.append((request.path, refused.status))
                return web.Response(status=refused.status, text=f"{refused}\n")
            finally:
                self._tell()

        return answer

    # --- for runners ---------------------------------------------------------------------------

    async def _heartbeat(self, request: web.Request) -> web.Response:
        beat = await _read(request, Heartbeat)
        reply = self.registry.heartbeat(beat, request.headers.get("Authorization", ""))
        self.beats.append(beat)
        return _json(reply)

    async def _unregister(self, request: web.Request) -> web.Response:
        auth = request.headers.get("Authorization", "")
        self.registry.unregister(request.match_info["runner"], auth)
        return web.Response(status=204)

    async def _make_channels(self, request: web.Request) -> web.Response:
        runner, session = self._inside(request)
        wishes = (await _read(request, wire.ChannelWishes)).channels
        if not 0 < len(wishes) <= CHANNELS_MAX:
            raise Refused(400, f"channels cannot contain more than {CHANNELS_MAX} entries")
        made = []
        for wish in wishes:
            name = f"{session}-{wish.name}"
            self._trickle.create(name, wish.mime_type or "application/octet-stream")
            runner.sessions[session].channels.append(name)
            made.append(
                wire.Channel(
                    name=wish.name,
                    channel_name=name,
                    url=f"{self.url}/ai/trickle/{name}",
                    internal_url=f"{self.url}/ai/trickle/{name}",
                    mime_type=wish.mime_type,
                )
            )
        return _json(wire.Channels(channels=made))

    async def _stop_inside(self, request: web.Request) -> web.Response:
        runner, session = self._inside(request)
        self.registry.release(runner, session)
        return web.Response(status=204)

    def _inside(self, request: web.Request) -> tuple[Runner, str]:
        runner = self.registry.serving(request.match_info["runner"])
        session = request.match_info["session"]
        self.registry.check_token(runner, session, request.headers.get(wire.TOKEN_HEADER, ""))
        return runner, session

    # --- for customers -------------------------------------------------------------------------

    async def _discovery(self, request: web.Request) -> web.Response:
        runners = list(self.registry.discovery())
        return web.json_response([{"address": self.url, "runners": runners}])

    async def _reserve(self, request: web.Request) -> web.Response:
        runner_id = request.match_info["runner"]
        runner = self.registry.serving(runner_id)
        if runner.beat.mode != "persistent":
            raise Refused(400, "only persistent runners have sessions")
        sold = self._sell(request, runner_id, runner)
        if isinstance(sold, web.Response):
            return sold
        control = f"{self.url}/apps/{runner_id}/session/{sold}"
        return web.json_response(
            {"session_id": sold, "app_url": f"{control}/app", "control_url": control}
        )

    async def _stop(self, request: web.Request) -> web.Response:
        runner = self.registry.find(request.match_info["runner"])
        self.registry.release(runner, request.match_info["session"])
        return web.Response(status=204)

    async def _pay(self, request: web.Request) -> web.Response:
        runner = self.registry.find(request.match_info["runner"])
        self.registry.session(runner, request.match_info["session"])
        payment, _ = _payment(request)
        self.value_wei[runner.beat.app] += payment.expected_value_wei
        return web.Response()

    async def _proxy_session(self, request: web.Request) -> web.StreamResponse:
        runner = self.registry.serving(request.match_info["runner"])
        session = request.match_info["session"]
        self.registry.session(runner, session)
        return await self._pass_on(request, runner, session)

    async def _proxy_single(self, request: web.Request) -> web.StreamResponse:
        runner_id = request.match_info["runner"]
        runner = self.registry.serving(runner_id)
        if runner.beat.mode != "single-shot":
            raise Refused(400, "runner is not single-shot")
        sold = self._sell(request, runner_id, runner)
        if isinstance(sold, web.Response):
            return sold
        self._tell()
        try:
            return await self._pass_on(request, runner, sold)
        finally:
            self.registry.release(runner, sold)

    async def _pass_on(
        self, request: web.Request, runner: Runner, session: str
    ) -> web.StreamResponse:
        runner_id = runner.beat.runner_id
        own = {
            wire.ROUTE_HEADER: runner_id,
            wire.SESSION_HEADER: session,
            wire.TOKEN_HEADER: runner.derive(f"session:{session}"),
            wire.CONTROL_HEADER: f"{self.url}/runner/{runner_id}/session/{session}",
        }
        target = URL(runner.beat.runner_url)
        path = "/".join([target.path.rstrip("/"), request.match_info["path"].lstrip("/")])
        query = request.rel_url.raw_query_string
        url = target.with_path(path).with_query(None)
        return await self._proxy.forward(request, f"{url}?{query}" if query else str(url), own)

    # --- money ---------------------------------------------------------------------------------

    def _sell(self, request: web.Request, runner_id: str, runner: Runner) -> str | web.Response:
        """The id of a session that was just sold, or the challenge to pay for one."""
        price = self.registry.price_wei(runner)
        if price is None:
            return self.registry.reserve(runner).id
        headers = request.headers
        if not headers.get(PAYMENT_HEADER) and not headers.get(SEGMENT_HEADER):
            return self._challenge(request, runner_id, price[0])
        payment, credentials = _payment(request)
        if credentials.manifest != credentials.session:
            raise Refused(403, "mismatched manifest and auth token")
        wei, unit = price
        if unit == "fixed" and payment.price_wei != wei:
            raise Refused(400, "payment price does not match live runner price")
        session = self.registry.reserve(runner, credentials.manifest).id
        app = runner.beat.app
        self.value_wei[app] += payment.expected_value_wei
        if unit == "fixed":
            self.debited_wei[app] += wei
        else:
            self._group.create_task(self._meter(self.registry, runner, session, wei, unit))
        return session

    async def _meter(
        self, registry: Registry, runner: Runner, session: str, wei: int, unit: str
    ) -> None:
        """Charge each whole interval; the last one that is not whole is never charged."""
        a_second = 1 if unit == "seconds" else 1280 * 720 * 30
        began = time.monotonic()
        charged_s = 0
        while True:
            await asyncio.sleep(self._payment_s)
            if registry is not self.registry or session not in runner.sessions:
                return
            elapsed_s = int(time.monotonic() - began)
            self.debited_wei[runner.beat.app] += (elapsed_s - charged_s) * a_second * wei
            charged_s = elapsed_s

    def _challenge(self, request: web.Request, runner_id: str, wei: int) -> web.Response:
        payer = request.headers.get(PAYER_HEADER, "").removeprefix("0x")
        if len(payer) != 40:
            text = "invalid live runner payment signer address"
            return web.json_response({"error": {"message": text}}, status=402)
        session = self.registry.new_session_id()
        info = pb.OrchestratorInfo(transcoder=self.url, address=RECIPIENT)
        info.auth_token.session_id = session
        info.price_info.pricePerUnit, info.price_info.pixelsPerUnit = wei, 1
        info.ticket_params.recipient = RECIPIENT
        info.ticket_params.face_value = _big(FACE_VALUE_WEI)
        info.ticket_params.win_prob = _big(SURE * min(wei, FACE_VALUE_WEI) // FACE_VALUE_WEI)
        return web.json_response(
            {
                "payment_params": base64.b64encode(info.SerializeToString()).decode(),
                "orchestrator": self.url,
                "manifest_id": session,
                "payment_url": f"{self.url}/apps/{runner_id}/session/{session}/payment",
            },
            status=402,
        )


async def _read(request: web.Request, kind: type[_Value]) -> _Value:
    try:
        return wire.decode(await request.read(), kind, "the request")
    except BadMessage as error:
        raise Refused(400, str(error)) from None


def _json(value: wire.HeartbeatReply | wire.Channels) -> web.Response:
    return web.Response(body=wire.encode(value), content_type="application/json")


def _payment(request: web.Request) -> tuple[Payment, Credentials]:
    try:
        payment = decode_payment(request.headers.get(PAYMENT_HEADER, ""))
    except BadMessage as error:
        raise Refused(402, str(error)) from None
    try:
        credentials = decode_credentials(request.headers.get(SEGMENT_HEADER, ""))
    except BadMessage as error:
        raise Refused(403, str(error)) from None
    if payment is None:
        raise Refused(402, "no payment")
    return payment, credentials


def _big(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
