"""The receipts of a statement on disk, and an index beside them, so that an owner's receipts with
their proofs cost reading those alone, however many others there are.

The index `<round>.receipts.index` is numbers of fixed size in this machine's byte order, one part
after the other:

    nodes     32 bytes each: the Merkle tree over the receipts, level by level, leaves first
    starts    8 bytes each: where each line of the file of receipts begins, and where the last ends
    places    4 bytes each: the receipts of the first address, then those of the second, …
    contents  JSON: how many receipts there are, and which of the places are whose
    8 bytes: the length of the contents

It is made from the receipts when they are written, and again whenever it is missing or does not
fit. Neither file is believed: every line that goes out leads to the root that was signed.
"""

import os
import threading
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import BinaryIO, Self

import msgspec
from msgspec import Struct

from openpool.core.decoding import UNREADABLE
from openpool.core.errors import Unavailable
from openpool.core.hashchain import node_hash
from openpool.core.money.receipts import (
    Proven,
    Receipt,
    decode_proven,
    decode_receipt,
    encode_receipt,
    leaf_of,
    plain_line,
    root_proven,
)
from openpool.treasury.archive import whole_file

NODE_BYTES = 32
START_BYTES = 8
PLACE_BYTES = 4
LENGTH_BYTES = 8
NODES_AT_ONCE = 1 << 14
NODES_KEPT = 4_096
"""Of an open index, in memory: receipts near each other have most of their paths in common."""


class DamagedError(Exception):
    """The file or its index is not what was written."""


class _Contents(Struct, frozen=True):
    receipts: int
    places: dict[str, tuple[int, int]]
    """Address -> the first of its places, and how many."""


class _Owner(Struct, frozen=True):
    """All of a receipt that an index needs."""

    address: str


_decode_owner = msgspec.json.Decoder(_Owner).decode
_decode_contents = msgspec.json.Decoder(_Contents).decode


class ReceiptFiles:
    """All files of receipts in a folder. To be used from threads: it reads and writes files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._indexing = threading.Lock()

    def path(self, round: int) -> Path:
        """Where all receipts of a statement are, a line each."""
        return self._folder / f"{round}.receipts.jsonl"

    def index_path(self, round: int) -> Path:
        return self._folder / f"{round}.receipts.index"

    @contextmanager
    def new(self, round: int) -> Iterator[Callable[[bytes], object]]:
        """Takes the receipts of a round, one call each; they are in place, with their index, when
        the block ends, and forgotten if it fails."""
        places = count()
        with whole_file(self.path(round)) as file:
            yield lambda receipt: file.write(plain_line(receipt, next(places)) + b"\n")
        with self._indexing:
            make_index(self.path(round), self.index_path(round))

    def lines(self, round: int) -> Iterator[bytes]:
        """All receipts of a round, a line each, without proofs; they need none. Raises
        Unavailable if the file is gone."""
        try:
            file = self.path(round).open("rb")
        except FileNotFoundError:
            raise _damaged(round) from None
        with file:
            for line in file:
                yield line.rstrip(b"\n")

    @contextmanager
    def opened(self, round: int, root: str) -> Iterator["ReceiptFile"]:
        """The receipts of a round under this hex root. Raises Unavailable, also from the block,
        if they are damaged; then a start makes them again."""
        try:
            with self._fitting(round, root) as found:
                yield found
        except (DamagedError, FileNotFoundError):
            for path in (self.path(round), self.index_path(round)):
                path.unlink(missing_ok=True)
            raise _damaged(round) from None

    def _fitting(self, round: int, root: str) -> "ReceiptFile":
        """With its index, which is made if there is none that fits."""
        receipts, index = self.path(round), self.index_path(round)
        with self._indexing:
            try:
                return ReceiptFile(receipts, index, root)
            except (DamagedError, FileNotFoundError):
                make_index(receipts, index)
        return ReceiptFile(receipts, index, root)


def _damaged(round: int) -> Unavailable:
    return Unavailable(
        f"The pool's file of receipts of round {round} is damaged; the pool makes it again when it "
        "is started next."
    )


class ReceiptFile:
    """The receipts of one statement, open for reading; closed at the end of a `with`."""

    def __init__(self, receipts: Path, index: Path, root: str) -> None:
        """Raises DamagedError if the two do not fit each other or the root."""
        self._root = root
        self._index = index.open("rb")
        self._receipts = receipts.open("rb")
        self._node = lru_cache(NODES_KEPT)(self._read_node)
        try:
            self._read_contents()
        except (DamagedError, *UNREADABLE, ValueError):
            self.close()
            raise DamagedError from None

    def close(self) -> None:
        self._receipts.close()
        self._index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_contents(self) -> None:
        end = os.fstat(self._index.fileno()).st_size - LENGTH_BYTES
        length = int.from_bytes(_read(self._index, LENGTH_BYTES, end), "little")
        contents = _decode_contents(_read(self._index, length, end - length))
        self.size = contents.receipts
        self._owned = contents.places
        self._levels = _levels(self.size)
        self._starts_at = sum(self._levels) * NODE_BYTES
        self._places_at = self._starts_at + (self.size + 1) * START_BYTES
        receipts_end = os.fstat(self._receipts.fileno()).st_size
        fits = self._places_at + self.size * PLACE_BYTES == end - length
        if not fits or self._starts(self.size, 1)[0] != receipts_end or self._top() != self._root:
            raise DamagedError

    def _top(self) -> str:
        return (self._node(len(self._levels) - 1, 0) if self.size else sha256().digest()).hex()

    # --- what is in it -------------------------------------------------------------------------

    def places_of(self, address: str) -> Sequence[int]:
        """Which receipts are of an address, in order."""
        first, many = self._owned.get(address, (0, 0))
        at = self._places_at + first * PLACE_BYTES
        return array("I", _read(self._index, many * PLACE_BYTES, at))

    def places_from(self, seq: int) -> Sequence[int]:
        """The place of the receipt with this number in the log; none if there is no such one."""
        places = range(self.size)
        at = bisect_left(places, seq, key=lambda place: self._decoded(place).seq)
        return [at] if at < self.size and self._decoded(at).seq == seq else []

    def line(self, place: int) -> bytes:
        """A receipt with its proof, as owners get it. Raises DamagedError."""
        receipt = self._receipt(place)
        proven = Proven(receipt=msgspec.Raw(receipt), index=place, path=self._path(place))
        if root_proven(proven, self.size).hex() != self._root:
            raise DamagedError
        return encode_receipt(proven)

    def _receipt(self, place: int) -> bytes:
        start, end = self._starts(place, 2)
        try:
            return bytes(decode_proven(_read(self._receipts, end - start, start)).receipt)
        except UNREADABLE:
            raise DamagedError from None

    def _decoded(self, place: int) -> Receipt:
        try:
            return decode_receipt(self._receipt(place))
        except UNREADABLE:
            raise DamagedError from None

    def _starts(self, place: int, many: int) -> Sequence[int]:
        at = self._starts_at + place * START_BYTES
        return array("Q", _read(self._index, many * START_BYTES, at))

    def _path(self, place: int) -> tuple[str, ...]:
        """The hashes beside the way from this receipt to the root, lowest first."""
        path = []
        for level, size in enumerate(self._levels):
            beside = place ^ 1
            if beside < size:
                path.append(self._node(level, beside).hex())
            place //= 2
        return tuple(path)

    def _read_node(self, level: int, place: int) -> bytes:
        at = sum(self._levels[:level]) + place
        return _read(self._index, NODE_BYTES, at * NODE_BYTES)


# --- making an index -----------------------------------------------------------------------------


def make_index(receipts: Path, index: Path) -> None:
    """Write the index of a file of receipts. Raises DamagedError if that is none."""
    starts = array("Q", [0])
    owned: dict[str, array[int]] = {}
    with receipts.open("rb") as lines, whole_file(index) as out:
        for place, line in enumerate(lines):
            try:
                receipt = bytes(decode_proven(line).receipt)
                address = _decode_owner(receipt).address
            except UNREADABLE:
                raise DamagedError from None
            out.write(leaf_of(receipt))
            starts.append(starts[-1] + len(line))
            owned.setdefault(address, array("I")).append(place)
        _write_levels(out, len(starts) - 1)
        starts.tofile(out)
        for places in owned.values():
            places.tofile(out)
        contents = msgspec.json.encode(_Contents(len(starts) - 1, _shares(owned)))
        out.write(contents + len(contents).to_bytes(LENGTH_BYTES, "little"))


def _write_levels(out: BinaryIO, size: int) -> None:
    """The levels above the leaves, which are in the file."""
    start = 0
    while size > 1:
        out.flush()
        for first in range(0, size, NODES_AT_ONCE):
            many = min(NODES_AT_ONCE, size - first)
            out.write(_above(_read(out, many * NODE_BYTES, (start + first) * NODE_BYTES)))
        start += size
        size = (size + 1) // 2


def _above(nodes: bytes) -> bytes:
    """The level above these; one without a neighbour goes up as it is."""
    both = 2 * NODE_BYTES
    pairs = [nodes[at : at + both] for at in range(0, len(nodes), both)]
    return b"".join(
        node_hash(pair[:NODE_BYTES], pair[NODE_BYTES:]) if len(pair) == both else pair
        for pair in pairs
    )


def _levels(size: int) -> list[int]:
    """How many nodes each level has, the leaves first."""
    levels = [size]
    while levels[-1] > 1:
        levels.append((levels[-1] + 1) // 2)
    return levels


def _shares(owned: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, int]]:
    shares, first = {}, 0
    for address, places in owned.items():
        shares[address] = (first, len(places))
        first += len(places)
    return shares


def _read(file: BinaryIO, many: int, at: int) -> bytes:
    """Exactly so many bytes. Raises DamagedError."""
    data = os.pread(file.fileno(), many, at) if at >= 0 and many >= 0 else b""
    if len(data) != many:
        raise DamagedError
    return data
