"""The REST API: who may see what, what is refused, and that streams resume."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from webpool import NOW_MS, OPERATOR, bearer, running, sign

from openpool.core.events import Event, WorkerConnected
from openpool.ethereum import Account
from openpool.web.storybook import CAST, Story

STORY = Story(start_ms=NOW_MS - 3_600_000, end_ms=NOW_MS, per_minute=4).events()
OTHER_KEY = "22" * 32
NAMED = [
    "/api/v1/workers/{}",
    "/api/v1/workers/{}/earnings",
    "/api/v1/workers/{}/tokens",
    "/api/v1/series?worker={}",
    "/api/v1/events?worker={}",
    "/api/v1/events/stream?worker={}",
]
OPERATOR_ONLY = [
    "/api/v1/status",
    "/api/v1/ledger/balances",
    "/api/v1/ledger/transfers",
    "/api/v1/orchestrators",
    "/api/v1/jobs",
    "/metrics",
]


async def test_the_public_sees_totals_only(tmp_path: Path) -> None:
    """Without signing in there are totals and terms, and everything else asks to sign in."""
    async with running(tmp_path, STORY) as (pool, client):
        totals = (await client.get("/api/v1/public")).raise_for_status().json()
        assert int(totals["fees_wei"]) == int(totals["credited_wei"]) + int(
            totals["commission_wei"]
        )
        assert totals["segments"] == pool.store.counts()["job-delivered"] > 100
        terms = (await client.get("/api/v1/terms")).raise_for_status().json()
        assert terms["commission_ppm"] == 250_000
        some = CAST[0].id
        closed = OPERATOR_ONLY + [path.format(some) for path in NAMED]
        for path in [*closed, "/api/v1/workers", "/api/v1/series", "/api/v1/events", "/live"]:
            answer = await client.get(path)
            assert answer.status_code == 401, path
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["detail"].startswith("Sign in first")


async def test_the_operator_sees_everything(tmp_path: Path) -> None:
    """With the operator's token every question is answered, with exact wei as text."""
    async with running(tmp_path, STORY) as (pool, client):
        client.headers.update(bearer(OPERATOR))
        pool.live.tell(NOW_MS)
        some = CAST[0].id
        asked = OPERATOR_ONLY + [path.format(some) for path in NAMED if "stream" not in path][:2]
        for path in [*asked, "/api/v1/series?step=60"]:
            assert (await client.get(path)).status_code == 200, path
        status = (await client.get("/api/v1/status")).json()
        assert status["orchestrators_up"] == 1
        assert any(alert["title"] == "orch-chicago is down." for alert in status["alerts"])
        books = (await client.get("/api/v1/ledger/balances")).json()
        assert books["sum_wei"] == "0"
        assert sum(int(each["amount_wei"]) for each in books["balances"]) == 0
        workers = (await client.get("/api/v1/workers")).json()
        assert {each["worker"] for each in workers} == {who.id for who in CAST}
        await _check_worker(client, some)


async def _check_worker(client: httpx.AsyncClient, worker: str) -> None:
    detail = (await client.get(f"/api/v1/workers/{worker}")).json()
    assert detail["reasons"][0]["text"].startswith("It got ")
    earned, before = 0, 0
    while page := (
        await client.get(
            f"/api/v1/workers/{worker}/earnings", params={"before": before, "limit": 50}
        )
    ).json():
        earned += sum(int(each["worker_wei"]) for each in page)
        before = page[-1]["seq"]
    assert earned == int(detail["worker"]["credited_wei"]) > 0
    series = (await client.get(f"/api/v1/series?worker={worker}&step=300")).json()
    points = series["points"]
    assert {b["start_ms"] - a["start_ms"] for a, b in pairwise(points)} == {300_000}
    assert sum(int(point["worker_wei"]) for point in points) == earned


async def test_a_worker_sees_only_itself(tmp_path: Path) -> None:
    """A worker's token opens its own data; another's looks as if it did not exist."""
    async with running(tmp_path, STORY) as (pool, client):
        mine = await pool.enrol("mine")
        theirs = await pool.enrol("theirs", OTHER_KEY)
        client.headers.update(bearer(pool.tokens["mine"]))
        for path in NAMED[:-1]:
            assert (await client.get(path.format(mine))).status_code == 200, path
        for path in NAMED:
            for stranger in (theirs, CAST[0].id, "nobody", "../mine", "%00"):
                answer = await client.get(path.format(stranger))
                assert answer.status_code == 404, (path, stranger)
                assert "secret" not in answer.text
        for path in OPERATOR_ONLY:
            assert (await client.get(path)).status_code == 403, path
        listed = (await client.get("/api/v1/workers")).json()
        assert [each["worker"] for each in listed] == [mine]
        events = (await client.get("/api/v1/events")).json()
        assert {each["data"]["worker"] for each in events} == {mine}
        orders = [
            ("POST", f"/api/v1/workers/{mine}/approve", None),
            ("POST", f"/api/v1/workers/{theirs}/ban", {"reason": "envy"}),
            ("POST", "/api/v1/invites", {}),
            ("POST", f"/api/v1/workers/{theirs}/tokens", {}),
            ("DELETE", f"/api/v1/workers/{theirs}/tokens/x", None),
        ]
        for method, path, body in orders:
            answer = await client.request(method, path, json=body)
            assert answer.status_code in (403, 404), path
        assert pool.store.worker(theirs).state == "approved"  # type: ignore[union-attr]


async def test_a_wallet_signs_in_for_all_its_workers(tmp_path: Path) -> None:
    """A signature over the pool's message opens a session for the wallet's workers; once."""
    async with running(tmp_path) as (pool, client):
        ids = {await pool.enrol("one"), await pool.enrol("two")}
        await pool.enrol("other", OTHER_KEY)
        address = Account.from_key("11" * 32).address
        asked = await client.post("/api/v1/enroll/nonce", json={"address": address})
        message = asked.json()["message"]
        proof = {"message": message, "signature": sign(message)}
        answer = await client.post("/api/v1/session", json=proof)
        assert answer.status_code == 201
        assert set(answer.json()["workers"]) == ids
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        listed = (await client.get("/api/v1/workers")).json()
        assert {each["worker"] for each in listed} == ids
        answer = await client.get("/api/v1/events")
        assert answer.status_code == 403, "which of the two?"
        assert "worker=" in answer.json()["detail"]
        assert (await client.post("/api/v1/session", json=proof)).status_code == 401, "used"
        forged = {"message": message, "signature": sign(message, OTHER_KEY)}
        assert (await client.post("/api/v1/session", json=forged)).status_code == 401


async def test_joining_over_http(tmp_path: Path) -> None:
    """A private pool: nonce, signature, pending, approved by the operator, rotated, revoked."""
    async with running(tmp_path, public=False) as (_, client):
        worker, secret = await _enrol(client)
        operator = bearer(OPERATOR)
        token = (await client.get(f"/api/v1/workers/{worker}/tokens", headers=operator)).json()[0]
        assert "secret" not in json.dumps(token)
        path = f"/api/v1/workers/{worker}/approve"
        assert (await client.post(path, headers=operator)).status_code == 204
        found = (await client.get(f"/api/v1/workers/{worker}", headers=bearer(secret))).json()
        assert found["worker"]["state"] == "approved"
        made = await client.post(
            f"/api/v1/workers/{worker}/tokens", json={"label": "new"}, headers=bearer(secret)
        )
        fresh = made.json()["secret"]
        gone = f"/api/v1/workers/{worker}/tokens/{token['token']}"
        assert (await client.delete(gone, headers=bearer(fresh))).status_code == 204
        answer = await client.get("/api/v1/workers", headers=bearer(secret))
        assert answer.status_code == 401
        assert "revoked" in answer.json()["detail"]
        invited = (await client.post("/api/v1/invites", json={}, headers=operator)).json()
        assert invited["invite"] in invited["join_link"]


async def _enrol(client: httpx.AsyncClient) -> tuple[str, str]:
    address = Account.from_key("11" * 32).address
    message = (await client.post("/api/v1/enroll/nonce", json={"address": address})).json()[
        "message"
    ]
    body = {
        "message": message,
        "signature": sign(message),
        "name": "rig",
        "terms": (await client.get("/api/v1/terms")).json()["digest"],
    }
    enrolled = (await client.post("/api/v1/enroll", json=body)).json()
    assert enrolled["state"] == "pending"
    return enrolled["worker"], enrolled["secret"]


BAD_QUESTIONS = [
    ("/api/v1/events?limit=0", 400),
    ("/api/v1/events?limit=1001", 400),
    ("/api/v1/events?before=-1", 400),
    ("/api/v1/events?after=x", 400),
    ("/api/v1/series?step=61", 400),
    ("/api/v1/series?step=0", 400),
    ("/api/v1/series?start_ms=5&end_ms=4", 400),
    ("/api/v1/series?start_ms=1&step=60", 400),
    ("/api/v1/ledger/transfers?account=" + "a" * 301, 400),
    ("/api/v1/workers/" + "a" * 201, 400),
    ("/api/v1/workers/nobody", 404),
    ("/api/v1/nothing", 404),
]


async def test_bad_questions_get_one_sentence(tmp_path: Path) -> None:
    """A question that cannot be answered gets a status and a sentence, and no trace."""
    async with running(tmp_path) as (_, client):
        for path, status in BAD_QUESTIONS:
            _check_problem(await client.get(path, headers=bearer(OPERATOR)), status)
        _check_problem(await client.put("/api/v1/status", headers=bearer(OPERATOR)), 405)
        _check_problem(await client.get("/api/v1/jobs", headers={"Authorization": "Basic x"}), 401)


def _check_problem(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(answer.json()) == {"title", "status", "detail", "code"}
    assert "Traceback" not in answer.text
    assert ".py" not in answer.text
    assert len(answer.text) < 1500


BAD_BODIES = [
    (b"", 400),
    (b"{", 400),
    (b"[]", 400),
    (b'{"address": 5}', 400),
    (b'{"address": "0x12"}', 400),
    (b'{"address": "0x12", "more": 1}', 400),
    (b'{"address": "' + b"a" * 300 + b'"}', 400),
    (b'{"address": "' + b"a" * 70_000 + b'"}', 413),
    (b"\xff\xfe", 400),
]


async def test_bad_bodies_get_one_sentence(tmp_path: Path) -> None:
    """Broken, wrong and oversized JSON is refused with a sentence."""
    async with running(tmp_path) as (_, client):
        headers = {"content-type": "application/json"}
        for body, status in BAD_BODIES:
            answer = await client.post("/api/v1/enroll/nonce", content=body, headers=headers)
            _check_problem(answer, status)


async def test_a_bug_tells_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An error that is ours is logged, and the visitor learns only that it happened."""
    async with running(tmp_path) as (pool, client):

        def explode(now_ms: int) -> None:
            raise RuntimeError("the password is hunter2")

        pool.live.snapshot = explode  # type: ignore[method-assign, assignment]
        answer = await client.get("/api/v1/status", headers=bearer(OPERATOR))
        _check_problem(answer, 500)
        assert "hunter2" not in answer.text
    assert "hunter2" in capsys.readouterr().out


async def test_guessing_is_slow(tmp_path: Path) -> None:
    """After some wrong secrets a client has to wait, even with the right one."""
    async with running(tmp_path, tries=3) as (_, client):
        for _ in range(3):
            answer = await client.get("/api/v1/status", headers=bearer("wrong"))
            assert answer.status_code == 401
        answer = await client.get("/api/v1/status", headers=bearer(OPERATOR))
        _check_problem(answer, 429)
        assert answer.headers["retry-after"] == "60"


async def test_right_secrets_are_never_slowed(tmp_path: Path) -> None:
    """The limit counts wrong secrets; a busy script with the right one goes on."""
    async with running(tmp_path, tries=3) as (_, client):
        for _ in range(10):
            answer = await client.get("/api/v1/jobs", headers=bearer(OPERATOR))
            assert answer.status_code == 200


async def test_nonces_are_limited(tmp_path: Path) -> None:
    """Asking for messages to sign is limited per client."""
    async with running(tmp_path, tries=2) as (_, client):
        address = {"address": Account.from_key("11" * 32).address}
        codes = [
            (await client.post("/api/v1/enroll/nonce", json=address)).status_code for _ in range(3)
        ]
        assert codes == [200, 200, 429]


async def test_another_site_cannot_act(tmp_path: Path) -> None:
    """A change that another site's page made the browser send is refused."""
    async with running(tmp_path) as (_, client):
        body = {"secret": OPERATOR}
        foreign: list[dict[str, str]] = [
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site", "Origin": str(client.base_url)},
        ]
        for headers in foreign:
            answer = await client.post("/api/v1/session", json=body, headers=headers)
            assert answer.status_code == 403, headers
        ours = {"Origin": str(client.base_url).rstrip("/")}
        assert (await client.post("/api/v1/session", json=body, headers=ours)).status_code == 201


async def test_signing_out_ends_the_session(tmp_path: Path) -> None:
    """After DELETE the cookie opens nothing, also if it was kept."""
    async with running(tmp_path) as (_, client):
        await client.post("/api/v1/session", json={"secret": OPERATOR})
        kept = dict(client.cookies)
        assert (await client.get("/api/v1/jobs")).status_code == 200
        assert (await client.delete("/api/v1/session")).status_code == 204
        client.cookies.update(kept)
        assert (await client.get("/api/v1/jobs")).status_code == 401


async def test_a_stream_resumes(tmp_path: Path) -> None:
    """A stream that breaks goes on after the last event that was seen, losing and doubling none."""
    async with running(tmp_path, STORY[:200]) as (pool, client):
        url = "/api/v1/events/stream?after=0"
        first = [seq async for seq in _first(client, url, {}, 150)]
        later = [_connected(n) for n in range(40)]
        async with asyncio.TaskGroup() as group:
            resumed = group.create_task(
                _list(_first(client, url, {"Last-Event-ID": str(first[-1])}, 90))
            )
            await pool.append(*later)
        assert first + resumed.result() == list(range(1, 241))


async def test_a_stream_starts_now_unless_told(tmp_path: Path) -> None:
    """Without a position only what happens from now on is sent."""
    async with running(tmp_path, STORY[:50]) as (pool, client):
        async with client.stream(
            "GET", "/api/v1/events/stream", headers=bearer(OPERATOR)
        ) as answer:
            lines = answer.aiter_lines()
            assert (await anext(lines)).startswith("retry:")
            await pool.append(_connected(1))
            while not (line := await anext(lines)).startswith("id:"):
                pass
        assert line == "id: 51"
        bad = bearer(OPERATOR) | {"Last-Event-ID": "x"}
        _check_problem(await client.get("/api/v1/events/stream", headers=bad), 400)


def _connected(number: int) -> Event:
    data = WorkerConnected(
        worker="w",
        connection=str(number),
        kind="stock",
        capacity=1,
        capabilities=0,
        version="",
    )
    return Event(id=f"connected/{number}", time_ms=NOW_MS, data=data)


async def _first(
    client: httpx.AsyncClient, url: str, headers: dict[str, str], count: int
) -> AsyncIterator[int]:
    async with (
        asyncio.timeout(10),
        client.stream("GET", url, headers=bearer(OPERATOR) | headers) as answer,
        aclosing(answer.aiter_lines()) as lines,
    ):
        async for line in lines:
            if line.startswith("id: "):
                yield int(line[4:])
                count -= 1
            if not count:
                return


async def _list(items: AsyncIterator[int]) -> list[int]:
    return [item async for item in items]


async def test_streams_end_when_the_server_stops(tmp_path: Path) -> None:
    """Stopping the server ends open streams properly and at once."""
    async with asyncio.timeout(8), httpx.AsyncClient() as client:
        async with running(tmp_path) as (_, owner):
            request = client.build_request(
                "GET", f"{owner.base_url}/api/v1/events/stream", headers=bearer(OPERATOR)
            )
            answer = await client.send(request, stream=True)
            lines = answer.aiter_lines()
            assert (await anext(lines)).startswith("retry:")
        assert [line async for line in lines if line] == []


def _operations(schema: dict[str, dict[str, dict[str, dict[str, object]]]]) -> set[str]:
    return {f"{method} {path}" for path, item in schema["paths"].items() for method in item}


async def test_the_api_describes_itself(tmp_path: Path) -> None:
    """The OpenAPI document is 3.1, names every operation, and says what each does."""
    async with running(tmp_path) as (pool, client):
        schema = (await client.get("/schema/openapi.json")).raise_for_status().json()
        assert schema["openapi"].startswith("3.1")
        routes = {
            f"{method.lower()} {route.path}"
            for route in pool.app.routes
            if route.path.startswith(("/api/v1", "/statements/", "/.well-known/", "/terms.json"))
            or route.path == "/metrics"
            for method in route.methods  # type: ignore[union-attr]
            if method != "OPTIONS"
        }
        assert _operations(schema) == {re.sub(":(str|int)", "", r) for r in routes}
        for item in schema["paths"].values():
            for operation in item.values():
                assert operation["description"]
                assert "application/problem+json" in operation["responses"]["400"]["content"]
