"""Nobody turns the words on a page round: controls of direction are refused, tidied, or shown."""

from collections.abc import Callable
from pathlib import Path

import pytest
from webpool import NOW_MS, OPERATOR, bearer, running

from openpool.cli.output import plain
from openpool.core import customers, enrolment, texts
from openpool.core import events as e
from openpool.core.calls import App, Offer
from openpool.core.errors import BadMessage
from openpool.core.events import Event
from openpool.core.jobs import tidy_reason
from openpool.core.money.events import AdjustmentMade
from openpool.link.line_client import _check_offer
from openpool.web.asked_model import Wanted, checked
from openpool.web.bidi import CONTROLS, described

OVERRIDE = "\u202e"
HEBREW = "\u05e9\u05dc\u05d5\u05dd"


def offer(model: str = "m", gpu: str = "") -> Offer:
    return Offer(app=App("llm", model), capacity=1, gpu=gpu)


EDGES: dict[str, Callable[[str], object]] = {
    "the name of a worker": enrolment.checked_name,
    "the name of a customer": customers.checked_name,
    "the reference of a payment": customers.checked_reference,
    "a model that a worker offers": lambda text: _check_offer(offer(model=text)),
    "its graphics card": lambda text: _check_offer(offer(gpu=text)),
    "a model that a customer asks for": lambda text: checked(Wanted(model=text)),
}


@pytest.mark.parametrize("edge", EDGES)
def test_names_have_no_controls(edge: str) -> None:
    """No name with a control of direction is accepted, and the same name without one is."""
    EDGES[edge]("a4000")
    for control in CONTROLS:
        with pytest.raises(BadMessage):
            EDGES[edge](f"a{control}4000")


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: f"{ord(control):x}")
def test_remarks_are_tidied(control: str) -> None:
    """A peer's reason and a label keep their words, without the control."""
    assert tidy_reason(f"no {control}memory") == "no  memory"
    assert texts.one_line(f"{control}dashboard", 100) == "dashboard"
    assert plain(f"no {control}memory") == "no \ufffdmemory"


def test_a_sentence_keeps_foreign_words_apart() -> None:
    """What is not plain ASCII has an element of its own; markup and marks in it do nothing."""
    banned = e.WorkerBanned(worker="w", reason=f"<i>{OVERRIDE}{HEBREW}\u2069</i>")
    shown = described(banned)
    assert shown == f"banned: <bdi>&lt;i&gt;\ufffd{HEBREW}\ufffd&lt;/i&gt;</bdi>"
    assert described(e.WorkerBanned(worker="w", reason="<i>")) == "banned: &lt;i&gt;"


def test_numbers_beside_foreign_words_are_still_numbers() -> None:
    """Sums are read from fields that are never put into an element."""
    adjusted = AdjustmentMade(
        orchestrator="o",
        round=1,
        rule=HEBREW,
        debit="a",
        credit="b",
        amount_wei="5000000000000000000",
        reason="r",
    )
    assert described(adjusted).startswith(f"<bdi>{HEBREW}</bdi>: 5\u202fETH from a to b")


async def test_pages_show_controls_of_old_events(tmp_path: Path) -> None:
    """A log from before they were refused is shown with `�` in their place, on every page."""
    name, worker = f"a{OVERRIDE}b", "w_old"
    facts = [
        e.WorkerEnrolled(worker=worker, address="0x1", name=name, group=name, terms=""),
        e.WorkerApproved(worker=worker),
        e.AttemptFailed(job=name, attempt=1, worker=worker, reason=name, blamed=True),
    ]
    story = [Event(id=f"old/{n}", time_ms=NOW_MS - n, data=data) for n, data in enumerate(facts)]
    async with running(tmp_path, story) as (pool, client):
        await pool.enrol("rig")
        await client.post("/login", data={"secret": OPERATOR})
        for path in ("/workers", f"/workers/{worker}", "/events", f"/events?job={name}"):
            page = (await client.get(path)).text
            assert "a\ufffdb" in page, path
            assert not set(page) & set(CONTROLS), path
        label = {"label": f"my{OVERRIDE}key"}
        path = f"/api/v1/workers/{pool.workers['rig']}/tokens"
        await client.post(path, json=label, headers=bearer(pool.tokens["rig"]))
        assert "my key" in (await client.get(f"/workers/{pool.workers['rig']}")).text
