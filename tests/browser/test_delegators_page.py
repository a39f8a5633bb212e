"""The page for delegators in a real browser, with a wallet that remembers what it was asked."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from livepeer_chain import ANN, LPT, POOL, ModelChain, network
from playwright.async_api import expect
from test_dashboard import CONTRAST, TOO_WIDE, browser, watched
from webpool import NOW_MS, served, web_pool

from openpool.core.livepeer.transactions import call_data
from openpool.treasury.delegators import Delegations
from openpool.web.app import create_app

pytestmark = pytest.mark.browser

WALLET = """
window.asked = [];
window.ethereum = { request: async ({ method, params }) => {
  window.asked.push([method, params]);
  if (method === "eth_requestAccounts") return ["%s"];
  if (method === "eth_chainId") return "0xa4b1";
  if (method === "eth_sendTransaction") return "0x" + "12".repeat(32);
  if (method === "eth_getTransactionReceipt") return { status: "0x1" };
  throw new Error("The wallet does not do " + method);
} };
"""
SENT = '() => window.asked.filter(([m]) => m === "eth_sendTransaction").map(([, [tx]]) => tx)'


@asynccontextmanager
async def delegators(directory: Path, chain: ModelChain) -> AsyncIterator[str]:
    """The address of a served pool whose orchestrator is on that chain."""
    known = Delegations(chain, chain, {POOL: "main"}, clock_ms=lambda: NOW_MS)
    await known.refresh()
    async with web_pool(directory) as pool:
        pool.app = create_app(replace(pool.deps, delegation=known))
        async with served(pool) as base:
            yield base


async def test_a_wallet_stakes(tmp_path: Path) -> None:
    """The wallet is asked to send the two transactions that the server built, in order."""
    chain = network(rounds=3, others=3)
    chain.reward(POOL)
    async with delegators(tmp_path, chain) as base, browser() as chromium:
        async with watched(chromium, base) as page:
            await page.add_init_script(WALLET % ANN)
            await page.goto(f"{base}/delegators")
            await page.get_by_role("button", name="Connect a wallet").click()
            await expect(page.get_by_text("with this orchestrator")).to_be_visible()
            await page.get_by_label("How much").fill("100")
            await page.get_by_role("button", name="Show what happens").click()
            await expect(page.locator("#calls li")).to_have_count(2)
            await page.get_by_role("button", name="Sign in the wallet").click()
            await expect(page.get_by_text("Done: it is on chain.")).to_be_visible()
            approve, bond = await page.evaluate(SENT)
            manager = chain.addresses["BondingManager"]
            data = call_data("approve(address,uint256)", manager, 100 * LPT)
            assert approve["to"] == chain.addresses["LivepeerToken"]
            assert approve["data"] == f"0x{data.hex()}"
            assert (bond["from"], bond["to"], bond["value"]) == (ANN, manager, "0x0")


async def test_a_loss_must_be_accepted(tmp_path: Path) -> None:
    """Before the reward the page names the loss; the wallet is asked once it is accepted."""
    async with delegators(tmp_path, network(rounds=3, others=3)) as base, browser() as chromium:
        async with watched(chromium, base) as page:
            await page.add_init_script(WALLET % ANN)
            await page.goto(f"{base}/delegators")
            await page.get_by_role("button", name="Connect a wallet").click()
            await page.get_by_label("What", exact=True).select_option("claim")
            await page.get_by_role("button", name="Show what happens").click()
            await expect(page.get_by_text("would be lost for good")).to_be_visible()
            await page.get_by_role("button", name="Sign in the wallet").click()
            await expect(page.get_by_text("Say first that you accept the loss")).to_be_visible()
            assert await page.evaluate(SENT) == []
            await page.get_by_label("I accept this loss").check()
            await page.get_by_role("button", name="Sign in the wallet").click()
            await expect(page.get_by_text("Done: it is on chain.")).to_be_visible()
            assert len(await page.evaluate(SENT)) == 1


async def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    """Without a wallet, and with a wish that would fail, one sentence says what is wrong."""
    async with delegators(tmp_path, network(rounds=3, others=3)) as base, browser() as chromium:
        async with watched(chromium, base) as page:
            await page.goto(f"{base}/delegators")
            await page.get_by_role("button", name="Connect a wallet").click()
            await expect(page.get_by_text("No wallet was found")).to_be_visible()
        async with watched(chromium, base) as page:
            await page.add_init_script(WALLET % ANN)
            await page.goto(f"{base}/delegators")
            await page.get_by_role("button", name="Connect a wallet").click()
            await page.get_by_label("How much").fill("999999")
            await page.get_by_role("button", name="Show what happens").click()
            await expect(page.get_by_text("that is not staked.")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_and_can_be_read(tmp_path: Path, scheme: str) -> None:
    """On a phone nothing is wider than the screen, and all text contrasts in both themes."""
    async with delegators(tmp_path, network(rounds=20, others=6)) as base, browser() as chromium:
        phone = {"width": 390, "height": 844}
        async with watched(chromium, base, viewport=phone, color_scheme=scheme) as page:
            await page.add_init_script(WALLET % ANN)
            await page.goto(f"{base}/delegators")
            await page.get_by_role("button", name="Connect a wallet").click()
            await page.get_by_role("button", name="Show what happens").click()
            await expect(page.locator("#calls li")).to_have_count(2)
            await page.get_by_text("The rounds as a table").click()
            assert await page.evaluate(TOO_WIDE) == []
            assert await page.evaluate(CONTRAST) == []
