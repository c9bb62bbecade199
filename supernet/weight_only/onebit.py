"""Training linear layers of one bit: signs, and a value for each output and each input channel.

OneBit (Xu et al., NeurIPS 2024): equation 3 is the layer, proposition 1 the start (the best matrix
of rank one for the sizes of the weights), section 3.3 the training with the float network as its
teacher. What is trained here is what the packed file and the kernels hold, see
:func:`supernet.weight_only.planes.signs_with_values`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.model_files.grouped import GroupedWeights, pack_grouped
from supernet.weight_only.planes import signs_with_values

_SMALLEST = 1e-8


class OneBitLinear(nn.Module):
    """``((x * inputs) @ sign(weight).T) * outputs + bias``, gradients straight through the sign.

    Args:
        layer: trained, which the start is made from; left as it is.

    Attributes:
        weight: (out, in), of which the signs count.
        outputs: (out,). inputs: (in,). bias: (out,).
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        matrix = layer.weight.detach()
        start = signs_with_values(matrix.cpu().numpy())
        assert start.factor is not None
        # A sign of one bit is stored as 0 or 1 around a zero of one half: half a scale each way.
        outputs = start.by_output(start.scales)[:, 0, 0].astype("float32") / 2
        self.outputs = nn.Parameter(torch.from_numpy(outputs).to(matrix.device))
        self.inputs = nn.Parameter(torch.from_numpy(start.factor.copy()).to(matrix.device))
        # Of a size of about one, so that a learning rate means the same in every layer.
        self.weight = nn.Parameter(
            matrix / torch.outer(self.outputs, self.inputs).detach().clamp(min=_SMALLEST)
        )
        bias = torch.zeros(len(matrix)) if layer.bias is None else layer.bias.detach()
        self.bias = nn.Parameter(bias.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Run on ``x`` (..., in); returns (..., out)."""
        signs = 1.0 - 2.0 * (self.weight.detach() < 0)
        binary = signs + (self.weight - self.weight.detach())
        return F.linear(x * self.inputs, binary) * self.outputs + self.bias

    @torch.no_grad()
    def grouped(self) -> GroupedWeights:
        """Return the layer as a packed file holds it: one bit a weight, and the vectors."""
        outputs = self.outputs.cpu().numpy()
        # A scale is positive in the file: the sign of an output's value goes into its weights.
        signs = (self.weight.cpu().numpy() >= 0) == (outputs[:, None] >= 0)
        return pack_grouped(
            signs.astype("uint8"),
            2 * abs(outputs)[:, None],
            bits=1,
            group=0,
            zero=0.5,
            bias=self.bias.cpu().numpy(),
            factor=self.inputs.cpu().numpy(),
        )
