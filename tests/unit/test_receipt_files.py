"""Files of receipts: an index gives each owner its own with their proofs, whatever became of it."""

from pathlib import Path

import pytest
from statement_log import ANN, BOB, MoneyLog, proven

from openpool.core.errors import Unavailable
from openpool.core.hashchain import merkle_root
from openpool.core.money.receipts import Receipt, decode_receipt, leaf_of
from openpool.treasury.receipt_files import ReceiptFiles

ROUND = 7


class Round:
    """The receipts of a round, written down."""

    def __init__(self, folder: Path, jobs: int = 50) -> None:
        log = MoneyLog()
        log.work(jobs)
        self.statement, self.receipts = log.statement(ROUND) if jobs else (None, [])
        self.root = merkle_root([leaf_of(each) for each in self.receipts]).hex()
        self.decoded: list[Receipt] = [decode_receipt(each) for each in self.receipts]
        self.files = ReceiptFiles(folder)
        with self.files.new(ROUND) as keep:
            for each in self.receipts:
                keep(each)

    def of(self, address: str) -> list[bytes]:
        """As the files have it."""
        with self.files.opened(ROUND, self.root) as file:
            return [file.line(place) for place in file.places_of(address)]

    def expected(self, address: str) -> list[bytes]:
        """Worked out from all receipts."""
        places = [n for n, each in enumerate(self.decoded) if each.address == address]
        return proven(self.receipts, places)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 5, 8, 13, 64, 100])
def test_every_receipt_has_its_proof(tmp_path: Path, size: int) -> None:
    """The same as those of `core.hashchain`, for full and ragged trees; each is found by its
    number in the log, and what is not there is not."""
    made = Round(tmp_path, size)
    with made.files.opened(ROUND, made.root) as file:
        lines = [file.line(place) for place in range(file.size)]
        assert lines == proven(made.receipts, range(size))
        places = [list(file.places_from(each.seq)) for each in made.decoded]
        assert places == [[place] for place in range(size)]
        assert list(file.places_from(10**9)) == list(file.places_from(0)) == []
    assert list(made.files.lines(ROUND)) == [
        b'{"receipt":%b,"index":%d}' % (each, place) for place, each in enumerate(made.receipts)
    ]


def test_an_owner_gets_its_own(tmp_path: Path) -> None:
    """In order; and who has none gets none."""
    made = Round(tmp_path)
    assert (made.of(ANN), made.of(BOB)) == (made.expected(ANN), made.expected(BOB))
    assert len(made.of(ANN)) + len(made.of(BOB)) == 50
    assert made.of("0x" + "00" * 20) == []


@pytest.mark.parametrize("wrong", ["gone", "empty", "short", "long", "noise", "of another round"])
def test_an_index_that_does_not_fit_is_made_again(tmp_path: Path, wrong: str) -> None:
    """From the receipts, to the byte."""
    made, other = Round(tmp_path), Round(tmp_path / "other", 60)
    index = made.files.index_path(ROUND)
    before = index.read_bytes()
    index.unlink()
    damaged = {
        "empty": b"",
        "short": before[:-1],
        "long": before + b"\0",
        "noise": bytes(reversed(before)),
        "of another round": other.files.index_path(ROUND).read_bytes(),
    }
    if wrong in damaged:
        index.write_bytes(damaged[wrong])
    assert made.of(ANN) == made.expected(ANN)
    assert index.read_bytes() == before


def test_only_an_owners_own_lines_are_read(tmp_path: Path) -> None:
    """What is wrong with somebody else's harms nobody but them."""
    made = Round(tmp_path)
    path = made.files.path(ROUND)
    path.write_bytes(path.read_bytes().replace(BOB.encode(), b"?" * len(BOB)))
    assert made.of(ANN) == made.expected(ANN)
    with pytest.raises(Unavailable, match="round 7 is damaged"):
        made.of(BOB)
    with pytest.raises(Unavailable, match="round 7 is damaged"):
        made.of(ANN)
    with pytest.raises(Unavailable, match="round 7 is damaged"):
        list(made.files.lines(ROUND))


@pytest.mark.parametrize("at", [0, 40, 2_000])
def test_a_damaged_index_proves_nothing_false(tmp_path: Path, at: int) -> None:
    """A hash that is not the one that was written leads to no signed root."""
    made = Round(tmp_path)
    index = made.files.index_path(ROUND)
    content = bytearray(index.read_bytes())
    content[at] ^= 1
    index.write_bytes(content)
    with pytest.raises(Unavailable, match="round 7 is damaged"):
        made.of(ANN), made.of(BOB)


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    """Receipts of a statement that is not made after all are forgotten."""
    made = Round(tmp_path)
    with pytest.raises(RuntimeError), made.files.new(ROUND) as keep:
        keep(made.receipts[0])
        raise RuntimeError
    assert made.of(ANN) == made.expected(ANN)
