"""The processes that transcode: a nursery that forks them, and what each of them does.

The nursery has the libraries loaded, so that a fork is ready in milliseconds. It holds nothing
else, opens no media and starts no thread. A child serves one session at a time, segment by
segment, until its socket is closed. If the worker dies, all of these die with it. The worker's
side is `worker.sessions`; run as `python -m openpool.worker.child FD`.
"""

import contextlib
import ctypes
import os
import resource
import signal
import socket
import sys
import time
from struct import Struct as Layout

import msgspec

import openpool.worker.engine as engine
from openpool.worker.encoders import Warm
from openpool.worker.pipe import Reply, Request, receive_request, send, to_reply
from openpool.worker.terms import EngineError, InputError

COMMAND = Layout("<cIi")
"""A word, the number of the question, and a process id or a nice value."""
ANSWER = Layout("<Ii")
"""The number of the question, and a process id or an exit code."""
SPAWN, KILL, STATUS = b"s", b"k", b"?"
PR_SET_PDEATHSIG = 1
REAP_S = 1.0
STATUS_WAIT_S = 2.0
STILL_RUNNING = 1 << 20


def main(control: socket.socket) -> None:
    """Fork, kill and bury children as told, until the worker hangs up."""
    _die_with_parent(os.getppid())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    statuses: dict[int, int | None] = {}
    control.settimeout(REAP_S)
    while True:
        _reap(statuses)
        try:
            message, descriptors, _, _ = socket.recv_fds(control, COMMAND.size, 1)
        except TimeoutError:
            continue
        if not message:
            return
        word, question, number = COMMAND.unpack(message)
        if word == SPAWN:
            pid = _fork(control, descriptors[0], nice=number)
            statuses[pid] = None
            control.send(ANSWER.pack(question, pid))
        elif word == KILL and number in statuses and statuses[number] is None:
            os.kill(number, signal.SIGKILL)
        elif word == STATUS:
            control.send(ANSWER.pack(question, _status(statuses, number)))


def _fork(control: socket.socket, descriptor: int, nice: int) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        os.close(descriptor)
        return pid
    code = 1
    try:
        control.close()
        _die_with_parent(parent)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.nice(nice)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in (1, 2):  # codecs print what they think of hostile input
            os.dup2(nowhere, standard)
        serve(socket.socket(fileno=descriptor))
        code = 0
    finally:
        os._exit(code)


def _die_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)


def _reap(statuses: dict[int, int | None]) -> None:
    """Bury the dead, and remember how each died until somebody asks."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            statuses[pid] = os.waitstatus_to_exitcode(status)


def _status(statuses: dict[int, int | None], pid: int) -> int:
    """How the child ended, as `subprocess` counts; waits a little for one that is ending."""
    give_up = time.monotonic() + STATUS_WAIT_S
    while pid in statuses and statuses[pid] is None and time.monotonic() < give_up:
        time.sleep(0.005)
        _reap(statuses)
    status = statuses.get(pid)
    if status is None:
        return STILL_RUNNING
    del statuses[pid]
    return status


def serve(sock: socket.socket) -> None:
    """Answer requests until the worker closes the socket."""
    warm: Warm | None = None
    while message := receive_request(sock):
        request, source = message
        if warm is None and request.settings.device is not None:
            warm = Warm(request.settings.device)
        if warm and (request.fresh or request.segment.reinit):
            warm.drop()
        reply, body = _answer(request, source, warm)
        if warm and reply.error:
            warm.drop()
        if warm and reply.error and not reply.input_fault:
            # The GPU may be full or broken, but this segment is due now.
            settings = msgspec.structs.replace(request.settings, device=None)
            reply, body = _answer(msgspec.structs.replace(request, settings=settings), source, None)
        send(sock, reply, body)


def _answer(request: Request, source: bytes, warm: Warm | None) -> tuple[Reply, list[bytes]]:
    try:
        return to_reply(engine.transcode(source, request.segment, request.settings, warm))
    except InputError as error:
        return Reply(error=str(error), input_fault=True), []
    except EngineError as error:
        return Reply(error=str(error)), []
    except Exception as error:  # our bug, or FFmpeg's: it must cost this segment only
        return Reply(error=f"The transcoding engine failed: {type(error).__name__}: {error}"), []


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
