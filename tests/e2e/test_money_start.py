"""What an operator gets wrong about money before the first start: one sentence, and the right exit.

`openpool serve` is a process of its own. What makes paying impossible for good ends it with code 2;
what may mend by itself keeps payouts waiting, never the video.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from evm import *  # noqa: F403
from moneypool import *  # noqa: F403
from moneypool import ORCHESTRATOR, WALLET, Ground, money_pool
from network import write_config

from openpool.core.units import ETHER
from openpool.demo.children import free_port
from openpool.demo.evm import address
from openpool.demo.orchestrator import StandIn


def configured(folder: Path, settings: str) -> Path:
    folder.mkdir()
    return write_config(folder, ["127.0.0.1:9"], settings)


async def refusal(folder: Path, settings: str) -> str:
    """The one sentence with which the pool does not start; exit code 2, no trace."""
    config = configured(folder, settings)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "openpool", "serve", "-c", str(config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(40):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = said.decode()
    assert process.returncode == 2, text
    assert "Traceback" not in text
    assert "secret words" not in text
    return text.strip().splitlines()[-1].removeprefix("openpool: ")


async def test_what_only_a_person_can_mend_ends_the_start(ground: Ground) -> None:
    """Each mistake is named by its setting or its file, and nothing else is said."""
    folder, chain, payouts = ground.folder, ground.chain(), ground.payouts()
    (folder / "wallet.other").write_text("other words\n")
    (folder / "wallet.other").chmod(0o600)
    (folder / "open.json").write_text((folder / "wallet.json").read_text())
    (folder / "open.json").chmod(0o644)
    broken = address(ORCHESTRATOR)
    broken = broken[:-1] + ("0" if broken[-1] != "0" else "1")
    bad = {
        "passphrase": (chain + payouts.replace(".passphrase", ".other"), "passphrase is wrong"),
        "readable": (chain + payouts.replace("wallet.json", "open.json"), "chmod 600"),
        "missing": (chain + payouts.replace("wallet.json", "none.json"), "none.json"),
        "checksum": (ground.chain(controller=broken), "chain.controller"),
        "chain": (chain.replace("id: 31337", "id: 42161") + payouts, "serves chain 31337"),
    }
    said = {}
    for name, (settings, _) in bad.items():
        said[name] = await refusal(folder / name, settings)
    for name, (_, words) in bad.items():
        assert words in said[name], (name, said[name])


@asynccontextmanager
async def gateway_to(url: str, port: int) -> AsyncIterator[None]:
    """The endpoint comes up: this port leads to the chain from now on."""
    host, _, number = url.removeprefix("http://").partition(":")

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection(host, int(number))
        try:
            await asyncio.gather(pass_on(reader, to_writer), pass_on(to_reader, writer))
        except OSError:
            return
        finally:
            writer.close()
            to_writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()


async def test_a_dead_endpoint_and_an_empty_wallet_hold_up_payouts_only(ground: Ground) -> None:
    """The pool starts, segments flow and are credited; payouts wait and say why; when the endpoint
    comes up they go on by themselves, and when the wallet is filled it pays."""
    port = free_port()
    settings = ground.chain(f"http://127.0.0.1:{port}") + ground.payouts()
    await ground.evm.set_balance(WALLET, 0)
    async with StandIn("o-secret") as orchestrator:
        async with money_pool(ground, orchestrator, settings) as money:
            await money.enrol("Ann")
            await money.work("Ann")
            assert len(money.events("fee-credited")) == 1

            async def told() -> bool:
                view = await money.ask("GET", "/payouts")
                return f"127.0.0.1:{port} cannot be used: it cannot be reached" in view["problem"]

            await money.until(told, "the reason")
            async with gateway_to(ground.evm.url, port):
                await money.followed()
                (fee,) = money.events("fee-credited")
                await money.ask(
                    "POST",
                    "/corrections",
                    json={
                        "corrects": f"{fee.job}/fee-credited",
                        "debit": "operator",
                        "credit": f"worker:{address('Ann')}",
                        "amount_wei": str(ETHER // 100),
                        "reason": "a gift, so that there is something to pay",
                    },
                )

                async def lacks() -> bool:
                    view = await money.ask("GET", "/payouts")
                    whys = [each["why"] for each in view["next"]]
                    return not view["problem"] and any("holds too little" in why for why in whys)

                await money.until(lacks, "the wallet to be missed")
                await ground.evm.set_balance(WALLET, ETHER)
                await money.ask("POST", "/payouts/run")
                await money.paid()
    assert await ground.evm.balance(address("Ann")) > ETHER // 100
