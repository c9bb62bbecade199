"""What each layer of a trained network costs on described hardware, in any bits or format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nas.bits.allocation import Bits

if TYPE_CHECKING:
    from torch import Tensor, nn

    from search_spaces.plan import LayerPlan

Cost = Callable[[str, Bits], float]


def network_plans(module: nn.Module, images: Tensor) -> dict[str, LayerPlan[int]]:
    """Return the sizes of each convolution and linear layer, in order, by name.

    Args:
        module: a float network that ``torch.export`` can capture.
        images: (batch, channels, height, width), for shapes.
    """
    from search_spaces.plan import FLOAT_BITS
    from supernet.ptq.graph import trace_float
    from supernet.ptq.quantize import layer_plan

    graph = trace_float(module, images[:1])
    return {
        name: layer_plan(name, node, graph.layer(name), FLOAT_BITS, FLOAT_BITS)
        for name, node in graph.layers.items()
    }


def hardware_costs(module: nn.Module, images: Tensor, hardware: str | Path) -> tuple[Cost, Cost]:
    """Return functions from (layer, bits) to estimated latency (ms) and energy (mJ).

    Args:
        module, images: as in :func:`network_plans`.
        hardware: as in :func:`devices.simulators.hardware.read_hardware`.

    Raises:
        InputError: no such description; when asked, that it has no units for a number format.
    """
    from devices.simulators.hardware import read_hardware
    from devices.simulators.roofline import estimate_layer

    described = read_hardware(hardware)
    plans = network_plans(module, images)

    def latency_ms(layer: str, bits: Bits) -> float:
        return estimate_layer(plans[layer], described, bits.weight, bits.activation)[0]

    def energy_mj(layer: str, bits: Bits) -> float:
        return estimate_layer(plans[layer], described, bits.weight, bits.activation)[1]

    return latency_ms, energy_mj
