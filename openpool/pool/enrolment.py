"""Who belongs to the pool: tokens, invitations, approval.

The shell around `core.enrolment`. Tokens and workers are held in memory, so that recognising a
secret never waits for a disk; every change is on disk before it is answered, and workers are
read back from what the log says of them. Must not know HTTP, nor end streams itself: whoever
runs it passes `on_revoked` and `on_banned`. How addresses are proven: `pool.proofs`.
"""

import asyncio
import hmac
import secrets
from collections.abc import Callable, Collection, Sequence
from hashlib import blake2b
from typing import Protocol

import msgspec

from openpool.core.enrolment import (
    AuthenticatedWorker,
    Enrolled,
    SignedIn,
    State,
    Terms,
    checked_name,
    terms_digest,
    token_hash,
    token_id,
    token_text,
    worker_id,
)
from openpool.core.errors import Banned, NoCapacity, NotAllowed, Unauthorized
from openpool.core.events import (
    AnyPayload,
    Event,
    TokenIssued,
    TokenRevoked,
    WorkerApproved,
    WorkerBanned,
    WorkerEnrolled,
)
from openpool.core.texts import one_line
from openpool.pool.proofs import AddressProofs
from openpool.pool.token_rows import LABEL_CHARS_MAX, is_over, replaced_ms, token_row
from openpool.store.interface import Appender, InviteRow, Receipt, TokenRow, WorkerRow

DEFAULT_GROUP = "default"
TOKENS_PER_WORKER = 50
LAST_USED_EVERY_S = 60.0
INVITE_MS = 30 * 24 * 3_600_000

NamedFact = tuple[str, AnyPayload]
"""An event without its time: its id and what happened."""


class EnrolmentStore(Protocol):
    """The part of the store that is needed here (see `store.interface`)."""

    def workers(self) -> list[WorkerRow]: ...
    def tokens(self, worker: str = "") -> list[TokenRow]: ...
    async def put_token(self, row: TokenRow) -> None: ...
    async def touch_token(self, token: str, now_ms: int) -> None: ...
    async def expire_token(self, token: str, expires_ms: int) -> None: ...
    async def revoke_token(self, token: str, now_ms: int) -> bool: ...
    async def put_invite(self, row: InviteRow) -> None: ...
    async def take_invite(self, secret_hash: bytes, now_ms: int) -> InviteRow | None: ...


class Member(msgspec.Struct):
    """A worker as far as belonging goes."""

    worker: str
    address: str
    name: str
    group: str
    state: State


def _nobody(*_: str) -> None:
    """Told of an end, does nothing."""


class Enrolment:
    """Admits workers, recognises their secrets, and lets the operator decide."""

    def __init__(
        self,
        *,
        store: EnrolmentStore,
        appender: Appender,
        clock_ms: Callable[[], int],
        pool_name: str,
        domain: str,
        uri: str,
        chain_id: int,
        public: bool,
        terms: str,
        secret_key: bytes,
        commission_ppm: Callable[[str], int],
        groups: Collection[str] = (),
        nonce_ms: int = 600_000,
        grace_ms: int = 86_400_000,
        workers_per_address: int = 200,
        workers_max: int = 100_000,
        on_revoked: Callable[[str, str, str], None] = _nobody,
        on_banned: Callable[[str, str], None] = _nobody,
    ) -> None:
        """`secret_key` (32 bytes) keys the stored hashes; without it all tokens are worthless.

        `commission_ppm` gives the commission of a group. `on_revoked(worker, token, reason)` and
        `on_banned(worker, reason)` are called once that is on disk: streams are to be ended then.
        """
        self._store, self._appender = store, appender
        self._clock_ms = clock_ms
        self._key = secret_key
        self._commission_ppm = commission_ppm
        self._terms = Terms(
            text=terms,
            digest=terms_digest(terms),
            commission_ppm=commission_ppm(DEFAULT_GROUP),
            public=public,
        )
        self._groups = {DEFAULT_GROUP, *groups}
        self._proofs = AddressProofs(
            pool_name=pool_name,
            domain=domain,
            uri=uri,
            chain_id=chain_id,
            terms_digest=self._terms.digest,
            lifetime_ms=nonce_ms,
            clock_ms=clock_ms,
        )
        self._grace_ms = grace_ms
        self._workers_per_address, self._workers_max = workers_per_address, workers_max
        self._on_revoked, self._on_banned = on_revoked, on_banned
        self._changing = asyncio.Lock()
        self._members: dict[str, Member] = {}
        self._tokens: dict[str, TokenRow] = {}
        self._touched: set[str] = set()

    async def start(self) -> None:
        """Read who belongs to the pool; to be awaited before anything else."""
        workers, tokens = await asyncio.to_thread(
            lambda: (self._store.workers(), self._store.tokens())
        )
        for row in workers:
            if row.enrolled_ms:
                self._members[row.worker] = Member(
                    row.worker, row.address, row.name, row.group, _state(row.state)
                )
        self._tokens = {row.token: row for row in tokens}

    async def run(self) -> None:
        """Note now and then when tokens were last used; ends by cancellation."""
        while True:
            await asyncio.sleep(LAST_USED_EVERY_S)
            await self.note_used()

    async def note_used(self) -> None:
        """Put on disk when tokens were last used."""
        touched, self._touched = self._touched, set()
        for token in sorted(touched):
            await self._store.touch_token(token, self._tokens[token].last_used_ms)

    # --- proving an address --------------------------------------------------------------------

    def terms(self) -> Terms:
        """What an owner accepts when enrolling a worker."""
        commission_ppm = self._commission_ppm(DEFAULT_GROUP)
        return msgspec.structs.replace(self._terms, commission_ppm=commission_ppm)

    async def nonce(self, address: str) -> str:
        """The message that the owner of `address` is to sign: good once, for some minutes.

        Raises BadMessage if that is no address.
        """
        return self._proofs.message(address)

    async def sign_in(self, message: str, signature: str) -> SignedIn:
        """Who signed the message, for showing them their own workers."""
        address = self._proofs.redeem(message, signature)
        workers = sorted(m.worker for m in self._members.values() if m.address == address)
        return SignedIn(address=address, workers=tuple(workers))

    # --- enrolling -----------------------------------------------------------------------------

    async def enroll(
        self, *, message: str, signature: str, name: str, terms: str, invite: str = ""
    ) -> Enrolled:
        """Admit the worker `name` of whoever signed `message`, and give it a token.

        Enrolling again gives one more token. `terms` is the digest of the accepted terms. Raises
        PeerError for a proof that does not hold, Refusal where the pool declines.
        """
        name = checked_name(name)
        if terms != self._terms.digest:
            raise NotAllowed(
                "Those are not the pool's present terms; read them and accept their digest "
                f"{self._terms.digest}."
            )
        address = self._proofs.redeem(message, signature)
        async with self._changing:
            worker = worker_id(address, name)
            before = self._members.get(worker)
            self._check_room(worker, address, before)
            invited = await self._invited(invite, before) if invite else None
            after = self._admitted(worker, address, name, before, invited)
            facts = _facts_of_enrolling(before, after, self._terms.digest, secrets.token_hex(6))
            return await self._issue(after, facts, label="enrolled")

    def _check_room(self, worker: str, address: str, known: Member | None) -> None:
        if known is not None:
            if known.state == "banned":
                raise Banned("The operator has banned this worker; ask them why.")
            self._check_tokens(worker)
            return
        if len(self._members) >= self._workers_max:
            raise NoCapacity("The pool has as many workers as it takes; ask its operator.")
        of_address = sum(m.address == address for m in self._members.values())
        if of_address >= self._workers_per_address:
            raise NotAllowed(
                f"This address has {of_address} workers already, which is the most; "
                "enrol under a name that is known, or ask the operator."
            )

    def _check_tokens(self, worker: str) -> None:
        if len(self._live_tokens(worker)) >= TOKENS_PER_WORKER:
            raise NotAllowed(
                f"This worker has {TOKENS_PER_WORKER} tokens already, which is the most; "
                "revoke one with `openpool tokens revoke`."
            )

    async def _invited(self, code: str, before: Member | None) -> str | None:
        """The group that an invitation admits to; None where a worker needs none any more."""
        invite = await self._store.take_invite(self._invite_hash(code), self._clock_ms())
        if invite is not None:
            return invite.group
        if before is not None and before.state == "approved":
            return None  # the link that it came with, used once more
        raise NotAllowed(
            "This invitation is unknown, used or expired; ask the operator for a new one."
        )

    def _admitted(
        self, worker: str, address: str, name: str, before: Member | None, invited: str | None
    ) -> Member:
        approved = (
            self._terms.public
            or invited is not None
            or (before is not None and before.state == "approved")
        )
        return Member(
            worker=worker,
            address=address,
            name=name,
            group=invited or (before.group if before else DEFAULT_GROUP),
            state="approved" if approved else "pending",
        )

    async def _issue(self, member: Member, facts: Sequence[NamedFact], *, label: str) -> Enrolled:
        """Put a new token and these facts on disk, then in force."""
        secret, row = self._new_token(member.worker, label)
        issued = TokenIssued(worker=member.worker, token=row.token)
        receipt = self._record(*facts, (f"token-issued/{row.token}", issued))
        await self._store.put_token(row)
        await receipt.durable()
        self._members[member.worker] = member
        self._tokens[row.token] = row
        return Enrolled(worker=member.worker, secret=secret, state=member.state)

    def _new_token(self, worker: str, label: str) -> tuple[str, TokenRow]:
        secret = token_text(secrets.token_bytes(8), secrets.token_bytes(32))
        row = token_row(
            token_id(secret),
            secret,
            owner=worker,
            hash_key=self._key,
            now_ms=self._clock_ms(),
            label=label,
        )
        return secret, row

    def _record(self, *facts: NamedFact) -> Receipt:
        now_ms = self._clock_ms()
        return self._appender.append(
            [Event(id=id, time_ms=now_ms, data=data) for id, data in facts]
        )

    # --- tokens --------------------------------------------------------------------------------

    async def authenticate(self, secret: str) -> AuthenticatedWorker:
        """Whose secret this is, whatever the state of the worker. Raises Unauthorized."""
        row = self._tokens.get(token_id(secret))
        stored = row.secret_hash if row else bytes(32)
        if not hmac.compare_digest(stored, token_hash(secret, self._key)) or row is None:
            raise Unauthorized("This token is not known here; enrol to get one.")
        now_ms = self._clock_ms()
        if row.revoked_ms:
            raise Unauthorized("This token was revoked; enrol again or use another token.")
        if row.expires_ms and row.expires_ms <= now_ms:
            raise Unauthorized("This token has expired, since it was rotated; use the new one.")
        member = self._members.get(row.worker)
        if member is None:
            raise Unauthorized("The worker of this token is not known here; enrol again.")
        self._change_token(row.token, last_used_ms=now_ms)
        self._touched.add(row.token)
        return AuthenticatedWorker(
            worker=member.worker,
            address=member.address,
            group=member.group,
            state=member.state,
            token=row.token,
            commission_ppm=self._commission_ppm(member.group),
        )

    async def authenticate_token(self, secret: str) -> str:
        """The worker that a secret belongs to. Raises Unauthorized."""
        return (await self.authenticate(secret)).worker

    async def admit(self, secret: str) -> AuthenticatedWorker:
        """Like `authenticate`, for work: also raises Banned, or NotAllowed while pending."""
        known = await self.authenticate(secret)
        if known.state == "banned":
            raise Banned("The operator has banned this worker; ask them why.")
        if known.state == "pending":
            raise NotAllowed("The operator has not approved this worker yet; it may join then.")
        return known

    async def tokens(self, worker: str) -> list[TokenRow]:
        """All tokens of a worker, oldest first, the revoked too."""
        self._member(worker)
        mine = [row for row in self._tokens.values() if row.worker == worker]
        return sorted(mine, key=lambda row: (row.created_ms, row.token))

    def _live_tokens(self, worker: str) -> list[TokenRow]:
        now_ms = self._clock_ms()
        return [
            row
            for row in self._tokens.values()
            if row.worker == worker and not is_over(row, now_ms)
        ]

    async def rotate_token(self, worker: str, label: str = "") -> Enrolled:
        """A new secret; the old ones go on working for the grace period, so nothing stops."""
        async with self._changing:
            member = self._member(worker)
            if member.state == "banned":
                raise Banned("The operator has banned this worker; ask them why.")
            self._check_tokens(worker)
            old, now_ms = self._live_tokens(worker), self._clock_ms()
            facts = [_revoked(row, "rotated") for row in old]
            enrolled = await self._issue(member, facts, label=label or "rotated")
            for row in old:
                ends_ms = replaced_ms(row, now_ms, self._grace_ms)
                await self._store.expire_token(row.token, ends_ms)
                self._change_token(row.token, expires_ms=ends_ms)
            return enrolled

    async def revoke_token(self, worker: str, token: str, reason: str = "revoked") -> None:
        """End a token at once; a stream that it opened ends too. Raises NotAllowed if unknown."""
        async with self._changing:
            row = self._tokens.get(token)
            if row is None or row.worker != worker:
                raise NotAllowed(f"The worker {worker[:40]} has no token `{token[:40]}`.")
            if row.revoked_ms:
                return
            now_ms = self._clock_ms()
            self._change_token(token, revoked_ms=now_ms)  # at once, whatever the disk does
            receipt = self._record(_revoked(row, reason))
            await self._store.revoke_token(token, now_ms)
            await receipt.durable()
        self._on_revoked(worker, token, reason)

    def _change_token(self, token: str, **changes: int) -> None:
        self._tokens[token] = msgspec.structs.replace(self._tokens[token], **changes)

    # --- the operator's decisions --------------------------------------------------------------

    def _member(self, worker: str) -> Member:
        member = self._members.get(worker)
        if member is None:
            raise NotAllowed(f"There is no worker `{worker[:40]}`; `openpool workers` lists them.")
        return member

    async def approve(self, worker: str) -> None:
        """Let a pending worker work, or take back a ban."""
        async with self._changing:
            member = self._member(worker)
            if member.state == "approved":
                return
            fact = (f"worker-approved/{worker}/{self._clock_ms()}", WorkerApproved(worker=worker))
            await self._record(fact).durable()
            member.state = "approved"

    async def ban(self, worker: str, reason: str) -> None:
        """Shut a worker out: its streams end, its running results are not wanted."""
        async with self._changing:
            member = self._member(worker)
            if member.state == "banned":
                return
            member.state = "banned"  # shut out at once, whatever the disk does
            reason = one_line(reason, LABEL_CHARS_MAX)
            data = WorkerBanned(worker=worker, reason=reason)
            await self._record((f"worker-banned/{worker}/{self._clock_ms()}", data)).durable()
        self._on_banned(worker, reason)

    async def invite(
        self, note: str = "", group: str = DEFAULT_GROUP, lifetime_ms: int = INVITE_MS
    ) -> str:
        """The code of a new invitation, good once. It admits to `group`, also in a private pool."""
        if group not in self._groups:
            known = ", ".join(sorted(self._groups))
            raise NotAllowed(f"There is no group `{group[:40]}` in the settings; known: {known}.")
        code, now_ms = "inv_" + secrets.token_hex(16), self._clock_ms()
        await self._store.put_invite(
            InviteRow(
                secret_hash=self._invite_hash(code),
                group=group,
                label=one_line(note, LABEL_CHARS_MAX),
                created_ms=now_ms,
                expires_ms=now_ms + lifetime_ms,
            )
        )
        return code

    def _invite_hash(self, code: str) -> bytes:
        text = code.encode(errors="replace")[:200]
        return blake2b(text, key=self._key, digest_size=32, person=b"openpool invite").digest()


def _facts_of_enrolling(
    before: Member | None, after: Member, terms: str, unique: str
) -> list[NamedFact]:
    """What to record of an enrolment. The log keeps one event for a worker and its terms, by the
    id; only what may happen again gets a `unique` one."""
    moved = before is not None and before.group != after.group
    enrolled = WorkerEnrolled(
        worker=after.worker,
        address=after.address,
        name=after.name,
        group=after.group,
        terms=terms,
    )
    facts: list[NamedFact] = [
        (f"worker-enrolled/{after.worker}/{unique if moved else terms}", enrolled)
    ]
    if after.state == "approved" and (before is None or before.state != "approved"):
        approved = WorkerApproved(worker=after.worker)
        facts.append((f"worker-approved/{after.worker}/{unique}", approved))
    return facts


def _revoked(row: TokenRow, reason: str) -> NamedFact:
    data = TokenRevoked(
        worker=row.worker, token=row.token, reason=one_line(reason, LABEL_CHARS_MAX)
    )
    return f"token-revoked/{row.token}/{data.reason}", data


def _state(text: str) -> State:
    state: State = msgspec.convert(text, State)
    return state
