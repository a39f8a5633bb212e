"""Proof that a wallet used a nonce: the transaction itself, with a signature nobody can forge.

An endpoint may say anything; what it shows is rebuilt here from its fields, hashed, and its sender
recovered from the signature. Must not ask an endpoint, and never believes one.
"""

from eth_utils.crypto import keccak

from openpool.chain.answers import address as checked
from openpool.chain.interface import Used
from openpool.chain.rpc import data, fields, hash_text, number
from openpool.chain.signers import HALF_ORDER
from openpool.core.errors import BadMessage
from openpool.ethereum import Account, rlp_encode

Field = int | bytes | list["Field"]
EIP155_V = 35
"""An older transaction names its chain in `v`: twice its id, plus this, plus 0 or 1."""


def proved(value: object, *, wallet: str, nonce: int, chain_id: int) -> Used:
    """A transaction as endpoints show it, if this wallet signed it for this chain with this nonce.
    Raises BadMessage: it is not, or is of a type that is not known here."""
    found = fields(value)
    raw = _rebuilt(found, chain_id)
    tx = f"0x{keccak(raw).hex()}"
    if number(found.get("nonce")) != nonce or hash_text(found.get("hash")) != tx:
        raise BadMessage("it showed a transaction with another nonce or hash")
    if _sender(raw) != wallet:
        raise BadMessage("it showed a transaction that the wallet did not sign")
    return Used(
        tx=tx,
        to="" if found.get("to") is None else checked(found.get("to")),
        value_wei=number(found.get("value")),
        data=f"0x{data(found.get('input')).hex()}",
    )


def _sender(raw: bytes) -> str:
    try:
        return str(Account.recover_transaction(raw))
    except Exception as error:  # the library raises many kinds for a signature that is none
        raise BadMessage("it showed a transaction whose signature is none") from error


def _rebuilt(found: dict[str, object], chain_id: int) -> bytes:
    """The signed bytes. A signature has a twin with a larger s; no chain takes it, and it would
    make one of our own transactions look like another one, so it is none."""
    if number(found.get("s")) > HALF_ORDER:
        raise BadMessage("it showed a signature that no chain takes")
    kind = number(found.get("type", "0x0"))
    if kind == 0:
        if number(found.get("v")) not in (2 * chain_id + EIP155_V, 2 * chain_id + EIP155_V + 1):
            raise BadMessage("it showed a transaction of another chain")
        return rlp_encode([*_body(found, ["gasPrice"]), *_numbers(found, ["v", "r", "s"])])
    prices = {1: ["gasPrice"], 2: ["maxPriorityFeePerGas", "maxFeePerGas"]}.get(kind)
    if prices is None:
        raise BadMessage(f"it showed a transaction of type {kind}, which cannot be checked")
    if number(found.get("chainId")) != chain_id:
        raise BadMessage("it showed a transaction of another chain")
    parity = number(found.get("yParity", found.get("v")))
    body: list[Field] = [chain_id, *_body(found, prices), _access(found.get("accessList"))]
    signed = [*body, parity, *_numbers(found, ["r", "s"])]
    return bytes([kind]) + rlp_encode(signed)


def _numbers(found: dict[str, object], names: list[str]) -> list[Field]:
    return [number(found.get(name)) for name in names]


def _body(found: dict[str, object], prices: list[str]) -> list[Field]:
    to = b"" if found.get("to") is None else data(found.get("to"), 20)
    numbers = _numbers(found, ["nonce", *prices, "gas"])
    return [*numbers, to, number(found.get("value")), data(found.get("input"))]


def _access(value: object) -> list[Field]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadMessage("its access list is none")
    entries: list[Field] = []
    for each in map(fields, value):
        keys = each.get("storageKeys")
        if not isinstance(keys, list):
            raise BadMessage("its access list is none")
        entries.append([data(each.get("address"), 20), [data(key, 32) for key in keys]])
    return entries
