"""Files of statements, receipts and evidence: written whole or not at all, read back as they are.

They only save time: each can be made again from the log, to the byte. Must not know what is in
them.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to be written to and read from, which is put in place, and is on disk, when the block
    ends. If the block fails what was there before stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("w+b") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_whole(path: Path, content: bytes) -> None:
    """Put a file in place once it is on disk."""
    with whole_file(path) as file:
        file.write(content)


def read_whole(path: Path) -> bytes | None:
    """The file, or None if there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
