"""How many tokens are credited, of those that a worker tells.

Where the model's tokenizer is known, its count decides. A worker that tells a little more is
credited the count; one that tells more than `FALSE_FACTOR` times the count and `FALSE_SPARE` is to
blame. Where it is not known, a worker is believed as far as the bytes allow: no token is shorter
than a byte. What a model thinks and does not say is not in its answer, and not paid.
"""

from typing import NamedTuple

from openpool.pool.answers.nouns import demand

BYTES_PER_TOKEN = 4
"""An estimate, where neither the worker nor a tokenizer says it."""
SPARE_TOKENS = 16
"""For marks that a model puts around a text, for each message."""
FALSE_FACTOR, FALSE_SPARE = 2, 64
"""What is not a matter of rounding any more."""


class Told(NamedTuple):
    """How many tokens, and how that is known, in words."""

    tokens: int
    note: str


def recounted(told: int, counted: int, room: int) -> Told:
    """What is credited where the model's tokenizer counts so many; `room` is for marks that no text
    shows, and `told` 0 if the worker does not say. Raises BadResult if that is grossly false."""
    most = counted + room
    false = told > FALSE_FACTOR * most + FALSE_SPARE
    demand(not false, f"{told} tokens were told where the model's tokenizer counts {counted}")
    if told > most:
        return Told(most, f"counted with the model's tokenizer; {told} were told")
    if told > 0:
        return Told(told, "as told, which the model's tokenizer confirms")
    return Told(counted, "counted with the model's tokenizer")


def believed(told: int, most: int) -> Told:
    """What is credited of a number that only its bytes bound."""
    return Told(min(told, most), "as told, no more than its bytes")


def estimated(size: int, exact: int = 0) -> Told:
    """What is credited where nobody says it: from the bytes, beside tokens that are known."""
    return Told(exact - (-size // BYTES_PER_TOKEN), "estimated from its bytes")
