import torch
import torch.nn.functional as F
from torch import nn

from supernet.reading.capture import capture
from supernet.reading.operations import KINDS, kind_of, named, packet


def test_sets_of_operations_are_those_that_the_rules_were_written_for():
    pools = {"adaptive_avg_pool2d", "avg_pool2d", "max_pool2d"}
    shapes = {"flatten", "reshape", "view", "squeeze", "unsqueeze", "unflatten"}
    views = shapes | {"permute", "transpose", "chunk", "split", "split_with_sizes", "unbind"}
    views |= {"getitem", "select", "slice", "expand"}
    integer = pools | {"add", "cat", "mean"}
    sums = {"add", "sub", "maximum", "minimum"}
    assert named("integer") == integer
    assert named("mixing") == integer | sums | {"mul", "matmul", "bmm"}
    assert named("arithmetic") == sums | {"mul", "div"}
    assert named("arithmetic", "homogeneous") == sums
    assert named("reshaping") == shapes
    assert named("view") == views
    assert named("moving") == views | {"roll", "pixel_shuffle", "upsample_nearest2d"}
    assert named("grid") == named("moving") | {"max_pool2d", "relu"}
    assert named("sign") == named("grid") | pools | {"mean"}
    assert named("homogeneous") == (
        sums | pools | (shapes - {"unflatten"}) | {"mean", "relu", "leaky_relu"}
    )
    assert named("positive") == {"relu", "relu6", "sigmoid", "hardsigmoid", "softmax", "exp"}
    assert named("sizes") == {"sym_size"}
    assert named("created") == {
        "new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like"
    }  # fmt: skip
    assert named("identity") == {
        "dropout", "dropout_", "feature_dropout", "alpha_dropout", "native_dropout", "clone",
        "contiguous", "detach", "detach_", "alias", "lift_fresh", "lift_fresh_copy",
    }  # fmt: skip
    assert named("neutral") == {
        "to", "_to_copy", "type_as", "expand", "slice", "view", "reshape", "flatten",
        "_unsafe_view",
    }  # fmt: skip
    assert named("aliasing") == {
        "reshape", "flatten", "contiguous", "to", "chunk", "dropout", "unflatten"
    }  # fmt: skip
    assert {name: KINDS[name].activation for name in named("activation")} == {
        "relu": "relu", "hardswish": "hswish", "hardsigmoid": "hsigmoid", "gelu": "gelu"
    }  # fmt: skip


def test_properties_agree_with_each_other():
    assert named("integer") <= named("mixing")
    assert named("view") <= named("moving") <= named("grid") <= named("sign")
    assert named("reshaping") <= named("view")
    assert not named("pointwise", "arithmetic") and not named("pointwise", "spatial")
    for name in named("activation") | named("positive"):
        assert KINDS[name].pointwise or name == "softmax"


def test_operations_keep_what_their_records_say():
    torch.manual_seed(0)
    x, factor = torch.randn(2, 4, 6, 6), torch.tensor([0.5, 2.0, 3.0, 0.1]).view(1, 4, 1, 1)
    alone = {
        "max_pool2d": lambda v: F.max_pool2d(v, 2), "avg_pool2d": lambda v: F.avg_pool2d(v, 2),
        "adaptive_avg_pool2d": lambda v: F.adaptive_avg_pool2d(v, 1),
        "mean": lambda v: v.mean((2, 3), keepdim=True),
        "upsample_nearest2d": lambda v: F.interpolate(v, scale_factor=2),
        "roll": lambda v: v.roll(1, 3), "slice": lambda v: v[:, :, 1:],
    }  # fmt: skip
    for name in named("pointwise"):
        alone[name] = getattr(torch, name, None) or getattr(F, name)
    alone["clamp"] = lambda v: v.clamp(-1, 1)
    for name, call in alone.items():
        kind, positive = KINDS[name], x.abs()
        if name != "sqrt":
            scaled = torch.allclose(call(x * factor), call(x) * factor, atol=1e-5)
            assert scaled or not kind.homogeneous, name
        assert (call(x).nan_to_num() >= 0).all() or not kind.positive, name
        assert (call(positive) >= 0).all() or not kind.sign, name
        codes = set(x.flatten().tolist()) | {0.0}
        assert set(call(x).flatten().tolist()) <= codes or not kind.grid, name


def test_a_captured_node_has_its_operations_record():
    class Net(nn.Module):
        def forward(self, x):
            return torch.fft.fft(F.relu(x) + 1).real

    graph = capture(Net(), [torch.zeros(2, 3)]).graph
    found = {packet(node): kind_of(node) for node in graph.nodes}
    assert found["relu"].activation == "relu"
    assert found["add"].arithmetic
    unknown = [kind for name, kind in found.items() if name not in KINDS]
    assert unknown and not any(vars(kind)[key] for kind in unknown for key in vars(kind))
