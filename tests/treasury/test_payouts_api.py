"""The API about payouts, over a real store, a real web server and the payer."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from modelchain import ModelChain, ModelSigner
from payers import MILLI, OPTIONS
from webpool import OPERATOR, WebPool, bearer, served, web_pool

from openpool.cli import run
from openpool.core.events import Event
from openpool.core.money.accounts import worker_account
from openpool.core.money.events import CorrectionMade
from openpool.core.units import ETHER
from openpool.treasury.payer import Payer, PayerOptions
from openpool.treasury.payer_view import PayerView
from openpool.web.app import create_app

STRANGER = "0x0000000000000000000000000000000000000101"


class Paying(WebPool):
    """A served pool that pays."""

    chain: ModelChain
    payer: Payer
    client: httpx.AsyncClient


@asynccontextmanager
async def paying(folder: Path, options: PayerOptions = OPTIONS) -> AsyncIterator[Paying]:
    """The worker `ann` is owed 50 milliether, a stranger 20."""
    async with web_pool(folder) as pool:
        signer = ModelSigner()
        chain = ModelChain(signer)
        clock_ms = lambda: pool.now_ms  # noqa: E731
        payer = Payer(
            chain=chain, signer=signer, store=pool.store, clock_ms=clock_ms, options=options
        )
        await payer.start()
        pool.app = create_app(
            replace(pool.deps, payouts=PayerView(payer, per_day_max_lpt=2500 * ETHER))
        )
        await pool.enrol("ann")
        address = (await pool.enrolment.authenticate(pool.tokens["ann"])).address
        for payee, amount_wei in ((address, 50 * MILLI), (STRANGER, 20 * MILLI)):
            fact = CorrectionMade(
                correction=payee,
                corrects="",
                debit="operator",
                credit=worker_account(payee),
                amount_wei=str(amount_wei),
                reason="work",
            )
            await pool.append(Event(id=payee, time_ms=1, data=fact))
        async with served(pool) as base, httpx.AsyncClient(base_url=base) as client:
            pool.chain, pool.payer, pool.client = chain, payer, client  # type: ignore[attr-defined]
            yield pool  # type: ignore[misc]


async def test_the_operator_plans_pays_and_looks(tmp_path: Path) -> None:
    """Plan, run, list and show, from nothing to confirmed."""
    async with paying(tmp_path) as pool:
        ask = pool.client
        plan = (await ask.post("/api/v1/payouts/plan", headers=bearer(OPERATOR))).json()
        assert [each["due"] for each in plan] == [True, True]
        assert not pool.payer.journal.book.known
        last = f"ETH/{plan[0]['address']}"
        rest = await ask.get(f"/api/v1/payouts/next?after={last}", headers=bearer(OPERATOR))
        assert rest.json() == plan[1:]
        await pool.payer.tick_safely()
        pool.chain.mine()
        pool.chain.finalise()
        await pool.payer.tick_safely()
        view = (await ask.get("/api/v1/payouts", headers=bearer(OPERATOR))).json()
        assert view["counts"]["confirmed"] == 2
        assert view["owed_wei"] == view["in_flight_wei"] == "0"
        assert view["spent_today_wei"] == str(70 * MILLI)
        assert view["runway_days"] > 9000
        listed = await ask.get("/api/v1/payouts/orders?state=confirmed", headers=bearer(OPERATOR))
        assert {each["order"] for each in listed.json()} == {"payout-1", "payout-2"}
        last = listed.json()[0]["order"]
        rest = await ask.get(f"/api/v1/payouts/orders?before={last}", headers=bearer(OPERATOR))
        assert rest.json() == listed.json()[1:]
        one = await ask.get("/api/v1/payouts/order?name=payout-1", headers=bearer(OPERATOR))
        assert one.json()["state"] == "confirmed"
        gone = await ask.get("/api/v1/payouts/order?name=payout-9", headers=bearer(OPERATOR))
        assert gone.status_code == 404
        wrong = await ask.get("/api/v1/payouts/orders?state=lost", headers=bearer(OPERATOR))
        assert wrong.status_code == 400
        assert "There is no state" in wrong.json()["detail"]


async def test_the_brake(tmp_path: Path) -> None:
    """Paused with a reason that everybody who waits reads; then on again."""
    async with paying(tmp_path) as pool:
        ask, token = pool.client, bearer(OPERATOR)
        body = {"reason": "The wallet is moved."}
        paused = await ask.post("/api/v1/payouts/pause", json=body, headers=token)
        assert paused.json() == {"paused": "The wallet is moved."}
        await pool.payer.tick_safely()
        mine = await ask.get("/api/v1/payouts/mine", headers=bearer(pool.tokens["ann"]))
        assert mine.json()["next"][0]["why"] == "Payouts are paused: The wallet is moved."
        assert (await ask.post("/api/v1/payouts/resume", headers=token)).json()["paused"] == ""
        await pool.payer.tick_safely()
        assert len(pool.payer.journal.book.open) == 2


async def test_an_owner_sees_and_chooses_for_one_address(tmp_path: Path) -> None:
    """The own address only; a threshold below the minimum and an asset that is not paid are
    refused in a sentence; the choice counts in the next plan."""
    async with paying(tmp_path) as pool:
        ask, token = pool.client, bearer(pool.tokens["ann"])

        async def choose(**body: object) -> httpx.Response:
            return await ask.post("/api/v1/payouts/choice", json=body, headers=token)

        chosen = (await choose(threshold="0.1 ETH")).json()
        assert chosen["threshold_wei"] == str(100 * MILLI)
        await pool.payer.rehearse()
        mine = (await ask.get("/api/v1/payouts/mine", headers=token)).json()
        assert [each["address"] for each in mine["next"]] == [chosen["address"]]
        assert mine["next"][0]["why"].startswith("0.05 ETH more")
        low = await choose(threshold="1 wei")
        assert low.status_code == 400
        assert "0.001 ETH or more" in low.json()["detail"]
        assert "in ETH only" in (await choose(asset="LPT")).json()["detail"]
        assert (await choose(address=STRANGER)).status_code == 403
        assert (await choose(threshold="pool")).json()["threshold_wei"] == str(MILLI)


async def test_others_may_not(tmp_path: Path) -> None:
    """The public and workers get nothing of the operator's."""
    async with paying(tmp_path) as pool:
        ask, token = pool.client, bearer(pool.tokens["ann"])
        for path in ("", "/orders", "/order?name=payout-1"):
            assert (await ask.get(f"/api/v1/payouts{path}")).status_code == 401
            assert (await ask.get(f"/api/v1/payouts{path}", headers=token)).status_code == 403
        for path in ("plan", "run", "pause", "resume", "unblock"):
            body = {"address": STRANGER} if path == "unblock" else {}
            answer = await ask.post(f"/api/v1/payouts/{path}", json=body, headers=token)
            assert answer.status_code == 403
        assert (await ask.get("/api/v1/payouts/mine")).status_code == 401


async def test_shadow_signs_nothing(tmp_path: Path) -> None:
    """In shadow mode everything is planned, and nothing is signed, sent or written."""
    async with paying(tmp_path, replace(OPTIONS, mode="shadow")) as pool:
        before = pool.store.head()
        await pool.payer.tick_safely()
        view = (await pool.client.get("/api/v1/payouts", headers=bearer(OPERATOR))).json()
        assert [each["due"] for each in view["next"]] == [True, True]
        assert pool.store.head() == before
        assert not pool.chain.signer.meant
        assert json.dumps(view["orders"]) == "[]"


async def test_off_signs_nothing_and_says_so(tmp_path: Path) -> None:
    """With payouts off a run is refused in a sentence."""
    async with paying(tmp_path, replace(OPTIONS, mode="off")) as pool:
        await pool.payer.tick_safely()
        answer = await pool.client.post("/api/v1/payouts/run", headers=bearer(OPERATOR))
        assert answer.status_code == 403
        assert "payouts.mode" in answer.json()["detail"]
        assert not pool.chain.signer.meant


async def test_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The operator's commands against a running pool, for people and for programs."""
    monkeypatch.setenv("OPENPOOL_OPERATOR_TOKEN", OPERATOR)
    async with paying(tmp_path) as pool:

        async def told(*words: str) -> str:
            line = ["payouts", *words, "--url", str(pool.client.base_url)]
            assert await asyncio.to_thread(run, line) == 0, capsys.readouterr().err
            return capsys.readouterr().out

        await told("choose", STRANGER, "--threshold", "1 ETH")
        plan = json.loads(await told("run", "--dry-run", "--json"))
        assert sorted(each["due"] for each in plan) == [False, True]
        assert "0.98 ETH more" in await told("plan")
        assert not pool.payer.journal.book.known
        await told("pause", "--reason", "Moving house.")
        assert json.loads(await told("status", "--json"))["paused"] == "Moving house."
        assert "0 LPT of 2 500 LPT" in (await told("status")).replace("\u202f", " ")
        await told("resume")
        await told("run")
        await pool.payer.tick_safely()
        assert "payout-1" in await told("list")
        assert "sent" in await told("show", "payout-1")
        assert json.loads(await told("list", "--state", "sent", "--json"))[0]["nonce"] == 0
