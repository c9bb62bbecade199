"""Loading weights by name: of a checkpoint, another supernet, or a plain network."""

from __future__ import annotations

from torch import Tensor, nn

from search_spaces.errors import InputError
from supernet.network import Supernet


def weights_of_plain(supernet: Supernet, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a plain network under the supernet's names.

    Args:
        supernet: whose largest architecture the plain network is, see :meth:`Supernet.extract`.
        tensors: its ``state_dict()``; batch-norm statistics are left out, since the supernet
            has none.
    """
    renamed = {}
    plan = supernet.space.plan(supernet.space.largest())
    for i, block in enumerate(plan.blocks):
        for layer in block.layers:
            prefix = f"layers.{layer.name.replace('.', '_')}"
            for theirs, ours in (
                ("op.weight", "weight"),
                ("op.bias", "beta"),
                ("norm.weight", "gamma"),
                ("norm.bias", "beta"),
            ):
                tensor = tensors.get(f"{i}.ops.{layer.role}.{theirs}")
                if tensor is not None:
                    # A linear layer's weights are those of a 1x1 convolution.
                    flat = ours == "weight" and tensor.dim() == 2
                    tensor = tensor[:: layer.shared_norm] if "norm" in theirs else tensor
                    renamed[f"{prefix}.{ours}"] = tensor[..., None, None] if flat else tensor
    return renamed


def load_weights(
    supernet: nn.Module, tensors: dict[str, Tensor], *, prefix: str = "", source: str = "weights"
) -> list[str]:
    """Load every tensor whose name and shape fit, quantiser state included.

    A classifier for another number of outputs is left as it is.

    Returns:
        Names of the supernet's tensors that were not found and keep their values.

    Raises:
        InputError: not one tensor fits, or one of the same name has another shape.
    """
    own = supernet.state_dict()
    found = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix) and name.removeprefix(prefix) in own
    }
    if not found:
        raise InputError(
            f"{source} has no tensor of this network: it has {sorted(tensors)[:3]}..., "
            f"the network {sorted(own)[:3]}..."
        )
    found = {
        name: tensor
        for name, tensor in found.items()
        if "classifier" not in name or tensor.shape == own[name].shape
    }
    for name, tensor in found.items():
        if tensor.shape != own[name].shape:
            raise InputError(
                f"{source}: {name} has the shape {tuple(tensor.shape)}, the space asks for "
                f"{tuple(own[name].shape)}"
            )
    supernet.load_state_dict(found, strict=False)
    return sorted(set(own) - set(found))


def plain_weights(network: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a supernet without what belongs to its quantisers, by name."""
    return {
        name: value
        for name, value in network.state_dict().items()
        if not {"points", "weight_quantizer", "inputs"} & set(name.split("."))
    }
