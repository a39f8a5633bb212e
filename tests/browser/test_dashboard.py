"""The dashboard in a real browser: people sign in, see things happen, and see only their own."""

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect
from webpool import OPERATOR, WebPool, served, web_pool

from openpool.core import events as e
from openpool.core.events import Event
from openpool.core.money.events import AdjustmentMade
from openpool.web.storybook import CAST, Story

pytestmark = pytest.mark.browser

CHROMIUM = Path("/usr/bin/chromium")
PAGES = ["/", "/login", "/overview", "/workers", f"/workers/{CAST[0].id}", "/events", "/ledger"]
WALLET = """
window.ethereum = { request: async ({ method, params }) =>
  method === "eth_requestAccounts" ? [%r] : await window.signWith(params[0]) };
"""

if not CHROMIUM.exists():
    pytest.skip("Chromium is not installed", allow_module_level=True)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def dashboard(directory: Path) -> AsyncIterator[tuple[WebPool, str]]:
    """A served pool with an hour of story that ends now."""
    now = now_ms()
    story = Story(start_ms=now - 3_600_000, end_ms=now, per_minute=3).events()
    async with web_pool(directory, story, clock="wall") as pool, served(pool) as base:
        pool.live.tell(now)
        yield pool, base


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=str(CHROMIUM),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        try:
            yield chromium
        finally:
            await chromium.close()


@asynccontextmanager
async def watched(chromium: Browser, base: str, **context: object) -> AsyncIterator[Page]:
    """A page that fails the test if it asks another host, or says anything to the console."""
    page = await chromium.new_page(**context)  # type: ignore[arg-type]
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith(base) else wrong.append(r.url))
    page.on("console", lambda m: wrong.append(m.text) if _is_wrong(m) else None)
    try:
        yield page
    finally:
        await page.close()
    assert wrong == []


def _is_wrong(message: ConsoleMessage) -> bool:
    """Whether the browser complains, about more than an answer that a test asked for."""
    complains = message.type in ("error", "warning")
    return complains and not message.text.startswith("Failed to load resource")


async def sign_in(page: Page, base: str, secret: str) -> None:
    await page.goto(f"{base}/login")
    await page.get_by_label("token").fill(secret)
    await page.get_by_role("button", name="Sign in", exact=True).click()


async def test_the_operator_sees_the_pool_live(tmp_path: Path) -> None:
    """The operator signs in, sees charts drawn, and an event appears without a reload."""
    async with dashboard(tmp_path) as (pool, base), browser() as chromium:
        async with watched(chromium, base) as page:
            await sign_in(page, base, OPERATOR)
            await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
            await expect(page.locator(".chart canvas")).to_have_count(4)
            throughput = re.compile(r"Chart: Throughput; delivered [0-9.]+.s, at most [0-9.]+.s")
            await expect(page.get_by_role("img", name=throughput)).to_be_visible()
            await expect(page.get_by_text("orch-chicago is down.")).to_be_visible()
            await page.get_by_role("link", name="Events", exact=True).click()
            await expect(page.locator(".live-dot")).to_have_attribute("data-state", "on")
            data = e.WorkerBanned(worker=CAST[1].id, reason="a reason to be seen live")
            await pool.append(Event(id="live/1", time_ms=now_ms(), data=data))
            await expect(page.get_by_text("a reason to be seen live")).to_be_visible()


async def test_the_feed_can_be_paused(tmp_path: Path) -> None:
    """While the feed is paused nothing moves; resuming shows what was missed."""
    async with dashboard(tmp_path) as (pool, base), browser() as chromium:
        async with watched(chromium, base) as page:
            await sign_in(page, base, OPERATOR)
            await page.goto(f"{base}/events")
            await expect(page.locator(".live-dot")).to_have_attribute("data-state", "on")
            await page.get_by_role("button", name="Pause").click()
            await expect(page.locator(".live-dot")).to_have_text("Paused")
            data = e.WorkerBanned(worker=CAST[1].id, reason="while paused")
            await pool.append(Event(id="live/2", time_ms=now_ms(), data=data))
            await expect(page.get_by_text("while paused")).to_have_count(0)
            await page.get_by_role("button", name="Resume").click()
            await expect(page.get_by_text("while paused")).to_be_visible()


async def test_a_worker_sees_only_itself(tmp_path: Path) -> None:
    """A worker's owner signs in with its token and finds its own page, and nobody else's."""
    async with dashboard(tmp_path) as (pool, base), browser() as chromium:
        await pool.enrol("my-rig")
        async with watched(chromium, base) as page:
            await sign_in(page, base, pool.tokens["my-rig"])
            await expect(page.get_by_role("heading", name="my-rig")).to_be_visible()
            await expect(page.get_by_role("link", name="Ledger")).to_have_count(0)
            await expect(page.get_by_text("Nothing earned yet")).to_be_visible()
            await page.goto(f"{base}/workers/{CAST[0].id}")
            await expect(page.get_by_text("no such worker, or it is not yours")).to_be_visible()


async def test_a_wallet_signs_in(tmp_path: Path) -> None:
    """A browser wallet (EIP-1193) signs the pool's message and opens its worker's page."""
    from webpool import sign

    from openpool.ethereum import Account

    async with dashboard(tmp_path) as (pool, base), browser() as chromium:
        await pool.enrol("wallet-rig")
        async with watched(chromium, base) as page:
            await page.expose_function(
                "signWith", lambda text: sign(bytes.fromhex(text[2:]).decode())
            )
            await page.add_init_script(WALLET % Account.from_key("11" * 32).address)
            await page.goto(f"{base}/login")
            await page.get_by_role("button", name="Sign in with a wallet").click()
            await expect(page.get_by_role("heading", name="wallet-rig")).to_be_visible()


async def test_phones_never_scroll_sideways(tmp_path: Path) -> None:
    """On a phone every page fits the width of the screen."""
    async with dashboard(tmp_path) as (_, base), browser() as chromium:
        phone = {"width": 390, "height": 844}
        async with watched(chromium, base, viewport=phone) as page:
            await sign_in(page, base, OPERATOR)
            await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
            for path in PAGES:
                await page.goto(base + path)
                assert await page.evaluate(TOO_WIDE) == [], path


async def test_pages_can_be_read_aloud(tmp_path: Path) -> None:
    """Headings are in order below one, tables have heads, whatever can be used has a name, and ids
    are there once; going through a page by keyboard, one always sees where one is."""
    async with dashboard(tmp_path) as (_, base), browser() as chromium:
        async with watched(chromium, base) as page:
            await sign_in(page, base, OPERATOR)
            await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
            for path in [*PAGES, f"/earnings?address={CAST[0].address}", "/earnings", "/nothing"]:
                await page.goto(base + path)
                assert await page.evaluate(UNSAID) == [], path
                for _ in range(12):
                    await page.keyboard.press("Tab")
                    assert await page.evaluate(OUTLINED), path


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_is_readable(tmp_path: Path, scheme: str) -> None:
    """In both themes all text contrasts with what is behind it (WCAG AA: 4.5 to 1)."""
    async with dashboard(tmp_path) as (_, base), browser() as chromium:
        async with watched(chromium, base, color_scheme=scheme) as page:
            await sign_in(page, base, OPERATOR)
            await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
            for path in PAGES:
                await page.goto(base + path)
                assert await page.evaluate(CONTRAST) == [], (path, scheme)


async def test_foreign_words_leave_others_in_their_places(tmp_path: Path) -> None:
    """Neither a control of direction nor Hebrew letters move the words that follow them."""
    hebrew = "\u05e9\u05dc\u05d5\u05dd"
    sums = {"debit": "fees", "credit": "worker", "amount_wei": "5000000000000000000"}
    facts = [
        e.WorkerBanned(worker=CAST[1].id, reason="\u202eabc (\u2067def)"),
        AdjustmentMade(orchestrator="o", round=1, rule=hebrew, reason="bonus", **sums),
    ]
    async with dashboard(tmp_path) as (pool, base), browser() as chromium:
        for number, data in enumerate(facts):
            await pool.append(Event(id=f"bidi/{number}", time_ms=now_ms(), data=data))
        async with watched(chromium, base) as page:
            await sign_in(page, base, OPERATOR)
            await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
            await page.goto(f"{base}/events")
            seen = await page.locator("td.what").evaluate_all(
                f"cells => cells.map({LEFT_TO_RIGHT})"
            )
            assert "banned: \ufffdabc (\ufffddef)" in seen
            assert f"{hebrew[::-1]}: 5\u202fETH from fees to worker (bonus)" in seen


TOO_WIDE = """() => [document.documentElement, ...document.querySelectorAll(".table-wrap")]
  .filter((el) => el.scrollWidth > el.clientWidth).map((el) => el.innerText.slice(0, 60))"""

UNSAID = """() => {
  const found = [];
  const every = (what) => [...document.querySelectorAll(what)];
  const seen = (what) => every(what).filter((el) => el.getClientRects().length);
  const blame = (what, wrong) => found.push(...seen(what).filter(wrong).map((el) => el.outerHTML));
  const levels = seen("h1, h2, h3, h4").map((heading) => Number(heading.tagName[1]));
  levels.forEach((level, i) => level > (levels[i - 1] || 0) + 1 && found.push(`heading ${i}`));
  if (levels.filter((level) => level === 1).length !== 1) found.push("not one heading of the page");
  blame("input, select, textarea", (el) => !el.labels.length);
  blame("a, button", (el) => !el.textContent.trim() && !el.getAttribute("aria-label"));
  blame("th", (el) => !el.textContent.trim());
  const isPart = (el) => el.parentElement.closest("table");  // has the heads above it
  blame("table", (el) => !el.querySelector("th") && !isPart(el));
  const ids = every("[id]").map((el) => el.id);
  return [...found, ...ids.filter((id, i) => ids.indexOf(id) !== i)];
}"""
OUTLINED = """() => {
  const el = document.activeElement;
  return el === document.body || getComputedStyle(el).outlineStyle !== "none";
}"""

LEFT_TO_RIGHT = """(cell) => {
  const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
  const range = document.createRange();
  const letters = [];
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    for (let i = 0; i < node.length; i++) {
      range.setStart(node, i);
      range.setEnd(node, i + 1);
      letters.push([range.getBoundingClientRect().left, node.data[i]]);
    }
  }
  return letters.sort((a, b) => a[0] - b[0]).map((letter) => letter[1]).join("");
}"""
"""The letters of one line as they are seen."""

CONTRAST = """() => {
  const rgba = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = (c) => {
    const [r, g, b] = c.map((v) => v / 255)
      .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (el) => {
    for (; el; el = el.parentElement) {
      const c = rgba(getComputedStyle(el).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const el of document.querySelectorAll("body *")) {
    const own = [...el.childNodes].filter((n) => n.nodeType === 3);
    const text = own.map((n) => n.data.trim()).join("");
    if (!text || !el.getClientRects().length) continue;
    const [a, b] = [rgba(getComputedStyle(el).color).slice(0, 3), behind(el)].map(light);
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) poor.push([text.slice(0, 40), el.className, contrast.toFixed(2)]);
  }
  return poor;
}"""
