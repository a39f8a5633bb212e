"""Connections that we dial: nothing is sent on one before its certificate is trusted."""

import asyncio
import ssl
from collections.abc import Callable
from typing import TypeVar, cast

from openpool.core.errors import BadMessage, PeerError, Unauthorized, Unavailable, reason_of
from openpool.link.http2 import CLOSE_S, Http2Connection, Http2Limits
from openpool.link.tls import Trust, client_context


class DialledConnection(Http2Connection):
    """A connection to a server that must show the right certificate and speak our protocol."""

    def __init__(
        self, trust: Trust, *, client: bool, alpn: str, foreign: str, limits: Http2Limits
    ) -> None:
        """`foreign` is the sentence about a server that does not speak `alpn`."""
        super().__init__(client=client, limits=limits)
        self.fingerprint = ""
        self.refused: PeerError | None = None
        self.alpn = alpn
        self._foreign = foreign
        self._trust = trust

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tls = cast(ssl.SSLObject, transport.get_extra_info("ssl_object"))
        try:
            self.fingerprint = self._trust.check(tls.getpeercert(binary_form=True) or b"")
            if tls.selected_alpn_protocol() != self.alpn:
                raise BadMessage(self._foreign)
        except PeerError as error:
            self.refused = error
            cast(asyncio.Transport, transport).abort()
            return
        super().connection_made(transport)


C = TypeVar("C", bound=DialledConnection)


async def dial_with(
    make: Callable[[], C], host: str, port: int, trust: Trust, *, alpn: str, timeout_s: float
) -> C:
    """Connect and check the certificate; Unauthorized if it is wrong, Unavailable if it fails."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            _, connection = await loop.create_connection(
                make,
                host,
                port,
                ssl=client_context(verify=trust.verify, alpn=(alpn,)),
                server_hostname=host,
                ssl_shutdown_timeout=CLOSE_S,
            )
    except ssl.SSLCertVerificationError as error:
        raise Unauthorized(f"the certificate of {host}:{port} is not trusted: {error}") from None
    except TimeoutError:
        raise Unavailable(f"{host}:{port} did not answer within {timeout_s:g} s") from None
    except ssl.SSLError as error:
        words = (error.reason or str(error)).replace("_", " ").lower()
        raise Unavailable(
            f"what listens at {host}:{port} does not speak TLS as we do ({words})"
        ) from None
    except OSError as error:
        raise Unavailable(f"cannot connect to {host}:{port}: {reason_of(error)}") from None
    if connection.refused is not None:
        raise connection.refused
    return connection
