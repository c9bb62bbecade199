"""What may vary in a module, as a user names it, held against what the module can."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Union

from torch import nn

from search_spaces.errors import InputError
from search_spaces.parameters import ascending, check_bits, round_channels, whole
from search_spaces.plan import FLOAT_BITS
from supernet.own_model.graph import ModuleGraph
from supernet.own_model.widths import Width

Options = Mapping[str, Sequence[float]]
Bits = Union[Sequence[int], Mapping[str, Sequence[int]]]


class OptionReader:
    """Reads widths, kernels, depths and bits by names and patterns.

    Args:
        graph: the module.
        divisor: narrower widths are rounded to multiples of it.

    Attributes:
        names: of the layers, in order of execution.
        skipped: layer that a pattern for widths named -> why its channels cannot vary.
    """

    def __init__(self, graph: ModuleGraph, divisor: int) -> None:
        whole("divisor", divisor)
        self.graph, self.divisor = graph, divisor
        self.skipped: dict[str, str] = {}
        self.names = list(graph.layers.values())
        self._nodes = {graph.layers[str(n.target)]: n for n in graph.layer_nodes()}

    def tie(self, groups: Sequence[Sequence[str]]) -> None:
        """Give the layers of each group one width.

        Raises:
            InputError: no such layers, or their channels differ in number.
        """
        for group in groups:
            self.graph.tie([name for pattern in group for name in self.find(pattern)])

    def narrow(self, width: Width, share: float) -> int:
        """Return how many channels a share of a width is, in whole groups."""
        return narrow(width, share, self.divisor)

    def find(self, pattern: str) -> list[str]:
        """Return the layers that a pattern names.

        Raises:
            InputError: there are none.
        """
        found = [name for name in self.names if fnmatchcase(name, pattern)]
        if not found:
            near = difflib.get_close_matches(pattern, self.names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(
                f"no layer is called {pattern!r}{hint} (there are: {', '.join(self.names)})"
            )
        return found

    def depths(self, depths: Options) -> dict[str, tuple[int, ...]]:
        """Return the allowed numbers of elements of each sequence.

        Raises:
            InputError: numbers that it cannot have.
        """
        found = {}
        for path, options in depths.items():
            elements = self.graph.lengths[path]
            options = read_ascending(f"depths[{path!r}]", options)
            for depth in options:
                whole(f"depths[{path!r}]", depth)
            if options[-1] != elements:
                raise InputError(
                    f"depths[{path!r}]={list(options)} must end with the number of its elements, "
                    f"{elements}"
                )
            for element in self.graph.elements:
                if element.sequence == path and element.position >= options[0]:
                    side = self.graph.input_shape[1]
                    source, result = (
                        self.graph.shape(n, side) for n in (element.source, element.result)
                    )
                    if source != result:
                        raise InputError(
                            f"depths[{path!r}]: element {element.position} turns "
                            f"{source[1:]} into {result[1:]}, so it cannot be left out; begin with "
                            f"a depth of at least {element.position + 1}"
                        )
            found[path] = options
        return found

    def widths(self, widths: Options) -> dict[int, tuple[str, tuple[float, ...]]]:
        """Return index of a width -> (the first layer that was named, allowed shares).

        Raises:
            InputError: shares that cannot be, or layers that cannot vary; of a pattern, those that
                cannot are noted in ``skipped`` as long as others can.
        """
        found: dict[int, tuple[str, tuple[float, ...]]] = {}
        for pattern, options in widths.items():
            options = read_ascending(f"widths[{pattern!r}]", options)
            if options[-1] > 1:
                raise InputError(f"widths[{pattern!r}]: {options[-1]} is more than the layer has")
            reasons: dict[str, str] = {}
            names = self.find(pattern)
            for name in names:
                index = self.graph.output_width(self._nodes[name])
                if index is None:
                    reasons[name] = "they are those of several layers, which are joined before it"
                    continue
                width = self.graph.widths[index]
                if width.pinned:
                    reasons[name] = width.pinned
                    continue
                other, before = found.get(index, (name, options))
                if before != options:
                    raise InputError(
                        f"widths: {other} and {name} must have equal widths, because the graph or "
                        f"'ties' joins them, but are given {list(before)} and {list(options)}"
                    )
                counts = [self.narrow(width, share) for share in options]
                if len(set(counts)) < len(counts):
                    groups = f" and groups of {width.unit}" if width.unit > 1 else ""
                    raise InputError(
                        f"widths[{pattern!r}]: {list(options)} of {width.size} channels, rounded "
                        f"to multiples of {self.divisor}{groups}, are {counts}; leave out the "
                        "equal ones or lower the divisor"
                    )
                found[index] = (other, options)
            if len(reasons) == len(names):
                name, reason = next(iter(reasons.items()))
                raise InputError(
                    f"widths[{pattern!r}]: the output channels of {name} cannot vary, because "
                    f"{reason}"
                )
            self.skipped |= reasons
        return found

    def kernels(self, kernels: Options) -> dict[str, tuple[int, ...]]:
        """Return the allowed kernel sides of each convolution.

        Raises:
            InputError: sides that it cannot have.
        """
        found = {}
        for pattern, options in kernels.items():
            options = read_ascending(f"kernels[{pattern!r}]", options)
            for name in self.find(pattern):
                module = self.graph.modules[name]
                own = module.kernel_size[0] if isinstance(module, nn.Conv2d) else 1
                odd = all(isinstance(k, int) and (own - k) % 2 == 0 for k in options)
                if options[-1] != own or not odd or not isinstance(module, nn.Conv2d):
                    raise InputError(
                        f"kernels[{pattern!r}]={list(options)}: the kernel of {name} has the side "
                        f"{own}; list sides that differ from it by an even number, ending with it"
                    )
                if len(set(module.kernel_size)) > 1:
                    raise InputError(
                        f"kernels[{pattern!r}]: the kernel of {name} is not square, so it cannot "
                        "vary"
                    )
                if int(module.padding[0]) < module.dilation[0] * (own - options[0]) // 2:
                    raise InputError(
                        f"kernels[{pattern!r}]: {name} has a padding of {module.padding[0]}, too "
                        f"little for a kernel of {options[0]} to give maps of the same size"
                    )
                found[name] = options
        return found

    def bits(
        self, key: str, bits: Bits, edges: Sequence[str], edge_bits: int | None
    ) -> dict[str, tuple[int, ...]]:
        """Return the allowed bits of each layer.

        Args:
            key: what they are of, for messages.
            bits: for all layers, or by name and pattern; of several that fit, the last counts.
            edges: the first and the last layer, which a pattern for all does not mean.
            edge_bits: theirs; None is float.

        Raises:
            InputError: bits that do not exist, or a layer of which nothing is said.
        """
        given = bits if isinstance(bits, Mapping) else {"*": bits}
        found: dict[str, tuple[int, ...]] = {}
        for pattern, options in given.items():
            options = check_bits(f"{key}[{pattern!r}]", tuple(options))
            for name in self.find(pattern):
                # A pattern for all does not mean the edges, unless nothing else is said of them.
                if name in edges and pattern == "*":
                    whole_float = options == (FLOAT_BITS,)
                    found[name] = options if whole_float else (int(edge_bits or FLOAT_BITS),)
                else:
                    found[name] = options
        missing = [name for name in self.names if name not in found]
        if missing:
            raise InputError(f"{key} says nothing about {missing[0]}; add a pattern '*'")
        return found


def narrow(width: Width, share: float, divisor: int) -> int:
    """Return how many channels a share of a width is: a multiple of ``divisor``, in whole groups.

    Where no multiple is of whole groups, but for all of the channels, whole groups count.
    """
    if share == 1:
        return width.size
    both = math.lcm(width.unit, divisor)
    step = both if both < width.size or width.unit == 1 else width.unit
    return min(width.size, int(round_channels(width.size * share, step)))


def read_ascending(name: str, values: Any) -> tuple[Any, ...]:
    """Return ``values`` as a tuple.

    Raises:
        InputError: they do not ascend, or are none.
    """
    values = tuple(values) if isinstance(values, (list, tuple)) else values
    ascending(name, values)
    return values
