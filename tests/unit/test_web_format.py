"""Numbers as people read them, exact where it matters."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openpool.core.units import ETHER, GWEI
from openpool.web.format import (
    ago,
    ago_text,
    duration_text,
    ether,
    ether_like,
    ether_text,
    iso,
    large_text,
    lpt,
    marked,
    middle,
    percent_text,
    ppm_text,
    ratio_text,
    short,
    short_text,
    size_text,
)

THIN = "\u202f"


def test_lpt_is_rounded_to_read_and_exact_to_check() -> None:
    """Five digits are shown; all of them are on hover."""
    shown = lpt(1234 * ETHER + 567_890_123_456_789_012)
    assert f">1{THIN}234.6<" in shown
    assert 'title="1234.567890123456789012 LPT"' in shown
    assert ">0<" in lpt(0)


@pytest.mark.parametrize(
    ("wei", "text"),
    [
        (0, "0 ETH"),
        (1, "1 wei"),
        (999_999, "999999 wei"),
        (36_135_000_000, "36.14 gwei"),
        (75_127_124_159_406, "75 127 gwei"),
        (144_412_232_094_854, "0.0001444 ETH"),
        (1_234_567 * ETHER, "1 234 567 ETH"),
        (-289_715_823_360_016, "-0.0002897 ETH"),
        (12 * ETHER + ETHER // 2, "12.5 ETH"),
    ],
)
def test_an_amount_takes_the_unit_that_suits_it(wei: int, text: str) -> None:
    """Amounts read well at every size, negative ones too."""
    assert ether_text(wei).replace(THIN, " ") == text


@pytest.mark.parametrize(
    ("wei", "like", "text"),
    [
        (568_300_000_000_000, 568_300_000_000_000, "0.0005683 ETH"),
        (3_700_000_000_000, 568_300_000_000_000, "0.0000037 ETH"),
        (-3_700_000_000_000, 568_300_000_000_000, "-0.0000037 ETH"),
        (925_100_000_000, 568_300_000_000_000, "0.00000093 ETH"),  # two digits all the same
        (24_000 * GWEI, 4_000 * GWEI, "0.000024000 ETH"),
        (ETHER, 1_234_567 * ETHER, "1 ETH"),
        (12_345 * ETHER, 1_234_567 * ETHER, "12 345 ETH"),
        (30 * GWEI, 121 * GWEI, "30.0 gwei"),
        (3 * ETHER, 121 * GWEI, "3 000 000 000.0 gwei"),
        (1, 121 * GWEI, "0.000000001 gwei"),
        (0, 121 * GWEI, "0 gwei"),
        (12_345, 70, "12 345 wei"),
    ],
)
def test_the_amounts_of_a_column_compare(wei: int, like: int, text: str) -> None:
    """They have one unit, and the decimals that the middle one needs, unless nothing would be
    left."""
    assert ether_like(wei, like).replace(THIN, " ") == text


def test_a_column_is_told_like_its_middle_amount() -> None:
    """Zeros and signs do not count; a column of nothing is told like nothing."""
    assert middle(["0", "7", "0", 1, "-900"]) == 7
    assert middle(["0", 0]) == middle([]) == 0


@given(st.integers(1, 10**24), st.integers(1, 10**24), st.integers(1, 10**24))
def test_a_column_keeps_the_order(one: int, other: int, like: int) -> None:
    """All have one unit, and the larger never looks smaller."""
    shown = [ether_like(wei, like).rpartition(THIN) for wei in sorted((one, other))]
    units = {unit for _, _, unit in shown}
    low, high = (Fraction(number.replace(THIN, "")) for number, _, _ in shown)
    assert low <= high
    assert len(units) == 1


@given(st.integers(-(10**30), 10**30))
def test_the_exact_wei_stay_on_hover(wei: int) -> None:
    """Whatever is shown rounded, every digit stands in the title."""
    title = str(ether(wei)).partition('title="')[2].partition(" wei")[0]
    assert int(title.replace(THIN, "")) == wei


@given(st.integers(1, 10**30))
def test_a_rounded_amount_is_near(wei: int) -> None:
    """What is shown is within half a per mille of the amount, and never in scientific notation."""
    number, _, unit = ether_text(wei).rpartition(THIN)
    factor = {"ETH": ETHER, "gwei": GWEI, "wei": 1}[unit]
    digits = number.replace(THIN, "")
    assert "E" not in digits
    whole, _, part = digits.partition(".")
    shown = int(whole + part) * factor
    assert abs(shown - wei * 10 ** len(part)) * 2000 <= wei * 10 ** len(part)


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1_540, "1.5 s"),
        (61_000, "61 s"),
        (3_599_000, "59 min"),
        (11_100_000, "3 h 5 min"),
        (86_399_999, "23 h 59 min"),
        (108_120_000, "1 d 6 h"),
        (187_200_000, "2 d 4 h"),
    ],
)
def test_durations(ms: int, text: str) -> None:
    """A duration is given in the one or two units that matter."""
    assert duration_text(ms).replace(THIN, " ") == text


def test_times_are_relative_with_the_exact_one_on_hover() -> None:
    """A time is told relative to now; its title is exact and in UTC."""
    assert ago_text(0, 5) == "never"
    assert ago_text(1_000, 3_000) == "just now"
    assert ago_text(0 + 1, 60_001) == f"60{THIN}s ago"
    assert iso(1_700_000_000_123) == "2023-11-14 22:13:20.123 UTC"
    assert "2023-11-14 22:13:20.123 UTC" in ago(1_700_000_000_123, 1_700_000_100_000)


def test_shares_never_flatter() -> None:
    """Less than all is never shown as 100 %, and nothing of nothing is a dash."""
    assert percent_text(999_999, 1_000_000) == f"99.9{THIN}%"
    assert percent_text(3, 3) == f"100{THIN}%"
    assert percent_text(0, 0) == "–"
    assert ratio_text(155, 1000) == "0.16"
    assert ratio_text(1, 0) == "–"
    assert ppm_text(250_000) == f"25{THIN}%"
    assert ppm_text(12_345) == f"1.234{THIN}%"


def test_counts_and_sizes() -> None:
    """Large counts and sizes are short."""
    assert large_text(999) == "999"
    assert large_text(93_700_000) == f"93.7{THIN}M"
    assert size_text(1_500_000) == f"1.5{THIN}MB"


def test_code_in_sentences_is_marked_and_nothing_else() -> None:
    """What stands between backticks is code; markup within and around it stays text."""
    assert marked("Add `--json`, or `-v`.") == "Add <code>--json</code>, or <code>-v</code>."
    assert marked("`<b>` & <i>") == "<code>&lt;b&gt;</code> &amp; &lt;i&gt;"
    assert marked("a ` alone") == "a ` alone"


def test_addresses_and_hashes_have_one_short_form() -> None:
    """Wherever they stand in a text; other texts stay as they are, without a hover."""
    address = "0x9b89025cE7A6d932B28F6e15132a70D402F72387"
    assert short_text(address) == "0x9b89…2387"
    assert short(f"worker:{address}") == (
        f'<span title="worker:{address}">worker:0x9b89…2387</span>'
    )
    assert short_text("ab" * 32) == "abab…abab"
    assert short("main.4711.12") == "main.4711.12"


def test_a_shortened_identifier_is_escaped() -> None:
    """Shortening keeps the whole text on hover, and lets no markup through."""
    text = '<b onclick="x">' + "a" * 40
    assert "<b" not in short(text)
    assert "&lt;b onclick=&#34;x&#34;&gt;" in short(text)
