"""Text with a place: what YAML, environment and flags say, before anybody knows what it means.

A tree of `Node`s, every one with its source (`openpool.yaml:12`, an environment variable, a
flag). YAML scalars stay text. Must not know any setting; `config.load` gives trees their meaning.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from openpool.core.errors import SetupError, reason_of

ENV_PREFIX = "OPENPOOL__"
DEPTH_MAX = 8
FILE_BYTES_MAX = 1_000_000
PLAIN_TAGS = {
    f"tag:yaml.org,2002:{name}"
    for name in ["map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value"]
}
"""What YAML itself gives to nodes without a tag; what it thinks a scalar is plays no part."""


@dataclass(frozen=True, slots=True)
class Node:
    """A text, a list or a mapping; None is a value left empty."""

    value: "str | list[Node] | dict[str, Node] | None"
    source: str
    base: Path = Path()
    """The folder that relative paths in it start from."""

    @property
    def what(self) -> str:
        """In words, for messages."""
        names = {str: "text", list: "a list", dict: "a group of settings", type(None): "nothing"}
        return names[type(self.value)]


def read_yaml(path: Path) -> Node:
    """The tree of a YAML file. Raises SetupError with the place of what cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise SetupError(
            f"The configuration file {path} cannot be read: {reason_of(error)}."
        ) from None
    if len(content) > FILE_BYTES_MAX:
        raise SetupError(f"The configuration file {path} is larger than 1 MB.")
    try:
        root = yaml.compose(content, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = error.problem or error.context
        raise SetupError(
            f"{path}:{line}: this is not YAML ({problem}); look there and a line before for "
            "indentation, which is spaces only, and for a missing colon or quote."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise SetupError(f"The configuration file {path} is not YAML text.") from None
    if root is None:
        return Node({}, str(path), path.parent)
    if not isinstance(root, yaml.MappingNode):
        raise SetupError(f"{path}:1: the file must hold settings like `commission: 25%`.")
    return _from_yaml(root, path, 0)


def _from_yaml(node: yaml.Node, path: Path, depth: int) -> Node:
    source = f"{path}:{node.start_mark.line + 1}"
    if depth > DEPTH_MAX:
        raise SetupError(f"{source}: this is nested deeper than any setting.")
    if node.tag not in PLAIN_TAGS:
        raise SetupError(f"{source}: YAML tags like {node.tag} are not allowed here.")
    if isinstance(node, yaml.MappingNode):
        return Node(_mapping(node, path, depth), source, path.parent)
    if isinstance(node, yaml.SequenceNode):
        items = [_from_yaml(item, path, depth + 1) for item in node.value]
        return Node(items, source, path.parent)
    plain = getattr(node, "style", None) is None
    empty = plain and node.value in {"", "~", "null"}
    return Node(None if empty else str(node.value), source, path.parent)


def _mapping(node: yaml.MappingNode, path: Path, depth: int) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for key_node, value_node in node.value:
        source = f"{path}:{key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise SetupError(f"{source}: the name of a setting must be plain text.")
        if key_node.value in found:
            raise SetupError(f"{source}: `{key_node.value}` is set twice; keep one of them.")
        value = _from_yaml(value_node, path, depth + 1)
        # the line of the key is where people look, also when its value starts on the next one
        found[key_node.value] = Node(value.value, source, value.base)
    return found


def read_environment(environment: Mapping[str, str]) -> Node:
    """The tree of all `OPENPOOL__A__B=text`; list items are numbered from 0.

    `OPENPOOL__ORCHESTRATOR_<FIELD>` is short for `OPENPOOL__ORCHESTRATORS__0__<FIELD>`.
    """
    root: dict[str, Node] = {}
    for name in sorted(environment):
        if name.startswith(ENV_PREFIX):
            path = env_path(name)
            set_path(root, path, Node(environment[name] or None, name, Path.cwd()))
    return Node(root, "the environment")


def env_path(name: str) -> list[str]:
    """The path of the setting that an environment variable means."""
    path = name.removeprefix(ENV_PREFIX).lower().split("__")
    short = "orchestrator_"
    if len(path) == 1 and path[0].startswith(short):
        return ["orchestrators", "0", path[0].removeprefix(short)]
    return path


def env_name(path: str) -> str:
    """The environment variable of a setting: `OPENPOOL__WEB__LISTEN` for `web.listen`."""
    return ENV_PREFIX + path.replace("[", ".").replace("]", "").replace(".", "__").upper()


def read_flags(assignments: Mapping[str, str]) -> Node:
    """The tree of `web.listen=…` given on the command line, by dotted path."""
    root: dict[str, Node] = {}
    for name, text in assignments.items():
        path = name.replace("[", ".").replace("]", "").split(".")
        set_path(root, path, Node(text, f"--set {name}", Path.cwd()))
    return Node(root, "the command line")


def set_path(root: dict[str, Node], path: list[str], node: Node) -> None:
    """Put a node into nested mappings. Raises SetupError if one of `path` is a value already."""
    for part in path[:-1]:
        inner = root.setdefault(part, Node({}, node.source, node.base)).value
        if not isinstance(inner, dict):
            raise SetupError(f"{node.source}: `{part}` has a value already ({root[part].source}).")
        root = inner
    if path[-1] in root:
        raise SetupError(f"{node.source} and {root[path[-1]].source} contradict; keep one of them.")
    root[path[-1]] = node


def merge(low: Node, high: Node) -> Node:
    """What `high` says, and what `low` says of all else. Numbered entries replace list items."""
    if isinstance(low.value, dict) and isinstance(high.value, dict):
        merged = dict(low.value)
        for key, node in high.value.items():
            merged[key] = merge(merged[key], node) if key in merged else node
        return Node(merged, low.source, low.base)
    if isinstance(low.value, list) and isinstance(high.value, dict):
        by_number = {str(i): node for i, node in enumerate(low.value)}
        return merge(Node(by_number, low.source, low.base), high)
    if high.value is None:
        return low
    return high
