"""Calls on the pages and in the API: models, fees explained, customers, words, metrics."""

import re
from fractions import Fraction
from pathlib import Path

import httpx
import pytest
from webpool import NOW_MS, OPERATOR, bearer, running

from openpool.core import events as e
from openpool.core.events import Event
from openpool.core.units import ETHER
from openpool.store.interface import EventFilter
from openpool.web.call_story import SERVICES, CallStory, StoryDesk
from openpool.web.format import precise
from openpool.web.metrics import PIPELINES_MAX
from openpool.web.storybook import CAST, Story
from openpool.web.words import amount, describe, level, usd

SEGMENTS = Story(start_ms=NOW_MS - 3_600_000, end_ms=NOW_MS, per_minute=1).events()
CALLS = CallStory(start_ms=NOW_MS - 3_600_000, end_ms=NOW_MS, per_minute=6).events()
STORY = sorted([*SEGMENTS, *CALLS], key=lambda event: event.time_ms)
FEES = [each.data for each in CALLS if isinstance(each.data, e.FeeCredited)]
HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>'


async def as_operator(client: httpx.AsyncClient) -> None:
    await client.post("/login", data={"secret": OPERATOR})


async def test_models_say_who_serves_what_and_what_it_costs(tmp_path: Path) -> None:
    """Every model has its servers, places, queue, estimate, price and totals."""
    async with running(tmp_path, STORY, desk=StoryDesk()) as (_, client):
        client.headers.update(bearer(OPERATOR))
        models = (await client.get("/api/v1/models")).raise_for_status().json()
        assert len(models) == len(SERVICES)
        found = {(each["pipeline"], each["model"]): each for each in models}
        for service in SERVICES:
            model = found[service.app.pipeline, service.app.model]
            assert Fraction(model["price"]["price_wei"]) == service.price_wei
            assert len(model["servers"]) == model["workers"] == len(service.servers)
            assert model["running"] == sum(each["calls"] for each in model["servers"])
            fees = [
                fee
                for fee in FEES
                if (fee.pipeline, fee.model) == (service.app.pipeline, service.app.model)
            ]
            assert int(model["fee_wei"]) == sum(int(fee.fee_wei) for fee in fees)
            assert model["calls"] == len(fees)
        await as_operator(client)
        page = (await client.get("/models")).text
        assert "kokoro-82m" in page
        assert "2\u202f048" in page


async def test_an_orchestrator_that_does_not_sell_says_why(tmp_path: Path) -> None:
    """Which apps are registered where is on the page and in the API; what is not is an alert."""
    async with running(tmp_path, STORY, desk=StoryDesk()) as (_, client):
        assert (await client.get("/api/v1/runners")).status_code == 401
        client.headers.update(bearer(OPERATOR))
        runners = (await client.get("/api/v1/runners")).raise_for_status().json()
        assert len(runners) == 2 * len(SERVICES)
        # troubles come first
        assert [not each["registered"] for each in runners] == sorted(
            (not each["registered"] for each in runners), reverse=True
        )
        status = (await client.get("/api/v1/status")).raise_for_status().json()
        (alert,) = [each for each in status["alerts"] if "does not sell" in each["title"]]
        assert alert["title"] == f"orch-chicago does not sell {len(SERVICES)} models."
        assert alert["text"].startswith("The orchestrator takes no live runners; start it with")
        assert alert["link"] == "/models"
        await as_operator(client)
        page = (await client.get("/models")).text
        assert "Sold through orchestrators" in page
        assert page.count("The orchestrator takes no live runners") == 1
        assert f"{len(SERVICES)} not registered" in page
        assert f"{len(SERVICES)} registered" in page


async def test_a_model_that_nobody_serves_any_more_stays_in_the_list(tmp_path: Path) -> None:
    """What a model earned is told after its last worker has left."""
    async with running(tmp_path, STORY) as (_, client):
        await as_operator(client)
        page = (await client.get("/models")).text
        assert "rapidocr" in page
        assert "nobody" in page


@pytest.mark.parametrize("number", [0, 5, -1])
async def test_a_fee_is_explained_to_the_last_wei(tmp_path: Path, number: int) -> None:
    """Units times price, plus what was left over, less what is, is the fee; less the commission,
    it is what the worker gets."""
    async with running(tmp_path, STORY, desk=StoryDesk()) as (_, client):
        client.headers.update(bearer(OPERATOR))
        credited = FEES[number]
        call = (await client.get(f"/api/v1/calls/{credited.job}")).raise_for_status().json()
        fee = call["fee"]
        exact = fee["units"] * Fraction(fee["price_wei"])
        assert exact == Fraction(fee["exact_wei"])
        carried = Fraction(fee["carry_in"]) - Fraction(fee["carry_out"])
        assert exact + carried == int(fee["fee_wei"]) == int(credited.fee_wei)
        assert 0 <= Fraction(fee["carry_in"]) < 1
        assert int(fee["fee_wei"]) - int(fee["commission_wei"]) == int(fee["worker_wei"])
        await as_operator(client)
        page = (await client.get(f"/calls/{credited.job}")).text
        assert "How its fee came about" in page
        assert "wei per USD" in page
        assert "answered" in page


async def test_a_call_without_a_fee_says_why(tmp_path: Path) -> None:
    """Refused, unpriced and unaccepted calls each name the reason for paying nothing."""
    asked = next(each.data for each in CALLS if isinstance(each.data, e.CallReceived))
    free = e.CallReceived(
        job="call.9-1", source="direct", customer="c_x", orchestrator="", pipeline="own",
        model="m", session="", streaming=False, deadline_ms=1, unit="request", price_wei="",
        price_source="",
    )  # fmt: skip
    refused = next(each.data for each in CALLS if isinstance(each.data, e.CallFailed))
    unaccepted = next(
        each.data
        for each in CALLS
        if isinstance(each.data, e.CallCompleted) and not each.data.checked
    )
    more = [Event(id="more/1", time_ms=NOW_MS, data=free)]
    async with running(tmp_path, [*STORY, *more], desk=StoryDesk()) as (_, client):
        await as_operator(client)
        assert asked.price_wei
        assert "It has no price" in (await client.get("/calls/call.9-1")).text
        assert "It waits for a place" in (await client.get("/calls/call.9-1")).text
        page = (await client.get(f"/calls/{refused.job}")).text
        assert "Nothing is paid for a call without an answer" in page
        page = (await client.get(f"/calls/{unaccepted.job}")).text
        assert "not accepted" in page
        html = {"accept": "text/html"}
        assert (await client.get("/calls/call.0-0", headers=html)).status_code == 404


async def test_a_session_tells_how_many_checkpoints_it_has_and_the_newest(tmp_path: Path) -> None:
    """One line on its page and one value in the API, for its worker too, and never a list."""
    async with running(tmp_path, STORY, desk=StoryDesk()) as (pool, client):
        mine, theirs = await pool.enrol("mine"), await pool.enrol("theirs", "22" * 32)
        session, other, call = "call.9-1", "call.9-10", FEES[0].job
        await pool.append(*_in_session(session, mine, 1_500), *_in_session(other, theirs, 3))
        client.headers.update(bearer(pool.tokens["mine"]))
        told = (await client.get(f"/api/v1/calls/{session}")).raise_for_status().json()
        assert told["checkpoints"] == {
            "count": 1_500, "last_ms": NOW_MS - 1_000, "unit": "second", "units": 90_000,
            "note": "after 1500 minutes",
        }  # fmt: skip
        client.headers.update(bearer(OPERATOR))
        plain = (await client.get(f"/api/v1/calls/{call}")).raise_for_status().json()
        assert plain["checkpoints"] is None
        await as_operator(client)
        page = (await client.get(f"/calls/{session}")).text
        assert "<dd>1\u202f500</dd>" in page
        assert page.count("so far, paid up to there if the pool dies") == 1
        used = amount(90_000, "second")
        assert f"{used} so far, paid" in page
        await pool.append(_ended(session, mine))
        page = (await client.get(f"/calls/{session}")).text
        assert f"{used} so far</dd>" in page
        assert "Checkpoints" not in (await client.get(f"/calls/{call}")).text


def _in_session(call: str, worker: str, minutes: int) -> list[Event]:
    """A session under way, with a checkpoint for each minute."""
    asked = e.CallReceived(
        job=call, source="direct", customer="c_x", orchestrator="", pipeline="own", model="m",
        session="live-1", streaming=True, deadline_ms=0, unit="second", price_wei="1",
        price_source="config",
    )  # fmt: skip
    given = e.CallAssigned(
        job=call, attempt=1, worker=worker, predicted_ms=0, warm=True, reason="chosen"
    )
    saved = [
        e.CallCheckpointed(
            call=call, attempt=1, worker=worker, address="0x1", commission_ppm=1, unit="second",
            units=60 * minute, note=f"after {minute} minutes", first_byte_ms=1,
        )
        for minute in range(1, minutes + 1)
    ]  # fmt: skip
    return [
        Event(id=f"{call}/received", time_ms=NOW_MS - 2_000, data=asked),
        Event(id=f"{call}/1/assigned", time_ms=NOW_MS - 2_000, data=given),
        *(
            Event(id=f"{call}/1/checkpointed/{each.units}", time_ms=NOW_MS - 1_000, data=each)
            for each in saved
        ),
    ]


def _ended(call: str, worker: str) -> Event:
    """Its end."""
    ended = e.CallCompleted(
        job=call, source="direct", customer="c_x", orchestrator="", worker=worker, attempt=1,
        pipeline="own", model="m", unit="second", units=90_001, checked=True, blamed=False,
        note="", took_ms=1, first_byte_ms=1,
    )  # fmt: skip
    return Event(id=f"{call}/completed", time_ms=NOW_MS, data=ended)


async def test_a_worker_sees_the_calls_that_it_served_and_no_others(tmp_path: Path) -> None:
    """A worker's owner may look at the fee of its own call, without what was paid upstream."""
    async with running(tmp_path, STORY, desk=StoryDesk()) as (pool, client):
        mine = await pool.enrol("mine")
        story = list(CallStory(start_ms=0, end_ms=0).call(NOW_MS - 5_000))
        moved = [_moved(event, mine) for event in story]
        await pool.append(*moved)
        client.headers.update(bearer(pool.tokens["mine"]))
        own = next(each.data.job for each in moved if isinstance(each.data, e.FeeCredited))
        asked = (await client.get(f"/api/v1/calls/{own}")).raise_for_status().json()["asked"]
        assert (asked["tickets"], asked["session"], asked["payer"]) == (0, "", "")
        other = FEES[0].job
        assert (await client.get(f"/api/v1/calls/{other}")).status_code == 404
        for path in ("/api/v1/models", "/api/v1/calls", "/api/v1/series/pipelines"):
            assert (await client.get(path)).status_code == 403, path
        answer = await client.get(f"/api/v1/workers/{mine}")
        assert answer.json()["worker"]["calls"] == 1
        earned = (await client.get(f"/api/v1/workers/{mine}/earnings")).json()
        assert earned[0]["pipeline"]


def _moved(event: Event, worker: str) -> Event:
    """The same event under another job, done by this worker."""
    changes = {"job": "call.77-1"}
    if hasattr(event.data, "worker"):
        changes["worker"] = worker
    data = type(event.data)(
        **{name: getattr(event.data, name) for name in event.data.__struct_fields__} | changes
    )
    return Event(id=f"moved/{event.id}", time_ms=event.time_ms, data=data)


async def test_a_worker_page_tells_offers_calls_and_why(tmp_path: Path) -> None:
    """The page of a worker lists what it serves and the desk's reasons."""
    async with running(tmp_path, STORY, desk=StoryDesk()) as (pool, client):
        pool.live.tell(NOW_MS)
        await as_operator(client)
        page = (await client.get(f"/workers/{CAST[1].id}")).text
        assert "What it serves" in page
        assert "kokoro-82m" in page
        assert "Why it gets few or no calls" in page
        assert 'data-chart="calls"' in page
        silent = (await client.get(f"/workers/{CAST[6].id}")).text
        assert "What it serves" not in silent


async def test_a_worker_that_only_serves_calls_is_not_offline(tmp_path: Path) -> None:
    """A line for calls is a connection, also without one for segments."""
    async with running(tmp_path, STORY, desk=StoryDesk()) as (_, client):
        client.headers.update(bearer(OPERATOR))
        worker = (await client.get(f"/api/v1/workers/{CAST[0].id}")).json()["worker"]
        assert worker["status"] == "working"
        status = (await client.get("/api/v1/status")).json()
        assert status["workers_online"] == 5
        assert status["models"] == len(SERVICES)
        assert status["calls_in_flight"] == 3
        assert status["calls_waiting"] == 3


async def test_fees_by_pipeline_add_up_to_the_fees_of_calls(tmp_path: Path) -> None:
    """The series by pipeline holds every wei that calls earned, and so do the pool's totals."""
    async with running(tmp_path, STORY, desk=StoryDesk()) as (_, client):
        client.headers.update(bearer(OPERATOR))
        span = {"start_ms": NOW_MS - 7_200_000, "end_ms": NOW_MS + 60_000, "step": 300}
        series = (await client.get("/api/v1/series/pipelines", params=span)).json()
        summed = {
            name: sum(int(point["fee_wei"][i]) for point in series["points"])
            for i, name in enumerate(series["pipelines"])
        }
        assert len(summed) == len({service.app.pipeline for service in SERVICES})
        assert sum(summed.values()) == sum(int(fee.fee_wei) for fee in FEES)
        assert list(summed.values()) == sorted(summed.values(), reverse=True)
        status = (await client.get("/api/v1/status")).json()
        paid = [each.data for each in STORY if isinstance(each.data, e.FeeCredited)]
        assert int(status["fees_wei"]) == sum(int(fee.fee_wei) for fee in paid)
        bad = await client.get("/api/v1/series/pipelines", params={**span, "step": 61})
        assert bad.status_code == 400


async def test_customers_are_managed_on_their_page(tmp_path: Path) -> None:
    """The operator adds a customer, changes limits, rotates and revokes; a key is shown once."""
    async with running(tmp_path, desk=StoryDesk()) as (pool, client):
        await as_operator(client)
        assert "No customer yet" in (await client.get("/customers")).text
        form = {"name": "Ann", "spend_limit": "20 USD", "requests_per_minute": ""}
        first = _secret((await client.post("/customers", data=form)).text)
        (ann,) = pool.customers.all()
        assert pool.customers.admit(first) == ann.customer
        assert first not in (await client.get("/customers")).text
        limits = {"spend_limit": "none", "requests_per_minute": "7"}
        await client.post(f"/customers/{ann.customer}/limits", data=limits)
        assert pool.customers.get(ann.customer).requests_per_minute == 7
        assert pool.customers.get(ann.customer).spend_limit_wei is None
        payment = {"amount": "5 ETH", "reference": "INV-7"}
        for _ in range(2):
            await client.post(f"/customers/{ann.customer}/payments", data=payment)
        assert pool.customers.get(ann.customer).owed_wei == -5 * ETHER
        assert "paid in advance" in (await client.get("/customers")).text
        (stored,) = pool.store.events(EventFilter(types=("customer-paid",)))
        assert (stored.event.data.by, stored.event.data.reference) == ("operator", "INV-7")
        answer = await client.post(f"/customers/{ann.customer}/rotate", data={"label": "new"})
        second = _secret(answer.text)
        assert pool.customers.admit(second) == ann.customer
        for key in pool.customers.keys(ann.customer):
            await client.post(f"/customers/{ann.customer}/revoke/{key.token}")
        assert "no key" in (await client.get("/customers")).text
        wrong = {**form, "requests_per_minute": "many"}
        refused = await client.post("/customers", data=wrong, headers={"accept": "text/html"})
        assert refused.status_code == 400
        assert "whole number" in refused.text


def _secret(page: str) -> str:
    (secret,) = set(re.findall(r"sk-[a-z2-7]{12}-[a-z2-7]{52}", page))
    return secret


async def test_customers_are_the_operators_business(tmp_path: Path) -> None:
    """Neither the public nor a worker sees or changes customers."""
    async with running(tmp_path, desk=StoryDesk()) as (pool, client):
        await pool.enrol("mine")
        html = {"accept": "text/html"}
        answer = await client.get("/customers", headers=html)
        assert answer.headers["location"] == "/login?next=/customers"
        await client.post("/login", data={"secret": pool.tokens["mine"]})
        assert (await client.get("/customers", headers=html)).status_code == 403
        assert (await client.post("/customers", data={"name": "x"})).status_code == 403
        assert pool.customers.all() == []


async def test_hostile_names_in_calls_stay_text(tmp_path: Path) -> None:
    """Markup in a model, a reason or a note is shown, never run."""
    asked = e.CallReceived(
        job="call.1-1", source="live-runner", customer="", orchestrator=HOSTILE, pipeline=HOSTILE,
        model=HOSTILE, session=HOSTILE, streaming=True, deadline_ms=0, unit="request",
        price_wei="1/3", price_source=HOSTILE, usd="",
    )  # fmt: skip
    given = e.CallAssigned(
        job="call.1-1", attempt=1, worker=HOSTILE, predicted_ms=1, warm=False, reason=HOSTILE
    )
    broken = e.CallAttemptFailed(
        job="call.1-1", attempt=1, worker=HOSTILE, reason=HOSTILE, blamed=True
    )
    done = e.CallCompleted(
        job="call.1-1", source="direct", customer="", orchestrator=HOSTILE, worker=HOSTILE,
        attempt=2, pipeline=HOSTILE, model=HOSTILE, unit="request", units=1, checked=True,
        blamed=False, note=HOSTILE, took_ms=3, first_byte_ms=1,
    )  # fmt: skip
    story = [
        Event(id=f"hostile/{n}", time_ms=NOW_MS + n, data=data)
        for n, data in enumerate((asked, given, broken, done))
    ]
    async with running(tmp_path, story, desk=StoryDesk()) as (_, client):
        await as_operator(client)
        for path in ("/calls/call.1-1", "/models", "/overview", "/events"):
            answer = await client.get(path)
            assert answer.status_code == 200, path
            assert "<script>alert" not in answer.text
            assert "<img src=x" not in answer.text
        assert "&lt;script&gt;" in (await client.get("/calls/call.1-1")).text


async def test_the_live_video_page_alone_may_ask_for_the_camera(tmp_path: Path) -> None:
    """Every other page forbids the camera, and no page allows scripts or styles within it."""
    async with running(tmp_path, STORY, desk=StoryDesk()) as (_, client):
        page = await client.get("/live-video")
        assert "camera=(self)" in page.headers["permissions-policy"]
        assert page.headers["content-security-policy"].startswith("default-src 'self';")
        assert "unsafe" not in page.headers["content-security-policy"]
        assert 'id="key"' in page.text
        await as_operator(client)
        assert 'id="key"' not in (await client.get("/live-video")).text
        for path in ("/models", "/customers", f"/calls/{FEES[0].job}"):
            headers = (await client.get(path)).headers
            assert "camera=()" in headers["permissions-policy"], path
            assert "blob:" not in headers["content-security-policy"], path


def test_every_event_of_a_call_is_a_sentence() -> None:
    """No event of calls or lines is shown by its bare type."""
    kinds = {}
    for event in CALLS:
        kinds[event.data.type] = describe(event.data)
    closed = e.LineClosed(worker="w", line="1-1", reason="the worker closed it")
    hung_up = e.CallFailed(
        job="c", source="direct", customer="operator", orchestrator="", pipeline="llm", model="m",
        code="cancelled", reason="the client hung up", started=True, attempts=1, took_ms=1,
    )  # fmt: skip
    kinds |= {closed.type: describe(closed), "hung-up": describe(hung_up)}
    assert len(kinds) == 11
    for kind, sentence in kinds.items():
        assert sentence, kind
        assert sentence != kind
    assert kinds["hung-up"] == "the operator hung up on llm/m"
    assert kinds["line-closed"] == "its line for calls ended: the worker closed it"
    saved = e.CallCheckpointed(
        call="c", attempt=1, worker="w", address="0x1", commission_ppm=1, unit="second",
        units=12_345, note="as counted", first_byte_ms=1,
    )  # fmt: skip
    assert describe(saved) == (
        f"goes on: {amount(12_345, 'second')} so far, paid up to there if the pool dies"
    )
    assert level("call-failed") == "bad"
    assert (amount(1, "token"), amount(2, "token")) == ("1 token", "2 tokens")


async def test_metrics_of_calls_have_few_labels(tmp_path: Path) -> None:
    """Calls are counted by pipeline and status, and a flood of pipelines shares one label."""
    async with running(tmp_path, desk=StoryDesk()) as (pool, client):
        await pool.append(*CALLS)
        done = next(each.data for each in CALLS if isinstance(each.data, e.CallCompleted))
        fields = {name: getattr(done, name) for name in done.__struct_fields__}
        flood = [
            e.CallCompleted(**fields | {"job": f"call.8-{n}", "pipeline": f"own-{n}"})
            for n in range(PIPELINES_MAX + 20)
        ]
        await pool.append(
            *(Event(id=f"flood/{n}", time_ms=NOW_MS, data=d) for n, d in enumerate(flood))
        )
        await pool.app.state.feed.changed(pool.store.head()[0] - 1)
        text = (await client.get("/metrics", headers=bearer(OPERATOR))).text
        assert 'openpool_calls_total{pipeline="llm",status="ok"}' in text
        assert 'openpool_calls_total{pipeline="other",status="ok"}' in text
        assert 'openpool_call_places{pipeline="text-to-speech"} 1.0' in text
        assert 'openpool_calls_waiting{pipeline="text-to-speech"} 3.0' in text
        labels = set(re.findall(r'openpool_calls_total\{pipeline="([^"]+)"', text))
        assert len(labels) == PIPELINES_MAX + 1
        assert CAST[0].id not in text


async def test_pages_of_calls_are_strict_and_have_live_parts(tmp_path: Path) -> None:
    """No script or style stands in them, and what htmx asks for is the part alone."""
    async with running(tmp_path, STORY, desk=StoryDesk()) as (pool, client):
        await pool.customers.add("Ann", requests_per_minute=0, spend_limit="none")
        await as_operator(client)
        for path in ("/models", "/customers", "/live-video", f"/calls/{FEES[0].job}", "/overview"):
            answer = await client.get(path, headers={"accept": "text/html"})
            assert answer.status_code == 200, path
            assert not re.search(r"<script(?![^>]*\bsrc=)", answer.text), path
            assert not re.search(r"<[^>]+\s(?:style|on\w+)=", answer.text), path
            assert not re.search(r'(?:src|href|action)="(?:https?:)?//', answer.text), path
            part = (await client.get(path, headers={"HX-Request": "true"})).text
            assert "<html" not in part
            assert len(part) > 200, path


async def test_a_pool_without_calls_says_so(tmp_path: Path) -> None:
    """Where AI is off the pages say how to turn it on, and the API has no models."""
    async with running(tmp_path) as (_, client):
        await as_operator(client)
        assert "The API is off" in (await client.get("/customers")).text
        assert "No model yet" in (await client.get("/models")).text
        assert "Nobody watches video" in (await client.get("/live-video")).text
        assert (await client.get("/api/v1/models")).json() == []
        assert "AI calls" not in (await client.get("/overview")).text


def test_exact_numbers_say_when_digits_are_left_out() -> None:
    """A fraction is shown with six decimals, an ellipsis if there are more, and itself on hover."""
    assert precise("1403/25").endswith(">56.12</span>")
    assert precise("1/3").endswith(">0.333333…</span>")
    assert 'title="exactly 1/3"' in precise("1/3")
    assert precise("12345678").endswith(">12\u202f345\u202f678</span>")
    assert usd("1/5 per 1000000", "token") == "0.2 USD per 1\u202f000\u202f000 tokens"
