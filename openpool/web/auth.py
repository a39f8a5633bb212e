"""Who is asking, and what they may see.

Three roles: the public, a worker (its own data), the operator (everything). A visitor shows a
bearer secret on every request, or signs in once and holds a cookie. Sessions live in memory:
a restart of the pool signs everybody out, and revoking needs no list of revoked cookies.
Nothing here stores a secret: cookies are kept as hashes.
"""

import hashlib
import ipaddress
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["public", "worker", "operator"]
COOKIE = "openpool_session"


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whoever sent a request."""

    role: Role = "public"
    workers: tuple[str, ...] = ()
    """The workers that a visitor of role `worker` speaks for."""
    address: str = ""
    """The wallet that signed in, where it was a wallet."""

    def may_see(self, worker: str) -> bool:
        return self.role == "operator" or worker in self.workers


PUBLIC = Visitor()
OPERATOR = Visitor(role="operator")


class Sessions:
    """Signed-in visitors by cookie; bounded, and each ends by itself."""

    def __init__(self, *, lifetime_ms: int = 12 * 3600 * 1000, most: int = 10_000) -> None:
        self.lifetime_ms = lifetime_ms
        self._most = most
        self._visitors: OrderedDict[bytes, tuple[int, Visitor]] = OrderedDict()

    def open(self, visitor: Visitor, now_ms: int) -> str:
        """The cookie of a new session. The oldest session ends if there are too many."""
        cookie = secrets.token_urlsafe(32)
        self._visitors[_digest(cookie)] = (now_ms + self.lifetime_ms, visitor)
        while len(self._visitors) > self._most:
            self._visitors.popitem(last=False)
        return cookie

    def find(self, cookie: str, now_ms: int) -> Visitor | None:
        key = _digest(cookie)
        ends_ms, visitor = self._visitors.get(key, (0, None))
        if ends_ms <= now_ms:
            self._visitors.pop(key, None)
            return None
        return visitor

    def close(self, cookie: str) -> None:
        self._visitors.pop(_digest(cookie), None)


def _digest(cookie: str) -> bytes:
    return hashlib.blake2b(cookie.encode(errors="replace"), digest_size=32).digest()


@dataclass(slots=True)
class RateLimit:
    """A token bucket per client: `burst` at once, then `per_minute`. Remembers `most` clients."""

    per_minute: int
    burst: int
    most: int = 10_000
    _buckets: OrderedDict[str, tuple[int, int]] = field(default_factory=OrderedDict)
    """Client -> (tokens in 1/60000, time of that count in ms)."""

    def take(self, client: str, now_ms: int) -> bool:
        """Whether this client may do it once more now."""
        level = self._level(client, now_ms)
        allowed = level >= 60_000
        self._buckets[client] = (level - 60_000 if allowed else level, now_ms)
        self._buckets.move_to_end(client)
        while len(self._buckets) > self.most:
            self._buckets.popitem(last=False)
        return allowed

    def is_spent(self, client: str, now_ms: int) -> bool:
        """Whether `take` would refuse; takes nothing."""
        return self._level(client, now_ms) < 60_000

    def _level(self, client: str, now_ms: int) -> int:
        full = self.burst * 60_000
        level, then_ms = self._buckets.get(client, (full, now_ms))
        return min(full, level + max(0, now_ms - then_ms) * self.per_minute)


def client_key(host: str) -> str:
    """Whom a limit counts: an IPv4 address, or a whole IPv6 /64, which one client owns."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return host
