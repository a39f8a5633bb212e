"""The calls of the story in `web.storybook`: models, customers, fees with exact carries.

`CallStory` makes events, `StoryDesk` the live side. For looking at pages, never for a pool.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction

from msgspec import Struct

from openpool.core import events as e
from openpool.core.calls import App, CallSource, Offer, Unit
from openpool.core.desk_views import (
    AppView,
    CallView,
    DeskView,
    RunnerView,
    ServerView,
    StandView,
)
from openpool.core.events import Event
from openpool.core.explain import Reason
from openpool.core.prices import Quote, Rate
from openpool.core.units import commission, fee, price_text
from openpool.web.storybook import CAST, COMMISSION_PPM, ORCHESTRATORS, Character, Telling

WEI_PER_USD = 320_512_820_512_820
CHECKPOINT_MS = 10_000
CUSTOMERS = ("c_aaaaaaaaaaaa", "c_bbbbbbbbbbbb")


class Service(Struct, frozen=True, kw_only=True):
    """A model of the story."""

    app: App
    unit: Unit
    usd: Fraction
    per: int
    units: tuple[int, int]
    took_ms: int
    share: int
    servers: tuple[int, ...]
    """Which of the cast serve it."""
    gpu_mb: int = 0
    streams: bool = False
    session: bool = False

    @property
    def price_wei(self) -> Fraction:
        return self.usd * WEI_PER_USD / self.per

    @property
    def usd_text(self) -> str:
        return f"{price_text(self.usd)} per {self.per}"


SERVICES = (
    Service(app=App("llm", "meta-llama/Llama-3.1-8B-Instruct"), unit="token", usd=Fraction(1, 5),
            per=1_000_000, units=(80, 900), took_ms=2_900, share=10, servers=(0, 1),
            gpu_mb=16_384, streams=True),
    Service(app=App("embeddings", "all-MiniLM-L6-v2"), unit="token", usd=Fraction(1, 50),
            per=1_000_000, units=(20, 400), took_ms=24, share=14, servers=(0, 2, 3)),
    Service(app=App("image-to-text", "rapidocr"), unit="pixel", usd=Fraction(3, 2),
            per=1_000_000_000, units=(900_000, 4_000_000), took_ms=640, share=4, servers=(3, 4)),
    Service(app=App("moderation", "profanity"), unit="character", usd=Fraction(1, 10),
            per=1_000_000, units=(40, 2_000), took_ms=6, share=5, servers=(3,)),
    Service(app=App("object-detection", "dfine-nano"), unit="pixel", usd=Fraction(1),
            per=1_000_000_000, units=(900_000, 2_100_000), took_ms=85, share=6, servers=(2, 4)),
    Service(app=App("speech-to-text", "whisper-large-v3-turbo"), unit="ms", usd=Fraction(1, 250),
            per=60_000, units=(4_000, 90_000), took_ms=3_100, share=5, servers=(0, 1),
            gpu_mb=6_144),
    Service(app=App("text-to-speech", "kokoro-82m"), unit="character", usd=Fraction(4, 5),
            per=1_000_000, units=(30, 900), took_ms=700, share=4, servers=(1,), gpu_mb=2_048),
    Service(app=App("live-video-analysis", "dfine-nano"), unit="second", usd=Fraction(1, 4),
            per=3_600, units=(20, 300), took_ms=40_000, share=1, servers=(2,), streams=True,
            session=True),
)  # fmt: skip


class CallStory(Telling):
    """Events of calls from `start_ms` to `end_ms`, about `per_minute` a minute."""

    def __init__(
        self, *, start_ms: int, end_ms: int, per_minute: float = 8, seed: int = 11
    ) -> None:
        super().__init__(start_ms, end_ms, per_minute, seed)
        self._carry: dict[tuple[str, int], int] = {}

    def _opening(self) -> Iterator[Event]:
        for number in sorted({n for service in SERVICES for n in service.servers}):
            line = e.LineOpened(worker=CAST[number].id, line=f"1-{number}")
            yield self._at(self._start_ms + 4_000 + number, line)

    def _work(self) -> Iterator[Event]:
        for t in self._arrivals(self._start_ms + 9_000, low=0.2, phase=0.35):
            yield from self.call(t)

    def call(self, t: int) -> Iterator[Event]:
        """One call that comes at time `t`."""
        dice = self._random
        service = dice.choices(SERVICES, [each.share for each in SERVICES])[0]
        self._serial += 1
        call = f"call.1-{self._serial}"
        direct = dice.random() < 0.6
        asked = _asked(call, t, service, direct, dice.choice(CUSTOMERS))
        yield self._at(t, asked)
        luck = dice.random()
        if luck < 0.01:
            yield self._at(t + 1, _refused(asked))
            return
        attempt, who = 1, CAST[dice.choice(service.servers)]
        took = max(2, round(service.took_ms * dice.lognormvariate(0, 0.35)))
        yield self._at(t + 1, _given(call, attempt, who, service, "chosen"))
        if luck < 0.05:
            reason = "it answered with status 500"
            failed = e.CallAttemptFailed(
                job=call, attempt=attempt, worker=who.id, reason=reason, blamed=True
            )
            yield self._at(t + 40, failed)
            attempt, t = 2, t + 40
            who = CAST[dice.choice(service.servers)]
            yield self._at(t + 1, _given(call, attempt, who, service, "retry"))
        units = dice.randint(*service.units)
        checked = luck < 0.99
        if service.session:
            for saved_ms in range(CHECKPOINT_MS, took, CHECKPOINT_MS):
                saved = _saved(asked, who, attempt, units * saved_ms // took)
                yield self._at(t + saved_ms, saved)
        yield self._at(t + took, _completed(asked, who, attempt, units, took, checked))
        if checked:
            yield from self._pay(t + took, asked, who, service, units)

    def _pay(
        self, t: int, asked: e.CallReceived, who: Character, service: Service, units: int
    ) -> Iterator[Event]:
        price = service.price_wei
        key = (who.id, price.denominator)
        fee_wei, carry = fee(units, price, self._carry.get(key, 0))
        self._carry[key] = carry
        kept, paid = commission(fee_wei, COMMISSION_PPM)
        payer = f"customer:{asked.customer}" if asked.customer else asked.orchestrator
        credited = e.FeeCredited(
            job=asked.job,
            orchestrator=payer,
            worker=who.id,
            address=who.address,
            pixels=units,
            price_wei=price_text(price),
            price_source="config",
            fee_wei=str(fee_wei),
            carry=price_text(Fraction(carry, price.denominator)),
            commission_ppm=COMMISSION_PPM,
            worker_wei=str(paid),
            unit=service.unit,
            pipeline=service.app.pipeline,
            model=service.app.model,
        )
        yield self._at(t, credited)
        yield self._at(
            t,
            e.CommissionTaken(
                job=asked.job, orchestrator=payer, worker=who.id, commission_wei=str(kept)
            ),
        )


def _asked(call: str, t: int, service: Service, direct: bool, customer: str) -> e.CallReceived:
    return e.CallReceived(
        job=call,
        source="direct" if direct else "live-runner",
        customer=customer if direct else "",
        orchestrator="" if direct else ORCHESTRATORS[0],
        pipeline=service.app.pipeline,
        model=service.app.model,
        session="live-1" if service.session else "",
        streaming=service.streams,
        deadline_ms=0 if service.session else t + 60_000,
        unit=service.unit,
        price_wei=price_text(service.price_wei),
        price_source="config",
        usd=service.usd_text,
        wei_per_usd=str(WEI_PER_USD),
        rate_ms=t - 600_000,
        rate_source="config",
        tickets=0 if direct else 3,
        tickets_wei="" if direct else "4200000000000",
    )


def _refused(asked: e.CallReceived) -> e.CallFailed:
    return e.CallFailed(
        job=asked.job,
        source=asked.source,
        customer=asked.customer,
        orchestrator=asked.orchestrator,
        pipeline=asked.pipeline,
        model=asked.model,
        code="insufficient-capacity",
        reason=f"no worker has a place free for {asked.pipeline}/{asked.model}",
        started=False,
        attempts=0,
        took_ms=1,
    )


def _given(
    call: str, attempt: int, who: Character, service: Service, reason: str
) -> e.CallAssigned:
    return e.CallAssigned(
        job=call,
        attempt=attempt,
        worker=who.id,
        predicted_ms=service.took_ms,
        warm=attempt == 1,
        reason=reason,
    )


def _saved(asked: e.CallReceived, who: Character, attempt: int, units: int) -> e.CallCheckpointed:
    return e.CallCheckpointed(
        call=asked.job,
        attempt=attempt,
        worker=who.id,
        address=who.address,
        commission_ppm=COMMISSION_PPM,
        unit=asked.unit,
        units=units,
        note="counted by the pool",
        first_byte_ms=900,
    )


def _completed(
    asked: e.CallReceived, who: Character, attempt: int, units: int, took: int, checked: bool
) -> e.CallCompleted:
    return e.CallCompleted(
        job=asked.job,
        source=asked.source,
        customer=asked.customer,
        orchestrator=asked.orchestrator,
        worker=who.id,
        attempt=attempt,
        pipeline=asked.pipeline,
        model=asked.model,
        unit=asked.unit,
        units=units if checked else 0,
        checked=checked,
        blamed=not checked,
        note="counted by the pool" if checked else "the answer has no `choices`",
        took_ms=took,
        first_byte_ms=max(1, took // 6) if asked.streaming else took,
    )


NO_LIVE_RUNNER = (
    "the orchestrator takes no live runners; start it with -useLiveRunners and -orchSecret"
)


class StoryDesk:
    """The live side: implements `web.interface.LiveDesk`, and says what is offered and paid."""

    def snapshot(self, now_ms: int) -> DeskView:
        return DeskView(
            now_ms=now_ms,
            apps=tuple(map(_app, sorted(SERVICES, key=lambda each: each.app))),
            workers=tuple(_server(n) for n in range(5)),
            calls=tuple(_under_way(n, now_ms) for n in range(3)),
            sessions=1,
        )

    def explain(self, worker: str, now_ms: int) -> list[Reason]:
        if worker == CAST[1].id:
            text = "It is full: it takes 1 call for text-to-speech/kokoro-82m at once. Raise its"
            return [Reason(code="full", text=f"{text} capacity if it can do more.")]
        text = "It got 214 calls since the pool was started. Among workers that are about as quick,"
        return [Reason(code="share", text=f"{text} calls go by turns, by their places.")]

    def price(self, app: App, _: CallSource) -> Quote | None:
        service = next((each for each in SERVICES if each.app == app), None)
        if service is None:
            return None
        return Quote(
            unit=service.unit,
            price_wei=service.price_wei,
            source="config",
            usd=service.usd_text,
            rate=Rate(wei_per_usd=WEI_PER_USD, time_ms=0, source="config"),
        )

    def runners(self) -> list[RunnerView]:
        """What the orchestrators sell: one of them was started without Live Runner."""
        return [
            RunnerView(
                orchestrator=name,
                pipeline=each.app.pipeline,
                model=each.app.model,
                session=each.session,
                registered=not problem,
                capacity=4,
                sessions=int(each.session and not problem),
                problem=problem,
            )
            for each in SERVICES
            for name, problem in zip(ORCHESTRATORS, ("", NO_LIVE_RUNNER), strict=True)
        ]

    def apps(self) -> dict[App, Sequence[Offer]]:
        return {
            each.app: [Offer(app=each.app, capacity=2, warm=True, session=each.session)]
            for each in SERVICES
        }


def _stands(service: Service) -> Iterator[StandView]:
    full = service.app.pipeline == "text-to-speech"
    for place, number in enumerate(service.servers):
        busy = 1 if full else min(2, (number + service.share) % 3)
        yield StandView(
            worker=CAST[number].id,
            line=f"1-{number}",
            capacity=1 if full else 4,
            taken=busy,
            calls=busy,
            warm=place == 0 or service.gpu_mb == 0,
            cooling=False,
            vram_mb=service.gpu_mb,
            gpu=CAST[number].name.split("-")[-1].upper() if service.gpu_mb else "",
            usual_ms=service.took_ms + 40 * place,
            first_byte_ms=service.took_ms // 6 if service.streams else service.took_ms,
        )


def _app(service: Service) -> AppView:
    stands = tuple(_stands(service))
    return AppView(
        pipeline=service.app.pipeline,
        model=service.app.model,
        stands=stands,
        workers=len(stands),
        warm=sum(stand.warm for stand in stands),
        capacity=sum(stand.capacity for stand in stands),
        taken=sum(stand.taken for stand in stands),
        waiting=3 if service.app.pipeline == "text-to-speech" else 0,
        usual_ms=service.took_ms,
        first_byte_ms=service.took_ms // 6 if service.streams else service.took_ms,
        completed=200,
        failed=3,
        refused=2,
    )


def _server(number: int) -> ServerView:
    return ServerView(
        worker=CAST[number].id,
        state="ready",
        lines=1,
        apps=tuple(str(each.app) for each in SERVICES if number in each.servers),
        calls=1,
        cooling_until_ms=0,
        assigned=214,
        completed=210,
        failed=4,
        last_assigned_ms=0,
        last_reason="",
    )


def _under_way(number: int, now_ms: int) -> CallView:
    service = SERVICES[(0, 5, 7)[number]]
    began_ms = now_ms - (900, 2_200, 41_000)[number]
    return CallView(
        call=f"call.1-{9_000 + number}",
        source="direct",
        customer=CUSTOMERS[number % 2],
        orchestrator="",
        pipeline=service.app.pipeline,
        model=service.app.model,
        session="live-1" if service.session else "",
        streaming=service.streams,
        state="started" if service.streams else "running",
        worker=CAST[service.servers[0]].id,
        attempts=1,
        received_ms=began_ms,
        deadline_ms=0 if service.session else began_ms + 60_000,
    )
