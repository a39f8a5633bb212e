"""All that an orchestrator forgets when it restarts: tasks, sessions, stored segments, members."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field

from openpool.core.errors import Unavailable
from openpool.demo.results import Part
from openpool.demo.roster import Roster

KEPT_PER_FOLDER = 12


class Failed(Exception):
    """A segment failed; the text is what the gateway reads, word for word."""


class TookTooLong(Failed):
    """No result before the deadline: whoever had the task is evicted."""

    def __init__(self) -> None:
        super().__init__("Remote transcoder took too long")


@dataclass(slots=True)
class Session:
    """One stream of one gateway. Its segments are transcoded one after the other."""

    id: str
    manifest: str
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    pending: int = 0
    idle: asyncio.TimerHandle | None = None

    def stop_idling(self) -> None:
        if self.idle:
            self.idle.cancel()
            self.idle = None


class Memory:
    """The object store: the last 12 files of each folder."""

    def __init__(self) -> None:
        self._folders: dict[str, OrderedDict[str, bytes]] = {}

    def save(self, path: str, data: bytes) -> None:
        folder_name, _, name = path.rpartition("/")
        folder = self._folders.setdefault(folder_name, OrderedDict())
        folder[name] = data
        while len(folder) > KEPT_PER_FOLDER:
            folder.popitem(last=False)

    def load(self, path: str) -> bytes | None:
        folder_name, _, name = path.rpartition("/")
        folder = self._folders.get(folder_name)
        return folder.get(name) if folder else None

    def forget_session(self, session: str) -> None:
        for name in [n for n in self._folders if n == session or n.startswith(f"{session}/")]:
            del self._folders[name]


class Tasks:
    """Tasks handed out and not answered yet. Ids count up from 0."""

    def __init__(self) -> None:
        self._next_id = 0
        self._open: dict[int, asyncio.Future[list[Part]]] = {}

    def open(self) -> tuple[int, asyncio.Future[list[Part]]]:
        task_id, self._next_id = self._next_id, self._next_id + 1
        future: asyncio.Future[list[Part]] = asyncio.get_running_loop().create_future()
        self._open[task_id] = future
        return task_id, future

    def close(self, task_id: int) -> None:
        self._open.pop(task_id, None)

    def resolve(self, task_id: int, answer: list[Part] | Failed) -> bool:
        """The first answer wins; False if nobody waits for this one."""
        future = self._open.get(task_id)
        if future is None or future.done():
            return False
        if isinstance(answer, Failed):
            future.set_exception(answer)
        else:
            future.set_result(answer)
        return True

    def fail_all(self) -> None:
        for future in self._open.values():
            if not future.done():
                future.set_exception(Unavailable("the orchestrator stopped"))


class Life:
    """The memory of one run of the orchestrator's process."""

    def __init__(self) -> None:
        self.roster = Roster()
        self.memory = Memory()
        self.tasks = Tasks()
        self.sessions: dict[str, Session] = {}
        """By manifest id."""

    def end(self) -> None:
        for session in self.sessions.values():
            session.stop_idling()
        self.tasks.fail_all()
