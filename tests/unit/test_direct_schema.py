"""The customers' API stands in the OpenAPI document, as it is served."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from callers import calling_pool
from webpool import running

from openpool.web.call_story import StoryDesk
from openpool.web.direct import ROUTES
from openpool.web.direct_errors import MEANINGS
from openpool.web.direct_schema import KINDS, MODELS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "how-to/use-the-api.md").read_text()
OWN = (DOCS / "reference/ai-routes.md").read_text()


async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get("/schema/openapi.json")).json()
    return found


def ours(found: Mapping[str, Any]) -> dict[str, Any]:
    return {path: item for path, item in found["paths"].items() if path.startswith("/v1")}


async def test_every_route_is_in_the_document(tmp_path: Path) -> None:
    """Each route is there once, with its pipeline and every status that it may answer with; the
    document stays a valid one, and a pool without customers does not name them."""
    async with running(tmp_path, desk=StoryDesk()) as (_, client):
        found = await document(client)
    routes = ours(found)
    assert set(routes) == {*ROUTES, MODELS, f"{MODELS}/{{model}}"}
    for path, route in ROUTES.items():
        operation = routes[path]["post"]
        assert f"`{route.pipeline}`" in operation["description"]
        assert {each.status for each in MEANINGS.values()} < set(map(int, operation["responses"]))
        assert ("text/event-stream" in operation["responses"]["200"]["content"]) == route.streams
        assert operation["security"] == [{"customer": []}]
    assert "customer" in found["components"]["securitySchemes"]
    loaded = schemathesis.openapi.from_dict(found)
    assert all(each.ok() for each in loaded.get_all_operations())


async def test_a_pool_without_customers_has_no_such_routes(tmp_path: Path) -> None:
    """What is not served is not in the document."""
    async with running(tmp_path) as (_, client):
        assert ours(await document(client)) == {}


def test_the_pages_name_what_a_route_takes() -> None:
    """The document and the pages agree: a bare picture or video, forms, and every field of our own
    routes."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| `POST ")]
    for path, kind in KINDS.items():
        (row,) = [line for line in rows if f"{path}`" in line]
        if "the same" not in row and "OpenAI" not in row and path != "/v1/transcode":
            assert ("JSON" in row) == ("application/json" in kind.takes), path
            assert ("form" in row) == ("multipart/form-data" in kind.takes), path
    for path in ("/v1/ocr", "/v1/segment", "/v1/detect"):
        for field in KINDS[path].fields:
            assert f"`{field}`" in OWN or f"-F {field}=" in OWN, (path, field)
        answer = KINDS[path].answer.properties or {}
        assert all(f'"{name}"' in OWN for name in answer), path
    for field in KINDS["/v1/transcode"].fields:
        assert f"`{field}`" in PAGE or f"-F {field}=" in PAGE, field


@pytest.mark.parametrize("path", [MODELS, "/v1/chat/completions", "/v1/ocr"])
async def test_answers_have_the_shape_of_the_document(tmp_path: Path, path: str) -> None:
    """What a whole pool answers, good or not, is what the document promises."""
    method = "get" if path == MODELS else "post"
    async with (
        calling_pool(tmp_path) as served,
        httpx.AsyncClient(base_url=served.running.web_url, timeout=10) as client,
    ):
        made = await served.process.customers.add("Ann")
        loaded = schemathesis.openapi.from_dict(await document(client))
        operation = loaded[path][method]
        key = {"authorization": f"Bearer {made.secret}"}
        for headers, body in ((key, {"model": "none"}), ({}, {}), (key, {"model": 7})):
            answer = await client.request(
                method, path, headers=headers, json=None if method == "get" else body
            )
            operation.validate_response(answer)
