"""What people see of a round's division: sentences, and an alert when a rule was left out."""

from roundlog import InProcess, RoundLog

from openpool.rules import holdback
from openpool.web.alerts import rule_alerts
from openpool.web.words import describe, level


class Odd:
    """A rule that answers nonsense."""

    @staticmethod
    def adjustments(round: object, options: object) -> object:
        return "all of it"


def played(*rules: InProcess) -> RoundLog:
    log = RoundLog("proportional", rules=rules)
    log.enroll("a")
    log.start(1)
    log.work("a", 4 * 10**18, 0)
    log.win(2 * 10**18)
    log.start(2)
    return log


def test_a_settlement_in_words() -> None:
    """The round, the share and the adjustment each say what happened."""
    log = played(InProcess(holdback, "holdback", rate="50%"))
    told = {event.type: describe(event.data) for event in log.events}
    assert told["round-settled"] == (
        "round 1 of main settled: 2\u202fETH shared, 2\u202fETH realised (proportional)"
    )
    assert told["share-credited"].endswith("got 2\u202fETH of round 1")
    assert told["adjustment-made"].startswith("holdback: 1\u202fETH from worker:0xaaaa")


def test_a_refused_rule_is_an_alert_until_a_round_goes_well() -> None:
    """It names the rule, the round and the reason, and is gone after the next good settlement."""
    log = played(InProcess(Odd, "odd"))
    (alert,) = rule_alerts(log.events)
    assert alert.level == "bad"
    assert alert.title == "The revenue rule odd was left out."
    assert "Round 1 of main was settled without it: its adjustments are no list" in alert.text
    assert level("rule-refused") == "bad"
    log.rules = ()
    log.start(3)
    assert rule_alerts(log.events) == []
