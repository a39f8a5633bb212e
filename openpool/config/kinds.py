"""The kinds of value that a setting can have: from text to a value, or a sentence about why not.

Every value arrives as text, from YAML, the environment or a flag alike: the setting decides what
it is, not the YAML parser (which would read 0x.. as a number and `no` as false). Must not do I/O,
except that a `file:` secret is read. Settings that use these are in `config.settings`.
"""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from openpool.core.enrolment import checked_address
from openpool.core.errors import BadMessage, SetupError
from openpool.core.units import ETHER as ETHER_WEI
from openpool.core.units import GWEI, PPM, decimal_text, price_text
from openpool.core.units import price as parse_price
from openpool.private_files import OTHERS, read_private_text


@dataclass(frozen=True, slots=True)
class Secret:
    """Text that is never printed: only `reveal` gives it away."""

    _text: str = ""

    def reveal(self) -> str:
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __repr__(self) -> str:
        return "Secret(****)" if self._text else "Secret()"


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host name or address, and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Money:
    """An exact amount in USD or in wei."""

    amount: Fraction
    currency: Literal["USD", "wei"]

    def __str__(self) -> str:
        return f"{price_text(self.amount)} {self.currency}"


Parse = Callable[[str, Path], object]


@dataclass(frozen=True, slots=True)
class Kind:
    """How text becomes a value. `parse` raises ValueError for anything but `allowed`."""

    allowed: str
    parse: Parse
    """From the text, and the folder that relative paths start from."""
    show: Callable[[object], str] = str
    secret: bool = False


def _title(text: str, _: Path) -> str:
    if not text.isprintable() or len(text) > 60:
        raise ValueError
    return text


def _domain(text: str, _: Path) -> str:
    return matched(r"[A-Za-z0-9._-]{1,250}(:[0-9]{1,5})?|\[[0-9a-f:]+\](:[0-9]{1,5})?", text)


def _name(text: str, _: Path) -> str:
    return matched(r"[a-z0-9][a-z0-9_-]{0,31}", text)


def matched(pattern: str, text: str) -> str:
    """The text if the whole of it matches, else ValueError."""
    if not re.fullmatch(pattern, text):
        raise ValueError
    return text


def _boolean(text: str, _: Path) -> bool:
    return {"true": True, "false": False}[matched("true|false", text)]


def _path(text: str, base: Path) -> Path:
    if not text.isprintable() or not text:
        raise ValueError
    return base / Path(text).expanduser()


def _show_path(value: object) -> str:
    return "" if value == Path() else str(value)


def parse_host_port(text: str, default_port: int = 0) -> HostPort:
    """`host:port`, `1.2.3.4:port` or `[::1]:port`; ValueError for anything else."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?", text)
    if not match:
        raise ValueError
    host, port = match[1] or match[2], int(match[3] or default_port)
    if match[1]:
        ipaddress.IPv6Address(host)
    if not 0 < port < 65536:
        raise ValueError
    return HostPort(host, port)


def _listen(text: str, _: Path) -> HostPort:
    if text.endswith(":0"):
        return HostPort(parse_host_port(text[:-1] + "1").host, 0)
    return parse_host_port(text)


def _host_port(text: str, _: Path) -> HostPort:
    return parse_host_port(text)


def _optional_host_port(text: str, _: Path) -> HostPort | None:
    return parse_host_port(text) if text else None


def _url(text: str, _: Path) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError
    if parts.username or parts.password:
        raise ValueError
    if parts.port == 0:  # reading it raises ValueError if it is no port
        raise ValueError
    return text.rstrip("/")


NO_EXPLORER = "none"


def _explorer(text: str, base: Path) -> str:
    if text == NO_EXPLORER:
        return text
    return _url(matched(r"https://[\x21-\x7e]{1,200}", text), base)


def parse_rate(text: str) -> int:
    """A rate in ppm, exactly: `25%`, `250000ppm` or `0.25`; ValueError for anything else."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(%|ppm|)", text)
    if not match:
        raise ValueError
    ppm = Fraction(match[1]) * {"%": PPM // 100, "ppm": 1, "": PPM}[match[2]]
    if ppm.denominator != 1 or ppm > PPM:
        raise ValueError
    return int(ppm)


def show_rate(ppm: object) -> str:
    """The shortest text of a rate: `25%` or `12.345%`; nothing for None."""
    if not isinstance(ppm, int):
        return ""
    whole, rest = divmod(ppm, PPM // 100)
    return f"{whole}%" if not rest else f"{whole}.{rest:04d}".rstrip("0") + "%"


def _rate(text: str, _: Path) -> int:
    return parse_rate(text)


def _price(text: str, _: Path) -> Fraction:
    matched(r"[0-9]{1,40}(/[0-9]{1,40}|\.[0-9]{1,40})?", text)
    try:
        return parse_price(text)
    except ZeroDivisionError:
        raise ValueError from None


def _show_price(value: object) -> str:
    assert isinstance(value, Fraction)
    return price_text(value)


def _money(text: str, _: Path) -> Money:
    match = re.fullmatch(r"([0-9]{1,30}(?:\.[0-9]{1,18})?) ?(USD|wei)", text)
    if not match:
        raise ValueError
    return Money(Fraction(match[1]), "USD" if match[2] == "USD" else "wei")


def _number(text: str, _: Path) -> Fraction:
    return Fraction(matched(r"[0-9]{1,15}(\.[0-9]{1,9})?", text))


def _show_number(value: object) -> str:
    assert isinstance(value, Fraction)
    return f"{float(value):.12g}"


def _model(text: str, _: Path) -> str:
    return matched(r"[A-Za-z0-9._:/@+-]{0,200}", text)


def _secret(text: str, base: Path) -> Secret:
    if text.startswith("file:"):
        path = base / Path(text.removeprefix("file:")).expanduser()
        text = read_private_text(path, "The secret file", forbidden=OTHERS)
    if not text.isprintable() or not text.isascii() or len(text) > 512:
        raise ValueError
    return Secret(text)


def _show_secret(value: object) -> str:
    return "****" if value else ""


def _address(text: str, _: Path) -> str:
    try:
        return "" if text in {"", "none"} else checked_address(text)
    except BadMessage as error:
        raise SetupError(str(error)) from None


def _units(text: str, units: dict[str, int]) -> int:
    match = re.fullmatch(r"([0-9]{1,30}(?:\.[0-9]{1,18})?) ?([A-Za-z]+)", text)
    if not match or match[2] not in units:
        raise ValueError
    amount = Fraction(match[1]) * units[match[2]]
    if amount.denominator != 1:
        raise ValueError
    return int(amount)


def _shown_units(amount: object, unit: str) -> str:
    assert isinstance(amount, int)
    return f"{decimal_text(amount)} {unit}"


def _ether(text: str, _: Path) -> int:
    return _units(text, {"ETH": ETHER_WEI, "gwei": GWEI, "wei": 1})


def _show_ether(value: object) -> str:
    return _shown_units(value, "ETH")


def _tokens(text: str, _: Path) -> int:
    return _units(text, {"LPT": ETHER_WEI})


def _show_tokens(value: object) -> str:
    return _shown_units(value, "LPT")


def _options(text: str, _: Path) -> tuple[tuple[str, str], ...]:
    pairs = [
        re.fullmatch(r"([a-z][a-z0-9_.-]*)=([^,=]{1,200})", part.strip())
        for part in text.split(",")
        if part.strip()
    ]
    if None in pairs:
        raise ValueError
    return tuple((pair[1], pair[2].strip()) for pair in pairs if pair)


def _show_options(value: object) -> str:
    assert isinstance(value, tuple)
    return ", ".join(f"{name}={text}" for name, text in value)


def _endpoint(text: str, base: Path) -> Secret:
    """RPC addresses often hold an API key, so they are treated as secrets."""
    secret = _secret(text, base)
    parts = urlsplit(secret.reveal())
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise ValueError
    return secret


TITLE = Kind("at most 60 printable characters", _title)
DOMAIN = Kind("a domain, with a port if it has one, like pool.example.org", _domain)
NAME = Kind("a name of up to 32 of a-z, 0-9, - and _", _name)
BOOLEAN = Kind("true or false", _boolean, show=lambda value: str(value).lower())
PATH = Kind("a path", _path, show=_show_path)
HOST_PORT = Kind("host:port, like 10.0.0.5:8935 or [::1]:8935", _host_port)
LISTEN = Kind("host:port, like 0.0.0.0:8936 or [::]:8936; port 0 takes a free one", _listen)
OPTIONAL_HOST_PORT = Kind(
    "host:port, like pool.example.org:8936", _optional_host_port, show=lambda v: str(v or "")
)
URL = Kind("an http:// or https:// address", _url)
EXPLORER = Kind("an https:// address, or none", _explorer)
RATE = Kind("a rate from 0 to 1 in whole ppm, like 25%, 250000ppm or 0.25", _rate, show=show_rate)
PRICE = Kind("wei per pixel, like 1200, 0.25 or 1/3", _price, show=_show_price)
MONEY = Kind("an amount in USD or wei, like 0.15 USD or 1200 wei", _money)
NUMBER = Kind("a number, like 3000 or 2850.55", _number, show=_show_number)
MODEL = Kind("a model's name; empty is every model", _model)
ADDRESS = Kind("an Ethereum address, 0x and 40 hexadecimal digits", _address)
ETHER = Kind("an amount like 0.005 ETH, 30 gwei or 1000 wei", _ether, show=_show_ether)
TOKENS = Kind("an amount of LPT like 2.5 LPT", _tokens, show=_show_tokens)
OPTIONS = Kind("name=value, name=value", _options, show=_show_options)
ENDPOINT = Kind(
    "an http:// or https:// address, or file:/path/to/a/file that holds it",
    _endpoint,
    show=_show_secret,
    secret=True,
)
SECRET = Kind("ASCII text, or file:/path/to/a/file", _secret, show=_show_secret, secret=True)


def integer(low: int, high: int) -> Kind:
    """Whole numbers from `low` to `high`; `_` may group digits."""

    def parse(text: str, _: Path) -> int:
        number = int(matched(r"-?[0-9](_?[0-9]){0,18}", text))
        if not low <= number <= high:
            raise ValueError
        return number

    return Kind(f"a whole number from {low} to {high}", parse)


def choice(*allowed: str) -> Kind:
    """One of a few words."""

    def parse(text: str, _: Path) -> str:
        if text not in allowed:
            raise ValueError
        return text

    return Kind("one of " + ", ".join(allowed), parse)
