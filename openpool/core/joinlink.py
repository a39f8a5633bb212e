"""The link that a pool publishes and a worker starts with.

    openpool://HOST:PORT?pin=<sha256 of the pool's certificate, hex>&web=<url>&invite=<code>

It holds no secret but the invite. Pure text to value and back; strict, since people paste it.
"""

import ipaddress
import re
from urllib.parse import parse_qsl, quote, urlsplit

from msgspec import Struct

from openpool.core.errors import SetupError

SCHEME = "openpool"
LINK_CHARS_MAX = 2_000
DEFAULT_PORT = 8936
BAD_FORM = "A join link has the form openpool://HOST:PORT?pin=…&web=…; copy it again, in quotes."
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?")


class JoinLink(Struct, frozen=True, kw_only=True):
    """Where a pool is, and how to be sure that it is the one."""

    host: str
    port: int = DEFAULT_PORT
    pin: str = ""
    """Hex SHA-256 of the pool's certificate (DER)."""
    web: str = ""
    """Address of its pages and API, where enrolling is done."""
    invite: str = ""

    @property
    def address(self) -> str:
        """`host:port` of the worker port, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def build_join_link(link: JoinLink) -> str:
    """The text of a link."""
    parts = {"pin": link.pin, "web": link.web, "invite": link.invite}
    query = "&".join(f"{name}={quote(text, safe=':/')}" for name, text in parts.items() if text)
    return f"{SCHEME}://{link.address}" + (f"?{query}" if query else "")


def parse_join_link(text: str) -> JoinLink:
    """The inverse of `build_join_link`. Raises SetupError that says what is wrong with the link."""
    text = text.strip()
    if len(text) > LINK_CHARS_MAX or not text.isprintable() or not text.isascii():
        raise SetupError("This is no join link; copy it again from the pool's page.")
    if not text.startswith(f"{SCHEME}://"):
        raise SetupError(
            "A join link begins with openpool://; copy it again from the pool's page, in quotes."
        )
    try:
        parts = urlsplit(text)
    except ValueError:
        raise SetupError(BAD_FORM) from None
    if parts.path not in {"", "/"} or parts.fragment or "@" in parts.netloc:
        raise SetupError(BAD_FORM)
    options = _options(parts.query)
    return JoinLink(
        host=_host(parts.hostname or ""),
        port=_port(parts.netloc),
        pin=_pin(options.get("pin", "")),
        web=_web(options.get("web", "")),
        invite=_invite(options.get("invite", "")),
    )


def _options(query: str) -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise SetupError(BAD_FORM) from None
    for name, text in pairs:
        if name not in {"pin", "web", "invite"}:
            raise SetupError(f"The join link has an unknown part `{name[:20]}`; copy it again.")
        if name in found:
            raise SetupError(f"The join link has `{name}` twice; copy it again.")
        found[name] = text
    return found


def _host(host: str) -> str:
    if ":" in host:
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError:
            raise SetupError(f"The join link names no IPv6 address: {host}.") from None
    if not HOST.fullmatch(host):
        raise SetupError("The join link names no host; it has the form openpool://HOST:PORT?….")
    return host


def _port(netloc: str) -> int:
    match = re.fullmatch(r"(?:\[[^\]]*\]|[^:]*)(?::([0-9]{1,5}))?", netloc)
    port = int(match[1] or DEFAULT_PORT) if match else 0
    if not 0 < port < 65536:
        raise SetupError("The port in the join link must be a number from 1 to 65535.")
    return port


def _pin(text: str) -> str:
    pin = text.lower().replace(":", "")
    if pin and not re.fullmatch(r"[0-9a-f]{64}", pin):
        raise SetupError(
            "The pin in the join link must be 64 hexadecimal digits (SHA-256 of the pool's "
            "certificate); the link may have been cut off: copy it again."
        )
    return pin


def _web(text: str) -> str:
    if not text:
        return ""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or "@" in parts.netloc:
        raise SetupError("`web` in the join link must be an http:// or https:// address.")
    return text.rstrip("/")


def _invite(text: str) -> str:
    if text and not re.fullmatch(r"[A-Za-z0-9_-]{8,100}", text):
        raise SetupError("The invite in the join link is not one; ask the operator for a new link.")
    return text
