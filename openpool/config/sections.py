"""What a setting is: a field with a kind and a meaning, in a section with a name."""

from dataclasses import dataclass

from msgspec import Struct

from openpool.config.kinds import Kind


@dataclass(frozen=True, slots=True)
class Setting:
    """What stands beside the type of a field: the kind of its text, and its meaning."""

    kind: Kind
    meaning: str


class Section(Struct, frozen=True, kw_only=True):
    """Some settings under one name."""
