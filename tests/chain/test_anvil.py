"""The local chain of demo and tests: found, started, and never left over."""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from openpool.core.errors import SetupError
from openpool.demo.anvil import anvil, find_anvil

ROOT = Path(__file__).parents[2]
STARTER = """
from openpool.demo.anvil import anvil
with anvil() as url:
    print(url, flush=True)
    input()
"""


def test_a_missing_anvil_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What to install, or which variable to set; a file that is no program is not taken."""
    monkeypatch.setenv("ANVIL_BIN", str(tmp_path / "none"))
    with pytest.raises(SetupError, match="needs the command anvil; install npm and run"):
        find_anvil()
    (tmp_path / "none").write_text("text")
    with pytest.raises(SetupError, match="set ANVIL_BIN to its path"):
        find_anvil()


def test_an_anvil_that_does_not_start_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its last words are handed on."""
    broken = tmp_path / "anvil"
    broken.write_text("#!/bin/sh\necho no room left\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("ANVIL_BIN", str(broken))
    with pytest.raises(SetupError, match=r"anvil did not start: no room left\."), anvil():
        pass


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's help is Linux's")
def test_a_killed_starter_takes_its_chain_with_it() -> None:
    """kill -9 of whoever started the chain ends the chain, too."""
    find_anvil()
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert starter.stdout
    assert starter.stdin
    with starter, starter.stdout, starter.stdin:
        assert starter.stdout.readline().startswith(b"http://127.0.0.1:")
        children = Path(f"/proc/{starter.pid}/task/{starter.pid}/children").read_text().split()
        (chain,) = map(int, children)
        ended = os.pidfd_open(chain)
        starter.send_signal(signal.SIGKILL)
        starter.wait()
        assert select.select([ended], [], [], 10)[0], "the chain still runs"
        os.close(ended)


def test_the_lock_file_suits_every_registry_and_debian() -> None:
    """No registry is named in it, and nothing that makes Debian's npm leave anvil out."""
    lock = json.loads((ROOT / "package-lock.json").read_text())
    for name, package in lock["packages"].items():
        assert "resolved" not in package, name
        assert not ("anvil" in name and "engines" in package), name
        assert not name or package["integrity"].startswith("sha512-"), name
