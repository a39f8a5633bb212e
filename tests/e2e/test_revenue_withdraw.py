"""`openpool revenue withdraw` on a real EVM: by the staking key, to the hot wallet."""

import asyncio
import json
from pathlib import Path

import pytest
from evm import Livepeer
from revenueworld import *  # noqa: F403 - the fixture `world`
from revenueworld import ORCHESTRATOR, WALLET, World

from openpool.chain import contracts as c
from openpool.cli import run
from openpool.core.money import events as money
from openpool.core.units import ETHER
from openpool.demo.evm import account
from openpool.private_files import write_private


def settings(folder: Path, protocol: Livepeer) -> Path:
    """Of a pool whose orchestrator and hot wallet are on that chain."""
    path = folder / "openpool.yaml"
    path.write_text(
        f"""
orchestrators:
  - name: main
    address: 127.0.0.1:8935
    secret: not-used-here
    eth_address: "{ORCHESTRATOR}"
chain:
  endpoints: [{{url: "{protocol.evm.url}"}}]
  id: {protocol.evm.chain_id}
  controller: "{protocol.addresses["Controller"]}"
payouts:
  signer_url: http://127.0.0.1:1
  signer_address: "{WALLET}"
"""
    )
    path.chmod(0o600)
    return path


async def call(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capfd.readouterr()
    code = await asyncio.to_thread(run, arguments)
    said = capfd.readouterr()
    assert "Traceback" not in said.err
    return code, said.out, said.err


async def test_fees_go_to_the_hot_wallet_in_good_order(
    world: World,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Refused before the reward of the round; then printed unsigned; then signed, sent, booked."""
    key = tmp_path / "staking.key"
    write_private(key, bytes(account("orchestrator").key).hex().encode())
    config = ("--config", str(settings(tmp_path, world.protocol)))
    await world.catch_up()
    await world.protocol.win("gateway", "orchestrator", ETHER)
    pending = await world.livepeer.pending_fees(ORCHESTRATOR)

    code, out, err = await call(capfd, "revenue", "withdraw", "main", *config)
    assert (code, out) == (1, "")
    assert "reward" in err

    await world.protocol.reward("orchestrator")
    code, out, _ = await call(capfd, "revenue", "withdraw", "main", *config)
    (unsigned,) = json.loads(out)["transactions"]
    assert code == 0
    assert (unsigned["from"], unsigned["to"]) == (
        ORCHESTRATOR,
        world.protocol.addresses["BondingManager"],
    )
    data = bytes.fromhex(unsigned["data"][2:])
    assert c.BondingManager.withdraw_fees.arguments(data) == (WALLET, pending)

    signing = ("--keystore", str(key), "--yes", "--json")
    code, out, _ = await call(capfd, "revenue", "withdraw", "main", "0.25", *config, *signing)
    assert code == 0
    await world.catch_up()
    await world.agrees()
    (withdrawn,) = world.told(money.FeesWithdrawn)
    assert (withdrawn.wallet, withdrawn.amount_wei) == (WALLET, str(ETHER // 4))
    assert json.loads(out)[0]["tx"] == withdrawn.tx

    await world.protocol.win("gateway", "orchestrator", ETHER // 10)
    code, out, _ = await call(capfd, "revenue", "withdraw", "main", *config)
    (unsigned,) = json.loads(out)["transactions"]
    data = bytes.fromhex(unsigned["data"][2:])
    # what came after the claim of this round can be withdrawn in the next
    assert c.BondingManager.withdraw_fees.arguments(data) == (WALLET, pending - ETHER // 4)


async def test_a_name_that_has_no_address_is_told(
    tmp_path: Path, protocol: Livepeer, capfd: pytest.CaptureFixture[str]
) -> None:
    """The sentence says which setting is missing."""
    config = ("--config", str(settings(tmp_path, protocol)))
    code, _, err = await call(capfd, "revenue", "withdraw", "other", *config)
    assert code == 2
    assert "orchestrators[].eth_address" in err
