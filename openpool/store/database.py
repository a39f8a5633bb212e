"""Opening the pool's one SQLite file: version, settings, migrations, the lock, and its errors.

Only this module knows how a connection must be set up, and which sentence a person reads when
the file cannot be used. Must not know what the tables mean. Read next: `store.sqlite`.
"""

import contextlib
import fcntl
import functools
import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import apsw

from openpool.core.errors import SetupError, Unavailable, reason_of

FILE = "openpool.db"
LOCK = "openpool.lock"
APPLICATION_ID = 0x4F504F4C
"""`OPOL`: marks the file as ours."""
SQLITE_MIN = (3, 51, 3)
"""Older versions can lose commits in WAL mode when a checkpoint and a write meet."""
BUSY_MS = 5_000
WAL_BYTES_MAX = 64 * 2**20


def check_library(version: str | None = None) -> None:
    """SetupError if the SQLite library is too old to be trusted with money."""
    version = version or apsw.sqlite_lib_version()
    if tuple(int(part) for part in version.split(".")[:3]) < SQLITE_MIN:
        least = ".".join(map(str, SQLITE_MIN))
        raise SetupError(
            f"SQLite {version} can lose data; upgrade `apsw` to bring {least} or newer."
        )


def database_file(path: Path) -> Path:
    """The database in a data directory; a path to the file itself is taken as it is."""
    return path / FILE if path.is_dir() else path


@functools.cache
def migrations() -> list[tuple[int, str]]:
    """Every migration as (number, SQL), in order."""
    folder = files("openpool.store") / "migrations"
    found = (entry for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return sorted((int(entry.name[:4]), entry.read_text("utf-8")) for entry in found)


def open_writer(file: Path, vfs: str | None = None) -> apsw.Connection:
    """The one connection that writes; creates or migrates the file. SetupError if unusable."""
    check_library()
    with setup_errors(file):
        connection = apsw.Connection(str(file), vfs=vfs)
        try:
            connection.set_busy_timeout(BUSY_MS)
            _check_ours(connection, file)
            connection.pragma("journal_mode", "wal")
            connection.pragma("synchronous", "full")
            connection.pragma("journal_size_limit", WAL_BYTES_MAX)
            _migrate(connection)
        except BaseException:
            close(connection)
            raise
    return connection


def close(connection: apsw.Connection) -> None:
    """Close for good, even if the disk has failed: the log was written long before."""
    with contextlib.suppress(apsw.Error):
        connection.close(force=True)


def open_reader(file: Path, vfs: str | None = None) -> apsw.Connection:
    """A connection that only reads. SetupError if there is no such database, or it is unusable."""
    check_library()
    with setup_errors(file):
        if not file.exists():
            raise SetupError(f"There is no pool database at {file}; start the pool once first.")
        connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY, vfs=vfs)
        try:
            connection.set_busy_timeout(BUSY_MS)
            _check_ours(connection, file)
            if connection.pragma("user_version") < migrations()[-1][0]:
                raise SetupError(f"{file} is from an older version; start the pool to update it.")
        except BaseException:
            close(connection)
            raise
    return connection


def _check_ours(connection: apsw.Connection, file: Path) -> None:
    version = connection.pragma("user_version")
    newest = migrations()[-1][0]
    if connection.pragma("application_id") not in (0, APPLICATION_ID):
        raise SetupError(f"{file} belongs to another program; choose another data directory.")
    if version > newest:
        raise SetupError(
            f"{file} was written by a newer Open Pool (schema {version}, this one knows {newest}); "
            "install that version again or choose another data directory."
        )


class _WeiSum:
    """Adds up decimal text, of any length."""

    def __init__(self) -> None:
        self._sum = 0

    def step(self, *values: "apsw.SQLiteValue") -> None:
        self._sum += int(str(values[0]))

    def final(self) -> str:
        return str(self._sum)


def add_functions(connection: apsw.Connection) -> None:
    """What migrations use beyond SQLite's own functions."""
    connection.create_aggregate_function("wei_sum", _WeiSum, 1)


def _migrate(connection: apsw.Connection) -> None:
    """Apply what is missing; each migration and its version number are one transaction."""
    add_functions(connection)
    done = connection.pragma("user_version")
    for number, sql in migrations():
        if number > done:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(sql)
            connection.pragma("application_id", APPLICATION_ID)
            connection.pragma("user_version", number)
            connection.execute("COMMIT")


@contextlib.contextmanager
def setup_errors(file: Path) -> Iterator[None]:
    """Turn what SQLite says while a database is opened into a SetupError."""
    try:
        yield
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise SetupError(
            f"{file} is damaged or is no database; restore it from a backup, "
            "or move it away to start with empty books."
        ) from error
    except (apsw.CantOpenError, apsw.PermissionsError, apsw.ReadOnlyError) as error:
        raise SetupError(f"{file} cannot be opened for writing; check its directory.") from error
    except (apsw.FullError, apsw.IOError) as error:
        raise SetupError(disk_sentence(error, file)) from error
    except apsw.BusyError as error:
        raise SetupError(f"{file} is locked by another program; stop that first.") from error


def disk_sentence(error: BaseException, file: Path) -> str:
    """What a person must know when writing the database failed."""
    if isinstance(error, apsw.FullError):
        return f"The disk that holds {file} is full; free some space and start the pool again."
    if isinstance(error, apsw.NotADBError | apsw.CorruptError):
        return f"{file} is damaged; stop the pool and restore the file from a backup."
    if isinstance(error, apsw.Error):
        return f"{file} cannot be written ({error}); check the disk and start the pool again."
    return f"A fault in the pool stopped it from writing {file}; start the pool again."


@contextlib.contextmanager
def read_errors(file: Path) -> Iterator[None]:
    """Turn what SQLite says while reading into Unavailable."""
    try:
        yield
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise Unavailable(disk_sentence(error, file)) from error
    except (apsw.IOError, apsw.BusyError, apsw.CantOpenError) as error:
        raise Unavailable(f"{file} cannot be read at the moment ({error}).") from error


class ProcessLock:
    """At most one pool per data directory; the system frees the lock when the process dies."""

    def __init__(self, directory: Path) -> None:
        """SetupError if the directory cannot be used, or another process holds it."""
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SetupError(
                f"The data folder {directory} cannot be used ({reason_of(error)}); choose another "
                "by data_dir, or make this one writable."
            ) from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise SetupError(
                f"Another pool (process {holder}) already uses {directory}; "
                "stop it, or choose another data directory."
            ) from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
