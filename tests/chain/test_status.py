"""`openpool chain status` against a real chain: what it says, and when it exits with 1."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from evm import Faulty, drop_request, lie

from openpool.cli import run
from openpool.core.units import ETHER
from openpool.demo.evm import CHAIN_ID, Livepeer, address, keystore_of

Status = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def status(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    protocol: Livepeer,
) -> Status:
    """Runs it with settings for our contracts; exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    settings = {
        "chain.id": CHAIN_ID,
        "chain.controller": protocol.addresses["Controller"],
        "chain.price_feed": protocol.addresses["PriceFeed"],
        "payouts.keystore": keystore_of("hot", tmp_path / "hot.json", "secret"),
    }

    async def call(*urls: str, **changes: object) -> tuple[int, str, str]:
        endpoints = {f"chain.endpoints.{i}.url": url for i, url in enumerate(urls)}
        chosen = settings | endpoints | {k.replace("__", "."): v for k, v in changes.items()}
        sets = [part for name, value in chosen.items() for part in ("--set", f"{name}={value}")]
        code = await asyncio.to_thread(run, ["chain", "status", *sets, "--json"])
        said = capfd.readouterr()
        return code, said.out, said.err

    return call


def parsed(answer: tuple[int, str, str]) -> tuple[int, dict[str, Any]]:
    code, out, errors = answer
    assert errors == ""
    return code, json.loads(out)


async def test_a_good_chain(protocol: Livepeer, status: Status, faulty: Faulty) -> None:
    """Endpoints that agree, contracts, round, price, and the wallet without its passphrase."""
    await protocol.evm.set_balance(address("hot"), ETHER)
    code, found = parsed(await status(protocol.evm.url, faulty.url))
    assert (code, found["ok"], found["agree"], found["must_agree"]) == (0, True, True, 2)
    assert found["contracts"]["TicketBroker"] == protocol.addresses["TicketBroker"]
    assert found["round"]["number"] == await protocol.round()
    assert found["usd_per_eth"] == "2500"
    assert found["wallet"] == {
        "address": address("hot"),
        "balance_wei": str(ETHER),
        "lpt": "0",
        "nonce": 0,
    }


async def test_endpoints_that_fail_show_as_just_that(
    protocol: Livepeer, status: Status, faulty: Faulty
) -> None:
    """One is dead and one lags: the rest is shown, and the exit code is 1."""
    faulty.on("*", drop_request)
    code, found = parsed(await status(protocol.evm.url, faulty.url, chain__agree=1))
    assert (code, [e["ok"] for e in found["endpoints"]]) == (1, [True, False])
    assert found["wallet"]["address"] == address("hot")
    faulty.heal()
    faulty.lag = 4
    code, found = parsed(await status(protocol.evm.url, faulty.url))
    assert (code, [e["lag"] for e in found["endpoints"]]) == (0, [0, 4])


async def test_endpoints_that_contradict_each_other(
    protocol: Livepeer, status: Status, faulty: Faulty
) -> None:
    """Another history of the same chain is no agreement."""
    faulty.on("eth_getBlockByNumber", lie(lambda block: block | {"hash": "0x" + "ab" * 32}))
    code, found = parsed(await status(protocol.evm.url, faulty.url))
    assert (code, found["agree"]) == (1, False)


async def test_the_wrong_chain_and_none(protocol: Livepeer, status: Status) -> None:
    """Another chain id is told of each endpoint; no endpoint at all is a matter of settings."""
    code, found = parsed(await status(protocol.evm.url, chain__id=42_161))
    assert (code, found["endpoints"][0]["problem"]) == (1, "it serves chain 31337, not 42161")
    code, out, errors = await status()
    assert (code, out) == (2, "")
    assert errors == "openpool: No chain is configured: set chain.endpoints, or give --rpc URL.\n"


async def test_tables_for_people(
    protocol: Livepeer, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Without --json the same is a table, and what is missing is a remark."""
    sets = [f"chain.id={CHAIN_ID}", f"chain.controller={protocol.addresses['Controller']}"]
    arguments = ["--rpc", protocol.evm.url, *(p for each in sets for p in ("--set", each))]
    code = await asyncio.to_thread(run, ["chain", "status", *arguments])
    said = capfd.readouterr()
    assert code == 1
    assert "1 of 1 agree, 1 must" in said.out
    assert protocol.addresses["BondingManager"] in said.out
    assert "is no price feed" in said.err
