"""Statements: making, signing and checking one with 20,000 receipts."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from statement_log import MoneyLog, signed

from benchmarks.report import Row, report
from openpool.core.money.receipts import plain_line, proven
from openpool.core.money.statements import Opening, Statement

RECEIPTS = 20_000
PROOFS = 2_000
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


def main() -> None:
    """Print the figures."""
    log = a_round()
    made = make(log)
    with tempfile.TemporaryDirectory() as folder:
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
    proofs_ms = best_ms(lambda: proven(made.receipts, range(0, RECEIPTS, RECEIPTS // PROOFS)))
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
        Row(f"{PROOFS:,} proofs out of {RECEIPTS:,}", f"{proofs_ms:.0f} ms"),
        Row(
            "size: statement, and receipts",
            f"{len(made.file) / 1_000:.1f} kB, {sum(map(len, made.receipts)) / 1e6:.1f} MB",
        ),
    ]
    report("Statements", rows)


if __name__ == "__main__":
    main()
