"""`openpool serve`: runs a pool until it is told to stop."""

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openpool.cli.options import ConfigFile, Set, examples, load
from openpool.cli.output import note, print_json_line

if TYPE_CHECKING:
    from openpool.app import Running
    from openpool.config import Config

AsJson = Annotated[
    bool, typer.Option("--json", help="Print one line of JSON once everything listens.")
]


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command(
        epilog=examples(
            "openpool serve",
            "openpool serve -c my.yaml --set commission=20%",
            "OPENPOOL__ORCHESTRATOR_ADDRESS=127.0.0.1:8935 \\",
            "    OPENPOOL__ORCHESTRATOR_SECRET=file:/run/secrets/orch openpool serve",
        )
    )(serve)


def serve(
    config: ConfigFile = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", metavar="DIR", help="Short for --set data_dir=DIR.")
    ] = None,
    assignments: Set = None,
    as_json: AsJson = False,
) -> None:
    """Run the pool until SIGTERM or Ctrl-C; a second one does not wait for running jobs."""
    from openpool import logs, loop

    if data_dir is not None:
        assignments = [*(assignments or []), f"data_dir={data_dir}"]
    settings = load(config, assignments, serving=True).config
    logs.configure(settings.log.level, settings.log.format)
    loop.run(_serve(settings, as_json))


async def _serve(settings: "Config", as_json: bool) -> None:
    from openpool.app import run

    stopping = asyncio.Event()
    stop_on_signals(stopping)

    def started(running: "Running") -> None:
        _announce(running, as_json)

    await run(settings, stopping=stopping, started=started)


def stop_on_signals(stopping: asyncio.Event) -> None:
    """Set `stopping` at the first SIGTERM or SIGINT; the second ends the calling task at once."""
    running, task = asyncio.get_running_loop(), asyncio.current_task()

    def stop() -> None:
        if stopping.is_set() and task is not None:
            task.cancel()
        stopping.set()

    for name in (signal.SIGTERM, signal.SIGINT):
        running.add_signal_handler(name, stop)


def _announce(running: "Running", as_json: bool) -> None:
    if as_json:
        print_json_line(
            {
                "web_url": running.web_url,
                "worker_port": str(running.worker_port),
                "join_link": running.join_link,
                "operator_token_file": str(running.operator_token_file),
            }
        )
        return
    note(f"Dashboard   {running.web_url}")
    note(f"Sign in     with the operator's token in {running.operator_token_file}")
    note(f"Join link   {running.join_link}")
    note(f"Stock workers dial {running.worker_port}")
