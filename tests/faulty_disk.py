"""Disks that fail on purpose, as SQLite file systems: one that fills up, one that loses power."""

from random import Random

import apsw


class FullDisk(apsw.VFS):
    """Works until `full` is set; from then on nothing can be written."""

    def __init__(self, name: str, error: type[apsw.Error] = apsw.FullError) -> None:
        super().__init__(name, "")
        self.name = name
        self.full = False
        self.error = error

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> "FullDiskFile":
        return FullDiskFile(self, name, flags)


class FullDiskFile(apsw.VFSFile):
    def __init__(
        self, disk: FullDisk, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> None:
        super().__init__("", name, flags)
        self._disk = disk

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._disk.full:
            raise self._disk.error("the disk of this test does not take more")
        super().xWrite(data, offset)

    def excepthook(self, *_: object) -> bool:
        return True


class Content:
    """One file: what a power cut leaves for sure, and the writes that were not synced yet."""

    def __init__(self) -> None:
        self.stable = bytearray()
        self.now = bytearray()
        self.unsynced: list[tuple[int, bytes | None]] = []
        """(offset, bytes), or (size, None) for a truncation."""

    def apply(self, offset: int, data: bytes | None) -> None:
        self.unsynced.append((offset, data))
        change(self.now, offset, data)

    def sync(self) -> None:
        self.stable = bytearray(self.now)
        self.unsynced.clear()

    def after_cut(self, random: Random) -> bytes:
        """What is found afterwards: any part of the writes that were not synced may be there."""
        left, kept = bytearray(self.stable), random.choice((0.0, 0.5, 1.0))
        for offset, data in self.unsynced:
            if random.random() < kept:
                torn = data if data is None or random.random() < 0.8 else data[: len(data) // 2]
                change(left, offset, torn)
        return bytes(left)


def change(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        return
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class PowerCutDisk(apsw.VFS):
    """Keeps files in memory; after `writes` writes the power goes off. `left` is what remains."""

    def __init__(self, name: str, seed: int, writes: int) -> None:
        super().__init__(name, "")
        self.name = name
        self.files: dict[str, Content] = {}
        self.left: dict[str, bytes] | None = None
        self._random = Random(seed)
        self._writes = writes

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> "PowerCutFile":
        return PowerCutFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self.files.pop(filename, None)
        super().xDelete(filename, syncdir)

    def count(self) -> None:
        self._writes -= 1
        if self._writes <= 0:
            if self.left is None:
                self.left = {n: c.after_cut(self._random) for n, c in self.files.items()}
            raise apsw.IOError("the power is off")


class PowerCutFile(apsw.VFSFile):
    def __init__(
        self, disk: PowerCutDisk, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> None:
        super().__init__("", name, flags)
        self._disk = disk
        path = name.filename() if isinstance(name, apsw.URIFilename) else name or ""
        self._content = disk.files.setdefault(path, Content())

    def xRead(self, amount: int, offset: int) -> bytes:
        return bytes(self._content.now[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.count()
        self._content.apply(offset, bytes(data))

    def xTruncate(self, size: int) -> None:
        self._disk.count()
        self._content.apply(size, None)

    def xSync(self, flags: int) -> None:
        self._disk.count()
        self._content.sync()

    def xFileSize(self) -> int:
        return len(self._content.now)

    def excepthook(self, *_: object) -> bool:
        return True
