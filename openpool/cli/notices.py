"""Tells the owner of a worker that the pool's terms are going to change, when the worker starts.

Never in the way: a pool that does not answer, or has no terms of that kind, is passed over.
"""

import asyncio
from datetime import datetime

from msgspec import Struct

from openpool.cli.api import Api
from openpool.cli.enrolling import tls_of
from openpool.cli.output import note, plain
from openpool.core.errors import OpenPoolError

TIMEOUT_S = 3.0
CHANGES_MAX = 20


class TermsNotice(Struct, frozen=True, kw_only=True):
    """A change of the terms, as the API tells it."""

    next_version: int
    next_applies_ms: int
    changes: list[str]


def tell_of_new_terms(web: str, pin: str) -> None:
    """Say what will change and when, if anything will."""
    if not web:
        return
    try:
        notice = asyncio.run(_ask(web, pin))
    except (OpenPoolError, TimeoutError, OSError, OverflowError, ValueError):
        return
    if notice.next_version:
        when = datetime.fromtimestamp(notice.next_applies_ms / 1000).astimezone()
        note(plain(f"The pool's terms change on {when:%Y-%m-%d %H:%M}:"))
        for line in notice.changes[:CHANGES_MAX]:
            note(plain(f"  {line}"))


async def _ask(web: str, pin: str) -> TermsNotice:
    async with asyncio.timeout(TIMEOUT_S):
        async with Api(web, tls=tls_of(web, pin, TIMEOUT_S)) as api:
            return await api.get(TermsNotice, "/terms/notice")
