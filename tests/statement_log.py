"""A small log of money for the tests of statements: real fees and carries, rounds, payouts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from random import Random

import msgspec
from msgspec.structs import replace

from openpool.core.enrolment import checked_address
from openpool.core.events import AnyPayload, Event, FeeCredited
from openpool.core.hashchain import inclusion_path
from openpool.core.money import events as money
from openpool.core.money.documents import digest_of, signed_bytes, signed_text
from openpool.core.money.events import OrderLine, Scheme
from openpool.core.money.fees import Due, Fees
from openpool.core.money.ledger import Balances, transfers_of
from openpool.core.money.receipts import Proven, encode_receipt, leaf_of
from openpool.core.money.schemes import Work, divide, proportional_claims
from openpool.core.money.statements import (
    KIND,
    Closing,
    Opening,
    Statement,
    encode_statement,
    make,
)
from openpool.core.step import Outbox
from openpool.ethereum import Account, encode_defunct

START_MS = 1_795_000_000_000
ANN, BOB, HOT = (checked_address("0x" + each * 20) for each in ("a1", "b2", "c3"))
PRICES = (Fraction(1200), Fraction(1, 3), Fraction(7, 9))
KEY = Account.from_key("0x" + "5a" * 32)


@dataclass
class MoneyLog:
    """Events with numbers, as a pool's log holds them."""

    seed: int = 1
    entries: list[tuple[int, Event]] = field(default_factory=list)
    fees: Fees = field(default_factory=Fees)
    jobs: int = 0
    carried_wei: int = 0
    ann: str = ANN
    ann_worker: str = "w_ann"

    def __post_init__(self) -> None:
        self.random = Random(self.seed)

    @property
    def seq(self) -> int:
        return len(self.entries)

    def add(self, name: str, data: AnyPayload) -> None:
        time_ms = START_MS + 1_000 * self.seq
        self.entries.append((self.seq + 1, Event(id=name, time_ms=time_ms, data=data)))

    def round(self, number: int) -> None:
        self.add(f"round/{number}/started", money.RoundStarted(round=number, source="clock"))

    def work(self, jobs: int, scheme: Scheme = "per-job", payer: str = "orch") -> None:
        """So many jobs, by two owners."""
        for _ in range(jobs):
            self.jobs += 1
            address = self.random.choice((self.ann, BOB))
            out = Outbox(1)
            self.fees.credit(
                Due(
                    job=f"orch.1.{self.jobs}",
                    payer=payer,
                    worker=self.ann_worker if address == self.ann else "w_bob",
                    address=address,
                    commission_ppm=250_000,
                    units=self.random.randrange(1, 10**7),
                    price_wei=self.random.choice(PRICES),
                    price_source="config",
                ),
                out,
            )
            for event in out.take().events:
                self.add(event.id, replace(event.data, scheme=scheme))  # type: ignore[type-var]

    def realised(self, round: int, amount_wei: int) -> None:
        data = money.RevenueRealised(
            orchestrator="orch",
            round=round,
            from_block=round,
            to_block=round + 1,
            amount_wei=str(amount_wei),
            paid_wei=str(amount_wei),
            tickets=1,
        )
        self.add(f"chain/orch/revenue/{round}", data)

    def settled(self, round: int, realised_wei: int, fees: list[FeeCredited]) -> None:
        """Divide a round under `proportional`."""
        pot_wei = realised_wei + self.carried_wei
        works: dict[str, Work] = {}
        for fee in fees:
            work = works.setdefault(fee.address, Work())
            work.add(int(fee.fee_wei), int(fee.worker_wei), fee.commission_ppm, fee.scheme)
        division = divide(pot_wei, *proportional_claims(works))
        for address, part in division.parts.items():
            data = money.ShareCredited(
                orchestrator="orch",
                round=round,
                address=address,
                scheme="proportional",
                accrued_wei=str(works[address].accrued_wei),
                accrued_commission_wei=str(works[address].accrued_commission_wei),
                share_wei=str(part.share_wei),
                commission_wei=str(part.commission_wei),
            )
            self.add(f"round/orch/{round}/share/{address}", data)
        shared = sum(sum(part) for part in division.parts.values())
        settled = money.RoundSettled(
            orchestrator="orch",
            round=round,
            scheme="proportional",
            rule="none",
            rule_version="",
            rule_hash="",
            start_ms=START_MS,
            end_ms=START_MS + 1,
            expected_wei=str(sum(int(fee.fee_wei) for fee in fees)),
            realised_wei=str(realised_wei),
            shared_wei=str(shared),
            carried_wei=str(division.left_wei),
        )
        self.carried_wei = division.left_wei
        self.add(f"round/orch/{round}/settled", settled)

    def paid(self, order: str, address: str, amount_wei: int) -> None:
        """A payout, planned and confirmed."""
        line = OrderLine(
            account=f"worker:{address}",
            address=address,
            amount_wei=str(amount_wei),
            send_wei=str(amount_wei),
        )
        planned = money.OrderPlanned(
            order=order,
            wallet=HOT,
            chain_id=42161,
            kind="payout",
            asset="ETH",
            to=address,
            value_wei=str(amount_wei),
            data="0x",
            lines=(line,),
        )
        self.add(f"order/{order}/planned", planned)
        confirmed = money.OrderConfirmed(
            order=order,
            wallet=HOT,
            kind="payout",
            asset="ETH",
            tx="0x" + "ab" * 32,
            block=7,
            block_hash="0x" + "cd" * 32,
            fee_wei="21000",
            lines=(line,),
        )
        self.add(f"order/{order}/confirmed", confirmed)

    def fees_since(self, seq: int) -> list[FeeCredited]:
        return [e.data for n, e in self.entries if n > seq and isinstance(e.data, FeeCredited)]

    def statement(
        self, round: int, opening: Opening | None = None, window_rounds: int = 0
    ) -> tuple[Statement, list[bytes]]:
        """Over everything since `opening`, up to now."""
        opening = opening or Opening()
        closing = Closing(
            pool="Northern Lights",
            chain_id=42161,
            round=round,
            seq=self.seq,
            chain="ee" * 32,
            time_ms=self.entries[-1][1].time_ms,
            terms="",
            window_rounds=window_rounds,
        )
        receipts: list[bytes] = []
        return make(opening, closing, self.entries[opening.seq :], receipts.append), receipts

    def balances(self) -> dict[str, int]:
        """What the ledger says."""
        balances = Balances()
        for _, event in self.entries:
            for transfer in transfers_of(event):
                balances.post(transfer)
        return balances.amounts


def proven(receipts: Sequence[bytes], wanted: Sequence[int]) -> list[bytes]:
    """Lines of a file of receipts: those at these places, each with its proof."""
    leaves = [leaf_of(receipt) for receipt in receipts]
    return [
        encode_receipt(
            Proven(
                receipt=msgspec.Raw(receipts[place]),
                index=place,
                path=tuple(each.hex() for each in inclusion_path(leaves, place)),
            )
        )
        for place in wanted
    ]


def signed(statement: Statement) -> bytes:
    """The file of a statement, signed by the pool of the tests."""
    document = encode_statement(statement)
    text = signed_text(KIND, digest_of(document))
    signature = KEY.sign_message(encode_defunct(text=text)).signature
    return signed_bytes(document, KEY.address, "0x" + bytes(signature).hex())
