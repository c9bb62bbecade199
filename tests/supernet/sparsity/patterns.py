"""What a pattern of zeros asks for, told by itself."""

from __future__ import annotations

from torch import Tensor

from search_spaces.sparsity import Sparsity


def obeys(weight: Tensor, sparsity: Sparsity) -> bool:
    """Return whether the zeros of ``weight`` (out, in / groups, ...) are at least the pattern's."""
    if not sparsity.of:
        return int((weight == 0).sum()) >= sparsity.zeros(weight.numel())
    groups = weight.movedim(1, -1).reshape(-1, sparsity.of)
    return bool(((groups != 0).sum(1) <= sparsity.kept).all())
