"""The pages: safe against hostile names, self-contained, and of use without a script."""

import asyncio
import hashlib
import html
import re
from dataclasses import replace
from pathlib import Path

import httpx
from PIL import Image
from webpool import NOW_MS, OPERATOR, WebPool, running, served, sign, web_pool

from openpool.core import events as e
from openpool.core.events import Event
from openpool.ethereum import Account
from openpool.web.app import create_app
from openpool.web.storybook import CAST, Story

STORY = Story(start_ms=NOW_MS - 3_600_000, end_ms=NOW_MS, per_minute=2).events()
STATIC = Path(__file__).parents[2] / "openpool" / "web" / "static"
OPERATOR_PAGES = [
    *("/overview", "/workers", f"/workers/{CAST[0].id}", "/events", "/ledger", "/money"),
]
OWNERS_PAGE = f"/earnings?address={CAST[0].address}"
PUBLIC_PAGES = ["/", "/login", "/api", "/statements", "/delegators"]
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


async def as_operator(client: httpx.AsyncClient) -> None:
    answer = await client.post("/login", data={"secret": OPERATOR})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/overview"


async def test_every_page_is_self_contained_and_strict(tmp_path: Path) -> None:
    """No page names another host, no script or style stands in a page, and headers forbid both."""
    async with running(tmp_path, STORY) as (pool, client):
        pool.live.tell(NOW_MS)
        await as_operator(client)
        for path in [*PUBLIC_PAGES, *OPERATOR_PAGES, OWNERS_PAGE, "/nothing"]:
            answer = await client.get(path, headers={"accept": "text/html"})
            assert answer.status_code == (404 if path == "/nothing" else 200), path
            _check_safe(path, answer)
            linked = re.findall(r'(?:src|href)="(/static/[^"]+)"', answer.text)
            assert linked
            for asset in set(linked):
                got = await client.get(asset)
                assert got.status_code == 200, asset
                assert got.headers["x-content-type-options"] == "nosniff"


def _check_safe(path: str, answer: httpx.Response) -> None:
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    for name in ("x-content-type-options", "x-frame-options", "referrer-policy"):
        assert answer.headers[name], (path, name)
    assert answer.headers["cache-control"] == "no-store"
    page = answer.text
    assert not re.search(r'(?:src|href|action)="(?:https?:)?//', page), path
    assert not re.search(r"<script(?![^>]*\bsrc=)", page), path
    assert not re.search(r"<[^>]+\s(?:style|on\w+)=", page), path
    assert "<style" not in page


async def test_links_to_pages_show_what_they_lead_to(tmp_path: Path) -> None:
    """Every page tells its title and what it is about, whatever the pool is called; a picture only
    where the pool knows under which address others reach it."""
    async with web_pool(tmp_path, STORY) as pool:
        named = replace(pool.deps, pool_name='Ann & "Bob"', public_url="https://pool.example.org")
        for deps in (pool.deps, named):
            async with served(replace(pool, deps=deps, app=create_app(deps))) as base:
                async with httpx.AsyncClient(base_url=base) as client:
                    await as_operator(client)
                    told = [await _told(client, path) for path in (*PUBLIC_PAGES, *OPERATOR_PAGES)]
            assert all(each["og:title"] and each["og:description"] for each in told)
            assert all(each["og:site_name"] == deps.pool_name for each in told)
            assert len({each["og:description"] for each in told}) > 3
            pictures = {each.get("og:image", "") for each in told}
            assert pictures == {deps.public_url and f"{deps.public_url}/static/card.png"}
    with Image.open(STATIC / "card.png") as card:
        assert card.size == (1200, 630)


async def _told(client: httpx.AsyncClient, path: str) -> dict[str, str]:
    """What a page tells those who show a link to it."""
    page = (await client.get(path)).text
    found = dict(re.findall(r'<meta (?:name|property)="([^"]+)" content="([^"]*)">', page))
    return {name: html.unescape(content) for name, content in found.items()}


async def test_hostile_text_stays_text(tmp_path: Path) -> None:
    """Markup in a worker's name, a reason, a manifest or a filter is shown, never run."""
    worker = "w_evil"
    story: list[Event] = [
        _at(
            1, e.WorkerEnrolled(worker=worker, address="0x1", name=HOSTILE, group=HOSTILE, terms="")
        ),
        _at(2, e.WorkerApproved(worker=worker)),
        _at(3, e.AttemptFailed(job=HOSTILE, attempt=1, worker=worker, reason=HOSTILE, blamed=True)),
        _at(4, e.WorkerBanned(worker=worker, reason=HOSTILE)),
        _at(5, e.PoolStopped(epoch=1, reason=HOSTILE)),
    ]
    async with running(tmp_path, story) as (_, client):
        await as_operator(client)
        filters = {"type": HOSTILE, "worker": HOSTILE, "job": HOSTILE}
        answers = [
            await client.get("/workers"),
            await client.get(f"/workers/{worker}"),
            await client.get("/events"),
            await client.get("/events", params=filters),
            await client.get("/ledger", params={"account": HOSTILE}),
            await client.get("/login", params={"next": HOSTILE}),
            await client.post("/login", data={"secret": "x", "next": HOSTILE}),
            await client.get(f"/{HOSTILE}", headers={"accept": "text/html"}),
        ]
        assert answers[0].status_code == 200
        for answer in answers:
            assert "<script>alert" not in answer.text
            assert "<img src=x" not in answer.text
        assert "&lt;script&gt;" in answers[0].text


def _at(number: int, data: e.AnyPayload) -> Event:
    return Event(id=f"hostile/{number}", time_ms=NOW_MS - 1000 + number, data=data)


async def test_pages_ask_to_sign_in_and_come_back(tmp_path: Path) -> None:
    """A page that needs a login leads there, and after it to the page that was wanted."""
    async with running(tmp_path, STORY) as (_, client):
        for path in OPERATOR_PAGES:
            answer = await client.get(path, headers={"accept": "text/html"})
            assert answer.status_code == 303
            assert answer.headers["location"] == f"/login?next={path}"
        answer = await client.post("/login", data={"secret": OPERATOR, "next": "/ledger"})
        assert answer.headers["location"] == "/ledger"


async def test_signing_in_never_leads_elsewhere(tmp_path: Path) -> None:
    """A prepared link cannot make the sign-in send people to another site."""
    async with running(tmp_path) as (_, client):
        for bad in (
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "/\t/evil.example",
            "javascript:alert(1)",
            "/x\r\nSet-Cookie: a=b",
        ):
            answer = await client.post("/login", data={"secret": OPERATOR, "next": bad})
            assert answer.headers["location"] == "/overview", bad


async def test_a_wrong_token_says_so(tmp_path: Path) -> None:
    """A wrong secret gets the form again with a sentence, and no cookie."""
    async with running(tmp_path) as (_, client):
        answer = await client.post("/login", data={"secret": "wrong"})
        assert answer.status_code == 401
        assert 'role="alert"' in answer.text
        assert "set-cookie" not in answer.headers
        assert "wrong" not in answer.text.replace("is wrong", "")


async def test_a_worker_sees_its_own_pages_only(tmp_path: Path) -> None:
    """A worker signs in with its token, lands on its page, and no other opens."""
    async with running(tmp_path, STORY) as (pool, client):
        mine = await pool.enrol("mine")
        answer = await client.post("/login", data={"secret": pool.tokens["mine"]})
        assert answer.headers["location"] == "/workers"
        answer = await client.get("/workers", follow_redirects=True)
        assert answer.url.path == f"/workers/{mine}"
        assert "Ban this worker" not in answer.text
        html = {"accept": "text/html"}
        assert (await client.get(f"/workers/{CAST[0].id}", headers=html)).status_code == 404
        assert (await client.get("/ledger", headers=html)).status_code == 403
        events = await client.get("/events", headers=html)
        assert events.status_code == 200
        assert CAST[0].id not in events.text
        stranger = await client.get("/events", params={"worker": CAST[0].id}, headers=html)
        assert stranger.status_code == 404
        assert (await client.post(f"/workers/{mine}/approve", headers=html)).status_code == 403


async def test_an_error_keeps_people_signed_in(tmp_path: Path) -> None:
    """A page that says what went wrong has the tabs of whoever asked, and a way back to their first
    page; code in its sentence is marked."""
    async with running(tmp_path, STORY) as (pool, client):
        html = {"accept": "text/html"}
        page = (await client.get("/nothing", headers=html)).text
        assert 'action="/logout"' not in page
        assert re.search(r'<a class="button" href="/">Start page</a>', page)
        await as_operator(client)
        page = (await client.get("/nothing", headers=html)).text
        assert all(f'href="{path}"' in page for path in ("/overview", "/ledger", "/customers"))
        assert '<a class="button" href="/overview">Start page</a>' in page
        for name in ("one", "two"):
            await pool.enrol(name)
        await client.post("/login", data={"secret": pool.tokens["one"]})
        answer = await client.get(f"/workers/{CAST[0].id}", headers=html)
        assert (answer.status_code, 'action="/logout"' in answer.text) == (404, True)
        assert 'href="/ledger"' not in answer.text
        assert '<a class="button" href="/workers">Start page</a>' in answer.text
        await as_owner(client, pool)
        worker = pool.workers["two"]
        answer = await client.post(f"/workers/{worker}/revoke/none", headers=html)
        assert (answer.status_code, "no token <code>none</code>" in answer.text) == (403, True)
        assert 'action="/logout"' in answer.text


async def test_who_has_several_workers_chooses_one(tmp_path: Path) -> None:
    """Events are of one worker: an owner of two is led to the list, and sees those of each."""
    async with running(tmp_path) as (pool, client):
        workers = [await pool.enrol(name) for name in ("one", "two")]
        await as_owner(client, pool)
        answer = await client.get("/events")
        assert (answer.status_code, answer.headers["location"]) == (303, "/workers")
        listed = (await client.get("/workers")).text
        assert all(f'href="/workers/{worker}"' in listed for worker in workers)
        assert "one enrolled" in (await client.get("/events", params={"worker": workers[0]})).text


async def test_who_is_signed_in_is_not_asked_to(tmp_path: Path) -> None:
    """The first page leads strangers to the sign-in, and nobody else."""
    async with running(tmp_path) as (_, client):
        assert (await client.get("/")).text.count('href="/login"') == 2
        await as_operator(client)
        assert 'href="/login"' not in (await client.get("/")).text


async def as_owner(client: httpx.AsyncClient, pool: WebPool) -> None:
    """Sign in with the wallet that enrols."""
    message = await pool.enrolment.nonce(Account.from_key("11" * 32).address)
    signed = {"message": message, "signature": sign(message)}
    assert (await client.post("/api/v1/session", json=signed)).is_success


async def test_the_operator_decides_by_forms(tmp_path: Path) -> None:
    """Approving, banning, inviting and rotating work as plain forms; a secret is shown once."""
    async with running(tmp_path, public=False) as (pool, client):
        worker = await pool.enrol("rig")
        await as_operator(client)
        assert "waits for approval" in (await client.get("/overview")).text
        page = (await client.get(f"/workers/{worker}")).text
        assert "The operator has not approved it yet" in page
        await client.post(f"/workers/{worker}/approve")
        assert pool.store.worker(worker).state == "approved"  # type: ignore[union-attr]
        invited = await client.post("/invites")
        assert "invite=inv_" in invited.text
        rotated = (await client.post(f"/workers/{worker}/rotate")).text
        secret = re.findall(r"op_[a-z2-7]{12}_[a-z2-7]{52}", rotated)[0]
        assert secret not in (await client.get(f"/workers/{worker}")).text
        await client.post(f"/workers/{worker}/ban", data={"reason": "black frames"})
        assert pool.store.worker(worker).state == "banned"  # type: ignore[union-attr]


async def test_an_empty_pool_says_what_to_do(tmp_path: Path) -> None:
    """Before anything has happened every page tells the next step."""
    async with running(tmp_path) as (_, client):
        await as_operator(client)
        expected = {
            "/overview": "No orchestrator yet",
            "/workers": "openpool worker",
            "/events": "Everything that happens",
            "/ledger": "No money has moved yet",
            "/": "Join with one command",
        }
        for path, words in expected.items():
            assert words in (await client.get(path)).text, path
        assert "The books balance" in (await client.get("/ledger")).text


async def test_live_parts_are_parts(tmp_path: Path) -> None:
    """What htmx asks for is the part alone, with the same content as in the page."""
    async with running(tmp_path, STORY) as (_, client):
        await as_operator(client)
        for path in OPERATOR_PAGES:
            part = (await client.get(path, headers={"HX-Request": "true"})).text
            assert "<html" not in part
            assert len(part) > 200


async def test_the_live_stream_ticks_when_something_happens(tmp_path: Path) -> None:
    """A page's stream ticks for what its visitor may see."""
    async with running(tmp_path) as (pool, client), asyncio.timeout(10):
        mine = await pool.enrol("mine")
        await client.post("/login", data={"secret": pool.tokens["mine"]})
        async with client.stream("GET", "/live") as answer:
            lines = answer.aiter_lines()
            assert (await anext(lines)).startswith("retry:")
            await pool.append(_at(1, e.PoolStopped(epoch=1, reason="not its business")))
            await pool.append(_at(2, e.WorkerApproved(worker=mine)))
            seen = [line async for line in _until(lines, "data:")]
        assert seen[-1] == f"data: {pool.store.head()[0]}"


async def _until(lines, start: str):  # type: ignore[no-untyped-def]
    async for line in lines:
        yield line
        if line.startswith(start):
            return


async def test_workers_sort(tmp_path: Path) -> None:
    """The table sorts by every column, in both directions."""
    async with running(tmp_path, STORY) as (pool, client):
        pool.live.tell(NOW_MS)
        await as_operator(client)
        for sort in ("name", "status", "load", "rtf", "success", "segments", "credited", "total"):
            pages = [
                (await client.get("/workers", params={"sort": sort, "order": order})).text
                for order in ("up", "down")
            ]
            rows = [re.findall(r'<tr id="w-([^"]+)"', page) for page in pages]
            assert sorted(rows[0]) == sorted(rows[1]) == sorted(who.id for who in CAST)
            assert rows[0] != rows[1], sort
        assert 'aria-sort="descending"' in pages[1]


async def test_the_ledger_of_one_account(tmp_path: Path) -> None:
    """Choosing an account leaves its balance and its transfers; one that is none is a sentence."""
    async with running(tmp_path, STORY) as (_, client):
        await as_operator(client)
        account = f"worker:{CAST[0].address}"
        page = (await client.get("/ledger", params={"account": account})).text
        assert re.findall(r'<tr id="b-([^"]+)"', page) == [account]
        assert page.count('<tr id="t-') > 10
        assert f'href="/earnings?address={CAST[0].address}"' in page
        page = (await client.get("/ledger", params={"account": "worker:0x1"})).text
        assert "No such account" in page
        assert "<tr id=" not in page


def test_vendored_files_are_what_they_claim() -> None:
    """Every third-party file has its digest on record, and its licence beside it."""
    vendor = STATIC / "vendor"
    listed = dict(
        reversed(line.split()) for line in (vendor / "SHA256SUMS").read_text().splitlines()
    )
    present = {p.name for p in vendor.iterdir()} - {"SHA256SUMS", "README.md"}
    assert present == set(listed)
    for name, digest in listed.items():
        assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == digest, name
    assert {"htmx.LICENSE", "uPlot.LICENSE"} <= present


def test_our_own_scripts_stay_at_home() -> None:
    """No script or style of ours names another host."""
    for path in [*STATIC.glob("*.js"), *STATIC.glob("*.css")]:
        assert not re.search(r"https?://|//cdn|@import", path.read_text()), path.name
