"""The key of an Ethereum address, for signing what the pool asks to be signed (EIP-191).

A wallet is a keystore file (v3, with a passphrase) or a file with a private key in hex. Both must
be readable by their owner only. Must never log, print or return a key, and never sends a
transaction.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from openpool.core.enrolment import checked_address
from openpool.core.errors import PeerError, SetupError
from openpool.ethereum import Account, LocalAccount, encode_defunct
from openpool.private_files import read_private_text, write_private

Passphrase = Callable[[], str]
"""Asks for a passphrase, when and only when one is needed."""

WHAT = "The wallet file"
KDF_N_MAX = 1 << 20
"""A keystore that asks for more than this (1 GiB of memory) is not opened."""


class Wallet:
    """An address that can sign."""

    def __init__(self, account: LocalAccount) -> None:
        self._account = account

    @property
    def address(self) -> str:
        """With its checksum."""
        return str(self._account.address)

    def sign(self, message: str) -> str:
        """The signature of a text (EIP-191), `0x…`, 65 bytes."""
        return (
            "0x" + bytes(self._account.sign_message(encode_defunct(text=message)).signature).hex()
        )

    def sign_transaction(self, fields: Mapping[str, Any]) -> bytes:
        """The signed bytes of a transaction, its fields named as in JSON-RPC."""
        return bytes(self._account.sign_transaction(dict(fields)).raw_transaction)

    def __repr__(self) -> str:
        return f"Wallet({self.address})"


def open_wallet(path: Path, passphrase: Passphrase) -> Wallet:
    """The wallet in a file, whichever of the two kinds it is. Raises SetupError."""
    text = read_private_text(path, WHAT)
    if text.startswith("{"):
        return Wallet(_from_keystore(text, path, passphrase))
    if not re.fullmatch(r"(0x)?[0-9a-fA-F]{64}", text):
        raise SetupError(
            f"{WHAT} {path} holds neither a keystore (JSON) nor a private key of 64 hexadecimal "
            "digits."
        )
    try:
        return Wallet(Account.from_key(text))
    except Exception:  # whatever the library says could quote the key
        raise SetupError(f"{WHAT} {path} holds no valid private key.") from None


def keystore_address(path: Path) -> str:
    """The address that a keystore file says it is for, without opening it. Raises SetupError."""
    try:
        text = str(json.loads(read_private_text(path, WHAT))["address"]).removeprefix("0x")
        return checked_address(f"0x{text.lower()}")
    except (ValueError, KeyError, TypeError, PeerError):
        raise SetupError(f"{WHAT} {path} does not say its address.") from None


def create_wallet(path: Path, passphrase: str) -> Wallet:
    """A new key in a new keystore file (mode 0600). Raises SetupError if the file exists."""
    if not passphrase:
        raise SetupError("A new wallet needs a passphrase that is not empty.")
    account = Account.create()
    keystore = Account.encrypt(account.key, passphrase)
    write_private(path, json.dumps(keystore, indent=2).encode() + b"\n", replace=False)
    return Wallet(account)


def passphrase_from(path: Path) -> Passphrase:
    """Reads the passphrase from a private file, or for `-` a line of standard input."""
    if path.name == "-":
        return _from_standard_input
    return lambda: read_private_text(path, "The passphrase file")


def _from_standard_input() -> str:
    line = sys.stdin.readline().rstrip("\r\n")
    if not line:
        raise SetupError("Standard input has no line with the passphrase of the keystore.")
    return line


def _from_keystore(text: str, path: Path, passphrase: Passphrase) -> LocalAccount:
    try:
        keystore = json.loads(text)
        kdf = keystore["crypto"]["kdfparams"]
        usable = keystore["version"] == 3 and int(kdf.get("n", 1)) <= KDF_N_MAX
    except (ValueError, KeyError, TypeError, AttributeError):
        usable = False
    if not usable:
        raise SetupError(f"{WHAT} {path} is not a keystore of version 3.")
    try:
        key = Account.decrypt(keystore, passphrase())
    except SetupError:
        raise
    except ValueError as error:
        reason = "the passphrase is wrong" if "MAC" in str(error) else "it is damaged"
        raise SetupError(f"{WHAT} {path} cannot be opened: {reason}.") from None
    except Exception:
        raise SetupError(f"{WHAT} {path} cannot be opened: it is damaged.") from None
    account: LocalAccount = Account.from_key(key)
    return account
