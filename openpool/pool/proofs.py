"""Proofs of address: the message that a wallet is to sign, and the check of what it signed.

Nonces need no storage: they are hashes keyed by this process alone, which it recognises; only
the used ones are remembered until they expire. So nobody can fill a table by asking, and after a
restart an unfinished sign-in begins again. Rules are in `core.enrolment`.
"""

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b

from openpool.core.enrolment import (
    Message,
    build_message,
    check_message,
    checked_address,
    parse_message,
)
from openpool.core.errors import BadMessage, NoCapacity, Unauthorized
from openpool.ethereum import Account, encode_defunct

USED_NONCES_MAX = 100_000


class AddressProofs:
    """Writes messages for wallets to sign, and takes each back at most once."""

    def __init__(
        self,
        *,
        pool_name: str,
        domain: str,
        uri: str,
        chain_id: int,
        terms_digest: str,
        lifetime_ms: int,
        clock_ms: Callable[[], int],
    ) -> None:
        self._template = Message(
            domain=domain,
            address="",
            statement=(
                f"Prove to {pool_name} that this address is yours. "
                "Enrolling a worker with this message accepts the terms it names."
            ),
            uri=uri,
            chain_id=chain_id,
            nonce="",
            issued_ms=0,
            expires_ms=0,
            terms=terms_digest,
        )
        self._lifetime_ms = lifetime_ms
        self._clock_ms = clock_ms
        self._key = secrets.token_bytes(32)
        self._used: OrderedDict[str, int] = OrderedDict()
        """Used nonce -> when it may be forgotten, soonest first."""

    def message(self, address: str) -> str:
        """The text for the owner of `address` to sign. Raises BadMessage if that is no address."""
        address, now_ms = checked_address(address), self._clock_ms()
        template = self._template
        return build_message(
            Message(
                domain=template.domain,
                address=address,
                statement=template.statement,
                uri=template.uri,
                chain_id=template.chain_id,
                nonce=self._nonce(secrets.token_hex(8), address, now_ms),
                issued_ms=now_ms,
                expires_ms=now_ms + self._lifetime_ms,
                terms=template.terms,
            )
        )

    def redeem(self, text: str, signature: str) -> str:
        """The address that signed `text`, which is used up by this.

        Raises BadMessage, Unauthorized, NotAllowed (the terms have changed) or NoCapacity.
        """
        message, now_ms = parse_message(text), self._clock_ms()
        check_message(message, self._template, now_ms)
        signer = recover(text, signature)
        if signer != message.address:
            raise Unauthorized(
                f"The message names {message.address}, but {signer} signed it; "
                "sign with the wallet of the address to be paid."
            )
        self._use(message, now_ms)
        return signer

    def _nonce(self, salt: str, address: str, issued_ms: int) -> str:
        text = f"{salt}{address}{issued_ms}".encode()
        return salt + blake2b(text, key=self._key, digest_size=16).hexdigest()

    def _use(self, message: Message, now_ms: int) -> None:
        expected = self._nonce(message.nonce[:16], message.address, message.issued_ms)
        lifetime_ms = message.expires_ms - message.issued_ms
        if not hmac.compare_digest(expected, message.nonce) or lifetime_ms != self._lifetime_ms:
            raise Unauthorized(
                "The nonce in the message was not given out by this pool since its last start; "
                "ask the pool for a new message to sign."
            )
        if message.nonce in self._used:
            raise Unauthorized(
                "This message was used already; ask the pool for a new message to sign."
            )
        while self._used and next(iter(self._used.values())) <= now_ms:
            self._used.popitem(last=False)
        if len(self._used) >= USED_NONCES_MAX:
            raise NoCapacity("Too many sign-ins at the moment; try again in some minutes.")
        # a whole lifetime from now is longer than needed, but keeps the order of use that of expiry
        self._used[message.nonce] = now_ms + self._lifetime_ms


def recover(text: str, signature: str) -> str:
    """The address whose key signed a text (EIP-191). Raises BadMessage or Unauthorized."""
    try:
        raw = bytes.fromhex(signature.removeprefix("0x"))
    except ValueError:
        raw = b""
    if len(raw) != 65:
        raise BadMessage("A signature is 0x and 130 hexadecimal digits.")
    try:
        return str(Account.recover_message(encode_defunct(text=text), signature=raw))
    except Exception:  # the library raises several kinds of its own
        raise Unauthorized("The signature is not one that any key could have made.") from None
