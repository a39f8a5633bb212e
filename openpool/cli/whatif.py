"""`openpool replay --scheme …`: what everybody would have earned, next to what they did earn.

Reads the log of a data folder, also of a running pool, and changes nothing. What is computed is
decided in `core.money.whatif`.
"""

import csv
import heapq
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from openpool.cli.output import ether, grouped, note, print_json, show_facts, show_table
from openpool.core.errors import SetupError

if TYPE_CHECKING:
    from openpool.config import Config
    from openpool.core.money.events import Scheme
    from openpool.core.money.whatif import Earner, Outcome, Terms
    from openpool.rules.process import RuleProcess
    from openpool.store.interface import Reader, StoredEvent

PAGE = 2_000
SCHEMES: "tuple[Scheme, ...]" = ("per-job", "proportional", "window")


def what_if(
    settings: "Config",
    *,
    scheme: str,
    commission: str,
    rounds: int,
    rules: Sequence[str],
    as_json: bool,
    as_csv: bool,
) -> None:
    """Compute and show the comparison. An empty `scheme` is that of the settings."""
    from openpool.core.money.whatif import Terms

    with ExitStack() as stack:
        asked = [stack.enter_context(rule) for rule in _rules(settings, rules)]
        for rule in asked:
            rule.check()
        terms = Terms(
            scheme=scheme_of(scheme) if scheme else settings.revenue.scheme,
            window_rounds=rounds or settings.revenue.window_rounds,
            commission_ppm=_rate(commission),
            rules=asked,
        )
        outcome = compare(settings.data_dir, terms, round_ms=settings.revenue.round_ms)
    if as_json:
        print_json(_plain(outcome))
    elif as_csv:
        _write_csv(outcome)
    else:
        _show(outcome)


def scheme_of(text: str) -> "Scheme":
    """A scheme as it is written on a command line."""
    for scheme in SCHEMES:
        if text == scheme:
            return scheme
    raise typer.BadParameter(f"--scheme is one of {', '.join(SCHEMES)}")


def _rate(text: str) -> int | None:
    from openpool.config.kinds import parse_rate

    if not text:
        return None
    try:
        return parse_rate(text)
    except ValueError:
        raise typer.BadParameter("--commission is a rate from 0% to 100%, like 20%") from None


def _rules(settings: "Config", asked: Sequence[str]) -> "list[RuleProcess]":
    from openpool.rules.process import RuleProcess

    if not asked:
        return [RuleProcess(hook.rule, dict(hook.options)) for hook in settings.revenue.hooks]
    return [rule_of(text) for text in asked if text != "none"]


def rule_of(text: str) -> "RuleProcess":
    """A rule as it is written on a command line: `holdback` or `holdback:rate=5%,rounds=3`."""
    from openpool.config.kinds import OPTIONS
    from openpool.rules.process import RuleProcess

    name, _, options = text.partition(":")
    try:
        pairs = OPTIONS.parse(options, Path())
    except ValueError:
        raise SetupError(
            f"--rule {text}: write it as NAME or NAME:option=value,option=value."
        ) from None
    return RuleProcess(name, dict(pairs))  # type: ignore[call-overload]


def compare(data_dir: Path, terms: "Terms", *, round_ms: int) -> "Outcome":
    """Play the log through. `round_ms` is for a log without rounds."""
    from msgspec.structs import replace

    from openpool.core.money.whatif import TYPES, WhatIf
    from openpool.store.reader import SqliteReader

    reader = SqliteReader(data_dir)
    try:
        counts = reader.counts()
        if not counts.get("round-started"):
            note("The log has no rounds; they are made by the clock (revenue.round_ms).")
            terms = replace(terms, round_ms=round_ms)
        playing = WhatIf(terms)
        with _progress(sum(counts.get(kind, 0) for kind in TYPES)) as advance:
            for number, stored in enumerate(in_order(reader, TYPES), 1):
                playing.apply(stored.event)
                if number % PAGE == 0:
                    advance(PAGE)
        return playing.finish()
    finally:
        reader.close()


def in_order(reader: "Reader", types: Sequence[str]) -> "Iterator[StoredEvent]":
    """All events of these types up to now, in the order of the log."""
    last_seq, _ = reader.head()
    streams = [_pages(reader, kind, last_seq) for kind in types]
    return heapq.merge(*streams, key=attrgetter("seq"))


def _pages(reader: "Reader", kind: str, last_seq: int) -> "Iterator[StoredEvent]":
    from openpool.store.interface import EventFilter

    after = 0
    while True:
        which = EventFilter(after_seq=after, before_seq=last_seq + 1, types=(kind,), limit=PAGE)
        page = reader.events(which)
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].seq


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(
        console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True
    ) as progress:
        bar = progress.add_task("Events", total=total)
        yield lambda count: progress.advance(bar, count)


# --- showing it ----------------------------------------------------------------------------------


def _show(outcome: "Outcome") -> None:
    show_table(
        ["address", "jobs>", "work>", "did earn>", "would earn>", "difference>"],
        [
            (
                each.address,
                grouped(each.jobs),
                ether(each.worth_wei),
                ether(each.did_wei),
                ether(each.would_wei),
                _signed(each.would_wei - each.did_wei),
            )
            for each in outcome.earners
        ],
        empty="Nobody has earned anything yet.",
    )
    held = sum(each.would_hold_wei for each in outcome.earners)
    show_facts(
        [
            ("rounds", grouped(outcome.rounds)),
            ("work of all", ether(outcome.expected_wei)),
            ("realised", ether(outcome.realised_wei)),
            ("commission, was", ether(outcome.did_commission_wei)),
            ("commission, would be", ether(outcome.would_commission_wei)),
            *(
                [("accrued, not settled yet", ether(outcome.accrued_wei))]
                * bool(outcome.accrued_wei)
            ),
            *([("would be carried", ether(outcome.carried_wei))] * bool(outcome.carried_wei)),
            *([("would be held back", ether(held))] * bool(held)),
        ]
    )
    for reason in outcome.refused:
        note(f"A rule was refused. {reason}.")
    if not outcome.realised_wei:
        note("No revenue of an orchestrator was realised, so there is nothing to share yet.")


def _signed(wei: int) -> str:
    return ("+" if wei > 0 else "−" if wei < 0 else "") + ether(abs(wei))


def _row(each: "Earner") -> dict[str, object]:
    return {
        "address": each.address,
        "jobs": each.jobs,
        "worth_wei": str(each.worth_wei),
        "did_wei": str(each.did_wei),
        "would_wei": str(each.would_wei),
        "difference_wei": str(each.would_wei - each.did_wei),
        "would_hold_wei": str(each.would_hold_wei),
    }


def _plain(outcome: "Outcome") -> dict[str, object]:
    import msgspec

    facts: dict[str, object] = msgspec.structs.asdict(outcome)
    wei = {name: str(value) for name, value in facts.items() if name.endswith("_wei")}
    return {**facts, **wei, "earners": [_row(each) for each in outcome.earners]}


def _write_csv(outcome: "Outcome") -> None:
    names = [*_row_names()]
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_row(each) for each in outcome.earners)


def _row_names() -> list[str]:
    from openpool.core.money.whatif import Earner

    return list(_row(Earner(address="")))
