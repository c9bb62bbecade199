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
    if node.op != "call_function" or packet(node) in KINDS:
        return 0
    return _counted(node, args, kwargs)


class Products(fx.Interpreter):
    """Runs a network and counts the multiply-accumulates of what is no layer.

    Attributes:
        macs: of each operation that has some, by node; those that torch cannot tell count none.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.macs: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run a node, and count it where it is an operation."""
        if n.op == "call_function":
            self.macs[n] = _counted(n, *self.fetch_args_kwargs_from_env(n)) or 0
        return super().run_node(n)


def _counted(node: fx.Node, args: Any, kwargs: Any) -> int | None:
    from torch.utils.flop_counter import FlopCounterMode

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
