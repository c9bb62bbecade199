"""Batch norm folded into the layer before it (Jacob et al., CVPR 2018, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from supernet.ptq.graph import LAYERS, NORMS, set_submodule


@torch.no_grad()
def fold_batch_norms(module: fx.GraphModule) -> None:
    """Fold every batch norm of ``module``, in place; its outputs stay the same.

    One that follows no layer, or a layer with other users, becomes a 1x1 depthwise convolution.
    """
    for node in list(module.graph.nodes):
        if node.op != "call_module" or not isinstance(module.get_submodule(node.target), NORMS):
            continue
        norm = module.get_submodule(node.target)
        gain, shift = _affine(norm)
        before = node.all_input_nodes[0]
        layer = module.get_submodule(before.target) if before.op == "call_module" else None
        if isinstance(layer, LAYERS) and len(before.users) == 1:
            bias = torch.zeros_like(shift) if layer.bias is None else layer.bias
            layer.weight.mul_(gain.view(-1, *[1] * (layer.weight.dim() - 1)))
            layer.bias = nn.Parameter(shift + bias * gain)
            node.replace_all_uses_with(before)
            module.graph.erase_node(node)
        else:
            set_submodule(module, node.target, _as_layer(norm, gain, shift))
    module.graph.lint()
    module.recompile()


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return the gain and shift of each channel, both (channels,)."""
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.affine:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift + norm.bias if norm.affine else shift


def _as_layer(norm: nn.Module, gain: Tensor, shift: Tensor) -> nn.Module:
    channels = len(gain)
    if isinstance(norm, nn.BatchNorm1d):
        layer: nn.Module = nn.Linear(channels, channels)
        layer.weight.copy_(torch.diag(gain))
    else:
        layer = nn.Conv2d(channels, channels, 1, groups=channels)
        layer.weight.copy_(gain.view(-1, 1, 1, 1))
    layer.bias.copy_(shift)
    return layer.eval()
