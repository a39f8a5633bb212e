"""What is set, to what, by whom, and what it means: `openpool config explain` and the reference.

Must never show a secret: kinds show their own values.
"""

from collections.abc import Iterator
from typing import Any, get_args, get_origin

import msgspec
from msgspec import Struct

from openpool.config.load import Loaded, annotations, setting_of
from openpool.config.sections import Section, Setting
from openpool.config.settings import Config
from openpool.config.tree import env_name


class Explained(Struct, frozen=True, kw_only=True):
    """One setting as it is in force."""

    path: str
    value: str
    source: str
    meaning: str
    allowed: str
    variable: str


def explain(loaded: Loaded) -> list[Explained]:
    """Every setting of a loaded configuration, in the order of the reference."""
    return [
        Explained(
            path=path,
            value=setting.kind.show(value),
            source=loaded.sources.get(path, "default"),
            meaning=setting.meaning,
            allowed=setting.kind.allowed,
            variable=env_name(path),
        )
        for path, setting, value in _walk(loaded.config, "")
    ]


def _walk(section: Section, prefix: str) -> Iterator[tuple[str, Setting, object]]:
    for name, annotation in annotations(type(section)).items():
        value, path = getattr(section, name), prefix + name
        setting = setting_of(annotation)
        if setting is not None:
            yield path, setting, value
        elif isinstance(value, Section):
            yield from _walk(value, f"{path}.")
        elif isinstance(value, dict):
            for key, inner in value.items():
                yield from _walk(inner, f"{path}.{key}.")
        else:
            for i, inner in enumerate(value):
                yield from _walk(inner, f"{path}[{i}].")


def reference() -> str:
    """The reference of all settings as Markdown."""
    lines = [
        "# Settings",
        "",
        "Made by `openpool config reference`; do not edit.",
        "",
        "A setting stands in `openpool.yaml`, in an environment variable, or on the command line",
        "(`--set web.listen=0.0.0.0:8080`). Flags win over the environment, the environment over",
        "the file, the file over the defaults. `openpool config explain` shows what is in force.",
        "",
    ]
    top = [
        (name, annotation, default)
        for name, annotation, default in _fields(Config)
        if setting_of(annotation)
    ]
    lines += _table("In every place", "The settings without a section.", "", top)
    for name, annotation, _ in _fields(Config):
        if setting_of(annotation) is None:
            lines += _section(name, annotation)
    return "\n".join(lines).rstrip() + "\n"


def _section(path: str, annotation: Any) -> list[str]:
    kind, prefix = annotation, f"{path}."
    if get_origin(annotation) is dict:
        kind, prefix = get_args(annotation)[1], f"{path}.<name>."
    elif get_origin(annotation) is tuple:
        kind, prefix = get_args(annotation)[0], f"{path}[0]."
    fields = list(_fields(kind))
    lines = _table(
        f"`{path}`",
        (kind.__doc__ or "").strip(),
        prefix,
        [f for f in fields if setting_of(f[1])],
    )
    for name, inner, _ in fields:
        if setting_of(inner) is None:
            lines += _section(f"{path}.{name}", inner)
    return lines


def _fields(kind: type[Section]) -> Iterator[tuple[str, Any, object]]:
    types = annotations(kind)
    for field in msgspec.structs.fields(kind):
        yield field.name, types[field.name], field.default


def _table(title: str, text: str, prefix: str, fields: list[tuple[str, Any, object]]) -> list[str]:
    lines = [f"## {title}", "", text, ""]
    lines += ["| setting | meaning | value | default | environment |", "|---|---|---|---|---|"]
    for name, annotation, default in fields:
        setting = setting_of(annotation)
        assert setting is not None
        path = prefix + name
        shown = "*required*" if default is msgspec.NODEFAULT else _code(setting.kind.show(default))
        variable = _code(env_name(path))
        lines.append(
            f"| `{path}` | {setting.meaning} | {setting.kind.allowed} | {shown} | {variable} |"
        )
    return [*lines, ""]


def _code(text: str) -> str:
    return f"`{text}`" if text else ""
