"""The orchestrator stand-in's registry of Live Runners: who is registered, which sessions run.

Secrets, refusals and their texts, expiry and prices are the real one's (docs/protocol.md).
No sockets here; `demo.live_runner` is its door.
"""

import hmac
import math
import secrets
import time
from base64 import b32encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from hashlib import sha256
from urllib.parse import urlsplit

from msgspec import structs

from openpool.demo.trickle import Channel, TrickleServer
from openpool.wire import live_runner as wire
from openpool.wire.live_runner import Heartbeat, HeartbeatReply

METADATA_BYTES_MAX = 1024
UNIT_SHARE = {"hour": 3600, "720p": 3600 * 1280 * 720 * 30, "fixed": 1}
UNIT_WEI = {"hour": "seconds", "720p": "720p-pixel-seconds", "fixed": "fixed"}


class Refused(Exception):
    """Answered with this status and text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(slots=True)
class RunnerSession:
    """One sold session."""

    id: str
    began: float
    channels: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Runner:
    """One registration."""

    beat: Heartbeat
    seed: bytes
    o2r: Channel
    o2r_name: str
    last_beat: float = 0.0
    sessions: dict[str, RunnerSession] = field(default_factory=dict)

    def derive(self, label: str) -> str:
        """A secret of this runner."""
        digest = hmac.digest(self.seed, label.encode(), sha256)
        return b32encode(digest).decode().rstrip("=").lower()

    @property
    def serving(self) -> bool:
        return self.beat.status in ("", "ready")


class Registry:
    """All runners of one run of the orchestrator."""

    def __init__(
        self,
        *,
        secret: str,
        url: str,
        trickle: TrickleServer,
        wei_per_usd: Fraction | None,
        interval_s: float,
        ttl_s: float,
    ) -> None:
        """Without a rate (off-chain) nothing costs anything and prices are not looked at."""
        self.runners: dict[str, Runner] = {}
        self._secret = secret
        self._url = url
        self._trickle = trickle
        self._wei_per_usd = wei_per_usd
        self._interval_s = interval_s
        self._ttl_s = ttl_s

    # --- runners -------------------------------------------------------------------------------

    def heartbeat(self, beat: Heartbeat, auth: str) -> HeartbeatReply:
        """Register a runner, or renew it."""
        beat = structs.replace(beat, runner_id=beat.runner_id.strip() or f"runner_{_random(5)}")
        beat = self._normal(beat)
        runner = self.runners.get(beat.runner_id)
        if runner is None:
            return self._register(beat, auth)
        if self._expired(runner):
            raise Refused(404, "runner not found")
        if not _same(auth, runner.derive("heartbeat")):
            raise Refused(401, "invalid heartbeat authorization")
        runner.beat, runner.last_beat = beat, time.monotonic()
        return self._reply(runner)

    def _register(self, beat: Heartbeat, auth: str) -> HeartbeatReply:
        if not self._secret:
            raise Refused(404, "dynamic live runner registration is disabled")
        if not _same(auth, self._secret):
            raise Refused(401, "invalid registration authorization")
        name = f"{beat.runner_id}-{_random(10)}-o2r"
        runner = self.runners[beat.runner_id] = Runner(
            beat=beat,
            seed=secrets.token_bytes(32),
            o2r=self._trickle.create(name, "application/json"),
            o2r_name=name,
            last_beat=time.monotonic(),
        )
        channel = wire.Channel(
            name="o2r",
            channel_name=name,
            url=f"{self._url}/ai/trickle/{name}",
            mime_type="application/json",
        )
        secret = runner.derive("heartbeat")
        return structs.replace(self._reply(runner), heartbeat_secret=secret, o2r=channel)

    def _reply(self, runner: Runner) -> HeartbeatReply:
        return HeartbeatReply(
            runner_id=runner.beat.runner_id,
            orchestrator=self._url,
            heartbeat_interval=f"{self._interval_s:g}s",
            heartbeat_ttl=f"{self._ttl_s:g}s",
            session_ids=list(runner.sessions),
        )

    def _normal(self, beat: Heartbeat) -> Heartbeat:
        url = urlsplit(beat.runner_url)
        mode = {"": "persistent", "single_shot": "single-shot"}.get(beat.mode, beat.mode)
        rules: list[tuple[object, str]] = [
            (url.scheme in ("http", "https") and url.netloc, "invalid runner_url"),
            (beat.app and beat.app == beat.app.strip(), "app must be trimmed"),
            (len(beat.metadata.encode()) <= METADATA_BYTES_MAX, "metadata is too long"),
            (beat.status == beat.status.strip().lower(), "status must be lowercase and trimmed"),
            (mode in ("persistent", "single-shot"), "mode must be persistent or single-shot"),
            (beat.capacity >= 0, "capacity must be >= 0"),
        ]
        if self._wei_per_usd is not None:
            price = beat.price_info
            rules += [
                (price and price.price > 0, "price_info.price must be a positive decimal"),
                (not price or price.currency == "usd", "price_info.currency must be usd"),
            ]
        for fine, wrong in rules:
            if not fine:
                raise Refused(400, wrong)
        return structs.replace(beat, mode=mode, capacity=beat.capacity or 1)

    def unregister(self, runner_id: str, auth: str) -> None:
        runner = self.find(runner_id)
        if not _same(auth, runner.derive("heartbeat")):
            raise Refused(401, "invalid authorization")
        self._remove(runner_id)

    def sweep(self) -> None:
        """Drop who has not been heard of for too long, with all sessions."""
        for runner_id, runner in list(self.runners.items()):
            if self._expired(runner):
                self._remove(runner_id)

    def _remove(self, runner_id: str) -> None:
        runner = self.runners.pop(runner_id)
        for session in list(runner.sessions):
            self.release(runner, session)
        self._trickle.close(runner.o2r_name)

    def _expired(self, runner: Runner) -> bool:
        return time.monotonic() - runner.last_beat > self._ttl_s

    def find(self, runner_id: str) -> Runner:
        runner = self.runners.get(runner_id)
        if runner is None or self._expired(runner):
            raise Refused(404, "runner not found")
        return runner

    def serving(self, runner_id: str) -> Runner:
        runner = self.find(runner_id)
        if not runner.serving:
            raise Refused(404, "runner not found")
        return runner

    # --- sessions ------------------------------------------------------------------------------

    def reserve(self, runner: Runner, session: str = "") -> RunnerSession:
        """Sell one session."""
        session = session or self.new_session_id()
        if session in runner.sessions:
            raise Refused(409, "session already exists")
        if len(runner.sessions) >= runner.beat.capacity:
            raise Refused(503, "no capacity available for runner")
        made = runner.sessions[session] = RunnerSession(session, time.monotonic())
        self._tell(runner, "reserved", session)
        return made

    def new_session_id(self) -> str:
        return f"session_{_random(5)}"

    def session(self, runner: Runner, session: str) -> RunnerSession:
        found = runner.sessions.get(session)
        if found is None:
            raise Refused(404, "runner session not found")
        return found

    def release(self, runner: Runner, session: str) -> None:
        """End a session; ending it twice is no error."""
        if ended := runner.sessions.pop(session, None):
            self._tell(runner, "released", session)
            for channel in ended.channels:
                self._trickle.close(channel)

    def check_token(self, runner: Runner, session: str, token: str) -> None:
        self.session(runner, session)
        if not _same(token, runner.derive(f"session:{session}")):
            raise Refused(401, "invalid authorization")

    def _tell(self, runner: Runner, event: str, session: str) -> None:
        now = datetime.now(UTC).isoformat()
        message = wire.SessionEvent(event=event, session=session, timestamp=now)
        runner.o2r.write(wire.encode(message))

    # --- prices and discovery ------------------------------------------------------------------

    def price_wei(self, runner: Runner) -> tuple[int, str] | None:
        """Whole wei per unit, and the unit; None off-chain."""
        price = runner.beat.price_info
        if self._wei_per_usd is None or price is None:
            return None
        wei = math.floor(Fraction(price.price) * self._wei_per_usd / UNIT_SHARE[price.unit])
        if wei <= 0:
            text = "converted live runner price must be at least one wei"
            raise Refused(503, f"live runner price unavailable: {text}")
        return wei, UNIT_WEI[price.unit]

    def discovery(self) -> Iterator[dict[str, object]]:
        """What customers see of each runner that serves."""
        for runner_id, runner in self.runners.items():
            if runner.serving and not self._expired(runner):
                yield self._shown(runner_id, runner)

    def _shown(self, runner_id: str, runner: Runner) -> dict[str, object]:
        beat, used = runner.beat, len(runner.sessions)
        last = "app" if beat.mode == "single-shot" else "session"
        shown: dict[str, object] = {
            "url": f"{self._url}/apps/{runner_id}/{last}",
            "app": beat.app,
            "version": beat.version,
            "mode": beat.mode,
            "capacity": beat.capacity,
            "capacity_used": used,
            "capacity_available": beat.capacity - used,
        }
        if beat.gpu:
            shown["gpu"] = structs.asdict(beat.gpu)
        if beat.metadata:
            shown["metadata"] = beat.metadata
        if price := self.price_wei(runner):
            shown["price_info"] = {"price": price[0], "currency": "wei", "unit": price[1]}
        return shown


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())


def _random(count: int) -> str:
    return b32encode(secrets.token_bytes(count)).decode().rstrip("=").lower()
