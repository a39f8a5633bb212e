"""Receipts: for every credited job or call, all that is needed to compute its pay again.

A receipt is one line of JSON, exactly these bytes; its *leaf* is a hash over them. The leaves of a
round form a Merkle tree (RFC 9162, `core.hashchain`), whose root stands in the signed statement,
so that one signature covers them all and a few hashes prove that a receipt is among them.

Must not sign, read the log or know the clock. Read next: `core.money.statements`.
"""

from fractions import Fraction
from functools import lru_cache
from hashlib import sha256

import msgspec
from msgspec import Struct

from openpool.core import units
from openpool.core.calls import Unit
from openpool.core.events import FeeCredited
from openpool.core.hashchain import root_of_path
from openpool.core.money.accounts import COMMISSION, CUSTOMER, accrued_account, worker_account
from openpool.core.money.events import Scheme

RECEIPT_KIND = "receipt"
LINE_BYTES_MAX = 20_000
"""Longest line of a file of receipts, with the path of its proof."""
UNITS_MAX = 10**18
DIGITS_MAX = 100
"""Of any amount or price: more is no honest number, and slow to compute with."""


class Receipt(Struct, frozen=True, kw_only=True):
    """What one job or call paid, and why. Whoever computes it again gets the same to the wei."""

    pool: str
    seq: int
    """Number of the fee in the pool's log."""
    round: int
    """The round it was earned in; 0 before the pool knew one."""
    time_ms: int
    job: str
    payer: str
    """The orchestrator, or `customers` for work of the pool's own API."""
    worker: str
    address: str
    units: int
    unit: Unit
    price_wei: str
    """Wei per unit, `"1200"` or `"1/3"`."""
    price_source: str
    carry_before: str
    """Fraction of a wei that the worker's fee before left over, like `"2/3"`."""
    carry: str
    """The same after this fee."""
    fee_wei: str
    commission_ppm: int
    commission_wei: str
    worker_wei: str
    scheme: Scheme
    """`per-job`: credited at once. Otherwise it is a claim on what the round realises."""
    pipeline: str = ""
    model: str = ""


class Proven(Struct, frozen=True, kw_only=True):
    """A line of a file of receipts: the receipt, and where needed the proof that it is in the
    statement. A file of all receipts needs none."""

    receipt: msgspec.Raw
    """The exact bytes of the receipt."""
    index: int
    """Its place among the receipts of the statement, from 0."""
    path: tuple[str, ...] = ()
    """Hex hashes beside the way to the root, lowest first."""


encode_receipt = msgspec.json.Encoder().encode
decode_receipt = msgspec.json.Decoder(Receipt).decode
decode_proven = msgspec.json.Decoder(Proven).decode


def public_payer(payer: str, scheme: str) -> str:
    """How a payer is called in public: customers of the pool's own API are nobody's business.

    A share of what an orchestrator realises needs its name; customers pay at once."""
    return "customers" if payer.startswith(CUSTOMER) and scheme == "per-job" else payer


def receipt_of(
    fee: FeeCredited, *, pool: str, seq: int, round: int, time_ms: int, carry_before: str
) -> Receipt:
    """The receipt of a credited fee."""
    return Receipt(
        pool=pool,
        seq=seq,
        round=round,
        time_ms=time_ms,
        job=fee.job,
        payer=public_payer(fee.orchestrator, fee.scheme),
        worker=fee.worker,
        address=fee.address,
        units=fee.pixels,
        unit=fee.unit,
        price_wei=fee.price_wei,
        price_source=fee.price_source,
        carry_before=carry_before,
        carry=fee.carry,
        fee_wei=fee.fee_wei,
        commission_ppm=fee.commission_ppm,
        commission_wei=str(int(fee.fee_wei) - int(fee.worker_wei)),
        worker_wei=fee.worker_wei,
        scheme=fee.scheme,
        pipeline=fee.pipeline,
        model=fee.model,
    )


def accounts_of(payer: str, address: str, scheme: str) -> tuple[str, str]:
    """Where the worker's part and the commission of such a fee go."""
    if scheme == "per-job":
        return worker_account(address), COMMISSION
    return accrued_account(payer, address), accrued_account(payer, COMMISSION)


# --- computing it again --------------------------------------------------------------------------


def faults_of(receipt: Receipt) -> list[str]:
    """What is wrong with its arithmetic, one sentence each; empty if it is right.

    Takes receipts from strangers: every number is bounded before it is used."""
    if not 0 <= receipt.units <= UNITS_MAX:
        return [f"units is {receipt.units}, which is no count of work."]
    if not 0 <= receipt.commission_ppm <= units.PPM:
        return [f"commission_ppm is {receipt.commission_ppm}, but must be 0 to 1000000."]
    try:
        price, before = _price(receipt.price_wei), carry_number(receipt.carry_before)
        stated = (
            _whole(receipt.fee_wei),
            _whole(receipt.commission_wei),
            _whole(receipt.worker_wei),
        )
        if before[1] != price.denominator or before[0] >= before[1]:
            return [f"carry_before {receipt.carry_before} does not fit price {receipt.price_wei}."]
    except ValueError as error:
        return [f"{error}."]
    return _differences(receipt, price, before[0], stated)


def _differences(
    receipt: Receipt, price: Fraction, before: int, stated: tuple[int, int, int]
) -> list[str]:
    fee_wei, carry = units.fee(receipt.units, price, before)
    commission_wei, worker_wei = units.commission(fee_wei, receipt.commission_ppm)
    rule = f"{receipt.units} {receipt.unit} at {receipt.price_wei} wei"
    faults = []
    if stated[0] != fee_wei:
        faults.append(f"fee_wei is {stated[0]}, but {rule} are {fee_wei}.")
    if receipt.carry != f"{carry}/{price.denominator}":
        faults.append(f"carry is {receipt.carry}, but {rule} leave {carry}/{price.denominator}.")
    if stated[1:] != (commission_wei, worker_wei):
        faults.append(
            f"commission_wei and worker_wei are {stated[1]} and {stated[2]}, but "
            f"{receipt.commission_ppm} ppm of {fee_wei} are {commission_wei}, which leaves "
            f"{worker_wei}."
        )
    return faults


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX):
        raise ValueError(f"{text[:40]!r} is not an amount in whole wei")
    return int(text)


@lru_cache(maxsize=4096)
def _price(text: str) -> Fraction:
    top, slash, bottom = text.partition("/")
    price = Fraction(_whole(top), (_whole(bottom) if slash else 1) or 1)
    if str(price) != text:
        raise ValueError(f"{text[:40]!r} is not a price in its shortest form")
    return price


def carry_number(text: str) -> tuple[int, int]:
    """Numerator and denominator of a carry; ValueError if it is none."""
    top, slash, bottom = text.partition("/")
    return _whole(top), _whole(bottom) if slash else 1


# --- the tree ------------------------------------------------------------------------------------


def leaf_of(receipt: bytes) -> bytes:
    """SHA-256 of `0x00 ‖ "openpool receipt 1" ‖ line feed ‖ the receipt's bytes`."""
    return sha256(b"\x00openpool receipt 1\n" + receipt).digest()


def plain_line(receipt: bytes, index: int) -> bytes:
    """The line of a receipt in a file that has all of them."""
    return b'{"receipt":%b,"index":%d}' % (receipt, index)


def root_proven(line: Proven, size: int) -> bytes:
    """The root that a line's proof leads to; ValueError if it is no proof."""
    path = [bytes.fromhex(each) for each in line.path]
    if any(len(each) != 32 for each in path):
        raise ValueError("a hash of the path is not 32 bytes long")
    return root_of_path(leaf_of(bytes(line.receipt)), line.index, size, path)
