"""The C interface of the kernels, loaded with ctypes: one Python method a function."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import POINTER, c_char_p, c_double, c_float, c_int, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from devices.lowbit.build import library_path
from search_spaces.errors import EnvironmentProblem, InputError
from search_spaces.model_files.grouped import GroupedWeights

ABI = 4
CODES, FLOATS, SUMS = 0, 1, 2
FUNCTIONS = {"identity": 0, "hard_swish": 1, "hard_sigmoid": 2, "sigmoid": 3, "silu": 4}


_CONV_FIELDS = """
input output batch height width channels outputs kernel_h kernel_w stride_h stride_w pad_top
pad_left pad_bottom pad_right dilation_h dilation_w groups largest zero_point kind function
out_zero_point out_low out_high
"""
"""The whole numbers of ``lowbit_conv``, in their order there."""


class _ConvStruct(ctypes.Structure):
    _fields_ = [*((name, c_int32) for name in _CONV_FIELDS.split()), ("scale", c_float)]


_LINEAR_FIELDS = "input output rows channels outputs bits planes group"


class _LinearStruct(ctypes.Structure):
    _fields_ = [*((name, c_int32) for name in _LINEAR_FIELDS.split()), ("zero", c_float)]


_I, _L, _F = c_int, c_int64, c_float
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "lowbit_abi": (c_int, []),
    "lowbit_error": (c_char_p, []),
    "lowbit_features": (c_char_p, []),
    "lowbit_restrict": (c_int, [c_char_p]),
    "lowbit_create": (c_void_p, [_I]),
    "lowbit_destroy": (None, [c_void_p]),
    "lowbit_buffer": (c_int, [c_void_p, _L]),
    "lowbit_data": (c_void_p, [c_void_p, _I]),
    "lowbit_add_conv": (
        c_int,
        [c_void_p, POINTER(_ConvStruct), *[c_void_p] * 4],
    ),
    "lowbit_add_linear": (c_int, [c_void_p, POINTER(_LinearStruct), *[c_void_p] * 5]),
    "lowbit_add_quantise": (c_int, [c_void_p, *[_I] * 5, _F, _I, _I]),
    "lowbit_add_dequantise": (c_int, [c_void_p, *[_I] * 5, _F, _I]),
    "lowbit_add_sum": (c_int, [c_void_p, _I, _I, _I, _L, _F, _F, _F, _I, _I]),
    "lowbit_add_product": (c_int, [c_void_p, *[_I] * 8, _F, _I, _I, _I]),
    "lowbit_add_mean": (c_int, [c_void_p, *[_I] * 6, _F, _I, _I, _I]),
    "lowbit_add_map": (c_int, [c_void_p, _I, _I, _L, c_void_p]),
    "lowbit_add_rescale": (c_int, [c_void_p, _I, _I, _L, _I, _F, _F, _I, _I, _I]),
    "lowbit_add_max_pool": (c_int, [c_void_p, *[_I] * 14]),
    "lowbit_add_planar": (c_int, [c_void_p, *[_I] * 5]),
    "lowbit_add_copy": (c_int, [c_void_p, _I, _I, _L, *[_I] * 5]),
    "lowbit_add_steps": (c_int, [c_void_p, _I, _I, _L, _I, c_void_p, c_void_p]),
    "lowbit_add_slopes": (c_int, [c_void_p, _I, _I, _L, _I, c_void_p, _F, _I, _I]),
    "lowbit_add_shares": (c_int, [c_void_p, *[_I] * 5, c_void_p, _I, _I]),
    "lowbit_add_gate": (c_int, [c_void_p, *[_I] * 6, *[c_void_p] * 4, _I, _F, _I, _I]),
    "lowbit_add_norm": (c_int, [c_void_p, *[_I] * 10, _L, c_void_p, c_void_p]),
    "lowbit_add_resample": (
        c_int,
        [
            c_void_p,
            *[_I] * 8,
            c_void_p,
            c_void_p,
            *[_I] * 2,
            c_void_p,
            c_void_p,
            _I,
            c_void_p,
            c_void_p,
            _F,
            *[_I] * 3,
        ],
    ),
    "lowbit_add_rows": (c_int, [c_void_p, _I, _I, _I, _L, _L, _F, c_void_p, c_void_p]),
    "lowbit_add_pointwise": (c_int, [c_void_p, _I, _I, _I, _L]),
    "lowbit_add_plus": (c_int, [c_void_p, _I, _I, _I, _L]),
    "lowbit_add_embed": (c_int, [c_void_p, _I, _I, _I, *[_L] * 4, c_void_p, c_void_p]),
    "lowbit_add_attend": (c_int, [c_void_p, *[_I] * 5, *[_L] * 4]),
    "lowbit_run": (c_int, [c_void_p, _I, _I]),
    "lowbit_profile": (c_int, [c_void_p, _I, POINTER(c_double)]),
    "lowbit_layers": (c_int, [c_void_p]),
    "lowbit_kernels": (c_char_p, [c_void_p, _I]),
    "lowbit_choose": (c_int, [c_void_p, _I, c_char_p]),
    "lowbit_compare": (c_int, [c_void_p, _I, c_char_p, _I, POINTER(c_double)]),
    "lowbit_settle": (c_int, [c_void_p, _I]),
    "lowbit_trim": (None, []),
    "lowbit_rows": (c_int, [_I, *[c_void_p] * 4, _L, _L, _F]),
    "lowbit_pointwise": (c_int, [_I, c_void_p, c_void_p, _L]),
    "lowbit_packed_bytes": (c_int64, [c_void_p, _I]),
    "lowbit_time": (c_double, [c_void_p, _I, _I]),
}


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL:
    """Return the kernels, compiled if need be.

    Raises:
        EnvironmentProblem: there is no compiler, or its output cannot be loaded.
    """
    path = library_path()
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise EnvironmentProblem(
            f"{path} cannot be loaded ({error}); compile it again with: "
            "python -m devices.lowbit.build --force"
        ) from error
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    if loaded.lowbit_abi() != ABI:
        raise EnvironmentProblem(f"{path} has interface {loaded.lowbit_abi()}, not {ABI}")
    return loaded


def features() -> tuple[str, ...]:
    """Return the instruction sets in use, best first; the last is always ``portable``."""
    return tuple(library().lowbit_features().decode().split(","))


def restrict(instructions: str) -> None:
    """Use no more than ``instructions`` in networks made from now on.

    Args:
        instructions: ``portable``, ``avx2`` (without AVX-512 and its dot product), ``avx512``
            (without the tiles of AMX), ``neon`` (without its dot products), or "" for all that the
            processor has.
    """
    check(library().lowbit_restrict(instructions.encode()))


@dataclass(frozen=True, kw_only=True)
class ConvSpec:
    """A convolution over codes; see ``lowbit.h`` for the meaning of the numbers."""

    batch: int = 1
    height: int = 1
    width: int = 1
    channels: int
    outputs: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)  # top, left, bottom, right
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    largest: int = 255
    zero_point: int = 0
    kind: int = CODES
    function: str = "identity"
    out_zero_point: int = 0
    out_low: int = 0
    out_high: int = 255
    scale: float = 1.0

    @property
    def out_size(self) -> tuple[int, int]:
        """Height and width of the output."""
        return tuple(  # type: ignore[return-value]
            (size + self.pads[i] + self.pads[i + 2] - self.dilation[i] * (self.kernel[i] - 1) - 1)
            // self.stride[i]
            + 1
            for i, size in enumerate((self.height, self.width))
        )


class Native:
    """A network of the library: owns it, and turns its failures into errors.

    Raises:
        InputError: sizes or numbers that make no layer.
    """

    def __init__(self, threads: int = 1) -> None:
        self._library = library()
        self._handle = self._library.lowbit_create(threads)
        if not self._handle:
            raise InputError(_reason())
        self._kept: list[np.ndarray] = []  # what the library reads where it lies

    def __del__(self) -> None:
        handle, self._handle = getattr(self, "_handle", None), None
        if handle:
            self._library.lowbit_destroy(handle)

    def buffer(self, size: int) -> int:
        """Add a buffer of ``size`` bytes and return its number."""
        return self._add("buffer", size)

    def array(self, buffer: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return a view of a buffer; it lives as long as the network."""
        address = self._library.lowbit_data(self._handle, buffer)
        if not address:
            raise InputError(f"no buffer {buffer}")
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = (ctypes.c_uint8 * count).from_address(address)
        memory._network = self  # keeps the memory alive
        return np.frombuffer(memory, dtype).reshape(shape)

    def conv(
        self,
        source: int,
        target: int,
        spec: ConvSpec,
        codes: np.ndarray,
        *,
        factor: np.ndarray | int = 1,
        bias: np.ndarray | int = 0,
        multiplier: np.ndarray | float = 1.0,
    ) -> int:
        """Add a convolution.

        Args:
            source, target: buffers.
            spec: what it computes.
            codes: int8 (outputs, channels / groups, kernel height, kernel width).
            factor, bias: int32 (outputs,) or one number: ``acc = sum * factor + bias``.
            multiplier: float32 (outputs,) or one number, of ``acc``.
        """
        shape = (spec.outputs, spec.channels // max(1, spec.groups), *spec.kernel)
        if codes.shape != shape:
            raise InputError(f"weights have shape {codes.shape}, not {shape}")
        struct = _ConvStruct(
            source,
            target,
            *(spec.batch, spec.height, spec.width, spec.channels, spec.outputs),
            *(*spec.kernel, *spec.stride, *spec.pads, *spec.dilation, spec.groups),
            *(spec.largest, spec.zero_point, spec.kind, FUNCTIONS[spec.function]),
            *(spec.out_zero_point, spec.out_low, spec.out_high, spec.scale),
        )
        arrays: list[np.ndarray] = [
            np.ascontiguousarray(codes, np.int8),
            np.ascontiguousarray(np.broadcast_to(factor, (spec.outputs,)), np.int32),
            np.ascontiguousarray(np.broadcast_to(bias, (spec.outputs,)), np.int32),
            np.ascontiguousarray(np.broadcast_to(multiplier, (spec.outputs,)), np.float32),
        ]
        return self._add(
            "add_conv", ctypes.byref(struct), *(a.ctypes.data_as(c_void_p) for a in arrays)
        )

    def linear(self, source: int, target: int, rows: int, weights: GroupedWeights) -> int:
        """Add a linear layer of weights alone, on floats; its weights are not copied.

        Args:
            source, target: buffers of float32 (rows, channels) and (rows, outputs).
            rows: that are quantised to 8 bits, each with a scale of its own.
            weights: kept alive by this network; a mapped file stays mapped.
        """
        outputs, channels = weights.shape
        struct = _LinearStruct(
            source, target, rows, channels, outputs, weights.bits, weights.planes, weights.group,
            weights.zero,
        )  # fmt: skip
        arrays = (weights.fields, weights.scales, weights.mins, weights.bias, weights.factor)
        number = self._add(
            "add_linear",
            ctypes.byref(struct),
            *(None if a is None else a.ctypes.data_as(c_void_p) for a in arrays),
        )
        self._kept += [a for a in arrays if a is not None]
        return number

    def rows(
        self,
        operation: int,
        source: int,
        target: int,
        shape: tuple[int, int],
        *,
        epsilon: float = 0.0,
        scale: np.ndarray | None = None,
        bias: np.ndarray | None = None,
    ) -> int:
        """Add a norm or a softmax of the rows of a buffer of floats.

        Args:
            operation: of ``devices.lowbit.float_ops``.
            source, target: buffers.
            shape: rows and their width.
            epsilon: of a norm.
            scale, bias: float32 (width,), of a norm.
        """
        given = [None if a is None else np.ascontiguousarray(a, np.float32) for a in (scale, bias)]
        for array in given:
            if array is not None and array.shape != shape[1:]:
                raise InputError(f"a norm of width {shape[1]} has numbers of shape {array.shape}")
        numbers = (None if a is None else a.ctypes.data_as(c_void_p) for a in given)
        return self._add("add_rows", operation, source, target, *shape, epsilon, *numbers)

    def embed(
        self, source: int, free: int, target: int, tokens: int, table: np.ndarray,
        positions: np.ndarray,
    ) -> int:  # fmt: skip
        """Add embeddings of tokens and places, see ``lowbit.h``.

        Args:
            source, free, target: buffers; ``free`` may be -1.
            tokens: in the source.
            table, positions: float32 (entries, width) and (length, width), kept alive.
        """
        table, positions = (np.ascontiguousarray(a, np.float32) for a in (table, positions))
        if table.ndim != 2 or positions.shape[1:] != table.shape[1:]:
            raise InputError(f"tables of shape {table.shape} and {positions.shape} do not fit")
        self._kept += [table, positions]
        return self._add(
            "add_embed", source, free, target, tokens, len(table), *positions.shape,
            table.ctypes.data_as(c_void_p), positions.ctypes.data_as(c_void_p),
        )  # fmt: skip

    def map(self, source: int, target: int, count: int, table: np.ndarray) -> int:
        """Add a table of 256 codes, applied to ``count`` codes."""
        table = np.ascontiguousarray(table, np.uint8)
        if table.shape != (256,):
            raise InputError(f"a table has 256 codes, not {table.shape}")
        return self._add("add_map", source, target, count, table.ctypes.data_as(c_void_p))

    def layer(self, name: str, *arguments: float | np.ndarray) -> int:
        """Add another layer, ``lowbit_add_<name>`` with the arguments of ``lowbit.h``.

        Arrays are copied by the library; they must have the type that it reads.
        """
        held = [np.ascontiguousarray(a) if isinstance(a, np.ndarray) else a for a in arguments]
        return self._add(
            f"add_{name}",
            *(a.ctypes.data_as(c_void_p) if isinstance(a, np.ndarray) else a for a in held),
        )

    @property
    def layers(self) -> int:
        """The number of layers added so far."""
        return self._library.lowbit_layers(self._handle)

    def run(self, first: int = 0, last: int | None = None) -> None:
        """Run the layers from ``first`` to before ``last``, by default all."""
        self._add("run", first, self.layers if last is None else last)

    def runner(self) -> Callable[[], int]:
        """Return :meth:`run` of all layers without its checks, for the clock."""
        function, handle, last = self._library.lowbit_run, self._handle, self.layers

        # `owner` keeps the network alive as long as the call.
        def run(owner: Native = self) -> int:
            return function(handle, 0, last)

        return run

    def profile(self, rounds: int) -> np.ndarray:
        """Return the mean time of each layer in ms, over ``rounds`` runs of the network."""
        count = self._library.lowbit_layers(self._handle)
        times = (c_double * count)()
        check(self._library.lowbit_profile(self._handle, rounds, times))
        return np.array(times) / rounds * 1e-6

    def kernels(self, layer: int) -> tuple[str, ...]:
        """Return the kernels that can run a layer, the chosen one first; none: no choice."""
        names = self._library.lowbit_kernels(self._handle, layer)
        if names is None:
            raise InputError(_reason())
        return tuple(n for n in names.decode().split(",") if n)

    def choose(self, layer: int, kernel: str) -> None:
        """Run a layer by ``kernel`` from now on."""
        check(self._library.lowbit_choose(self._handle, layer, kernel.encode()))

    def compare(self, layer: int, kernels: Sequence[str], rounds: int) -> np.ndarray:
        """Time a layer by each of some kernels, in turn within a round.

        Returns:
            ms, (rounds, kernels). The weights as all of them read them are held until
            :meth:`settle`; the last one is chosen.
        """
        times = np.zeros((rounds, len(kernels)))
        at = times.ctypes.data_as(POINTER(c_double))
        names = ",".join(kernels).encode()
        check(self._library.lowbit_compare(self._handle, layer, names, rounds, at))
        return times * 1e-6

    def settle(self, layer: int) -> None:
        """Forget a layer's weights as other kernels than the chosen one read them."""
        check(self._library.lowbit_settle(self._handle, layer))

    def trim(self) -> None:
        """Give back to the system what was freed, after the weights are packed."""
        self._library.lowbit_trim()

    def packed_bytes(self, layer: int) -> int:
        """Return the bytes of a layer's weights as they are kept for its kernel."""
        size = self._library.lowbit_packed_bytes(self._handle, layer)
        if size < 0:
            raise InputError(_reason())
        return size

    def time(self, layer: int, rounds: int) -> float:
        """Return the median time in ms of one layer by its kernel."""
        result = self._library.lowbit_time(self._handle, layer, rounds)
        if result < 0:
            raise InputError(_reason())
        return result * 1e-6

    def _add(self, name: str, *arguments: Any) -> int:
        return check(getattr(self._library, f"lowbit_{name}")(self._handle, *arguments))


def check(result: int) -> int:
    """Return what a function of the library gave, or raise its reason as an ``InputError``."""
    if result < 0:
        raise InputError(_reason())
    return result


def _reason() -> str:
    return f"low-bit kernels: {library().lowbit_error().decode()}"
