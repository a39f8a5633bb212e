"""The process that a revenue rule runs in: `python -m openpool.rules.child <fd> <name>`.

Reads questions from the socket and answers them, one after the other, until the pool hangs up. A
frame is its length in four bytes and JSON. What the rule prints goes nowhere. The pool believes
nothing that comes out of here (`core.money.rules` checks it), and ends the process when it is late.
"""

import json
import os
import resource
import select
import socket
import struct
import sys
import threading
import traceback
from functools import cache
from typing import Any

import msgspec

from openpool.core.money.rules import Adjustment, Round
from openpool.rules.catalogue import LoadedRule, load

LENGTH = struct.Struct("!I")
MEMORY_BYTES_MAX = 2 << 30
PROCESSOR_S_MAX = 600
ERROR_CHARS_MAX = 300


def main() -> None:
    """Serve one rule."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_S_MAX, PROCESSOR_S_MAX))
    threading.Thread(target=_end_with_pool, args=(connection.fileno(),), daemon=True).start()
    with connection, connection.makefile("rb") as questions:
        while length := questions.read(LENGTH.size):
            question = json.loads(questions.read(LENGTH.unpack(length)[0]))
            answer = _answer(sys.argv[2], question)
            connection.sendall(LENGTH.pack(len(answer)) + answer)


def _end_with_pool(descriptor: int) -> None:
    """A rule that hangs must not outlive a pool that was killed."""
    hung_up = select.poll()
    hung_up.register(descriptor, 0)  # that the other end has closed is always reported
    hung_up.poll()
    os._exit(1)


def _answer(name: str, question: dict[str, Any]) -> bytes:
    try:
        return json.dumps({"answer": _asked(name, question)}, default=_plain).encode()
    except BaseException as error:
        return json.dumps({"error": _told(error)}).encode()


def _asked(name: str, question: dict[str, Any]) -> object:
    loaded = _loaded(name)
    if question["ask"] == "describe":
        return msgspec.to_builtins(loaded.info)
    round = msgspec.convert(question["round"], Round)
    return loaded.ask(question["ask"], round, question["options"])


@cache
def _loaded(name: str) -> LoadedRule:
    return load(name)


def _plain(value: object) -> object:
    if isinstance(value, Adjustment):
        return {name: getattr(value, name) for name in value.__struct_fields__}
    raise TypeError(f"its answer holds {type(value).__name__}, which is no plain value")


def _told(error: BaseException) -> str:
    """What went wrong and where, in one line."""
    kind = type(error).__module__
    text = str(error) or type(error).__name__
    if not kind.startswith("openpool."):
        frame = traceback.extract_tb(error.__traceback__)[-1]
        at = f" ({os.path.basename(frame.filename)}, line {frame.lineno})"
        text = f"it failed: {type(error).__name__}: {text}{at}"
    return " ".join(text.encode(errors="replace").decode().split())[:ERROR_CHARS_MAX]


if __name__ == "__main__":
    main()
