"""The time of a session with several calls at once: it is counted once."""

from hypothesis import given
from hypothesis import strategies as st

from openpool.pool.session_time import SessionTime


def test_one_call_counts_from_its_beginning_once_it_tells_something() -> None:
    """The only call of a session counts all of its own time."""
    time = SessionTime()
    assert time.passed("a", 7.0) == 0
    time.tells("a", 2.0)
    time.tells("a", 5.0)
    assert time.passed("a", 7.0) == 5.0


def test_the_next_call_goes_on_where_the_first_ends() -> None:
    """Calls side by side count what passes once, and what passes between calls not at all."""
    time = SessionTime()
    time.tells("a", 0.0)
    time.tells("b", 1.0)
    time.tells("c", 2.0)
    assert [time.passed(call, 10.0) for call in "abc"] == [10.0, 0, 0]
    time.ends("b", 10.0)
    assert not time.counts("c")
    time.ends("a", 12.0)
    assert [time.passed(call, 15.0) for call in "abc"] == [0, 0, 3.0]
    time.ends("c", 15.0)
    time.tells("d", 20.0)
    assert time.passed("d", 21.0) == 1.0


def test_a_call_that_told_nothing_takes_no_time_from_others() -> None:
    """However long it has been open; nor does it get what they counted when it begins to tell."""
    time = SessionTime()
    time.tells("late", 5.0)
    time.ends("silent", 6.0)
    assert time.passed("late", 7.0) == 2.0
    time.ends("late", 8.0)
    time.tells("silent", 0.0)
    assert time.passed("silent", 9.0) == 1.0


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.booleans()), max_size=60))
def test_no_second_is_counted_twice(steps: list[tuple[str, bool]]) -> None:
    """Whatever calls come, tell and end, together they count no more than has passed."""
    time, counted = SessionTime(), 0.0
    began: dict[str, float] = {}
    for now, (call, tells) in enumerate(steps):
        if tells:
            time.tells(call, began.setdefault(call, float(now)))
        elif call in began:
            counted += time.passed(call, now)
            time.ends(call, now)
            del began[call]
    end = float(len(steps))
    counted += sum(time.passed(call, end) for call in began)
    assert counted <= end
