"""The page about the customers of the pool's own API, for the operator.

Plain forms like those of `web.deeds`, over the same calls as the REST API (`web.api_customers`).
A new key is shown once, on the answer to its form.
"""

from typing import Annotated

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter, URLEncodedBody
from litestar.response import Redirect, Template
from msgspec import Meta, Struct

from openpool.core.customers import NewKey
from openpool.core.errors import BadMessage
from openpool.web.api_customers import BY, customer_view, customers_of
from openpool.web.auth import Visitor
from openpool.web.context import FromVisitor, FromWeb, Web
from openpool.web.deeds import show_secret
from openpool.web.door import need_operator
from openpool.web.problems import Asked
from openpool.web.show import show

Text = Annotated[str, Meta(max_length=200)]
PathId = Annotated[str, PathParameter(min_length=1, max_length=200)]


class CustomerForm(Struct, frozen=True, kw_only=True):
    name: Text = ""
    spend_limit: Text = ""
    requests_per_minute: Text = ""


class PaymentForm(Struct, frozen=True, kw_only=True):
    amount: Text = ""
    reference: Text = ""


class LabelForm(Struct, frozen=True, kw_only=True):
    label: Text = ""


@get("/customers", include_in_schema=False)
async def customers_page(request: Asked, web: FromWeb, visitor: FromVisitor) -> Template:
    """Who uses the pool's own API, what they owe, and their keys."""
    need_operator(visitor)
    known = web.deps.customers
    return show(
        request,
        web,
        visitor,
        "customers",
        "Customers",
        enabled=known is not None,
        customers=[customer_view(known, each) for each in known.all()] if known else [],
    )


@post("/customers", include_in_schema=False)
async def add_customer_form(
    web: FromWeb, visitor: FromVisitor, data: URLEncodedBody[CustomerForm]
) -> Template:
    """A new customer; the first key is shown once."""
    need_operator(visitor)
    made = await customers_of(web).add(
        data.name,
        requests_per_minute=_per_minute(data.requests_per_minute) or 0,
        spend_limit=data.spend_limit.strip() or "none",
    )
    return _key_page(web, visitor, "A key for the new customer", made)


@post("/customers/{customer:str}/rotate", include_in_schema=False)
async def rotate_key_form(
    web: FromWeb, visitor: FromVisitor, customer: PathId, data: URLEncodedBody[LabelForm]
) -> Template:
    """A new key, shown once."""
    need_operator(visitor)
    made = await customers_of(web).rotate(customer, data.label)
    return _key_page(web, visitor, "New key", made)


@post("/customers/{customer:str}/revoke/{key:str}", include_in_schema=False)
async def revoke_key_form(
    web: FromWeb, visitor: FromVisitor, customer: PathId, key: PathId
) -> Redirect:
    """End a key."""
    need_operator(visitor)
    await customers_of(web).revoke(customer, key)
    return _back()


@post("/customers/{customer:str}/limits", include_in_schema=False)
async def limits_form(
    web: FromWeb, visitor: FromVisitor, customer: PathId, data: URLEncodedBody[CustomerForm]
) -> Redirect:
    """Change limits; an empty field leaves its limit as it is."""
    need_operator(visitor)
    await customers_of(web).set_limits(
        customer,
        requests_per_minute=_per_minute(data.requests_per_minute),
        spend_limit=data.spend_limit.strip(),
    )
    return _back()


@post("/customers/{customer:str}/payments", include_in_schema=False)
async def payment_form(
    web: FromWeb, visitor: FromVisitor, customer: PathId, data: URLEncodedBody[PaymentForm]
) -> Redirect:
    """A customer paid."""
    need_operator(visitor)
    await customers_of(web).paid(customer, data.amount, data.reference, BY)
    return _back()


def _per_minute(text: str) -> int | None:
    """The number in a form's field; None if it is empty. Raises BadMessage."""
    text = text.strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 8):
        raise BadMessage("Requests a minute are a whole number; 0 is what the settings say.")
    return int(text)


def _back() -> Redirect:
    return Redirect("/customers", status_code=303)


def _key_page(web: Web, visitor: Visitor, title: str, made: NewKey) -> Template:
    return show_secret(
        web,
        visitor,
        title=title,
        secret=made.secret,
        text="Give it to the customer now; it is shown this once. It goes into the OpenAI client "
        "as `api_key`, with this pool's address and /v1 as `base_url`. An older key stays good for "
        "a grace period, unless you revoke it.",
        back="/customers",
    )


CUSTOMER_PAGES: list[HTTPRouteHandler] = [
    customers_page,
    add_customer_form,
    rotate_key_form,
    revoke_key_form,
    limits_form,
    payment_form,
]
