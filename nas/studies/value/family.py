"""The reference family: networks that a good engineer would train without any search.

The built-in one is plain inverted residual networks (MobileNetV2; Sandler et al., CVPR 2018) of
one width multiplier each: ReLU throughout, 3x3 kernels, one expansion ratio, no squeeze; for
signals plain convolutional ones (:mod:`nas.studies.value.plain_signal`). Its widths are chosen by
size, so that the family covers the sizes that it is compared at.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nas.studies.value.plain_signal import PlainSignalNet
from search_spaces.errors import InputError
from search_spaces.parameters import round_channels
from supernet.own_model.sources import their_code

if TYPE_CHECKING:
    from nas.data.splits import DataSplits

BITS = 8
EXPAND = 3
STAGES = ((16, 1), (24, 2), (40, 2), (64, 2), (96, 2), (128, 2))
"""Output channels at width 1 and number of blocks, of the first stage and of each that halves."""
HEAD_CHANNELS = 128
MEMBERS = 5
_LAST_SIDE = 7
"""Images are halved until their side is about that; classifiers pool from 7x7 by custom."""


@dataclass(frozen=True)
class Request:
    """What the members of a family must take and give.

    Attributes:
        input_channels, image_size: of the inputs, normalised (batch, channels, height, image_size).
        outputs: units of the last layer.
        sizes_kib: packed 8-bit weights that the members should just keep within, ascending.
        height: of the inputs; None for squares, 1 for signals, whose length is ``image_size``.
    """

    input_channels: int
    image_size: int
    outputs: int
    sizes_kib: tuple[float, ...]
    height: int | None = None

    @classmethod
    def of(cls, splits: DataSplits, outputs: int, sizes_kib: Sequence[float]) -> Request:
        """Return the request for the inputs of a run."""
        height, width = splits.input_size
        sizes = tuple(sorted(sizes_kib))
        return cls(splits.channels, width, outputs, sizes, None if height == width else height)

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the inputs."""
        return (self.image_size if self.height is None else self.height), self.image_size


@dataclass(frozen=True)
class Member:
    """One network of a family, not yet made.

    Attributes:
        name: what it is called in tables and files.
        make: returns the untrained module; its weights come from torch's generator.
        weights_kib: of its packed 8-bit weights.
    """

    name: str
    make: Callable[[], nn.Module]
    weights_kib: float


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, projection; the input is added where shapes allow."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        middle = EXPAND * channels
        self.expand = _conv(channels, middle, 1)
        self.depthwise = _conv(middle, middle, 3, stride=stride, groups=middle)
        self.project = _conv(middle, out, 1, relu=False)
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, out, height / stride, width / stride)."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class PlainMobileNet(nn.Module):
    """A plain network of inverted residual blocks.

    Args:
        input_channels, outputs: see :class:`Request`.
        image_size: side of the inputs; of spectrograms that of a square of as many values.
        width: multiplier of every number of channels, rounded to multiples of 4, of 2 below 1.
    """

    def __init__(self, input_channels: int, image_size: float, outputs: int, width: float) -> None:
        super().__init__()
        halvings = max(1, round(math.log2(image_size / _LAST_SIDE)))
        halvings = min(halvings, len(STAGES))
        # The first halving is the stem's, unless there is only one, which comes later.
        stem_stride = 2 if halvings > 1 else 1
        strides = [1] + [2] * (halvings - (stem_stride == 2))

        # Steps of 4 channels would leave narrow networks far below the sizes that are asked for.
        divisor = 4 if width >= 1 else 2

        def channels(at_one: int) -> int:
            return int(round_channels(at_one * width, divisor))

        before = channels(STAGES[0][0])
        self.stem = _conv(input_channels, before, 3, stride=stem_stride)
        blocks: list[nn.Module] = []
        for (at_one, depth), stride in zip(STAGES, strides, strict=False):
            for index in range(depth):
                blocks.append(
                    InvertedResidual(before, channels(at_one), stride if index == 0 else 1)
                )
                before = channels(at_one)
        self.blocks = nn.Sequential(*blocks)
        head = channels(HEAD_CHANNELS)
        self.head = _conv(before, head, 1)
        self.classifier = nn.Linear(head, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, outputs) of images (batch, channels, side, side)."""
        x = self.head(self.blocks(self.stem(x)))
        return self.classifier(x.mean((2, 3)))


def _conv(
    channels: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1, relu: bool = True
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
    ]
    return nn.Sequential(*layers, *([nn.ReLU()] if relu else []))


def packed_kib(module: nn.Module, bits: int = BITS) -> float:
    """Return the KiB of a module's packed weights by the rule of ``weights_kib`` in front.csv.

    Weights at ``bits``, and one float32 scale and one int32 bias for each output channel
    (:attr:`search_spaces.plan.LayerPlan.packed_bytes`).
    """
    packed = 0
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            packed += (layer.weight.numel() * bits + 7) // 8 + 8 * layer.weight.shape[0]
    return packed / 1024


def family_sizes(front_kib: Sequence[float], members: int = MEMBERS) -> list[float]:
    """Return sizes spread evenly in their logarithm over those of a front, in KiB, ascending."""
    low, high = min(front_kib), max(front_kib)
    if high < 2 * low:
        # A front of one size: half an octave to either side.
        low, high = low / math.sqrt(2), high * math.sqrt(2)
    ratio = (high / low) ** (1 / max(1, members - 1))
    return [low * ratio**index for index in range(members)]


def plain_networks(request: Request) -> list[Member]:
    """Return, for each size, the widest plain network that keeps within it.

    Where two sizes lead to the same network it is there once; a size below that of the
    narrowest network gets the narrowest.
    """
    height, width = request.input_size
    taken, given = request.input_channels, request.outputs
    if height == 1:
        return _widest(request, "conv", lambda by: PlainSignalNet(taken, width, given, by), first=2)
    side = math.sqrt(height * width)
    return _widest(request, "mbconv", lambda by: PlainMobileNet(taken, side, given, by), first=10)


def _widest(
    request: Request, name: str, make: Callable[[float], nn.Module], *, first: int
) -> list[Member]:
    """See :func:`plain_networks`; ``first`` is the narrowest multiplier in hundredths."""
    widths = [step / 100 for step in range(first, 801, 2)]
    sizes = []
    for width in widths:
        # On the meta device a module has shapes and no weights, so none are drawn.
        with torch.device("meta"):
            sizes.append(packed_kib(make(width)))
        if sizes[-1] > max(request.sizes_kib):
            break
    found: dict[float, Member] = {}
    for wanted in request.sizes_kib:
        fitting = [i for i, size in enumerate(sizes) if size <= wanted]
        # Of equal networks the first width names it.
        index = sizes.index(sizes[fitting[-1]]) if fitting else 0
        width = widths[index]
        member = Member(f"{name}-x{width:g}", functools.partial(make, width), sizes[index])
        found.setdefault(sizes[index], member)
    return list(found.values())


def user_family(name: str, request: Request) -> list[Member]:
    """Return the family of a user's function, called as ``function(request)``.

    Args:
        name: ``module:function``; the module is looked for in the current folder, too. The
            function takes a :class:`Request` and returns a mapping of names to functions without
            arguments that make an untrained ``nn.Module`` each, which ``torch.export`` can capture.
        request: what the networks must take and give.

    Raises:
        InputError: the function cannot be imported, raises, or returns something else.
    """
    function = _function(name)
    if not _takes(function, request):
        raise InputError(
            f"--family {name}: {name.partition(':')[2]}{inspect.signature(function)} must take one "
            "argument, the request (input_channels, image_size, outputs, sizes_kib)"
        )
    with their_code(f"--family {name}"):
        found = function(request)
    if not isinstance(found, Mapping) or not found:
        what = "an empty mapping" if isinstance(found, Mapping) else f"a {type(found).__name__}"
        raise InputError(
            f"--family {name} returned {what}; it must return a mapping of names to functions "
            "that make a torch.nn.Module each, such as {'small': lambda: Net(8)}"
        )
    members = []
    for key, make in found.items():
        entry = f"--family {name}: the entry {key!r}"
        asked = "it must be a function without arguments that makes a new torch.nn.Module"
        if not _is_plain(make) or not _takes(make):
            what = "a function of arguments" if _is_plain(make) else f"a {type(make).__name__}"
            raise InputError(f"{entry} is {what}; {asked}, such as lambda: Net()")
        with their_code(entry):
            module, another = make(), make()
        if not isinstance(module, nn.Module):
            raise InputError(f"{entry} makes a {type(module).__name__}; {asked}")
        if module is another:
            raise InputError(f"{entry} returns the same module each time; {asked}, untrained")
        safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in str(key))
        members.append(Member(safe, make, packed_kib(module)))
    if len({member.name for member in members}) < len(members):
        raise InputError(f"--family {name}: names of members differ in special characters only")
    return sorted(members, key=lambda member: member.weights_kib)


def find_family(name: str | None, request: Request, *, answers: str = "one") -> list[Member]:
    """Return the members of the built-in family, or of ``module:function``.

    Args:
        name: of the function; None for the built-in family.
        request: what the networks are for.
        answers: of the task, see :class:`nas.tasks.Task`.

    Raises:
        InputError: no such function, or a built-in family that does not suit the task.
    """
    if name is None and answers != "one":
        raise InputError(
            "the built-in family tells one class or value an example, and this run's task needs "
            "more; give --family module:function (experiments.tasks.detection_family:family and "
            "segmentation_family:family are two)"
        )
    return plain_networks(request) if name is None else user_family(name, request)


def _is_plain(value: Any) -> bool:
    return callable(value) and not isinstance(value, nn.Module)


def _takes(function: Callable[..., Any], *arguments: Any) -> bool:
    """Whether a function can be called with so many arguments, as far as it says."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:
        return True  # written in C: the call says it
    return True


def _function(name: str) -> Any:
    module, _, attribute = name.partition(":")
    if not attribute:
        raise InputError(f"--family {name!r} must be module:function")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        # The command line has its own folder first on the path, not the current one.
        sys.path.insert(0, str(Path.cwd()))
    with their_code(f"--family {name}"):
        try:
            found = getattr(importlib.import_module(module), attribute, None)
        except ImportError as error:
            raise InputError(
                f"--family {name!r}: {error}; call nas in the folder of the module, or install it"
            ) from error
    if not callable(found):
        raise InputError(f"--family {name!r}: {module} has no function {attribute!r}")
    return found


__all__ = ["Member", "PlainMobileNet", "Request", "family_sizes", "find_family", "packed_kib"]
