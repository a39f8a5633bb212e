"""Asking a revenue rule that runs in a process of its own. Blocks, so it belongs into a thread.

Every question has a time limit; a rule that is late, dies or sends too much costs one RuleFault
and its process. What an answer is worth is decided in `core.money.rules`.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

import msgspec

from openpool.core.errors import SetupError
from openpool.core.money.rules import Member, Round, RuleFault
from openpool.rules.catalogue import RuleInfo
from openpool.rules.child import LENGTH

TIMEOUT_MS = 10_000
ANSWER_BYTES_MAX = 64 << 20
CHUNK_BYTES = 1 << 20
STOP_S = 5.0


class RuleProcess:
    """One rule with its options. Implements `core.money.rules.Rule`."""

    def __init__(
        self, name: str, options: Mapping[str, str], *, timeout_ms: int = TIMEOUT_MS
    ) -> None:
        self.name = name
        self.options = dict(options)
        self.options_text = ", ".join(f"{key}={value}" for key, value in self.options.items())
        self._timeout_ms = timeout_ms
        self._info: RuleInfo | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    @property
    def version(self) -> str:
        return self.describe().version

    @property
    def hash(self) -> str:
        return self.describe().hash

    def describe(self) -> RuleInfo:
        """What identifies it. Raises RuleFault if it cannot be loaded."""
        if self._info is None:
            answer = self._ask("describe", None)
            try:
                self._info = msgspec.convert(answer, RuleInfo)
            except msgspec.ValidationError as error:
                self.close()
                raise RuleFault(f"it does not say what it is: {error}") from None
        return self._info

    def weights(self, round: Round) -> object:
        self.describe()
        return self._ask("weights", round)

    def adjustments(self, round: Round) -> object:
        return self._ask("adjustments", round)

    def check(self, named_by: str = "") -> RuleInfo:
        """Try it on a round in which nothing happened. SetupError if the rule cannot be loaded
        or does not know its options; it begins with what named the rule, as `revenue.hooks`."""
        try:
            info = self.describe()
            for name in self.options:
                self._check_option(info, name)
            self.weights(nothing())
            self.adjustments(nothing())
        except RuleFault as fault:
            where = f"{named_by}: the" if named_by else "The"
            raise SetupError(f"{where} rule `{self.name}` cannot be used: {fault}.") from None
        return info

    def _check_option(self, info: RuleInfo, name: str) -> None:
        families = tuple(known.partition("<")[0] for known in info.options if "<" in known)
        if name not in info.options and not (families and name.startswith(families)):
            known = ", ".join(info.options) or "none"
            raise RuleFault(f"it has no option `{name}`; it has: {known}")

    @property
    def pid(self) -> int:
        """Of its process; 0 while none runs."""
        return self._process.pid if self._process is not None else 0

    def close(self) -> None:
        """End its process; the next question starts another, with a clean memory."""
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(STOP_S)
        self._socket = self._process = self._info = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, question: str, round: Round | None) -> object:
        asked = {"ask": question, "options": self.options, "round": msgspec.to_builtins(round)}
        body = json.dumps(asked).encode()
        deadline = time.monotonic() + self._timeout_ms / 1000
        try:
            connection = self._running()
            connection.settimeout(self._timeout_ms / 1000)
            connection.sendall(LENGTH.pack(len(body)) + body)
            length = LENGTH.unpack(_receive(connection, LENGTH.size, deadline))[0]
            if length > ANSWER_BYTES_MAX:
                raise RuleFault(f"its answer has {length} bytes; at most {ANSWER_BYTES_MAX}")
            answer = _decoded(_receive(connection, length, deadline))
        except TimeoutError:
            self.close()
            raise RuleFault(f"it did not answer within {self._timeout_ms / 1000:g} s") from None
        except OSError:
            self.close()
            raise RuleFault("its process ended in the middle") from None
        except RuleFault:
            self.close()
            raise
        if "error" in answer:
            raise RuleFault(str(answer["error"]))
        return answer.get("answer")

    def _running(self) -> socket.socket:
        if self._socket is not None and self._process is not None and self._process.poll() is None:
            return self._socket
        self.close()
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "openpool.rules.child"),
                    *(str(theirs.fileno()), self.name),
                ],
                pass_fds=[theirs.fileno()],
                env={k: v for k, v in os.environ.items() if not k.startswith("OPENPOOL")},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self._socket


def nothing(members: tuple[Member, ...] = ()) -> Round:
    """A round in which nothing happened."""
    return Round(
        orchestrator="none",
        round=0,
        scheme="proportional",
        start_ms=0,
        end_ms=0,
        expected_wei=0,
        realised_wei=0,
        pot_wei=0,
        commission_wei=0,
        members=members,
    )


def prepared(hooks: Iterable[tuple[str, Mapping[str, str]]]) -> list[RuleProcess]:
    """The rules of the settings, (name, options) each, tried once. Raises SetupError."""
    rules = [RuleProcess(name, options) for name, options in hooks]
    for rule in rules:
        with rule:
            rule.check("revenue.hooks")
    return rules


def _receive(connection: socket.socket, size: int, deadline: float) -> bytes:
    """Exactly so many bytes. TimeoutError, or ConnectionError if there are no more."""
    received = bytearray()
    while len(received) < size:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        connection.settimeout(left_s)
        chunk = connection.recv(min(CHUNK_BYTES, size - len(received)))
        if not chunk:
            raise ConnectionError
        received += chunk
    return bytes(received)


def _decoded(data: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(data)
        json.dumps(answer, ensure_ascii=False).encode()  # half a character fits into no log
    except (ValueError, RecursionError):
        raise RuleFault("its answer is not JSON") from None
    if not isinstance(answer, dict):
        raise RuleFault("its answer is not JSON")
    return answer
