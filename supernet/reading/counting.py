"""Multiply-accumulates of operations that no formula is known of, as torch counts them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_map

from supernet.reading.operations import KINDS, packet


def count_macs(node: fx.Node, args: Any, kwargs: Any) -> int | None:
    """Return the multiply-accumulates of one call; None where torch cannot tell them.

    The call is taken apart into the products that torch has formulas for, on tensors without
    values: recurrent layers into those of each step, sums by letters into those of matrices.

    Args:
        node: an operation.
        args, kwargs: of the call, tensors among them.

    Returns:
        0 for operations with a record of their own, which says what they multiply.
    """
    from torch.utils.flop_counter import FlopCounterMode

    if node.op != "call_function" or packet(node) in KINDS:
        return 0

    def without_values(value: Any) -> Any:
        return value.to("meta") if isinstance(value, Tensor) else value

    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            node.target(*tree_map(without_values, args), **tree_map(without_values, kwargs))  # type: ignore[operator]
    except (NotImplementedError, RuntimeError, TypeError):
        return None
    # Torch counts a multiplication and an addition apart.
    return int(counter.get_total_flops()) // 2
