"""`openpool events`: every fact that the pool recorded, old or as it happens."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

import typer

from openpool.cli.asking import Booked, on_books
from openpool.cli.options import Limit, examples
from openpool.cli.output import clock, note, print_json, print_json_line, show
from openpool.core.errors import SetupError

if TYPE_CHECKING:
    from openpool.cli.api import Api
    from openpool.config import Config
    from openpool.web.shapes import EventView

RECONNECT_S = 2.0
HIDDEN = ("type", "profiles", "renditions", "source", "document", "signature")
"""Facts that are too long for a line; JSON has them."""

Types = Annotated[
    str, typer.Option("--types", metavar="TYPE,…", help="Only events of these types.")
]
Worker = Annotated[
    str, typer.Option("--worker", metavar="WORKER", help="Only events of this worker.")
]
Job = Annotated[str, typer.Option("--job", metavar="JOB", help="Only events of this job.")]
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


@on_books
def events(
    asked: Booked,
    follow: Follow = False,
    types: Types = "",
    worker: Worker = "",
    job: Job = "",
    limit: Limit = 20,
) -> None:
    """Show the newest events, oldest first; with --follow also those to come.

    With --json a list; with --follow --json one event a line.
    """
    wanted = {"type": _known(types), "worker": worker, "job": job}
    if follow:
        asyncio.run(_follow(asked, wanted, limit))
        return
    found = asked.ask_or_read(
        lambda api: _get(api, wanted, limit), lambda settings: _stored(settings, wanted, limit)
    )
    if asked.as_json:
        print_json(found)
        return
    for event in found:
        _show(event)
    if not found:
        show("No such event yet.")


def _known(types: str) -> str:
    """Types of events as they were typed, without spaces. Raises SetupError if one is none."""
    from difflib import get_close_matches
    from typing import get_args

    from openpool.core.events import AnyPayload

    kinds = [str(each.__struct_config__.tag) for each in get_args(AnyPayload)]
    wanted = types.replace(" ", "")
    for kind in wanted.split(","):
        if kind and kind not in kinds:
            near = get_close_matches(kind, kinds, 1)
            meant = f"did you mean `{near[0]}`?" if near else f"one is `{kinds[0]}`."
            raise SetupError(f"There is no type of event `{kind}`; {meant}")
    return wanted


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
                types=tuple(kind for kind in wanted["type"].split(",") if kind),
                worker=wanted["worker"],
                job=wanted["job"],
                newest_first=True,
                limit=limit,
            )
        )
    finally:
        reader.close()
    return [event_view(stored) for stored in found][::-1]


async def _follow(asked: Booked, wanted: dict[str, str], limit: int) -> None:
    async with asked.api() as api:
        last = 0
        for event in await _get(api, wanted, limit):
            last = event.seq
            _show_live(event, asked.as_json)
        async for event in _live(api, wanted, last):
            _show_live(event, asked.as_json)


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
        f"{name}={value}"
        for name, value in event.data.items()
        if name not in HIDDEN and value not in ("", None)
    )
    show(f"{event.seq:>7}  {clock(event.time_ms)}  {event.type:<22} {facts}", indent=" " * 9)
