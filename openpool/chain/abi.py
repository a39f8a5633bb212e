"""Call data and events of contracts: bytes ⇄ values. Knows types, no contract and no chain.

Addresses come out with their checksum. What a contract answers is as hostile as any other bytes:
whatever is not exactly what was declared raises BadMessage.
"""

from collections.abc import Iterator
from typing import Any

from eth_abi.abi import decode as _decode
from eth_abi.abi import encode as _encode
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from openpool.core.errors import BadMessage

WORD = 32
SELECTOR = 4
ERROR = bytes.fromhex("08c379a0")
PANIC = bytes.fromhex("4e487b71")
REASON_CHARS_MAX = 200


class Method:
    """A function of a contract: `Method("balanceOf", "address", returns=("uint256",))`."""

    def __init__(self, name: str, *types: str, returns: tuple[str, ...] = ()) -> None:
        self.name = name
        self.types = types
        self.returns = returns
        self.selector = keccak(text=f"{name}({','.join(types)})")[:SELECTOR]

    def encode(self, *values: object) -> bytes:
        """The data of a call."""
        return self.selector + encode(self.types, *values)

    def decode(self, data: bytes) -> tuple[Any, ...]:
        """What a call returned. Raises BadMessage."""
        return decode(self.returns, data)

    def one(self, data: bytes) -> Any:
        """What a call with a single result returned. Raises BadMessage."""
        (value,) = self.decode(data)
        return value

    def arguments(self, data: bytes) -> tuple[Any, ...] | None:
        """The arguments in the data of a call; None if it calls something else."""
        return decode(self.types, data[SELECTOR:]) if data[:SELECTOR] == self.selector else None


class Event:
    """An event of a contract; indexed parameters are written `"address indexed"`."""

    def __init__(self, name: str, *types: str) -> None:
        plain = [kind.removesuffix(" indexed") for kind in types]
        self.name = name
        self.topic = keccak(text=f"{name}({','.join(plain)})")
        self._types = plain
        self._indexed = [kind.endswith(" indexed") for kind in types]

    def decode(self, topics: tuple[bytes, ...], data: bytes) -> tuple[Any, ...]:
        """All parameters in their order. Raises BadMessage."""
        if not topics or topics[0] != self.topic or len(topics) != 1 + sum(self._indexed):
            raise BadMessage(f"A log is no {self.name} event.")
        indexed = iter(topics[1:])
        rest = iter(decode([t for t, i in self._pairs() if not i], data))
        return tuple(
            decode([kind], next(indexed))[0] if is_indexed else next(rest)
            for kind, is_indexed in self._pairs()
        )

    def _pairs(self) -> Iterator[tuple[str, bool]]:
        return zip(self._types, self._indexed, strict=True)


def encode(types: tuple[str, ...] | list[str], *values: object) -> bytes:
    """Values as the ABI writes them."""
    return _encode(list(types), values)


def decode(types: tuple[str, ...] | list[str], data: bytes) -> tuple[Any, ...]:
    """Values from what the ABI wrote. Raises BadMessage."""
    try:
        values = _decode(list(types), data)
    except Exception as error:  # whatever hostile bytes bring the library to
        raise BadMessage(
            f"A contract answered with {len(data)} bytes that are not what was asked for; "
            "check the address of the contract."
        ) from error
    return tuple(_checksummed(k, v) for k, v in zip(types, values, strict=True))


def address_topic(address: str) -> bytes:
    """An address as an indexed parameter."""
    return bytes.fromhex(address[2:]).rjust(WORD, b"\0")


def revert_reason(data: bytes) -> str:
    """Why a contract refused, from what it returned; empty if it did not say."""
    try:
        if data[:SELECTOR] == ERROR:
            return _printable(str(decode(["string"], data[SELECTOR:])[0]))
        if data[:SELECTOR] == PANIC:
            return f"panic {decode(['uint256'], data[SELECTOR:])[0]:#x}"
    except BadMessage:
        pass
    return f"error 0x{data[:SELECTOR].hex()}" if data else ""


def _checksummed(kind: str, value: Any) -> Any:
    if kind == "address":
        return to_checksum_address(value)
    if kind == "address[]":
        return tuple(to_checksum_address(each) for each in value)
    return value


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable())[:REASON_CHARS_MAX]
