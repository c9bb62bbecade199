"""Peak memory against liveness over the traced network, and flash by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from search_spaces import memory
from search_spaces.bits import set_bits
from search_spaces.block_kinds import BLOCK_KINDS
from search_spaces.memory import Tape, peak_memory_bytes
from search_spaces.spaces.hybrid import HybridSpace
from search_spaces.spaces.mobilenet import MobileNetSpace
from search_spaces.spaces.resnet import ResNetSpace
from search_spaces.spaces.vit import ViTSpace

FLOAT = {"weight_bits": (32,), "activation_bits": (32,)}
SQUEEZED = (
    {"channels": 8, "stride": 1, "depths": (1, 2), "squeeze": True},
    {"channels": 16, "stride": 2, "depths": (1, 2), "expands": (1, 2)},
)
SPACES = {
    "mobilenet": lambda: MobileNetSpace.from_config(preset="28x28", **FLOAT),
    "squeezed": lambda: MobileNetSpace.from_config(preset="8x8", stages=SQUEEZED, **FLOAT),
    "resnet": lambda: ResNetSpace.from_config(**FLOAT),
}


def traced_peak(space, arch) -> int:
    """Float activations alive at once in the extracted network, from its trace and shapes."""
    torch = pytest.importorskip("torch")
    from torch import fx
    from torch.fx.passes.shape_prop import ShapeProp

    from supernet.network import Supernet
    from supernet.plain import PlainLayer, Source

    class Tracer(fx.Tracer):
        def is_leaf_module(self, m, module_qualified_name):
            return isinstance(m, (PlainLayer, Source))

    supernet = Supernet(space)
    plan = space.plan(arch)
    x = torch.zeros(2, *plan.input_shape)
    with torch.no_grad():
        statistics = supernet.statistics(plan, [torch.randn_like(x)])
        network = supernet.extract(plan, statistics).eval()
    graph = Tracer().trace(network)
    ShapeProp(fx.GraphModule(network, graph)).propagate(x[:1])
    storage, size, last = {}, {}, {}
    order = [node for node in graph.nodes if node.op not in ("output", "get_attr")]
    for time, node in enumerate(order):
        inputs = [n for n in node.all_input_nodes if n in storage]
        in_place = node.op == "call_module" and isinstance(
            network.get_submodule(node.target), Source
        )
        view = node.op == "call_method" and node.target in ("flatten", "size")
        for source in inputs:
            last[storage[source]] = time
        if inputs and (in_place or view):
            storage[node] = storage[inputs[0]]
        else:
            storage[node] = node
            size[node] = 4 * math.prod(node.meta["tensor_meta"].shape)
            last.setdefault(node, time)
    born = {node: time for time, node in enumerate(order) if node in size}
    return max(
        sum(size[n] for n in size if born[n] <= time <= last[n]) for time in range(len(order))
    )


@pytest.mark.parametrize("name", SPACES)
def test_peak_is_that_of_the_traced_network(name):
    space = SPACES[name]()
    genes = space.sample_genes(np.random.default_rng(3), 4)
    peaks = peak_memory_bytes(space, genes)
    for arch, peak in zip(space.decode(genes), peaks, strict=True):
        assert traced_peak(space, arch) == peak


@pytest.mark.parametrize("make", [MobileNetSpace, ResNetSpace, ViTSpace, HybridSpace])
@pytest.mark.parametrize("bit_aware", [False, True])
def test_many_at_once_are_those_of_the_plans(make, bit_aware):
    space = make.from_config()
    genes = space.sample_genes(np.random.default_rng(0), 20)
    peaks = peak_memory_bytes(space, genes, bit_aware=bit_aware)
    plans = [space.plan(arch) for arch in space.decode(genes)]
    alone = [memory.plan_peak_bytes(plan, bit_aware=bit_aware) for plan in plans]
    np.testing.assert_array_equal(peaks, alone)
    if bit_aware:
        assert (peaks <= peak_memory_bytes(space, genes)).all()


def test_a_held_tensor_counts_until_its_last_use():
    tape = Tape(1, np.array([8]))
    x = tape.tensor(100, 8)
    a = tape.op([x], 50, 8)
    b = tape.op([a], 10, 8)  # x, held for the sum, with a and b
    tape.op([b, x], 100, 8)  # x, b and the sum
    assert tape.peak_bytes().tolist() == [210]


def test_an_inactive_operation_neither_makes_nor_holds_a_tensor():
    tape = Tape(2, np.array([8, 8]))
    x = tape.tensor(100, 8)
    a = tape.op([x], 300, 8, np.array([True, False]))
    tape.op([a], 10, 8)
    assert tape.peak_bytes().tolist() == [400, 110]


@pytest.mark.parametrize(
    ("bits", "bit_aware", "expected"), [(2, True, 25), (2, False, 100), (16, True, 200)]
)
def test_bits_of_a_tensor(bits, bit_aware, expected):
    tape = Tape(1, np.array([8]), bit_aware=bit_aware)
    tape.tensor(100, bits)
    assert tape.peak_bytes().tolist() == [expected]


def test_flash_stores_codes_in_4_8_or_16_bits():
    space = MobileNetSpace.from_config(preset="8x8", weight_bits=(3, 4), activation_bits=(8,))
    plan = space.plan(space.smallest())
    expected = 0
    for layer in plan.layers():
        width = 4 if layer.weight_bits <= 4 else 8
        expected += -(-layer.weight_count * width // 8) + 12 * layer.out_channels
    assert plan.flash_kib * 1024 == expected


def test_inputs_that_need_other_codes_than_are_stored_bring_a_table_to_flash():
    config = {"preset": "8x8", "weight_bits": (4,), "activation_bits": (4, 8)}
    space = MobileNetSpace.from_config(**config)
    genes = space.genes([space.smallest()])
    few, many = (space.plan(space.decode(set_bits(space, genes, 4, bits))[0]) for bits in (4, 8))
    streams = sum(layer.source == "stream" and layer.activation_bits < 8 for layer in few.layers())
    assert streams > 0
    assert 1024 * (few.flash_kib - many.flash_kib) == 256 * streams


def test_a_gelu_of_sums_brings_its_stairs_to_flash():
    space = ViTSpace.from_config(preset="28x28", weight_bits=(8,), activation_bits=(8,))
    plan = space.plan(space.smallest())
    without = memory.plan_flash_bytes(
        replace(
            plan,
            blocks=tuple(
                replace(b, layers=tuple(replace(x, source=_relu(x.source)) for x in b.layers))
                for b in plan.blocks
            ),
        )
    )
    count = sum(layer.source == "gelu" for layer in plan.layers())
    assert count and 1024 * plan.flash_kib - without == count * 5 * 320


def _relu(source: str) -> str:
    return "relu" if source == "gelu" else source


def test_a_block_without_a_memory_flow_has_no_peak(monkeypatch):
    space = MobileNetSpace.from_config(preset="8x8")
    genes = space.sample_genes(np.random.default_rng(0), 2)
    kinds = {k: v for k, v in BLOCK_KINDS._parts.items() if k != "mbconv"}
    monkeypatch.setattr(BLOCK_KINDS, "_parts", kinds)
    assert np.isnan(space.costs(genes)["peak_memory_kib"]).all()
    with pytest.raises(memory.InputError, match="mbconv"):
        peak_memory_bytes(space, genes)
