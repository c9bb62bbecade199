"""What runs a model file: one verb, ``load``, and the parameters that change a latency."""

from __future__ import annotations

import difflib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from search_spaces.errors import EnvironmentProblem, InputError, NasError
from search_spaces.registry import Registry

if TYPE_CHECKING:
    from devices.measuring.child import Sampler


@dataclass(frozen=True)
class Preparation:
    """What a runtime does once on a machine before its first use, and that takes long.

    Attributes:
        what: it does, as "compiling the kernels".
        command: program and arguments that do it ahead.
    """

    what: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class TensorSpec:
    """Name, full shape and NumPy type of one input of a loaded model."""

    name: str
    shape: tuple[int, ...]
    dtype: str


class Session(ABC):
    """A loaded model. Not safe to call from two threads at once."""

    #: The inputs in the order in which ``__call__`` takes them, every axis known.
    inputs: tuple[TensorSpec, ...]

    @abstractmethod
    def __call__(self, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run the model once.

        Args:
            arrays: one array an input, with the shapes and types of ``inputs``.

        Returns:
            One array an output, valid until the next call.
        """

    def bind(self, *arrays: np.ndarray) -> Callable[[], object]:
        """Return a call without arguments for the clock: the same work, no conversion.

        It must have finished the work when it returns (a device queue is waited for).
        """
        return lambda: self(*arrays)

    def arithmetic(self) -> dict[str, int] | None:
        """Return how many convolutions and matrix products run in which arithmetic.

        ``{"int8": 12, "float32": 1}``; None where the runtime does not say. A quantised file
        whose products run in floats shows here, and nowhere else.
        """
        return None

    def doubts(self, *arrays: np.ndarray) -> list[str]:
        """Return what makes the outputs for these inputs doubtful, a sentence each.

        A runtime that knows a way in which its kernels go wrong silently looks for it here.
        """
        return []


class Runtime(ABC):
    """A way to run model files, with every parameter that changes their latency.

    A subclass takes its parameters as keyword arguments, checks them in the
    constructor, imports its library no earlier than there, and registers itself in
    :data:`RUNTIMES`. Building one is cheap and has no side effect; ``load`` may be
    called any number of times, and the sessions do not share state.

    Args:
        threads: worker threads of one inference.
        batch: size given to the leading axis of an input where the file leaves it open.
        shapes: input name -> full shape, for inputs with other open axes.
        precision: arithmetic of what is float in the file, one of ``precisions``; "file"
            keeps the file's.

    Raises:
        InputError: a parameter is out of range.
        MissingExtraError: the runtime's package is not installed.
    """

    name: ClassVar[str]
    #: Suffixes of the model files that ``load`` takes; ".onnx" may be converted on the way.
    formats: ClassVar[tuple[str, ...]] = (".onnx",)
    #: Values of ``precision``.
    precisions: ClassVar[tuple[str, ...]] = ("file",)

    def __init__(
        self,
        *,
        threads: int = 1,
        batch: int = 1,
        shapes: Mapping[str, Sequence[int]] | None = None,
        precision: str = "file",
    ) -> None:
        for label, value in (("threads", threads), ("batch", batch)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{label} must be a whole number of at least 1, not {value!r}")
        if precision not in self.precisions:
            raise InputError(
                f"runtime {self.name!r} has no precision {precision!r} "
                f"(it has {', '.join(self.precisions)})"
            )
        self.precision = precision
        self.threads = threads
        self.batch = batch
        self.shapes = {name: tuple(int(n) for n in shape) for name, shape in (shapes or {}).items()}

    @classmethod
    def preparation(cls) -> Preparation | None:
        """Return what must still be done once on this machine; None where it is ready.

        Building the runtime does it too, so nobody has to ask. An agent does, to register
        with its other runtimes first.
        """
        return None

    @property
    @abstractmethod
    def version(self) -> str:
        """The version of the library that runs the model."""

    @property
    def runs_on_cpu(self) -> bool:
        """Whether an inference occupies the processor from beginning to end.

        Then processor time missing from the wall time betrays other load, and the
        address space can be limited; an accelerator's driver maps far more than it uses.
        """
        return True

    @abstractmethod
    def load(self, path: Path) -> Session:
        """Load a model file.

        Raises:
            InputError: the file is no model this runtime can load, or an input has an
                open axis other than the leading one and no entry in ``shapes``.
            EnvironmentProblem: the machine lacks what the parameters ask for.
        """

    def sampler(self) -> Sampler | None:
        """Return what takes the samples where the usual child process cannot; else None."""
        return None

    def parameters(self) -> dict[str, Any]:
        """Return the keyword arguments that build this runtime again, JSON-able."""
        shapes = {name: list(shape) for name, shape in sorted(self.shapes.items())}
        # Left out at their defaults, so that keys of measurements stay what they were.
        return (
            {"threads": self.threads, "batch": self.batch}
            | ({"shapes": shapes} if shapes else {})
            | ({"precision": self.precision} if self.precision != "file" else {})
        )

    def describe(self) -> dict[str, Any]:
        """Return name, version and parameters: what identifies a measurement's runtime."""
        return {"name": self.name, "version": self.version, "parameters": self.parameters()}

    def resolve_shape(self, name: str, shape: Sequence[int | None]) -> tuple[int, ...]:
        """Fill the open axes (None) of an input's shape from ``shapes`` and ``batch``.

        Raises:
            InputError: the file fixes an axis at another size, or leaves one open that
                nothing names.
        """
        if name in self.shapes:
            wanted = self.shapes[name]
            fits = len(wanted) == len(shape) and all(
                have is None or have == want for have, want in zip(shape, wanted, strict=True)
            )
            if not fits:
                raise InputError(f"input {name!r} has shape {_show(shape)}, not {list(wanted)}")
            return wanted
        filled = list(shape)
        if filled and filled[0] is None:
            filled[0] = self.batch
        elif self.batch > 1 and (not filled or filled[0] != self.batch):
            raise InputError(
                f"batch {self.batch} was asked for, but input {name!r} has the fixed shape "
                f"{_show(shape)}; export the model with an open batch axis or use batch 1"
            )
        if any(size is None for size in filled):
            raise InputError(
                f"input {name!r} has open axes {_show(shape)}; name its shape, "
                f"for instance shapes: {{{name}: {[n if n is not None else 1 for n in filled]}}}"
            )
        return tuple(int(size) for size in filled if size is not None)


RUNTIMES: Registry[type[Runtime]] = Registry(
    "runtime",
    group="nas.runtimes",
    modules=(
        "devices.runtimes.command",
        "devices.runtimes.executorch",
        "devices.runtimes.inductor",
        "devices.runtimes.litert",
        "devices.runtimes.lowbit",
        "devices.runtimes.mnn",
        "devices.runtimes.ncnn",
        "devices.runtimes.onnxruntime",
        "devices.runtimes.openvino",
        "devices.runtimes.tract",
    ),
)


def make_runtime(name: str, parameters: Mapping[str, Any] | None = None) -> Runtime:
    """Build a registered runtime from its parameters.

    Raises:
        InputError: no such runtime or parameter (with the nearest name), or a bad value.
        EnvironmentProblem: its package is not installed, or does not work here.
    """
    factory = RUNTIMES.get(name)
    parameters = dict(parameters or {})
    allowed = _keywords(factory)
    for key in parameters:
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(
                f"runtime {name!r} has no parameter {key!r}{hint} "
                f"(allowed: {', '.join(sorted(allowed))})"
            )
    try:
        return factory(**parameters)
    except NasError:
        raise
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        # What a package raises that is damaged, or was built for something else.
        raise EnvironmentProblem(
            f"runtime {name!r} does not work here ({type(error).__name__}: {one_line(error)}); "
            "install its package anew"
        ) from error


def existing_file(path: Path | str) -> Path:
    """Return the path of a model file that is there.

    Raises:
        InputError: it is not; of the folder of a run the message names its models.
    """
    path = Path(path)
    if path.is_dir():
        parts = ("-decode.onnx", "-encode.onnx")
        there = [*(path / "models").glob("*.onnx"), *path.glob("*.onnx")]
        models = sorted(model for model in there if not model.name.endswith(parts))
        fix = f", such as {models[0]}" if models else ""
        raise InputError(f"{path} is a folder; give a model file{fix}")
    if not path.is_file():
        raise InputError(f"no model file at {path}")
    return path


def one_line(error: BaseException, limit: int = 300) -> str:
    """Return an exception's text without line breaks, cut to ``limit`` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def only_one_thread(name: str, threads: int) -> None:
    """Refuse more threads than one for a runtime that cannot use them.

    Raises:
        InputError: more were asked for.
    """
    if threads > 1:
        raise InputError(f"runtime {name!r} runs an inference on one thread; set threads: 1")


def random_inputs(specs: Sequence[TensorSpec], seed: int) -> tuple[np.ndarray, ...]:
    """Return seeded inputs: standard normal for floats, 0 or 1 for integers and flags.

    Integers are token ids, masks or positions, for which only the smallest values are
    sure to be in range.
    """
    rng = np.random.default_rng(seed)
    arrays = []
    for spec in specs:
        dtype = np.dtype(spec.dtype)
        if dtype.kind == "f":
            arrays.append(rng.standard_normal(spec.shape, dtype=np.float32).astype(dtype))
        elif dtype.kind in "iub":
            arrays.append(rng.integers(0, 2, size=spec.shape).astype(dtype))
        else:
            raise InputError(f"input {spec.name!r} has type {spec.dtype}; cannot make values of it")
    return tuple(arrays)


def _keywords(factory: type[Runtime]) -> set[str]:
    names: set[str] = set()
    for cls in factory.__mro__:
        if "__init__" not in vars(cls) or cls is object:
            continue
        parameters = inspect.signature(vars(cls)["__init__"]).parameters.values()
        names |= {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names


def _show(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"
