"""Capability sets and the version rule."""

import pytest

from openpool.core import capabilities
from openpool.core.capabilities import Capability


def test_the_default_set_is_the_one_on_the_wire() -> None:
    """The default set is the number that stock workers send: 0-12, 14 and 26."""
    assert capabilities.DEFAULT == 67133439


def test_ai_numbers_are_masked() -> None:
    """What a stock worker claims beyond transcoding is not passed on."""
    stock = 94487339007
    masked = capabilities.transcoding(stock)
    assert masked < 1 << 27
    assert stock & ~masked == capabilities.bit_set(27, 28, 29, 30, 31, 32, 34, 36)


def test_a_job_fits_only_who_can_do_all_of_it() -> None:
    """Every bit that a job needs must be there."""
    needs = capabilities.bit_set(0, 1, Capability.HEVC_DECODE)
    assert not capabilities.fits(needs, capabilities.DEFAULT)
    assert capabilities.fits(needs, capabilities.DEFAULT | 1 << Capability.HEVC_DECODE)
    assert capabilities.missing(needs, capabilities.DEFAULT) == ["hevc-decode"]


def test_a_number_far_beyond_the_first_word_counts() -> None:
    """A need in the third word is not overlooked."""
    assert not capabilities.fits(1 << 130, capabilities.DEFAULT)
    assert capabilities.names(1 << 130) == ["capability-130"]


@pytest.mark.parametrize(
    ("version", "minimum", "ok"),
    [
        ("0.9.1", "", True),
        ("undefined", "", True),
        ("0.9.1", "0.9.1", True),
        ("0.9.1-3-gabcdef", "0.9.1", True),
        ("0.9.0", "0.9.1", False),
        ("0.10.0", "0.9.9", True),
        ("undefined", "0.9.1", False),
        ("", "0.9.1", False),
        ("v1.2", "1.2.0", True),
        ("0.9.1", "rubbish", True),
        ("rubbish", "rubbish", False),
        ("0.9.1 ", "0.9.1", False),
        ("9" * 5000, "0.9.1", False),
    ],
)
def test_the_version_rule(version: str, minimum: str, ok: bool) -> None:
    """No demand is met by all, an unreadable version meets none, an unreadable demand is none."""
    assert capabilities.version_ok(version, minimum) is ok


def test_the_lowest_version_is_by_number_not_by_text() -> None:
    """0.10 is above 0.9, and those that cannot be read do not count."""
    assert capabilities.lowest_version(["0.10.0", "0.9.2", "undefined"]) == "0.9.2"
    assert capabilities.lowest_version(["undefined"]) == capabilities.COMPATIBLE_VERSION
