"""`openpool rules`: which revenue rules there are, and trying one on the last round.

Changes nothing. What a rule may do is decided in `core.money.rules`, what it would have done in
`core.money.settlement`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from openpool.cli.groups import Group
from openpool.cli.options import ConfigFile, Json, Set, examples, load
from openpool.cli.output import ether, grouped, print_json, show, show_table
from openpool.core.errors import OpenPoolError

if TYPE_CHECKING:
    from openpool.config import Config
    from openpool.core.events import Event
    from openpool.core.money.events import Scheme
    from openpool.core.money.rounds import Closing
    from openpool.rules.catalogue import RuleInfo

HASH_CHARS = 12
SHOWN_MAX = 50


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    rules = typer.Typer(
        cls=Group,
        name="rules",
        help="Revenue rules: plugins that have a say when a round's revenue is divided.",
        no_args_is_help=True,
        rich_markup_mode=None,
        epilog=examples("openpool rules list", "openpool rules try holdback:rate=10%"),
    )
    rules.command("list", epilog=examples("openpool rules list", "openpool rules list --json"))(
        list_rules
    )
    rules.command(
        "try",
        epilog=examples(
            "openpool rules try holdback:rate=10%,rounds=5",
            "openpool rules try my-rule --scheme proportional --json",
        ),
    )(try_rule)
    app.add_typer(rules)


def list_rules(config: ConfigFile = None, assignments: Set = None, as_json: Json = False) -> None:
    """Show all installed rules: version, hash of the source, and options."""
    settings = load(config, assignments).config
    used = {hook.rule for hook in settings.revenue.hooks}
    found = [(info, fault, info.name in used) for info, fault in _described()]
    if as_json:
        print_json(
            [{**_plain(info), "fault": fault, "in_use": is_used} for info, fault, is_used in found]
        )
        return
    show_table(
        ["rule", "version", "hash", "in use", "what it does~"],
        [
            (
                info.name,
                info.version,
                info.hash[:HASH_CHARS],
                "yes" if is_used else "",
                fault or info.meaning,
            )
            for info, fault, is_used in found
        ],
    )
    show_table(
        ["rule", "option", "meaning~"],
        [(i.name, name, meaning) for i, _, _ in found for name, meaning in i.options.items()],
        empty="",
    )


def _described() -> "list[tuple[RuleInfo, str]]":
    """Every rule, and what is wrong with it if it cannot be loaded."""
    from openpool.core.money.rules import RuleFault
    from openpool.rules import catalogue
    from openpool.rules.process import RuleProcess

    found = []
    for name in catalogue.names():
        with RuleProcess(name, {}) as rule:
            try:
                found.append((rule.describe(), ""))
            except RuleFault as fault:
                unknown = catalogue.RuleInfo(
                    name=name, version="", hash="", meaning="", options={}, built_in=False
                )
                found.append((unknown, str(fault)))
    return found


def _plain(info: "RuleInfo") -> dict[str, object]:
    from msgspec import structs

    return structs.asdict(info)


def try_rule(
    rule: Annotated[
        str, typer.Argument(metavar="RULE", help="NAME or NAME:option=value,option=value")
    ],
    scheme: Annotated[
        str, typer.Option(metavar="SCHEME", help="As if this scheme had been in force.")
    ] = "",
    config: ConfigFile = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Settle the last round again with this rule, without booking it."""
    from openpool.cli.whatif import rule_of, scheme_of
    from openpool.core.money.settlement import settle

    settings = load(config, assignments).config
    other = scheme_of(scheme) if scheme else None
    with rule_of(rule) as asked:
        asked.check()
        tried = [
            (closing, settle(closing), settle(closing, [asked]))
            for closing in _last_round(settings, other)
        ]
    if as_json:
        print_json([_result(*each) for each in tried])
    for closing, plain, ruled in [] if as_json else tried:
        _show(closing, plain, ruled)
    if not tried:
        show("There is no round with work or revenue yet.")
    if any(_refusal(ruled) for _, _, ruled in tried):
        raise OpenPoolError("The rule was refused: its answer cannot be applied.")


def _last_round(settings: "Config", scheme: "Scheme | None") -> "list[Closing]":
    """The last round that ended, by orchestrator; the open one if none has ended yet. Under
    another scheme all rounds are settled anew on the way."""
    from openpool.cli.whatif import in_order
    from openpool.core.money.events import RoundStarted
    from openpool.core.money.rounds import TYPES, Rounds
    from openpool.core.money.settlement import settle
    from openpool.store.reader import SqliteReader

    revenue = settings.revenue
    rounds = Rounds(scheme=scheme or revenue.scheme, window_rounds=revenue.window_rounds)
    last: list[Closing] = []

    def settle_due() -> None:
        nonlocal last
        while due := rounds.due():
            last = due
            for event in (event for closing in due for event in settle(closing)):
                rounds.apply(event)

    last_ms = 0
    reader = SqliteReader(settings.data_dir)
    try:
        for stored in in_order(reader, TYPES):
            if event := _under(stored.event, scheme):
                rounds.apply(event)
            last_ms = stored.event.time_ms
            if isinstance(stored.event.data, RoundStarted):
                last = rounds.due() or last
                if scheme:
                    settle_due()
    finally:
        reader.close()
    settle_due()
    if not last:
        first = rounds.round or 0
        rounds.start(first, last_ms)
        rounds.start(first + 1, last_ms)
        settle_due()
    return last


def _under(event: "Event", scheme: "Scheme | None") -> "Event | None":
    """The event as it would be under this scheme; None for settlements, which are made anew."""
    from msgspec.structs import replace

    from openpool.core.events import FeeCredited
    from openpool.core.money.events import AdjustmentMade, RoundSettled

    if scheme and isinstance(event.data, FeeCredited):
        return replace(event, data=replace(event.data, scheme=scheme))
    return None if scheme and isinstance(event.data, RoundSettled | AdjustmentMade) else event


def _earned(events: "Sequence[Event]", closing: "Closing") -> dict[str, int]:
    """What each account has of the round."""
    from openpool.core.money.accounts import COMMISSION, worker_account
    from openpool.core.money.events import AdjustmentMade, ShareCredited

    amounts: dict[str, int] = {COMMISSION: 0}

    def add(account: str, amount_wei: int) -> None:
        amounts[account] = amounts.get(account, 0) + amount_wei

    for address, work in closing.work.items():
        add(worker_account(address), work.paid_wei)
        add(COMMISSION, work.paid_commission_wei)
    for event in events:
        match event.data:
            case ShareCredited() as share:
                add(worker_account(share.address), int(share.share_wei))
                add(COMMISSION, int(share.commission_wei))
            case AdjustmentMade() as made:
                add(made.debit, -int(made.amount_wei))
                add(made.credit, int(made.amount_wei))
    return amounts


def _refusal(events: "Sequence[Event]") -> str:
    from openpool.core.money.events import RuleRefused

    return next((e.data.reason for e in events if isinstance(e.data, RuleRefused)), "")


def _result(
    closing: "Closing", plain: "Sequence[Event]", ruled: "Sequence[Event]"
) -> dict[str, object]:
    from openpool.core.money.events import AdjustmentMade

    before, after = _earned(plain, closing), _earned(ruled, closing)
    return {
        "orchestrator": closing.orchestrator,
        "round": closing.round,
        "scheme": closing.scheme,
        "refused": _refusal(ruled),
        "accounts": [
            {
                "account": account,
                "without_wei": str(before.get(account, 0)),
                "with_wei": str(after.get(account, 0)),
            }
            for account in sorted(before.keys() | after.keys())
        ],
        "adjustments": [e.data for e in ruled if isinstance(e.data, AdjustmentMade)],
    }


def _show(closing: "Closing", plain: "Sequence[Event]", ruled: "Sequence[Event]") -> None:
    from openpool.core.money.events import AdjustmentMade

    show(f"Round {closing.round} of {closing.orchestrator}, {closing.scheme}:")
    if reason := _refusal(ruled):
        show(f"✗ Refused: {reason}.")
        return
    before, after = _earned(plain, closing), _earned(ruled, closing)
    show_table(
        ["account", "without>", "with>", "difference, wei>"],
        [
            (
                account,
                ether(before.get(account, 0)),
                ether(after.get(account, 0)),
                grouped(after.get(account, 0) - before.get(account, 0)),
            )
            for account in sorted(before.keys() | after.keys())
        ],
    )
    made = [event.data for event in ruled if isinstance(event.data, AdjustmentMade)]
    show_table(
        ["from", "to", "wei>", "reason~"],
        [(m.debit, m.credit, grouped(m.amount_wei), m.reason) for m in made[:SHOWN_MAX]],
        empty="The rule adjusts nothing in this round.",
    )
    if len(made) > SHOWN_MAX:
        show(f"… and {len(made) - SHOWN_MAX} more; --json shows all.")
