"""Files of statements, receipts and evidence: written whole or not at all, read back as they are.

They only save time: each can be made again from the log, to the byte. Must not know what is in
them.
"""

import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Put a file in place once it is on disk."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_whole(path: Path) -> bytes | None:
    """The file, or None if there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
