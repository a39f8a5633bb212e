"""What the pool says to one orchestrator about its runners, in HTTP requests.

Every answer is bounded in size and time; failures come as `Refused`, `BadMessage`, `Timeout` or
`Unavailable`. When to say what is decided in `pool.live_runner`.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Self
from urllib.parse import quote

import aiohttp

from openpool.core.errors import BadMessage, Refusal, Timeout, Unavailable, reason_of
from openpool.link.tls import Trust, client_context
from openpool.link.trickle import Publisher, Ssl, Subscriber
from openpool.wire import live_runner as wire
from openpool.wire.live_runner import (
    Channel,
    Channels,
    ChannelWish,
    ChannelWishes,
    Heartbeat,
    HeartbeatReply,
)

ANSWER_S = 5.0
CONNECTIONS_MAX = 2_000
NAME_CHARS_MAX = 256
URL_CHARS_MAX = 2_000
SILENCE_S = 35.0
"""The o2r channel says something every 10 s."""
EVENT_BYTES_MAX = 4 << 10


class Refused(Refusal):
    """The orchestrator refused this."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Talk:
    """Requests to one orchestrator. Use as `async with`."""

    def __init__(self, url: str, trust: Trust) -> None:
        self._url = url.rstrip("/")
        self._trust = trust

    async def __aenter__(self) -> Self:
        # Connections are dropped sooner than servers do it, or a request may meet a closing one.
        connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX, keepalive_timeout=10.0)
        self._http = aiohttp.ClientSession(connector=connector)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.close()

    async def heartbeat(self, beat: Heartbeat, secret: str) -> HeartbeatReply:
        """Register a runner (with -orchSecret), or renew it (with its own secret)."""
        data = await self._post(wire.HEARTBEAT_PATH, wire.encode(beat), {"Authorization": secret})
        reply = wire.decode(data, HeartbeatReply, "the orchestrator's answer to a heartbeat")
        texts = (reply.runner_id, reply.heartbeat_secret)
        if not reply.runner_id or not all(_is_plain(text) for text in texts):
            raise BadMessage("the orchestrator gives no usable runner id and secret")
        if reply.o2r and len(reply.o2r.url) > URL_CHARS_MAX:
            raise BadMessage("the orchestrator gives a channel with an absurdly long address")
        return reply

    async def unregister(self, runner_id: str, secret: str) -> None:
        """End a registration and all its sessions."""
        path = f"/runners/{quote(runner_id, safe='')}/unregister"
        await self._post(path, b"", {"Authorization": secret})

    async def stop_session(self, runner_id: str, session: str, token: str) -> None:
        """Release a session, so that nobody pays for it any longer.

        By the address that heartbeats go to: the one in the session's own headers is meant for
        machines that may be elsewhere.
        """
        path = f"{_session_path(runner_id, session)}/stop"
        await self._post(path, b"", {wire.TOKEN_HEADER: token})

    async def make_channels(
        self, runner_id: str, session: str, token: str, wishes: list[ChannelWish]
    ) -> list[Channel]:
        """Trickle channels that end with the session."""
        path = f"{_session_path(runner_id, session)}/channels"
        body = wire.encode(ChannelWishes(channels=wishes))
        data = await self._post(path, body, {wire.TOKEN_HEADER: token})
        made = wire.decode(data, Channels, "the orchestrator's answer about channels").channels
        if [each.name for each in made] != [each.name for each in wishes]:
            raise BadMessage("the orchestrator made other channels than it was asked for")
        return made

    def subscriber(self, channel: Channel, *, silence_s: float, piece_bytes_max: int) -> Subscriber:
        """A channel from its beginning."""
        return Subscriber(
            self._http,
            channel.internal_url or channel.url,
            ssl=self._ssl,
            start=0,
            silence_s=silence_s,
            piece_bytes_max=piece_bytes_max,
        )

    def publisher(self, channel: Channel) -> Publisher:
        """A channel to be written."""
        return Publisher(self._http, channel.internal_url or channel.url, ssl=self._ssl)

    def events(self, url: str) -> Subscriber:
        """The o2r channel of a runner, from its next message on."""
        return Subscriber(
            self._http,
            url,
            ssl=self._ssl,
            silence_s=SILENCE_S,
            piece_bytes_max=EVENT_BYTES_MAX,
        )

    @property
    def _ssl(self) -> Ssl:
        if self._trust.verify:
            return True
        if self._trust.current:
            return aiohttp.Fingerprint(bytes.fromhex(self._trust.current))
        return client_context(verify=False, alpn=("http/1.1",))

    async def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        try:
            async with self._http.post(
                self._url + path,
                data=body,
                headers={"Content-Type": "application/json", **headers},
                ssl=self._ssl,
                timeout=aiohttp.ClientTimeout(total=ANSWER_S),
                allow_redirects=False,
            ) as response:
                data = await _bounded(response)
        except TimeoutError:
            raise Timeout(f"the orchestrator at {self._url} does not answer") from None
        except aiohttp.ServerFingerprintMismatch:
            raise Unavailable(
                f"the orchestrator at {self._url} shows another certificate than before; "
                "nothing was sent"
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(
                f"cannot reach the orchestrator at {self._url}: {reason_of(error)}"
            ) from None
        if response.status >= 500:
            raise Unavailable(f"the orchestrator at {self._url} answers {response.status}")
        if response.status not in (200, 204):
            raise Refused(response.status, data[:500].decode(errors="replace").strip())
        return data


def _session_path(runner_id: str, session: str) -> str:
    return f"/runner/{quote(runner_id, safe='')}/session/{quote(session, safe='')}"


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > wire.REPLY_BYTES_MAX:
            raise BadMessage("the orchestrator's answer is absurdly long")
    return bytes(data)


def _is_plain(text: str) -> bool:
    return len(text) <= NAME_CHARS_MAX and text.isascii() and text.isprintable()
