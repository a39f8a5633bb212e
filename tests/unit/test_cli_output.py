"""What commands print on terminals of every width: figures, addresses and hashes stay whole."""

import os
import pty
import subprocess
import sys

import pytest

from openpool.cli import output

ADDRESS = "0x736238Db0c6E512e67A748BAA8534ebD5f100A80"
WEI = -12_345_678_901_234_567_890
TABLE = f"""
from openpool.cli import output
output.show_table(
    ["address", "owed>", "state", "why not~"],
    [("{ADDRESS}", output.grouped({WEI}), "", "The wallet holds too little at the moment."),
     ("{ADDRESS}", output.grouped(7), "good", "")],
)
"""


def printed(script: str, columns: int) -> list[str]:
    """The lines that a script prints on a terminal of so many columns, without colours."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "dumb"}
    with subprocess.Popen([sys.executable, "-c", script], stdout=theirs, env=environment) as child:
        os.close(theirs)
        said = b""
        while part := _read(ours):
            said += part
    os.close(ours)
    assert child.returncode == 0
    return said.decode().replace("\r\n", "\n").split("\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that nobody writes any more
        return b""


@pytest.mark.parametrize("columns", [20, 60, 80, 100, 120, 200])
def test_a_figure_is_never_cut_nor_broken(columns: int) -> None:
    """At every width each figure and address stands whole in one line."""
    lines = printed(TABLE, columns)
    assert sum(output.grouped(WEI) in line for line in lines) == 1
    assert sum(ADDRESS in line for line in lines) == 2
    assert "…" not in "".join(lines)


def test_a_table_that_fits_is_a_table_and_wraps_only_sentences() -> None:
    """There is a line for each row as long as sentences have room enough."""
    head, rule, first, second, third = (line for line in printed(TABLE, 124) if line.strip())
    assert head.split() == ["address", "owed", "state", "why", "not"]
    assert set(rule.strip()) == {"─"}
    assert first.split()[0] == third.split()[0] == ADDRESS
    assert f"{first} {second}".rstrip().endswith("moment.")


def test_a_table_that_does_not_fit_is_a_list() -> None:
    """Each row has its first value as heading; what is empty is left out."""
    assert printed(TABLE, 60) == [
        "",
        f"address {ADDRESS}",
        f"  owed     {output.grouped(WEI)}",
        "  why not  The wallet holds too little at the moment.",
        "",
        f"address {ADDRESS}",
        "  owed   7",
        "  state  good",
        "",
        "",
    ]


def test_sentences_and_facts_are_wrapped_between_words() -> None:
    """A figure with groups of digits, and a hash, go on one line as they are."""
    script = f"""
from openpool.cli import output
output.show_facts([("owed", "all of " + output.grouped({WEI})), ("transaction", "0x" + "ab" * 32)])
output.show("Of the commission " + output.grouped({WEI}) + " may be taken out.")
"""
    assert printed(script, 40) == [
        "owed         all of",
        f"             {output.grouped(WEI)}",
        "transaction  0x" + "ab" * 32,
        "Of the commission",
        f"{output.grouped(WEI)} may be taken",
        "out.",
        "",
    ]


def test_a_table_for_a_program_is_wide_enough(capsys: pytest.CaptureFixture[str]) -> None:
    """Where no terminal is, a row stays one line, and notes are not wrapped."""
    output.show_table(["order", "to"], [("payout-1", ADDRESS * 4)])
    output.note("word " * 100)
    said = capsys.readouterr()
    assert ADDRESS * 4 in said.out
    assert said.err == "word " * 99 + "word\n"


def test_text_of_others_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters are shown as unknown ones, wherever they come from."""
    output.show("a\x1b[2Jb\nc")
    output.note("d\x1b[2Je")
    output.show_facts([("f", "\x1b[2J")])
    output.show_table(["g"], [("\x1b[2J",)])
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert said.out.startswith("a\ufffd[2Jb\ufffdc\n")


def test_amounts_are_told_in_what_the_account_holds() -> None:
    """LPT is not ETH."""
    assert output.balance("lpt/worker:0xA", 1_432_500_000_000_000_000) == "1.4325\u202fLPT"
    assert output.balance("lpt/operator", -(10**18)) == "-1\u202fLPT"
    assert output.balance("worker:0xA", "1500000000000000000") == "1.5\u202fETH"
