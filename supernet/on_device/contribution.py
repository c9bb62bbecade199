"""What training each layer of a network would contribute, to first order.

A step of gradient descent on the weights ``w`` lowers the loss by the learning rate times
``|dL/dw|^2``, so squares of gradients add up over layers and channels and say which of them are
worth their memory. Lin et al. (NeurIPS 2022, section 3.2) train each layer by itself and take its
gain in accuracy, which takes as many trainings as there are layers; squared gradients as their
stand-in are those of Fisher information (as in TinyTrain, Kwon et al., ICML 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor

from search_spaces.errors import InputError
from search_spaces.training.update import Update
from supernet.on_device.int8 import (
    Int8Training,
    channel_count,
    channel_squares,
    chosen_layers,
)
from supernet.plain import PlainNetwork


def contributions(
    network: PlainNetwork,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor],
    shares: Sequence[float] = (0.125, 0.25, 0.5, 1.0),
) -> dict[str, dict[float, float]]:
    """Return the squared gradients of every layer, by share of its input channels.

    Args:
        network: with integer weights; left as it is.
        batches: (inputs, targets) that the device would be trained on.
        loss: (outputs, targets) -> mean loss.
        shares: of the first input channels whose weights are trained; 0, the bias alone, is always
            among the results, and part of the others.

    Returns:
        layer -> share -> mean over batches of the square of the gradient; layers without integer
        codes are left out.

    Raises:
        InputError: there are no batches, or no layer has integer codes.
    """
    integer = [x.layer.name for x in network.plain_layers() if x.weight_step is not None]
    if not integer:
        raise InputError("no layer of the network has integer codes to train")
    update = Update(shares=dict.fromkeys(integer, 1.0))
    training = Int8Training(network, update, learning_rate=0.0, rounding="none")
    layers = chosen_layers(training.network, update)
    found = {name: dict.fromkeys((0.0, *shares), 0.0) for name in layers}
    seen = 0
    for inputs, targets in batches:
        training.network.zero_grad(set_to_none=True)
        loss(training.network(inputs), targets).backward()
        seen += 1
        for name, (layer, _) in layers.items():
            weight, slope = layer.op.weight.grad, None
            if layer.op.bias is not None:
                slope = layer.op.bias.grad
            bias = 0.0 if slope is None else float(slope.square().sum())
            assert weight is not None
            each = channel_squares(weight, layer).cumsum(0)
            for share in found[name]:
                count = channel_count(share, len(each))
                found[name][share] += bias + (float(each[count - 1]) if count else 0.0)
    if not seen:
        raise InputError("contributions of layers need at least one batch of examples")
    return {
        name: {share: value / seen for share, value in row.items()} for name, row in found.items()
    }
