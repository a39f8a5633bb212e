"""All runtimes of a worker: what they offer together, and which of them answers a call.

The pool's calls come in by `answer` (a `link.line` handler). What is served from a process is in
`runtimes.keeper`, what is served by another server in `runtimes.http`.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qsl, unquote

import msgspec
import structlog

from openpool.core.calls import App, Offer
from openpool.core.errors import BadMessage
from openpool.link.line import LineAnswer, LineRequest, OfferBoard
from openpool.worker.offers import RuntimeSettings, WorkerOffers
from openpool.worker.runtimes import catalogue
from openpool.worker.runtimes.base import BadRequest
from openpool.worker.runtimes.budget import VramBudget
from openpool.worker.runtimes.http import Proxy, ProxySettings
from openpool.worker.runtimes.keeper import Keeper
from openpool.worker.runtimes.spool import TooLarge

log = structlog.get_logger()

CALL_PREFIX = "/call/"


class Served(Protocol):
    """One runtime."""

    @property
    def app(self) -> App:
        """What it is offered as."""

    @property
    def fault(self) -> str:
        """Why it is not offered, for the worker's owner; empty if it is."""

    def start(self) -> None:
        """Come up, and stay so."""

    def offer(self) -> Offer | None:
        """What it can do at this moment."""

    def serves(self, path: str) -> bool:
        """Whether it answers requests to this path."""

    async def answer(
        self, path: str, options: Mapping[str, str], request: LineRequest
    ) -> LineAnswer:
        """Serve one call. Raises BadRequest, TooLarge, and what means another worker may do it."""


class Host:
    """The runtimes of one worker. Use `running()`."""

    def __init__(self, offers: WorkerOffers) -> None:
        self.board = OfferBoard()
        """What is offered at this moment; lines tell it to the pool."""
        self._settings = offers
        self._served: dict[App, Served] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Host"]:
        """Have all runtimes up for as long as the block runs."""
        with tempfile.TemporaryDirectory(prefix="openpool-runtimes-") as folder:
            async with asyncio.TaskGroup() as all_tasks:
                work = all_tasks.create_task(self._run(Path(folder), started := asyncio.Event()))
                await started.wait()
                try:
                    yield self
                finally:
                    work.cancel()

    def offers(self) -> list[Offer]:
        """What can be done at this moment."""
        return [offer for served in self._served.values() if (offer := served.offer())]

    @property
    def faults(self) -> dict[App, str]:
        """What cannot be offered, and why."""
        return {app: served.fault for app, served in self._served.items() if served.fault}

    async def answer(self, request: LineRequest) -> LineAnswer:
        """Answer a call of the pool; its mistakes are answers with a status, ours are errors."""
        try:
            app, path, options = parse_call(request.path)
            served = self._served.get(app)
            if served is None:
                return refusal(404, "model-not-found", f"{app} is not served by this worker.")
            if not served.serves(path):
                return refusal(404, "not-found", f"{app} has no {path[:100]}.")
            return await served.answer(path, options, request)
        except (BadRequest, BadMessage) as fault:
            return refusal(400, "invalid_request_error", str(fault))
        except TooLarge as fault:
            return refusal(413, "invalid_request_error", str(fault))

    async def _run(self, folder: Path, started: asyncio.Event) -> None:
        budget = VramBudget(self._settings.vram_budget_mb)
        async with asyncio.TaskGroup() as tasks:
            for settings in self._settings.runtimes:
                served = self._make(settings, folder, budget, tasks)
                self._served[served.app] = served
                served.start()
            self._changed()
            started.set()
            await asyncio.Event().wait()

    def _make(
        self,
        settings: RuntimeSettings,
        folder: Path,
        budget: VramBudget,
        tasks: asyncio.TaskGroup,
    ) -> Served:
        if settings.runtime == catalogue.HTTP:
            app = App(settings.pipeline, settings.model)
            return Proxy(
                app,
                ProxySettings.from_options(settings.options),
                capacity=settings.sessions,
                tasks=tasks,
                changed=self._changed,
            )
        return Keeper(
            settings,
            catalogue.runtime_class(settings.runtime),
            cache=self._settings.cache,
            folder=folder,
            budget=budget,
            tasks=tasks,
            changed=self._changed,
        )

    def _changed(self) -> None:
        self.board.set(self.offers())


def parse_call(target: str) -> tuple[App, str, dict[str, str]]:
    """App, path below it, and query of `/call/<pipeline>/<model>/…`. Raises BadMessage."""
    path, _, query = target.partition("?")
    parts = path.removeprefix(CALL_PREFIX).split("/", 2)
    if not path.startswith(CALL_PREFIX) or len(parts) < 3:
        raise BadMessage("calls go to /call/<pipeline>/<model>/…")
    pipeline, model, rest = parts
    return App(unquote(pipeline), unquote(model)), f"/{rest}", dict(parse_qsl(query))


def refusal(status: int, kind: str, sentence: str) -> LineAnswer:
    """An error as OpenAI's clients expect it."""
    body = {"error": {"message": sentence, "type": kind, "param": None, "code": None}}
    return LineAnswer(status, {"content-type": "application/json"}, msgspec.json.encode(body))


def call_path(app: App, path: str) -> str:
    """The path on the line of a request to an app."""
    from urllib.parse import quote

    return f"{CALL_PREFIX}{quote(app.pipeline, safe='')}/{quote(app.model, safe='')}{path}"


def describe(offers: Sequence[Offer]) -> str:
    """The offers in a line of text."""
    return ", ".join(f"{offer.app} x{offer.capacity}" for offer in offers) or "nothing"
