"""The best mixed-precision allocation for a trained network, without any training.

Layer by layer, what each bit-width costs in accuracy is measured on calibration images; an
integer programme finds the bits of least total cost within the budgets; the network is quantised
to them and exported. What a ranking of layers by importance and the best uniform bits would have
given stands beside it.
"""

from __future__ import annotations

import itertools
import math
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nas.bits.allocation import (
    Allocation,
    Bits,
    BitTable,
    allocate,
    allocate_by_importance,
    allocate_greedily,
    allocations_within,
)
from search_spaces.atomic import write_json_atomic
from search_spaces.errors import InfeasibleError, InputError
from search_spaces.number_formats import bits_of, number_format
from search_spaces.plan import FLOAT_BITS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from supernet.plain import PlainNetwork
    from supernet.ptq.sensitivity import SensitivityTable

Option = TypeVar("Option")

BUDGETS = ("weights_kib", "bops", "weight_bits_mean", "latency_ms", "energy_mj")
"""Costs that a budget may be put on; ``latency_ms`` where latencies of the layers are given,
``energy_mj`` where hardware is."""

STEPS = ("equalize", "mse", "compensate", "bias")
"""Post-training steps of every allocation that is evaluated; the exported one may have more."""


@dataclass(frozen=True)
class LayerSize:
    """What a layer's costs follow from.

    Attributes:
        name: as in the sensitivity table.
        weights: number of weights, without bias.
        outputs: output channels, each with a scale and a bias.
        macs: multiply-accumulate operations for one image.
    """

    name: str
    weights: int
    outputs: int
    macs: int

    def packed_kib(self, number: int | str, group: int = 0) -> float:
        """Return KiB of packed weights, scales and biases.

        Args:
            number: bits of integers, or the name of a number format.
            group: weights of a channel that share a scale, of a format; 0 for all.
        """
        scales, choices = self.outputs, 0
        if isinstance(number, str):
            each = self.weights // self.outputs
            scales *= -(-each // group) if group else 1
            choices = scales * (number_format(number).variants.bit_length() - 1)
        elif number >= FLOAT_BITS:
            scales = 0
        packed = (self.weights * bits_of(number) + 7) // 8 + (choices + 7) // 8
        return (packed + 4 * scales + 4 * self.outputs) / 1024


def layer_sizes(module: nn.Module, images: Tensor) -> list[LayerSize]:
    """Return the sizes of the convolutions and linear layers of ``module`` in order.

    Args:
        module: a float network that ``torch.export`` can capture.
        images: (batch, channels, height, width), for shapes.
    """
    from supernet.ptq.graph import shape_of, trace_float

    graph = trace_float(module, images[:1])
    sizes = []
    for name, node in graph.layers.items():
        weight = graph.layer(name).weight
        shape = shape_of(node)
        # Positions that use each weight once: the map of a convolution, the tokens of a linear
        # layer, wherever the one image of the batch is.
        positions = math.prod(shape) // weight.shape[0]
        sizes.append(
            LayerSize(name, weight.numel(), weight.shape[0], int(weight.numel() * positions))
        )
    return sizes


def beside_layers(module: nn.Module, images: Tensor) -> dict[str, float]:
    """Return what of each cost is no layer's, and the same at all their bits.

    ``weights_kib`` of float values, ``macs`` and ``bops`` of products of activations.

    Args:
        module, images: as of :func:`layer_sizes`.
    """
    from supernet.ptq.graph import trace_float

    graph = trace_float(module, images[:1])
    return {"weights_kib": graph.beside_kib(), **graph.products(images)}


def bit_table(
    sizes: Sequence[LayerSize],
    sensitivity: SensitivityTable,
    *,
    metric: str = "kl",
    weight_bits: Sequence[int | str] = (2, 3, 4, 8),
    activation_bits: Sequence[int | str] = (8,),
    edge_bits: int | None = 8,
    latency_ms: Callable[[str, Bits], float] | None = None,
    energy_mj: Callable[[str, Bits], float] | None = None,
    group: int = 0,
    fixed_ms: float = 0.0,
    beside: Mapping[str, float] | None = None,
) -> BitTable:
    """Return sensitivities and costs of every layer's options.

    Args:
        sizes: of the layers.
        sensitivity: measured with at least these bits.
        metric: of :data:`supernet.ptq.sensitivity.METRICS`.
        weight_bits, activation_bits: options, bits or names of number formats; every pair is one.
        edge_bits: the only bits of the first and the last layer; None lets them vary.
        latency_ms: (layer, bits) -> its time; adds the cost ``latency_ms``.
        energy_mj: (layer, bits) -> its energy; adds the cost ``energy_mj``.
        group: weights of a channel that share a scale, of number formats.
        fixed_ms: what ``latency_ms`` of all layers together leaves out.
        beside: costs of what is no layer, of :func:`beside_layers`.
    """
    names = [size.name for size in sizes]
    if tuple(names) != tuple(sensitivity.layers):
        raise InputError("the sensitivity table belongs to another network: its layers differ")
    pairs = [Bits(w, a) for w, a in itertools.product(weight_bits, activation_bits)]
    options = layer_options(sizes, edge_bits, Bits, lambda _: pairs)
    total = sum(size.weights for size in sizes)
    rows = list(zip(sizes, options, strict=True))
    costs = {
        "weights_kib": [[s.packed_kib(b.weight, group) for b in o] for s, o in rows],
        "bops": [[float(s.macs * b.weight_bits * b.activation_bits) for b in o] for s, o in rows],
        "weight_bits_mean": [[s.weights * b.weight_bits / total for b in o] for s, o in rows],
    }
    for name, cost in (("latency_ms", latency_ms), ("energy_mj", energy_mj)):
        if cost is not None:
            costs[name] = [[cost(s.name, b) for b in o] for s, o in rows]
    hurt = [
        [sensitivity.cost(s.name, b.weight, b.activation, metric=metric) for b in o]
        for s, o in rows
    ]
    fixed = {"latency_ms": fixed_ms, **(beside or {})}
    return BitTable.of(names, options, hurt, costs, fixed)


def layer_options(
    sizes: Sequence[LayerSize],
    edge_bits: int | None,
    edge: Callable[..., Option],
    own: Callable[[LayerSize], list[Option]],
) -> list[list[Option]]:
    """Return the options of each layer.

    Args:
        sizes: of the layers.
        edge_bits: the only bits of the first and the last layer; None lets them vary.
        edge: makes the option of those bits of weights and inputs.
        own: returns the options of a layer that varies.
    """
    ends = () if edge_bits is None else (sizes[0].name, sizes[-1].name)
    return [[edge(edge_bits, edge_bits)] if s.name in ends else own(s) for s in sizes]


def resolve_budgets(table: BitTable, budgets: Mapping[str, float | str]) -> dict[str, float]:
    """Return budgets in units; ``"60%"`` is that share of the cost of the largest bits.

    Raises:
        InputError: no budget, an unknown cost, or text that is neither number nor share.
    """
    found = {}
    for name, budget in budgets.items():
        if name not in table.costs:
            needs = {"latency_ms": "latencies of the layers, or hardware", "energy_mj": "hardware"}
            why = f" (give {needs[name]})" if name in needs else ""
            raise InputError(
                f"no budget can be put on {name}{why}; known: {', '.join(table.costs)}"
            )
        text = str(budget).strip()
        try:
            value = float(text.removesuffix("%"))
        except ValueError:
            raise InputError(f"budget {name}={text!r} is neither a number nor a share") from None
        if not math.isfinite(value) or value <= 0:
            raise InputError(f"budget {name}={text} must be above 0")
        found[name] = value * table.range(name)[1] / 100 if text.endswith("%") else value
    if not found:
        raise InputError(f"give at least one budget: {', '.join(BUDGETS)}")
    return found


def baselines(
    table: BitTable, budgets: Mapping[str, float], sensitivity: SensitivityTable
) -> list[Allocation]:
    """Return the allocations to compare with, those that meet the budgets.

    The ranking of Layer-Wise Quantization by outliers of the weights (its z-score), the same
    ranking by measured sensitivity, greedy descent, and the best uniform bits.
    """
    tries: dict[str, Callable[[], Allocation]] = {}
    outliers = sensitivity.outliers.get("weights_z1")
    if outliers is not None:
        tries["importance: z-score"] = lambda: allocate_by_importance(table, budgets, outliers)
    tries |= {
        "importance: measured": lambda: allocate_by_importance(table, budgets),
        "greedy": lambda: allocate_greedily(table, budgets),
        "uniform": lambda: uniform_bits(table, budgets),
    }
    return allocations_within(tries)


def uniform_bits(table: BitTable, budgets: Mapping[str, float]) -> Allocation:
    """Return the best allocation of the same bits to every layer that has a choice.

    Raises:
        InfeasibleError: none meets the budgets.
    """
    best: Allocation | None = None
    for bits in dict.fromkeys(o for options in table.options if len(options) > 1 for o in options):
        keep = [options.index(bits) if bits in options else 0 for options in table.options]
        fixed = table.only([[k] for k in keep])
        try:
            found = allocate(fixed, budgets)
        except InfeasibleError:
            continue
        if best is None or found.sensitivity < best.sensitivity:
            best = Allocation(
                "uniform", tuple(keep), found.options, found.sensitivity, found.costs, None,
                found.seconds,
            )  # fmt: skip
    if best is None:
        raise InfeasibleError("infeasible: no uniform bits meet the budgets")
    return best


@dataclass(frozen=True)
class BitsResult:
    """What :func:`allocate_bits` found.

    Attributes:
        table: sensitivities and costs.
        budgets: in units.
        best: the proven optimum.
        others: the baselines that meet the budgets.
        network: quantised to ``best``; exported by :func:`write_bits`.
        metric: what a sensitivity is.
    """

    table: BitTable
    budgets: dict[str, float]
    best: Allocation
    others: list[Allocation]
    network: PlainNetwork
    metric: str = "kl"

    def to_json(self) -> dict[str, Any]:
        """Return everything but the network as JSON-compatible data."""
        layers = self.table.layers
        return {
            "metric": self.metric,
            "budgets": self.budgets,
            "best": self.best.to_json(layers),
            "baselines": [other.to_json(layers) for other in self.others],
        }


def allocate_bits(
    module: nn.Module,
    calibration: Iterable[Tensor],
    budgets: Mapping[str, float | str],
    *,
    metric: str = "kl",
    weight_bits: Sequence[int | str] = (2, 3, 4, 8),
    activation_bits: Sequence[int | str] = (8,),
    edge_bits: int | None = 8,
    latency_ms: Callable[[str, Bits], float] | None = None,
    energy_mj: Callable[[str, Bits], float] | None = None,
    group: int = 0,
    fixed_ms: float = 0.0,
    adaround: bool = True,
    sensitivity: SensitivityTable | None = None,
    work: Path | None = None,
    seed: int = 0,
    told: Callable[[str, int, int], None] | None = None,
) -> BitsResult:
    """Find the bits of every layer, and quantise the network to them.

    Args:
        module: a trained float network that ``torch.export`` can capture; left as it is.
        calibration: batches of images (batch, channels, height, width), not augmented.
        budgets: cost of :data:`BUDGETS` -> largest total, a number or a share such as "60%"
            of what the largest bits cost.
        metric, weight_bits, activation_bits, edge_bits, latency_ms, energy_mj, group,
            fixed_ms: as in :func:`bit_table`.
        adaround: learn the rounding of the final network, which takes the most time.
        sensitivity: measured before; measured here otherwise.
        work: folder for unfinished sensitivities, so that a second call goes on.
        seed: of learned rounding.
        told: what is being done, how many layers are done and of how many.

    Raises:
        InfeasibleError: the budgets cannot be met; the message says what the cheapest needs.
        InputError: a budget that makes no sense, or a network that cannot be traced.
    """
    from supernet.ptq.graph import trace_float
    from supernet.ptq.quantize import quantize_post_training
    from supernet.ptq.sensitivity import METRICS, layer_sensitivity

    if metric not in METRICS:
        raise InputError(f"metric {metric!r} is not one of {', '.join(METRICS)}")
    for number in activation_bits:
        if isinstance(number, str) and not number_format(number).onnx:
            raise InputError(
                f"inputs of layers in {number} cannot be exported: ONNX Runtime has fp8_e4m3 and "
                "fp8_e5m2"
            )
    images = list(calibration)
    if not images:
        raise InputError("bit allocation needs at least one batch of calibration images")
    # Read once: each step takes a copy of what was read.
    module = trace_float(module, images[0]).module
    sizes = layer_sizes(module, images[0])
    if sensitivity is None:
        edge = () if edge_bits is None else (edge_bits,)
        sensitivity = layer_sensitivity(
            module,
            images,
            weight_bits=_columns({*weight_bits, *edge}),
            activation_bits=_columns({*activation_bits, *edge}),
            group=group,
            path=None if work is None else work / "sensitivity.json",
            on_layer=None if told is None else partial(told, "sensitivity"),
        )
    table = bit_table(
        sizes,
        sensitivity,
        metric=metric,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        edge_bits=edge_bits,
        latency_ms=latency_ms,
        energy_mj=energy_mj,
        group=group,
        fixed_ms=fixed_ms,
        beside=beside_layers(module, images[0]),
    )
    limits = resolve_budgets(table, budgets)
    best = allocate(table, limits)
    network = quantize_post_training(
        module,
        images,
        assignment(table, best),
        steps=(*STEPS, "adaround") if adaround else STEPS,
        seed=seed,
        group=group,
        on_layer=None if told is None else partial(told, "quantisation"),
    )
    return BitsResult(table, limits, best, baselines(table, limits, sensitivity), network, metric)


def _columns(numbers: set[int | str]) -> list[int | str]:
    return sorted(numbers - {FLOAT_BITS}, key=lambda n: (isinstance(n, str), bits_of(n), str(n)))


def assignment(table: BitTable, allocation: Allocation) -> dict[str, tuple[int | str, int | str]]:
    """Return layer -> bits or number formats of weights and inputs."""
    return {
        name: (bits.weight, bits.activation)
        for name, bits in zip(table.layers, allocation.options, strict=True)
    }


def write_bits(
    result: BitsResult,
    folder: Path,
    images: Tensor,
    *,
    about: Mapping[str, Any] | None = None,
    weight_storage: str = "packed",
) -> Path:
    """Write ``bits.json`` and ``model.onnx``, checked against the quantised network.

    Args:
        result: of :func:`allocate_bits`, or ranks or sparsity beside bits.
        folder: made if missing.
        images: (images, channels, height, width) to compare file and network on.
        about: more entries for the JSON (model, data, accuracies).
        weight_storage: as in :func:`supernet.onnx.export.export_onnx`.

    Returns:
        path of the JSON.

    Raises:
        UnusableModel: the file does not compute what the quantised network does.
    """
    from nas.models.parity import UnusableModel, check_parity, export_checked

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model.onnx"
    summary, check = export_checked(
        result.network, model, images[:32], weight_storage=weight_storage
    )
    parity = check_parity(result.network, model, images, check=check)
    if parity.problems:
        model.unlink()
        raise UnusableModel(f"{model} is not written: {'; '.join(parity.problems)}")
    path = folder / "bits.json"
    write_json_atomic(
        path,
        {
            **(about or {}),
            **result.to_json(),
            "model": model.name,
            "size_kib": summary.size_kib,
            "weights_kib": summary.weights_kib,
            "parity": parity.to_json(),
            "python": platform.python_version(),
        },
    )
    return path
