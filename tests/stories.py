"""Makes believable event logs for tests and benchmarks: jobs, losses, fees with exact carries."""

from collections.abc import Iterator
from fractions import Fraction
from random import Random

from openpool.core import events as e
from openpool.core.events import AnyPayload, Event
from openpool.core.units import commission, fee, price_text

START_MS = 1_700_000_000_000
PRICES = (Fraction(1200), Fraction(1, 3), Fraction(7, 9), Fraction(10**22 + 1, 7))
COMMISSION_PPM = 250_000


def at(event_id: str, data: AnyPayload, time_ms: int = START_MS) -> Event:
    return Event(id=event_id, time_ms=time_ms, data=data)


def received(job: str, deadline_ms: int = START_MS + 8_000) -> e.JobReceived:
    return e.JobReceived(
        job=job,
        orchestrator="orch",
        incarnation="c0ffee",
        group="g1",
        task_id=1,
        session="s",
        manifest="m",
        seq=0,
        duration_ms=2_000,
        profiles=(),
        capabilities=0,
        deadline_ms=deadline_ms,
    )


def assigned(job: str, attempt: int, worker: str) -> e.JobAssigned:
    return e.JobAssigned(job=job, attempt=attempt, worker=worker, predicted_ms=900, reason="chosen")


def hedged(job: str, attempt: int, worker: str) -> e.JobHedged:
    return e.JobHedged(job=job, attempt=attempt, worker=worker, predicted_ms=900, waited_ms=1_500)


def attempt_failed(job: str, attempt: int, worker: str, blamed: bool = True) -> e.AttemptFailed:
    return e.AttemptFailed(job=job, attempt=attempt, worker=worker, reason="gone", blamed=blamed)


def refused(job: str, attempt: int, worker: str) -> e.ResultRefused:
    return e.ResultRefused(job=job, attempt=attempt, worker=worker, reason="one frame short")


def verified(job: str, attempt: int, worker: str, pixels: int = 1_000) -> e.JobVerified:
    return e.JobVerified(
        job=job,
        attempt=attempt,
        worker=worker,
        source=None,
        renditions=(),
        pixels=pixels,
        took_ms=700,
    )


def delivered(job: str, attempt: int, worker: str) -> e.JobDelivered:
    return e.JobDelivered(
        job=job,
        orchestrator="orch",
        attempt=attempt,
        worker=worker,
        duration_ms=2_000,
        took_ms=1_100,
        attempts=1,
        hedged=False,
    )


def failed(job: str) -> e.JobFailed:
    return e.JobFailed(
        job=job,
        orchestrator="orch",
        reason="no worker",
        answered=True,
        attempts=1,
        input_fault=False,
    )


def credited(
    job: str,
    worker: str,
    fee_wei: int,
    worker_wei: int,
    *,
    price: str = "1200",
    carry: str = "0",
    pixels: int = 1_000,
) -> e.FeeCredited:
    return e.FeeCredited(
        job=job,
        orchestrator="orch",
        worker=worker,
        address=f"0x{worker}",
        pixels=pixels,
        price_wei=price,
        price_source="config",
        fee_wei=str(fee_wei),
        carry=carry,
        commission_ppm=COMMISSION_PPM,
        worker_wei=str(worker_wei),
    )


def taken(job: str, worker: str, amount_wei: int) -> e.CommissionTaken:
    return e.CommissionTaken(
        job=job, orchestrator="orch", worker=worker, commission_wei=str(amount_wei)
    )


class Story:
    """An endless seeded log. `worth` is what the delivered pixels are worth, exactly."""

    def __init__(self, seed: int, workers: int = 5) -> None:
        self._random = Random(seed)
        self._prefix = f"{seed}."
        self._workers = [f"w{n}" for n in range(workers)]
        self._carries: dict[tuple[str, int], int] = {}
        self._job = 0
        self.time_ms = START_MS
        self.worth: dict[str, Fraction] = {}

    def jobs(self, count: int) -> Iterator[list[Event]]:
        """The events of one job after the other."""
        for _ in range(count):
            yield self.job()

    def events(self, jobs: int) -> list[Event]:
        return [event for job in self.jobs(jobs) for event in job]

    def job(self) -> list[Event]:
        """A job that is delivered, or delivered late by somebody else, or fails."""
        self._job += 1
        self.time_ms += self._random.randrange(400)
        job, first, second = (
            f"{self._prefix}j{self._job}",
            *self._random.choices(self._workers, k=2),
        )
        luck = self._random.random()
        story: list[AnyPayload] = [received(job, self.time_ms + 8_000), assigned(job, 1, first)]
        if luck < 0.05:
            return self._stamp(job, [*story, attempt_failed(job, 1, first), failed(job)])
        attempt, worker = 1, first
        if luck < 0.15:
            story += [refused(job, 1, first), assigned(job, 2, second)]
            attempt, worker = 2, second
        elif luck < 0.25:
            story.append(hedged(job, 2, second))
            attempt, worker = 2, second
        return self._stamp(job, [*story, *self._earned(job, attempt, worker)])

    def _earned(self, job: str, attempt: int, worker: str) -> list[AnyPayload]:
        pixels, price = self._random.randrange(1, 10**8), self._random.choice(PRICES)
        key = (worker, price.denominator)
        fee_wei, carry = fee(pixels, price, self._carries.get(key, 0))
        self._carries[key] = carry
        self.worth[worker] = self.worth.get(worker, Fraction(0)) + pixels * price
        kept, paid = commission(fee_wei, COMMISSION_PPM)
        text = str(Fraction(carry, price.denominator))
        return [
            verified(job, attempt, worker, pixels),
            delivered(job, attempt, worker),
            credited(
                job, worker, fee_wei, paid, price=price_text(price), carry=text, pixels=pixels
            ),
            taken(job, worker, kept),
        ]

    def _stamp(self, job: str, story: list[AnyPayload]) -> list[Event]:
        return [
            at(f"{job}.{n}.{data.type}", data, self.time_ms + n * 100)
            for n, data in enumerate(story)
        ]
