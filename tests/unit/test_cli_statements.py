"""The commands about statements, disputes, export and corrections, against a served pool."""

import asyncio
import csv
import io
import json
from dataclasses import replace as with_fields
from pathlib import Path

import pytest
from statement_log import BOB, MoneyLog, signed
from test_statement_api import Proved, proved
from test_treasury_statements import PoolKey
from webpool import OPERATOR, served

from openpool.cli import run
from openpool.core.money.statements import Opening
from openpool.identity import Identity, save_identity
from openpool.store.replay import check
from openpool.store.sqlite import SqliteStore
from openpool.treasury.signing import signed as sign_document
from openpool.web.app import create_app


class Shell:
    """Types commands at a served pool, as its operator or as the worker `box`."""

    def __init__(self, url: str, capfd: pytest.CaptureFixture[str]) -> None:
        self.url, self._capfd = url, capfd

    async def __call__(self, *words: str, code: int = 0) -> str:
        self._capfd.readouterr()
        got = await asyncio.to_thread(run, [*words, "--url", self.url])
        said = self._capfd.readouterr()
        assert "Traceback" not in said.err
        assert got == code, said.err
        return said.out if code == 0 else said.err


async def a_shell(
    web: Proved, base: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Shell:
    """The operator's token in the environment, the worker's in a private folder."""
    monkeypatch.setenv("OPENPOOL_OPERATOR_TOKEN", OPERATOR)
    save_identity(
        Identity(
            pool="pool:1",
            pin="",
            worker=web.pool.workers["box"],
            token=web.pool.tokens["box"],
            web=base,
        )
    )
    return Shell(base, capfd)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENPOOL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


async def test_from_statement_to_correction_by_commands_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """List, fetch, verify; dispute a job, uphold it with a correction; export."""
    async with proved(tmp_path) as web:
        app = create_app(with_fields(web.pool.deps, proofs=web.proofs))
        async with served(with_fields(web.pool, app=app)) as base:
            shell = await a_shell(web, base, monkeypatch, capfd)
            worker = ("--pool", "pool:1")
            (row,) = json.loads(await shell("statements", "list", *worker, "--json"))
            assert row["round"] == 7
            assert row["digest"] in await shell("statements", "list")
            await shell("statements", "fetch", "7", "--to", "mine", *worker)
            files = ["mine/7.json", "--receipts", "mine/7.receipts.jsonl"]
            mine = ["--address", web.log.ann, "--signer", row["signer"]]
            assert await asyncio.to_thread(run, ["verify", *files, *mine]) == 0
            said = capfd.readouterr().out
            assert "receipts were computed again, and their proofs" in said
            assert await asyncio.to_thread(run, ["verify", *files, "--signer", BOB]) == 1
            assert "not by" in capfd.readouterr().out

            job = next(fee.job for fee in web.mine if fee.address == web.log.ann)
            made = json.loads(
                await shell("dispute", "open", f"job:{job}", "Too little", *worker, "--json")
            )
            name = made["dispute"]
            assert "open" in await shell("dispute", "list", *worker)
            shown = await shell("dispute", "show", name, "--evidence", "e.json", *worker)
            assert "Too little" in shown
            assert json.loads((tmp_path / "e.json").read_bytes())["dispute"] == name
            account = f"worker:{web.log.ann}"
            ended = await shell(
                *("dispute", "end", name, "--uphold", "--reason", "Yes"),
                *("--corrects", f"{job}/fee-credited", "--debit", "commission"),
                *("--credit", account, "--amount-wei", "9"),
            )
            assert "upheld" in ended
            before = (await web.balances())[account]
            correct = (
                *("ledger", "correct", "--corrects", f"{job}/fee-credited", "--debit"),
                *("commission", "--credit", account, "--amount", "5", "--reason", "Counted short"),
            )
            assert "is made" in await shell(*correct)
            assert "nothing moved" in await shell(*correct)
            assert (await web.balances())[account] == before + 5
            refused = [word if word != "5" else "9" * 40 for word in correct]
            assert "cannot be taken" in await shell(*refused, code=1)
            export = ("ledger", "export", "--address", web.log.ann, "--csv")
            table = list(csv.DictReader(io.StringIO(await shell(*export))))
            assert int(table[-1]["balance_wei"]) == before + 5
            assert table[-1]["kind"] == "correction"
            export = ("ledger", "export", "--address", web.log.ann, "--json")
            told = json.loads(await shell(*export))
            assert [row["amount_wei"] for row in told] == [row["amount_wei"] for row in table]


async def test_events_of_a_running_pool_are_those_that_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """By type, by worker and by job."""
    async with proved(tmp_path) as web, served(web.pool) as base:
        shell = await a_shell(web, base, monkeypatch, capfd)
        fee = web.mine[0]
        for option, value, name in (
            ("--types", "fee-credited", "type"),
            ("--worker", fee.worker, "worker"),
            ("--job", fee.job, "job"),
        ):
            found = json.loads(await shell("events", option, value, "--json"))
            assert {event["data"].get(name, event["type"]) for event in found} == {value}


async def test_books_of_a_stopped_pool_are_exported_and_mended(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Both work on the data folder alone, and the log proves the new books."""
    log = MoneyLog()
    log.round(1)
    log.work(10)
    async with SqliteStore(tmp_path / "data") as store:
        await store.append([event for _, event in log.entries]).durable()
    config = tmp_path / "openpool.yaml"
    config.write_text(f"data_dir: {tmp_path / 'data'}\n")
    job = log.fees_since(0)[0].job
    words = [
        *("ledger", "correct", "--offline", "--corrects", f"{job}/fee-credited"),
        *("--debit", f"worker:{BOB}", "--credit", "commission", "--amount-wei", "3"),
        *("--reason", "Twice", "--id", "c1", "--json"),
    ]
    assert await asyncio.to_thread(run, words) == 0
    assert json.loads(capfd.readouterr().out) == {"correction": "c1", "is_new": True}
    assert await asyncio.to_thread(run, words) == 0
    assert json.loads(capfd.readouterr().out) == {"correction": "c1", "is_new": False}
    assert check(tmp_path / "data").ok
    export = ["ledger", "export", "--address", BOB, "--offline"]
    assert await asyncio.to_thread(run, export) == 0
    rows = list(csv.DictReader(io.StringIO(capfd.readouterr().out)))
    assert rows[-1]["amount_wei"] == "-3"
    assert await asyncio.to_thread(run, [*export, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)[-1]["amount_wei"] == "-3"
    assert await asyncio.to_thread(run, ["ledger", f"worker:{BOB}", "--offline", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["balances"][0]["account"] == f"worker:{BOB}"


def test_a_receipt_signed_by_itself_is_verified(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Right ones pass, and one that pays wrongly does not, though it is signed."""
    log = MoneyLog()
    log.round(1)
    log.work(1)
    _, (receipt,) = log.statement(1, Opening(round=1))
    file = tmp_path / "receipt.json"
    file.write_bytes(sign_document(PoolKey(), "receipt", receipt))
    assert run(["verify", str(file), "--signer", PoolKey.address]) == 0
    assert "Job orch.1.1" in capfd.readouterr().out
    units = str(log.fees_since(0)[0].pixels).encode()
    forged = receipt.replace(b'"units":' + units, b'"units":' + units + b"0")
    file.write_bytes(sign_document(PoolKey(), "receipt", forged))
    assert run(["verify", str(file), "--json"]) == 1
    assert json.loads(capfd.readouterr().out)["findings"][0]["path"] == "document"


async def test_terms_are_verified_by_themselves(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Their signature, and what they promise in a line."""
    async with proved(tmp_path) as web:
        content = web.proofs.terms.file() or b""
    (tmp_path / "t.json").write_bytes(content)
    assert await asyncio.to_thread(run, ["verify", "t.json", "--signer", PoolKey.address]) == 0
    assert "Version 1: commission 250000 ppm" in capfd.readouterr().out
    (tmp_path / "t.json").write_bytes(content.replace(b"250000", b"250001"))
    assert await asyncio.to_thread(run, ["verify", "t.json"]) == 1


def test_a_missing_file_is_exit_code_2(capfd: pytest.CaptureFixture[str]) -> None:
    """It says which, in one sentence."""
    assert run(["verify", "nowhere.json"]) == 2
    assert "nowhere.json cannot be read" in capfd.readouterr().err


def test_a_hostile_file_is_a_finding_not_a_crash(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever the bytes are: exit code 1 and one sentence, without a trace."""
    log = MoneyLog()
    log.round(1)
    log.work(2)
    good = signed(log.statement(1)[0])
    for data in (b"", b"\0" * 1000, b"[" * 100_000, b"{}", good[:-5], good * 2):
        (tmp_path / "s.json").write_bytes(data)
        assert run(["verify", "s.json", "--json"]) == 1
        said = capfd.readouterr()
        assert "Traceback" not in said.err
        (finding,) = json.loads(said.out)["findings"]
        assert finding["text"].endswith(".")


@pytest.mark.parametrize(
    "command",
    [
        *("verify", "ledger show", "ledger export", "ledger correct", "statements list"),
        *("statements fetch", "dispute open", "dispute list", "dispute show", "dispute end"),
    ],
)
def test_every_command_has_help_with_examples(
    command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Help says what a command does and shows how it is typed."""
    assert run([*command.split(), "--help"]) == 0
    out = capfd.readouterr().out
    assert f"Usage: openpool {command}" in out
    assert f"openpool {command.split()[0]}" in out.split("Examples:")[1]
