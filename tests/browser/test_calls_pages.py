"""Models, calls, customers and live video in a real browser."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from callers import calling_pool, line_worker, offer, until
from msgspec import structs
from PIL import Image
from playwright.async_api import Browser, Page, async_playwright, expect
from test_dashboard import CHROMIUM, CONTRAST, TOO_WIDE, now_ms, sign_in, watched
from webpool import OPERATOR, WebPool, served, web_pool

from openpool.core.calls import App
from openpool.core.events import FeeCredited
from openpool.link.line import LineAnswer, LineRequest
from openpool.web.call_story import CallStory, StoryDesk
from openpool.web.storybook import CAST, Story
from openpool.wire.framing import Unpacker

pytestmark = pytest.mark.browser
PAGES = ["/overview", "/models", "/customers", "/live-video", "/events", f"/workers/{CAST[1].id}"]
FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
SESSIONS = structs.replace(offer(App("live-video-analysis", "colours/nano")), session=True)
PRICE = "    - {pipeline: live-video-analysis, price: 1000 wei}\n"


@asynccontextmanager
async def dashboard(directory: Path) -> AsyncIterator[tuple[WebPool, str, str]]:
    """A served pool with an hour of calls that ends now; the id of one that was paid."""
    now = now_ms()
    span = {"start_ms": now - 3_600_000, "end_ms": now}
    calls = CallStory(**span, per_minute=4).events()
    story = [*Story(**span, per_minute=2).events(), *calls]
    story.sort(key=lambda event: event.time_ms)
    paid = next(each.data.job for each in calls if isinstance(each.data, FeeCredited))
    async with web_pool(directory, story, clock="wall", desk=StoryDesk()) as pool:
        await pool.customers.add("Ann", requests_per_minute=0, spend_limit="20 USD")
        async with served(pool) as base:
            pool.live.tell(now)
            yield pool, base, paid


@asynccontextmanager
async def browser(*arguments: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu", *arguments]
        )
        try:
            yield chromium
        finally:
            await chromium.close()


async def operator(page: Page, base: str) -> None:
    await sign_in(page, base, OPERATOR)
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()


async def test_the_overview_shows_calls_and_fees_by_pipeline(tmp_path: Path) -> None:
    """Two more charts are drawn; the one of pipelines names those that earned."""
    async with dashboard(tmp_path) as (_, base, _paid), browser() as chromium:
        async with watched(chromium, base) as page:
            await operator(page, base)
            await expect(page.locator(".chart canvas")).to_have_count(6)
            legend = page.locator("section", has_text="Fees of AI calls by pipeline").last
            await expect(legend.get_by_text("speech-to-text")).to_be_visible()
            await page.get_by_role("link", name="Models", exact=True).first.click()
            await expect(page.get_by_text("Who serves what")).to_be_visible()


async def test_a_call_shows_how_its_fee_came_about(tmp_path: Path) -> None:
    """From the feed one comes to the call and its sums."""
    async with dashboard(tmp_path) as (_, base, _paid), browser() as chromium:
        async with watched(chromium, base) as page:
            await operator(page, base)
            await page.goto(f"{base}/events?type=call-completed")
            await page.get_by_role("link", name="call", exact=True).first.click()
            await expect(page.get_by_text("How its fee came about")).to_be_visible()
            await expect(page.get_by_text("Who tried")).to_be_visible()


async def test_a_key_is_shown_once(tmp_path: Path) -> None:
    """The operator adds a customer and sees the key; afterwards only its public part."""
    async with dashboard(tmp_path) as (pool, base, _paid), browser() as chromium:
        async with watched(chromium, base) as page:
            await operator(page, base)
            await page.get_by_role("link", name="Customers").click()
            await page.get_by_label("Name").fill("Bob's captions")
            await page.get_by_role("button", name="Add and show the key").click()
            secret = (await page.locator(".command pre").inner_text()).strip()
            assert pool.customers.admit(secret)
            await page.get_by_role("link", name="Done").click()
            await expect(page.get_by_role("heading", name="Bob's captions")).to_be_visible()
            assert secret not in await page.content()
            page.on("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))
            await page.get_by_role("button", name="Revoke").first.click()
            await expect(page.get_by_text("revoked", exact=True)).to_be_visible()


async def test_a_session_is_drawn_live(tmp_path: Path) -> None:
    """The camera's pictures reach a worker, and its boxes are drawn over the picture."""
    pictures: list[bytes] = []

    async def watch(request: LineRequest) -> LineAnswer:
        async def lines() -> AsyncIterator[bytes]:
            unpacker = Unpacker()
            async for chunk in request.body:  # type: ignore[union-attr]  # sessions have a stream
                for picture in unpacker.feed(chunk):
                    pictures.append(picture)
                    yield seen(len(pictures))

        return LineAnswer(200, {"content-type": "application/jsonl"}, lines())

    async with (
        calling_pool(tmp_path, PRICE) as running,
        line_worker(running, watch, SESSIONS),
        browser(*FAKE_CAMERA) as chromium,
    ):
        base = running.running.web_url
        async with watched(chromium, base) as page:
            await sign_in(page, base, running.process.operator_token)
            await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
            await page.goto(f"{base}/live-video")
            await page.get_by_role("button", name="Start").click()
            await expect(page.get_by_text("pictures looked at")).to_be_visible()
            await expect(page.locator("#seen")).to_have_text("ball")
            assert await page.evaluate(PAINTED) > 100
            assert pictures[0].startswith(b"\xff\xd8")
            await page.get_by_role("button", name="Stop").click()
            await expect(page.locator("#stage-note")).to_have_text("Stopped.")
        log = running.store
        await until(lambda: log.counts().get("call-completed"))
        (model,) = log.apps()
        assert (model.pipeline, model.calls) == ("live-video-analysis", 1)


async def test_a_picture_drawn_by_the_worker_is_shown(tmp_path: Path) -> None:
    """Whoever asks for it sees the worker's own picture, to the last pixel's colour."""

    async def watch(request: LineRequest) -> LineAnswer:
        async def lines() -> AsyncIterator[bytes]:
            assert "annotate=true" in request.path
            unpacker, frame = Unpacker(), -1
            async for chunk in request.body:  # type: ignore[union-attr]  # sessions have a stream
                for _ in unpacker.feed(chunk):
                    frame += 1
                    told = msgspec.json.decode(seen(frame), type=dict[str, object])
                    yield msgspec.json.encode(told | {"jpeg": purple_jpeg()}) + b"\n"

        return LineAnswer(200, {"content-type": "application/jsonl"}, lines())

    async with (
        calling_pool(tmp_path, PRICE) as running,
        line_worker(running, watch, SESSIONS),
        browser(*FAKE_CAMERA) as chromium,
    ):
        base = running.running.web_url
        async with watched(chromium, base) as page:
            await sign_in(page, base, running.process.operator_token)
            await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
            await page.goto(f"{base}/live-video")
            await page.get_by_label("Boxes are drawn by").select_option("worker")
            await page.get_by_role("button", name="Start").click()
            await expect(page.get_by_text("pictures looked at")).to_be_visible()
            await expect(page.locator("#seen")).to_have_text("ball")
            red, green, blue, _ = await page.evaluate(MIDDLE)
            assert (red > 100, green < 40, blue > 100) == (True, True, True)


def purple_jpeg() -> str:
    file = io.BytesIO()
    Image.new("RGB", (640, 480), (130, 0, 130)).save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()


def seen(frame: int) -> bytes:
    box = {"label": "ball", "score": 0.9, "x": 40, "y": 60, "w": 200, "h": 90}
    told = {"t_ms": frame * 200, "frame": frame, "width": 640, "height": 480, "boxes": [box]}
    return msgspec.json.encode(told) + b"\n"


async def test_what_goes_wrong_in_a_session_is_said(tmp_path: Path) -> None:
    """A wrong key ends the session with the pool's own sentence on the page."""
    async with (
        calling_pool(tmp_path, PRICE) as running,
        line_worker(running, never, SESSIONS),
        browser(*FAKE_CAMERA) as chromium,
    ):
        base = running.running.web_url
        async with watched(chromium, base) as page:
            await page.goto(f"{base}/live-video")
            await page.get_by_label("API key").fill("sk-wrong")
            await page.get_by_role("button", name="Start").click()
            await expect(page.locator("#stage-note")).to_contain_text("not an API key")


async def never(request: LineRequest) -> LineAnswer:
    raise AssertionError(f"{request.path} reached a worker")


async def test_call_pages_fit_a_phone_and_are_readable(tmp_path: Path) -> None:
    """On a phone nothing scrolls sideways, and in both themes all text has contrast enough."""
    async with dashboard(tmp_path) as (_, base, paid), browser() as chromium:
        for scheme in ("light", "dark"):
            phone = {"width": 390, "height": 844}
            async with watched(chromium, base, viewport=phone, color_scheme=scheme) as page:
                await operator(page, base)
                for path in [*PAGES, f"/calls/{paid}"]:
                    await page.goto(base + path)
                    assert await page.evaluate(TOO_WIDE) == [], (path, scheme)
                    assert await page.evaluate(CONTRAST) == [], (path, scheme)


PAINTED = """() => {
  const canvas = document.querySelector("#boxes");
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return data.filter((value, i) => i % 4 === 3 && value > 0).length;
}"""
MIDDLE = """() => {
  const canvas = document.querySelector("#boxes");
  return [...canvas.getContext("2d").getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data];
}"""
