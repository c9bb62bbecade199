"""Zero-cost proxies: scores of an untrained network from one batch, or from none.

Each is a function of a plain float ``nn.Module``; a larger score is meant to promise a
better network. They are baselines: a proxy sees neither training nor bit-widths, and the
number of multiplications or parameters is often as good (White et al., ICLR blog track
2022). The network's parameters, statistics and mode are left as they were.

No torch is loaded by importing this module.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from search_spaces.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

Proxy = Callable[["nn.Module", "Tensor", "Tensor"], float]
"""(network, images (batch, channels, height, width), labels (batch,)) -> score."""

ZERO_COST: Registry[Proxy] = Registry("zero-cost proxy", group="nas.zero_cost_proxies")


def zero_cost_scores(
    network: nn.Module, images: Tensor, labels: Tensor, *, seed: int = 0
) -> dict[str, float]:
    """Return every registered proxy's score of ``network``; NaN where a score is not finite.

    Args:
        network: untrained, in float.
        images: (batch, channels, height, width), normalised, at the network's resolution.
        labels: (batch,) int64.
        seed: of the proxies that draw random inputs.
    """
    import math

    import torch

    scores = {}
    for name in ZERO_COST:
        with torch.random.fork_rng(devices=[]), _untouched(network):
            torch.manual_seed(seed)
            value = ZERO_COST.get(name)(network, images, labels)
        scores[name] = float(value) if math.isfinite(value) else math.nan
    return scores


@ZERO_COST.register("synflow")
def synflow(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Synaptic flow (Tanaka et al., NeurIPS 2020): sum of |w * dR/dw| on an input of ones.

    R is the sum of outputs with every parameter replaced by its size. Batch norms run with
    the statistics 0 and 1, in double precision, since the products of many layers overflow.
    The logarithm is returned, which orders networks alike.
    """
    import torch
    from torch import nn

    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                if module.running_mean is not None:
                    module.running_mean.zero_()
                if module.running_var is not None:
                    module.running_var.fill_(1.0)
    network.double().eval()
    ones = torch.ones_like(images[:1], dtype=torch.float64)
    network(ones).sum().backward()
    total = sum(float((p.detach() * p.grad).abs().sum()) for p in _learned(network))
    network.float()
    return _log(total)


@ZERO_COST.register("snip")
def snip(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """SNIP (Lee et al., ICLR 2019): sum of |w * dL/dw| of convolution and linear weights."""
    from torch.nn import functional as F

    network.train()
    F.cross_entropy(network(images), labels).backward()
    return sum(
        float((w.detach() * w.grad).abs().sum()) for w in _weights(network) if w.grad is not None
    )


@ZERO_COST.register("jacov")
def jacov(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Correlation of the input Jacobians of different images (Mellor et al., 2020, version 1).

    The score is -sum(log(v + k) + 1 / (v + k)) over the eigenvalues v of the correlation
    matrix, k = 1e-5: larger where images are told apart by different gradients.
    """
    import torch

    network.train()
    inputs = images.detach().clone().requires_grad_(True)
    outputs = network(inputs)
    (jacobian,) = torch.autograd.grad(outputs.sum(), inputs)
    rows = jacobian.flatten(1).double()
    rows = rows - rows.mean(1, keepdim=True)
    rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)
    values = torch.linalg.eigvalsh(rows @ rows.T).clamp(min=0) + 1e-5
    return float(-(values.log() + 1 / values).sum())


@ZERO_COST.register("nwot")
def nwot(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """NASWOT (Mellor et al., ICML 2021): log-determinant of the kernel of ReLU patterns.

    The kernel counts, for two images, the units that are on for both or off for both. What
    is on is read off the outputs of batch norms, or of convolution and linear layers
    without one, that a non-linearity follows in these networks; the last layer is left out.
    """
    import torch

    network.train()
    size = len(images)
    kernel = torch.zeros(size, size, dtype=torch.float64)

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        on = (output.detach() > 0).flatten(1).double()
        kernel.add_((on @ on.T + (1 - on) @ (1 - on).T).cpu())

    with _hooked(_pre_activations(network), count), torch.no_grad():
        network(images)
    sign, logarithm = torch.linalg.slogdet(kernel)
    return float(logarithm) if float(sign) > 0 else float("-inf")


@ZERO_COST.register("zen")
def zen(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Zen-score (Lin et al., ICCV 2021, algorithm 1) on Gaussian weights and inputs.

    The logarithm of how far the last feature map moves when the input moves by 0.01 of a
    Gaussian, plus the logarithms of the deviations that batch norms divide by.
    """
    import torch
    from torch import nn

    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    if not convolutions:
        # Its feature maps are those of convolutions; a score of another network is undefined.
        return float("nan")
    for weight in _weights(network):
        nn.init.normal_(weight)
    for norm in norms:
        if norm.affine:
            nn.init.ones_(norm.weight)
            nn.init.zeros_(norm.bias)
    deviations: list[float] = []
    features: list[Tensor] = []

    def spread(module: nn.Module, inputs: Any, output: Tensor) -> None:
        x = inputs[0]
        variance = x.transpose(0, 1).flatten(1).var(1, unbiased=False).mean()
        deviations.append(0.5 * float(torch.log(variance + module.eps)))

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        features.append(output)

    network.train()
    last = [m for m in network.modules() if isinstance(m, (*{type(n) for n in norms}, nn.Conv2d))]
    x = torch.randn_like(images)
    with torch.no_grad(), _hooked(last[-1:], keep):
        with _hooked(norms, spread):
            network(x)
        network(x + 0.01 * torch.randn_like(images))
    difference = float((features[0] - features[1]).abs().flatten(1).sum(1).mean())
    return _log(difference) + sum(deviations)


@ZERO_COST.register("params")
def params(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Number of parameters."""
    return float(sum(p.numel() for p in network.parameters()))


@ZERO_COST.register("macs")
def macs(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Multiply-accumulates of convolution and linear layers for one image."""
    import torch
    from torch import nn

    total = 0.0

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal total
        positions = output[0].numel() // output.shape[1 if isinstance(module, nn.Conv2d) else -1]
        total += positions * cast("Tensor", module.weight).numel()

    layers = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    network.eval()
    with torch.no_grad(), _hooked(layers, count):
        network(images[:1])
    return total


@contextlib.contextmanager
def _untouched(network: nn.Module) -> Iterator[None]:
    """Put back parameters, buffers, modes and gradients."""
    import torch

    modes = {module: module.training for module in network.modules()}
    saved = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    gradients = {p: (p.grad, p.requires_grad) for p in network.parameters()}
    for parameter in gradients:
        parameter.grad = None
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        with torch.no_grad():
            network.load_state_dict(saved)
        for parameter, (gradient, learned) in gradients.items():
            parameter.grad = gradient
            parameter.requires_grad_(learned)
        for module, mode in modes.items():
            module.training = mode


@contextlib.contextmanager
def _hooked(modules: Sequence[nn.Module], hook: Callable[..., None]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _learned(network: nn.Module) -> list[Any]:
    return [p for p in network.parameters() if p.grad is not None]


def _weights(network: nn.Module) -> list[Any]:
    from torch import nn

    return [m.weight for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]


def _pre_activations(network: nn.Module) -> list[nn.Module]:
    from torch import nn

    norm = nn.modules.batchnorm._BatchNorm
    layers = [m for m in network.modules() if isinstance(m, (norm, nn.Conv2d, nn.Linear))]
    # A convolution directly before a batch norm is normalised first; the last layer feeds none.
    followed = [
        isinstance(after, norm) and not isinstance(layer, norm)
        for layer, after in itertools.pairwise(layers)
    ]
    return [layer for layer, skip in zip(layers, followed, strict=False) if not skip]


def _log(value: float) -> float:
    import math

    return math.log(value) if value > 0 else float("-inf")
