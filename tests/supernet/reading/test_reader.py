"""Whatever a module computes, it is read, quantised in float and exported as just that."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from search_spaces.errors import InputError
from supernet.network import Supernet
from supernet.onnx.export import export_onnx
from supernet.own_model.wrap import bits_space
from supernet.ptq.quantize import quantize_post_training
from supernet.reading.compare import first_difference
from supernet.reading.reader import read_network
from supernet.training.subnets import float_plan


class Net(nn.Module):
    """A convolution, what is tried, another convolution of what comes out, and a classifier."""

    def __init__(self, middle, *, image=(3, 9, 9), before=8) -> None:
        super().__init__()
        self.first = nn.Conv2d(image[0], before, 3, padding=1)
        self.middle = middle if isinstance(middle, nn.Module) else Call(middle)
        with torch.no_grad():
            found = self.middle(self.first(torch.zeros(1, *image)))
        flat = found.dim() != 4
        self.last = nn.Linear(found.shape[-1], 4) if flat else nn.Conv2d(found.shape[1], 4, 1)

    def forward(self, x):
        y = self.last(self.middle(self.first(x)))
        return y.flatten(2).mean(2) if y.dim() == 4 else y.reshape(y.shape[0], -1)[:, :4]


class Call(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class NormWithActivation(nn.BatchNorm2d):
    def forward(self, x):
        return F.hardtanh(super().forward(x), 0.0, 1.5)


class Standardised(nn.Conv2d):
    """Its weights are made of others at each call."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight / weight.std((1, 2, 3), keepdim=True), self.bias, padding=1)


class Tokens(nn.Module):
    def __init__(self, inner) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.flatten(2).transpose(1, 2))


class SelfAttention(nn.Module):
    def __init__(self, mask=None, **options) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, **options)
        self.mask = mask

    def forward(self, x):
        return x + self.attention(x, x, x, attn_mask=self.mask, need_weights=False)[0]


class Told(SelfAttention):
    def __init__(self) -> None:
        super().__init__(batch_first=True)

    def forward(self, x):
        found, where = self.attention(x, x, x, average_attn_weights=False)
        return x + found + where.mean(1).mean(-1, keepdim=True)


class Positions(nn.Module):
    """A bias of attention that is looked up by position."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(17, 2))
        places = torch.arange(81)[:, None] - torch.arange(81)[None]
        self.register_buffer("index", places.abs() % 17)

    def forward(self, x):
        bias = self.table[self.index].permute(2, 0, 1)
        parts = x.unflatten(2, (2, 4)).transpose(1, 2)
        return F.scaled_dot_product_attention(parts, parts, parts, attn_mask=bias[None]).mean(1)


class Dropped(nn.Module):
    def forward(self, x):
        assert x.shape[1] == 8, "channels"
        return x + F.dropout(F.silu(x), 0.3, self.training)


class Steps(nn.Module):
    """A recurrent network over the rows and columns of an image, as over time."""

    def __init__(self, kind, **options) -> None:
        super().__init__()
        self.steps = kind(8, 5, batch_first=True, **options)

    def forward(self, x):
        return self.steps(x.flatten(2).transpose(1, 2))[0]


class Matrix(nn.Module):
    """A linear layer as other frameworks write it."""

    def __init__(self, bias=False) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(8, 6))
        self.term = nn.Parameter(torch.randn(6)) if bias else None

    def forward(self, x):
        y = x @ self.matrix
        return y if self.term is None else self.term + y


class Cell(nn.Module):
    """Steps that the module takes itself, from a state that it makes."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(8, 5)

    def forward(self, x):
        state = x.new_zeros(x.shape[0], 5)
        for step in range(3):
            state = self.cell(x[:, :, step, step], state)
        return torch.stack([state, torch.full((x.shape[0], 5), 2.0)], 1)


def norm(kind):
    layer = kind(8)
    layer.running_mean.normal_()
    layer.running_var.uniform_(0.5, 2)
    return layer.requires_grad_(False).eval()


def shuffle(x):
    n, c, h, w = x.shape
    left, right = x.chunk(2, dim=1)
    both = torch.cat([left, F.relu(right)], axis=1)
    return both.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def masked(x):
    """Windows' masks are made so: zeros of the input's kind, filled in place."""
    mask = x.new_zeros((9, 9))
    mask[:4, :5] = 1
    mask[4:] += 2
    return x.masked_fill(mask == 1, -1.0) + mask


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv2d(8, 8, 3, padding=1), norm(nn.BatchNorm2d)

    def forward(self, x):
        return self.norm(self.layer(F.relu(self.norm(self.layer(x)))))


def in_float(x):
    with torch.autocast("cpu", enabled=False):
        y = x.float()
        with torch.no_grad():
            z = y.relu() + 1
    return y * z


def written(x):
    """Parts of a tensor are written to, as in detection heads and partial convolutions."""
    y = x.clone()
    y[:, :3] = x[:, :3] * 2
    y[:, 4] = 0
    y[..., ::3] += 1
    return y


def sampled(x):
    theta = (
        torch.tensor([[[0.9, 0.1, 0.2], [-0.1, 0.8, 0.1]]])
        * (1 + x.mean((1, 2, 3)).tanh())[:, None, None]
    )
    places = F.affine_grid(theta, x.size(), align_corners=False)
    # A later operator set than that which has other names for the modes of sampling.
    return F.gelu(F.grid_sample(x, places, align_corners=False, padding_mode="border"))


class Adapted(nn.Conv2d):
    """Its own weights and others beside them, and its own a second time."""

    def __init__(self) -> None:
        super().__init__(8, 8, 3, padding=1)
        self.down_weight = nn.Parameter(torch.randn(2, 8, 1, 1))
        self.up = nn.Conv2d(2, 8, 1)

    def forward(self, x):
        y = F.conv2d(x, 2 * self.weight, padding=1) + super().forward(x.relu())
        return y + self.up(F.conv2d(x, self.down_weight))


FIVE = torch.randn(1, 2, 8, 1, 1, generator=torch.Generator().manual_seed(2))


MIDDLES = {
    "norm with an activation": lambda: norm(NormWithActivation),
    "norm before a convolution": lambda: nn.Sequential(nn.ReLU(), norm(nn.BatchNorm2d)),
    "norm of a tensor with two readers": lambda: Call(
        lambda x, bn=norm(nn.BatchNorm2d): torch.cat([bn(x), x], 1)
    ),
    "ceil_mode": lambda: nn.MaxPool2d(3, 2, ceil_mode=True),
    "ceil_mode with padding": lambda: nn.MaxPool2d(2, 2, 1, ceil_mode=True),
    "average with ceil_mode": lambda: nn.AvgPool2d(2, 2, ceil_mode=True),
    "what padding counts": lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "adaptive maximum, uneven": lambda: nn.AdaptiveMaxPool2d((4, 2)),
    "repeated for the batch": lambda: Call(
        lambda x: torch.cat([x, FIVE[:, 0, :2].repeat(x.shape[0], 1, 9, 9)], 1)
    ),
    "attention that tells where": lambda: Tokens(Told()),
    "written to": lambda: Call(written),
    "sampled": lambda: Call(sampled),
    "other weights beside its own": Adapted,
    "softplus that ends early": lambda: nn.Softplus(threshold=0.5),
    "random leaks": nn.RReLU,
    "both": lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    "divisor": lambda: nn.AvgPool2d(2, divisor_override=3),
    "pool with one number": lambda: nn.AvgPool2d(2),
    "adaptive, even": lambda: nn.AdaptiveAvgPool2d(3),
    "adaptive, uneven": lambda: nn.AdaptiveAvgPool2d((2, 4)),
    "adaptive maximum": lambda: nn.AdaptiveMaxPool2d(3),
    "mean over channels": lambda: Call(lambda x: x.mean(1)),
    "mean over an axis": lambda: Call(lambda x: torch.mean(x, axis=-1).transpose(1, 2)),
    "mean that keeps": lambda: Call(lambda x: x * x.mean(dim=(2, 3), keepdim=True)),
    "shuffled channels": lambda: Call(shuffle),
    "dropped branch": Dropped,
    "prelu": lambda: nn.PReLU(8),
    "leaky relu": lambda: nn.LeakyReLU(0.1),
    "mish": nn.Mish,
    "gelu by tanh": lambda: nn.GELU(approximate="tanh"),
    "group norm": lambda: nn.GroupNorm(2, 8),
    "instance norm": lambda: nn.InstanceNorm2d(8, affine=True),
    "transposed convolution": lambda: nn.ConvTranspose2d(8, 6, 3, 2, 1, output_padding=1),
    "rectangular kernel": lambda: nn.Conv2d(8, 6, (1, 5), (1, 2), (0, 2)),
    "same padding, even kernel": lambda: nn.Conv2d(8, 6, (4, 2), padding="same"),
    "groups": lambda: nn.Conv2d(8, 12, 3, padding=1, groups=4),
    "dilation": lambda: nn.Conv2d(8, 6, 3, padding=(2, 4), dilation=(2, 4)),
    "reflected padding": lambda: nn.Conv2d(8, 6, 3, padding=1, padding_mode="reflect"),
    "standardised weights": lambda: Standardised(8, 6, 3),
    "bilinear": lambda: nn.Upsample(scale_factor=1.7, mode="bilinear"),
    "nearest by a factor": lambda: nn.Upsample(scale_factor=1.3),
    "in place": lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Hardswish(inplace=True)),
    "power": lambda: Call(lambda x: (x.abs() + 1).pow(0.5) - x.clamp(-1, 1) ** 2),
    "squares and roots": lambda: Call(lambda x: x * torch.rsqrt(x.var((2, 3), keepdim=True) + 1)),
    "rolled": lambda: Call(lambda x: torch.roll(x, (1, -2), (2, 3))[:, :, 1:, :-1]),
    "a mask made of sizes": lambda: Call(masked),
    "a layer used twice": Twice,
    "sums by letters": lambda: Call(
        lambda x: torch.einsum("b c h w, b d h w -> b c d", x, x.abs())[..., None]
    ),
    "a region of its own precision": lambda: Call(in_float),
    "a constant of five dimensions": lambda: Call(lambda x: (x[:, None] + FIVE).mean(1)),
    "the shape of another": lambda: Call(
        lambda x: x.flatten(0, 1).mul(2).reshape_as(x) * x[:, :1].expand_as(x)
    ),
    "repeated": lambda: Call(lambda x: torch.cat([x, x[:, :1].repeat(1, 4, 1, 1)], 1)),
    "response norm": lambda: Call(
        lambda x: torch.addcmul(x, x, x.norm(p=2, dim=(2, 3), keepdim=True))
    ),
    "attention": lambda: Tokens(SelfAttention(batch_first=True)),
    "attention, the batch second": lambda: Tokens(SelfAttention()),
    "attention with a mask": lambda: Tokens(
        SelfAttention(torch.ones(81, 81, dtype=torch.bool).triu(1), batch_first=True)
    ),
    "attention with positions": lambda: Tokens(Positions()),
    "recurrent": lambda: Steps(nn.GRU),
    "recurrent, both ways": lambda: Steps(nn.LSTM, num_layers=2, bidirectional=True),
    "recurrent, step by step": Cell,
    "made in the size of the batch": lambda: Call(
        lambda x: (
            torch.cat([x, torch.ones_like(x[:, :2]), torch.zeros(x.shape[0], 1, 9, 9)], 1)
            + x.new_full((x.shape[0], 1, 9, 9), 0.5)
        )
    ),
    "product with a matrix": lambda: Tokens(Matrix()),
    "product with a matrix, and a sum": lambda: Tokens(Matrix(bias=True)),
    "encoder layer": lambda: Tokens(
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
    ),
}


def exported(network, path, images):
    export_onnx(network, path)
    session = onnxruntime.InferenceSession(str(path))
    return session.run(None, {"input": images.numpy()})[0]


def close(found, expected, tolerance=2e-4):
    found = found if isinstance(found, np.ndarray) else found.detach().numpy()
    expected = expected.detach().numpy()
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * max(1e-3, np.abs(expected).max())


@pytest.mark.parametrize("name", MIDDLES)
def test_every_step_computes_what_the_module_computes(name, tmp_path):
    torch.manual_seed(0)
    module = Net(MIDDLES[name]()).eval()
    images = torch.randn(5, 3, 9, 9)
    expected = module(images)
    read = read_network(module, images)
    close(read(images), expected, 1e-5)
    in_float = quantize_post_training(read, [images], (32, 32), steps=())
    close(in_float(images), expected, 1e-5)
    close(exported(in_float, tmp_path / "m.onnx", images), expected)
    codes = quantize_post_training(read, [images], (8, 8), steps=("equalize", "mse", "bias"))
    assert (codes(images) - expected).norm() < 0.2 * expected.norm()


@pytest.mark.parametrize(
    "name",
    ["norm before a convolution", "shuffled channels", "rectangular kernel", "attention",
     "attention with positions", "transposed convolution", "prelu", "encoder layer",
     "a constant of five dimensions", "a layer used twice"],
)  # fmt: skip
def test_the_largest_of_a_bit_space_is_the_module_and_exports(name, tmp_path):
    torch.manual_seed(0)
    module = Net(MIDDLES[name]()).eval()
    images = torch.randn(5, 3, 9, 9)
    space = bits_space(module, input_shape=(3, 9, 9))
    supernet = Supernet(space)
    plan = float_plan(space.plan(space.largest()))
    network = supernet.extract(plan, space.pretrained_statistics())
    close(network(images), module(images), 1e-4)
    close(exported(network, tmp_path / "m.onnx", images), module(images), 1e-3)


@pytest.mark.parametrize("shape", [(2, 64), (1, 49, 10)])
def test_signals_and_spectrograms(shape, tmp_path):
    torch.manual_seed(0)
    if len(shape) == 2:
        bn = nn.BatchNorm1d(8).eval()
        bn.running_mean.normal_()
        body = [nn.Conv1d(2, 8, 5, padding=2), bn, nn.ReLU(), nn.Conv1d(8, 8, 3, 2, 1)]
        module = nn.Sequential(*body, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 4))
    else:
        body = [nn.Conv2d(1, 8, (10, 4), 2, (4, 1)), nn.ReLU(), nn.Conv2d(8, 8, 1)]
        module = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    images = torch.randn(5, *shape)
    module.eval()
    network = quantize_post_training(module, [images], (32, 32), steps=())
    close(exported(network, tmp_path / "m.onnx", images), module(images))
    space = bits_space(module, input_shape=shape)
    weights = sum(p.numel() for n, p in module.named_parameters() if p.dim() > 1)
    plan = space.plan(space.largest())
    assert sum(layer.weight_count for layer in plan.layers()) == weights
    assert plan.input_shape == (shape if len(shape) == 3 else (2, 1, 64))
    found = Supernet(space).extract(float_plan(plan), space.pretrained_statistics())
    close(found(images), module(images), 1e-4)


def test_products_of_activations_are_counted():
    module = Net(MIDDLES["attention"]()).eval()
    space = bits_space(module, input_shape=(3, 9, 9))
    tokens, channels = 81, 8
    layers = tokens * (3 * 8 * 9 + channels * 4 * channels + channels * 4)
    assert space.plan(space.largest()).macs == layers + 2 * tokens * tokens * channels


@pytest.mark.parametrize(
    ("middle", "macs"),
    [
        # Three gates of five values from eight channels and the state, at each of 81 places.
        (lambda: Steps(nn.GRU), 81 * 3 * 5 * (8 + 5)),
        (lambda: Steps(nn.LSTM, bidirectional=True), 81 * 2 * 4 * 5 * (8 + 5)),
        (Cell, 3 * 3 * 5 * (8 + 5)),
        (MIDDLES["sums by letters"], 81 * 8 * 8),
        (lambda: Call(lambda x: F.conv3d(x[:, None], torch.ones(2, 1, 3, 3, 3)).flatten(1, 2)),
         2 * 27 * 6 * 7 * 7),
    ],
    ids=["gru", "lstm", "cell", "einsum", "conv3d"],
)  # fmt: skip
def test_multiplications_of_what_is_no_layer_are_counted(middle, macs):
    module = Net(middle()).eval()
    space = bits_space(module, input_shape=(3, 9, 9))
    plan = space.plan(space.largest())
    layers = sum(layer.macs for layer in plan.layers())
    assert layers >= 81 * 3 * 8 * 9 and plan.macs == layers + macs


@pytest.mark.parametrize("bias", [False, True])
def test_a_product_with_a_matrix_is_a_layer_with_its_bias(bias):
    module = Net(Tokens(Matrix(bias=bias))).eval()
    read = read_network(module, torch.randn(2, 3, 9, 9))
    layers = [m for m in read.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in layers] == [(8, 6), (6, 4)]
    assert (layers[0].bias is not None) == bias
    assert torch.equal(layers[0].weight, module.middle.inner.matrix.t())


def test_values_beside_the_layers_are_counted():
    """Their bits do not vary, and a file holds them all the same."""
    module = Net(Steps(nn.GRU)).eval()
    images = torch.randn(2, 3, 9, 9)
    network = quantize_post_training(module, [images], (8, 8), steps=())
    weights = sum(p.numel() for p in module.middle.parameters())
    assert sum(item.parameters for item in network.plan.operators()) == weights


def test_files_need_no_newer_operators_than_they_use(tmp_path):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(196, 3)).eval()
    images = torch.randn(4, 3, 9, 9)
    needed = {}
    for bits in (32, 8, 4, 2):
        network = quantize_post_training(module, [images], (bits, min(8, bits * 4)), steps=(),
                                         edge_bits=None)  # fmt: skip
        export_onnx(network, tmp_path / "m.onnx")
        model = onnx.load(tmp_path / "m.onnx")
        onnx.checker.check_model(model, full_check=True)
        needed[bits] = (model.opset_import[0].version, model.ir_version)
    assert needed == {32: (18, 10), 8: (18, 10), 4: (18, 10), 2: (18, 10)}


def test_the_size_of_a_batch_is_no_number_of_a_file(tmp_path):
    images = torch.randn(2, 3, 9, 9)
    module = Net(lambda x: x / x.shape[0])
    read = quantize_post_training(module, [images], (32, 32), steps=())
    with pytest.raises(InputError, match="div takes the size of the batch as a number"):
        export_onnx(read, tmp_path / "m.onnx")


def test_a_wrong_copy_is_named_by_its_first_wrong_layer():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 3))
    images = torch.randn(3, 3, 9, 9)
    read = read_network(module, images)
    assert first_difference(module, read, [images], tolerance=1e-4) is None
    with torch.no_grad():
        read.get_submodule("2").weight.mul_(1.5)
    wrong = first_difference(module, read, [images], tolerance=1e-4)
    assert wrong is not None and "the first layer that differs is 2," in wrong


def test_a_forward_that_asks_for_values_is_refused_with_the_reason():
    with pytest.raises(InputError, match=r"Net cannot be captured.*must not depend on values"):
        read_network(Net(lambda x: x if x.sum() > 0 else -x), torch.randn(2, 3, 9, 9))


class Stateful(nn.Module):
    """Computes something else at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(4, 4), 0

    def forward(self, x):
        self.calls += 1
        return self.layer(x) * self.calls


def test_a_module_that_is_no_function_of_its_input_is_refused():
    with pytest.raises(InputError, match="something else at each call"):
        read_network(Stateful(), torch.randn(2, 4))


class Returns(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.layer, self.function = nn.Linear(4, 3), function

    def forward(self, x):
        return self.function(self.layer(x), x)


def test_a_head_that_gives_nothing_is_no_output():
    images = torch.randn(3, 4)
    module = Returns(lambda y, x: (y, None))
    close(read_network(module, images)(images), module(images)[0])


@dataclasses.dataclass
class Answer:
    logits: torch.Tensor


def scripted():
    module = nn.Sequential(nn.Linear(4, 4))
    module.add_module("fast", torch.jit.script(nn.Linear(4, 4)))
    return module


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Returns(lambda y, x: (y, 0.5)), "returns 0.5 beside tensors"),
        (lambda: Returns(lambda y, x: Answer(y)), "return a tensor, or tensors in a tuple"),
        (lambda: Returns(lambda y, x: y + x.sub_(1).mean()), "changes its input in place"),
        (lambda: Returns(lambda y, x: torch.fft.fft(y).real), r"complex numbers \(fft_fft"),
        (lambda: nn.Linear(4, 4).half(), r"weight has weights of float16; .* call .float\(\)"),
        (scripted, "fast is TorchScript"),
        (lambda: nn.LazyLinear(3), "weight is lazy and has no size yet"),
    ],
)
def test_what_cannot_be_read_is_told_with_the_way_out(make, message):
    with pytest.raises(InputError, match=message):
        read_network(make(), torch.randn(3, 4))


class Hooked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.kept = nn.Linear(4, 3), {}
        self.layer.register_forward_hook(lambda m, i, out: self.kept.update(y=out))

    def forward(self, x):
        self.layer(x)
        return self.kept["y"]


def test_a_hook_that_a_copy_loses_is_named():
    with pytest.raises(InputError, match=r"KeyError 'y'.*layer has a hook"):
        read_network(Hooked(), torch.randn(3, 4))


PIECES = ("conv", "depthwise", "pointwise", "norm", "relu", "hswish", "leaky", "max", "average",
          "residual", "squeeze", "split", "pad")  # fmt: skip


class Random(nn.Module):
    """A network of drawn pieces; some keep what came in as a second branch."""

    def __init__(self, pieces, seed) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.pieces = pieces
        self.parts = nn.ModuleList(self._part(piece) for piece in pieces)
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4)

    def _part(self, piece):
        return {
            "conv": lambda: nn.Conv2d(8, 8, 3, padding=1, bias=False),
            "depthwise": lambda: nn.Conv2d(8, 8, 3, padding=1, groups=8),
            "pointwise": lambda: nn.Conv2d(8, 8, 1),
            "norm": lambda: norm(nn.BatchNorm2d),
            "relu": nn.ReLU,
            "hswish": lambda: nn.Hardswish(inplace=True),
            "leaky": lambda: nn.LeakyReLU(0.2),
            "max": lambda: nn.MaxPool2d(3, 1, 1),
            "average": lambda: nn.AvgPool2d(2, 1, 1, count_include_pad=False),
            "residual": lambda: nn.Conv2d(8, 8, 3, padding=1),
            "squeeze": lambda: nn.Conv2d(8, 8, 1),
            "split": lambda: nn.Conv2d(4, 4, 1),
            "pad": lambda: nn.ZeroPad2d((1, 0, 0, 2)),
        }[piece]()

    def forward(self, x):
        x = self.first(x)
        for piece, part in zip(self.pieces, self.parts, strict=True):
            if piece == "residual":
                x = x + F.relu(part(x))
            elif piece == "squeeze":
                x = x * torch.sigmoid(part(x.mean((2, 3), keepdim=True)))
            elif piece == "split":
                left, right = x.split(4, 1)
                x = torch.cat((part(left), right), 1)
            else:
                x = part(x)
        return self.last(x.mean((-1, -2)))


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=7), st.integers(0, 99))
def test_random_networks(tmp_path, pieces, seed):
    module = Random(pieces, seed).eval()
    images = torch.randn(3, 3, 6, 6)
    expected = module(images)
    read = read_network(module, images)
    for steps in ((), ("equalize",)):
        network = quantize_post_training(read, [images], (32, 32), steps=steps)
        close(network(images), expected, 1e-4)
    close(exported(network, tmp_path / "m.onnx", images), expected, 1e-3)
