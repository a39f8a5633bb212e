"""Ethereum signatures (eth-account), and nothing else that comes with importing it.

One of its dependencies raises Python's recursion limit a hundredfold. Parsers in C rely on that
limit to refuse deeply nested input: without it a hostile JSON body could end the process. So the
limit is put back here, and the rest of the project imports eth-account from here only.
"""

import sys
from typing import Any

_limit = sys.getrecursionlimit()

from eth_account import Account  # noqa: E402
from eth_account.messages import encode_defunct  # noqa: E402
from eth_account.signers.local import LocalAccount  # noqa: E402
from eth_account.typed_transactions.typed_transaction import TypedTransaction  # noqa: E402
from rlp import encode as _encode  # type: ignore[import-untyped]  # noqa: E402

sys.setrecursionlimit(_limit)

__all__ = ["Account", "LocalAccount", "TypedTransaction", "encode_defunct", "rlp_encode"]


def rlp_encode(items: list[Any]) -> bytes:
    """Numbers, bytes and lists of them, as Ethereum writes them."""
    return bytes(_encode(items))
