"""Key files: opened only if private, signing what the pool can check, never showing a key."""

import json
import stat
from pathlib import Path

import pytest

from openpool.core.errors import SetupError
from openpool.core.joinlink import JoinLink
from openpool.ethereum import Account
from openpool.identity import Identity, check_pin, identity_path, load_identity, save_identity
from openpool.pool.proofs import recover
from openpool.private_files import ensure_secret, read_private, write_private
from openpool.wallet import Wallet, create_wallet, open_wallet, passphrase_from

KEY = "0x" + "11" * 32
ADDRESS = Account.from_key(KEY).address


def no_passphrase() -> str:
    raise AssertionError("no passphrase is needed here")


def private(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.fixture
def quick_kdf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keystores are slow on purpose; the form is the same with less work."""
    real = Account.encrypt
    monkeypatch.setattr(
        Account, "encrypt", lambda key, text: real(key, text, kdf="pbkdf2", iterations=1_000)
    )


def test_a_key_file_signs_what_the_pool_recovers(tmp_path: Path) -> None:
    """The signature of a wallet leads back to its address."""
    wallet = open_wallet(private(tmp_path / "key", KEY + "\n"), no_passphrase)
    assert wallet.address == ADDRESS
    assert recover("hello", wallet.sign("hello")) == ADDRESS
    assert recover("hello!", wallet.sign("hello")) != ADDRESS


@pytest.mark.usefixtures("quick_kdf")
def test_a_new_keystore_opens_with_its_passphrase(tmp_path: Path) -> None:
    """A wallet that was made here is a standard keystore, private, and opens again."""
    path = tmp_path / "deep" / "wallet.json"
    made = create_wallet(path, "correct horse")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["version"] == 3
    words = private(tmp_path / "words", "correct horse\n")
    assert open_wallet(path, passphrase_from(words)).address == made.address


@pytest.mark.usefixtures("quick_kdf")
def test_a_wrong_passphrase_is_one_sentence(tmp_path: Path) -> None:
    """The sentence says that the passphrase is wrong, and shows neither it nor the key."""
    path = tmp_path / "wallet.json"
    create_wallet(path, "right")
    with pytest.raises(SetupError, match="the passphrase is wrong") as caught:
        open_wallet(path, lambda: "wrong-words")
    assert "wrong-words" not in str(caught.value)


@pytest.mark.usefixtures("quick_kdf")
def test_an_existing_wallet_is_never_overwritten(tmp_path: Path) -> None:
    """Making a wallet where one is refuses; the key in it would be lost."""
    path = private(tmp_path / "wallet.json", "precious")
    with pytest.raises(SetupError, match="exists already"):
        create_wallet(path, "x")
    assert path.read_text() == "precious"
    assert [entry.name for entry in tmp_path.iterdir()] == ["wallet.json"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    """A key file with any right for others is not used, and the cure is named."""
    path = private(tmp_path / "key", KEY)
    path.chmod(mode)
    with pytest.raises(SetupError, match=r"can be read by other users .*chmod 600"):
        open_wallet(path, no_passphrase)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is empty"),
        ("hello", "holds neither a keystore"),
        ("00" * 32, "no valid private key"),
        ("ff" * 32, "no valid private key"),
        ("{}", "not a keystore of version 3"),
        ("{", "not a keystore of version 3"),
        ('{"version": 3, "crypto": {"kdfparams": {"n": 99999999}}}', "not a keystore of version 3"),
        ('{"version": 3, "crypto": {"kdfparams": {}}}', "it is damaged"),
    ],
)
def test_a_file_that_is_no_wallet(tmp_path: Path, content: str, sentence: str) -> None:
    """Whatever is in the file, the answer is one sentence that does not quote it."""
    with pytest.raises(SetupError) as caught:
        open_wallet(private(tmp_path / "key", content), lambda: "x")
    assert sentence in str(caught.value)
    assert "11" * 32 not in str(caught.value)


def test_a_missing_wallet_is_named(tmp_path: Path) -> None:
    """A path that leads nowhere is one sentence with the path."""
    with pytest.raises(SetupError, match=r"none\.json cannot be read: no such file"):
        open_wallet(tmp_path / "none.json", no_passphrase)


def test_printing_a_wallet_shows_no_key(tmp_path: Path) -> None:
    """Neither repr nor str of a wallet holds its key."""
    wallet = Wallet(Account.from_key(KEY))
    assert KEY[2:] not in f"{wallet!r} {wallet} {vars(wallet)!r}"


def test_a_folder_is_no_secret_file(tmp_path: Path) -> None:
    """What is no plain file is refused, not read."""
    with pytest.raises(SetupError):
        read_private(tmp_path, "The file")


def test_writing_replaces_whole_files(tmp_path: Path) -> None:
    """A private file is replaced at once and keeps its mode, whatever it was before."""
    path = tmp_path / "f"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_secret_is_made_once(tmp_path: Path) -> None:
    """The first call makes 256 bits, the next ones read them."""
    path = tmp_path / "secret"
    first = ensure_secret(path, "The secret")
    assert len(bytes.fromhex(first)) == 32
    assert ensure_secret(path, "The secret") == first


def test_an_identity_is_kept_for_each_pool(tmp_path: Path) -> None:
    """A machine remembers who it is at each pool, privately, and prints no token."""
    one = Identity(pool="[::1]:8936", pin="p", worker="w_1", token="op_secret", web="http://x")
    two = Identity(pool="pool.example.org:8936", pin="", worker="w_2", token="op_other")
    for identity in (one, two):
        path = save_identity(identity, tmp_path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert load_identity(identity.pool, tmp_path) == identity
        assert "op_" not in repr(identity)
    assert load_identity("elsewhere:1", tmp_path) is None


def test_a_damaged_identity_is_one_sentence(tmp_path: Path) -> None:
    """A file that was cut off says what to do."""
    path = identity_path("a:1", tmp_path)
    write_private(path, b'{"pool":')
    with pytest.raises(SetupError, match="remove it and enrol again"):
        load_identity("a:1", tmp_path)


def test_the_pin_of_the_first_visit_holds() -> None:
    """Another certificate than at enrolment is refused; a link without one keeps the old."""
    known = Identity(pool="h:1", pin="aa", worker="w", token="t")
    assert check_pin(JoinLink(host="h", port=1), known) == "aa"
    assert check_pin(JoinLink(host="h", port=1, pin="bb"), None) == "bb"
    with pytest.raises(SetupError, match="another certificate"):
        check_pin(JoinLink(host="h", port=1, pin="bb"), known)
