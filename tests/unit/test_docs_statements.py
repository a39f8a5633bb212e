"""The example on the page about statements is computed again from what stands there."""

import re
from hashlib import sha256
from pathlib import Path

from openpool.cli.checking import check_signature
from openpool.core.money.documents import opened
from openpool.core.money.receipts import decode_receipt, faults_of, plain_line
from openpool.core.money.statement_check import check_receipts, check_statement, read
from openpool.core.money.statements import Statement

PAGE = (Path(__file__).parents[2] / "docs/statements.md").read_text()


def block(kind: str) -> list[str]:
    """The lines of the page's block of this kind."""
    found = re.search(rf"^```{kind}\n(.*?)\n```$", PAGE, re.DOTALL | re.MULTILINE)
    assert found, kind
    return found[1].splitlines()


def test_the_receipts_are_right() -> None:
    """Their arithmetic holds, and leaves and root are as told, by nothing but SHA-256."""
    receipts = [line.encode() for line in block("receipts")]
    assert [faults_of(decode_receipt(data)) for data in receipts] == [[], []]
    leaves = [sha256(b"\0openpool receipt 1\n" + data).digest() for data in receipts]
    root = sha256(b"\1" + leaves[0] + leaves[1]).digest()
    told = [f"leaf {leaf.hex()}" for leaf in leaves] + [f"root {root.hex()}"]
    assert block("hashes") == told


def test_the_statement_is_right() -> None:
    """It passes every check together with the receipts of the page, and the signed text is told."""
    (line,) = block("statement")
    signed = opened(line.encode(), bytes_max=10**6)
    check_signature(signed, "statement")
    assert block("signed") == [f"openpool statement sha256 {signed.digest}"]
    statement = read(signed)
    lines = [plain_line(data.encode(), n) for n, data in enumerate(block("receipts"))]
    assert list(check_statement(statement)) == list(check_receipts(statement, lines)) == []


def test_every_field_is_explained() -> None:
    """The table names all fields of a statement but those that explain themselves."""
    table = PAGE.partition("| field | what |")[2].partition("\n\n")[0]
    told = set(re.findall(r"`([a-z_]+)`", table))
    plain = {"format", "pool", "chain_id", "round", "from_ms", "to_ms", "window_rounds"}
    assert told >= set(Statement.__struct_fields__) - plain
