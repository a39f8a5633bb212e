"""`openpool events`: every fact that the pool recorded, old or as it happens."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

import typer

from openpool.cli.ledger import Offline
from openpool.cli.options import ConfigFile, Json, Limit, Set, Url, examples, load
from openpool.cli.output import clock, note, plain, print_json, print_json_line, show

if TYPE_CHECKING:
    from openpool.cli.api import Api
    from openpool.config import Config
    from openpool.web.shapes import EventView

RECONNECT_S = 2.0
HIDDEN = ("type", "profiles", "renditions", "source")

Types = Annotated[
    str, typer.Option("--types", metavar="TYPE,…", help="Only events of these types.")
]
Worker = Annotated[str, typer.Option("--worker", help="Only events of this worker.")]
Job = Annotated[str, typer.Option("--job", help="Only events of this job.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens next.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command(
        epilog=examples(
            "openpool events -n 50",
            "openpool events --follow --types job-delivered,job-failed",
            "openpool events --follow --json",
        )
    )(events)


def events(
    follow: Follow = False,
    types: Types = "",
    worker: Worker = "",
    job: Job = "",
    limit: Limit = 20,
    config: ConfigFile = None,
    assignments: Set = None,
    url: Url = "",
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Show the newest events, oldest first; with --follow also those to come.

    With --json a list; with --follow --json one event a line.
    """
    settings = load(config, assignments).config
    wanted = {"kinds": types, "worker": worker, "job": job}
    if follow:
        asyncio.run(_follow(settings, url, wanted, limit, as_json))
        return
    found = _newest(settings, url, wanted, limit, offline)
    if as_json:
        print_json(found)
        return
    for event in found:
        _show(event)
    if not found:
        show("No such event yet.")


def _newest(
    settings: "Config", url: str, wanted: dict[str, str], limit: int, offline: bool
) -> "list[EventView]":
    from openpool.cli.api import NotRunning, operator_api

    async def ask() -> "list[EventView]":
        async with operator_api(settings, url) as api:
            return await _get(api, wanted, limit)

    if not offline:
        try:
            return asyncio.run(ask())
        except NotRunning:
            if url:
                raise
            note("The pool is not running; this is what its data folder says.")
    return _stored(settings, wanted, limit)


async def _get(api: "Api", wanted: dict[str, str], limit: int) -> "list[EventView]":
    from openpool.web.shapes import EventView

    found = await api.get(list[EventView], "/events", limit=limit, **wanted)
    return found[::-1]


def _stored(settings: "Config", wanted: dict[str, str], limit: int) -> "list[EventView]":
    from openpool.store.interface import EventFilter
    from openpool.store.reader import SqliteReader
    from openpool.web.shapes import event_view

    reader = SqliteReader(settings.data_dir)
    try:
        found = reader.events(
            EventFilter(
                types=tuple(kind for kind in wanted["kinds"].split(",") if kind),
                worker=wanted["worker"],
                job=wanted["job"],
                newest_first=True,
                limit=limit,
            )
        )
    finally:
        reader.close()
    return [event_view(stored) for stored in found][::-1]


async def _follow(
    settings: "Config", url: str, wanted: dict[str, str], limit: int, as_json: bool
) -> None:
    from openpool.cli.api import operator_api

    async with operator_api(settings, url) as api:
        last = 0
        for event in await _get(api, wanted, limit):
            last = event.seq
            _show_live(event, as_json)
        async for event in _live(api, wanted, last):
            _show_live(event, as_json)


async def _live(api: "Api", wanted: dict[str, str], last: int) -> "AsyncIterator[EventView]":
    """Events after number `last`, over as many connections as it takes."""
    import msgspec

    from openpool.cli.api import NotRunning
    from openpool.web.shapes import EventView

    while True:
        try:
            async for data in api.stream("/events/stream", after=last, **wanted):
                event = msgspec.json.decode(data, type=EventView)
                last = event.seq
                yield event
        except NotRunning:
            note("The connection to the pool is lost; trying again.")
        await asyncio.sleep(RECONNECT_S)


def _show_live(event: "EventView", as_json: bool) -> None:
    if as_json:
        print_json_line(event)
    else:
        _show(event)


def _show(event: "EventView") -> None:
    facts = " ".join(
        f"{name}={plain(value)}"
        for name, value in event.data.items()
        if name not in HIDDEN and value not in ("", None)
    )
    typer.echo(f"{event.seq:>7}  {clock(event.time_ms)}  {event.type:<22} {facts}")
