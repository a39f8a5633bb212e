"""Revenue rules: those that come with Open Pool, and how those of others are found and asked.

A rule is a module with one or both of two functions, each marked with `@rule`:

    weights(round, options)      replaces the split: {address: whole number}, or None
    adjustments(round, options)  moves money of the round: a list of `Adjustment`, or None

`VERSION` is its version and `OPTIONS` says what it can be told: {name: meaning}. A rule must not
do I/O: the same round must give the same answer. It runs in a process of its own (`rules.child`)
and never sees the books. How to write one: docs/how-to/write-a-revenue-hook.md.
"""

from collections.abc import Mapping, Sequence

import pluggy

from openpool.core.errors import BadMessage
from openpool.core.money.rules import Adjustment, Round

__all__ = ["ENTRY_POINTS", "RuleQuestions", "rate", "rule", "whole"]

ENTRY_POINTS = "openpool.revenue_rules"
PROJECT = "openpool_revenue_rules"

rule = pluggy.HookimplMarker(PROJECT)
"""Marks the functions of a rule."""
_asked = pluggy.HookspecMarker(PROJECT)

PPM = 1_000_000


class RuleQuestions:
    """What a rule is asked."""

    @_asked
    def weights(self, round: Round, options: Mapping[str, str]) -> Mapping[str, int] | None:
        """Each address's part of the pot, against the sum of all."""

    @_asked
    def adjustments(self, round: Round, options: Mapping[str, str]) -> Sequence[Adjustment] | None:
        """What is to be moved."""


def rate(options: Mapping[str, str], name: str, default: str) -> int:
    """An option like `5%` or `2.5%`, in ppm. Raises BadMessage."""
    text = options.get(name, default)
    whole_part, _, fraction = text.removesuffix("%").strip().partition(".")
    digits = whole_part + fraction
    if not (text.endswith("%") and digits.isascii() and digits.isdigit() and len(fraction) <= 4):
        raise BadMessage(f"the option `{name}` is a rate like 5% or 2.5%, not {text[:40]!r}")
    ppm = int(digits + "0" * (4 - len(fraction)))
    if ppm > PPM:
        raise BadMessage(f"the option `{name}` is at most 100%")
    return ppm


def whole(options: Mapping[str, str], name: str, default: int) -> int:
    """An option that is a whole number. Raises BadMessage."""
    text = options.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 40):
        raise BadMessage(f"the option `{name}` is a whole number, not {text[:40]!r}")
    return int(text)
