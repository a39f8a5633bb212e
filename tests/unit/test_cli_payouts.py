"""`openpool wallet` and `openpool payouts`, as typed."""

import json
import stat
from pathlib import Path

import pytest

from openpool.cli import run


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
