"""Every `openpool …` command in the documentation can be typed: its path and its options exist."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typed import wrong_with

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
TYPED = re.compile(r"(?:^|[\s;&=(])openpool ((?:[^\n`#|>&;]|\\\n|(?<=\w)\|(?=\w))+)")
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
