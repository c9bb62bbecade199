"""What ARCHITECTURE.md says holds: who imports whom, no cycles, and every registry in its table."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
MAY_IMPORT = {
    "search_spaces": set(),
    "devices": {"search_spaces"},
    "supernet": {"search_spaces"},
    "predictors": {"search_spaces"},
    "nas": {"search_spaces", "devices", "supernet", "predictors"},
}
KNOWN_CYCLES = {
    # A file is checked by the parity that its export is checked by.
    frozenset({"nas.models.file_check", "nas.models.parity"}),
}  # fmt: skip
"""Cycles that exist through imports inside functions. None may be added."""
MOST_LINES = 500
LONGER = {
    "devices/lowbit/network.py",
}
"""Files that are still longer than they should be. None may be added."""
MOST_MODULES = 20
_HOLD_IMPORTS = (ast.stmt, ast.excepthandler, ast.match_case)


@dataclass(frozen=True)
class Import:
    """One import of a module of ours: where, of what, and whether at the top of the file."""

    module: str
    imported: str
    typing_only: bool


@lru_cache
def modules() -> dict[str, Path]:
    """Return the file of each module."""
    found = {}
    for package in MAY_IMPORT:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@lru_cache
def text_of(path: Path) -> str:
    """Return the text of a module, which many tests here read."""
    return path.read_text("utf-8")


@lru_cache
def imports_of(module: str) -> tuple[tuple[Import, ...], tuple[ast.stmt, ...]]:
    """Return a module's imports, and those statements of them at its top; parsed once."""
    tree = ast.parse(text_of(modules()[module]))
    top = tuple(one for one in tree.body if isinstance(one, (ast.Import, ast.ImportFrom)))
    return tuple(_imports(module, tree)), top


def _imports(module: str, node: ast.AST, typing_only: bool = False) -> Iterator[Import]:
    known = modules()
    for child in ast.iter_child_nodes(node):
        # No import stands within an expression, and most of what is parsed are expressions.
        if not isinstance(child, _HOLD_IMPORTS):
            continue
        guarded = typing_only or (
            isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        )
        names = []
        if isinstance(child, ast.Import):
            names = [alias.name for alias in child.names]
        elif isinstance(child, ast.ImportFrom) and child.module and not child.level:
            whole = [f"{child.module}.{alias.name}" for alias in child.names]
            names = [name if name in known else child.module for name in whole]
        yield from (Import(module, name, guarded) for name in names)
        yield from _imports(module, child, guarded)


@lru_cache
def imports() -> tuple[Import, ...]:
    """Return every import of every module, those inside functions too."""
    return tuple(one for module in modules() for one in imports_of(module)[0])


def test_imports_run_one_way():
    wrong = set()
    for one in imports():
        own, other = one.module.partition(".")[0], one.imported.partition(".")[0]
        if other in MAY_IMPORT and other != own and other not in MAY_IMPORT[own]:
            wrong.add((one.module, one.imported))
        if other in ("experiments", "tests"):
            wrong.add((one.module, one.imported))
    assert wrong == set()


def test_the_rule_is_the_one_that_is_written():
    rows = re.findall(r"^\| `(\w+)/` \|", TEXT, re.M)
    assert rows == list(reversed([*MAY_IMPORT])) or set(rows) == set(MAY_IMPORT)
    # Imports run upwards in the table: whoever is imported stands below.
    for package, allowed in MAY_IMPORT.items():
        assert all(rows.index(other) > rows.index(package) for other in allowed)


@pytest.mark.parametrize("package", ["search_spaces", "devices"])
def test_what_a_board_installs_loads_no_torch(package):
    allowed = re.compile(r"devices\.runtimes\.(executorch|inductor|torch_graph)")
    for module in modules():
        if module.partition(".")[0] != package or allowed.match(module):
            continue
        for statement in imports_of(module)[1]:
            assert not re.search(r"\btorch", ast.unparse(statement)), module


def cycles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """Return the strongly connected parts of more than one module (Tarjan, 1972)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = set()

    def visit(node: str) -> None:
        number[node] = low[node] = len(number)
        stack.append(node)
        for other in graph[node]:
            if other not in number:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], number[other])
        if low[node] == number[node]:
            part = []
            while not part or part[-1] != node:
                part.append(stack.pop())
            if len(part) > 1:
                found.add(frozenset(part))

    for node in graph:
        if node not in number:
            visit(node)
    return found


def test_cycles_are_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}
    assert cycles(graph) == {frozenset("abc")}
    assert cycles({"a": {"b"}, "b": set()}) == set()


def test_there_is_no_cycle_but_the_known_ones():
    graph: dict[str, set[str]] = {module: set() for module in modules()}
    for one in imports():
        if not one.typing_only and one.imported in graph and one.imported != one.module:
            graph[one.module].add(one.imported)
    # Equal, so that a cycle that was broken is taken off the list.
    assert cycles(graph) == KNOWN_CYCLES


def registries() -> dict[str, str]:
    """Return the entry-point group of every registry by its name, as the source declares them."""
    found = {}
    for path in modules().values():
        text = text_of(path)
        for name, arguments in re.findall(r"^(\w+): Registry\[.*?\] = Registry\((.*?)\)$", text,
                                          re.M | re.S):  # fmt: skip
            found[name] = re.search(r'group="([\w.]+)"', arguments)[1]
    return found


def test_the_table_of_registries_is_whole_and_true():
    table = dict(re.findall(r"`([A-Z_]+)`, entry point `(nas\.\w+)`", TEXT))
    assert len(registries()) >= 16
    assert table == registries()


def test_files_and_folders_that_are_named_exist():
    for name in re.findall(r"`((?:nas|supernet|predictors|devices|search_spaces|tests)/[\w./]*)`",
                           TEXT):  # fmt: skip
        place = ROOT / name
        assert place.exists() or place.with_suffix(".py").exists(), name


def test_files_are_short_but_the_known_ones():
    long = {
        str(path.relative_to(ROOT))
        for path in modules().values()
        if len(text_of(path).splitlines()) > MOST_LINES
    }
    assert long - LONGER == set(), f"over {MOST_LINES} lines: split by topic"


def test_folders_are_small():
    counts: dict[Path, int] = {}
    for path in modules().values():
        if path.name != "__init__.py":
            counts[path.parent] = counts.get(path.parent, 0) + 1
    assert {str(k): n for k, n in counts.items() if n > MOST_MODULES} == {}
