"""Who signs: a key file of this machine, or a service elsewhere; and the check of what comes back.

A remote signer (clef, or a node that holds keys) speaks JSON-RPC. Whatever signs, `checked` and
`checked_text` accept only the signature of exactly what was asked, by exactly that address. Must
not decide what is signed, and never shows a key or the address of a service.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
from eth_utils.crypto import keccak
from hexbytes import HexBytes

from openpool.chain.answers import plain
from openpool.chain.interface import Signed, Signer, Transaction
from openpool.chain.rpc import data
from openpool.core.decoding import UNREADABLE
from openpool.core.enrolment import checked_address
from openpool.core.errors import BadMessage, NotAllowed, SetupError, Unauthorized, Unavailable
from openpool.ethereum import Account, TypedTransaction, encode_defunct
from openpool.wallet import Passphrase, Wallet, open_wallet, passphrase_from

BODY_BYTES_MAX = 1 << 20
TIMEOUT_S = 60.0
"""A person may have to approve."""
NO_SUCH_METHOD = -32601
HALF_ORDER = 0x7FFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFF_5D576E73_57A4501D_DFE92F46_681B20A0
"""Of secp256k1: a signature with a larger s is taken by nobody."""
SIGN_TRANSACTION = ("account_signTransaction", "eth_signTransaction")
SIGN_TEXT = ("account_signData", "personal_sign", "eth_sign")


def open_signer(
    *,
    keystore: Path | None = None,
    passphrase: Path | None = None,
    url: str = "",
    address: str = "",
) -> Signer:
    """The signer that the settings name. Raises SetupError saying what to correct."""
    if url:
        if not address:
            raise SetupError("A remote signer needs payouts.signer_address, the address it has.")
        return RemoteSigner(url, address)
    if keystore is None or keystore == Path():
        raise SetupError("Nobody can sign: set payouts.keystore, or payouts.signer_url.")
    return WalletSigner(open_wallet(keystore, _passphrase(passphrase)))


def _passphrase(path: Path | None) -> Passphrase:
    if path is not None and path != Path():
        return passphrase_from(path)

    def missing() -> str:
        raise SetupError(
            "The keystore needs a passphrase: set payouts.passphrase to a file (0600), or to `-`."
        )

    return missing


class WalletSigner:
    """Implements `Signer` with a key of this machine."""

    def __init__(self, wallet: Wallet) -> None:
        self._wallet = wallet

    @property
    def address(self) -> str:
        return self._wallet.address

    async def sign(self, transaction: Transaction) -> Signed:
        raw = self._wallet.sign_transaction(_fields(transaction))
        return Signed(tx=_hash(raw), raw=raw)

    async def sign_text(self, text: str) -> str:
        return self._wallet.sign(text)


class RemoteSigner:
    """Implements `Signer` with a service that holds the key."""

    def __init__(self, url: str, address: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._url = url
        self._address = checked_address(address)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._name = urlsplit(url).netloc.rpartition("@")[2]
        self._ids = itertools.count(1)

    @property
    def address(self) -> str:
        return self._address

    async def sign(self, transaction: Transaction) -> Signed:
        fields = {"from": self._address, **_json(transaction)}
        answer = await self._first(SIGN_TRANSACTION, [[fields], [fields]])
        raw = answer.get("raw") if isinstance(answer, dict) else answer
        try:
            found = data(raw)
        except BadMessage:
            raise self._wrong("no signed transaction") from None
        return Signed(tx=_hash(found), raw=found)

    async def sign_text(self, text: str) -> str:
        content = f"0x{text.encode().hex()}"
        address = self._address
        answer = await self._first(
            SIGN_TEXT, [["text/plain", address, content], [content, address], [address, content]]
        )
        try:
            return f"0x{data(answer, 65).hex()}"
        except BadMessage:
            raise self._wrong("no signature") from None

    async def _first(self, methods: Sequence[str], parameters: Sequence[list[Any]]) -> Any:
        """The answer to the first of the methods that the service has."""
        for method, arguments in zip(methods, parameters, strict=True):
            answer = await self._ask(method, arguments)
            error = answer.get("error")
            if not error:
                return answer.get("result")
            if not isinstance(error, dict) or error.get("code") != NO_SUCH_METHOD:
                said = plain(error.get("message") if isinstance(error, dict) else error)[:200]
                raise NotAllowed(f"The signer at {self._name} refused to sign: {said}.")
        raise NotAllowed(f"The signer at {self._name} has none of {', '.join(methods)}.")

    async def _ask(self, method: str, parameters: list[Any]) -> dict[str, Any]:
        body = msgspec.json.encode(
            {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": parameters}
        )
        headers = {"Content-Type": "application/json"}
        try:
            async with (
                aiohttp.ClientSession(timeout=self._timeout) as session,
                session.post(
                    self._url, data=body, headers=headers, allow_redirects=False
                ) as response,
            ):
                answer = await response.content.read(BODY_BYTES_MAX)
                while not response.content.at_eof() and len(answer) < BODY_BYTES_MAX:
                    answer += await response.content.read(BODY_BYTES_MAX)
            return msgspec.json.decode(answer, type=dict[str, Any])
        except UNREADABLE:
            raise self._wrong("something that is not JSON-RPC") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(
                f"The signer at {self._name} does not answer ({type(error).__name__}); start it, "
                "or correct payouts.signer_url."
            ) from None

    def _wrong(self, what: str) -> Unavailable:
        return Unavailable(f"The signer at {self._name} answered with {what}; check what it is.")


# --- what came back -------------------------------------------------------------------------------


async def checked(signer: Signer, transaction: Transaction) -> Signed:
    """A signature of exactly this transaction by exactly this signer's address.

    Raises Unauthorized if it signed anything else, and whatever `Signer.sign` raises.
    """
    signed = await signer.sign(transaction)
    try:
        found = TypedTransaction.from_bytes(HexBytes(signed.raw)).as_dict()
        signature = {name: int(found[name]) for name in "vrs"}
        asked = TypedTransaction.from_dict({**_fields(transaction), **signature}).encode()
        sender = Account.recover_transaction(signed.raw)
    except Exception:  # hostile bytes bring the library to all kinds of errors
        raise _unasked(signer, "what it gave is no EIP-1559 transaction") from None
    if bytes(asked) != signed.raw:
        raise _unasked(signer, f"it changed {_difference(transaction, found)}")
    if sender != signer.address:
        raise _unasked(signer, f"the signature is that of {sender}")
    if signature["s"] > HALF_ORDER:
        raise _unasked(signer, "its signature is of the kind that no node takes")
    if signed.tx != _hash(signed.raw):
        raise _unasked(signer, "its hash is another one")
    return signed


async def checked_text(signer: Signer, text: str) -> str:
    """The signer's signature of exactly this text. Raises Unauthorized if it is none."""
    signature = await signer.sign_text(text)
    try:
        sender = Account.recover_message(encode_defunct(text=text), signature=signature)
    except Exception:
        raise _unasked(signer, "what it gave is no signature") from None
    if sender != signer.address:
        raise _unasked(signer, f"the signature is that of {sender}, or of another text")
    return signature


def _unasked(signer: Signer, why: str) -> Unauthorized:
    return Unauthorized(
        f"The signer of {signer.address} did not sign what it was asked to ({why}); nothing was "
        "sent. Check the signer before anything else."
    )


def _difference(transaction: Transaction, found: dict[str, Any]) -> str:
    asked = {**_fields(transaction), "accessList": ()}
    return ", ".join(
        name for name, value in asked.items() if _comparable(found.get(name)) != _comparable(value)
    )


def _comparable(value: object) -> object:
    if isinstance(value, bytes):
        return f"0x{bytes(value).hex()}"
    return value.lower() if isinstance(value, str) else value


def _fields(transaction: Transaction) -> dict[str, object]:
    return {
        "type": 2,
        "chainId": transaction.chain_id,
        "nonce": transaction.nonce,
        "to": transaction.to,
        "value": transaction.value_wei,
        "data": transaction.data,
        "gas": transaction.gas_limit,
        "maxFeePerGas": transaction.max_fee_wei,
        "maxPriorityFeePerGas": transaction.priority_fee_wei,
        "accessList": [],
    }


def _json(transaction: Transaction) -> dict[str, object]:
    """As JSON-RPC writes it."""
    fields = _fields(transaction)
    fields["data"] = f"0x{transaction.data.hex()}"
    return {name: hex(value) if isinstance(value, int) else value for name, value in fields.items()}


def _hash(raw: bytes) -> str:
    return f"0x{keccak(raw).hex()}"
