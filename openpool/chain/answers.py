"""From the JSON of an endpoint to our values. Whatever is not as it must be raises BadMessage."""

import re
from collections.abc import Mapping
from typing import Any

from eth_utils.address import to_checksum_address

from openpool.chain.abi import revert_reason
from openpool.chain.interface import Block, Log, Receipt, Reverted, SendFault
from openpool.chain.rpc import RpcError, data, fields, hash_text, number
from openpool.core.errors import BadMessage

TOPICS_MAX = 4
EXECUTION_FAILED = 3
REFUSALS = re.compile(
    r"revert|out of gas|invalid opcode|gas required exceeds|intrinsic gas|enough funds"
    r"|insufficient (funds|balance)",
    re.IGNORECASE,
)
TOO_WIDE = re.compile(
    r"range|too many|more than|limit|exceed|too large|timed? ?out|response size", re.IGNORECASE
)
SEND_FAULTS: Mapping[SendFault, re.Pattern[str]] = {
    "known": re.compile(r"already (known|imported)|known transaction|already exists", re.I),
    "nonce-too-low": re.compile(r"nonce( is)? too low|old nonce|nonce has already", re.I),
    "underpriced": re.compile(
        r"underpriced|less than block base fee|fee too low|gas price too low", re.I
    ),
    "insufficient-funds": re.compile(r"insufficient (funds|balance)|enough funds", re.I),
}


def address(value: object) -> str:
    """An address with its checksum."""
    return str(to_checksum_address(data(value, 20)))


def block(value: object) -> Block:
    found = fields(value)
    return Block(
        number=number(found.get("number")),
        hash=hash_text(found.get("hash")),
        time_s=number(found.get("timestamp")),
    )


def log(value: object) -> Log:
    found = fields(value)
    topics = found.get("topics")
    if not isinstance(topics, list) or len(topics) > TOPICS_MAX:
        raise BadMessage("its log has no list of topics")
    return Log(
        address=address(found.get("address")),
        topics=tuple(data(topic, 32) for topic in topics),
        data=data(found.get("data")),
        block=number(found.get("blockNumber")),
        block_hash=hash_text(found.get("blockHash")),
        tx=hash_text(found.get("transactionHash")),
        index=number(found.get("logIndex")),
    )


def logs(value: object) -> list[Log]:
    """Those that are still valid, in order."""
    if not isinstance(value, list):
        raise BadMessage("its logs are no list")
    found = [log(each) for each in value if not fields(each).get("removed")]
    return sorted(found, key=lambda each: (each.block, each.index))


def receipt(value: object, tx: str) -> Receipt | None:
    """The receipt of this transaction, or None."""
    if value is None:
        return None
    found = fields(value)
    if found.get("blockHash") is None:  # some nodes have one for what still waits
        return None
    if hash_text(found.get("transactionHash")) != tx:
        raise BadMessage("its receipt is that of another transaction")
    gas = number(found.get("gasUsed"))
    return Receipt(
        tx=tx,
        block=number(found.get("blockNumber")),
        block_hash=hash_text(found.get("blockHash")),
        ok=number(found.get("status")) == 1,
        fee_wei=gas * number(found.get("effectiveGasPrice")),
        gas_used=gas,
        logs=tuple(logs(found.get("logs"))),
    )


def refusal(error: RpcError) -> Reverted | None:
    """What a contract said, if it was the contract (or the state of an account) that refused."""
    if reason := revert_reason(error.data):
        return Reverted(f"The contract refused: {reason}.")
    if error.code == EXECUTION_FAILED or REFUSALS.search(error.message):
        return Reverted(f"The chain refused: {plain(error.message)}.")
    return None


def is_too_wide(error: RpcError) -> bool:
    """Whether the endpoint wants fewer blocks at once."""
    return bool(TOO_WIDE.search(error.message))


def send_fault(message: str) -> SendFault:
    """Why a transaction was not taken; nodes differ in their words."""
    for fault, pattern in SEND_FAULTS.items():
        if pattern.search(message):
            return fault
    return "refused"


def plain(text: Any) -> str:
    """A node's words, fit for a line of a log."""
    return "".join(c for c in str(text) if c.isprintable()).rstrip(".")
