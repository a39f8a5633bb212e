"""Numbers, amounts and times as people read them; the exact value always stays on hover.

Pure text functions, registered as Jinja filters by `web.pages`. They decide nothing and must not
be used for JSON, where wei are plain decimal strings.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

from markupsafe import Markup, escape

from openpool.core.livepeer.amounts import lpt_text
from openpool.core.units import ETHER, GWEI

_THIN = "\u202f"
"""Narrow no-break space, between a number and its unit and between groups of three digits."""


_CODE = re.compile("`([^`]+)`")
_PLACES = 6
"""Decimals of a number that is shown precisely."""
_COLUMN_ETHER = ETHER // 10**_PLACES
"""From this size on a column is in ETH."""
_HEX = re.compile(r"\b(0x)?([0-9A-Fa-f]{4})[0-9A-Fa-f]{8,}([0-9A-Fa-f]{4})\b")
"""Addresses and hashes."""


def grouped(number: int) -> str:
    """`1234567` as `1 234 567` with narrow spaces."""
    return f"{number:,}".replace(",", _THIN)


def significant(value: Decimal, digits: int = 3) -> str:
    """A number with `digits` significant digits, never in scientific notation."""
    if value == 0:
        return "0"
    places = max(0, digits - 1 - value.adjusted())
    rounded = value.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_EVEN)
    text = f"{rounded:,f}".replace(",", _THIN)
    return text.rstrip("0").rstrip(".") if "." in text else text


def significant_text(fraction: str) -> str:
    """`"1/4"` as `0.25`, with five significant digits at most."""
    exact = Fraction(fraction)
    return significant(Decimal(exact.numerator) / exact.denominator, 5)


def ether_text(wei: int) -> str:
    """An amount in the unit that needs the fewest zeros: ETH, gwei or wei."""
    size = abs(wei)
    if wei == 0:
        return f"0{_THIN}ETH"
    if size >= ETHER // 10_000:
        return f"{significant(Decimal(wei) / ETHER, 4)}{_THIN}ETH"
    if size >= GWEI // 1_000:
        return f"{significant(Decimal(wei) / GWEI, 4)}{_THIN}gwei"
    return f"{wei}{_THIN}wei"


def price_text(price: str) -> Markup:
    """Wei per unit with few digits, the exact fraction on hover: `"3600/7"` is `514.3`."""
    exact = Fraction(price)
    value = Decimal(exact.numerator) / exact.denominator
    about = "" if exact.denominator == 1 and exact < 10**6 else price
    return Markup('<span class="num"{}>{}</span>').format(
        Markup(' title="exactly {} wei"').format(about) if about else "", significant(value, 4)
    )


def precise(amount: str) -> Markup:
    """An exact number such as `"1403/25"` as `56.12`, with the fraction on hover; `…` says that
    digits are left out."""
    exact = Fraction(amount)
    scaled, rest = divmod(abs(exact) * 10**_PLACES, 1)
    whole, places = divmod(int(scaled), 10**_PLACES)
    decimals = f"{places:0{_PLACES}}".rstrip("0")
    text = f"{'−' if exact < 0 else ''}{grouped(whole)}{'.' if decimals else ''}{decimals}"
    return Markup('<span class="num" title="exactly {}">{}</span>').format(
        amount, text + ("…" if rest else "")
    )


def middle(amounts: Iterable[int | str]) -> int:
    """The amount that a column is told like: the middle one of those that are not zero."""
    sizes = sorted(abs(int(each)) for each in amounts if int(each))
    return sizes[len(sizes) // 2] if sizes else 0


def ether_like(wei: int, like_wei: int) -> str:
    """An amount in the unit, and with as many decimals, as another needs, so that the amounts of
    a column compare. What is too small for these decimals has two digits all the same."""
    if 0 < abs(like_wei) < GWEI // 1_000:
        return f"{grouped(wei)}{_THIN}wei"
    unit, size = ("ETH", ETHER) if abs(like_wei) >= _COLUMN_ETHER else ("gwei", GWEI)
    places = max(0, 3 - (Decimal(like_wei or size) / size).adjusted())
    value = Decimal(wei) / size
    if abs(wei) * 10**places < 10 * size:
        return f"{significant(value, 2)}{_THIN}{unit}"
    return f"{value:,.{places}f}".replace(",", _THIN) + f"{_THIN}{unit}"


def ether(wei: int, like_wei: int = 0) -> Markup:
    """`ether_text`, or in a column `ether_like`, with the exact wei on hover."""
    text = ether_like(wei, like_wei) if like_wei else ether_text(wei)
    amount, _, unit = text.rpartition(_THIN)
    return Markup(
        '<span class="num" title="{} wei">{}<span class="unit">{}{}</span></span>'
    ).format(grouped(wei), amount, _THIN, unit)


def lpt_about(amount: int) -> str:
    """LPT with five significant digits, without the unit."""
    return significant(Decimal(amount) / ETHER, 5)


def lpt(amount: int) -> Markup:
    """LPT with five significant digits, exact on hover."""
    about = lpt_about(amount)
    return Markup('<span class="num" title="{}">{}<span class="unit">{}LPT</span></span>').format(
        lpt_text(amount), about, _THIN
    )


def duration_text(ms: int) -> str:
    """`850 ms`, `4.2 s`, `12 min`, `3 h 5 min`, `1 d 4 h`."""
    if ms < 1000:
        return f"{ms}{_THIN}ms"
    if ms < 10_000:
        return f"{significant(Decimal(ms) / 1000, 2)}{_THIN}s"
    seconds = ms // 1000
    if seconds < 120:
        return f"{seconds}{_THIN}s"
    minutes = seconds // 60
    if minutes < 60:
        return f"{minutes}{_THIN}min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}{_THIN}h" + (f" {minutes}{_THIN}min" if minutes else "")
    days, hours = divmod(hours, 24)
    return f"{days}{_THIN}d" + (f" {hours}{_THIN}h" if hours else "")


def duration(ms: int) -> Markup:
    return Markup('<span class="num" title="{} ms">{}</span>').format(
        grouped(ms), duration_text(ms)
    )


def iso(ms: int) -> str:
    """`2026-11-24 13:09:56.123 UTC`."""
    moment = datetime.fromtimestamp(ms / 1000, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{ms % 1000:03d} UTC"


def ago_text(ms: int, now_ms: int) -> str:
    """How long ago in words; the page's script uses the same steps."""
    if ms <= 0:
        return "never"
    age_s = (now_ms - ms) // 1000
    if age_s < -1:
        return f"in {duration_text(ms - now_ms)}"
    if age_s < 5:
        return "just now"
    return f"{duration_text(age_s * 1000)} ago"


def ago(ms: int, now_ms: int) -> Markup:
    """A relative time with the exact one on hover, kept current by the page's script."""
    if ms <= 0:
        return Markup('<span class="dim">never</span>')
    return Markup('<time data-ms="{}" datetime="{}" title="{}">{}</time>').format(
        ms, datetime.fromtimestamp(ms / 1000, UTC).isoformat(), iso(ms), ago_text(ms, now_ms)
    )


def size_text(count: int) -> str:
    """Bytes in decimal units: `1.5 MB`."""
    value, unit = Decimal(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{significant(value)}{_THIN}{unit}"


def large_text(count: int) -> str:
    """A count in short form: `12.3 M`."""
    value = Decimal(count)
    for unit in ("", "k", "M", "G", "T", "P"):
        if abs(value) < 1000 or unit == "P":
            return f"{significant(value)}{_THIN if unit else ''}{unit}"
        value /= 1000
    return str(count)


def large(count: int) -> Markup:
    return Markup('<span class="num" title="{}">{}</span>').format(
        grouped(count), large_text(count)
    )


def percent_text(part: int, whole: int) -> str:
    """`98.7 %`, or a dash where there is nothing to divide. Never rounds up to 100 %."""
    if whole <= 0:
        return "–"
    if part == whole:
        return f"100{_THIN}%"
    value = min(Decimal(part) * 100 / whole, Decimal("99.9"))
    return f"{significant(value)}{_THIN}%"


def ratio_text(numerator: int, denominator: int) -> str:
    """Real-time factor and the like: `0.31`, or a dash."""
    if denominator <= 0:
        return "–"
    return significant(Decimal(numerator) / denominator, 2 if numerator < denominator else 3)


def marked(text: str) -> Markup:
    """Text in which `code` stands between backticks."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped


def ppm_text(ppm: int) -> str:
    """`250000` as `25 %`."""
    return f"{significant(Decimal(ppm) / 10_000, 4)}{_THIN}%"


def short_text(text: str) -> str:
    """A text with each address and hash in it as `0x9b89…2387`."""
    return _HEX.sub(r"\1\2…\3", text)


def short(text: str) -> Markup:
    """`short_text` with the whole of it on hover, where something is left out."""
    shown = short_text(text)
    if shown == text:
        return escape(text)
    return Markup('<span title="{}">{}</span>').format(text, shown)
