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
            for path in PAGES:
                await page.goto(base + path)
                assert await page.evaluate(TOO_WIDE) == [], path
                assert await page.evaluate(CONTRAST) == [], path


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
