"""The pages about dividing revenue: examples computed again, instructions followed as written."""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from roundlog import RoundLog, address, settled

from openpool.cli import run
from openpool.config import load
from openpool.core.money.events import Scheme
from openpool.core.money.schemes import reserve
from openpool.store.sqlite import SqliteStore

DOCS = Path(__file__).parents[2] / "docs"
NAMES = {"Ada": "a", "Bo": "b", "Cy": "c"}


def blocks(page: str, kind: str) -> list[str]:
    """The fenced pieces of one kind on a page."""
    return re.findall(rf"```{kind}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


# --- payout-schemes.md --------------------------------------------------------------------------


def play(example: str) -> dict[str, int]:
    """What an example's rounds come to."""
    head, *lines = example.splitlines()
    terms = re.fullmatch(r"scheme: ([a-z-]+)(?: of (\d+) rounds)?, commission (\d+) %", head)
    assert terms
    scheme: Scheme = terms[1]  # type: ignore[assignment]
    log = RoundLog(scheme, window_rounds=int(terms[2] or 1))
    for number, line in enumerate(lines[:-1], 1):
        log.start(number)
        assert line.startswith(f"round {number}: ")
        for name, work in re.findall(r"(\w+) works (\d+)", line):
            log.work(NAMES[name], int(work), int(terms[3]) * 10_000)
        for amount in re.findall(r"(\d+) comes in", line):
            log.win(int(amount))
    carried = settled(log.start(len(lines))).carried_wei
    assert log.balances.faults() == []
    return {
        **{name: log.paid(letter) for name, letter in NAMES.items()},
        "commission": log.balance("commission"),
        "carried": int(carried),
    }


@pytest.mark.parametrize("number", range(6))
def test_every_example_of_a_scheme_is_right(number: int) -> None:
    """The numbers on the page are those that the pool computes."""
    example = blocks("payout-schemes.md", "example")[number]
    result = example.splitlines()[-1].removeprefix("result: ")
    told = {name: int(wei) for name, wei in re.findall(r"(\w+) (\d+)", result)}
    found = play(example)
    assert set(told) >= {"Ada", "commission", "carried"}
    assert told == {name: found[name] for name in told}


def test_there_are_no_more_examples() -> None:
    assert len(blocks("payout-schemes.md", "example")) == 6


def test_the_example_of_the_reserve_is_right() -> None:
    """What stays and what is free."""
    (example,) = blocks("payout-schemes.md", "reserve")
    commission, unrealised, rate, stays, free = map(int, re.findall(r"\d+", example))
    found = reserve([("commission", commission), ("fees:x", -unrealised)], rate * 10_000)
    assert (found.reserve_wei, found.free_wei) == (stays, free)


# --- write-a-revenue-hook.md --------------------------------------------------------------------

PAGE = "how-to/write-a-revenue-hook.md"


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with what the page says to write; the package is installed beside it."""
    folder = tmp_path_factory.mktemp("rule")
    (folder / "small_owners_first.py").write_text(blocks(PAGE, "python")[0])
    (folder / "pyproject.toml").write_text(blocks(PAGE, "toml")[0])
    install, *_ = blocks(PAGE, "sh")
    assert install == "pip install .\n"
    offline = ("--no-build-isolation", "--no-deps", "--no-index", "--target", "site")
    subprocess.run(
        [sys.executable, "-m", *install.split(), "--quiet", *offline],
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=60,
    )
    (folder / "small_owners_first.py").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder / "site"))
        patch.syspath_prepend(str(folder / "site"))
        patch.setenv("OPENPOOL_HOME", str(folder / "home"))
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def data(followed: Path) -> Path:
    """A pool that has settled nothing yet: Ada did much, Bo a little."""
    log = RoundLog("per-job")
    log.enroll("a")
    log.enroll("b")
    log.start(1)
    log.work("a", 5_000, 0)
    log.work("b", 1_000, 0)
    log.win(8_000)
    log.start(2)
    store = SqliteStore(followed / "data")
    store.append(log.events).wait()
    store.close()
    return followed


def test_the_test_of_the_page_passes(followed: Path) -> None:
    """The script prints the weights: the first 10 of 30 in full, the rest half."""
    done = subprocess.run(
        [sys.executable, "-c", blocks(PAGE, "python")[1]],
        capture_output=True,
        check=True,
        text=True,
        timeout=30,
    )
    assert done.stdout == "{'0xA': 20, '0xB': 5}\n"


def test_the_commands_of_the_page_work(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Trying the rule on the last round, and on the whole past: 3000 against 1000."""
    tried, replayed = blocks(PAGE, "sh")[1].splitlines()
    assert run([*tried.split()[1:], "--json"]) == 0
    (last,) = json.loads(capfd.readouterr().out)
    found = {each["account"]: (each["without_wei"], each["with_wei"]) for each in last["accounts"]}
    assert found[f"worker:{address('a')}"] == ("6666", "6000")
    assert run([*replayed.split()[1:], "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert [each["would_wei"] for each in found["earners"]] == ["6000", "2000"]
    assert found["refused"] == []


def test_the_settings_of_the_page_are_settings(
    data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Both pieces of YAML load, and the rule is listed as in use, with the hash of its source."""
    for text in blocks(PAGE, "yaml"):
        (data / "openpool.yaml").write_text(text)
        hooks = load(data / "openpool.yaml").config.revenue.hooks
    assert [(hook.rule, dict(hook.options)) for hook in hooks] == [
        ("small-owners-first", {"limit": "1000"})
    ]
    assert run(["rules", "list", "--json"]) == 0
    rules = {rule["name"]: rule for rule in json.loads(capfd.readouterr().out)}
    source = (data / "site" / "small_owners_first.py").read_bytes()
    assert rules["small-owners-first"]["in_use"]
    assert rules["small-owners-first"]["hash"] == hashlib.sha256(source).hexdigest()
    assert "counts half" in rules["small-owners-first"]["meaning"]


def test_the_limits_of_the_page_are_those_of_the_code() -> None:
    """Seconds, memory, and the names of the ready-made rules."""
    from openpool.rules import catalogue, child, process

    page = (DOCS / PAGE).read_text()
    assert f"longer than {process.TIMEOUT_MS // 1000} seconds" in page
    assert f"more than {child.MEMORY_BYTES_MAX >> 30} GB" in page
    assert all(f"`{name}`" in page for name in catalogue.BUILT_IN)
