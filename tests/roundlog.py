"""Writes logs of rounds for tests: work, revenue, rounds, and their settlements, with the books."""

from collections.abc import Sequence

from openpool.core import events as e
from openpool.core.events import AnyPayload, Event
from openpool.core.money import events as money
from openpool.core.money.events import Scheme
from openpool.core.money.ledger import Balances, transfers_of
from openpool.core.money.rounds import Rounds
from openpool.core.money.rules import Rule
from openpool.core.money.settlement import settle
from openpool.core.units import commission

START_MS = 1_700_000_000_000
ORCHESTRATOR = "main"


def address(letter: str) -> str:
    """A made-up payout address: `a` is 0xaaaa…"""
    return "0x" + letter * 40


class RoundLog:
    """A log in the making. Each worker `a` is paid at `address("a")`."""

    def __init__(
        self, scheme: Scheme = "per-job", window_rounds: int = 3, rules: Sequence[Rule] = ()
    ) -> None:
        self.scheme: Scheme = scheme
        self.rules = rules
        self.events: list[Event] = []
        self.rounds = Rounds(scheme=scheme, window_rounds=window_rounds)
        self.balances = Balances()
        self._jobs = 0
        self._blocks = 0

    def note(self, event_id: str, data: AnyPayload) -> None:
        event = Event(id=event_id, time_ms=START_MS + len(self.events), data=data)
        self.take(event)

    def take(self, event: Event) -> None:
        self.events.append(event)
        self.rounds.apply(event)
        for transfer in transfers_of(event):
            self.balances.post(transfer)

    def enroll(self, worker: str, group: str = "", at: str = "") -> None:
        self.note(
            f"enrolled/{worker}",
            e.WorkerEnrolled(
                worker=worker, address=address(at or worker), name=worker, group=group, terms=""
            ),
        )

    def ban(self, worker: str) -> None:
        self.note(f"banned/{worker}", e.WorkerBanned(worker=worker, reason="lied"))

    def fail(self, worker: str) -> None:
        self._jobs += 1
        self.note(
            f"failed/{self._jobs}",
            e.AttemptFailed(
                job=f"j{self._jobs}", attempt=1, worker=worker, reason="gone", blamed=True
            ),
        )

    def work(
        self,
        worker: str,
        fee_wei: int,
        ppm: int = 250_000,
        *,
        payer: str = ORCHESTRATOR,
        scheme: Scheme | None = None,
        at: str = "",
    ) -> None:
        """A delivered job: its fee and its commission."""
        self._jobs += 1
        job, scheme = f"j{self._jobs}", scheme or self.scheme
        kept, paid = commission(fee_wei, ppm)
        self.note(
            f"{job}/fee-credited",
            e.FeeCredited(
                job=job,
                orchestrator=payer,
                worker=worker,
                address=address(at or worker),
                pixels=fee_wei,
                price_wei="1",
                price_source="config",
                fee_wei=str(fee_wei),
                carry="0",
                commission_ppm=ppm,
                worker_wei=str(paid),
                scheme=scheme,
            ),
        )
        self.note(
            f"{job}/commission-taken",
            e.CommissionTaken(
                job=job,
                orchestrator=payer,
                worker=worker,
                commission_wei=str(kept),
                scheme=scheme,
            ),
        )

    def win(self, amount_wei: int, orchestrator: str = ORCHESTRATOR) -> None:
        self._blocks += 1
        self.note(
            f"chain/{orchestrator}/revenue/{self._blocks}",
            money.RevenueRealised(
                orchestrator=orchestrator,
                round=self.rounds.round or 0,
                from_block=self._blocks,
                to_block=self._blocks,
                amount_wei=str(amount_wei),
                paid_wei=str(amount_wei),
                tickets=1,
            ),
        )

    def start(self, number: int, *, settled: bool = True) -> list[Event]:
        """A new round; what settles the one before is taken into the log and returned."""
        self.note(f"round/{number}", money.RoundStarted(round=number, source="clock"))
        return self.settle() if settled else []

    def settle(self) -> list[Event]:
        made = [
            event
            for closing in self.rounds.due()
            for event in settle(closing, self.rules, self.balances.amounts)
        ]
        for event in made:
            self.take(event)
        return made

    def balance(self, account: str) -> int:
        return self.balances.amounts.get(account, 0)

    def paid(self, letter: str) -> int:
        """What stands to the credit of a worker."""
        return self.balance(f"worker:{address(letter)}")


def settled(events: Sequence[Event], orchestrator: str = ORCHESTRATOR) -> money.RoundSettled:
    """The summary among the events of a settlement."""
    (found,) = (
        event.data
        for event in events
        if isinstance(event.data, money.RoundSettled) and event.data.orchestrator == orchestrator
    )
    return found


class InProcess:
    """A rule of ours, asked in this process; what it answers goes through the same checks."""

    def __init__(self, module: object = None, name: str = "test", **options: str) -> None:
        self.module, self.name, self.options = module, name, options
        self.version, self.hash = "1", "00"
        self.options_text = ", ".join(f"{key}={value}" for key, value in options.items())

    def weights(self, round: object) -> object:
        ask = getattr(self.module, "weights", None)
        return ask(round, self.options) if ask else None

    def adjustments(self, round: object) -> object:
        ask = getattr(self.module, "adjustments", None)
        return ask(round, self.options) if ask else None
