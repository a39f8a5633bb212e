"""Hash chain and Merkle tree of the log."""

from hashlib import sha256

import pytest

from openpool.core.hashchain import (
    GENESIS,
    Tree,
    chain_hash,
    inclusion_path,
    leaf_hash,
    merkle_root,
    root_of_path,
)

LEAVES = [sha256(bytes([n])).digest() for n in range(21)]


def recursive_root(leaves: list[bytes]) -> bytes:
    """The definition of RFC 9162, section 2.1.1, written down as it stands there."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + recursive_root(leaves[:k]) + recursive_root(leaves[k:])).digest()


def test_the_leaf_hash_is_as_documented() -> None:
    """Anybody can recompute a leaf with a JSON writer and SHA-256."""
    expected = sha256(b'\x00["e\\"1",17,2]\n{"type":"x"}').digest()
    assert leaf_hash('e"1', 17, 2, b'{"type":"x"}') == expected


def test_the_chain_depends_on_everything_before() -> None:
    """Swapping two events gives another chain hash."""
    a, b = LEAVES[:2]
    assert chain_hash(chain_hash(GENESIS, a), b) != chain_hash(chain_hash(GENESIS, b), a)


@pytest.mark.parametrize("size", range(22))
def test_the_growing_tree_has_the_root_of_the_definition(size: int) -> None:
    """Keeping only the edge gives the same root as the recursive definition."""
    tree = Tree()
    for leaf in LEAVES[:size]:
        tree.add(leaf)
    assert tree.root() == merkle_root(LEAVES[:size]) == recursive_root(LEAVES[:size])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 13, 21])
def test_every_leaf_can_be_proved(size: int) -> None:
    """The path beside a leaf leads to the root, and a wrong leaf does not."""
    leaves, root = LEAVES[:size], merkle_root(LEAVES[:size])
    for index, leaf in enumerate(leaves):
        path = inclusion_path(leaves, index)
        assert root_of_path(leaf, index, size, path) == root
        assert root_of_path(sha256(leaf).digest(), index, size, path) != root


@pytest.mark.parametrize(("index", "size", "hashes"), [(0, 4, 1), (0, 4, 3), (4, 4, 2), (0, 1, 1)])
def test_a_path_of_the_wrong_length_is_refused(index: int, size: int, hashes: int) -> None:
    """A path must fit the tree it claims to be of."""
    with pytest.raises(ValueError):
        root_of_path(LEAVES[0], index, size, LEAVES[:hashes])
