"""A trained network as the supernet: what may vary in it is found, and its function is kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from search_spaces.errors import InputError
from supernet.own_model.entry import entry_of, fits
from supernet.own_model.graph import ModuleGraph
from supernet.own_model.options import narrow
from supernet.own_model.sources import load_network
from supernet.own_model.traced import BATCH
from supernet.own_model.vectors import flattening, vector_length
from supernet.own_model.wrap import Bits, ModuleSpace, wrap
from supernet.reading.reader import read_network

SHARES = (0.5, 0.75, 1.0)
"""Shares of their channels that layers may keep."""

SIDES = (28, 32, 64, 96, 128, 160, 192, 224, 240, 256, 299, 384)
"""Sides of images that networks are made for, looked through where nothing else says it."""

LENGTHS = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
"""Lengths of signals, likewise."""


def module_space(
    *,
    model: str,
    input_channels: int | None = None,
    outputs: int | None = None,
    input_size: tuple[int, int] | None = None,
    weights: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    elastic: str | Mapping[str, Any] = "auto",
    shares: Sequence[float] = SHARES,
    weight_bits: Bits = (4, 8),
    activation_bits: Bits = (8,),
    edge_bits: int | None = 8,
    divisor: int = 4,
    resolution: int | None = None,
    trained: bool | None = None,
) -> ModuleSpace:
    """Return the space of the variants of a network called by name.

    The largest variant is the network; its channels are sorted by importance, so that narrower
    layers keep the best of them.

    Args:
        model, weights, arguments: as in :func:`supernet.own_model.sources.load_network`.
        input_channels: of the data; a network for three takes one by summing its first weights,
            which is what it computes for the same picture in all three. None keeps its own.
        outputs: of the task; a network with others gets a new last layer. None keeps its own.
        input_size: (height, width) of the data, (1, length) of signals; None takes a size that the
            network runs at.
        elastic: ``auto`` for everything that :func:`find_elastic` finds, or widths, kernels and
            depths as in :func:`supernet.own_model.wrap.wrap`.
        shares: of the channels, for ``auto``.
        weight_bits, activation_bits, edge_bits, divisor: as in ``wrap``.
        resolution: side of the images, or length of the signals, where the data do not say it.
        trained: whether the network comes trained; None says so where it is given ``weights``,
            or ``arguments`` that ask for some (``weights``, ``pretrained``), and otherwise
            leaves it to be seen on data.

    Raises:
        InputError: no such network, or one that cannot be wrapped.
    """
    network = load_network(model, weights=None if weights is None else Path(weights),
                           arguments=arguments)  # fmt: skip
    channels = input_channels or own_channels(network)
    network = for_channels(network, channels)
    shape = _input_shape(network, channels, input_size, resolution)
    _expect_runs(network, shape)
    kept = outputs is None
    if outputs is not None:
        network, kept = for_outputs(network, outputs, shape)
    if elastic == "auto":
        found: dict[str, Any] = dict(find_elastic(network, shape, shares=shares, divisor=divisor))
    elif isinstance(elastic, str):
        raise InputError(f"elastic: {elastic!r} is neither 'auto' nor widths, kernels and depths")
    else:
        found = dict(elastic)
    space = wrap(
        network,
        input_shape=shape,
        name=_space_name(model),
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        edge_bits=edge_bits,
        divisor=divisor,
        sort_channels=True,
        **found,
    )
    if trained is None:
        asked = [(arguments or {}).get(key) for key in ("weights", "pretrained")]
        trained = True if weights is not None or any(asked) else None
    # A new last layer answers nothing yet.
    space.trained = trained if kept else False
    return space


def _input_shape(
    network: nn.Module, channels: int, size: tuple[int, int] | None, resolution: int | None
) -> tuple[int, ...]:
    """Return (channels, height, width) of one input, or (channels, length) of a signal.

    Raises:
        InputError: the network takes signals and the data are images, or it runs at no usual size.
    """
    if not of_signals(network):
        features = vector_length(network)
        if features and size is None:
            return 1, features
        if features and size is not None and features != channels * math.prod(size):
            raise InputError(
                f"the network takes vectors of {features} numbers, and the data have "
                f"{channels} x {size[0]} x {size[1]}; give 'arguments' that make it for them"
            )
        if size is None:
            side = resolution or own_side(network, channels)
            size = side, side
        return (channels, *size)
    if size is not None and size[0] != 1:
        raise InputError(
            f"the network takes signals (channels, length), and the data are {size[0]} high and "
            f"{size[1]} wide"
        )
    return channels, size[1] if size else resolution or own_side(network, channels)


@torch.no_grad()
def _expect_runs(network: nn.Module, shape: tuple[int, ...]) -> None:
    """Refuse inputs (channels, ...) that a network does not run on.

    Raises:
        InputError: it does not; the message says why, and what is amiss if they are signals.
    """
    try:
        network.eval()(torch.zeros(2, *shape))
    except _NOT_ITS_INPUTS as error:
        told = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"the network does not run on inputs of {'x'.join(map(str, shape))}: {told[0]}"
            + f"; {OF_IMAGES}" * (shape[1] == 1 and len(shape) == 3)
        ) from error


_NOT_ITS_INPUTS = (RuntimeError, ValueError, IndexError, AssertionError)
"""What networks raise on inputs of a shape that is not theirs."""

OF_IMAGES = (
    "signals are images one pixel high to a network of images; give one of nn.Conv1d, or kernels, "
    "strides and pools of 1 x k"
)
"""What to do where a network of images is given signals."""


@torch.no_grad()
def takes_signals(network: nn.Module) -> bool:
    """Whether a network takes signals, or images one pixel high, of any usual length."""
    entry = entry_of(network)
    if entry.signals or entry.convolution is None:
        return True
    for length in LENGTHS:
        try:
            network.eval()(torch.zeros(2, entry.channels, 1, length))
        except _NOT_ITS_INPUTS:
            continue
        return True
    return False


def find_elastic(
    network: nn.Module,
    input_shape: tuple[int, ...],
    *,
    shares: Sequence[float] = SHARES,
    divisor: int = 4,
) -> dict[str, dict[str, list[float]]]:
    """Return what may vary in a network, as arguments of :func:`supernet.own_model.wrap.wrap`.

    Widths of all layers that are not fixed, by the first layer that has each; depths of
    sequences whose last elements keep the shape of what goes in. Kernels are left alone: the
    centre of a trained kernel is no good kernel until it is trained again.
    """
    if len(input_shape) == 1:
        network, input_shape = flattening(network), (1, *input_shape)
    own = copy.deepcopy(network).cpu().eval()
    # Once: capturing a deep network takes longer than all that is asked of it here.
    read = read_network(own, torch.zeros(BATCH, *input_shape), fold=False)
    graph = ModuleGraph(own, input_shape, read=read)
    widths: dict[str, list[float]] = {}
    for width in graph.free_widths():
        if width.pinned:
            continue
        # Shares that rounding makes equal are one.
        counts = {narrow(width, share, divisor): share for share in sorted(shares)}
        counts[width.size] = 1.0
        if len(counts) > 1:
            widths[width.layers[0]] = sorted(counts.values())
    return {"widths": widths, "depths": _depths(own, input_shape, read)}


@torch.no_grad()
def _depths(
    network: nn.Module, input_shape: tuple[int, ...], read: fx.GraphModule
) -> dict[str, list[float]]:
    shapes: dict[str, tuple[Any, Any]] = {}
    handles = []
    sequences = {
        path: part for path, part in network.named_modules()
        if isinstance(part, nn.Sequential) and path and len(part) > 1
        and all(any(True for _ in child.children()) for child in part)
    }  # fmt: skip
    for path, part in sequences.items():
        for index, child in enumerate(part):

            def note(_m: Any, given: Any, out: Any, name: str = f"{path}.{index}") -> None:
                shapes.setdefault(name, (_shape(given), _shape((out,))))

            handles.append(child.register_forward_hook(note))
    try:
        network(torch.zeros(2, *input_shape))
    finally:
        for handle in handles:
            handle.remove()
    found: dict[str, list[float]] = {}
    for path, part in sequences.items():
        least = len(part)
        while least > 1:
            before, after = shapes.get(f"{path}.{least - 1}", (None, "unknown"))
            if before is None or before != after:
                break
            least -= 1
        if least < len(part):
            found[path] = list(range(least, len(part) + 1))

    def can_be_left_out(*paths: str) -> bool:
        try:
            ModuleGraph(network, input_shape, sequences=paths, read=read)
        except InputError:
            return False
        return True

    if found and not can_be_left_out(*found):
        # Elements of one of them pass more than one tensor.
        found = {path: counts for path, counts in found.items() if can_be_left_out(path)}
    return found


def _shape(values: Any) -> tuple[int, ...] | None:
    tensors = [v for v in values if isinstance(v, torch.Tensor)]
    return tuple(tensors[0].shape) if len(tensors) == len(values) == 1 else None


@torch.no_grad()
def for_channels(network: nn.Module, channels: int) -> nn.Module:
    """Return a network for inputs of ``channels``, changed where it was made for others.

    Raises:
        InputError: neither are the inputs of one channel, nor do they fit.
    """
    entry = entry_of(network)
    first = entry.convolution
    if first is None or entry.channels == channels or fits(network, channels, entry):
        return network
    if channels != 1 or first.groups != 1 or first.in_channels != entry.channels:
        raise InputError(
            f"the network takes {entry.channels} channels and the data have {channels}; give "
            "'arguments' that make it for them"
            + (" (data.channels: 1 makes pictures grey)" if entry.channels == 1 else "")
        )
    first.weight = nn.Parameter(first.weight.detach().sum(1, keepdim=True))
    first.in_channels = 1
    return network


def _space_name(model: str) -> str:
    place, _, function = model.rpartition(":")
    # Where a file lies is nothing that a space should be known by.
    return f"{Path(place).stem if place.endswith('.py') else place}.{function}"


def own_channels(network: nn.Module) -> int:
    """Return the channels of the inputs that ``network`` takes; 3 without a convolution."""
    return entry_of(network).channels


def takes_grey_alone(network: nn.Module) -> bool:
    """Whether a network takes inputs of one channel, and none of three."""
    entry = entry_of(network)
    return entry.channels == 1 and not fits(network, 3, entry)


def of_signals(network: nn.Module) -> bool:
    """Whether a network takes signals (batch, channels, length)."""
    return entry_of(network).signals


@torch.no_grad()
def own_side(network: nn.Module, channels: int, first: int | None = None) -> int:
    """Return the side of images, or the length of signals, that a network runs at.

    It is the smallest of the usual ones, or ``first`` where the network takes that.

    Raises:
        InputError: it runs at none of them; the message says why not at the last.
    """
    signals = of_signals(network)
    problem = ""
    for side in (*([first] if first else ()), *(LENGTHS if signals else SIDES)):
        shape = (side,) if signals else (side, side)
        try:
            network.eval()(torch.zeros(2, channels, *shape))
        except (RuntimeError, ValueError, AssertionError) as error:
            problem = f"{'x'.join(map(str, shape))}: {error}"
            continue
        return side
    what = "length of signal" if signals else "size of image"
    raise InputError(
        f"the network runs at no usual {what} ({problem}); give resolution, or data that say it"
    )


def for_outputs(
    network: nn.Module, outputs: int, input_shape: tuple[int, ...]
) -> tuple[nn.Module, bool]:
    """Return a network with ``outputs``, and whether they are its own: else its last is new.

    Raises:
        InputError: it returns something else than (batch, outputs), or (batch, outputs, height,
            width) of every place of an image; or it has other outputs, and they are not those of
            its last layer.
    """
    with torch.no_grad():
        found = network.eval()(torch.zeros(2, *input_shape))
    if not isinstance(found, torch.Tensor) or found.dim() not in (2, 4):
        what = f"a tensor of {found.dim()} axes" if isinstance(found, torch.Tensor) else (
            f"a {type(found).__name__}"
        )  # fmt: skip
        raise InputError(
            f"the network returns {what}; it must return one tensor (batch, outputs), or (batch, "
            "outputs, height, width) for every place of an image"
        )
    if found.shape[1] == outputs:
        return network, True
    made: list[tuple[str, nn.Linear | nn.Conv2d, int]] = []
    for path, layer in network.named_modules():
        if found.dim() == 2 and isinstance(layer, nn.Linear):
            made.append((path, layer, layer.out_features))
        elif found.dim() == 4 and isinstance(layer, nn.Conv2d):
            made.append((path, layer, layer.out_channels))
    if not made or made[-1][2] != found.shape[1]:
        raise InputError(
            f"the network has {found.shape[1]} outputs and the task {outputs}; give 'arguments' "
            "that make it for them"
        )
    path, last, _ = made[-1]
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, _with_outputs(last, outputs))
    return network, False


def _with_outputs(layer: nn.Linear | nn.Conv2d, outputs: int) -> nn.Module:
    """Return a layer like ``layer``, with new weights for ``outputs``."""
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, outputs)
    return nn.Conv2d(
        layer.in_channels,
        outputs,
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        layer.dilation,  # type: ignore[arg-type]
    )
