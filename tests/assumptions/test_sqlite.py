"""What we rely on in SQLite, apsw and msgspec, and the traps that big numbers meet there."""

from collections.abc import Iterator
from pathlib import Path

import apsw
import msgspec
import pytest

from openpool.core.events import WorkerBanned, encode_payload

BIG = 10**20 + 1
"""More than 64 bits, and not a number that a float can hold."""


@pytest.fixture
def connection() -> Iterator[apsw.Connection]:
    connection = apsw.Connection(":memory:")
    yield connection
    connection.close()


def test_the_sqlite_library_is_new_enough() -> None:
    """The library in use is free of the bug that loses commits in WAL mode."""
    version = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    assert version >= (3, 51, 3)


def test_big_wei_in_a_numeric_column_turn_into_floats(connection: apsw.Connection) -> None:
    """The trap: NUMERIC swallows the text of a big amount and keeps an inexact real."""
    connection.execute("CREATE TABLE t (a NUMERIC)")
    connection.execute("INSERT INTO t VALUES (?)", (str(BIG),))
    assert connection.execute("SELECT typeof(a), a FROM t").fetchone() == ("real", 1e20)


def test_big_wei_as_strict_text_stay_exact(connection: apsw.Connection) -> None:
    """The way out: decimal text in a STRICT table comes back digit for digit."""
    connection.execute("CREATE TABLE t (a TEXT NOT NULL) STRICT")
    connection.execute("INSERT INTO t VALUES (?)", (str(2**255),))
    assert connection.execute("SELECT a FROM t").get == str(2**255)


def test_a_strict_integer_column_refuses_big_wei(connection: apsw.Connection) -> None:
    """STRICT raises instead of rounding when the text of a big amount meets an INTEGER column."""
    connection.execute("CREATE TABLE t (a INTEGER) STRICT")
    with pytest.raises(apsw.ConstraintError):
        connection.execute("INSERT INTO t VALUES (?)", (str(BIG),))


def test_a_big_int_cannot_be_bound(connection: apsw.Connection) -> None:
    """Binding an int beyond 64 bits raises; it is never cut."""
    with pytest.raises(OverflowError):
        connection.execute("SELECT ?", (2**63,))
    assert connection.execute("SELECT ?", (2**63 - 1,)).get == 2**63 - 1


def test_sum_over_text_is_a_float(connection: apsw.Connection) -> None:
    """The trap: SUM over decimal text silently answers with a float, so we sum in Python."""
    connection.execute("CREATE TABLE t (a TEXT) STRICT")
    connection.executemany("INSERT INTO t VALUES (?)", [(str(BIG),), (str(BIG),)])
    assert connection.execute("SELECT sum(a) FROM t").get == 2e20
    assert sum(int(a) for (a,) in connection.execute("SELECT a FROM t")) == 2 * BIG


def test_text_does_not_sort_by_value(connection: apsw.Connection) -> None:
    """The trap: ORDER BY over decimal text puts 10 before 9."""
    rows = connection.execute("SELECT * FROM (VALUES ('9'), ('10')) ORDER BY 1").fetchall()
    assert rows == [("10",), ("9",)]


def test_msgspec_keeps_big_integers_in_json() -> None:
    """JSON of any size of integer survives; wei are texts all the same, for other readers."""
    assert msgspec.json.decode(msgspec.json.encode(2**200)) == 2**200


def test_json_of_a_payload_is_deterministic() -> None:
    """Fields are written in the order of their definition, the tag first: hashes depend on it."""
    expected = b'{"type":"worker-banned","worker":"w\xc3\xa9","reason":"a\\"b"}'
    assert encode_payload(WorkerBanned(worker="wé", reason='a"b')) == expected


def test_an_unfinished_transaction_is_not_seen_by_others(tmp_path: Path) -> None:
    """In WAL mode a reader sees the last commit and never a part of a transaction."""
    path = str(tmp_path / "t.db")
    writer = apsw.Connection(path)
    writer.pragma("journal_mode", "wal")
    writer.execute("CREATE TABLE t (a)")
    reader = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
    writer.execute("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)")
    assert reader.execute("SELECT count(*) FROM t").get == 0
    writer.execute("COMMIT")
    assert reader.execute("SELECT count(*) FROM t").get == 1
    reader.close()
    writer.close()


def test_an_integer_key_continues_after_the_largest(connection: apsw.Connection) -> None:
    """Transfers are numbered by SQLite in the order in which they are posted."""
    connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, a TEXT) STRICT")
    connection.executemany("INSERT INTO t (a) VALUES (?)", [("x",), ("y",)])
    assert connection.execute("SELECT n, a FROM t").fetchall() == [(1, "x"), (2, "y")]
