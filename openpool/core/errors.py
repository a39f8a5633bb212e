"""The error tree. Each class says whose fault it was, and so what a shell must do about it.

    OpenPoolError
    ├── PeerError       the other side broke the rules       → refuse, count, maybe drop the peer
    │   ├── BadMessage      bytes that do not parse, or break a limit
    │   ├── BadResult       renditions that are not what the job asked for
    │   └── Unauthorized    a wrong or revoked secret, a signature that does not match
    ├── Refusal         a fair request that policy declines   → say why and what to do
    │   ├── NoCapacity
    │   ├── LimitReached
    │   └── NotAllowed
    │       └── Banned
    ├── Unavailable     the world is failing; may be retried  → bounded retry, then an event
    │   └── Timeout
    ├── SetupError      a person must change something        → one sentence, exit code 2
    └── (anything else) our bug                             → the process stops; restart, replay

The text of an error is one sentence: what is wrong and what to do. It is safe to show to its peer.
"""

import errno


def reason_of(error: Exception) -> str:
    """Why the system refused, in its own few words, like `connection refused`."""
    inner = getattr(error, "os_error", error)  # an HTTP client's own words tell of its insides
    if isinstance(inner, ConnectionRefusedError):  # which asyncio and uvloop put differently
        return "connection refused"
    if isinstance(inner, TimeoutError):
        return "no answer in time"
    if isinstance(inner, OSError):
        return (inner.strerror or str(inner)).lower() or "the connection was closed"
    return str(inner) or type(inner).__name__


def cannot_listen(setting: str, host: str, port: int, error: OSError) -> "SetupError":
    """What a person is told whose `setting` names a place where nothing can be served."""
    why = {
        errno.EADDRINUSE: "that port is in use: choose another, or stop the program that uses it",
        errno.EADDRNOTAVAIL: "this machine has no such address; 0.0.0.0 stands for all it has",
        errno.EACCES: "that port is not for everybody: choose one from 1024 on",
    }.get(error.errno or 0, f"{reason_of(error)}: choose another address")
    return SetupError(f"{setting}: cannot listen on {host}:{port}; {why}.")


class OpenPoolError(Exception):
    """Something went wrong."""

    code = "error"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.__doc__)


class PeerError(OpenPoolError):
    """The other side broke the rules of the protocol."""

    code = "peer-error"


class BadMessage(PeerError):
    """The message cannot be read, or breaks a limit."""

    code = "bad-message"


class BadResult(PeerError):
    """The renditions are not what the job asked for."""

    code = "bad-result"


class Unauthorized(PeerError):
    """The secret or the signature is wrong."""

    code = "unauthorized"


class Refusal(OpenPoolError):
    """The request is fair, but policy declines it."""

    code = "refused"


class NoCapacity(Refusal):
    """The pool is full at the moment; try again shortly."""

    code = "no-capacity"


class LimitReached(Refusal):
    """You ask more often than you may; wait a little and try again."""

    code = "limit-reached"


class NotAllowed(Refusal):
    """This is not allowed for you."""

    code = "not-allowed"


class Banned(NotAllowed):
    """The operator has banned this worker."""

    code = "banned"


class Unavailable(OpenPoolError):
    """Something this needs cannot be reached at the moment; try again."""

    code = "unavailable"


class Timeout(Unavailable):
    """This took too long."""

    code = "timeout"


class SetupError(OpenPoolError):
    """The configuration or the machine needs a change before this can run."""

    code = "setup"
