"""A host of runtimes as tests want it, and calls to it."""

from collections.abc import AsyncIterator
from pathlib import Path

from odd_runtime import Odd

from openpool.core.calls import App
from openpool.link.line import LineAnswer, LineRequest
from openpool.worker.offers import RuntimeSettings, WorkerOffers
from openpool.worker.runtimes.base import Runtime
from openpool.worker.runtimes.host import Host, call_path

APP = App("test", "odd")


def settings(kind: type[Runtime] = Odd, **changes: object) -> RuntimeSettings:
    """An entry for one of the above."""
    fields: dict[str, object] = {
        "runtime": f"odd_runtime:{kind.__name__}", "model": "odd", "pipeline": "test",
    } | changes  # fmt: skip
    return RuntimeSettings(**fields)  # type: ignore[arg-type]


def host_of(*entries: RuntimeSettings, cache: Path, vram_budget_mb: int | None = None) -> Host:
    """A host of these."""
    return Host(WorkerOffers(runtimes=entries, cache=cache, vram_budget_mb=vram_budget_mb))


def request(
    path: str, body: bytes | AsyncIterator[bytes] = b"", *, app: App = APP, **headers: str
) -> LineRequest:
    """A call as it comes over the line."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    stream = chunks(body) if isinstance(body, bytes) else body
    return LineRequest("POST", call_path(app, path), named, stream)


async def chunks(body: bytes, size: int = 64 << 10) -> AsyncIterator[bytes]:
    """The body in pieces."""
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def status(host: Host, call: LineRequest) -> int:
    """How a call is answered, read to its end."""
    answer = await host.answer(call)
    await whole(answer)
    return answer.status


async def whole(answer: LineAnswer) -> bytes:
    """The body of an answer."""
    if isinstance(answer.body, bytes):
        return answer.body
    return b"".join([chunk async for chunk in answer.body])
