"""`openpool demo`: a whole network on this machine."""

import asyncio
from typing import Annotated

import typer

from openpool.cli.options import examples


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command(epilog=examples("openpool demo", "openpool demo --once --json"))(demo)


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="End after the show instead of keeping on.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="End with one line of JSON on standard output.")
    ] = False,
    segments: Annotated[
        int,
        typer.Option(
            "--segments", metavar="N", min=8, max=10_000, help="How many segments to send."
        ),
    ] = 24,
    port: Annotated[
        int,
        typer.Option(
            "--port", metavar="PORT", min=0, max=65535, help="The dashboard's; 0 takes a free one."
        ),
    ] = 0,
    keep: Annotated[
        bool, typer.Option("--keep", help="Move an earlier demo-data/ aside, not remove it.")
    ] = False,
) -> None:
    """Watch AI jobs and video go through an orchestrator stand-in, a pool and three workers.

    Everything is written below ./demo-data; an earlier one is replaced.
    """
    from openpool.demo.run import run

    code = asyncio.run(run(once=once, as_json=as_json, segments=segments, port=port, keep=keep))
    if code:
        raise typer.Exit(code)
