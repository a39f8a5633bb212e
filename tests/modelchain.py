"""A chain in memory that behaves as badly as chains and endpoints do: it forgets transactions,
undoes blocks, mines a replaced transaction, lies about nonces, loses answers. For tests of the
payer without a real EVM. Implements `chain.interface.Chain`, as far as payouts need it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from openpool.chain.interface import (
    At,
    Block,
    Call,
    ChainUnavailable,
    GasPrice,
    Log,
    Receipt,
    Reverted,
    SendRefused,
    Signed,
    Transaction,
    Used,
)
from openpool.ethereum import Account, LocalAccount

GAS = 21_000
BASE_FEE = 10**9
CHAIN_ID = 31_337


class ModelSigner:
    """A real key, and the meaning of the bytes that it signed."""

    def __init__(self, account: LocalAccount | None = None) -> None:
        self._account = account or Account.from_key((1).to_bytes(32, "big"))
        self.meant: dict[bytes, Transaction] = {}

    @property
    def address(self) -> str:
        return str(self._account.address)

    async def sign(self, transaction: Transaction) -> Signed:
        done = self._account.sign_transaction(
            {
                "type": 2,
                "chainId": transaction.chain_id,
                "nonce": transaction.nonce,
                "to": transaction.to,
                "value": transaction.value_wei,
                "data": transaction.data,
                "gas": transaction.gas_limit,
                "maxFeePerGas": transaction.max_fee_wei,
                "maxPriorityFeePerGas": transaction.priority_fee_wei,
            }
        )
        raw = bytes(done.raw_transaction)
        self.meant[raw] = transaction
        return Signed(tx="0x" + bytes(done.hash).hex(), raw=raw)

    async def sign_text(self, text: str) -> str:
        raise NotImplementedError


@dataclass
class Mined:
    """A transaction in a block."""

    tx: str
    raw: bytes
    ok: bool
    price_wei: int


@dataclass
class ModelChain:
    """One wallet's view of a chain; block 0 is always there, and so are the final ones."""

    signer: ModelSigner
    funds_wei: int = 10**20
    blocks: list[list[Mined]] = field(default_factory=lambda: [[]])
    final: int = 0
    mempool: dict[str, bytes] = field(default_factory=dict)
    refusing: set[str] = field(default_factory=set)
    """Recipients whose payments fail once they are mined."""
    base_fee_wei: int = BASE_FEE
    forks: int = 0
    nonce_lie: int = 0
    """Added to the counts of transactions that are asked for."""
    blind: bool = False
    """No receipt is found."""
    lost_answers: int = 0
    """So many of the next transactions arrive, but the answer does not."""
    down: bool = False

    chain_id: int = CHAIN_ID

    # --- what a test does to it ------------------------------------------------------------------

    def mine(self, most: int = 100) -> None:
        """One block with what fits, by nonce, the best offer first."""
        block: list[Mined] = []
        for _ in range(most):
            fitting = [
                (tx, raw)
                for tx, raw in self.mempool.items()
                if self.meant(raw).nonce == self.true_nonce() + len(block)
                and self.meant(raw).max_fee_wei >= self.base_fee_wei
            ]
            if not fitting:
                break
            tx, raw = max(fitting, key=lambda each: self.meant(each[1]).max_fee_wei)
            sent = self.meant(raw)
            for other in [t for t, r in self.mempool.items() if self.meant(r).nonce == sent.nonce]:
                del self.mempool[other]
            block.append(Mined(tx, raw, sent.to not in self.refusing, self.base_fee_wei))
        self.blocks.append(block)

    def use_nonce_elsewhere(self) -> None:
        """Somebody else sends a transaction with the same key, and it is mined."""
        foreign = f"foreign {self.forks} {len(self.blocks)} {self.true_nonce()}".encode()
        self.signer.meant[foreign] = Transaction(
            chain_id=CHAIN_ID,
            nonce=self.true_nonce(),
            to=self.signer.address,
            value_wei=0,
            data=b"",
            gas_limit=GAS,
            max_fee_wei=self.base_fee_wei,
            priority_fee_wei=0,
        )
        self.blocks.append([Mined(f"0x{foreign.hex()}", foreign, True, self.base_fee_wei)])
        self._forget_used()

    def reorganise(self, depth: int, *, keep: bool) -> None:
        """Undo blocks that are not final; their transactions wait again, or are forgotten."""
        self.forks += 1
        for _ in range(min(depth, len(self.blocks) - 1 - self.final)):
            for mined in self.blocks.pop():
                if keep and not mined.raw.startswith(b"foreign"):
                    self.mempool[mined.tx] = mined.raw

    def finalise(self, depth: int = 0) -> None:
        self.final = max(self.final, len(self.blocks) - 1 - depth)

    def meant(self, raw: bytes) -> Transaction:
        return self.signer.meant[raw]

    def true_nonce(self, upto: int | None = None) -> int:
        return sum(len(block) for block in self.blocks[: None if upto is None else upto + 1])

    def paid(self) -> dict[str, list[int]]:
        """What every address really got."""
        got: dict[str, list[int]] = {}
        for mined in (m for block in self.blocks for m in block if m.ok):
            sent = self.meant(mined.raw)
            got.setdefault(sent.to, []).append(sent.value_wei)
        return got

    # --- the interface ---------------------------------------------------------------------------

    async def block(self, at: At = "latest") -> Block:
        self._answer()
        number = (
            len(self.blocks) - 1 if at == "latest" else self.final if isinstance(at, str) else at
        )
        return Block(number=number, hash=self._hash(number), time_s=number)

    async def nonce(self, address: str, *, at: object = "latest") -> int:
        self._answer()
        true = self.true_nonce(at if isinstance(at, int) else None)
        return max(true + self.nonce_lie, 0)

    async def balance(self, address: str, *, at: At = "latest") -> int:
        self._answer()
        spent = sum(
            GAS * m.price_wei + (self.meant(m.raw).value_wei if m.ok else 0)
            for block in self.blocks
            for m in block
        )
        return self.funds_wei - spent

    async def code(self, address: str, *, at: At = "latest") -> bytes:
        return b""

    async def receipt(self, tx: str) -> Receipt | None:
        self._answer()
        for number, block in enumerate(self.blocks):
            for mined in block:
                if mined.tx == tx and not self.blind:
                    return Receipt(
                        tx=tx,
                        block=number,
                        block_hash=self._hash(number),
                        ok=mined.ok,
                        fee_wei=GAS * mined.price_wei,
                        gas_used=GAS,
                    )
        return None

    async def used_by(self, wallet: str, nonce: int, *, final_block: int) -> Used | None:
        self._answer()
        if self.blind:
            return None
        for mined in (m for block in self.blocks[: final_block + 1] for m in block):
            sent = self.meant(mined.raw)
            if sent.nonce == nonce:
                data = f"0x{sent.data.hex()}"
                return Used(tx=mined.tx, to=sent.to, value_wei=sent.value_wei, data=data)
        return None

    async def estimate_gas(self, call: Call, *, sender: str) -> int:
        self._answer()
        return GAS

    async def gas_price(self) -> GasPrice:
        self._answer()
        return GasPrice(base_fee_wei=self.base_fee_wei, priority_fee_wei=0)

    async def send(self, raw: bytes) -> str:
        self._answer()
        sent, tx = self.meant(raw), tx_of(raw)
        if sent.nonce < self.true_nonce():
            raise SendRefused("nonce-too-low", "nonce too low")
        if tx in self.mempool:
            raise SendRefused("known", "already known")
        self._check_offer(sent)
        self.mempool[tx] = raw
        if self.lost_answers:
            self.lost_answers -= 1
            raise ChainUnavailable("The answer was lost.")
        return tx

    def _check_offer(self, sent: Transaction) -> None:
        rivals = [r for r in self.mempool.values() if self.meant(r).nonce == sent.nonce]
        for each in rivals:
            if sent.max_fee_wei * 10 < self.meant(each).max_fee_wei * 11:
                raise SendRefused("underpriced", "replacement transaction underpriced")

    async def call(self, call: Call, *, at: At = "latest", sender: str = "") -> bytes:
        raise NotImplementedError

    async def calls(self, calls: Sequence[Call], *, at: At = "latest") -> list[bytes | Reverted]:
        raise NotImplementedError

    async def logs(
        self,
        *,
        addresses: Sequence[str],
        topics: Sequence[Sequence[bytes] | None],
        from_block: int,
        to_block: int,
    ) -> list[Log]:
        raise NotImplementedError

    def _answer(self) -> None:
        if self.down:
            raise ChainUnavailable("No endpoint of the chain answers.")

    def _hash(self, number: int) -> str:
        return (
            f"0x{number}-{[m.tx for m in self.blocks[number]]}-{number > self.final and self.forks}"
        )

    def _forget_used(self) -> None:
        used = self.true_nonce()
        self.mempool = {t: r for t, r in self.mempool.items() if self.meant(r).nonce >= used}


def tx_of(raw: bytes) -> str:
    """The hash of signed bytes."""
    from eth_utils.crypto import keccak

    return f"0x{keccak(raw).hex()}"
