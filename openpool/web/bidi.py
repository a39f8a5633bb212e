"""Texts that read from right to left, on pages that read from left to right.

Peers and customers may name things in any script. The controls of direction (UAX #9) would turn
round the words of ours that follow, so a page shows none; letters that read from right to left
stay as they are, within a sentence in a `<bdi>` of their own, so that numbers beside them keep
their places. New names with controls are refused where they are accepted; the log may hold others.
"""

import re

from markupsafe import Markup, escape
from msgspec import structs

from openpool.core.events import AnyPayload
from openpool.web.words import describe

CONTROLS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
OPEN, CLOSE = "\u2068", "\u2069"
"""First strong isolate, and its end: what `<bdi>` is in plain text."""
_SEEN = re.compile(f"[{CONTROLS}]")
_SHOWN = dict.fromkeys(map(ord, CONTROLS), "\ufffd")


def visible(value: object) -> object:
    """What a page shows of a value: `�` for each control of direction. Jinja's `finalize`."""
    return _plain(value) if isinstance(value, str) and _SEEN.search(value) else value


def _plain(text: str) -> str:
    return text.translate(_SHOWN)  # stays Markup if it is


def described(data: AnyPayload) -> Markup:
    """`words.describe` with everything that is not plain ASCII in a `<bdi>` of its own."""
    sentence = escape(describe(_isolated(data)))
    return sentence.replace(OPEN, Markup("<bdi>")).replace(CLOSE, Markup("</bdi>"))


def _isolated(data: AnyPayload) -> AnyPayload:
    texts = {
        name: f"{OPEN}{_plain(text)}{CLOSE}"
        for name, text in structs.asdict(data).items()
        if isinstance(text, str) and not text.isascii()
    }
    return structs.replace(data, **texts) if texts else data
