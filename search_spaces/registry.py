"""Named parts, from this project and from other packages through entry points."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from search_spaces.errors import EnvironmentProblem, InputError

T = TypeVar("T")


class Registry(Generic[T]):
    """A mapping from names to parts that refuses a name twice.

    Args:
        kind: what the parts are, for error messages ("runtime").
        group: entry-point group of third-party parts ("nas.runtimes"); read at the
            first look-up, never at import.
        modules: of this project that register parts; imported at the first look-up, so that
            a name is known whichever module a caller has loaded.

    Attributes:
        broken: names of other packages' parts that cannot be imported, and why. They hide no
            others; :meth:`get` raises what is said here.
    """

    def __init__(self, kind: str, *, group: str, modules: Sequence[str] = ()) -> None:
        self.kind = kind
        self.group = group
        self.modules = tuple(modules)
        self.broken: dict[str, str] = {}
        self._parts: dict[str, T] = {}
        self._others_read = False

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that files a part under ``name``.

        Raises:
            ValueError: the name is taken.
        """

        def add(part: T) -> T:
            if name in self._parts:
                raise ValueError(f"{self.kind} {name!r} is registered already")
            self._parts[name] = part
            return part

        return add

    def get(self, name: str) -> T:
        """Return the part called ``name``.

        Raises:
            InputError: there is none; the message lists the names and the nearest one.
            EnvironmentProblem: the package that has it cannot be imported.
        """
        self._read_others()
        if name in self.broken:
            raise EnvironmentProblem(self.broken[name])
        if name not in self._parts:
            near = difflib.get_close_matches(name, self._parts, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(
                f"unknown {self.kind} {name!r}{hint} (available: {', '.join(sorted(self._parts))})"
            )
        return self._parts[name]

    def names(self) -> list[str]:
        """Return every name in alphabetical order."""
        self._read_others()
        return sorted(self._parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def _read_others(self) -> None:
        if self._others_read:
            return
        self._others_read = True
        for module in self.modules:
            importlib.import_module(module)
        for point in entry_points(group=self.group):
            try:
                part = point.load()
            except Exception as error:  # another package may raise anything when it is imported
                self.broken[point.name] = self._why(point, error)
                continue
            self.register(point.name)(part)

    def _why(self, point: EntryPoint, error: Exception) -> str:
        package = "" if point.dist is None else f" of the package {point.dist.name}"
        return (
            f"{self.kind} {point.name!r}{package} cannot be loaded from {point.value} "
            f"({type(error).__name__}: {error}); repair that package, or uninstall it"
        )
