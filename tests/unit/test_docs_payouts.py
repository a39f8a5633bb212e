"""The page about payouts says what the code says."""

import re
from pathlib import Path

from openpool.cli import payouts as commands
from openpool.config import reference
from openpool.core.money import payouts

PAGE = (Path(__file__).parents[2] / "docs/payouts.md").read_text()


def test_the_table_is_the_one_of_the_code() -> None:
    """Row by row the decision table at the top of `core.money.payouts`."""
    told = re.findall(r"```table\n(.*?)```", PAGE, re.DOTALL)[0]
    written = (payouts.__doc__ or "").split("first match wins:\n\n")[1].split("\n\n")[0]
    assert told.split("\n")[:-1] == [line.removeprefix("    ") for line in written.split("\n")]


def test_every_setting_exists() -> None:
    """Each `section.name` of the page is in the reference."""
    named = set(re.findall(r"`((?:payouts|lpt|chain)\.[a-z_]+)(?::[^`]*)?`", PAGE))
    assert len(named) > 12
    assert {each for each in named if f"`{each}`" not in reference()} == set()


def test_every_command_exists() -> None:
    """Each `openpool payouts …` of the page is a command."""
    known = {command.name for command in commands.payouts.registered_commands}
    named = set(re.findall(r"openpool payouts ([a-z]+)", PAGE))
    assert named <= known
    assert known - named <= {"show", "resume"}
