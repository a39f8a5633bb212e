"""Pages about money in a real browser: they fit a phone, can be read, and their buttons work."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import expect
from test_dashboard import CONTRAST, TOO_WIDE, browser, now_ms, sign_in, watched
from webpool import OPERATOR, WebPool, served, web_pool

from openpool.web.money_story import MoneyStory
from openpool.web.storybook import CAST, Story

pytestmark = pytest.mark.browser

PAGES = ["/money", "/statements", f"/earnings?address={CAST[0].address}"]
UNFOLD = "for (const folded of document.querySelectorAll('details')) folded.open = true"
PAYOUTS = [
    "/payouts/payout-6",
    f"/payouts/payout-6?address={CAST[0].address}",
    "/payouts/payout-8",
    "/payouts/payout-10",
]
"""To many; one line of it; one that was given up; one on its way, for the second time."""


@asynccontextmanager
async def month_of_money(directory: Path) -> AsyncIterator[tuple[WebPool, str]]:
    """A served pool with a month of rounds and payouts that ends now."""
    now = now_ms()
    work = Story(start_ms=now - 3_600_000, end_ms=now, per_minute=1).events()
    story = [*work, *MoneyStory(end_ms=now, work=work).events()]
    async with (
        web_pool(directory, story, clock="wall", money=True) as pool,
        served(pool) as base,
    ):
        pool.live.tell(now)
        yield pool, base


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_they_fit_a_phone_and_can_be_read(tmp_path: Path, scheme: str) -> None:
    """No page or table is wider than the phone, and all text contrasts with what is behind it."""
    async with month_of_money(tmp_path) as (_, base), browser() as chromium:
        phone = {"width": 390, "height": 844}
        async with watched(chromium, base, viewport=phone, color_scheme=scheme) as page:
            await sign_in(page, base, OPERATOR)
            await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
            for path in [*PAGES, *PAYOUTS]:
                await page.goto(base + path)
                await page.evaluate(UNFOLD)
                assert await page.evaluate(TOO_WIDE) == [], path
                assert await page.evaluate(CONTRAST) == [], path


async def test_what_is_unfolded_stays_so(tmp_path: Path) -> None:
    """While the page refreshes itself, what somebody has opened is not closed under their eyes."""
    async with month_of_money(tmp_path) as (_, base), browser() as chromium:
        async with watched(chromium, base) as page:
            await sign_in(page, base, OPERATOR)
            await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
            await page.goto(base + PAGES[0])
            more = page.locator("details", has_text="25 rounds before").first
            await more.locator("summary", has_text="before").first.click()
            async with page.expect_response(lambda answer: answer.url.endswith(PAGES[0])):
                await page.evaluate("document.body.dispatchEvent(new Event('pool:tick'))")
            await page.wait_for_function("!document.querySelector('.htmx-request')")
            await expect(more.get_by_text("4080", exact=True)).to_be_visible()


async def test_a_payout_is_followed_from_the_list_to_its_sources(tmp_path: Path) -> None:
    """From the page of money to an order, to one of those it pays, to the payout before it."""
    async with month_of_money(tmp_path) as (_, base), browser() as chromium:
        async with watched(chromium, base) as page:
            await sign_in(page, base, OPERATOR)
            await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
            await page.goto(base + PAGES[0])
            await page.get_by_role("link", name="payout-6").click()
            await expect(page.get_by_text("It is done: in final block")).to_be_visible()
            await page.get_by_role("link", name="what it is made of").first.click()
            await expect(page.get_by_text("Set aside for this payout")).to_be_visible()
            await page.get_by_role("link", name="payout-5").click()
            await expect(page.get_by_role("heading", name="payout-5")).to_be_visible()


async def test_the_brake_works_and_a_threshold_can_be_chosen(tmp_path: Path) -> None:
    """Pause asks first; what an owner chooses is there afterwards; a statement can be had."""
    async with month_of_money(tmp_path) as (pool, base), browser() as chromium:
        async with watched(chromium, base) as page:
            await sign_in(page, base, OPERATOR)
            await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
            await page.goto(base + PAGES[0])
            page.on("dialog", lambda dialog: dialog.accept())
            await page.get_by_role("button", name="Pause").click()
            await expect(page.locator(".alert b", has_text="Payouts are paused")).to_be_visible()
            await page.get_by_role("button", name="Resume").click()
            await expect(page.get_by_role("button", name="Pause")).to_be_visible()
            await page.goto(base + PAGES[2])
            await page.get_by_label("Pay when this much is owed").fill("0.5 ETH")
            await page.get_by_role("button", name="Choose").click()
            await expect(page.get_by_label("Pay when this much is owed")).to_have_value("0.5 ETH")
            await page.goto(base + PAGES[1])
            async with page.expect_download() as download:
                await page.get_by_role("link", name="statement", exact=True).first.click()
            newest = (pool.deps.proofs.statements.rows if pool.deps.proofs else [])[-1]
            assert (await download.value).suggested_filename == f"{newest.round}.json"
