"""The command line against a real pool in another process, as operators and owners use it."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from openpool.cli import run
from openpool.demo.children import free_port

pytestmark = pytest.mark.e2e

START_S = 60
KINDS = "worker-enrolled,pool-started"


@dataclass(frozen=True)
class Said:
    """What a command said."""

    stdout: str
    stderr: str


@dataclass
class LivePool:
    """A pool that is running in another process, and how to speak to it."""

    folder: Path
    join_link: str
    web_url: str
    process: subprocess.Popen[str]

    def run(self, *arguments: str, code: int = 0) -> Said:
        """Run a command in this process; what it said. Its exit code must be `code`."""
        out, err = io.TextIOWrapper(io.BytesIO()), io.TextIOWrapper(io.BytesIO())
        with redirect_stdout(out), redirect_stderr(err), chdir(self.folder):
            found = run(arguments)
        said = Said(*(_text(stream) for stream in (out, err)))
        assert found == code, said
        assert "Traceback" not in said.stderr
        return said

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    stream.seek(0)
    return stream.read()


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "openpool", *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the pool and the commands run, with no settings but those in it."""
    folder = tmp_path_factory.mktemp("cli")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("OPENPOOL")]:
            patch.delenv(name)
        patch.setenv("OPENPOOL_HOME", str(folder / "home"))
        yield folder


@pytest.fixture(scope="module")
def pool(folder: Path) -> Iterator[LivePool]:
    (folder / "openpool.yaml").write_text(
        f"""
orchestrators: [{{address: "127.0.0.1:9", secret: s}}]
workers: {{listen: "127.0.0.1:0", mode: private}}
web: {{listen: "127.0.0.1:{free_port()}"}}
groups: {{friends: {{commission: 10%}}}}
"""
    )
    key = folder / "key"
    key.write_text("a1" * 32)
    key.chmod(0o600)
    process = start(folder, "serve", "--json")
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate(timeout=START_S)[1]
        said = json.loads(line)
        yield LivePool(folder, said["join_link"], said["web_url"], process)
    finally:
        process.kill()
        process.communicate(timeout=START_S)


@pytest.fixture
def enrolled(pool: LivePool) -> dict[str, str]:
    """An invited worker of this machine."""
    invitation = pool.json("invite", "--group", "friends")
    return pool.json(
        "enroll",
        invitation["join_link"],
        "--wallet",
        "key",
        "--name",
        "rig",
        "--accept-terms",
    )


def test_a_running_pool_answers(pool: LivePool) -> None:
    """Status, workers and the ledger of a pool that has just started."""
    status = pool.json("status")["status"]
    assert status["orchestrators_up"] == 0
    assert "orchestrators" in pool.run("status").stdout
    pool.run("workers")
    assert "0 wei (0, or" in pool.run("ledger").stdout


def test_an_owner_enrols_and_is_remembered(pool: LivePool, enrolled: dict[str, str]) -> None:
    """With an invitation the worker is approved, listed, and its token is kept privately."""
    assert enrolled["state"] == "approved"
    detail = pool.json("workers", enrolled["worker"])["worker"]
    assert (detail["name"], detail["group"], detail["state"]) == ("rig", "friends", "approved")
    (identity,) = (pool.folder / "home/pools").iterdir()
    assert identity.stat().st_mode & 0o077 == 0
    assert json.loads(identity.read_text())["token"] == enrolled["token"]
    assert "rig" in pool.run("workers").stdout


def test_terms_are_not_accepted_unasked(pool: LivePool) -> None:
    """Without a terminal and without --accept-terms nothing is signed; the terms are shown."""
    done = pool.run("enroll", pool.join_link, "--wallet", "key", code=2)
    assert "The pool keeps 25 % of every fee." in done.stderr
    assert "--accept-terms" in done.stderr


def test_an_owner_rotates_and_revokes(pool: LivePool, enrolled: dict[str, str]) -> None:
    """The owner speaks with the token on this machine, and the new one replaces it there."""
    address = pool.join_link.removeprefix("openpool://").split("?")[0]
    made = pool.json("tokens", "rotate", "--pool", address)
    tokens = pool.json("tokens", "list", "--pool", address)
    assert [t["token"] for t in tokens][-1] == made["token"].split("_")[1]
    old = enrolled["token"].split("_")[1]
    pool.run("tokens", "revoke", old, enrolled["worker"])
    by_id = {t["token"]: t for t in pool.json("tokens", "list", enrolled["worker"])}
    assert by_id[old]["revoked_ms"] > 0


def test_the_operator_bans_and_takes_it_back(pool: LivePool, enrolled: dict[str, str]) -> None:
    """A ban holds for a new enrolment too, until it is taken back; each is in the log."""
    worker = enrolled["worker"]
    pool.run("ban", worker, "--reason", "black frames")
    link = pool.join_link
    done = pool.run("enroll", link, "--wallet", "key", "--name", "rig", "--accept-terms", code=1)
    assert done.stderr.splitlines()[-1] == (
        "openpool: The operator has banned this worker; ask them why."
    )
    pool.run("approve", worker)
    types = [event["type"] for event in pool.json("events", "--worker", worker)]
    assert types[-2:] == ["worker-banned", "worker-approved"]
    done = pool.run("approve", "w_nobody", code=1)
    assert "no worker `w_nobody`" in done.stderr


def test_the_operator_keeps_customers(pool: LivePool) -> None:
    """A customer is added, limited, given a new key and shut out; every key is shown once."""
    made = pool.json("customers", "add", "Ann", "--spend-limit", "1000 wei")
    assert made["secret"].startswith("sk-")
    who = made["customer"]
    changed = pool.json("customers", "limits", who, "--requests-per-minute", "60")
    assert (changed["requests_per_minute"], changed["spend_limit_wei"]) == (60, "1000")
    newer = pool.json("customers", "rotate", who, "--label", "laptop")
    assert newer["secret"] != made["secret"]
    (listed,) = pool.json("customers", "list")
    assert [key["label"] for key in listed["keys"]] == ["first", "laptop"]
    assert "sk-" not in json.dumps(listed)
    assert "Ann" in pool.run("customers", "list").stdout
    for _ in range(2):
        paid = pool.json("customers", "paid", who, "700 wei", "--reference", "INV-7")
        assert (paid["paid_wei"], paid["owed_wei"], paid["spent_wei"]) == ("700", "-700", "0")
    said = pool.run("customers", "paid", who, "800 wei", "--reference", "INV-7", code=1)
    assert "INV-7 is in the books with 700 wei" in said.stderr
    assert "700" in pool.run("customers", "limits", who).stdout
    assert pool.json("customers", "revoke", who, "--key", made["key"]) == {"keys": 1}
    assert pool.json("customers", "revoke", who) == {"keys": 1}
    said = pool.run("customers", "rotate", "c_nobody", code=1)
    assert "no customer `c_nobody`" in said.stderr
    said = pool.run("customers", "add", "Ben", "--spend-limit", "much", code=2)
    assert "number and a unit" in said.stderr


ADDRESS = "0xd8dA6BF26964aF9D7eEd9e03E53415D37aA96045"
CODES = {
    "status": 0,
    f"ledger export --address {ADDRESS} --csv": 0,
    f"ledger export --address {ADDRESS} --json": 0,
    "status --url http://127.0.0.1:9": 1,
    "approve w_nobody": 1,
    "customers rotate c_nobody": 1,
    "customers add Ben --spend-limit much": 2,
    "payouts status": 2,
    "payouts pause": 2,
    "payouts show payout-1": 2,
    "payouts status --nonsense": 2,
    "payouts": 2,
    "ledger export --address 0x1": 2,
    "delegator simulate much --rpc http://127.0.0.1:9": 2,
    "delegator show 0x1 --rpc http://127.0.0.1:9": 2,
    "verify nowhere.json": 2,
    "verify openpool.yaml --signer 0x1": 2,
    "verify openpool.yaml": 1,
    "status -c nowhere.yaml": 2,
    "tokens list": 2,
    "replay": 2,
}
"""0 done; 1 it failed, was declined or is wrong; 2 what was typed or set must be changed first."""


@pytest.mark.parametrize(("words", "code"), CODES.items())
def test_exit_codes_follow_one_rule(pool: LivePool, words: str, code: int) -> None:
    """Whether this machine or the pool finds a fault, the same kind of it has the same code."""
    pool.run(*words.split(), code=code)


def test_events_are_followed_as_they_happen(pool: LivePool) -> None:
    """A follower sees the past, then the next event without asking again."""
    follower = start(
        pool.folder,
        "events",
        "--follow",
        "--json",
        "-n",
        "1",
        "--types",
        "worker-enrolled,pool-started",
    )
    assert follower.stdout is not None
    try:
        json.loads(follower.stdout.readline())
        wallet = pool.folder / "other"
        wallet.write_text("b2" * 32)
        wallet.chmod(0o600)
        pool.run("enroll", pool.join_link, "--wallet", "other", "--accept-terms")
        assert json.loads(follower.stdout.readline())["type"] == "worker-enrolled"
    finally:
        follower.send_signal(signal.SIGINT)
        _, err = follower.communicate(timeout=30)
    assert follower.returncode == 130
    assert "Traceback" not in err


def test_a_wrong_operator_token_is_one_sentence(
    pool: LivePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that is not the operator's is refused in one line."""
    monkeypatch.setenv("OPENPOOL_OPERATOR_TOKEN", "wrong")
    said = pool.run("status", code=2)
    assert len(said.stderr.splitlines()) == 1


def refused_start(folder: Path, *arguments: str) -> str:
    """The last line of a pool that cannot start; its exit code is 2."""
    process = start(folder, "serve", *arguments)
    _, err = process.communicate(timeout=START_S)
    assert process.returncode == 2, err
    assert "Traceback" not in err
    return err.splitlines()[-1]


def test_a_port_in_use_is_one_sentence(pool: LivePool, tmp_path: Path) -> None:
    """A second pool on a port in use ends with exit code 2, naming the port."""
    worker_port = pool.join_link.split("?")[0].rsplit(":", 1)[1]
    web_port = pool.web_url.rsplit(":", 1)[1]
    for taken, port in (("web", web_port), ("workers", worker_port)):
        free = {"web": "workers", "workers": "web"}[taken]
        sentence = refused_start(
            pool.folder,
            *("--data-dir", str(tmp_path / taken)),
            *("--set", f"{taken}.listen=127.0.0.1:{port}"),
            *("--set", f"{free}.listen=127.0.0.1:0"),
        )
        assert sentence.startswith("openpool: ")
        assert port in sentence


def test_a_second_pool_on_the_same_data_is_refused(pool: LivePool) -> None:
    """Two pools never write one log."""
    assert "already uses" in refused_start(pool.folder)


def test_replay_proves_the_books_of_a_running_pool(pool: LivePool) -> None:
    """The proof needs no pause of the pool."""
    assert pool.json("replay", "--check")["ok"] is True


def test_sigterm_ends_the_pool_in_order(pool: LivePool) -> None:
    """The pool stops by itself with code 0, says so in its log, and the log can be read after."""
    pool.process.send_signal(signal.SIGTERM)
    assert pool.process.wait(timeout=60) == 0
    events = json.loads(pool.run("events", "--json", "-n", "1").stdout)
    assert events[0]["type"] == "pool-stopped"
    pool.run("status", code=1)


def test_pages_from_outside_are_encrypted_and_enrolling_knows_the_pool_by_its_pin(
    folder: Path,
) -> None:
    """A pool that listens for everybody needs no certificate bought: the join link names its own,
    and with another pin nothing is sent."""
    inside = folder / "open"
    inside.mkdir()
    (inside / "openpool.yaml").write_text(
        f"""
orchestrators: [{{address: "127.0.0.1:9", secret: s}}]
workers: {{listen: "127.0.0.1:0"}}
web: {{listen: "0.0.0.0:{free_port()}"}}
"""
    )
    process = start(inside, "serve", "--json")
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert said["web_url"].startswith("https://127.0.0.1:")
        open_pool = LivePool(inside, said["join_link"], said["web_url"], process)
        key = inside / "key"
        key.write_text("b2" * 32)
        key.chmod(0o600)
        pin = said["join_link"].partition("pin=")[2][:64]
        wrong = said["join_link"].replace(pin, pin[::-1])
        owner = ("--wallet", str(key), "--accept-terms")
        assert "certificate" in open_pool.run("enroll", wrong, *owner, code=2).stderr
        open_pool.run("enroll", said["join_link"], *owner)
        assert open_pool.json("status")
    finally:
        process.terminate()
        process.communicate(timeout=START_S)
