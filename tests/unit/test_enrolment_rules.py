"""The pure rules of joining: ids, tokens, and the message that a wallet signs."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from openpool.core.enrolment import (
    Message,
    build_message,
    check_message,
    checked_address,
    checked_name,
    parse_message,
    terms_digest,
    token_hash,
    token_id,
    token_text,
    worker_id,
)
from openpool.core.errors import BadMessage, NotAllowed, Unauthorized

ADDRESS = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
NOW = 1_790_000_000_123
MESSAGE = Message(
    domain="pool.example.org",
    address=ADDRESS,
    statement="Prove it.",
    uri="https://pool.example.org",
    chain_id=42161,
    nonce="0123456789abcdef",
    issued_ms=NOW,
    expires_ms=NOW + 600_000,
    terms=terms_digest("terms"),
)


def test_the_message_is_eip_4361() -> None:
    """Wallets recognise the text as a sign-in: every line is where the standard wants it."""
    assert build_message(MESSAGE).split("\n") == [
        "pool.example.org wants you to sign in with your Ethereum account:",
        ADDRESS,
        "",
        "Prove it.",
        "",
        "URI: https://pool.example.org",
        "Version: 1",
        "Chain ID: 42161",
        "Nonce: 0123456789abcdef",
        "Issued At: 2026-09-21T14:13:20.123Z",
        "Expiration Time: 2026-09-21T14:23:20.123Z",
        "Resources:",
        f"- urn:openpool:terms:sha256:{terms_digest('terms')}",
    ]


@given(
    domain=st.from_regex(r"[a-z0-9.-]{1,40}(:[0-9]{1,5})?", fullmatch=True),
    statement=st.text(st.characters(codec="ascii", exclude_characters="\n\r"), min_size=1),
    chain_id=st.integers(1, 10**15),
    nonce=st.from_regex(r"[A-Za-z0-9]{8,96}", fullmatch=True),
    issued_ms=st.integers(0, 4_000_000_000_000),
    lasting_ms=st.integers(1, 10**9),
)
def test_building_and_parsing_are_inverse(
    domain: str, statement: str, chain_id: int, nonce: str, issued_ms: int, lasting_ms: int
) -> None:
    """A message that the pool wrote is read back with nothing lost."""
    message = replace(
        MESSAGE,
        domain=domain,
        statement=statement[:300],
        chain_id=chain_id,
        nonce=nonce,
        issued_ms=issued_ms,
        expires_ms=issued_ms + lasting_ms,
    )
    assert parse_message(build_message(message)) == message


@given(st.text(max_size=2_500))
def test_any_text_is_a_message_or_a_bad_one(text: str) -> None:
    """Hostile text makes the parser fail in one way only."""
    with pytest.raises(BadMessage):
        parse_message(text)


@given(st.integers(0, 12), st.text(max_size=40))
def test_a_changed_line_is_noticed_or_read_back(number: int, line: str) -> None:
    """Whatever line is replaced, the message is refused or means exactly what it says."""
    lines = build_message(MESSAGE).split("\n")
    lines[number] = line
    text = "\n".join(lines)
    try:
        message = parse_message(text)
    except BadMessage:
        return
    assert build_message(message) == text


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"domain": "evil.example"}, "The message is for evil.example"),
        ({"uri": "https://evil.example"}, "The message is for"),
        ({"chain_id": 1}, "for chain 1, but this pool uses chain 42161"),
        ({"issued_ms": NOW - 700_000, "expires_ms": NOW}, "expired at 2026-09-21T14:13:20.123Z"),
        ({"issued_ms": NOW + 600_000, "expires_ms": NOW + 900_000}, "issued in the future"),
        ({"statement": "Give me all."}, "The statement in the message is not this pool's"),
    ],
)
def test_what_the_pool_did_not_write_is_refused(change: dict[str, object], sentence: str) -> None:
    """Each wrong field has its own sentence, and every sentence says what to do."""
    with pytest.raises(Unauthorized) as caught:
        check_message(replace(MESSAGE, **change), MESSAGE, NOW)
    assert sentence in str(caught.value)
    assert "ask the pool for a new message" in str(caught.value)


def test_other_terms_are_refused_as_policy() -> None:
    """A message about older terms is fair but declined: accept the present ones."""
    with pytest.raises(NotAllowed, match="terms have changed"):
        check_message(replace(MESSAGE, terms="0" * 64), MESSAGE, NOW)


def test_a_right_message_passes() -> None:
    """The pool's own message is good until just before it expires."""
    check_message(MESSAGE, MESSAGE, NOW)
    check_message(MESSAGE, MESSAGE, MESSAGE.expires_ms - 1)


def test_addresses_get_their_checksum() -> None:
    """Lower case is taken and completed; a right checksum passes as it is."""
    assert checked_address(ADDRESS.lower()) == ADDRESS
    assert checked_address(ADDRESS) == ADDRESS


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (ADDRESS.replace("5aA", "5AA"), "checksum of the address"),
        ("0x" + ADDRESS[2:].upper(), "checksum of the address"),
        (ADDRESS[:-1], "0x and 40 hexadecimal digits"),
        (ADDRESS[2:], "0x and 40 hexadecimal digits"),
        (ADDRESS + "\n", "0x and 40 hexadecimal digits"),
        ("", "0x and 40 hexadecimal digits"),
    ],
)
def test_a_bad_address_is_one_sentence(text: str, sentence: str) -> None:
    """A typo in an address is caught before anything is paid to it."""
    with pytest.raises(BadMessage) as caught:
        checked_address(text)
    assert sentence in str(caught.value)


def test_worker_ids_are_stable_and_tell_names_apart() -> None:
    """The same address and name are the same worker for ever, however the address is written."""
    one = worker_id(ADDRESS, "rig")
    assert one == worker_id(ADDRESS.lower(), "rig") == "w_j5isfqzlh3or"
    assert re.fullmatch(r"w_[a-z2-7]{12}", one)
    assert len({one, worker_id(ADDRESS, "rig2"), worker_id("0x" + "1" * 40, "rig")}) == 3


@pytest.mark.parametrize("name", ["", " x", "x ", "a" * 33, "a\nb", "<b>", "x/y", "é"])
def test_a_name_that_could_hurt_is_refused(name: str) -> None:
    """Names go into pages and terminals; only plain ones are taken."""
    with pytest.raises(BadMessage, match="worker's name"):
        checked_name(name)
    assert checked_name("rig 1.a_b-c") == "rig 1.a_b-c"


def test_a_token_tells_its_public_id() -> None:
    """A token is `op_<id>_<256 bit>`, and its id can be read without knowing it."""
    text = token_text(bytes(8), bytes(range(32)))
    assert re.fullmatch(r"op_[a-z2-7]{12}_[a-z2-7]{52}", text)
    assert token_id(text) == text.split("_")[1]


@given(st.text(max_size=100))
def test_no_other_text_is_a_token(text: str) -> None:
    """What is no token is unauthorized, in one sentence."""
    with pytest.raises(Unauthorized):
        token_id(text)


def test_stored_hashes_depend_on_the_pools_key() -> None:
    """A stolen table of hashes cannot even be tried against without the key."""
    text = token_text(bytes(8), bytes(32))
    assert token_hash(text, b"a" * 32) != token_hash(text, b"b" * 32)
    assert len(token_hash(text, b"a" * 32)) == 32
