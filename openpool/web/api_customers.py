"""The REST API about customers: `/api/v1/customers`, for the operator only.

What a customer may do with a key is in `web.direct`; here keys and limits are made and changed.
"""

from typing import Annotated

from litestar import Router, delete, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody, PathParameter, QueryParameter
from msgspec import Meta, Struct

from openpool.core.customers import Customer, NewKey
from openpool.web.answers import CustomerView, KeyView, Revoked
from openpool.web.context import FromVisitor, FromWeb, Web
from openpool.web.door import need_operator
from openpool.web.interface import Customers
from openpool.web.problems import NotSetUp, documented

Line = Annotated[str, Meta(max_length=200)]
PathId = Annotated[str, PathParameter(min_length=1, max_length=200)]
PerMinute = Annotated[int, Meta(ge=0, le=1_000_000)]
BY = "operator"
"""Who records payments here."""
SIGNED_IN: list[dict[str, list[str]]] = [{"bearer": []}, {"session": []}]


class CustomerRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Line
    requests_per_minute: PerMinute = 0
    """0 is what the settings say."""
    spend_limit: Line = "none"
    """Like `20 USD`, `0.5 ETH` or `1000 wei`; `none` is no limit."""


class LimitsRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is left out stays as it is."""

    requests_per_minute: PerMinute | None = None
    spend_limit: Line = ""


class KeyRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    label: Line = ""


class PaymentRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    amount: Line
    """Like `20 USD`, `0.5 ETH` or `1000 wei`."""
    reference: Line
    """Your own name for the payment, like the number of its invoice: it counts once."""


@get("/customers", responses=documented(401, 403, 404), security=SIGNED_IN, tags=["customers"])
async def customers(web: FromWeb, visitor: FromVisitor) -> list[CustomerView]:
    """All customers with their keys. Operator only."""
    need_operator(visitor)
    known = customers_of(web)
    return [customer_view(known, each) for each in known.all()]


@post("/customers", responses=documented(401, 403, 404, 503), tags=["customers"])
async def add_customer(
    web: FromWeb, visitor: FromVisitor, data: JSONBody[CustomerRequest]
) -> NewKey:
    """A new customer. The secret of its first key is shown this once. Operator only."""
    need_operator(visitor)
    return await customers_of(web).add(
        data.name, requests_per_minute=data.requests_per_minute, spend_limit=data.spend_limit
    )


@post("/customers/{customer:str}/keys", responses=documented(401, 403, 404), tags=["customers"])
async def rotate_key(
    web: FromWeb, visitor: FromVisitor, customer: PathId, data: JSONBody[KeyRequest]
) -> NewKey:
    """A new key. The old ones stay good for a grace period. Operator only."""
    need_operator(visitor)
    return await customers_of(web).rotate(customer, data.label)


@delete(
    "/customers/{customer:str}/keys",
    status_code=200,
    responses=documented(401, 403, 404),
    tags=["customers"],
)
async def revoke_keys(
    web: FromWeb,
    visitor: FromVisitor,
    customer: PathId,
    key: Annotated[str, QueryParameter(max_length=200, description="One key; else all.")] = "",
) -> Revoked:
    """Make one key of a customer worthless, or all of them, at once. Operator only."""
    need_operator(visitor)
    return Revoked(keys=await customers_of(web).revoke(customer, key))


@post(
    "/customers/{customer:str}/limits",
    status_code=200,
    responses=documented(401, 403, 404),
    tags=["customers"],
)
async def set_limits(
    web: FromWeb, visitor: FromVisitor, customer: PathId, data: JSONBody[LimitsRequest]
) -> CustomerView:
    """Change what a customer may ask and spend. Operator only."""
    need_operator(visitor)
    known = customers_of(web)
    changed = await known.set_limits(
        customer, requests_per_minute=data.requests_per_minute, spend_limit=data.spend_limit
    )
    return customer_view(known, changed)


@post(
    "/customers/{customer:str}/payments",
    status_code=200,
    responses=documented(401, 403, 404),
    tags=["customers"],
)
async def add_payment(
    web: FromWeb, visitor: FromVisitor, customer: PathId, data: JSONBody[PaymentRequest]
) -> CustomerView:
    """A customer paid you; the same reference again changes nothing. Operator only."""
    need_operator(visitor)
    known = customers_of(web)
    return customer_view(known, await known.paid(customer, data.amount, data.reference, BY))


def customers_of(web: Web) -> Customers:
    """Raises NotSetUp if the pool has none."""
    if web.deps.customers is None:
        raise NotSetUp("This pool has no API for customers; set ai.enabled.")
    return web.deps.customers


def customer_view(known: Customers, each: Customer) -> CustomerView:
    """A customer as it is shown, with keys."""
    limit_wei = each.spend_limit_wei
    return CustomerView(
        customer=each.customer,
        name=each.name,
        created_ms=each.created_ms,
        requests_per_minute=each.requests_per_minute,
        spend_limit_wei=None if limit_wei is None else str(limit_wei),
        spent_wei=str(each.spent_wei),
        paid_wei=str(each.paid_wei),
        owed_wei=str(each.owed_wei),
        calls=each.calls,
        calls_failed=each.calls_failed,
        keys=[
            KeyView(
                key=row.token,
                label=row.label,
                created_ms=row.created_ms,
                last_used_ms=row.last_used_ms,
                expires_ms=row.expires_ms,
                revoked_ms=row.revoked_ms,
            )
            for row in known.keys(each.customer)
        ],
    )


CUSTOMERS: list[HTTPRouteHandler] = [
    customers,
    add_customer,
    rotate_key,
    revoke_keys,
    set_limits,
    add_payment,
]


def customers_router() -> Router:
    return Router("/api/v1", route_handlers=CUSTOMERS)
