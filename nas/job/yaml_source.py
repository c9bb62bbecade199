"""A YAML file that remembers where each of its keys and values stands.

Values are read by the core rules of YAML 1.2, so that ``1e-3`` is a number, ``no`` is
a word and ``010`` is ten; a key given twice in one mapping is a mistake.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from search_spaces.errors import InputError

MAX_BYTES = 1 << 20
"""A file larger than this is no job: it is refused before it is parsed."""

MAX_VALUES = 1 << 20
"""As many values as a file of ``MAX_BYTES`` could hold without aliases."""

Location = Sequence["str | int"]


@dataclass(frozen=True, order=True)
class Diagnostic:
    """One mistake: ``path:line:column: message``, line and column counted from 1."""

    path: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.message}"


class DiagnosticsError(InputError):
    """Every mistake that was found in a file; ``str`` gives one line for each.

    Attributes:
        diagnostics: the mistakes in the order in which they stand in the file.
    """

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = sorted(set(diagnostics))
        super().__init__("\n".join(map(str, self.diagnostics)))


class YamlSource:
    """The values of one YAML file and the positions of all of its nodes.

    Attributes:
        path: as the user wrote it; diagnostics begin with it.
        value: the plain Python value of the document.
    """

    def __init__(self, path: str, text: str) -> None:
        """Parse ``text``.

        Raises:
            DiagnosticsError: the text is no YAML, holds no or several documents, a key
                twice, or a tag outside plain YAML.
        """
        self.path = path
        self._root: yaml.Node | None = None
        try:
            loader = _Loader(text)
            try:
                self._root = loader.get_single_node()
                if self._root is None:
                    raise self.error((), "the file is empty")
                self._refuse_bombs(self._root)
                duplicates = list(self._duplicates(self._root))
                if duplicates:
                    raise DiagnosticsError(duplicates)
                self.value: Any = loader.construct_document(self._root)
            finally:
                loader.dispose()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            raise DiagnosticsError(
                [Diagnostic(path, line, column, _yaml_message(error, text, mark))]
            ) from error
        except yaml.reader.ReaderError as error:
            line, column = _line_column(text, error.position)
            message = f"character U+{ord(text[error.position]):04X} is not allowed in YAML"
            raise DiagnosticsError([Diagnostic(path, line, column, message)]) from error
        except RecursionError as error:
            raise self.error((), "the file is nested too deeply") from error

    @classmethod
    def read(cls, path: str | Path) -> YamlSource:
        """Read and parse the file at ``path``.

        Raises:
            DiagnosticsError: as the constructor; also a missing file, a folder, a file that
                is not UTF-8 or is larger than ``MAX_BYTES``.
            PermissionError: the file must not be read.
        """
        name = str(path)
        try:
            with open(path, "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except FileNotFoundError as error:
            raise DiagnosticsError([Diagnostic(name, 1, 1, "no such file")]) from error
        except IsADirectoryError as error:
            raise DiagnosticsError([Diagnostic(name, 1, 1, "is a folder, not a file")]) from error
        if len(data) > MAX_BYTES:
            message = f"the file is larger than {MAX_BYTES // 1024} KiB"
            raise DiagnosticsError([Diagnostic(name, 1, 1, message)])
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
            message = f"byte 0x{data[error.start]:02X} is not valid UTF-8; save the file as UTF-8"
            raise DiagnosticsError([Diagnostic(name, line, column, message)]) from error
        return cls(name, text)

    def position(self, location: Location, *, key: bool = False) -> tuple[int, int]:
        """Return the (line, column) of the value at ``location``, or of its key.

        Where the location does not exist, the nearest existing parent's key stands for it.
        """
        node = self._root
        mark = node.start_mark if node is not None else None
        for depth, step in enumerate(location):
            found = _child(node, step)
            if found is None:
                break
            key_node, node = found
            last = depth == len(location) - 1
            reached_key = key or not last
            mark = key_node.start_mark if key_node is not None and reached_key else node.start_mark
        return (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)

    def diagnostic(self, location: Location, message: str, *, key: bool = False) -> Diagnostic:
        """Return a diagnostic at the value (or the key) at ``location``."""
        return Diagnostic(self.path, *self.position(location, key=key), message)

    def error(self, location: Location, message: str) -> DiagnosticsError:
        """Return an error with one diagnostic at ``location``."""
        return DiagnosticsError([self.diagnostic(location, message)])

    def _refuse_bombs(self, root: yaml.Node) -> None:
        """Refuse aliases that contain themselves, or that stand for more than a file may hold.

        A few lines of aliases to aliases stand for billions of values.

        Raises:
            DiagnosticsError: there is one; the position is that of the value it stands for.
        """
        sizes: dict[int, int] = {}
        open_ones: set[int] = set()
        stack: list[tuple[yaml.Node, bool]] = [(root, False)]
        while stack:
            node, left = stack.pop()
            children: list[yaml.Node] = []
            if isinstance(node, yaml.SequenceNode):
                children = list(node.value)
            elif isinstance(node, yaml.MappingNode):
                children = [part for pair in node.value for part in pair]
            if left:
                open_ones.discard(id(node))
                sizes[id(node)] = 1 + sum(sizes[id(child)] for child in children)
                if sizes[id(node)] > MAX_VALUES:
                    raise self._at(node, f"aliases here stand for more than {MAX_VALUES} values")
            elif id(node) in open_ones:
                raise self._at(node, "this value contains itself through an alias")
            elif id(node) not in sizes:
                open_ones.add(id(node))
                stack.append((node, True))
                stack.extend((child, False) for child in children)

    def _at(self, node: yaml.Node, message: str) -> DiagnosticsError:
        mark = node.start_mark
        return DiagnosticsError([Diagnostic(self.path, mark.line + 1, mark.column + 1, message)])

    def _duplicates(self, root: yaml.Node) -> Iterable[Diagnostic]:
        seen: set[int] = set()
        stack = [root]
        while stack:
            node = stack.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if isinstance(node, yaml.SequenceNode):
                stack.extend(node.value)
            elif isinstance(node, yaml.MappingNode):
                lines: dict[str, int] = {}
                for key, value in node.value:
                    stack.append(value)
                    if not isinstance(key, yaml.ScalarNode):
                        continue
                    mark = key.start_mark
                    if key.value in lines:
                        yield Diagnostic(
                            self.path,
                            mark.line + 1,
                            mark.column + 1,
                            f"key {key.value!r} is given twice (first on line {lines[key.value]})",
                        )
                    lines.setdefault(key.value, mark.line + 1)


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalar rules of the YAML 1.2 core schema."""


# A mapping of first characters to (tag, pattern); own, so the base class keeps its rules.
_Loader.yaml_implicit_resolvers = {}


def _construct_other(loader: yaml.SafeLoader, node: yaml.Node) -> None:
    raise yaml.constructor.ConstructorError(
        None, None, f"the tag {node.tag!r} is not allowed in a job", node.start_mark
    )


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(_checked("int", text, node), 16 if text.startswith("0x") else 10)


def _construct_bool(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> bool:
    return _checked("bool", str(loader.construct_scalar(node)), node).lower() == "true"


def _construct_float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    text = _checked("float", str(loader.construct_scalar(node)), node).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


def _checked(kind: str, text: str, node: yaml.ScalarNode) -> str:
    # Reached with other text only through an explicit tag such as "!!int twelve".
    if not re.fullmatch(_PATTERNS[kind], text):
        raise yaml.constructor.ConstructorError(
            None, None, f"{text!r} is not a value of the tag !!{kind}", node.start_mark
        )
    return text


_PATTERNS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]{1,400}|0x[0-9a-fA-F]{1,400}",
    "float": r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    "merge": r"<<",
}
_FIRST = {
    "null": ["~", "n", "N", ""],
    "bool": list("tTfF"),
    "int": list("-+0123456789"),
    "float": list("-+.0123456789"),
    "merge": ["<"],
}
for _kind, _pattern in _PATTERNS.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(rf"(?:{_pattern})\Z"), _FIRST[_kind]
    )
_Loader.add_constructor("tag:yaml.org,2002:bool", _construct_bool)
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)
# No other tag may construct anything: dates, sets and Python objects are no part of a job.
_Loader.yaml_constructors = {
    f"tag:yaml.org,2002:{kind}": _Loader.yaml_constructors[f"tag:yaml.org,2002:{kind}"]
    for kind in ("null", "bool", "int", "float", "str", "seq", "map")
}
_Loader.add_constructor(None, _construct_other)


def _child(node: yaml.Node | None, step: str | int) -> tuple[yaml.Node | None, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        # Merged keys stand before the mapping's own, which override them: the last one counts.
        for key, value in reversed(node.value):
            if isinstance(key, yaml.ScalarNode) and key.value == str(step):
                return key, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return None, node.value[step]
    return None


def _yaml_message(error: yaml.MarkedYAMLError, text: str, mark: yaml.Mark | None) -> str:
    if mark is not None:
        lines = text.splitlines()
        line = lines[mark.line] if mark.line < len(lines) else ""
        if "\t" in line[: mark.column + 1]:
            return "a tab is not allowed here; indent with spaces"
    problem = error.problem or "cannot be read as YAML"
    if "found another document" in problem:
        return "a job is one document; move what follows '---' to a file of its own"
    if undefined := re.fullmatch("found undefined alias ('.*')", problem):
        return f"no value above is marked &{undefined[1][1:-1]}; mark one, or write the value here"
    return f"{problem} ({error.context})" if error.context else problem


def _line_column(text: str, position: int) -> tuple[int, int]:
    line = text.count("\n", 0, position) + 1
    return line, position - (text.rfind("\n", 0, position) + 1) + 1
