"""The time of a session that has several calls at once. It passes once, and is paid once.

Whoever buys a session pays for its time, whatever number of connections it opens. So of all calls
that tell something, the one that has told the longest counts the time; when it ends, the next one
goes on from there. All calls of a session are one worker's, so nobody loses by it. Pure.
"""


class SessionTime:
    """One session's."""

    def __init__(self) -> None:
        self.calls = 0
        """Calls that are open, whether they tell something or not."""
        self._telling: list[str] = []
        """The first of them counts."""
        self._since = 0.0
        """From when it does; while there is none, until when all is counted."""

    def tells(self, call: str, began: float) -> None:
        """A call that began then has told something; saying so twice is no error."""
        if call in self._telling:
            return
        if not self._telling:
            self._since = max(self._since, began)
        self._telling.append(call)

    def counts(self, call: str) -> bool:
        """Whether it is this call that counts the time."""
        return self._telling[:1] == [call]

    def passed(self, call: str, now: float) -> float:
        """How much of it a call counts by now, in seconds."""
        return now - self._since if self.counts(call) else 0.0

    def ends(self, call: str, now: float) -> None:
        """A call is over."""
        if call not in self._telling:
            return
        if self._telling[0] == call:
            self._since = now
        self._telling.remove(call)
