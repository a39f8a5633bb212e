"""Takes the pictures of docs/images: pages of a pool whose story `webpool` tells.

`make pictures`, or `python tests/pictures.py`; needs Chromium. Look at them before a commit.
"""

import asyncio
from pathlib import Path
from typing import Literal, NamedTuple

import webpool
from playwright.async_api import Browser, async_playwright

from openpool.demo.children import free_port
from openpool.web.storybook import CAST

CHROMIUM = "/usr/bin/chromium"
IMAGES = Path(__file__).parents[1] / "docs" / "images"
HOURS = 30
WIDTH_PX = 1280


class Picture(NamedTuple):
    """A page, and as much of it as is shown."""

    name: str
    path: str
    height_px: int
    scheme: Literal["light", "dark"] = "light"


PICTURES = (
    Picture("overview", "/overview", 970),
    Picture("money", "/money", 1180),
    Picture("worker", f"/workers/{CAST[0].id}", 1080, "dark"),
)


async def main() -> None:
    """Serve the story, take the pictures, stop."""
    port = free_port()
    async with asyncio.TaskGroup() as group:
        started = asyncio.Event()
        pool = group.create_task(webpool.main(port, HOURS, started))
        await started.wait()
        async with async_playwright() as playwright:
            chromium = await playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox"]
            )
            for picture in PICTURES:
                await take(chromium, f"http://127.0.0.1:{port}", picture)
            await chromium.close()
        pool.cancel()


async def take(chromium: Browser, base: str, picture: Picture) -> None:
    """Sign in as the operator, and photograph the top of a page once its charts are drawn."""
    page = await chromium.new_page(
        viewport={"width": WIDTH_PX, "height": picture.height_px},
        color_scheme=picture.scheme,
        locale="en-GB",
    )
    await page.goto(f"{base}/login")
    await page.get_by_label("token").fill(webpool.OPERATOR)
    await page.get_by_role("button", name="Sign in", exact=True).click()
    await page.get_by_role("heading", name="Overview").wait_for()
    await page.goto(f"{base}{picture.path}")
    charts = page.locator(".chart")
    for number in range(await charts.count()):
        await charts.nth(number).locator("canvas").wait_for(state="attached")
    await page.screenshot(path=IMAGES / f"{picture.name}.png")
    await page.close()


if __name__ == "__main__":
    asyncio.run(main())
