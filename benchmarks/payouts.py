"""Payouts: how fast the plan for everybody is, and what a payment costs on a real local chain."""

import asyncio
import time
from collections.abc import Callable

import aiohttp

from benchmarks.report import Row, report
from openpool.chain.client import open_chain
from openpool.chain.interface import Call, Chain
from openpool.core.errors import SetupError
from openpool.core.money.payout_plan import Rules, Standing, plan
from openpool.core.units import ETHER, GWEI
from openpool.demo.anvil import anvil
from openpool.demo.evm import CHAIN_ID, MULTICALL3, Evm, Livepeer, address
from openpool.treasury.batch import batch_call

WORKERS = 10_000
LAPS = 5
BATCH = 100
LEGACY_GAS_LIMIT = 1_000_000
"""What an older pool reserved for each payment, at a legacy gas price."""
MILLI = ETHER // 1000


def main() -> None:
    """Print the figures."""
    report("Planning payouts", planning())
    try:
        with anvil() as url:
            report("Gas of a payment, from receipts of a real chain", asyncio.run(gas(url)))
    except SetupError as error:
        print(error)


# --- planning -------------------------------------------------------------------------------------


def planning() -> list[Row]:
    """Everybody is looked at; the median of some laps."""
    owed = {f"0x{number:040x}": number * MILLI // 1000 for number in range(WORKERS)}
    rules = Rules(threshold_wei=5 * MILLI, minimum_wei=MILLI, per_day_max_wei=10**6 * ETHER)
    now = Standing(owed=owed, funds_wei=10**6 * ETHER, gas_wei=GWEI, gas_most_wei=2 * GWEI)
    took = sorted(_timed(lambda: plan("ETH", rules, now)) for _ in range(LAPS))
    return [Row("plan for 10,000 workers", f"{took[LAPS // 2] * 1000:.0f} ms", "≤ 1,000 ms")]


def _timed(what: Callable[[], object]) -> float:
    begun = time.perf_counter()
    what()
    return time.perf_counter() - begun


# --- gas ------------------------------------------------------------------------------------------


async def gas(url: str) -> list[Row]:
    """Gas used and gas reserved, for each payee."""
    async with aiohttp.ClientSession() as session:
        evm = Evm(url, session)
        await Livepeer.deploy(evm)
        await evm.actor("hot wallet")
        payees = [address(f"payee {number}") for number in range(BATCH)]
        async with open_chain([url], chain_id=CHAIN_ID, agree=1) as chain:
            wallet = address("hot wallet")
            fresh = await _batch(evm, chain, wallet, payees)
            existing = await _batch(evm, chain, wallet, payees)
            single = await _single(evm, chain, wallet, payees[0])
            legacy = await _legacy(evm, wallet, payees[0])
    rows = [
        ("single", single),
        (f"batch of {BATCH}, existing accounts", existing),
        (f"batch of {BATCH}, new accounts (paid singly instead)", fresh),
    ]
    return [
        Row(
            f"{name}: gas used, reserved",
            f"{used:,} · {reserved:,} per payee",
            "",
            f"{legacy[0]:,} · {legacy[1]:,} per payee (legacy transfers)",
        )
        for name, (used, reserved) in rows
    ]


async def _single(evm: Evm, chain: Chain, wallet: str, payee: str) -> tuple[int, int]:
    return await _measured(evm, chain, wallet, Call(to=payee, value_wei=MILLI), 1)


async def _legacy(evm: Evm, wallet: str, payee: str) -> tuple[int, int]:
    """A transfer as an older pool made it; what it reserved is in the transaction on chain."""
    tx = {
        "from": wallet,
        "to": payee,
        "value": hex(MILLI),
        "gas": hex(LEGACY_GAS_LIMIT),
        "gasPrice": hex(10 * GWEI),
    }
    sent = await evm.rpc("eth_sendTransaction", tx)
    await evm.settled()
    receipt = await evm.rpc("eth_getTransactionReceipt", sent)
    found = await evm.rpc("eth_getTransactionByHash", sent)
    return int(receipt["gasUsed"], 16), int(found["gas"], 16)


async def _batch(evm: Evm, chain: Chain, wallet: str, payees: list[str]) -> tuple[int, int]:
    call = batch_call(MULTICALL3, [(payee, MILLI) for payee in payees])
    return await _measured(evm, chain, wallet, call, len(payees))


async def _measured(
    evm: Evm, chain: Chain, wallet: str, call: Call, payees: int
) -> tuple[int, int]:
    """Used by the receipt, and reserved: the estimate with the margin of the settings."""
    estimate = await chain.estimate_gas(call, sender=wallet)
    receipt = await evm.send(wallet, call)
    return int(receipt["gasUsed"], 16) // payees, estimate * 13 // 10 // payees


if __name__ == "__main__":
    main()
