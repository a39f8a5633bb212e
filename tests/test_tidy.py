"""The house rules, read from the source itself."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "openpool"
GENERATED = {"livepeer_pb2.py"}
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70

ALLOWED = {
    "core": set(),
    "wire": {"core"},
    "store": {"core"},
    "link": {"core", "wire"},
    "pool": {"core", "wire", "link", "store.interface", "ethereum"},
    "worker": {"core", "wire", "link"},
    "web": {"core", "store.interface"},
    "chain": {"core", "ethereum", "private_files", "wallet"},
    "treasury": {"core", "chain", "store.interface"},
    "rules": {"core"},
}
"""Which of our folders each folder may import; the rest (app, cli, demo) may import anything."""

CORE_STDLIB = {
    "base64", "bisect", "collections", "dataclasses", "datetime", "enum", "errno", "fractions",
    "functools", "hashlib", "heapq", "ipaddress", "itertools", "math", "operator", "re", "typing",
    "urllib.parse",
}  # fmt: skip
CORE_LIBRARIES = {"msgspec", "eth_utils"}


def sources(folder: str = "") -> list[Path]:
    return [p for p in sorted((PACKAGE / folder).rglob("*.py")) if p.name not in GENERATED]


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def where(path: Path, line: int = 1) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


@pytest.mark.parametrize("folder", sorted(ALLOWED))
def test_folders_depend_one_way(folder: str) -> None:
    """A folder imports only the folders below it, and siblings never meet."""
    wrong = []
    for path in sources(folder):
        for name in imports(parsed(path)):
            if not name.startswith("openpool."):
                continue
            target = name.removeprefix("openpool.")
            allowed = ALLOWED[folder] | {folder}
            if not any(target == each or target.startswith(f"{each}.") for each in allowed):
                wrong.append(f"{where(path)} imports {name}")
    assert wrong == []


def test_the_core_is_pure() -> None:
    """The core touches no clock, no socket, no file, no randomness, and awaits nothing."""
    wrong = []
    for path in sources("core"):
        tree = parsed(path)
        for name in imports(tree):
            top = name.partition(".")[0]
            if not {top, name} & (CORE_STDLIB | CORE_LIBRARIES | {"openpool"}):
                wrong.append(f"{where(path)} imports {name}")
        wrong += [
            f"{where(path, node.lineno)} is async"
            for node in ast.walk(tree)
            if isinstance(node, ast.AsyncFunctionDef)
        ]
    assert wrong == []


MONEY = ["units.py", "usage.py"]
"""The rest that handles money is in folders of its own."""
FOLDERS = ("money", "livepeer")
IN_FOLDERS = [
    f"{folder}/{path.name}"
    for folder in FOLDERS
    for path in sorted((PACKAGE / "core" / folder).glob("*.py"))
]


@pytest.mark.parametrize("name", MONEY + IN_FOLDERS)
def test_money_is_never_a_float(name: str) -> None:
    """No float and no true division stands in a file that handles money."""
    tree = parsed(PACKAGE / "core" / name)
    wrong = [
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.Constant) and isinstance(node.value, float))
        or (isinstance(node, ast.Name) and node.id == "float")
        or (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div))
    ]
    assert wrong == []


def test_files_and_functions_fit_on_a_screen() -> None:
    """No file is longer than 600 lines and no function than 70."""
    wrong = []
    for path in sources():
        text = path.read_text()
        if (lines := text.count("\n")) > FILE_LINES_MAX:
            wrong.append(f"{where(path)} has {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES_MAX:
                    wrong.append(f"{where(path, node.lineno)} {node.name} has {length} lines")
    assert wrong == []


def test_every_file_says_what_it_is() -> None:
    """Every module opens with a docstring."""
    silent = [where(p) for p in sources() if not ast.get_docstring(parsed(p))]
    assert silent == []


def test_no_task_is_an_orphan() -> None:
    """Tasks live in a task group: `create_task` is called on a group, never on asyncio itself."""
    wrong = [
        where(path, node.lineno)
        for path in sources()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "create_task"
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in {"asyncio", "loop"}
    ]
    assert wrong == []


def test_eth_account_is_imported_in_one_place() -> None:
    """`openpool.ethereum` undoes what importing it does; nobody goes round that."""
    wrong = [
        f"{where(path)} imports {name}"
        for path in [*sources(), *sorted((ROOT / "tests").rglob("*.py"))]
        for name in imports(parsed(path))
        if name.partition(".")[0] == "eth_account" and path.name != "ethereum.py"
    ]
    assert wrong == []
