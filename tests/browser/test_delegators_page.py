"""The page for delegators in a real browser, with a wallet that remembers what it was asked."""

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from livepeer_chain import ANN, LPT, POOL, network
from playwright.async_api import expect
from test_dashboard import CONTRAST, TOO_WIDE, browser, watched
from webpool import NOW_MS, served, web_pool

from openpool.chain.client import open_chain
from openpool.chain.livepeer import open_livepeer
from openpool.demo.evm import CHAIN_ID, FEES, Evm, Livepeer, address
from openpool.treasury.delegators import Delegations
from openpool.web.app import create_app

pytestmark = pytest.mark.browser

EXPLORER = "https://scan.example"
TX = "0x" + "12" * 32
WALLET = """
window.asked = [];
window.ethereum = { request: async ({ method, params }) => {
  window.asked.push([method, params]);
  if (method === "eth_requestAccounts") return ["%s"];
  if (method === "eth_chainId") return "0xa4b1";
  if (method === "eth_sendTransaction") return "%s";
  if (method === "eth_getTransactionReceipt") return { status: "0x1" };
  throw new Error("The wallet does not do " + method);
} };
"""
REAL_WALLET = """
window.ethereum = { request: async ({ method, params }) =>
  method === "eth_requestAccounts" ? ["%s"] : window.rpc(method, params) };
"""
SENT = '() => window.asked.filter(([m]) => m === "eth_sendTransaction").map(([, [tx]]) => tx)'


async def as_wallet(evm: Evm, method: str, params: list[Any] | None) -> Any:
    """What a wallet does: it passes requests on, and pays for gas."""
    if method == "eth_sendTransaction":
        params = [params[0] | FEES] if params else []
    return await evm.rpc(method, *(params or []))


def story(rounds: int, others: int) -> Delegations:
    """A network with a past, in which the pool has not called reward yet."""
    chain = network(rounds=rounds, others=others)
    return Delegations(chain, chain, {POOL: "main"}, clock_ms=lambda: NOW_MS)


@asynccontextmanager
async def delegators(directory: Path, known: Delegations) -> AsyncIterator[str]:
    """The address of a served pool whose orchestrator is known."""
    await known.refresh()
    async with web_pool(directory, delegation=known) as pool:
        app = create_app(dataclasses.replace(pool.deps, explorer=EXPLORER))
        async with served(dataclasses.replace(pool, app=app)) as base:
            yield base


async def test_a_wallet_stakes(tmp_path: Path, protocol: Livepeer) -> None:
    """Through the page and a wallet on a real chain, Ann delegates and sees it."""
    pool, ann = await protocol.add_orchestrator("pool", fee_share_ppm=500_000), address("ann")
    await protocol.evm.actor("ann")
    await protocol.give_lpt(ann, 300 * LPT)
    await protocol.next_round()
    await protocol.reward("pool")
    async with open_chain([protocol.evm.url], chain_id=CHAIN_ID, agree=1) as chain:
        livepeer = await open_livepeer(chain, protocol.addresses["Controller"])
        known = Delegations(chain, livepeer, {pool: "main"}, clock_ms=lambda: NOW_MS)
        async with delegators(tmp_path, known) as base, browser() as chromium:
            async with watched(chromium, base) as page:
                await page.expose_function("rpc", partial(as_wallet, protocol.evm))
                await page.add_init_script(REAL_WALLET % ann)
                await page.goto(f"{base}/delegators")
                await page.get_by_role("button", name="Connect a wallet").click()
                await expect(page.get_by_text("nothing", exact=True)).to_be_visible()
                await page.get_by_label("How much").fill("100.5")
                await page.get_by_role("button", name="Show what happens").click()
                await expect(page.locator("#calls li")).to_have_count(2)
                await page.get_by_role("button", name="Sign in the wallet").click()
                await expect(page.get_by_text("Done: it is on chain.")).to_be_visible()
                await expect(page.get_by_text("LPT with this orchestrator")).to_be_visible()
        account = await known.account(ann)
    assert (account.delegate, account.stake_lpt) == (pool, 100 * LPT + LPT // 2)
    assert account.balance_lpt == 300 * LPT - account.stake_lpt


async def test_a_loss_must_be_accepted(tmp_path: Path) -> None:
    """Before the reward the page names the loss; the wallet is asked once it is accepted."""
    async with delegators(tmp_path, story(3, 3)) as base, browser() as chromium:
        async with watched(chromium, base) as page:
            await page.add_init_script(WALLET % (ANN, TX))
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
            account = page.locator("#account").get_by_role("link", name=ANN)
            await expect(account).to_have_attribute("href", f"{EXPLORER}/address/{ANN}")
            await expect(account).to_have_attribute("rel", "noopener noreferrer")
            sent = page.locator("#wallet-note").get_by_role("link")
            await expect(sent).to_have_attribute("href", f"{EXPLORER}/tx/{TX}")


async def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    """Without a wallet, and with a wish that would fail, one sentence says what is wrong."""
    async with delegators(tmp_path, story(3, 3)) as base, browser() as chromium:
        async with watched(chromium, base) as page:
            await page.goto(f"{base}/delegators")
            await page.get_by_role("button", name="Connect a wallet").click()
            await expect(page.get_by_text("No wallet was found")).to_be_visible()
        async with watched(chromium, base) as page:
            await page.add_init_script(WALLET % (ANN, TX))
            await page.goto(f"{base}/delegators")
            await page.get_by_role("button", name="Connect a wallet").click()
            await page.get_by_label("How much").fill("999999")
            await page.get_by_role("button", name="Show what happens").click()
            await expect(page.get_by_text("that is not staked.")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_and_can_be_read(tmp_path: Path, scheme: str) -> None:
    """On a phone nothing is wider than the screen, and all text contrasts in both themes."""
    async with delegators(tmp_path, story(40, 24)) as base, browser() as chromium:
        phone = {"width": 390, "height": 844}
        async with watched(chromium, base, viewport=phone, color_scheme=scheme) as page:
            await page.add_init_script(WALLET % (ANN, TX))
            await page.goto(f"{base}/delegators")
            await page.get_by_role("button", name="Connect a wallet").click()
            await page.get_by_role("button", name="Show what happens").click()
            await expect(page.locator("#calls li")).to_have_count(2)
            await page.get_by_text("The rounds as a table").click()
            assert await page.evaluate(TOO_WIDE) == []
            assert await page.evaluate(CONTRAST) == []
