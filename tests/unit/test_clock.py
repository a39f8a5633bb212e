"""The pool's clock, while the machine's is set forward and back."""

from hypothesis import given
from hypothesis import strategies as st

from openpool.core.call_facts import CallReceived
from openpool.core.calls import App
from openpool.core.desk import Desk
from openpool.core.money.fees import Fees
from openpool.core.settings import DeskSettings
from openpool.pool.clock import SteadyClock

HOUR_MS = 3_600_000
MS_NS = 1_000_000


class Machine:
    """A machine's two clocks."""

    def __init__(self) -> None:
        self.wall_ms, self.passed_ms = 1_700_000_000_000, 5_000
        self.clock = SteadyClock(lambda: self.wall_ms * MS_NS, lambda: self.passed_ms * MS_NS)

    def wait(self, ms: int) -> None:
        self.wall_ms += ms
        self.passed_ms += ms


def test_it_is_the_walls_clock_as_long_as_nobody_sets_that_back() -> None:
    """Also after it was set forward, or the machine had slept."""
    machine = Machine()
    for forward_ms in (0, HOUR_MS, 0):
        machine.wall_ms += forward_ms
        machine.wait(1_234)
        assert machine.clock() == machine.wall_ms


def test_set_back_it_goes_on_at_half_its_pace_until_the_wall_has_caught_up() -> None:
    """However often it is read meanwhile."""
    machine = Machine()
    was_ms = machine.clock()
    machine.wall_ms -= HOUR_MS
    for minute in range(1, 120):
        machine.wait(60_000)
        assert machine.clock() == machine.clock() == was_ms + minute * 30_000
    machine.wait(60_000)
    assert machine.clock() == machine.wall_ms
    machine.wait(60_000)
    assert machine.clock() == machine.wall_ms


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(-HOUR_MS, HOUR_MS)), max_size=30))
def test_it_never_steps_back_and_never_stands_still(steps: list[tuple[int, int]]) -> None:
    """Whatever happens to the wall's, half of the time that passes counts at least."""
    machine = Machine()
    before_ms, began_ms, began_passed_ms = machine.clock(), machine.clock(), machine.passed_ms
    for waited_ms, set_by_ms in steps:
        machine.wall_ms += set_by_ms
        machine.wait(waited_ms)
        now_ms = machine.clock()
        assert now_ms >= before_ms
        assert now_ms - began_ms >= (machine.passed_ms - began_passed_ms) // 2
        before_ms = now_ms


def test_a_call_after_the_clock_was_set_back_has_its_time() -> None:
    """Its deadline is not one that the desk takes for past."""
    machine = Machine()
    desk = Desk(DeskSettings(), 1, Fees())

    def receive(call: str) -> list[str]:
        now_ms = machine.clock()
        app = App("llm", "m")
        asked = CallReceived(call=call, app=app, source="direct", deadline_ms=now_ms + 60_000)
        events = desk.handle(asked, machine.clock()).events
        return [str(getattr(event.data, "reason", "")) for event in events[1:]]

    (refused,) = receive("c-1")
    assert "no worker serves" in refused
    machine.wall_ms -= HOUR_MS
    assert receive("c-2") == [refused]
