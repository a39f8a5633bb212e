"""What proves that a wallet used a nonce, on a real chain, and what does not."""

from collections.abc import Callable
from typing import Any

import pytest
from conftest import Open
from evm import Faulty, lie

from openpool.chain.proof import proved
from openpool.chain.signers import HALF_ORDER
from openpool.core.errors import BadMessage
from openpool.demo.evm import CHAIN_ID, Evm, address

ORDER_OF_CURVE = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
ACCESS = [{"address": address("else"), "storageKeys": [f"0x{7:064x}"]}]
LEGACY = {"gasPrice": 10**9}
FEE_MARKET = {"maxFeePerGas": 10**9, "maxPriorityFeePerGas": 0}
KINDS: dict[int, dict[str, Any]] = {
    0: LEGACY,
    1: LEGACY | {"type": 1, "accessList": ACCESS},
    2: FEE_MARKET | {"type": 2, "accessList": ACCESS},
}


async def mined(evm: Evm, kind: int, nonce: int = 0) -> tuple[str, dict[str, Any]]:
    """A wallet, and its signed transaction as the chain shows it."""
    actor = await evm.actor("payer")
    base = {"chainId": CHAIN_ID, "nonce": nonce, "to": address("somebody"), "value": 1}
    signed = actor.sign_transaction(base | {"gas": 60_000, "data": "0x1234"} | KINDS[kind])
    tx = await evm.rpc("eth_sendRawTransaction", f"0x{bytes(signed.raw_transaction).hex()}")
    await evm.mine()
    return actor.address, await evm.rpc("eth_getTransactionByHash", tx)


@pytest.mark.parametrize("kind", [0, 1, 2])
async def test_the_transaction_is_found_and_proves_itself(
    evm: Evm, chain_of: Open, kind: int
) -> None:
    wallet, _ = await mined(evm, kind)
    _, shown = await mined(evm, kind, nonce=1)
    await evm.mine(3)
    chain = await chain_of(evm.url)
    last = (await chain.block()).number
    found = await chain.used_by(wallet, 1, final_block=last)
    assert found is not None
    assert (found.tx, found.value_wei, found.data) == (shown["hash"], 1, "0x1234")
    assert await chain.used_by(wallet, 2, final_block=last) is None
    assert await chain.used_by(wallet, 1, final_block=int(shown["blockNumber"], 16) - 1) is None


async def test_a_node_without_old_state_is_no_proof(
    evm: Evm, faulty: Faulty, chain_of: Open
) -> None:
    wallet, _ = await mined(evm, 2)
    chain = await chain_of(faulty.url)
    faulty.on("eth_getTransactionCount", lie(lambda told: None))
    assert await chain.used_by(wallet, 0, final_block=(await chain.block()).number) is None


def twin(shown: dict[str, Any]) -> dict[str, Any]:
    """The same transaction with the other signature that recovers to the same wallet."""
    other = ORDER_OF_CURVE - int(shown["s"], 16)
    assert other > HALF_ORDER
    return {"s": hex(other), "yParity": hex(1 - int(shown["yParity"], 16))}


@pytest.mark.parametrize(
    "forge",
    [
        lambda shown: {"value": "0x2"},
        lambda shown: {"nonce": "0x1"},
        lambda shown: {"chainId": "0x1"},
        lambda shown: {"hash": f"0x{'ab' * 32}"},
        lambda shown: {"r": "0x0", "s": "0x0"},
        lambda shown: {"type": "0x4"},
        lambda shown: {"accessList": 5},
        twin,
    ],
)
async def test_a_forged_one_is_no_proof(
    evm: Evm, forge: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    wallet, shown = await mined(evm, 2)
    proved(shown, wallet=wallet, nonce=0, chain_id=CHAIN_ID)
    with pytest.raises(BadMessage):
        proved(shown | forge(shown), wallet=wallet, nonce=0, chain_id=CHAIN_ID)


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("other", [{"wallet": address("else")}, {"nonce": 1}, {"chain_id": 1}])
async def test_one_of_something_else_is_no_proof(
    evm: Evm, kind: int, other: dict[str, Any]
) -> None:
    wallet, shown = await mined(evm, kind)
    wanted = {"wallet": wallet, "nonce": 0, "chain_id": CHAIN_ID} | other
    with pytest.raises(BadMessage):
        proved(shown, **wanted)
