"""`openpool wallet` and `openpool payouts`, as typed."""

import asyncio
import json
import stat
from dataclasses import replace as with_fields
from pathlib import Path

import pytest
from msgspec.structs import replace
from test_web_money import Payouts
from webpool import OPERATOR, served, web_pool

from openpool.cli import run
from openpool.core.money.payout_views import PayoutsView
from openpool.web.app import create_app

OWNER = "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A"


class LastDay(Payouts):
    """A wallet with less than it is to keep, and a pool that owes both assets."""

    async def view(self) -> PayoutsView:
        empty = replace(await super().view(), runway_days=1, funds_wei=str(-5000))
        return replace(empty, owed_lpt=str(1_500_000 * 10**12))


def test_a_new_wallet_can_be_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The keystore and its random passphrase are private, and fit; a second one never replaces
    the first."""
    file = tmp_path / "hot.json"
    assert run(["wallet", "new", str(file), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert run(["wallet", "show", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["address"] == made["address"]
    for each in (file, tmp_path / "hot.json.pass"):
        assert stat.S_IMODE(each.stat().st_mode) == 0o600
    assert run(["wallet", "new", str(file)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_wrong_passphrase_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence, exit code 2, and no key."""
    file, other = tmp_path / "hot.json", tmp_path / "other"
    assert run(["wallet", "new", str(file)]) == 0
    other.write_text("not it\n")
    other.chmod(0o600)
    assert run(["wallet", "show", str(file), "--passphrase-file", str(other)]) == 2
    assert "the passphrase is wrong" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["status"], ["plan"], ["run"], ["list"], ["pause"], ["show", "payout-1"]]
)
def test_without_a_running_pool(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command says in one sentence that no pool answers."""
    (tmp_path / "operator.token").write_text("opo_x\n")
    (tmp_path / "operator.token").chmod(0o600)
    where = ["--set", f"data_dir={tmp_path}", "--url", "http://127.0.0.1:9"]
    assert run(["payouts", *words, *where]) != 0
    assert "The pool does not answer" in capsys.readouterr().err


async def test_status_and_orders_are_told_in_their_assets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """LPT is named as LPT beside ETH; one day is one day."""
    monkeypatch.setenv("OPENPOOL_OPERATOR_TOKEN", OPERATOR)
    async with web_pool(tmp_path) as pool:
        app = create_app(with_fields(pool.deps, payouts=LastDay(OWNER)))
        async with served(with_fields(pool, app=app)) as base:
            assert await asyncio.to_thread(run, ["payouts", "status", "--url", base]) == 0
            said = capfd.readouterr().out.replace("\u202f", " ")
            assert (
                "may be spent   nothing; 5000 wei are missing from what stays in the wallet\n"
                in said
            )
            assert "lasts          1 day\n" in said
            assert "owed           7000 wei and 1.5 LPT\n" in said
            orders = ["payouts", "list", "--url", base]
            assert await asyncio.to_thread(run, orders) == 0
            assert "7000\u202fwei" in capfd.readouterr().out
            assert await asyncio.to_thread(run, [*orders, "--state", "voided"]) == 0
            assert capfd.readouterr().out == "There is no such order.\n"
