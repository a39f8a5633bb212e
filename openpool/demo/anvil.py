"""A local Ethereum for the demo and the tests: the `anvil` command on a free port.

It is found by ANVIL_BIN, in node_modules (`npm ci`), or on the PATH. It never outlives its starter:
it is stopped at the end of the block, and on Linux the kernel ends it if the starter is killed.
"""

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import which
from typing import IO

from openpool.core.errors import SetupError

START_S = 30.0
STOP_S = 5.0
PR_SET_PDEATHSIG = 1
BASE_FEE_WEI = 10**7
"""As on Arbitrum."""
ROOT = Path(__file__).parents[2]


def find_anvil() -> Path:
    """The command. Raises SetupError saying how to get it."""
    configured = os.environ.get("ANVIL_BIN", "")
    found = sorted(ROOT.glob("node_modules/@foundry-rs/anvil-*/bin/anvil*"))
    path = Path(configured) if configured else found[0] if found else Path(which("anvil") or "")
    if not path.is_file() or not os.access(path, os.X_OK):
        raise SetupError(
            "A local Ethereum needs the command anvil; install npm and run "
            "`sh scripts/setup.sh --demo`, or set ANVIL_BIN to its path."
        )
    return path


@contextmanager
def anvil(*, chain_id: int = 31_337, arguments: tuple[str, ...] = ()) -> Iterator[str]:
    """Run a fresh chain; its address, like `http://127.0.0.1:43210`. Raises SetupError.

    The two newest blocks are not final yet. Any account can send without a signature, and each
    transaction is mined at once, in a block of its own. Call it on the main thread: the kernel
    ends the chain together with the thread that started it.
    """
    process = subprocess.Popen(
        [
            str(find_anvil()),
            *("--host", "127.0.0.1", "--port", "0", "--chain-id", str(chain_id)),
            *("--accounts", "1", "--slots-in-an-epoch", "1", "--auto-impersonate"),
            *("--block-base-fee-per-gas", str(BASE_FEE_WEI), "--disable-min-priority-fee"),
            *arguments,
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_dies_with_us(),
    )
    assert process.stdout is not None
    try:
        yield _address(process, process.stdout)
    finally:
        _stop(process)
        process.stdout.close()


def _address(process: "subprocess.Popen[bytes]", output: IO[bytes]) -> str:
    too_late = threading.Timer(START_S, process.kill)
    too_late.start()
    last: deque[str] = deque(maxlen=3)
    try:
        for line in map(_text, output):
            if found := re.fullmatch(r"Listening on (127\.0\.0\.1:[0-9]+)", line):
                threading.Thread(target=_drain, args=[output], daemon=True).start()
                return f"http://{found[1]}"
            last.append(line)
    finally:
        too_late.cancel()
    raise SetupError(f"anvil did not start: {' '.join(last) or 'it said nothing'}.")


def _text(line: bytes) -> str:
    return line.decode(errors="replace").strip()


def _drain(output: IO[bytes]) -> None:
    """Else it would stand still once the pipe is full. Ends with it."""
    with suppress(ValueError):  # closed in the middle of reading
        while output.read(1 << 16):
            pass


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _dies_with_us() -> Callable[[], None] | None:
    """On Linux: has the kernel end the child when we end, however that comes."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
