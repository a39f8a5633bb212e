"""Files that hold secrets: written so that only their owner can read them, refused if others can.

Must not print or log what a file holds. Used by the configuration (`file:` secrets), wallets, the
worker's identity and the operator's token.
"""

import os
import secrets
import stat
from pathlib import Path

from openpool.core.errors import SetupError, reason_of

OTHERS = stat.S_IRWXO
GROUP_AND_OTHERS = stat.S_IRWXG | stat.S_IRWXO
SIZE_MAX_BYTES = 1 << 20


def read_private(path: Path, what: str, *, forbidden: int = GROUP_AND_OTHERS) -> bytes:
    """The content of a secret file. `forbidden` are the mode bits that must not be set.

    Raises SetupError naming `what` if the file is missing, no plain file, too large, or if others
    may read it.
    """
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise SetupError(f"{what} {path} is not a plain file.")
            if state.st_mode & forbidden:
                raise SetupError(
                    f"{what} {path} can be read by other users (mode {state.st_mode & 0o777:04o}); "
                    f"run `chmod 600 {path}`, and replace the secret if others may have seen it."
                )
            content = file.read(SIZE_MAX_BYTES + 1)
    except OSError as error:
        raise SetupError(f"{what} {path} cannot be read: {reason_of(error)}.") from None
    if len(content) > SIZE_MAX_BYTES:
        raise SetupError(f"{what} {path} is larger than 1 MiB, so it is not what it should be.")
    return content


def read_private_text(path: Path, what: str, *, forbidden: int = GROUP_AND_OTHERS) -> str:
    """Like `read_private`, for one line of text: surrounding white space is dropped."""
    try:
        text = read_private(path, what, forbidden=forbidden).decode().strip()
    except UnicodeDecodeError:
        raise SetupError(f"{what} {path} is not UTF-8 text.") from None
    if not text:
        raise SetupError(f"{what} {path} is empty.")
    return text


def write_private(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Write a file with mode 0600, whole or not at all, making its folder (0700) if needed.

    Raises SetupError if it cannot be written, or exists although `replace` is False.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        if replace:
            os.replace(temporary, path)
        else:
            os.link(temporary, path)  # fails if the path exists, unlike a rename
    except FileExistsError:
        raise SetupError(f"{path} exists already; choose another name or remove it.") from None
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {reason_of(error)}.") from None
    finally:
        temporary.unlink(missing_ok=True)


def ensure_secret(path: Path, what: str) -> str:
    """The text in a secret file; a fresh 256-bit secret is made and kept if there is none."""
    if not path.exists():
        try:
            write_private(path, secrets.token_hex(32).encode() + b"\n", replace=False)
        except SetupError:
            if not path.exists():  # otherwise somebody else was first, and theirs is as good
                raise
    return read_private_text(path, what)
