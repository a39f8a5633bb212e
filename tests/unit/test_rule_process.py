"""A revenue rule in a process of its own: it may hang, crash or lie."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from roundlog import RoundLog, address, settled

from openpool.core.errors import SetupError
from openpool.core.events import encode_payload
from openpool.core.money.events import RuleRefused
from openpool.rules.catalogue import names
from openpool.rules.process import RuleProcess, prepared

SOURCE = '''
"""Does whatever it is told. It is not to be trusted."""
import os, sys, time
from openpool.core.money.rules import pay
from openpool.rules import rule

VERSION = "1.0+x"
OPTIONS = {"do": "what to do"}

@rule
def adjustments(round, options):
    if not round.members:
        return None
    print("noise")
    someone = round.members[0].address
    return {
        "hang": lambda: time.sleep(600),
        "tell and hang": lambda: [open("told", "w").close(), time.sleep(600)],
        "spin": lambda: [None for _ in iter(int, 1)],
        "raise": lambda: 1 // 0,
        "exit": lambda: sys.exit(0),
        "die": lambda: os._exit(1),
        "memory": lambda: b"x" * (4 << 30),
        "nan": lambda: [dict(debit="commission", credit=f"worker:{someone}",
                             amount_wei=float("nan"), reason="x")],
        "bool": lambda: [dict(debit="commission", credit=f"worker:{someone}",
                              amount_wei=True, reason="x")],
        "huge": lambda: [dict(debit="commission", credit=f"worker:{someone}",
                              amount_wei=10**4000, reason="x")],
        "object": lambda: object(),
        "deep": lambda: nested(),
        "pay": lambda: [pay(someone, 1, "a wei")],
        "secrets": lambda: [pay(someone, len([k for k in os.environ if "OPENPOOL" in k]), "x")],
        "half": lambda: sys.exit("\\ud800"),
        "half reason": lambda: [pay(someone, 1, "\\ud800")],
        "tamper": lambda: [pay(someone, 10**30, setattr(round, "commission_wei", 10**40))],
    }[options["do"]]()

def nested():
    made = []
    for _ in range(50_000):
        made = [made]
    return made
'''
WRONG = '''
"""Asks for what there is not."""
from openpool.rules import rule

@rule
def adjustments(round, options, books):
    return []
'''


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An installed package with rules of somebody else."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "obedient.py").write_text(SOURCE)
    (folder / "wrong.py").write_text(WRONG)
    info = folder / "others-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1\n")
    points = {"obedient": "obedient", "wrong": "wrong", "missing": "nothere", "empty": "os"}
    lines = ["[openpool.revenue_rules]", *(f"{name} = {module}" for name, module in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.syspath_prepend(str(folder))
        patch.setenv("OPENPOOL_SECRET", "s3cret")
        yield folder


def told(do: str, timeout_ms: int = 5_000) -> tuple[RoundLog, str]:
    """A round settled with the rule doing this, and why it was refused."""
    with RuleProcess("obedient", {"do": do}, timeout_ms=timeout_ms) as rule:
        log = RoundLog("proportional", rules=[rule])
        log.enroll("a")
        log.start(1)
        log.work("a", 100)
        log.win(100)
        log.start(2)
    reasons = [event.data.reason for event in log.events if isinstance(event.data, RuleRefused)]
    return log, reasons[0] if reasons else ""


@pytest.mark.parametrize(
    ("do", "why"),
    [
        ("raise", "it failed: ZeroDivisionError"),
        ("exit", "it failed: SystemExit"),
        ("die", "its process ended in the middle"),
        ("memory", "it failed: MemoryError"),
        ("nan", "no whole number but a float"),
        ("bool", "no whole number but true or false"),
        ("huge", "the amount of adjustment 1 is larger than 2**256"),
        ("object", "holds object, which is no plain value"),
        ("deep", "it failed: RecursionError"),
        ("half", "it failed: SystemExit: ?"),
        ("half reason", "its answer is not JSON"),
        ("tamper", "it failed: AttributeError: immutable type"),
        ("unknown", "it failed: KeyError"),
    ],
)
def test_a_bad_rule_costs_only_itself(plugins: Path, do: str, why: str) -> None:
    """The round is settled without it, to the wei, and says why."""
    log, reason = told(do)
    assert all(encode_payload(event.data) for event in log.events)
    assert why in reason
    assert (log.paid("a"), log.balance("commission"), settled(log.events).rule) == (75, 25, "none")


@pytest.mark.parametrize("do", ["hang", "spin"])
def test_a_hung_rule_does_not_hang_the_pool(plugins: Path, do: str) -> None:
    """It is ended at its time limit."""
    log, reason = told(do, timeout_ms=700)
    assert reason == "it did not answer within 0.7 s"
    assert log.paid("a") == 75


PARENT = """
from openpool.core.money.rules import Member
from openpool.rules.process import RuleProcess, nothing

rule = RuleProcess("obedient", {"do": "tell and hang"})
rule.describe()
print(rule.pid, flush=True)
rule.adjustments(nothing(members=(Member(address="0xA"),)))
"""


def test_a_hung_rule_does_not_outlive_a_killed_pool(plugins: Path) -> None:
    """After kill -9 of the process that asked, nothing of the rule is left."""
    os.mkfifo(plugins / "told")
    asking = [sys.executable, "-c", PARENT]
    with subprocess.Popen(asking, stdout=subprocess.PIPE, cwd=plugins) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        (plugins / "told").read_text()  # returns once the rule has opened it and goes to sleep
        parent.kill()
        child.wait(timeout=5)


def test_a_good_rule_is_recorded_with_its_source(plugins: Path) -> None:
    """Name, version and the SHA-256 of its file, which anybody can compute."""
    import hashlib

    log, reason = told("pay")
    summary = settled(log.events)
    assert reason == ""
    assert (summary.rule, summary.rule_version) == ("obedient", "1.0x")
    assert summary.rule_hash == hashlib.sha256((plugins / "obedient.py").read_bytes()).hexdigest()
    assert summary.rule_options == "do=pay"
    assert log.paid("a") == 76


def test_a_rule_is_not_told_the_pools_secrets(plugins: Path) -> None:
    """Settings from the environment do not reach it."""
    assert "OPENPOOL_SECRET" in os.environ
    log, reason = told("secrets")
    assert (reason, log.paid("a")) == ("", 75)


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("nobody", {}, "there is no revenue rule `nobody`; there are: commission-by-group,"),
        ("obedient", {"dont": "x"}, "it has no option `dont`; it has: do"),
        ("wrong", {}, "the revenue rule `wrong` is not right"),
        ("empty", {}, "has no function that is marked with @rule"),
        ("missing", {}, "it failed: ModuleNotFoundError"),
        ("holdback", {"rate": "ten"}, "is a rate like 5% or 2.5%, not 'ten'"),
        ("holdback", {"rounds": "-1"}, "is a whole number, not '-1'"),
        ("referral", {"pair.1": "me"}, "is a pair like"),
        ("commission-by-group", {"group.a": "101%"}, "is at most 100%"),
    ],
)
def test_a_wrong_hook_is_found_before_it_is_needed(
    plugins: Path, name: str, options: dict[str, str], why: str
) -> None:
    """A mistake in the settings is one sentence at the start, not a refused round."""
    with RuleProcess(name, options) as rule, pytest.raises(SetupError) as refused:
        rule.check()
    assert why in str(refused.value)


def test_the_rules_of_the_settings_are_tried_at_the_start(plugins: Path) -> None:
    """One that is wrong stops the start, and good ones are ready."""
    good = ("holdback", {"rounds": "3"})
    assert [rule.name for rule in prepared([good, ("obedient", {})])] == ["holdback", "obedient"]
    with pytest.raises(SetupError, match="nobody"):
        prepared([good, ("nobody", {})])


def test_all_rules_are_listed(plugins: Path) -> None:
    """Built-in ones and those of others."""
    found = names()
    assert {"commission-by-group", "holdback", "performance-bonus", "referral"} <= set(found)
    assert {"obedient", "wrong", "missing"} <= set(found)


def test_large_amounts_cross_the_process_exactly(plugins: Path) -> None:
    """Wei beyond 64 bits are not rounded on the way to the rule and back."""
    big = 10**27 + 1
    with RuleProcess("holdback", {"rate": "50%"}) as rule:
        log = RoundLog("proportional", rules=[rule])
        log.enroll("a")
        log.start(1)
        log.work("a", 10**20, 0)
        log.win(big)
        log.start(2)
    assert log.paid("a") == big - big // 2
    assert log.balance(f"holdback:{address('a')}") == big // 2
