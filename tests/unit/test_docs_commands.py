"""Every `openpool …` command in the documentation can be typed: its path and its options exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from openpool.cli import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
TYPED = re.compile(r"(?:^|[\s;&=(])openpool ((?:[^\n`#|>&;]|\\\n|(?<=\w)\|(?=\w))+)")
DEFAULTS = {"ledger": "show", "worker": "run"}
"""Groups that are commands as well."""
SIGNED = ("statement sha256 ", "receipt 1")
"""How documents begin that are signed: no commands."""
INLINE = re.compile(r"`(?:[^`\n]* )?openpool ([^`]+)`")


def commands_in(text: str) -> Iterator[str]:
    """What a page says behind `openpool`, in its blocks and between backquotes."""
    blocks = [re.sub(r"\\\n *", " ", block) for block in BLOCK.findall(text)]
    found = [typed for block in blocks for typed in TYPED.findall(block)]
    for typed in found + INLINE.findall(BLOCK.sub("", text)):
        if not typed.startswith(SIGNED):
            yield re.split(r" {2,}", typed)[0]  # what is said about it stands further right


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_can_be_typed(page: Path) -> None:
    """No page shows a command or an option that does not exist."""
    wrong = {typed: why for typed in commands_in(page.read_text()) if (why := wrong_with(typed))}
    assert wrong == {}


def test_the_pages_hold_commands_and_wrong_ones_are_seen() -> None:
    """The search finds the commands of the README, and a wrong word or option in one."""
    found = list(commands_in((ROOT / "README.md").read_text()))
    assert len(found) > 15
    assert wrong_with("payuots plan") == ["payuots"]
    assert wrong_with("payouts plan --jsn") == ["--jsn"]
    assert wrong_with("delegator show|simulat") == ["simulat"]
