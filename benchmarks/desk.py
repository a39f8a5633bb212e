"""Calls through the desk: how fast it decides, and how well it shares. No network, no disk."""

import random
import time
from fractions import Fraction

from benchmarks.report import Row, percentile, report
from openpool.core.call_facts import (
    CallEnded,
    CallReceived,
    CallStarted,
    LineUp,
    OffersChanged,
)
from openpool.core.call_instructions import RefuseCall, StartCall
from openpool.core.calls import App, Offer, Usage
from openpool.core.desk import Desk
from openpool.core.money.fees import Fees
from openpool.core.prices import Quote
from openpool.core.settings import DeskSettings

CALLS = 4_000
LAPS = 5
LOAD = 0.6
QUOTE = Quote(unit="token", price_wei=Fraction(333_333_333_333_333, 2_000_000), source="config")
USAGE = Usage(unit="token", units=50, checked=True)


def main() -> None:
    """Print the figures."""
    report("The desk", [*deciding(), *refusing()])
    report("The desk, a simulated day", sharing())


def desk_of(workers: int, apps: int, capacity: int = 4) -> Desk:
    """A desk where every worker serves one of the apps."""
    desk = Desk(DeskSettings(capacity_max=10_000), 1, Fees())
    for number in range(workers):
        name = f"w{number}"
        desk.handle(LineUp(line=name, worker=name, address=name, commission_ppm=250_000), 1)
        offer = Offer(app=App("llm", f"m{number % apps}"), capacity=capacity, warm=True)
        desk.handle(OffersChanged(line=name, offers=(offer,)), 1)
    return desk


# --- speed ----------------------------------------------------------------------------------------


def deciding() -> list[Row]:
    """Received, assigned, started, ended, credited: calls per second of one core."""
    few = calls_per_second(workers=10, apps=1)
    many = calls_per_second(workers=300, apps=1)
    spread = calls_per_second(workers=10_000, apps=50)
    return [
        Row("calls through the desk, 10 workers of one app", f"{few:,.0f} /s", "≥ 5,000 /s"),
        Row("the same, 300 workers of one app", f"{many:,.0f} /s", "≥ 2,000 /s"),
        Row("the same, 10,000 workers of 50 apps", f"{spread:,.0f} /s", "≥ 2,000 /s"),
    ]


def calls_per_second(workers: int, apps: int) -> float:
    """The best of some laps: other work on the machine disturbs few of them."""
    desk = desk_of(workers, apps)
    laps = []
    for lap in range(LAPS):
        began = time.perf_counter()
        for number in range(CALLS):
            _one_call(desk, f"{lap}-{number}", App("llm", f"m{number % apps}"), 1_000 + number)
        laps.append(CALLS / (time.perf_counter() - began))
    return max(laps)


def _one_call(desk: Desk, call: str, app: App, now_ms: int) -> None:
    asked = CallReceived(
        call=call, app=app, source="direct", customer="c", deadline_ms=10**9, quote=QUOTE
    )
    (start,) = desk.handle(asked, now_ms).instructions
    assert isinstance(start, StartCall)
    desk.handle(CallStarted(call=call, attempt=1), now_ms)
    desk.handle(CallEnded(call=call, attempt=1, usage=USAGE), now_ms)


def refusing() -> list[Row]:
    """How long a call waits for its refusal when every one of 300 workers is full."""
    desk = desk_of(workers=300, apps=1, capacity=1)
    app = App("llm", "m0")
    took = []
    for number in range(2_300):
        asked = CallReceived(call=str(number), app=app, source="direct", customer="c")
        began = time.perf_counter()
        step = desk.handle(asked, 1_000)
        if isinstance(step.instructions[0], RefuseCall):
            took.append(time.perf_counter() - began)
    return [
        Row(
            "refusal of a call when 300 workers are full",
            f"p50 {percentile(took, 50) * 1e6:,.0f} µs, p99 {percentile(took, 99) * 1e6:,.0f} µs",
            "p99 ≤ 1 ms",
        )
    ]


# --- sharing --------------------------------------------------------------------------------------


def sharing() -> list[Row]:
    """Sixty workers, a third of them 5 times slower, at 60 % load: who gets the calls?"""
    ours, base = _day(choose_at_random=False), _day(choose_at_random=True)
    return [
        Row(
            f"time of a call at {LOAD:.0%} load, 20 of 60 workers 5 times slower",
            f"p50 {percentile(ours, 50):,.0f} ms, p95 {percentile(ours, 95):,.0f} ms",
            "p95 below a random choice's",
            f"any free worker: p50 {percentile(base, 50):,.0f}, p95 {percentile(base, 95):,.0f} ms",
        )
    ]


def _day(*, choose_at_random: bool) -> list[float]:
    """Times of 6,000 calls of a simulated day; the baseline takes any free worker."""
    rng = random.Random(7)
    desk = desk_of(workers=60, apps=1, capacity=2)
    speed = {f"w{n}": 5.0 if n % 3 == 0 else 1.0 for n in range(60)}
    free = dict.fromkeys(speed, 2)
    places_per_ms = sum(2 / (100 * each) for each in speed.values())
    running: list[tuple[float, str, str]] = []
    times, now = [], 1_000.0
    for number in range(6_000):
        now += rng.expovariate(LOAD * places_per_ms)
        running.sort()
        while running and running[0][0] <= now:
            end, call, worker = running.pop(0)
            free[worker] += 1
            if not choose_at_random:
                desk.handle(CallEnded(call=call, attempt=1, usage=USAGE), int(end))
        call = str(number)
        if choose_at_random:
            worker = rng.choice([name for name, places in free.items() if places])
        else:
            asked = CallReceived(call=call, app=App("llm", "m0"), source="direct", customer="c")
            (start,) = desk.handle(asked, int(now)).instructions
            assert isinstance(start, StartCall)
            worker = start.worker
        took = speed[worker] * rng.uniform(80, 120)
        free[worker] -= 1
        running.append((now + took, call, worker))
        times.append(took)
    return times


if __name__ == "__main__":
    main()
