"""One file from a web server onto this disk: taken up where it broke off, checked, then named.

What has come so far lies beside its place in a part, named after the checksum: what is added to it
later cannot belong to another file, whatever the server has meanwhile. Whoever calls this sees to
it that nobody else fetches into the same folder (`models.fetch`).
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import aiohttp
from msgspec import Struct

from openpool.core.errors import SetupError

CHUNK_BYTES = 1 << 20
TRIES_MAX = 50
"""Connections for one file, each of which has to bring something."""
PART_DIGITS = 16

Progress = Callable[[str, int], None]
"""Hears a file's name and how many of its bytes are here; fewer than before after a fresh start."""


class ModelFile(Struct, frozen=True, kw_only=True):
    """A file to fetch. `sha256`, or for small ones the hub's `git_sha1`."""

    name: str
    url: str
    size: int | None
    sha256: str = ""
    git_sha1: str = ""


async def download(
    session: aiohttp.ClientSession, file: ModelFile, target: Path, progress: Progress
) -> None:
    """Have the file at `target`. Raises SetupError; what has come is kept unless it is wrong."""
    if _is_there(file, target):
        progress(file.name, file.size or 0)
        return
    try:
        path = _part_of(file, target)
        with path.open("a+b") as out:
            part = _Part(file, out, progress)
            _check_room(file, part.count, target.parent)
            await _fill(session, file, part)
            os.fsync(out.fileno())
        _settle(part, path, target)
    except OSError as error:
        raise SetupError(f"{target} cannot be written: {error.strerror}.") from None


def _is_there(file: ModelFile, target: Path) -> bool:
    return target.is_file() and _is_right(file, _Digest.of(target))


def _settle(part: "_Part", path: Path, target: Path) -> None:
    """Give the part its name if it is right, else remove it. Raises SetupError."""
    if part.is_right:
        path.replace(target)
        return
    path.unlink()
    raise SetupError(
        f"{target.name} is not what was announced: {part.count} bytes with the checksum "
        f"{part.digest.sha256}; nothing was kept."
    )


def _part_of(file: ModelFile, target: Path) -> Path:
    """Where the part lies, in a folder that is there; parts of other contents are removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    content = hashlib.sha256(f"{file.sha256} {file.git_sha1}".encode()).hexdigest()
    path = target.with_name(f"{target.name}.{content[:PART_DIGITS]}.part")
    for other in target.parent.glob(f"{target.name}.{'[0-9a-f]' * PART_DIGITS}.part"):
        if other != path:
            other.unlink()
    return path


def _check_room(file: ModelFile, count: int, folder: Path) -> None:
    missing, free = (file.size or 0) - count, shutil.disk_usage(folder).free
    if missing > free:
        raise SetupError(
            f"{file.name} needs {missing / 1e6:.0f} MB more, and only {free / 1e6:.0f} MB are free "
            f"in {folder}: make room, or keep models elsewhere."
        )


async def _fill(session: aiohttp.ClientSession, file: ModelFile, part: "_Part") -> None:
    """Ask for what is missing until all is there, or too much, or nothing more comes."""
    for _ in range(TRIES_MAX):
        before = part.count
        if part.is_full or part.is_right:
            return
        try:
            if await _receive(session, file, part):
                return
        except (aiohttp.ClientError, TimeoutError, UnicodeError):  # sent on to a host without sense
            if part.count <= before:
                break
    if not part.count:
        raise offline(file.name, file.url)
    raise SetupError(
        f"{file.name} broke off after {part.count / 1e6:.1f} MB, which are kept: do the same "
        "again, and it goes on from there."
    )


async def _receive(session: aiohttp.ClientSession, file: ModelFile, part: "_Part") -> bool:
    """Ask once, for what is missing; whether the server has said all it has to say."""
    # compressed on the way, a range would be one of other bytes
    headers = {"Accept-Encoding": "identity"}
    if part.count:
        headers["Range"] = f"bytes={part.count}-"
    async with session.get(file.url, headers=headers) as response:
        if response.status in (206, 416) and part.count and not _takes_up(response, part.count):
            part.restart()
            return False
        if response.status != 206 or not part.count:
            check_status(response, file.name)
            part.restart()
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            part.take(chunk)
            if part.is_full:
                break
    return True


def _takes_up(response: aiohttp.ClientResponse, count: int) -> bool:
    """Whether the answer begins where the part ends."""
    span = response.headers.get("Content-Range", "")
    return response.status == 206 and span.startswith(f"bytes {count}-")


class _Part:
    """What has come of a file, on the disk."""

    def __init__(self, file: ModelFile, out: BinaryIO, progress: Progress) -> None:
        """`out` is open for reading and appending."""
        self._file, self._out, self._progress = file, out, progress
        out.seek(0)
        self.digest = _Digest(file.size or 0)
        while chunk := out.read(CHUNK_BYTES):
            self.digest.update(chunk)
        self._progress(file.name, self.count)

    @property
    def count(self) -> int:
        """How many bytes there are."""
        return self.digest.count

    @property
    def is_full(self) -> bool:
        """Whether that is more than there should be: one byte too many is enough to know."""
        return self._file.size is not None and self.count > self._file.size

    @property
    def is_right(self) -> bool:
        """Whether it is the file that was meant."""
        return _is_right(self._file, self.digest)

    def take(self, chunk: bytes) -> None:
        """More has come."""
        self._out.write(chunk)
        self.digest.update(chunk)
        self._progress(self._file.name, self.count)

    def restart(self) -> None:
        """It begins anew."""
        self._out.truncate(0)
        self.digest = _Digest(self._file.size or 0)
        self._progress(self._file.name, 0)


class _Digest:
    """Both kinds of checksum of a file, while it comes."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self._sha256 = hashlib.sha256()
        self._sha1 = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)

    @classmethod
    def of(cls, path: Path) -> "_Digest":
        """Of a file that is there."""
        digest = cls(path.stat().st_size)
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
        return digest

    def update(self, data: bytes) -> None:
        self.count += len(data)
        self._sha256.update(data)
        self._sha1.update(data)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    @property
    def git_sha1(self) -> str:
        return self._sha1.hexdigest()


def _is_right(file: ModelFile, digest: _Digest) -> bool:
    if file.sha256:
        return digest.sha256 == file.sha256
    return bool(file.git_sha1) and digest.git_sha1 == file.git_sha1


def check_status(response: aiohttp.ClientResponse, what: str) -> None:
    """Raises SetupError for an answer that is not the thing itself."""
    if response.status != 200:
        host = response.url.host
        raise SetupError(f"{host} does not give {what}: {response.status} {response.reason}.")


def offline(what: str, url: str) -> SetupError:
    """The sentence about a server that is not reached."""
    return SetupError(
        f"{what} cannot be fetched: {host_of(url) or url} is not reached from this machine. Fetch "
        "it on a machine that is online and copy the folder into the cache, or set HF_ENDPOINT to "
        "a mirror."
    )


def host_of(url: str) -> str:
    """The host of an address of HTTP; empty if it is none."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        host.encode("idna")
        return host if parts.scheme in ("http", "https") and parts.port != 0 else ""
    except ValueError:  # a port, a name or a literal address that is none
        return ""
