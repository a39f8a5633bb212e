"""What the rest of the pool may ask of a chain. `chain.client` is the real one.

Amounts are `int` wei or LPT base units, addresses are checksummed text, hashes and data of
transactions `0x…` text, call data and results `bytes`. Blocks are those of the chain that wallets
use (L2 numbers on Arbitrum), rounds those of the protocol. Every wait is bounded; what cannot be
known now raises `ChainUnavailable`, and is never guessed.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from openpool.core.errors import OpenPoolError, Unavailable

Tag = Literal["latest", "safe", "finalized"]
At = int | Tag
"""A block number, or a name for one."""
SendFault = Literal["known", "nonce-too-low", "underpriced", "insufficient-funds", "refused"]


class ChainUnavailable(Unavailable):
    """No endpoint of the chain gave an answer that can be trusted; try again later."""

    code = "chain-unavailable"


class Disagreement(ChainUnavailable):
    """Endpoints of the chain contradict each other; nothing is done until they agree."""

    code = "chain-disagreement"


class WrongChain(OpenPoolError):
    """An endpoint serves another chain than the settings say; correct chain.id or the endpoint."""

    code = "wrong-chain"


class Reverted(OpenPoolError):
    """The contract refused; the text is its reason."""

    code = "reverted"


class SendRefused(OpenPoolError):
    """An endpoint did not take a transaction. That is information, not the outcome: it may be
    mined all the same."""

    code = "send-refused"

    def __init__(self, fault: SendFault, text: str) -> None:
        super().__init__(text)
        self.fault = fault


class Block(Struct, frozen=True, kw_only=True):
    number: int
    hash: str
    time_s: int


class Log(Struct, frozen=True, kw_only=True):
    """One event of a contract."""

    address: str
    topics: tuple[bytes, ...]
    data: bytes
    block: int
    block_hash: str
    tx: str
    index: int


class Receipt(Struct, frozen=True, kw_only=True):
    """What became of a transaction."""

    tx: str
    block: int
    block_hash: str
    ok: bool
    fee_wei: int
    """Gas used times its price, all of it (on Arbitrum with the part for L1)."""
    gas_used: int
    logs: tuple[Log, ...] = ()


class Used(Struct, frozen=True, kw_only=True):
    """The transaction with which a wallet used a nonce, its signature checked."""

    tx: str
    to: str
    """Empty: it made a contract."""
    value_wei: int
    data: str


class GasPrice(Struct, frozen=True, kw_only=True):
    """What gas costs now."""

    base_fee_wei: int
    priority_fee_wei: int


class Call(Struct, frozen=True, kw_only=True):
    """A call, or a transaction that nobody has signed yet."""

    to: str
    data: bytes = b""
    value_wei: int = 0


class Transaction(Struct, frozen=True, kw_only=True):
    """An EIP-1559 transaction, complete but for its signature."""

    chain_id: int
    nonce: int
    to: str
    value_wei: int
    data: bytes
    gas_limit: int
    max_fee_wei: int
    """Per unit of gas, as is the next."""
    priority_fee_wei: int


class Signed(Struct, frozen=True, kw_only=True):
    """A transaction that can be sent, and the hash under which it will be found."""

    tx: str
    raw: bytes


class Signer(Protocol):
    """Somebody who holds the key of one address: a keystore here, or a service elsewhere."""

    @property
    def address(self) -> str: ...
    async def sign(self, transaction: Transaction) -> Signed:
        """Raises Unavailable if the signer does not answer, NotAllowed if it refuses. The caller
        checks what came back (`chain.signers.checked`)."""

    async def sign_text(self, text: str) -> str:
        """The signature of a text (EIP-191), `0x…`, 65 bytes."""


class Chain(Protocol):
    """One chain behind one or more endpoints.

    What decides money (`nonce`, `receipt`, `balance`, `logs`, `block("finalized")`) is asked of
    several endpoints where there are several, and must agree or be safely resolved (the lower of
    two finalized blocks, the higher of two nonces …); else Disagreement.
    """

    @property
    def chain_id(self) -> int: ...
    async def block(self, at: At = "latest") -> Block: ...
    async def call(self, call: Call, *, at: At = "latest", sender: str = "") -> bytes:
        """Raises Reverted with the contract's reason."""

    async def calls(self, calls: Sequence[Call], *, at: At = "latest") -> list[bytes | Reverted]:
        """Many reads in few requests, all at one block."""

    async def logs(
        self,
        *,
        addresses: Sequence[str],
        topics: Sequence[Sequence[bytes] | None],
        from_block: int,
        to_block: int,
    ) -> list[Log]:
        """In order; long ranges are split as the endpoint wants it."""

    async def balance(self, address: str, *, at: At = "latest") -> int: ...
    async def code(self, address: str, *, at: At = "latest") -> bytes:
        """Empty for a plain account. An account with delegated code (EIP-7702) has `0xef0100…`."""

    async def nonce(self, address: str, *, at: At | Literal["pending"] = "latest") -> int:
        """How many transactions of this address are mined (or `pending`: known)."""

    async def receipt(self, tx: str) -> Receipt | None:
        """None if it is in no block that the endpoints know and agree on."""

    async def used_by(self, wallet: str, nonce: int, *, final_block: int) -> Used | None:
        """The transaction in a block up to this one that used the nonce. It proves itself by its
        signature, so one endpoint is enough. None if no endpoint shows one (it may have no old
        state); the block must be one that the endpoints agree on."""

    async def estimate_gas(self, call: Call, *, sender: str) -> int:
        """Raises Reverted."""

    async def gas_price(self) -> GasPrice: ...
    async def send(self, raw: bytes) -> str:
        """Give a signed transaction to the endpoints; its hash. Raises SendRefused if none took
        it, ChainUnavailable if none answered."""


# --- the protocol's contracts --------------------------------------------------------------------


class Round(Struct, frozen=True, kw_only=True):
    number: int
    initialized: bool
    locked: bool
    length: int
    """In L1 blocks, as are the next two."""
    start_block: int
    block: int = 0
    """The newest one that the RoundsManager knows; with `start_block` it tells how far it is."""


class OrchestratorState(Struct, frozen=True, kw_only=True):
    """`getTranscoder`, and whether it is active."""

    address: str
    active: bool
    registered: bool
    last_reward_round: int
    reward_cut_ppm: int
    fee_share_ppm: int
    """Both as they will be locked in next; `PoolState` has those of a round."""
    last_active_stake_update_round: int
    activation_round: int
    deactivation_round: int
    active_cumulative_rewards: int
    cumulative_rewards: int
    cumulative_fees: int
    last_fee_round: int
    total_stake_lpt: int
    """Tomorrow's; today's is in `PoolState`."""
    reward_caller: str = ""


class PoolState(Struct, frozen=True, kw_only=True):
    """`getTranscoderEarningsPoolForRound`: zero where nothing happened."""

    total_stake_lpt: int
    reward_cut_ppm: int
    fee_share_ppm: int
    cumulative_reward_factor: int
    cumulative_fee_factor: int


class DelegatorState(Struct, frozen=True, kw_only=True):
    """`getDelegator`, status, and what is pending."""

    address: str
    status: Literal["pending", "bonded", "unbonded"]
    bonded_lpt: int
    fees_wei: int
    delegate: str
    """Empty if it has none."""
    delegated_lpt: int
    start_round: int
    last_claim_round: int
    next_lock: int
    pending_stake_lpt: int
    pending_fees_wei: int


class Lock(Struct, frozen=True, kw_only=True):
    """LPT on its way out."""

    lock: int
    amount_lpt: int
    withdraw_round: int


class Parameters(Struct, frozen=True, kw_only=True):
    """What governance may change any day; read live, never assumed."""

    unbonding_rounds: int
    pool_size_max: int
    treasury_cut: int
    """Of the current round, in 1/10**27."""
    inflation: int
    """In 1/10**9, as are the next two."""
    inflation_change: int
    target_bonding_rate: int
    mintable_lpt: int
    minted_lpt: int
    total_active_stake_lpt: int
    total_supply_lpt: int
    """As the Minter counts it, with L1's."""


class RedeemedTicket(Struct, frozen=True, kw_only=True):
    gateway: str
    face_value_wei: int
    win_prob: int
    paid_wei: int
    block: int
    tx: str
    index: int


class RewardLog(Struct, frozen=True, kw_only=True):
    amount_lpt: int
    treasury_lpt: int
    block: int
    tx: str


class WithdrawalLog(Struct, frozen=True, kw_only=True):
    recipient: str
    amount_wei: int
    block: int
    tx: str


class Livepeer(Protocol):
    """The protocol's contracts, found through the Controller. `chain.livepeer` is the real one."""

    @property
    def addresses(self) -> Mapping[str, str]:
        """Contract name → address; a name that the Controller does not know is missing."""

    async def round(self, *, at: At = "latest") -> Round: ...
    async def orchestrator(self, address: str, *, at: At = "latest") -> OrchestratorState: ...
    async def pool(self, address: str, round: int, *, at: At = "latest") -> PoolState: ...
    async def delegator(self, address: str, *, at: At = "latest") -> DelegatorState: ...
    async def locks(self, address: str) -> list[Lock]:
        """Those that are not used up."""

    async def pending_fees(self, address: str, *, at: At = "latest") -> int: ...
    async def pending_stake(self, address: str, *, at: At = "latest") -> int: ...
    async def active_set(self) -> list[tuple[str, int]]:
        """Address and stake of the next round's set, the largest first."""

    async def parameters(self, *, at: At = "latest") -> Parameters: ...
    async def lpt_balance(self, address: str, *, at: At = "latest") -> int: ...
    async def tickets(
        self, recipient: str, from_block: int, to_block: int
    ) -> list[RedeemedTicket]: ...
    async def rewards(self, address: str, from_block: int, to_block: int) -> list[RewardLog]: ...
    async def withdrawals(
        self, address: str, from_block: int, to_block: int
    ) -> list[WithdrawalLog]: ...
