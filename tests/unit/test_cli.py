"""The command line without a pool: sentences, exit codes, JSON, and what works offline."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from typed import DEFAULTS, commands, wrong_with
from webpool import web_pool

from openpool.cli import run
from openpool.cli.groups import SECTIONS
from openpool.core.errors import SetupError, Unavailable
from openpool.core.events import CommissionTaken, Event, FeeCredited, PoolStarted
from openpool.store.sqlite import SqliteStore


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has a folder and a home of its own, and no settings from outside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENPOOL_HOME", str(tmp_path / "home"))
    for name in [name for name in os.environ if name.startswith("OPENPOOL__")]:
        monkeypatch.delenv(name)


class Said:
    """What a command said, and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def sentence(self) -> str:
        """The one line on standard error."""
        (line,) = self.err.splitlines()
        return line


Call = Callable[..., Said]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Call:
    def call(*arguments: str) -> Said:
        code = run(arguments)
        said = capfd.readouterr()
        assert "Traceback" not in said.err
        return Said(code, said.out, said.err)

    return call


@pytest.fixture
async def books(tmp_path: Path) -> Path:
    """A data folder of a pool that has stopped, with one paid job in it."""
    async with SqliteStore(tmp_path / "data") as store:
        paid = {"job": "o.i.1", "orchestrator": "o", "worker": "w_a"}
        events = [
            PoolStarted(epoch=1, version="0"),
            FeeCredited(
                **paid,
                address="0xA",
                pixels=10,
                price_wei="100",
                price_source="config",
                fee_wei="1000",
                carry="0",
                commission_ppm=250_000,
                worker_wei="750",
            ),
            CommissionTaken(**paid, commission_wei="250"),
        ]
        await store.append(
            [Event(id=str(i), time_ms=1_790_000_000_000 + i, data=d) for i, d in enumerate(events)]
        ).durable()
    return tmp_path / "data"


COMMANDS = dict(commands())


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words or "openpool")
def test_every_command_has_help_with_examples(
    call: Call, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Help fits a narrow screen, and shows how it is typed, with options that exist."""
    monkeypatch.setenv("COLUMNS", "80")
    said = call(*words.split(), "--help")
    assert said.code == 0
    assert said.out.startswith(f"Usage: openpool {words}".strip())
    usage, *lines = said.out.splitlines()
    assert [line for line in [usage, *lines] if len(line) > 80] == []
    assert [line for line in lines if line.endswith("...")] == []
    options = [line for line in lines if line.startswith("  -")]
    assert [line for line in options if re.search("<(str|int|float|path)", line)] == []
    shown = said.out.split("Examples:")[1].split("Exit codes:")[0].replace("\\\n", " ")
    examples = [line.strip() for line in shown.splitlines() if line.strip()]
    path = " ".join(word for word in words.split() if word not in DEFAULTS.values())
    assert any(f"openpool {path}".strip() in line for line in examples)
    typed = [line.split("openpool ", 1)[1].split(" > ")[0] for line in examples]
    assert {line: why for line in typed if (why := wrong_with(line))} == {}


def test_every_command_is_listed_once() -> None:
    """The help of `openpool` lists all of its commands, each below one heading."""
    listed = [name for names in SECTIONS.values() for name in names]
    assert sorted(listed) == sorted(words for words in COMMANDS if words and " " not in words)


def test_help_is_quick_because_commands_load_late() -> None:
    """Asking for help loads none of the libraries that take long."""
    heavy = ("litestar", "aiohttp", "av", "eth_account", "eth_utils", "apsw", "rich", "msgspec")
    script = (
        "import sys\nfrom openpool.cli import run\ncode = run(['--help'])\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_unknown_command_is_a_usage_error(call: Call) -> None:
    """A typo in the command is one sentence and exit code 2."""
    said = call("serv")
    assert said.code == 2
    assert "No such command 'serv'" in said.sentence


def test_a_usage_error_names_the_help_of_its_command(call: Call) -> None:
    """What is missing is said, and where the command is explained."""
    said = call("payouts", "choose")
    assert said.code == 2
    assert said.sentence.endswith("See `openpool payouts choose --help`.")


def test_a_group_without_a_command_shows_its_help(call: Call) -> None:
    """A group alone is no fault to complain about: its commands are listed."""
    said = call("wallet")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("Usage: openpool wallet")
    assert "openpool:" not in said.err


def test_a_typo_in_the_settings_is_one_sentence(call: Call, tmp_path: Path) -> None:
    """A wrong setting stops every command with its place and the right name."""
    (tmp_path / "openpool.yaml").write_text("comission: 10%\n")
    for command in ("serve", "status", "config explain"):
        said = call(*command.split())
        assert said.code == 2
        assert said.sentence == (
            "openpool: openpool.yaml:1: there is no setting `comission`; did you mean `commission`?"
        )


def test_a_missing_settings_file_is_one_sentence(call: Call) -> None:
    """A file that is not there is named."""
    said = call("config", "check", "-c", "nowhere.yaml")
    assert said.code == 2
    assert "nowhere.yaml cannot be read: no such file" in said.sentence


def test_an_assignment_without_a_value_is_one_sentence(call: Call) -> None:
    """--set wants NAME=VALUE, and says so."""
    said = call("config", "explain", "--set", "commission")
    assert said.code == 2
    assert "NAME=VALUE" in said.sentence


def test_config_check_tells_programs_too(call: Call) -> None:
    """As JSON the problems are a list, and the exit code is the same."""
    said = call("config", "check", "--json")
    assert said.code == 2
    answer = json.loads(said.out)
    assert answer["ok"] is False
    assert "No orchestrator is set" in answer["problems"][0]
    assert said.err == ""


def test_config_explain_shows_values_and_sources(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in force is shown with its source; secrets are not."""
    monkeypatch.setenv("OPENPOOL__ORCHESTRATOR_ADDRESS", "10.0.0.5:8935")
    monkeypatch.setenv("OPENPOOL__ORCHESTRATOR_SECRET", "hush-hush")
    said = call("config", "explain", "--set", "commission=12.5%", "--json")
    settings = {s["path"]: s for s in json.loads(said.out)}
    assert settings["commission"]["value"] == "12.5%"
    assert settings["commission"]["source"] == "--set commission"
    assert settings["orchestrators[0].secret"]["value"] == "****"
    assert settings["web.listen"]["source"] == "default"
    table = call("config", "explain", "orch")
    assert "OPENPOOL__ORCHESTRATOR_ADDRESS" in table.out
    assert "hush-hush" not in said.out + table.out


def test_live_commands_without_a_pool_say_so(call: Call, tmp_path: Path) -> None:
    """No token file: nothing was ever started here. A token but no pool: it does not answer."""
    said = call("status")
    assert said.code == 2
    assert "no operator's token at data/operator.token" in said.sentence
    (tmp_path / "data").mkdir()
    (tmp_path / "data/operator.token").write_text("t")
    (tmp_path / "data/operator.token").chmod(0o600)
    said = call("status", "--set", "web.listen=127.0.0.1:1")
    assert said.code == 1
    assert "does not answer at http://127.0.0.1:1 (connection refused)" in said.sentence


def test_a_token_that_others_can_read_is_refused(call: Call, tmp_path: Path) -> None:
    """The operator's token opens everything, so its file must be private."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/operator.token").write_text("t")
    (tmp_path / "data/operator.token").chmod(0o644)
    said = call("workers")
    assert said.code == 2
    assert "can be read by other users" in said.sentence


def test_the_books_can_be_read_while_the_pool_is_off(call: Call, books: Path) -> None:
    """Balances and transfers come from the data folder, exact to the wei."""
    answer = json.loads(call("ledger", "--json", "--offline").out)
    assert {b["account"]: b["amount_wei"] for b in answer["balances"]}["worker:0xA"] == "750"
    assert answer["sum_wei"] == "0"
    assert sorted(t["amount_wei"] for t in answer["transfers"]) == ["250", "750"]
    only = json.loads(call("ledger", "worker:0xA", "--json", "--offline").out)
    assert [b["account"] for b in only["balances"]] == ["worker:0xA"]
    assert "750" in call("ledger", "--offline").out


def test_events_can_be_read_while_the_pool_is_off(call: Call, books: Path) -> None:
    """The newest events come from the data folder, oldest first."""
    found = json.loads(call("events", "--json", "--offline", "-n", "2").out)
    assert [event["type"] for event in found] == ["fee-credited", "commission-taken"]
    one = call("events", "--offline", "--types", "pool-started, fee-credited")
    assert "pool-started" in one.out
    assert "commission-taken" not in one.out
    said = call("events", "--offline", "--types", "fee-credit")
    assert (said.code, "did you mean `fee-credited`?" in said.sentence) == (2, True)


def test_an_account_that_is_not_in_the_books_is_said(call: Call, books: Path) -> None:
    """A typo is not taken for an account without money, nor are all books summed for it."""
    said = call("ledger", "worker:0xB", "--offline")
    assert said.out == (
        "There is no account `worker:0xB` in the books; `openpool ledger` shows all.\n"
    )


def test_replay_proves_the_books(call: Call, books: Path) -> None:
    """An untouched log agrees with its books, and its head can be noted and checked later."""
    said = call("replay", "--check", "--json")
    report = json.loads(said.out)
    assert (said.code, report["ok"], report["credited_wei"]) == (0, True, "750")
    assert "agree" in call("replay", "--check").out
    head = f"{report['seq']}:{report['chain']}"
    assert call("replay", "--check", "--head", head).code == 0
    said = call("replay", "--check", "--head", f"3:{'0' * 64}", "--json")
    assert (said.code, json.loads(said.out)["ok"]) == (1, False)


def test_replay_without_a_pool_or_a_purpose_is_one_sentence(call: Call) -> None:
    """There must be a log, and one of the two things to do with it."""
    assert call("replay").code == 2
    said = call("replay", "--check")
    assert said.code == 2
    assert "no pool database" in said.sentence


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ("events", "/api/v1/events"),
        ("ledger show", "/api/v1/ledger/transfers"),
        ("payouts list", "/api/v1/payouts/orders"),
    ],
)
def test_a_command_asks_for_no_more_than_the_pool_gives(
    words: str, path: str, tmp_path: Path, call: Call
) -> None:
    """What `-n` takes is what the API takes; one more is a usage error."""
    most = asyncio.run(_limit_of(path, tmp_path))
    assert "no operator's token" in call(*words.split(), "-n", str(most)).sentence
    said = call(*words.split(), "-n", str(most + 1))
    assert (said.code, f"less than or equal to {most}" in said.sentence) == (2, True)


async def _limit_of(path: str, folder: Path) -> int:
    async with web_pool(folder) as pool:
        asked = pool.app.openapi_schema.to_schema()["paths"][path]["get"]["parameters"]
    return int(next(each["schema"]["maximum"] for each in asked if each["name"] == "limit"))


def test_a_worker_needs_a_link(call: Call) -> None:
    """Without a link there is nothing to join; with a bad one the sentence says what is bad."""
    assert "join link" in call("worker").sentence
    said = call("worker", "openpool://h:1?pin=12")
    assert (said.code, "64 hexadecimal digits" in said.sentence) == (2, True)


def test_enrolling_needs_a_wallet_and_a_web_address(call: Call) -> None:
    """What is missing is said before anything is asked of the pool."""
    said = call("enroll", "openpool://h:1?web=http://127.0.0.1:1")
    assert (said.code, "--wallet FILE" in said.sentence) == (2, True)
    said = call("enroll", "openpool://h:1", "--wallet", "k")
    assert (said.code, "no `web=` address" in said.sentence) == (2, True)


def test_speaking_for_a_pool_never_joined_is_one_sentence(call: Call) -> None:
    """--pool speaks as the worker enrolled from here, if there is one."""
    said = call("tokens", "list", "--pool", "h:1")
    assert (said.code, "not enrolled at h:1" in said.sentence) == (2, True)
    said = call("tokens", "list")
    assert (said.code, "Say which worker" in said.sentence) == (2, True)


class Failing:
    """Stands for a command that ends in an error."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, *_: object, **__: object) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (SetupError("Do this."), 2, "Do this."),
        (Unavailable("Not now."), 1, "Not now."),
        (ExceptionGroup("g", [ExceptionGroup("h", [SetupError("Deep.")])]), 2, "Deep."),
    ],
)
def test_errors_are_sentences_with_codes(
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    sentence: str,
) -> None:
    """Whatever a command raises, also out of a group of tasks, is one sentence and a code."""
    monkeypatch.setattr("openpool.config.explain", Failing(error))
    said = call("config", "explain")
    assert (said.code, said.sentence) == (code, f"openpool: {sentence}")


def test_ctrl_c_ends_quietly(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stops a command needs no sentence about it; the code is the usual one."""
    monkeypatch.setattr("openpool.config.explain", Failing(KeyboardInterrupt()))
    said = call("config", "explain")
    assert (said.code, said.err) == (130, "")


def test_a_bug_leaves_its_trace_in_a_file(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody expected is one sentence too; the trace is in a private file it names."""
    monkeypatch.setattr("openpool.config.explain", Failing(KeyError("odd")))
    said = call("config", "explain")
    assert said.code == 1
    path = Path(said.sentence.split("details are in ")[1].rstrip("."))
    assert "KeyError: 'odd'" in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    path.unlink()


def test_versions_agree(call: Call) -> None:
    """The version is the package's, whichever way it is asked for."""
    from openpool import __version__

    for words in ("version", "--version", "--version status"):
        said = call(*words.split())
        assert (said.code, said.out, said.err) == (0, f"{__version__}\n", "")
    assert msgspec.json.decode(call("version", "--json").out) == {"version": __version__}


def test_a_second_signal_ends_a_command_without_blame(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled command was stopped by a person: no fault, no trace, the usual code."""
    monkeypatch.setattr("openpool.config.explain", Failing(asyncio.CancelledError()))
    said = call("config", "explain")
    assert (said.code, said.sentence) == (130, "openpool: Stopped.")


def test_a_reader_that_leaves_early_is_no_error() -> None:
    """`openpool … | head -1` ends without a complaint."""
    script = f"{sys.executable} -m openpool config reference | head -1"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=30)
    assert done.stdout == "# Settings\n"
    assert done.stderr == ""
