"""The memory of training against a step by hand, and against what autograd keeps."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import numpy as np
import pytest

from search_spaces import build_space
from search_spaces.columns import LayerColumn
from search_spaces.errors import InputError
from search_spaces.layers import LayerPlan
from search_spaces.memory import INPUTS, SUM
from search_spaces.spaces.mobilenet import MobileNetSpace
from search_spaces.spaces.resnet import ResNetSpace
from search_spaces.training.memory import plan_training_memory, training_memory_kib
from search_spaces.training.tape import TrainingTape
from search_spaces.training.update import Update

ON = np.ones(1, dtype=bool)
FLOAT = {"weight_bits": (32,), "activation_bits": (32,)}
SQUEEZED = (
    {"channels": 8, "stride": 1, "depths": (1, 2), "squeeze": True},
    {"channels": 16, "stride": 2, "depths": (1, 2), "expands": (1, 2)},
)
SPACES = {
    "mobilenet": lambda: MobileNetSpace.from_config(preset="8x8", input_channels=1, **FLOAT),
    "squeezed": lambda: MobileNetSpace.from_config(
        preset="8x8", stages=SQUEEZED, input_channels=1, **FLOAT
    ),
    "resnet": lambda: ResNetSpace.from_config(preset="8x8", input_channels=1, **FLOAT),
}


def linear(name, inputs, outputs, source="none"):
    return LayerColumn(
        LayerPlan(name, name, inputs, outputs, 1, 1, 1, 1, 1, 8, 8, source=source, kind="linear",
                  batch_norm=False), ON,
    )  # fmt: skip


def chain(shares, batch=1, gradient_bytes=4, states=0):
    """Three linear layers, 10 - 20 - 30 - 5, of which the last two read a ReLU."""
    tape = TrainingTape(1, np.array([8]), lambda column: shares[column.layer.name])
    x = tape.tensor(10, 8)
    for name, inputs, outputs in (("a", 10, 20), ("b", 20, 30), ("c", 30, 5)):
        source = "none" if name == "a" else "relu"
        x = tape.layer(x, linear(name, inputs, outputs, source), outputs, 8, "none")
    return tape.step_memory(batch=batch, gradient_bytes=gradient_bytes, states=states)


def part(share, bias=False):
    return np.array([share]), np.array([bias])


def test_the_last_layer_alone_keeps_its_input_until_its_gradient_is_there():
    found = chain({"a": part(0.0), "b": part(0.0), "c": part(1.0, True)})
    assert found.kept[0] == 30 and found.masks[0] == 0
    assert found.weight_gradients[0] == 4 * (150 + 5)
    assert found.weights[0] == 150 + 4 * 5
    # Backwards: its input, its own output and the gradient of it, and that of the weights; the
    # output is read no more by then.
    assert found.peak[0] == found.weights[0] + 30 + 4 * 5 + 4 * 155


def test_layers_that_gradients_pass_keep_a_bit_a_value():
    found = chain({"a": part(0.0, True), "b": part(0.0), "c": part(0.0)})
    # The bias of the first: both ReLUs behind it, of 20 and 30 values, and no activation.
    assert found.kept[0] == 0 and found.masks[0] == math.ceil(20 / 8) + math.ceil(30 / 8)
    assert found.kept_values[0].tolist() == [0, 50]
    # The gradients of b's output and input at once.
    assert found.gradients[0] == 4 * (30 + 20)


def test_channels_batches_and_optimisers_scale():
    shares = {"a": part(0.0), "b": part(0.45), "c": part(0.0)}
    one, four = chain(shares), chain(shares, batch=4)
    # 0.45 of 20 inputs are 9; the whole of them is not kept, nor is any gradient asked for.
    assert one.kept[0] == 9 and four.kept[0] == 36
    assert one.weight_gradients[0] == four.weight_gradients[0] == 4 * 9 * 30
    adam = chain(shares, states=2)
    assert adam.optimizer[0] == 2 * 4 * 9 * 30
    assert adam.peak[0] == one.peak[0] + adam.optimizer[0]
    eight = chain(shares, gradient_bytes=1)
    assert eight.weight_gradients[0] * 4 == one.weight_gradients[0]


def residual(last):
    """A layer, and a sum of its output and its input, behind another layer."""
    shares = {"a": part(1.0), "b": part(1.0)}
    tape = TrainingTape(1, np.array([8]), lambda column: shares[column.layer.name])
    x = tape.layer(tape.tensor(10, 8), linear("a", 10, 10), 10, 8, "none")
    h = tape.layer(x, linear("b", 10, 10), 10, 8, "none")
    tape.op([h, x], 10, 8, keeps=last)
    return tape.step_memory(batch=1, gradient_bytes=4, states=0)


def test_sums_pass_their_gradient_on_in_place_and_products_keep_their_factors():
    assert residual(SUM).gradients[0] == 40  # one buffer, accumulated in
    assert residual(SUM).kept_values[0, 0] == 20
    product = residual(INPUTS)
    assert product.kept_values[0, 0] == 30  # h as well
    assert product.gradients[0] == 120  # of the product, of h and of x


def test_operations_of_which_nobody_said_what_gradients_need_are_not_told():
    tape = TrainingTape(1, np.array([8]), lambda column: part(1.0))
    x = tape.layer(tape.tensor(10, 8), linear("a", 10, 10), 10, 8, "none")
    tape.op([x], 10, 8)
    assert np.isnan(tape.step_memory(batch=1, gradient_bytes=4, states=0).peak[0])


@lru_cache
def traced(name):
    """A space, an architecture of it, and its float network of convolutions and linear layers."""
    torch = pytest.importorskip("torch")
    from supernet.network import Supernet
    from supernet.ptq.graph import trace_float

    space = SPACES[name]()
    (arch,) = space.decode(space.sample_genes(np.random.default_rng(5), 1))
    supernet = Supernet(space, zero_init_residual=False)
    plan = space.plan(arch)
    with torch.no_grad():
        statistics = supernet.statistics(plan, [torch.randn(4, *plan.input_shape)])
        network = supernet.extract(plan, statistics).eval()
    return plan, trace_float(network, torch.randn(2, *plan.input_shape))


def kept_by_autograd(name, update):
    """Values that torch keeps for the backward pass, parameters left out, each storage once."""
    import torch
    from torch import nn
    from torch.nn import grad

    class Frozen(torch.autograd.Function):
        """A convolution whose weights are not trained; torch's keeps its input all the same."""

        @staticmethod
        def forward(ctx, x, layer):
            ctx.save_for_backward(layer.weight)
            ctx.layer, ctx.shape = layer, x.shape
            return nn.Conv2d.forward(layer, x)

        @staticmethod
        def backward(ctx, gradient):
            at = ctx.layer
            return grad.conv2d_input(
                ctx.shape, *ctx.saved_tensors, gradient, at.stride, at.padding, at.dilation,
                at.groups,
            ), None  # fmt: skip

    plan, graph = traced(name)
    module = graph.module.requires_grad_(False)
    names = list(graph.layers)
    shares = update.shares or dict.fromkeys(names[-update.last :], 1.0)
    for layer_name in names:
        layer = graph.layer(layer_name)
        share = shares.get(layer_name)
        layer.weight.requires_grad_(bool(share))
        layer.__dict__.pop("forward", None)
        if not share and isinstance(layer, nn.Conv2d):
            own = None if share is None or not update.biases else nn.Parameter(torch.zeros(1))

            def forward(x, layer=layer, own=own):
                y = Frozen.apply(x, layer)
                return y if own is None else y + own

            layer.forward = forward
        elif share is not None and layer.bias is not None:
            layer.bias.requires_grad_(update.biases)
    weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage().data_ptr()
        if storage not in weights:
            kept[storage] = tensor
        return tensor

    x = torch.randn(update.batch, *plan.input_shape)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = module(x)
    assert out.requires_grad
    # A convolution of one place with a stride keeps its input whole, of which it reads a part.
    return sum(t.untyped_storage().nbytes() // t.itemsize for t in kept.values())


@pytest.mark.parametrize("name", SPACES)
def test_what_is_kept_is_what_autograd_keeps(name):
    plan, _ = traced(name)
    names = [layer.name for layer in plan.layers()]
    updates = [Update(last=last, biases=False, batch=2) for last in (1, 2, 5)]
    # Layers in the middle, and biases alone, with everything behind them frozen.
    for chosen in (
        {names[2]: 1.0},
        {names[0]: 0.0},
        {names[1]: 0.0, names[-1]: 1.0},
        {names[3]: 1.0, names[-2]: 1.0},
        dict.fromkeys(names, 1.0),
    ):
        updates.append(Update(shares=chosen, batch=2))
    for update in updates:
        found = plan_training_memory(plan, update)
        assert found.kept_values[0].sum() == kept_by_autograd(name, update), update


@pytest.mark.parametrize("name", ["mobilenet", "resnet", "vit", "hybrid"])
def test_a_row_of_a_space_is_the_network(name):
    space = build_space(name)
    genes = space.sample_genes(np.random.default_rng(1), 3)
    for update in (Update(last=3), Update(last=None, share=0.3, optimizer="adam", batch=8)):
        values = training_memory_kib(space, genes, update)
        for arch, value in zip(space.decode(genes), values, strict=True):
            assert plan_training_memory(space.plan(arch), update).peak[0] / 1024 == value


def test_more_layers_need_no_less():
    space = build_space("mobilenet", preset="8x8", input_channels=1)
    genes = space.sample_genes(np.random.default_rng(2), 8)
    values = [training_memory_kib(space, genes, Update(last=n)) for n in (1, 2, 4, 8, None)]
    assert all((more >= less).all() for less, more in itertools.pairwise(values))
    assert (values[0] >= space.costs(genes)["peak_memory_kib"]).all()


@pytest.mark.parametrize(
    ("options", "why"),
    [({"last": 0}, "at least 1"), ({"share": 0.0}, "share above 0"),
     ({"optimizer": "lion"}, "sgd, momentum, adam"), ({"batch": 0}, "at least 1"),
     ({"gradient_bits": 4}, "8, 16 and 32"), ({"shares": {"a": 2.0}}, "a: 2 of its channels")],
)  # fmt: skip
def test_updates_that_make_no_sense_are_refused(options, why):
    with pytest.raises(InputError, match=why):
        Update(**options)


def test_layers_that_are_not_there_are_refused():
    space = build_space("mobilenet", preset="8x8", input_channels=1)
    with pytest.raises(InputError, match="no layer 'nothing'"):
        plan_training_memory(space.plan(space.smallest()), Update(shares={"nothing": 1.0}))
