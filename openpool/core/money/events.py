"""The events of money: what the chain brought, who gets which part of it, what was sent.

Part of the catalogue in `core.events`. Amounts are decimal strings in wei, or in LPT base units
where the name ends in `_lpt` or the asset is LPT. What each event moves is said in
`core.money.ledger`; here stands what each one means.

A payout is one kind of *order*: something that a wallet of ours shall do on chain. Every order
goes the same way, and each step is on disk before the next is done:

    order-planned ──► order-signed ──► order-sent ──► order-mined ──► order-confirmed
                          │  ▲ a replacement: same nonce, higher fee      │
                          └──┴────────────► order-voided ◄────────────────┘
"""

from typing import Literal

from msgspec import Struct

from openpool.core.payload import Payload

Asset = Literal["ETH", "LPT"]
Scheme = Literal["per-job", "proportional", "window"]
OrderKind = Literal[
    "payout", "batch-payout", "stake-payout", "swap", "withdraw-fees", "reward", "approve"
]
"""`stake-payout` hands over staked LPT (transferBond). The last three move nothing in the books
by themselves: what they bring is seen on chain (`fees-withdrawn`, `reward-called`)."""


# --- what the chain, or the clock, says ----------------------------------------------------------


class RoundStarted(Payload, frozen=True, kw_only=True, tag="round-started"):
    """A round of the protocol, or of the pool's own clock where there is no chain."""

    round: int
    source: Literal["chain", "clock"]
    block: int = 0
    """The first block in which it was seen (of the chain that wallets use)."""


class OrchestratorObserved(Payload, frozen=True, kw_only=True, tag="orchestrator-observed"):
    """How an orchestrator stands on chain, once a round and when it changes."""

    orchestrator: str
    address: str
    round: int
    active: bool
    reward_cut_ppm: int
    """What the orchestrator keeps of rewards."""
    fee_share_ppm: int
    """What delegators get of fees."""
    stake_lpt: str
    """All stake that counts in this round."""
    own_stake_lpt: str
    """Pending stake of the orchestrator itself."""
    pending_fees_wei: str
    last_reward_round: int
    rank: int = 0
    """1 is the largest of the next round's set; 0 is outside."""


class RewardCalled(Payload, frozen=True, kw_only=True, tag="reward-called"):
    """Inflation reward of one round. `amount_lpt` is after the treasury's cut."""

    orchestrator: str
    round: int
    amount_lpt: str
    own_lpt: str
    """The part that became the orchestrator's own stake."""
    treasury_lpt: str
    tx: str


class RewardMissed(Payload, frozen=True, kw_only=True, tag="reward-missed"):
    """A round ended without its reward; that share of the inflation is never minted."""

    orchestrator: str
    round: int


class TicketRedeemed(Payload, frozen=True, kw_only=True, tag="ticket-redeemed"):
    """A winning ticket on chain. What it brings the pool is in `revenue-realised`."""

    orchestrator: str
    round: int
    gateway: str
    face_value_wei: str
    paid_wei: str
    """What the chain moved, which may be less than the face value, or nothing."""
    win_prob: str
    """The ticket's chance as the chain has it, in 1/(2**256 - 1)."""
    tx: str
    log_index: int


class ClaimOpened(Payload, frozen=True, kw_only=True, tag="claim-opened"):
    """The pool begins to follow an orchestrator on chain. What it could claim by then came from
    before and is the operator's; revenue is what comes after this block."""

    orchestrator: str
    address: str
    round: int
    block: int
    pending_wei: str


class RevenueRealised(Payload, frozen=True, kw_only=True, tag="revenue-realised"):
    """By how much the orchestrator's claim on chain grew through fees, after `from_block` and up to
    `to_block`.

    Delegators' part is not in it. Ranges do not overlap: each starts where the last one ended.
    Both blocks are 0 where there is no chain and the operator recorded what came in.
    """

    orchestrator: str
    round: int
    from_block: int
    to_block: int
    amount_wei: str
    paid_wei: str
    """What tickets moved in these blocks, with the delegators' part."""
    tickets: int
    pending_wei: str = "0"
    """What the orchestrator could claim on chain after `to_block`: the next range grows from it."""


class FeesWithdrawn(Payload, frozen=True, kw_only=True, tag="fees-withdrawn"):
    """ETH left the protocol: to the hot wallet, or elsewhere (then it is the operator's)."""

    orchestrator: str
    recipient: str
    wallet: str
    """The hot wallet if that is the recipient, else empty."""
    amount_wei: str
    tx: str


class RevenueReconciled(Payload, frozen=True, kw_only=True, tag="revenue-reconciled"):
    """A round's books against the chain, and what explains a difference."""

    orchestrator: str
    round: int
    expected_wei: str
    """Accrued in this round for delivered work."""
    realised_wei: str
    claim_chain_wei: str
    """Pending fees of the orchestrator on chain at the end of the round."""
    claim_books_wei: str
    difference_wei: str
    """Chain minus books; may start with a minus sign."""
    explanation: str


class WalletReconciled(Payload, frozen=True, kw_only=True, tag="wallet-reconciled"):
    """A hot wallet holds more or less than the books say, all orders being final: the operator
    put something in, or took something out."""

    wallet: str
    asset: Asset
    block: int
    direction: Literal["in", "out"]
    amount_wei: str


# --- who gets which part -------------------------------------------------------------------------


class RoundSettled(Payload, frozen=True, kw_only=True, tag="round-settled"):
    """A round's revenue was divided; the shares and adjustments stand beside it."""

    orchestrator: str
    round: int
    scheme: Scheme
    rule: str
    """Name of the revenue rule, `none` without one."""
    rule_version: str
    rule_hash: str
    """SHA-256 of the rule's source."""
    start_ms: int
    end_ms: int
    expected_wei: str
    realised_wei: str
    shared_wei: str
    """What went to workers and commission; always the whole under `per-job`, job by job."""
    carried_wei: str
    """Realised, not yet shared: goes into the next round."""
    rule_options: str = ""
    """What the rule was told, like `rate=10%, rounds=5`. Several rules stand in their order: names,
    versions and hashes joined by `+`, options by `; `."""


class ShareCredited(Payload, frozen=True, kw_only=True, tag="share-credited"):
    """One worker's part of realised revenue (schemes `proportional` and `window`). Gives back
    what was accrued at expected value for the same round."""

    orchestrator: str
    round: int
    address: str
    scheme: Scheme
    accrued_wei: str
    """Accrued for the worker in this round, less commission; given back."""
    accrued_commission_wei: str
    share_wei: str
    commission_wei: str


class AdjustmentMade(Payload, frozen=True, kw_only=True, tag="adjustment-made"):
    """A revenue rule moved something between workers, commission and holdback."""

    orchestrator: str
    round: int
    rule: str
    debit: str
    credit: str
    amount_wei: str
    reason: str


class RuleRefused(Payload, frozen=True, kw_only=True, tag="rule-refused"):
    """What a revenue rule returned cannot be applied; the round was settled without it."""

    orchestrator: str
    round: int
    rule: str
    reason: str


class RewardShared(Payload, frozen=True, kw_only=True, tag="reward-shared"):
    """A worker's part of an inflation reward."""

    orchestrator: str
    round: int
    address: str
    amount_lpt: str


class LptConverted(Payload, frozen=True, kw_only=True, tag="lpt-converted"):
    """Fees of an owner who wants LPT were exchanged for LPT that the pool had to spare."""

    conversion: str
    account: str
    """`worker:0x…`: loses the ETH, and gains the LPT."""
    amount_wei: str
    amount_lpt: str
    lpt_per_eth: str
    """The average of 30 minutes, as a fraction."""


class CustomerPaid(Payload, frozen=True, kw_only=True, tag="customer-paid"):
    """A customer of the pool's own API paid the operator."""

    customer: str
    amount_wei: str
    reference: str
    """The operator's own name for the payment, like the number of an invoice; it counts once."""
    by: str = ""
    """Who recorded it: `operator`."""


# --- orders --------------------------------------------------------------------------------------


class OrderLine(Struct, frozen=True, kw_only=True):
    """What an order does for one account."""

    account: str
    """Debited: `worker:0x…`, `commission` …"""
    address: str
    """Who receives."""
    amount_wei: str
    """Taken from the account when the order is planned."""
    send_wei: str
    """Sent; what is left of the amount pays gas, or goes back."""
    gas_wei: str = "0"
    """The recipient's part of the gas, known when it is confirmed."""
    received_lpt: str = "0"
    """What a swap brought for this account."""


class OrderPlanned(Payload, frozen=True, kw_only=True, tag="order-planned"):
    """Decided, and set aside in the books. Nothing is signed yet."""

    order: str
    wallet: str
    chain_id: int
    kind: OrderKind
    asset: Asset
    to: str
    value_wei: str
    data: str
    """`0x…`."""
    lines: tuple[OrderLine, ...] = ()
    note: str = ""
    """Why, for people: `weekly threshold`, `round 3120` …"""


class OrderSigned(Payload, frozen=True, kw_only=True, tag="order-signed"):
    """The nonce is taken, and the transaction is signed and kept, before anybody else sees it.
    A second one for the same order has the same nonce and replaces the first."""

    order: str
    wallet: str
    attempt: int
    nonce: int
    tx: str
    raw: str
    gas_limit: int
    max_fee_wei: str
    priority_fee_wei: str


class OrderSent(Payload, frozen=True, kw_only=True, tag="order-sent"):
    """An endpoint was given the transaction; what it said is information, not the outcome."""

    order: str
    tx: str
    answer: str


class OrderMined(Payload, frozen=True, kw_only=True, tag="order-mined"):
    """Seen in a block that may still be reorganised away."""

    order: str
    tx: str
    block: int
    block_hash: str


class OrderConfirmed(Payload, frozen=True, kw_only=True, tag="order-confirmed"):
    """Done, in a final block."""

    order: str
    wallet: str
    kind: OrderKind
    asset: Asset
    tx: str
    block: int
    block_hash: str
    fee_wei: str
    """All the gas that it cost, in wei."""
    lines: tuple[OrderLine, ...] = ()


class OrderVoided(Payload, frozen=True, kw_only=True, tag="order-voided"):
    """It will never happen, which is certain; what was set aside goes back."""

    order: str
    wallet: str
    kind: OrderKind
    asset: Asset
    reason: str
    tx: str = ""
    """The final transaction that failed, or took the nonce; empty if none was signed."""
    fee_wei: str = "0"
    lines: tuple[OrderLine, ...] = ()


class PayoutsPaused(Payload, frozen=True, kw_only=True, tag="payouts-paused"):
    reason: str
    by: str
    """`operator`, or the name of the guard that pulled the brake."""


class PayoutsResumed(Payload, frozen=True, kw_only=True, tag="payouts-resumed"):
    """Payouts go on. Where they were held because the chain counts more transactions of the wallet
    than the log knows, this says up to which of them the operator has seen to it."""

    by: str
    wallet: str = ""
    """Empty: nothing was held."""
    chain_id: int = 0
    nonce: int = 0
    """How many transactions the chain counted, those that waited included."""


class AddressBlocked(Payload, frozen=True, kw_only=True, tag="address-blocked"):
    """Nothing is sent to this address until its owner or the operator acts."""

    address: str
    reason: str


class AddressUnblocked(Payload, frozen=True, kw_only=True, tag="address-unblocked"):
    address: str
    by: str


class PayoutChosen(Payload, frozen=True, kw_only=True, tag="payout-chosen"):
    """How an owner wants to be paid."""

    address: str
    asset: Asset
    threshold_wei: str
    """Pay when this much is owed; the pool's minimum still counts."""
    staked: bool = False
    """LPT as stake with the orchestrator, instead of liquid."""


# --- what is proved, and what is mended ----------------------------------------------------------


class StatementMade(Payload, frozen=True, kw_only=True, tag="statement-made"):
    """The public statement of a round was signed."""

    orchestrator: str
    """Empty: a statement is of the whole pool."""
    round: int
    receipts: int
    root: str
    """Merkle root over the receipts, hex."""
    digest: str
    """SHA-256 of the whole statement, hex."""
    signer: str
    signature: str
    seq: int = 0
    """Number of the last event that it covers."""


class TermsPublished(Payload, frozen=True, kw_only=True, tag="terms-published"):
    """What the pool promises, as a signed document, and from when on."""

    version: int
    digest: str
    applies_ms: int
    document: str
    """The terms as JSON, exactly the text that was signed."""
    signer: str
    signature: str


class DisputeOpened(Payload, frozen=True, kw_only=True, tag="dispute-opened"):
    dispute: str
    address: str
    subject: str
    """The job, payout or statement that it is about."""
    claim: str
    evidence: str
    """SHA-256 of the evidence pack, hex."""


class DisputeEnded(Payload, frozen=True, kw_only=True, tag="dispute-ended"):
    dispute: str
    upheld: bool
    reason: str
    correction: str = ""
    """Id of the correction that follows from it."""


class CorrectionMade(Payload, frozen=True, kw_only=True, tag="correction-made"):
    """A new entry that mends an old one, which stays as it is."""

    correction: str
    corrects: str
    """Id of the event that was wrong."""
    debit: str
    credit: str
    amount_wei: str
    reason: str
    dispute: str = ""


MoneyPayload = (
    RoundStarted
    | OrchestratorObserved
    | RewardCalled
    | RewardMissed
    | TicketRedeemed
    | ClaimOpened
    | RevenueRealised
    | FeesWithdrawn
    | RevenueReconciled
    | WalletReconciled
    | RoundSettled
    | ShareCredited
    | AdjustmentMade
    | RuleRefused
    | RewardShared
    | LptConverted
    | CustomerPaid
    | OrderPlanned
    | OrderSigned
    | OrderSent
    | OrderMined
    | OrderConfirmed
    | OrderVoided
    | PayoutsPaused
    | PayoutsResumed
    | AddressBlocked
    | AddressUnblocked
    | PayoutChosen
    | StatementMade
    | TermsPublished
    | DisputeOpened
    | DisputeEnded
    | CorrectionMade
)
