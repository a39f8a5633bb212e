"""How a page is shown: whole, or its live part alone where htmx asks for that."""

from litestar.response import Template

from openpool.web.auth import Visitor
from openpool.web.context import Web
from openpool.web.problems import Asked


def show(
    request: Asked, web: Web, visitor: Visitor, name: str, title: str, **context: object
) -> Template:
    """A whole page, or its live part alone where htmx asks."""
    partial = "hx-request" in request.headers
    context |= {
        "now_ms": web.views.now_ms(),
        "page": name,
        "partial": partial,
        "title": title,
        "url": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
        "visitor": visitor,
    }
    return Template(f"parts/{name}.html" if partial else f"{name}.html", context=context)
