"""`openpool customers`: who may use the pool's own API, with which keys and limits.

For the operator, through the REST API of the running pool. Must not print a key but once.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from openpool.cli.asking import Asked, as_operator
from openpool.cli.groups import Group
from openpool.cli.options import examples
from openpool.cli.output import ago, ether, note, print_json, show_facts, show_table

if TYPE_CHECKING:
    from openpool.core.customers import NewKey
    from openpool.web.answers import CustomerView, KeyView

customers = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    epilog=examples("openpool customers add Ann --spend-limit '20 USD'", "openpool customers list"),
)

CustomerId = Annotated[str, typer.Argument(metavar="CUSTOMER", help="The customer's id, c_….")]
PerMinute = Annotated[
    int | None,
    typer.Option("--requests-per-minute", metavar="N", min=0, help="0 is what the settings say."),
]
SpendLimit = Annotated[
    str,
    typer.Option("--spend-limit", metavar="AMOUNT", help="Like '20 USD' or '0.5 ETH', or none."),
]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(customers, name="customers", help="Who may use the pool's own API.")


@customers.command(
    "add",
    epilog=examples(
        "openpool customers add Ann",
        "openpool customers add Ben --requests-per-minute 60 --spend-limit '20 USD'",
    ),
)
@as_operator
def add(
    asked: Asked,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whatever you call them.")],
    requests_per_minute: PerMinute = None,
    spend_limit: SpendLimit = "none",
) -> None:
    """Add a customer and show its API key, this once."""
    from openpool.core.customers import NewKey

    body: dict[str, str | int] = {
        "name": name,
        "requests_per_minute": requests_per_minute or 0,
        "spend_limit": spend_limit,
    }
    made = asked.ask(lambda api: api.post(NewKey, "/customers", body))
    asked.show(made, _show_key)


@customers.command(
    "list", epilog=examples("openpool customers list", "openpool customers list --json")
)
@as_operator
def list_customers(asked: Asked) -> None:
    """List the customers, their limits and what they owe."""
    from openpool.web.answers import CustomerView

    found = asked.ask(lambda api: api.get(list[CustomerView], "/customers"))
    if asked.as_json:
        print_json(found)
        return
    now_ms = _now_ms()
    show_table(
        ["customer", "name", "calls>", "spent>", "paid>", "owes>", "limit>", "keys>", "last used"],
        [
            (
                each.customer,
                each.name,
                each.calls,
                ether(each.spent_wei),
                ether(each.paid_wei),
                ether(each.owed_wei),
                "none" if each.spend_limit_wei is None else ether(each.spend_limit_wei),
                sum(_is_good(key, now_ms) for key in each.keys),
                ago(max((key.last_used_ms for key in each.keys), default=0), now_ms),
            )
            for each in found
        ],
        empty="Nobody yet; `openpool customers add NAME` adds one.",
    )


@customers.command("rotate", epilog=examples("openpool customers rotate c_abc…"))
@as_operator
def rotate(
    asked: Asked,
    customer: CustomerId,
    label: Annotated[
        str, typer.Option("--label", metavar="TEXT", help="A note on the new key.")
    ] = "",
) -> None:
    """Make a new key; the old ones go on working for a grace period, so nothing stops."""
    from openpool.core.customers import NewKey

    path = f"/customers/{customer}/keys"
    made = asked.ask(lambda api: api.post(NewKey, path, {"label": label}))
    asked.show(made, _show_key)


@customers.command(
    "revoke",
    epilog=examples("openpool customers revoke c_abc…", "openpool customers revoke c_abc… --key k"),
)
@as_operator
def revoke(
    asked: Asked,
    customer: CustomerId,
    key: Annotated[
        str, typer.Option("--key", metavar="KEY", help="One key by its id; else all.")
    ] = "",
) -> None:
    """Make the keys of a customer worthless at once."""
    from openpool.web.answers import Revoked

    path = f"/customers/{customer}/keys"
    ended = asked.ask(lambda api: api.delete(Revoked, path, key=key))
    if asked.as_json:
        print_json(ended)
    else:
        typer.echo(f"Keys that ended: {ended.keys}.")


@customers.command(
    "limits",
    epilog=examples(
        "openpool customers limits c_abc… --spend-limit '50 USD'",
        "openpool customers limits c_abc… --requests-per-minute 0 --spend-limit none",
    ),
)
@as_operator
def limits(
    asked: Asked,
    customer: CustomerId,
    requests_per_minute: PerMinute = None,
    spend_limit: SpendLimit = "",
) -> None:
    """Show what a customer may ask and owe, or change it."""
    from openpool.web.answers import CustomerView

    body: dict[str, str | int] = {"spend_limit": spend_limit}
    if requests_per_minute is not None:
        body["requests_per_minute"] = requests_per_minute
    path = f"/customers/{customer}/limits"
    found = asked.ask(lambda api: api.post(CustomerView, path, body))
    asked.show(found, _show)


@customers.command(
    "paid",
    epilog=examples(
        "openpool customers paid c_abc… '20 USD' --reference INV-7",
        "openpool customers paid c_abc… '0.01 ETH' --reference 0x5c5…",
    ),
)
@as_operator
def paid(
    asked: Asked,
    customer: CustomerId,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="Like '20 USD' or '0.5 ETH'.")],
    reference: Annotated[
        str,
        typer.Option(
            "--reference", metavar="NAME", help="Your own name for the payment; it counts once."
        ),
    ],
) -> None:
    """Record that a customer paid you. The same reference again changes nothing."""
    from openpool.web.answers import CustomerView

    body = {"amount": amount, "reference": reference}
    path = f"/customers/{customer}/payments"
    asked.show(asked.ask(lambda api: api.post(CustomerView, path, body)), _show)


def _show(found: "CustomerView") -> None:
    limit = "none" if found.spend_limit_wei is None else ether(found.spend_limit_wei)
    show_facts(
        [
            ("customer", found.customer),
            ("name", found.name),
            ("requests per minute", found.requests_per_minute),
            ("calls", found.calls),
            ("spent", ether(found.spent_wei)),
            ("paid", ether(found.paid_wei)),
            ("owes", ether(found.owed_wei)),
            ("spend limit", limit),
        ]
    )


def _show_key(made: "NewKey") -> None:
    show_facts([("customer", made.customer), ("key", made.key), ("secret", made.secret)])
    note("The secret is shown this once; the customer uses it as an OpenAI API key.")


def _is_good(key: "KeyView", now_ms: int) -> bool:
    return not key.revoked_ms and (not key.expires_ms or key.expires_ms > now_ms)


def _now_ms() -> int:
    import time

    return time.time_ns() // 1_000_000
