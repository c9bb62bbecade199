"""The exceptions every package raises for problems a user can act on.

The exit code travels with the exception, so the command line needs no table of
its own and a library caller can tell the kinds apart by class.
"""

from __future__ import annotations

from typing import Any


class NasError(Exception):
    """Base of every error that names a value and its fix instead of a traceback."""

    exit_code: int = 1


class InputError(NasError, ValueError):
    """Something the user wrote or passed is wrong: a job key, a table cell, an architecture."""

    exit_code = 2


class InfeasibleError(NasError):
    """No architecture of the space satisfies the constraints.

    Attributes:
        closest: canonical string of the architecture that misses them by least, if one was found.
        violations: constraint name -> (value, bound) of that architecture.
    """

    exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        closest: str | None = None,
        violations: dict[str, tuple[float, float]] | None = None,
    ) -> None:
        super().__init__(message)
        self.closest = closest
        self.violations = dict(violations or {})

    def record(self) -> dict[str, Any]:
        """Return what there is to know of it, as JSON."""
        return {"message": str(self), "closest": self.closest, "violations": self.violations}


class EnvironmentProblem(NasError):
    """This machine lacks something: an extra, a data set, disk space, a device, a permission."""

    exit_code = 4


class MissingExtraError(EnvironmentProblem):
    """A package of an optional extra is not installed; the message is the install command.

    Raised from an :class:`ImportError` of another kind than that there is no such module, it says
    that the package is there and does not work.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed; install the extra with: pip install 'edge-nas[{extra}]'"
        )
        self.package = package
        self.extra = extra

    @property
    def broken(self) -> bool:
        """Whether the package is there and cannot be imported."""
        cause = self.__cause__
        return isinstance(cause, ImportError) and not isinstance(cause, ModuleNotFoundError)

    def __str__(self) -> str:
        if not self.broken:
            return super().__str__()
        return (
            f"{self.package} is installed and cannot be imported ({self.__cause__}); install it "
            f"anew with: pip install --force-reinstall 'edge-nas[{self.extra}]'"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # It travels between processes.
        return MissingExtraError, (self.package, self.extra)
