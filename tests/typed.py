"""Commands as somebody types them, held against the commands that there are."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from openpool.cli import app

DEFAULTS = {"ledger": "show", "worker": "run"}
"""Groups that are commands as well."""


def commands() -> Iterator[tuple[str, Any]]:
    """Every command and group with its words behind `openpool`; the root has none."""
    waiting: list[tuple[str, Any]] = [("", get_command(app))]
    while waiting:
        words_of, command = waiting.pop()
        yield words_of, command
        for name, inner in getattr(command, "commands", {}).items():
            waiting.append((f"{words_of} {name}".strip(), inner))


def words(typed: str) -> list[str]:
    """The words of a command, as a shell would split them; prose may hold a lone quote."""
    try:
        return shlex.split(typed)
    except ValueError:
        return typed.split()


def wrong_with(typed: str) -> list[str]:
    """What of a typed command does not exist; `a|b|…` stands for several commands."""
    command: Any = get_command(app)
    told = words(typed)
    for position, word in enumerate(told):
        known = getattr(command, "commands", None)
        if not known:
            return _strange_options(command, told[position:])
        if word in ("…", "COMMAND") or word.startswith("-"):
            return _strange_options(command, told[position:])
        names = [name for name in word.split("|") if name != "…"]
        if strange := [name for name in names if name not in known]:
            default = DEFAULTS.get(command.name)
            return _strange_options(known[default], told[position:]) if default else strange
        command = known[names[0]]
    return []


def _strange_options(command: Any, told: list[str]) -> list[str]:
    if default := DEFAULTS.get(command.name):
        command = getattr(command, "commands", {}).get(default, command)
    known = {"-h", "--help"} | {
        name for option in command.params for name in (*option.opts, *option.secondary_opts)
    }
    given = {word.split("=")[0] for word in told if re.match(r"--?[a-z]", word)}
    return sorted(given - known)
