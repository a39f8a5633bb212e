"""Signers: a key file here, a service elsewhere, and the check of what either gave back."""

import io
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from msgspec.structs import replace

from openpool.chain.interface import Signed, Transaction
from openpool.chain.signers import RemoteSigner, WalletSigner, checked, checked_text, open_signer
from openpool.core.errors import BadMessage, NotAllowed, SetupError, Unauthorized, Unavailable
from openpool.demo.evm import CHAIN_ID, Evm, account, address, keystore_of
from openpool.ethereum import Account
from openpool.wallet import Wallet

ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
PAYMENT = Transaction(
    chain_id=CHAIN_ID,
    nonce=3,
    to=address("payee"),
    value_wei=10**17,
    data=b"\x01\x02",
    gas_limit=50_000,
    max_fee_wei=10**9,
    priority_fee_wei=1,
)
HOT = Account.from_key("0x" + "11" * 32)
OTHER = Account.from_key("0x" + "22" * 32)


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "words"
    path.write_text("correct horse\n")
    path.chmod(0o600)
    return path


# --- key files ------------------------------------------------------------------------------------


async def test_a_keystore_signs_what_the_chain_takes(evm: Evm, tmp_path: Path, words: Path) -> None:
    """A payment by a keystore of version 3 is mined, and its hash is as foretold."""
    keystore = keystore_of("hot", tmp_path / "hot.json", "correct horse")
    signer = open_signer(keystore=keystore, passphrase=words)
    assert signer.address == address("hot")
    await evm.actor("hot")
    signed = await checked(signer, replace(PAYMENT, nonce=0))
    assert await evm.rpc("eth_sendRawTransaction", "0x" + signed.raw.hex()) == signed.tx
    await evm.settled()
    assert await evm.balance(address("payee")) == PAYMENT.value_wei
    assert await checked_text(signer, "a statement")


def test_a_passphrase_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` reads one line; an empty input is a sentence."""
    keystore = keystore_of("hot", tmp_path / "hot.json", "correct horse")
    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse\nand more"))
    assert open_signer(keystore=keystore, passphrase=Path("-")).address == address("hot")
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(SetupError, match="Standard input has no line with the passphrase"):
        open_signer(keystore=keystore, passphrase=Path("-"))


def test_key_files_that_are_not_used(tmp_path: Path, words: Path) -> None:
    """A wrong passphrase, a file that others can read, none, no passphrase: a sentence each."""
    keystore = keystore_of("hot", tmp_path / "hot.json", "battery staple")
    with pytest.raises(SetupError, match=r"cannot be opened: the passphrase is wrong\."):
        open_signer(keystore=keystore, passphrase=words)
    with pytest.raises(SetupError, match=r"set payouts\.passphrase to a file"):
        open_signer(keystore=keystore, passphrase=Path())
    words.chmod(0o644)
    with pytest.raises(SetupError, match=r"passphrase file .* can be read by other users"):
        open_signer(keystore=keystore, passphrase=words)
    keystore.chmod(0o640)
    with pytest.raises(
        SetupError, match=r"can be read by other users \(mode 0640\); run `chmod 600"
    ):
        open_signer(keystore=keystore, passphrase=words)
    with pytest.raises(SetupError, match="cannot be read: no such file"):
        open_signer(keystore=tmp_path / "none.json", passphrase=words)
    with pytest.raises(SetupError, match="Nobody can sign: set payouts"):
        open_signer(keystore=Path(), passphrase=words)


# --- services -------------------------------------------------------------------------------------


@dataclass
class Service:
    """A signer that answers as told."""

    url: str = ""
    answer: Callable[[str, list[Any]], dict[str, Any]] = lambda method, parameters: {}


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    made = Service()

    async def serve(request: web.Request) -> web.Response:
        asked = await request.json()
        told = made.answer(asked["method"], asked["params"])
        return web.json_response({"jsonrpc": "2.0", "id": asked["id"], **told})

    app = web.Application()
    app.router.add_post("/{key}", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/SECRET"
    yield made
    await runner.cleanup()


def clef(method: str, parameters: list[Any]) -> dict[str, Any]:
    """What clef answers for the hot wallet."""
    if method == "account_signData":
        kind, who, content = parameters
        assert (kind, who) == ("text/plain", HOT.address)
        text = bytes.fromhex(content[2:]).decode()
        return {"result": Wallet(HOT).sign(text)}
    assert method == "account_signTransaction"
    (asked,) = parameters
    assert asked.pop("from") == HOT.address
    raw = HOT.sign_transaction(asked).raw_transaction
    return {"result": {"raw": raw.to_0x_hex(), "tx": asked}}


async def test_a_remote_signer_signs(service: Service) -> None:
    """As clef does, a transaction and a text; both the same as with the key at hand."""
    service.answer = clef
    signer = RemoteSigner(service.url, HOT.address)
    here = WalletSigner(Wallet(HOT))
    assert await checked(signer, PAYMENT) == await checked(here, PAYMENT)
    assert await checked_text(signer, "hello") == await here.sign_text("hello")


async def test_a_node_that_holds_the_key_signs(evm: Evm) -> None:
    """anvil does not know clef's methods; then those of nodes are used."""
    (account,) = await evm.rpc("eth_accounts")
    signer = open_signer(url=evm.url, address=account)
    assert (await checked(signer, PAYMENT)).raw[0] == 2
    assert await checked_text(signer, "hello")


async def test_a_signer_that_does_not_sign(service: Service) -> None:
    """Refused, off, nonsense, no address: what to do is said, and never the service's address."""
    signer = RemoteSigner(service.url, HOT.address, timeout_s=2)
    service.answer = lambda *_: {"error": {"code": -32_000, "message": "request denied"}}
    with pytest.raises(NotAllowed, match=r"127\.0\.0\.1:\d+ refused to sign: request denied\."):
        await signer.sign(PAYMENT)
    service.answer = lambda *_: {"result": {"raw": "0xzz"}}
    with pytest.raises(Unavailable, match="no signed transaction") as caught:
        await signer.sign(PAYMENT)
    assert "SECRET" not in str(caught.value)
    dead = RemoteSigner("http://127.0.0.1:9/SECRET", HOT.address)
    with pytest.raises(Unavailable, match=r"does not answer .* start it, or correct") as gone:
        await dead.sign(PAYMENT)
    assert "SECRET" not in str(gone.value)
    with pytest.raises(SetupError, match=r"payouts\.signer_address"):
        open_signer(url=service.url)
    with pytest.raises(BadMessage, match="checksum"):
        open_signer(url=service.url, address=HOT.address.swapcase().replace("0X", "0x"))


# --- what came back -------------------------------------------------------------------------------


def tampered(**changes: Any) -> Callable[[str, list[Any]], dict[str, Any]]:
    """clef with other ideas."""
    return lambda method, parameters: clef(method, [parameters[0] | changes])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("to", address("thief")),
        ("value", hex(10**18)),
        ("nonce", "0x4"),
        ("gas", "0x1000000"),
        ("maxFeePerGas", hex(10**12)),
        ("maxPriorityFeePerGas", "0x2"),
        ("data", "0x"),
        ("chainId", "0x1"),
        ("accessList", [{"address": address("thief"), "storageKeys": []}]),
    ],
)
async def test_a_changed_field_is_found(service: Service, field: str, value: Any) -> None:
    """Whatever a signer changes is named, and nothing is sent."""
    service.answer = tampered(**{field: value})
    with pytest.raises(Unauthorized, match=rf"it changed {field}\); nothing was sent"):
        await checked(RemoteSigner(service.url, HOT.address), PAYMENT)


def high_s(raw: bytes) -> bytes:
    """The same signature in the form that nodes refuse."""
    from hexbytes import HexBytes

    from openpool.ethereum import TypedTransaction

    fields = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
    fields |= {"s": ORDER - fields["s"], "v": 1 - fields["v"]}
    return bytes(TypedTransaction.from_dict(fields).encode())


class Odd:
    """A signer that gives these bytes."""

    address = HOT.address

    def __init__(self, raw: bytes, tx: str = "") -> None:
        self._signed = Signed(tx=tx, raw=raw)

    async def sign(self, transaction: Transaction) -> Signed:
        return self._signed

    async def sign_text(self, text: str) -> str:
        return "0x" + "00" * 65


async def test_signatures_that_are_none(service: Service) -> None:
    """Another's key, a malleable twin, a wrong hash and garbage are refused."""
    good = await WalletSigner(Wallet(HOT)).sign(PAYMENT)
    theirs = await WalletSigner(Wallet(OTHER)).sign(PAYMENT)
    nested = b"\x02" + b"\xf8" * 100_000
    for raw, why in (
        (theirs.raw, f"the signature is that of {OTHER.address}"),
        (high_s(good.raw), "no node takes|no EIP-1559"),
        (good.raw, "its hash is another one"),
        (good.raw + b"\0", "no EIP-1559 transaction"),
        (b"", "no EIP-1559 transaction"),
        (nested, "no EIP-1559 transaction"),
    ):
        with pytest.raises(Unauthorized, match=why):
            await checked(Odd(raw), PAYMENT)
    with pytest.raises(Unauthorized, match="no signature"):
        await checked_text(Odd(b""), "hello")
    service.answer = lambda *_: {"result": Wallet(OTHER).sign("hello")}
    with pytest.raises(Unauthorized, match=f"that of {OTHER.address}"):
        await checked_text(RemoteSigner(service.url, HOT.address), "hello")


def test_a_keystore_never_shows_its_key(tmp_path: Path) -> None:
    """The file has no key in the clear, nor does the wallet's text."""
    keystore = keystore_of("hot", tmp_path / "hot.json", "correct horse")
    key = bytes(account("hot").key).hex()
    signer = WalletSigner(Wallet(account("hot")))
    assert json.loads(keystore.read_text())["version"] == 3
    assert key not in f"{keystore.read_text()}{signer!r}{vars(signer)}"
