"""Statements: making, signing and checking one with 20,000 receipts; and the receipts of one owner
out of a round with 1,000,000 of them."""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from msgspec.structs import replace
from statement_log import MoneyLog, signed

from benchmarks.report import Row, report
from openpool.core.hashchain import Tree
from openpool.core.money.receipts import decode_receipt, encode_receipt, leaf_of, plain_line
from openpool.core.money.statements import Opening, Statement
from openpool.treasury.receipt_files import ReceiptFiles, make_index

RECEIPTS = 20_000
MANY_RECEIPTS = 1_000_000
OWNERS = 1_000
REPEATS = 5


class Made(NamedTuple):
    """A statement, its file and its receipts."""

    statement: Statement
    file: bytes
    receipts: list[bytes]


def a_round() -> MoneyLog:
    """The log of a busy round."""
    log = MoneyLog()
    log.round(1)
    log.work(RECEIPTS)
    log.paid("payout/1", log.ann, 1_000)
    log.round(2)
    return log


def make(log: MoneyLog) -> Made:
    statement, receipts = log.statement(1, Opening(round=1))
    return Made(statement, signed(statement), receipts)


def best_ms(work: Callable[[], object]) -> float:
    """The quickest of some runs."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1_000)
    return min(times)


def verify(folder: Path, made: Made) -> Callable[[], object]:
    """The whole command, from the start of a process to its end."""
    (folder / "s.json").write_bytes(made.file)
    lines = [plain_line(receipt, index) for index, receipt in enumerate(made.receipts)]
    (folder / "r.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    command = [sys.executable, "-m", "openpool", "verify", "s.json", "--receipts", "r.jsonl"]

    def run() -> None:
        subprocess.run(command, cwd=folder, check=True, capture_output=True)

    return run


def address(owner: int) -> str:
    return f"0x{owner:040x}"


def many_receipts(folder: Path, example: bytes) -> list[Row]:
    """A round of 1,000,000 receipts, written and asked for as the pool does it."""
    files, tree, receipt = ReceiptFiles(folder), Tree(), decode_receipt(example)
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with files.new(1) as keep:
        for place in range(MANY_RECEIPTS):
            of_owner = replace(receipt, seq=place + 1, address=address(place % OWNERS))
            encoded = encode_receipt(of_owner)
            tree.add(leaf_of(encoded))
            keep(encoded)
    start = time.perf_counter()
    make_index(files.path(1), files.index_path(1))
    index_s = time.perf_counter() - start
    root = tree.root().hex()

    def of_one() -> int:
        with files.opened(1, root) as file:
            return sum(len(file.line(place)) for place in file.places_of(address(7)))

    def one() -> bytes:
        with files.opened(1, root) as file:
            (place,) = file.places_from(MANY_RECEIPTS // 2)
            return file.line(place)

    mine_ms, one_ms = best_ms(of_one), best_ms(one)
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) / 1_000
    sizes = (path.stat().st_size / 1e6 for path in (files.path(1), files.index_path(1)))
    return [
        Row(
            f"{MANY_RECEIPTS // OWNERS:,} receipts of an owner out of {MANY_RECEIPTS:,}",
            f"{mine_ms:.0f} ms",
            "<= 200 ms",
            f"{index_s:.1f} s to read them all, which makes the index anew",
        ),
        Row("one of them, by its job", f"{one_ms:.1f} ms"),
        Row("memory for all of it", f"{grown_mb:.0f} MB", "<= 64 MB"),
        Row("size: receipts, and their index", "{:.0f} MB, {:.0f} MB".format(*sizes)),
    ]


def main() -> None:
    """Print the figures."""
    log = a_round()
    made = make(log)
    with tempfile.TemporaryDirectory() as folder:
        many = many_receipts(Path(folder), made.receipts[0])
        verify_ms = best_ms(verify(Path(folder), made))
        help_ms = best_ms(
            lambda: subprocess.run(
                [sys.executable, "-m", "openpool", "verify", "--help"],
                check=True,
                capture_output=True,
            )
        )
    make_ms = best_ms(lambda: make(log))
    sign_ms = best_ms(lambda: signed(made.statement))
    rows = [
        Row(
            f"statement of {RECEIPTS:,} receipts made and signed",
            f"{make_ms:.0f} ms",
            "<= 300 ms",
            f"{sign_ms:.1f} ms of it to encode and sign",
        ),
        Row(
            "the same checked by `openpool verify`, whole process",
            f"{verify_ms / 1_000:.2f} s",
            "<= 2 s",
            f"{help_ms / 1_000:.2f} s for its --help",
        ),
        Row(
            "size: statement, and receipts",
            f"{len(made.file) / 1_000:.1f} kB, {sum(map(len, made.receipts)) / 1e6:.1f} MB",
        ),
        *many,
    ]
    report("Statements", rows)


if __name__ == "__main__":
    main()
