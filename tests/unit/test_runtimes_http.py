"""The proxy runtime in front of a real HTTP server that speaks as OpenAI does."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from runtimes import host_of, request, status, whole

from openpool.core.calls import App
from openpool.core.errors import NoCapacity, SetupError, Unavailable
from openpool.worker.offers import RuntimeSettings
from openpool.worker.runtimes.host import Host
from openpool.worker.runtimes.http import ProxySettings

APP = App("llm", "house/model")


class Upstream:
    """A server that remembers what it was asked."""

    def __init__(self) -> None:
        self.healthy = True
        self.seen: list[web.Request] = []
        self.body = b""
        self.read = 0
        self.hung_up = asyncio.Event()
        self.go_on = asyncio.Event()
        self.url = ""

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": []}, status=200 if self.healthy else 500)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        self.body = await request.read()
        response = web.StreamResponse(headers={"content-type": "text/event-stream", "x-own": "1"})
        await response.prepare(request)
        try:
            await response.write(b"data: one\n\n")
            await self.go_on.wait()
            await response.write(b"data: [DONE]\n\n")
        except (ConnectionError, asyncio.CancelledError):
            self.hung_up.set()
            raise
        return response

    async def upload(self, request: web.Request) -> web.Response:
        self.seen.append(request)
        async for chunk in request.content.iter_any():
            self.read += len(chunk)
        return web.Response(body=str(self.read).encode())

    async def status(self, request: web.Request) -> web.Response:
        self.seen.append(request)
        return web.json_response({"error": "so"}, status=int(request.match_info["code"]))

    async def broken(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-length": "100"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response


@asynccontextmanager
async def serving(sessions: int = 4, **options: str) -> AsyncIterator[tuple[Upstream, Host]]:
    """A server, and a worker that offers it."""
    upstream = Upstream()
    app = web.Application(client_max_size=1 << 30, handler_args={"handler_cancellation": True})
    app.router.add_get("/v1/models", upstream.models)
    app.router.add_post("/v1/chat/completions", upstream.chat)
    app.router.add_post("/v1/upload", upstream.upload)
    app.router.add_post("/v1/status/{code}", upstream.status)
    app.router.add_post("/v1/broken", upstream.broken)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    upstream.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    entry = RuntimeSettings(
        runtime="http",
        pipeline=APP.pipeline,
        model=APP.model,
        sessions=sessions,
        options={"url": upstream.url, **options},
    )
    try:
        async with host_of(entry, cache=Path()).running() as host:
            await offered(host, True)
            yield upstream, host
    finally:
        upstream.go_on.set()
        await runner.cleanup()


async def offered(host: Host, is_offered: bool) -> None:
    async with asyncio.timeout(15):
        async for offers in host.board:
            if bool(offers) == is_offered:
                return


def chat(**fields: object) -> bytes:
    return json.dumps({"model": APP.model, "messages": [], **fields}).encode()


async def test_a_stream_passes_through_as_it_comes() -> None:
    """The first event arrives while the server still works on the second."""
    async with serving() as (upstream, host):
        asked = request("/v1/chat/completions", chat(), app=APP, content_type="application/json")
        answer = await host.answer(asked)
        assert answer.headers["content-type"] == "text/event-stream"
        assert "x-own" not in answer.headers
        assert await anext(answer.body) == b"data: one\n\n"
        upstream.go_on.set()
        assert await whole(answer) == b"data: [DONE]\n\n"


async def test_only_harmless_headers_are_handed_on() -> None:
    """The server hears nothing of the customer or of Livepeer."""
    async with serving() as (upstream, host):
        upstream.go_on.set()
        asked = request(
            "/v1/chat/completions?x=1",
            chat(),
            app=APP,
            content_type="application/json",
            authorization="Bearer customer",
            cookie="a=b",
            livepeer_payment="secret",
            x_forwarded_for="1.2.3.4",
        )
        await whole(await host.answer(asked))
        (seen,) = upstream.seen
        assert set(map(str.lower, seen.headers)) <= {
            "host", "content-type", "content-length", "accept", "transfer-encoding",
        }  # fmt: skip
        assert seen.query_string == "x=1"


async def test_the_models_name_is_changed_and_nothing_else() -> None:
    """The server gets its own name for the model, and every other field byte for byte."""
    async with serving(upstream_model="/models/own.gguf") as (upstream, host):
        upstream.go_on.set()
        body = chat(temperature=0.30, seed=12345678901234567890, text="é")
        asked = request("/v1/chat/completions", body, app=APP, content_type="application/json")
        await whole(await host.answer(asked))
        assert json.loads(upstream.body) == json.loads(body) | {"model": "/models/own.gguf"}
        assert b"12345678901234567890" in upstream.body


async def test_garbage_json_is_refused_before_the_server_sees_it() -> None:
    """What has to be read must be readable."""
    async with serving(upstream_model="own") as (upstream, host):
        asked = request("/v1/chat/completions", b"{", app=APP, content_type="application/json")
        assert await status(host, asked) == 400
        assert upstream.seen == []


async def test_a_bearer_token_comes_from_a_file(tmp_path: Path) -> None:
    """The token is read for every request, so that it can be replaced."""
    file = tmp_path / "token"
    file.write_text("first\n")
    async with serving(token_file=str(file)) as (upstream, host):
        for token in ("first", "second"):
            file.write_text(token)
            await status(host, request("/v1/upload", b"x", app=APP))
            assert upstream.seen[-1].headers["authorization"] == f"Bearer {token}"


async def test_a_token_of_two_lines_costs_that_runtime_only(tmp_path: Path) -> None:
    """Its server is not asked, and the worker's owner reads why."""
    file = tmp_path / "token"
    file.write_text("one\ntwo\n")
    options = {"url": "http://127.0.0.1:1", "token_file": str(file)}
    entry = RuntimeSettings(runtime="http", pipeline=APP.pipeline, model=APP.model, options=options)
    async with host_of(entry, cache=tmp_path).running() as host, asyncio.timeout(5):
        while "must hold one line" not in host.faults[APP]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_length_that_is_no_number_is_not_believed() -> None:
    """What is announced in odd digits is the client's mistake."""
    async with serving() as (upstream, host):
        for length in ("\u00b2", "x", "-1"):
            asked = request("/v1/upload", b"abc", app=APP, content_length=length)
            assert await status(host, asked) == 400
        assert upstream.seen == []


async def test_whoever_hangs_up_hangs_up_at_the_server() -> None:
    """Leaving an answer closes the connection to the server within a second."""
    async with serving() as (upstream, host):
        answer = await host.answer(request("/v1/chat/completions", chat(), app=APP))
        await anext(answer.body)
        await answer.body.aclose()
        async with asyncio.timeout(1):
            await upstream.hung_up.wait()


async def test_calls_beyond_the_capacity_go_elsewhere() -> None:
    """A call's place is free once its answer is read or left."""
    async with serving(sessions=1) as (_, host):
        answer = await host.answer(request("/v1/chat/completions", chat(), app=APP))
        with pytest.raises(NoCapacity):
            await host.answer(request("/v1/upload", app=APP))
        await answer.body.aclose()
        assert await status(host, request("/v1/upload", app=APP)) == 200


async def test_a_large_upload_streams_through_up_to_its_limit() -> None:
    """A body is handed on while it comes, and cut off once it is too large."""

    async def pieces(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield bytes(1 << 20)

    async with serving(request_mb="20") as (_, host):
        answer = await host.answer(request("/v1/upload", pieces(10), app=APP))
        assert await whole(answer) == str(10 << 20).encode()
        assert await status(host, request("/v1/upload", pieces(300), app=APP)) == 413
        announced = request("/v1/upload", pieces(300), app=APP, content_length="300000000")
        assert await status(host, announced) == 413


@pytest.mark.parametrize(
    ("code", "expected"),
    [(400, 400), (422, 422), (500, 500), (401, Unavailable), (503, Unavailable), (429, NoCapacity)],
)
async def test_the_servers_errors_are_told_apart(
    code: int, expected: int | type[Exception]
) -> None:
    """The client's mistakes are answers; the server's troubles may be tried elsewhere."""
    async with serving() as (_, host):
        asked = request(f"/v1/status/{code}", app=APP)
        if isinstance(expected, int):
            assert await status(host, asked) == expected
        else:
            with pytest.raises(expected):
                await host.answer(asked)
        assert await status(host, request("/v1/upload", app=APP)) == 200


async def test_an_answer_that_breaks_off_is_no_whole_answer() -> None:
    """Whoever reads it hears that the rest is missing."""
    async with serving() as (_, host):
        answer = await host.answer(request("/v1/broken", app=APP))
        assert await anext(answer.body) == b"half"
        with pytest.raises(Unavailable, match="broke"):
            await anext(answer.body)


async def test_paths_can_be_limited() -> None:
    """Only the paths that the worker's owner allows reach the server, and none with dots."""
    async with serving(paths="/v1/upload,/v1/chat") as (upstream, host):
        for path in (
            *("/v1/status/200", "/v1/upload/../status/200", "//v1/upload"),
            *("/v1/upload/%2e%2e/status/200", "/v1/upload/%2E./status/200"),
            *("/v1/upload/.\t./status/200", "/v1/upload/%2e%09./x", "/v1/upload%2f%2E%2e"),
        ):
            assert await status(host, request(path, app=APP)) == 404
        assert upstream.seen == []
        assert await status(host, request("/v1/upload", app=APP)) == 200


async def test_an_unwell_server_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The offer goes when the health check fails, and comes back with it."""
    monkeypatch.setattr("openpool.worker.runtimes.http.HEALTH_EVERY_S", 0.05)
    async with serving() as (upstream, host):
        upstream.healthy = False
        await offered(host, False)
        assert host.faults == {APP: "its health check answers 500"}
        upstream.healthy = True
        await offered(host, True)


async def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    """It is not offered, and a call that comes all the same goes elsewhere."""
    entry = RuntimeSettings(
        runtime="http",
        pipeline=APP.pipeline,
        model=APP.model,
        options={"url": "http://127.0.0.1:1"},
    )
    async with host_of(entry, cache=tmp_path).running() as host:
        with pytest.raises(Unavailable):
            await host.answer(request("/v1/upload", app=APP))
        assert host.offers() == []


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"url": "file:///etc/passwd"},
        {"url": "http://"},
        {"url": "http://[::1"},
        {"url": "http://h:99999"},
        {"url": "http://a..b"},
        {"url": f"http://{'a' * 70}.example"},
        {"url": "http://h", "idle_s": "inf"},
        {"url": "http://h", "paths": "v1"},
        {"url": "http://h", "session": "perhaps"},
        {"url": "http://h", "request_mb": "lots"},
    ],
)
def test_settings_are_checked(options: dict[str, str]) -> None:
    """What cannot work is refused before anything starts."""
    with pytest.raises(SetupError):
        ProxySettings.from_options(options)
