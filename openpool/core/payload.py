"""The base of every event's content. The catalogue is `core.events`."""

from typing import ClassVar

from msgspec import Struct


class Payload(Struct, frozen=True, kw_only=True, tag_field="type"):
    """What happened. The tag is the event's type; `v` is the version of that type's meaning."""

    v: ClassVar[int] = 1

    @property
    def type(self) -> str:
        return str(self.__struct_config__.tag)
