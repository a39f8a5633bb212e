"""From an exception to one sentence on standard error and an exit code.

Our own errors are sentences already. What nobody expected is a bug: its trace goes to a private
file, and the sentence names the file.
"""

import os
import sys
from asyncio import CancelledError
from collections.abc import Iterator

from typer import Abort, TyperException

from openpool.cli.output import note
from openpool.core.errors import OpenPoolError, SetupError, Unauthorized

FAILED = 1
"""It was tried and failed, was declined, or is wrong: another time it may be different."""
SETUP = 2
"""Something must be changed first: what was typed, the settings, a file, a token."""
INTERRUPTED = 130


def exit_code_of(error: BaseException, *, debug: bool) -> int:
    """Say what went wrong; the exit code for it."""
    if debug:
        import traceback

        traceback.print_exception(error)
    leaves = list(_leaves(error))
    for leaf in leaves:
        if isinstance(leaf, OpenPoolError):
            say(str(leaf))
            return SETUP if isinstance(leaf, SetupError | Unauthorized) else FAILED
    return _foreign(leaves[0], error)


def _foreign(leaf: BaseException, whole: BaseException) -> int:
    if isinstance(leaf, TyperException):
        _say_usage(leaf)
        return leaf.exit_code
    if isinstance(leaf, SystemExit):
        return leaf.code if isinstance(leaf.code, int) else FAILED
    if isinstance(leaf, KeyboardInterrupt | CancelledError | Abort):
        say("Stopped.")
        return INTERRUPTED
    if isinstance(leaf, BrokenPipeError):
        # whoever read our output has left, and Python must not complain about it at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    path = _kept(whole)
    say(f"A fault in Open Pool itself ({type(leaf).__name__}); the details are in {path}.")
    return FAILED


def say(sentence: str) -> None:
    """One sentence on standard error."""
    note(f"openpool: {sentence}")


def _say_usage(error: TyperException) -> None:
    """What was typed wrongly; the help of a group, where no command was named."""
    context = getattr(error, "ctx", None)
    what, command = error.format_message(), context.command_path if context else "openpool"
    if context and what == context.get_help():
        print(what, file=sys.stderr)
    else:
        say(f"{what}{'' if what.endswith(('.', '?')) else '.'} See `{command} --help`.")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _kept(error: BaseException) -> str:
    import tempfile
    import traceback

    descriptor, path = tempfile.mkstemp(prefix="openpool-", suffix=".log")
    with os.fdopen(descriptor, "w") as file:
        file.writelines(traceback.format_exception(error))
    return path
