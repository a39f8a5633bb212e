"""The settings of money: chain, revenue, payouts, LPT, statements. Part of `config.settings`."""

from pathlib import Path
from typing import Annotated, Literal

from openpool.config import kinds
from openpool.config.kinds import Secret
from openpool.config.sections import Section, Setting
from openpool.core.units import ETHER

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
PRICE_FEED = "0x639Fe6ab55C921f74e7fac1ee960C0B6293ba612"
"""Chainlink's ETH/USD on Arbitrum One."""
CONTROLLER = "0xD8E8328501E9645d16Cf49539efC04f734606ee4"
"""Of Arbitrum One: the one address that is known beforehand; it knows all others."""
EXPLORERS = {42_161: "https://arbiscan.io", 421_614: "https://sepolia.arbiscan.io"}
"""By chain: Arbitrum One and Arbitrum Sepolia."""


class EndpointSettings(Section, frozen=True, kw_only=True):
    """An Ethereum JSON-RPC endpoint."""

    url: Annotated[Secret, Setting(kinds.ENDPOINT, "Its address; may hold an API key")]


class ChainSettings(Section, frozen=True, kw_only=True):
    """Where the chain is reached. Without endpoints the pool keeps books but moves no money."""

    endpoints: tuple[EndpointSettings, ...] = ()
    id: Annotated[
        int, Setting(kinds.integer(1, 2**53), "The chain that the endpoints must serve")
    ] = 42_161
    controller: Annotated[
        str, Setting(kinds.ADDRESS, "The protocol's Controller; none: a chain without it")
    ] = CONTROLLER
    price_feed: Annotated[
        str,
        Setting(
            kinds.ADDRESS,
            "Contract with the price of an ETH in USD, if ai.usd_per_eth is 0; or none",
        ),
    ] = PRICE_FEED
    price_keep_ms: Annotated[
        int,
        Setting(
            kinds.integer(MINUTE_MS, 30 * DAY_MS),
            "How long the last price of an ETH holds when that contract gives none",
        ),
    ] = 2 * DAY_MS
    explorer: Annotated[
        str,
        Setting(
            kinds.EXPLORER,
            "The block explorer that pages link transactions and addresses to; empty: Arbiscan if "
            "id is Arbitrum One or Arbitrum Sepolia, else none",
        ),
    ] = ""
    agree: Annotated[
        int,
        Setting(
            kinds.integer(1, 10),
            "How many endpoints must say the same about what decides money; at most as many as "
            "there are",
        ),
    ] = 2
    timeout_ms: Annotated[
        int, Setting(kinds.integer(100, MINUTE_MS), "Longest wait for one answer")
    ] = 10_000
    poll_ms: Annotated[
        int, Setting(kinds.integer(100, HOUR_MS), "Time between two looks at the chain")
    ] = 30_000
    follow: Annotated[
        Literal["latest", "safe", "finalized"],
        Setting(
            kinds.choice("latest", "safe", "finalized"),
            "Up to which block revenue is followed; safe and finalized are minutes behind, but "
            "nothing in them is reorganised away",
        ),
    ] = "safe"
    gas_margin: Annotated[int, Setting(kinds.RATE, "What is added to an estimate of gas")] = 300_000
    gas_max: Annotated[
        int, Setting(kinds.integer(21_000, 10**9), "More gas than this is never offered")
    ] = 3_000_000
    gas_price_max: Annotated[
        int, Setting(kinds.ETHER, "More than this is never paid for a unit of gas")
    ] = 5 * 10**9
    priority_fee_max: Annotated[
        int,
        Setting(
            kinds.ETHER,
            "Part of it that goes to whoever makes the block, at most; Arbitrum ignores it",
        ),
    ] = 2 * 10**9

    @property
    def explorer_url(self) -> str:
        """What `/tx/…`, `/address/…` and `/block/…` are put behind; empty: pages link nowhere."""
        if self.explorer == kinds.NO_EXPLORER:
            return ""
        return self.explorer or EXPLORERS.get(self.id, "")


class HookSettings(Section, frozen=True, kw_only=True):
    """A revenue rule and what it is told. Rules are applied in this order."""

    rule: Annotated[str, Setting(kinds.NAME, "Its name: a built-in one, or a plugin's")]
    options: Annotated[
        tuple[tuple[str, str], ...],
        Setting(kinds.OPTIONS, "What it is told, as the rule's own page says"),
    ] = ()


class RevenueSettings(Section, frozen=True, kw_only=True):
    """How revenue is divided."""

    scheme: Annotated[
        Literal["per-job", "proportional", "window"],
        Setting(
            kinds.choice("per-job", "proportional", "window"),
            "per-job: each job at once, at expected value; proportional: what a round realised, "
            "by the work of that round; window: by the work of a longer window, of which newer "
            "work counts more",
        ),
    ] = "per-job"
    window_rounds: Annotated[
        int, Setting(kinds.integer(1, 1_000), "Length of the window, in rounds")
    ] = 10
    round_ms: Annotated[
        int,
        Setting(kinds.integer(1_000, 30 * DAY_MS), "Length of a round where there is no chain"),
    ] = DAY_MS
    from_block: Annotated[
        int,
        Setting(
            kinds.integer(0, 2**53),
            "The block after which revenue on chain counts, for a pool that has never followed "
            "any; 0: the one at its first start. What was there before is the operator's",
        ),
    ] = 0
    reserve: Annotated[
        int,
        Setting(
            kinds.RATE,
            "Under per-job: the part of unrealised fees that commission must cover before any of "
            "it may be taken out",
        ),
    ] = 250_000
    hooks: tuple[HookSettings, ...] = ()


class PayoutSettings(Section, frozen=True, kw_only=True):
    """How workers are paid."""

    mode: Annotated[
        Literal["off", "shadow", "on"],
        Setting(
            kinds.choice("off", "shadow", "on"),
            "shadow: plan and check everything, sign and send nothing",
        ),
    ] = "off"
    keystore: Annotated[Path, Setting(kinds.PATH, "The hot wallet: a keystore file (v3)")] = Path()
    passphrase: Annotated[
        Path, Setting(kinds.PATH, "File (0600) with its passphrase; `-` asks standard input")
    ] = Path()
    signer_url: Annotated[
        str, Setting(kinds.URL, "A remote signer (account_signTransaction) instead of a keystore")
    ] = ""
    signer_address: Annotated[
        str, Setting(kinds.ADDRESS, "The address that the remote signer signs for")
    ] = ""
    threshold: Annotated[
        int, Setting(kinds.ETHER, "Pay when this much is owed, unless the worker chose more")
    ] = ETHER // 200
    minimum: Annotated[
        int, Setting(kinds.ETHER, "The least that a worker may choose as threshold")
    ] = ETHER // 1000
    every_ms: Annotated[
        int, Setting(kinds.integer(1_000, 30 * DAY_MS), "Time between two payout runs")
    ] = 4 * HOUR_MS
    gas_paid_by: Annotated[
        Literal["pool", "worker"], Setting(kinds.choice("pool", "worker"), "Who pays the gas")
    ] = "pool"
    gas_share_max: Annotated[
        int,
        Setting(kinds.RATE, "A payout waits while its gas would be more than this part of it"),
    ] = 5_000
    per_payout_max: Annotated[int, Setting(kinds.ETHER, "Largest single payout")] = ETHER
    per_day_max: Annotated[int, Setting(kinds.ETHER, "Most that is sent within 24 hours")] = (
        5 * ETHER
    )
    keep: Annotated[int, Setting(kinds.ETHER, "What the hot wallet keeps for gas")] = ETHER // 1000
    batch: Annotated[
        Literal["never", "cheaper"],
        Setting(
            kinds.choice("never", "cheaper"),
            "cheaper: one transaction for many payees where that costs less gas",
        ),
    ] = "never"
    batch_contract: Annotated[
        str, Setting(kinds.ADDRESS, "Multicall3, or what has its aggregate3Value")
    ] = "0xcA11bde05977b3631167028862bE2a173976CA11"
    replace_after_ms: Annotated[
        int,
        Setting(kinds.integer(1_000, DAY_MS), "When an unmined transaction is sent with more fee"),
    ] = 5 * MINUTE_MS
    contracts: Annotated[
        bool, Setting(kinds.BOOLEAN, "Whether addresses with code (smart wallets) are paid")
    ] = True


class LptSettings(Section, frozen=True, kw_only=True):
    """Inflation rewards, and payouts in LPT."""

    share: Annotated[
        int, Setting(kinds.RATE, "The part of the orchestrator's own reward that workers get")
    ] = 0
    staked: Annotated[
        bool, Setting(kinds.BOOLEAN, "Whether it is handed over as stake (transferBond)")
    ] = False
    call_reward: Annotated[
        bool,
        Setting(
            kinds.BOOLEAN, "Whether the hot wallet calls reward as the orchestrator's reward caller"
        ),
    ] = False
    reward_late: Annotated[
        int,
        Setting(
            kinds.RATE, "The part of a round after which a reward that was not called is a warning"
        ),
    ] = 250_000
    threshold: Annotated[int, Setting(kinds.TOKENS, "LPT is paid out when this much is owed")] = (
        ETHER
    )
    per_payout_max: Annotated[int, Setting(kinds.TOKENS, "Largest single payout of LPT")] = (
        500 * ETHER
    )
    per_day_max: Annotated[
        int, Setting(kinds.TOKENS, "Most LPT that is sent within 24 hours, liquid and as stake")
    ] = 2_500 * ETHER
    swap: Annotated[
        bool, Setting(kinds.BOOLEAN, "Whether owners may be paid in LPT bought with their fees")
    ] = False
    swap_max: Annotated[int, Setting(kinds.ETHER, "Largest single swap")] = ETHER // 10
    slippage: Annotated[int, Setting(kinds.RATE, "How much less than quoted is accepted")] = 10_000
    deviation: Annotated[
        int, Setting(kinds.RATE, "How far a quote may be from the 30 minute average")
    ] = 20_000
    deadline_ms: Annotated[
        int, Setting(kinds.integer(10_000, HOUR_MS), "How long a swap may wait to be mined")
    ] = 120_000
    weth: Annotated[str, Setting(kinds.ADDRESS, "Wrapped ETH, as the market has it")] = (
        "0x82aF49447D8a07e3bd95BD0d56f35241523fBab1"
    )
    pool: Annotated[
        str,
        Setting(
            kinds.ADDRESS,
            "Uniswap V3's pool of LPT and wrapped ETH (0.3 %); its price also says what part of a "
            "payout of LPT gas would be. none: LPT is paid without that check",
        ),
    ] = "0x4fD47e5102DFBF95541F64ED6FE13d4eD26D2546"
    quoter: Annotated[str, Setting(kinds.ADDRESS, "Uniswap's QuoterV2")] = (
        "0x61fFE014bA17989E743c5F6cB21bF9697530B21e"
    )
    router: Annotated[str, Setting(kinds.ADDRESS, "Uniswap V3's SwapRouter")] = (
        "0xE592427A0AEce92De3Edee1F18E0157C05861564"
    )


class StatementSettings(Section, frozen=True, kw_only=True):
    """What the pool signs for others to check."""

    dispute_ms: Annotated[
        int,
        Setting(kinds.integer(0, 365 * DAY_MS), "How long after a statement it can be disputed"),
    ] = 30 * DAY_MS
    notice_ms: Annotated[
        int,
        Setting(
            kinds.integer(0, 90 * DAY_MS), "How long before they apply new terms are announced"
        ),
    ] = 7 * DAY_MS
