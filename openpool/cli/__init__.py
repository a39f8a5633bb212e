"""The `openpool` command: reads what a person typed, calls the right part, shows the answer.

Commands are thin and import what they need only when they run, so that `openpool --help` is
quick. Exit codes: 0 done, 1 it failed, 2 something must be changed first (what was typed, the
settings, a file, a token), whether this machine finds that out or the pool. Errors are one
sentence on standard error, never a trace; `--debug` shows it.
"""

import sys
from collections.abc import Sequence

import typer

from openpool.cli import (
    bookkeeping,
    chain,
    customers,
    delegator,
    demo,
    events,
    ledger,
    looks,
    membership,
    payouts,
    revenue,
    rules,
    serve,
    settings,
    statements,
    verify,
    wallet,
    worker,
)
from openpool.cli.failures import exit_code_of
from openpool.cli.groups import Root
from openpool.cli.options import examples

EXIT_CODES = """

Exit codes: 0 done; 1 it failed, or what was checked is wrong; 2 something must be changed first:
what was typed, the settings, a file or a token."""
app = typer.Typer(
    cls=Root,
    name="openpool",
    help="One Livepeer orchestrator, the GPUs of many.",
    epilog=examples(
        "openpool demo",
        "openpool serve --config openpool.yaml",
        "openpool worker 'openpool://…' --wallet key.json",
    )
    + EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode=None,  # twice as quick, and help can be copied
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
GROUPS = (
    serve,
    worker,
    membership,
    customers,
    revenue,
    payouts,
    wallet,
    rules,
    delegator,
    chain,
    looks,
    bookkeeping,
    ledger,
    statements,
    verify,
    events,
    settings,
    demo,
)
for group in GROUPS:
    group.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        settings.version()
        raise typer.Exit


@app.callback()
def _options(
    debug: bool = typer.Option(False, "--debug", help="Show the trace of an error."),
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """One Livepeer orchestrator, the GPUs of many."""


def run(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit code."""
    try:
        code = app(list(arguments), prog_name="openpool", standalone_mode=False)
    except BaseException as error:
        return exit_code_of(error, debug="--debug" in arguments)
    return code if isinstance(code, int) else 0


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))
