"""Enrolment on the real store: who gets in, whose token works, what is in the log and survives."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from openpool.core.enrolment import Enrolled
from openpool.core.errors import (
    BadMessage,
    Banned,
    NoCapacity,
    NotAllowed,
    OpenPoolError,
    Unauthorized,
)
from openpool.ethereum import Account, encode_defunct
from openpool.pool import enrolment as module
from openpool.pool import proofs
from openpool.pool.enrolment import Enrolment
from openpool.store.interface import EventFilter
from openpool.store.sqlite import SqliteStore

ALICE = Account.from_key("0x" + "a1" * 32)
BOB = Account.from_key("0x" + "b0" * 32)
KEY = b"k" * 32
TERMS = "Be kind."
DAY_MS = 86_400_000


class Clock:
    """Time that stands still unless it is moved."""

    def __init__(self) -> None:
        self.now_ms = 1_790_000_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path) as store:
        yield store


Make = Callable[..., Enrolment]


@pytest.fixture
def make(store: SqliteStore, clock: Clock) -> Make:
    """Makes an enrolment over the one store, as a start of the pool does."""

    def make(**changes: object) -> Enrolment:
        settings: dict[str, object] = {
            "store": store,
            "appender": store,
            "clock_ms": clock,
            "pool_name": "Test Pool",
            "domain": "pool.test",
            "uri": "https://pool.test",
            "chain_id": 42161,
            "public": True,
            "terms": TERMS,
            "secret_key": KEY,
            "commission_ppm": lambda group: 100_000 if group == "friends" else 250_000,
            "groups": ["friends"],
        }
        return Enrolment(**(settings | changes))  # type: ignore[arg-type]  # by name, on purpose

    return make


def signed(account: object, message: str) -> str:
    signature = account.sign_message(encode_defunct(text=message)).signature  # type: ignore[attr-defined]
    return "0x" + bytes(signature).hex()


async def join(
    pool: Enrolment, account: object = ALICE, name: str = "rig", invite: str = ""
) -> Enrolled:
    message = await pool.nonce(account.address)  # type: ignore[attr-defined]
    return await pool.enroll(
        message=message,
        signature=signed(account, message),
        name=name,
        terms=pool.terms().digest,
        invite=invite,
    )


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())


def types_in_log(store: SqliteStore) -> list[str]:
    return [stored.event.type for stored in store.events(EventFilter())]


async def test_an_owner_joins_a_public_pool(make: Make, store: SqliteStore) -> None:
    """Proof, terms and name are enough; the token works at once and the log says so."""
    pool = make()
    joined = await join(pool)
    assert joined.state == "approved"
    known = await pool.admit(joined.secret)
    assert (known.worker, known.address, known.group) == (joined.worker, ALICE.address, "default")
    assert known.commission_ppm == 250_000
    assert types_in_log(store) == ["worker-enrolled", "worker-approved", "token-issued"]
    row = store.worker(joined.worker)
    assert row is not None
    assert (row.address, row.name, row.state) == (ALICE.address, "rig", "approved")


async def test_a_token_is_stored_as_a_hash_only(make: Make, tmp_path: Path) -> None:
    """Nothing on disk holds the secret part of a token."""
    pool = make()
    secret = (await join(pool)).secret
    content = everything_in(tmp_path)
    assert secret.split("_")[1].encode() in content
    assert secret.split("_")[2].encode() not in content


async def test_members_and_tokens_survive_a_restart(make: Make) -> None:
    """A pool that starts again knows everybody whom it told so."""
    joined = await join(make())
    again = make()
    with pytest.raises(Unauthorized):
        await again.authenticate(joined.secret)
    await again.start()
    assert (await again.admit(joined.secret)).worker == joined.worker


async def test_enrolling_again_is_the_same_worker(make: Make, store: SqliteStore) -> None:
    """A second machine or a lost token: one more token, no second worker, no second fact."""
    pool = make()
    first, second = await join(pool), await join(pool)
    assert first.worker == second.worker
    assert first.secret != second.secret
    assert (await pool.admit(first.secret)).worker == (await pool.admit(second.secret)).worker
    assert types_in_log(store).count("worker-enrolled") == 1
    assert types_in_log(store).count("token-issued") == 2


async def test_a_private_pool_waits_for_the_operator(make: Make, store: SqliteStore) -> None:
    """Without an invitation a worker is pending: known, shown its page, but given no work."""
    pool = make(public=False)
    joined = await join(pool)
    assert joined.state == "pending"
    assert (await pool.authenticate(joined.secret)).state == "pending"
    with pytest.raises(NotAllowed, match="not approved this worker yet"):
        await pool.admit(joined.secret)
    await pool.approve(joined.worker)
    await pool.approve(joined.worker)
    assert (await pool.admit(joined.secret)).state == "approved"
    assert types_in_log(store).count("worker-approved") == 1


async def test_an_invitation_approves_once(make: Make) -> None:
    """An invitation lets one worker in, into its group, and is used up by that."""
    pool = make(public=False)
    code = await pool.invite("for Alice", group="friends")
    joined = await join(pool, invite=code)
    known = await pool.admit(joined.secret)
    assert (joined.state, known.group, known.commission_ppm) == ("approved", "friends", 100_000)
    with pytest.raises(NotAllowed, match="unknown, used or expired"):
        await join(pool, BOB, invite=code)
    again = await join(pool, invite=code)  # its owner starts from the same link once more
    assert (await pool.admit(again.secret)).group == "friends"


async def test_an_invitation_expires(make: Make, clock: Clock) -> None:
    """An old invitation is refused like an unknown one."""
    pool = make(public=False)
    code = await pool.invite(lifetime_ms=1000)
    clock.now_ms += 1000
    with pytest.raises(NotAllowed, match="expired"):
        await join(pool, invite=code)
    with pytest.raises(NotAllowed):
        await join(pool, invite="inv_never")


async def test_an_invitation_moves_a_worker_and_the_log_knows(
    make: Make, store: SqliteStore
) -> None:
    """A known worker that uses an invitation changes its group, also after a restart."""
    pool = make()
    await join(pool)
    for group in ("friends", "default", "friends"):
        joined = await join(pool, invite=await pool.invite(group=group))
    again = make()
    await again.start()
    assert (await again.authenticate(joined.secret)).group == "friends"
    assert types_in_log(store).count("worker-enrolled") == 4


async def test_an_invitation_to_no_group_is_refused(make: Make) -> None:
    """A group that the settings do not have would have no commission."""
    with pytest.raises(NotAllowed, match=r"no group `vips`.*default, friends"):
        await make().invite(group="vips")


async def test_a_message_is_good_once(make: Make) -> None:
    """Whoever records a sign-in cannot use it again."""
    pool = make()
    message = await pool.nonce(ALICE.address)
    assert (await pool.sign_in(message, signed(ALICE, message))).address == ALICE.address
    with pytest.raises(Unauthorized, match="used already"):
        await pool.sign_in(message, signed(ALICE, message))


async def test_a_message_expires(make: Make, clock: Clock) -> None:
    """A message that lay around is refused."""
    pool = make()
    message = await pool.nonce(ALICE.address)
    clock.now_ms += 600_000
    with pytest.raises(Unauthorized, match="expired at"):
        await pool.sign_in(message, signed(ALICE, message))


async def test_a_message_of_another_start_or_pool_is_refused(make: Make) -> None:
    """Nonces are recognised by the process that made them alone, so none counts twice."""
    other = make()
    message = await other.nonce(ALICE.address)
    with pytest.raises(Unauthorized, match="not given out by this pool"):
        await make().sign_in(message, signed(ALICE, message))
    with pytest.raises(Unauthorized, match=r"this pool is evil\.test"):
        await make(domain="evil.test").sign_in(message, signed(ALICE, message))


async def test_a_nonce_cannot_be_stretched_or_moved(make: Make) -> None:
    """The nonce is bound to address and time: what is changed around it does not fit it."""
    pool = make()
    message = await pool.nonce(ALICE.address)
    for old, new in ((ALICE.address, BOB.address), ("Issued At: 2026", "Issued At: 2025")):
        changed = message.replace(old, new)
        account = BOB if new == BOB.address else ALICE
        with pytest.raises(Unauthorized, match="not given out by this pool"):
            await pool.sign_in(changed, signed(account, changed))


async def test_a_wrong_signer_is_refused(make: Make) -> None:
    """Nobody joins for an address whose key they do not have."""
    pool = make()
    message = await pool.nonce(ALICE.address)
    with pytest.raises(Unauthorized, match=f"names {ALICE.address}, but {BOB.address} signed"):
        await pool.sign_in(message, signed(BOB, message))
    assert await pool.sign_in(message, signed(ALICE, message))


@pytest.mark.parametrize(
    ("signature", "kind"),
    [
        ("", BadMessage),
        ("0x1234", BadMessage),
        ("0x" + "zz" * 65, BadMessage),
        ("0x" + "00" * 65, Unauthorized),
        ("0x" + "ff" * 65, Unauthorized),
    ],
)
async def test_what_is_no_signature_is_one_sentence(
    make: Make, signature: str, kind: type[OpenPoolError]
) -> None:
    """Garbage where a signature belongs costs only its sender."""
    pool = make()
    message = await pool.nonce(ALICE.address)
    with pytest.raises(kind) as caught:
        await pool.sign_in(message, signature)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)


async def test_other_terms_are_not_accepted_silently(make: Make) -> None:
    """Who accepts a digest of something else is told the present one."""
    pool = make()
    message = await pool.nonce(ALICE.address)
    with pytest.raises(NotAllowed, match=pool.terms().digest):
        await pool.enroll(
            message=message, signature=signed(ALICE, message), name="rig", terms="0" * 64
        )


async def test_new_terms_are_recorded_when_accepted(make: Make, store: SqliteStore) -> None:
    """Enrolling again after a change of the terms is a new acceptance; rotating is none."""
    joined = await join(make())
    pool = make(terms="Be kinder.")
    await pool.start()
    await pool.rotate_token(joined.worker)
    assert types_in_log(store).count("worker-enrolled") == 1
    await join(pool)
    assert types_in_log(store).count("worker-enrolled") == 2


async def test_sign_in_names_the_owners_workers_only(make: Make) -> None:
    """A wallet sees the workers that are paid to it."""
    pool = make()
    mine = {(await join(pool, name=name)).worker for name in ("one", "two")}
    await join(pool, BOB)
    message = await pool.nonce(ALICE.address.lower())
    signed_in = await pool.sign_in(message, signed(ALICE, message))
    assert set(signed_in.workers) == mine


async def test_rotation_needs_no_downtime(make: Make, clock: Clock, store: SqliteStore) -> None:
    """The old token works beside the new one for the grace period, and then no more."""
    pool = make(grace_ms=DAY_MS)
    old = await join(pool)
    new = await pool.rotate_token(old.worker, "on Tuesday")
    for secret in (old.secret, new.secret):
        assert (await pool.admit(secret)).worker == old.worker
    clock.now_ms += DAY_MS
    again = make()
    await again.start()
    with pytest.raises(Unauthorized, match="expired, since it was rotated"):
        await again.authenticate(old.secret)
    assert (await again.admit(new.secret)).worker == old.worker
    assert "token-revoked" in types_in_log(store)


async def test_rotating_twice_does_not_lengthen_a_life(make: Make, clock: Clock) -> None:
    """A token that is on its way out keeps its first end."""
    pool = make(grace_ms=DAY_MS)
    old = await join(pool)
    await pool.rotate_token(old.worker)
    clock.now_ms += DAY_MS - 1
    await pool.rotate_token(old.worker)
    clock.now_ms += 1
    with pytest.raises(Unauthorized, match="expired"):
        await pool.authenticate(old.secret)


async def test_a_revoked_token_ends_at_once(make: Make) -> None:
    """Revoking ends the token and tells whoever holds its stream; others go on."""
    ended: list[tuple[str, str, str]] = []
    pool = make(on_revoked=lambda *what: ended.append(what))
    lost, kept = await join(pool), await join(pool)
    token = lost.secret.split("_")[1]
    await pool.revoke_token(lost.worker, token)
    await pool.revoke_token(lost.worker, token)
    assert ended == [(lost.worker, token, "revoked")]
    with pytest.raises(Unauthorized, match="was revoked"):
        await pool.authenticate(lost.secret)
    assert await pool.admit(kept.secret)
    again = make()
    await again.start()
    with pytest.raises(Unauthorized, match="was revoked"):
        await again.authenticate(lost.secret)


async def test_nobody_revokes_the_token_of_another(make: Make) -> None:
    """A token's id is public; only its own worker is asked about it."""
    pool = make()
    mine, other = await join(pool), await join(pool, BOB)
    with pytest.raises(NotAllowed, match="has no token"):
        await pool.revoke_token(other.worker, mine.secret.split("_")[1])
    with pytest.raises(NotAllowed, match="no worker"):
        await pool.tokens("w_none")
    assert await pool.admit(mine.secret)


@pytest.mark.parametrize("change", ["secret", "id", "text"])
async def test_a_wrong_secret_is_unauthorized(make: Make, change: str) -> None:
    """A right id with a wrong secret, an unknown id, or no token at all: not known here."""
    pool = make()
    secret = (await join(pool)).secret
    wrong = {
        "secret": secret[:-1] + ("a" if secret[-1] != "a" else "b"),
        "id": "op_" + "a" * 12 + secret[15:],
        "text": "hunter2",
    }[change]
    with pytest.raises(Unauthorized):
        await pool.authenticate(wrong)


async def test_a_ban_shuts_out(make: Make) -> None:
    """A banned worker has no work and no new token, until the operator takes it back."""
    banned: list[tuple[str, str]] = []
    pool = make(on_banned=lambda *what: banned.append(what))
    joined = await join(pool)
    await pool.ban(joined.worker, "sends black frames")
    assert banned == [(joined.worker, "sends black frames")]
    for attempt in (pool.admit(joined.secret), pool.rotate_token(joined.worker), join(pool)):
        with pytest.raises(Banned, match="operator has banned"):
            await attempt
    again = make()
    await again.start()
    assert (await again.authenticate(joined.secret)).state == "banned"
    await again.approve(joined.worker)
    assert await again.admit(joined.secret)


async def test_a_token_says_when_it_was_used(make: Make, clock: Clock, store: SqliteStore) -> None:
    """The last use is known at once, and on disk after the next note."""
    pool = make()
    joined = await join(pool)
    clock.now_ms += 5
    await pool.authenticate(joined.secret)
    assert (await pool.tokens(joined.worker))[0].last_used_ms == clock.now_ms
    assert store.tokens()[0].last_used_ms == 0
    await pool.note_used()
    assert store.tokens()[0].last_used_ms == clock.now_ms


async def test_limits_hold(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """One address, one worker and the whole pool have bounds, each with its own sentence."""
    pool = make(workers_per_address=2, workers_max=3)
    await join(pool, name="a")
    await join(pool, name="b")
    with pytest.raises(NotAllowed, match="has 2 workers already"):
        await join(pool, name="c")
    await join(pool, BOB, name="a")
    with pytest.raises(NoCapacity, match="as many workers as it takes"):
        await join(pool, BOB, name="b")
    monkeypatch.setattr(module, "TOKENS_PER_WORKER", 2)
    await join(pool, name="a")
    with pytest.raises(NotAllowed, match="2 tokens already"):
        await join(pool, name="a")


async def test_asking_for_nonces_costs_nothing_and_using_is_bounded(
    make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood of questions leaves nothing behind; used messages are forgotten when they expire."""
    monkeypatch.setattr(proofs, "USED_NONCES_MAX", 2)
    pool = make()
    for _ in range(1_000):
        message = await pool.nonce(ALICE.address)
    for _ in range(2):
        message = await pool.nonce(ALICE.address)
        await pool.sign_in(message, signed(ALICE, message))
    message = await pool.nonce(ALICE.address)
    with pytest.raises(NoCapacity, match="try again in some minutes"):
        await pool.sign_in(message, signed(ALICE, message))
    clock.now_ms += 600_000
    message = await pool.nonce(ALICE.address)
    assert await pool.sign_in(message, signed(ALICE, message))
