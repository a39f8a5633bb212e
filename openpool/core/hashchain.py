"""Hashes that make a later edit of the log detectable.

Every event has a *leaf hash* over what it says, and a *chain hash* over the chain hash before it
and its own leaf: whoever knows the newest chain hash knows that nothing below it was touched. The
same leaves form an RFC 9162 Merkle tree, whose root commits to the whole log and lets one event be
proved with a handful of hashes.

Pure; must not know where events are kept. Read next: `core.money.ledger`, `store.replay`.
"""

from collections.abc import Sequence
from hashlib import sha256

import msgspec

GENESIS = b""
"""The chain hash before the first event."""

_header = msgspec.json.Encoder().encode


def leaf_hash(event_id: str, time_ms: int, version: int, data: bytes) -> bytes:
    """SHA-256 of `0x00 ‖ ["id",time_ms,version] ‖ line feed ‖ data`, the header as JSON."""
    return sha256(b"\x00%b\n%b" % (_header((event_id, time_ms, version)), data)).digest()


def chain_hash(previous: bytes, leaf: bytes) -> bytes:
    """SHA-256 of `0x02 ‖ previous chain hash ‖ leaf hash`."""
    return sha256(b"\x02" + previous + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """An inner node of the Merkle tree: SHA-256 of `0x01 ‖ left ‖ right`."""
    return sha256(b"\x01" + left + right).digest()


class Tree:
    """A growing Merkle tree that keeps only its edge: log2(size) hashes."""

    def __init__(self) -> None:
        self.size = 0
        self._edge: list[bytes] = []

    def add(self, leaf: bytes) -> None:
        """Append one leaf hash."""
        self.size += 1
        size = self.size
        while size % 2 == 0:
            leaf = node_hash(self._edge.pop(), leaf)
            size //= 2
        self._edge.append(leaf)

    def root(self) -> bytes:
        """The root over all leaves so far (SHA-256 of nothing for an empty tree)."""
        if not self._edge:
            return sha256().digest()
        root = self._edge[-1]
        for left in reversed(self._edge[:-1]):
            root = node_hash(left, root)
        return root


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """The root over these leaf hashes."""
    tree = Tree()
    for leaf in leaves:
        tree.add(leaf)
    return tree.root()


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The hashes beside the way from leaf `index` to the root, lowest first."""
    if len(leaves) == 1:
        return []
    middle = 1 << (len(leaves) - 1).bit_length() - 1
    if index < middle:
        return [*inclusion_path(leaves[:middle], index), merkle_root(leaves[middle:])]
    return [*inclusion_path(leaves[middle:], index - middle), merkle_root(leaves[:middle])]


def root_of_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that `path` proves for a leaf; ValueError if the path has the wrong length."""
    if not 0 <= index < size:
        raise ValueError("this leaf is outside the tree")
    if size == 1:
        if path:
            raise ValueError("the path is too long")
        return leaf
    if not path:
        raise ValueError("the path is too short")
    middle = 1 << (size - 1).bit_length() - 1
    if index < middle:
        return node_hash(root_of_path(leaf, index, middle, path[:-1]), path[-1])
    return node_hash(path[-1], root_of_path(leaf, index - middle, size - middle, path[:-1]))
