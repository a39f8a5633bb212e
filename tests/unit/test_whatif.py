"""What everybody would have earned under other terms, from the same log."""

import csv
import io
import json
from pathlib import Path

import pytest
from roundlog import InProcess, RoundLog, address

from openpool.cli import run
from openpool.core.money.events import Scheme
from openpool.core.money.whatif import Outcome, Terms, WhatIf
from openpool.rules import holdback
from openpool.store.sqlite import SqliteStore

A, B = address("a"), address("b")


def played(scheme: Scheme, rules: tuple[InProcess, ...] = ()) -> RoundLog:
    """Three rounds with luck in the second; the third is open."""
    log = RoundLog(scheme, window_rounds=2, rules=rules)
    log.enroll("a")
    log.enroll("b")
    log.start(1)
    log.work("a", 1_000)
    log.work("b", 1_000, payer="customer:c_x", scheme="per-job")
    log.start(2)
    log.work("a", 3_000)
    log.work("b", 1_000)
    log.win(8_000)
    log.start(3)
    log.work("b", 500)
    return log


def outcome(log: RoundLog, **terms: object) -> Outcome:
    asked = {"scheme": "proportional", "window_rounds": 2, **terms}
    playing = WhatIf(Terms(**asked))  # type: ignore[arg-type]
    for event in log.events:
        playing.apply(event)
    return playing.finish()


def earned(found: Outcome) -> dict[str, tuple[int, int]]:
    return {each.address: (each.did_wei, each.would_wei) for each in found.earners}


@pytest.mark.parametrize("scheme", ["per-job", "proportional", "window"])
def test_the_same_terms_give_what_was_earned(scheme: Scheme) -> None:
    """Under the terms that were in force, would is did, for workers and commission alike."""
    log = played(scheme, (InProcess(holdback, "holdback", rate="10%", rounds="9"),))
    log.start(4)
    found = outcome(log, scheme=scheme, rules=log.rules)
    assert found.earners
    for each in found.earners:
        assert each.did_wei == each.would_wei == log.paid(each.address[2])
    assert found.did_commission_wei == found.would_commission_wei == log.balance("commission")
    assert found.accrued_wei == 0


def test_per_job_against_proportional() -> None:
    """Luck in the second round: its work would have earned twice its worth, other work nothing.
    The customer's fee stays as it is."""
    found = outcome(played("per-job"))
    assert earned(found) == {A: (3_000, 4_500), B: (750 + 750 + 375, 750 + 1_500)}
    assert (found.did_commission_wei, found.would_commission_wei) == (1_625, 250 + 2_000)
    assert (found.rounds, found.realised_wei, found.carried_wei) == (3, 8_000, 0)


def test_another_commission() -> None:
    """It counts for every fee, of customers too."""
    found = outcome(played("per-job"), scheme="per-job", commission_ppm=100_000)
    assert earned(found) == {A: (3_000, 3_600), B: (1_875, 2_250)}


def test_another_rule() -> None:
    """What would be held back is shown beside what would be earned."""
    rule = InProcess(holdback, "holdback", rate="50%", rounds="9")
    found = outcome(played("per-job"), rules=(rule,))
    assert [(e.would_wei, e.would_hold_wei) for e in found.earners] == [
        (2_250, 2_250),
        (750 + 750, 750),
    ]


def test_a_refused_rule_is_told() -> None:
    """And the comparison goes on without it."""
    from types import SimpleNamespace

    rule = InProcess(SimpleNamespace(adjustments=lambda round, options: 1), "odd")
    found = outcome(played("per-job"), rules=(rule,))
    assert found.refused == ("odd: its adjustments are no list but a int",)
    assert earned(found)[A] == (3_000, 4_500)


def test_a_log_without_rounds_gets_them_from_the_clock() -> None:
    """Each millisecond is a round here: a worked four rounds before the win, b two."""
    log = RoundLog("per-job")
    log.work("a", 100, 0)
    log.work("b", 100, 0)
    log.win(50)
    found = outcome(log, scheme="window", window_rounds=4, round_ms=1)
    assert earned(found) == {A: (100, 12), B: (100, 37)}
    assert found.carried_wei == 1


@pytest.fixture
async def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the data of a pool that has stopped."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENPOOL_HOME", str(tmp_path / "home"))
    async with SqliteStore(tmp_path / "data") as store:
        await store.append(played("per-job").events).durable()
    return tmp_path


def said(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run(arguments)
    out, err = capfd.readouterr()
    assert "Traceback" not in err
    return code, out, err


def test_replay_shows_the_comparison(pool: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As a table, as JSON and as CSV, with the same numbers."""
    words = ("replay", "--scheme", "proportional", "--commission", "20%")
    code, out, _ = said(capfd, *words)
    assert code == 0
    assert A in out
    _, out, _ = said(capfd, *words, "--json")
    found = json.loads(out)
    assert found["earners"][0] == {
        "address": A,
        "jobs": 2,
        "worth_wei": "4000",
        "did_wei": "3000",
        "would_wei": "4800",
        "difference_wei": "1800",
        "would_hold_wei": "0",
    }
    assert found["would_commission_wei"] == "1800"
    _, out, _ = said(capfd, *words, "--csv")
    assert next(iter(csv.DictReader(io.StringIO(out))))["would_wei"] == "4800"


def test_replay_with_a_rule(pool: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The rule runs in its process, as it would in the pool."""
    words = ("replay", "--scheme", "proportional", "--rule", "holdback:rate=50%,rounds=3", "--json")
    code, out, _ = said(capfd, *words)
    assert (code, json.loads(out)["earners"][0]["would_hold_wei"]) == (0, "2250")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--scheme", "pplns"), "--scheme is one of per-job, proportional, window"),
        (("--commission", "2"), "--commission is a rate from 0% to 100%"),
        (("--rule", "nobody"), "there is no revenue rule `nobody`"),
        (("--rule", "holdback:rate"), "write it as NAME or NAME:option=value"),
        (("--check", "--scheme", "window"), "say one of --check, --rebuild, or other terms"),
        ((), "say one of --check, --rebuild, or other terms"),
    ],
)
def test_a_wrong_question_is_one_sentence(
    pool: Path, capfd: pytest.CaptureFixture[str], words: tuple[str, ...], why: str
) -> None:
    """It says what to write instead."""
    code, out, err = said(capfd, "replay", *words)
    assert (code, out) == (2, "")
    assert why in err


def test_the_ledger_says_what_commission_is_free(
    pool: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A quarter of what the customer owes stays; the orchestrator has brought more than it owes."""
    _, out, _ = said(capfd, "ledger", "--offline", "--json")
    assert json.loads(out)["reserve"] == {
        "commission_wei": "1625",
        "unrealised_wei": "1000",
        "reserve_wei": "250",
        "free_wei": "1375",
    }
    assert "may be taken out" in said(capfd, "ledger", "--offline")[1]


def test_rules_are_listed(pool: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With version, hash, options, and whether the settings use them."""
    (pool / "openpool.yaml").write_text("revenue:\n  hooks:\n    - rule: holdback\n")
    _, out, _ = said(capfd, "rules", "list", "--json")
    found = {each["name"]: each for each in json.loads(out)}
    assert set(found) >= {"commission-by-group", "holdback", "performance-bonus", "referral"}
    assert found["holdback"]["in_use"]
    assert not found["referral"]["in_use"]
    assert len(found["holdback"]["hash"]) == 64
    assert "rounds" in found["holdback"]["options"]
    code, out, _ = said(capfd, "rules", "list")
    assert (code, found["holdback"]["hash"][:12] in out) == (0, True)


def test_a_rule_is_tried_on_the_last_round(pool: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What it would change, without changing it."""
    code, out, _ = said(capfd, "rules", "try", "holdback:rate=10%", "--json")
    (found,) = json.loads(out)
    assert (code, found["round"], found["refused"]) == (0, 2, "")
    assert {
        "account": f"worker:{A}",
        "without_wei": "2250",
        "with_wei": "2025",
    } in found["accounts"]
    assert len(found["adjustments"]) == 2
    code, out, _ = said(capfd, "rules", "try", "holdback:rate=10%")
    assert (code, "held until round 12" in out) == (0, True)
    assert said(capfd, "replay", "--check")[0] == 0
