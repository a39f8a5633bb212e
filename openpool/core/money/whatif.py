"""What everybody would have earned under another scheme, commission or rule, from the log alone.

Two folds over the same events: one adds up what was really credited, the other lives through the
same rounds under the terms that are asked about. The work and the revenue are those of the log.
Must not read the log: it is handed in, event by event.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from openpool.core.events import Event, FeeCredited
from openpool.core.money import events as money
from openpool.core.money.accounts import COMMISSION, CUSTOMER, HOLDBACK, WORKER
from openpool.core.money.events import Scheme
from openpool.core.money.rounds import TYPES as ROUND_TYPES
from openpool.core.money.rounds import Rounds
from openpool.core.money.rules import Rule
from openpool.core.money.settlement import settle
from openpool.core.units import commission

TYPES = (*ROUND_TYPES, "share-credited")
_SETTLEMENT = (money.RoundSettled, money.ShareCredited, money.AdjustmentMade, money.RuleRefused)


class Terms(Struct, frozen=True, kw_only=True):
    """What is asked about."""

    scheme: Scheme
    window_rounds: int
    commission_ppm: int | None = None
    """For all workers; None: as it was, job by job."""
    rules: Sequence[Rule] = ()
    round_ms: int = 0
    """Rounds by the clock, for a log that has none; 0: those of the log."""


class Earner(Struct, kw_only=True):
    """An address, and what it has of both."""

    address: str
    jobs: int = 0
    worth_wei: int = 0
    """Its work at expected value, before commission."""
    did_wei: int = 0
    would_wei: int = 0
    would_hold_wei: int = 0
    """Part of what it would have earned that would still be held back."""


class Outcome(Struct, frozen=True, kw_only=True):
    """The comparison."""

    earners: tuple[Earner, ...]
    """By address."""
    rounds: int
    expected_wei: int
    """All fees, of customers, too."""
    realised_wei: int
    did_commission_wei: int
    would_commission_wei: int
    accrued_wei: int
    """Really: accrued for workers and commission, and not settled yet."""
    carried_wei: int
    """Under these terms: realised, and left for the next round."""
    refused: tuple[str, ...]
    """What rules were refused for, the first of each reason."""


class WhatIf:
    """The comparison in the making."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._rounds = Rounds(scheme=terms.scheme, window_rounds=terms.window_rounds)
        self._earners: dict[str, Earner] = {}
        self._settled = 0
        self._expected_wei = self._realised_wei = self._accrued_wei = 0
        self._did_commission_wei = self._would_commission_wei = 0
        self._carried: dict[str, int] = {}
        self._refused: dict[str, None] = {}
        self._last_ms = 0

    def apply(self, event: Event) -> None:
        """Take the next event of the log."""
        data = event.data
        self._last_ms = event.time_ms
        if self._terms.round_ms:
            self._rounds.start(event.time_ms // self._terms.round_ms, event.time_ms)
            self._settle_due()
        if isinstance(data, FeeCredited):
            self._credit(data)
        elif isinstance(data, _SETTLEMENT):
            self._did(data)
        elif not (self._terms.round_ms and isinstance(data, money.RoundStarted)):
            if isinstance(data, money.RevenueRealised):
                self._realised_wei += int(data.amount_wei)
            self._rounds.apply(event)
            self._settle_due()

    def finish(self) -> Outcome:
        """End the open round, as if another one started now, and say how it came out."""
        if self._rounds.round is None:
            self._rounds.start(0, self._last_ms)
        assert self._rounds.round is not None
        self._rounds.start(self._rounds.round + 1, self._last_ms)
        self._settle_due()
        return Outcome(
            earners=tuple(self._earners[address] for address in sorted(self._earners)),
            rounds=self._settled,
            expected_wei=self._expected_wei,
            realised_wei=self._realised_wei,
            did_commission_wei=self._did_commission_wei,
            would_commission_wei=self._would_commission_wei,
            accrued_wei=self._accrued_wei,
            carried_wei=sum(self._carried.values()),
            refused=tuple(self._refused),
        )

    def _credit(self, data: FeeCredited) -> None:
        """What a fee did, and what it would have done."""
        fee_wei, worker_wei, ppm = int(data.fee_wei), int(data.worker_wei), data.commission_ppm
        earner = self._earner(data.address)
        earner.jobs += 1
        earner.worth_wei += fee_wei
        self._expected_wei += fee_wei
        if data.scheme == "per-job":
            earner.did_wei += worker_wei
            self._did_commission_wei += fee_wei - worker_wei
        else:
            self._accrued_wei += fee_wei
        if self._terms.commission_ppm is not None:
            ppm = self._terms.commission_ppm
            _, worker_wei = commission(fee_wei, ppm)
        if self._terms.scheme == "per-job" or data.orchestrator.startswith(CUSTOMER):
            earner.would_wei += worker_wei
            self._would_commission_wei += fee_wei - worker_wei
        self._rounds.credit(
            data.orchestrator,
            data.worker,
            data.address,
            fee_wei=fee_wei,
            worker_wei=worker_wei,
            commission_ppm=ppm,
            scheme=self._terms.scheme,
        )

    def _settle_due(self) -> None:
        while closings := self._rounds.due():
            self._settled += 1
            for closing in closings:
                for event in settle(closing, self._terms.rules):
                    self._would(event.data)
                    self._rounds.apply(event)

    def _did(self, data: Any) -> None:
        """The log's own settlements, which those that are made here replace."""
        match data:
            case money.ShareCredited():
                self._earner(data.address).did_wei += int(data.share_wei)
                self._did_commission_wei += int(data.commission_wei)
                self._accrued_wei -= int(data.accrued_wei) + int(data.accrued_commission_wei)
            case money.AdjustmentMade():
                for account, sign in ((data.debit, -1), (data.credit, 1)):
                    amount_wei = sign * int(data.amount_wei)
                    if account == COMMISSION:
                        self._did_commission_wei += amount_wei
                    elif account.startswith(WORKER):
                        self._earner(account.removeprefix(WORKER)).did_wei += amount_wei

    def _would(self, data: Any) -> None:
        match data:
            case money.ShareCredited():
                self._earner(data.address).would_wei += int(data.share_wei)
                self._would_commission_wei += int(data.commission_wei)
            case money.AdjustmentMade():
                for account, sign in ((data.debit, -1), (data.credit, 1)):
                    self._would_move(account, sign * int(data.amount_wei))
            case money.RoundSettled():
                self._carried[data.orchestrator] = int(data.carried_wei)
            case money.RuleRefused():
                self._refused.setdefault(f"{data.rule}: {data.reason}")

    def _would_move(self, account: str, amount_wei: int) -> None:
        if account == COMMISSION:
            self._would_commission_wei += amount_wei
        elif account.startswith(WORKER):
            self._earner(account.removeprefix(WORKER)).would_wei += amount_wei
        elif account.startswith(HOLDBACK):
            self._earner(account.removeprefix(HOLDBACK)).would_hold_wei += amount_wei

    def _earner(self, address: str) -> Earner:
        earner = self._earners.get(address)
        if earner is None:
            earner = self._earners[address] = Earner(address=address)
        return earner
