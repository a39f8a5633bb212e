"""What the API answers to made-up requests is what its own OpenAPI document promises."""

import asyncio
from pathlib import Path

import schemathesis
from hypothesis import HealthCheck, given, settings
from livepeer_chain import story_of_delegators
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from webpool import NOW_MS, OPERATOR, bearer, running

from openpool.web.storybook import Story

STORY = Story(start_ms=NOW_MS - 600_000, end_ms=NOW_MS, per_minute=4).events()
PROBED = {
    "GET /api/v1/public",
    "GET /api/v1/series",
    "GET /api/v1/events",
    "GET /api/v1/workers/{worker}",
    "GET /api/v1/workers/{worker}/earnings",
    "GET /api/v1/ledger/transfers",
    "GET /api/v1/delegation",
    "GET /api/v1/delegation/estimates",
    "GET /api/v1/delegation/accounts/{address}",
    "POST /api/v1/delegation/plan",
    "POST /api/v1/enroll/nonce",
    "POST /api/v1/session",
}
PROMISES = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def probe(base: str, document: dict[str, object]) -> set[str]:
    """Send made-up requests to every probed operation; raises at the first broken promise."""
    probed = set()
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = found.ok()
        if operation.label not in PROBED:
            continue

        @settings(
            max_examples=12,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def keeps_its_promises(case: schemathesis.Case) -> None:
            answer = case.call(base_url=base, headers=bearer(OPERATOR), timeout=10)
            case.validate_response(answer, checks=PROMISES)

        keeps_its_promises()
        probed.add(operation.label)
    return probed


async def test_answers_keep_the_promises_of_the_document(tmp_path: Path) -> None:
    """Valid requests made up from the document are answered with documented status and shape."""
    async with running(tmp_path, STORY, delegation=await story_of_delegators()) as (_, client):
        document = (await client.get("/schema/openapi.json")).json()
        assert await asyncio.to_thread(probe, str(client.base_url), document) == PROBED
