"""An owner disputes a job, the operator mends it, and the next statement shows that."""

import json

from evm import *  # noqa: F403
from moneypool import *  # noqa: F403
from moneypool import Ground, MoneyPool, money_pool, openpool, replayed

from openpool.demo.evm import address
from openpool.demo.orchestrator import StandIn

AMOUNT_WEI = 12_345


async def test_a_dispute_ends_in_a_correction_that_everybody_sees(ground: Ground) -> None:
    """Evidence is frozen and the owner's alone; the correction moves what it says, once, and the
    next statement verifies with it."""
    async with StandIn("o-secret") as orchestrator:
        async with money_pool(ground, orchestrator, ground.chain()) as money:
            await money.followed()
            await money.enrol("Ann", "Bob")
            await money.work("Ann")
            await money.verified(await money.end_round())
            (fee,) = money.events("fee-credited")
            dispute = await opened(money, fee.job)
            before = money.balances()
            await ended(money, dispute, fee.job)
            moved = {name: wei - before[name] for name, wei in money.balances().items()}
            account = f"worker:{address('Ann')}"
            assert {name: wei for name, wei in moved.items() if wei} == {
                "commission": -AMOUNT_WEI,
                account: AMOUNT_WEI,
            }
            number = await money.end_round()
            await money.verified(number)
            stated = (money.folder / f"verify-{number}" / "statement.json").read_text()
            assert f"dispute-{dispute}" in stated
            assert "counted short" in stated
    await replayed(money.folder)


async def opened(money: MoneyPool, job: str) -> str:
    """By its owner, from a browser; nobody else sees it."""
    async with money.signed_in("Ann") as ann, money.signed_in("Bob") as bob:
        body = {"subject": f"job:{job}", "claim": "It was longer than that."}
        refused = await bob.post("/api/v1/disputes", json=body)
        assert refused.status_code == 403
        assert "that is yours" in refused.json()["detail"]
        said = (await ann.post("/api/v1/disputes", json=body)).raise_for_status().json()
        path = f"/api/v1/disputes/{said['dispute']}"
        evidence = (await ann.get(f"{path}/evidence")).raise_for_status().json()
        assert evidence["receipts"]
        assert evidence["claim"] == body["claim"]
        assert (await bob.get(f"{path}/evidence")).status_code == 404
        return str(said["dispute"])


async def ended(money: MoneyPool, dispute: str, job: str) -> None:
    """By the operator, with the command; the same again changes nothing."""
    arguments = (
        *("dispute", "end", dispute, "--uphold", "--reason", "counted short"),
        *("--corrects", f"{job}/fee-credited", "--debit", "commission"),
        *("--credit", f"worker:{address('Ann')}", "--amount-wei", str(AMOUNT_WEI)),
        *("--url", str(money.operator.base_url), "--json"),
    )
    config = ("-c", str(money.folder / "openpool.yaml"))
    out, _ = await openpool(*arguments, *config, folder=money.folder)
    assert json.loads(out)["upheld"]
    await openpool(*arguments, *config, folder=money.folder)
