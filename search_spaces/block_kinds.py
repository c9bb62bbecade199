"""One record for a kind of block: how tensors run through it, and what memory that takes.

A supernet runs the dataflow, a microcontroller's peak of memory follows from the memory flow.
Both belong to one registration, so that neither is forgotten.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

from search_spaces.registry import Registry

if TYPE_CHECKING:
    from search_spaces.memory import Roles, Tape, Tensor

MemoryFlow = Callable[["Tape", "Roles", "Tensor"], "Tensor"]
"""(tape, the block's layers by role, its input) -> its output; see :mod:`search_spaces.memory`."""


@dataclass(frozen=True)
class BlockKind:
    """What is known of a kind of block beyond its layers.

    Attributes:
        dataflow: of :mod:`supernet.dataflow`: the function, or ``module:function`` where its module
            imports torch, which nobody needs who only counts costs.
        memory: the same on a tape of allocations; None where no peak of memory can be told, which
            is then NaN.
        kept: whether it takes all tensors that are alive as a tuple ``(current, *kept)``, and says
            what is alive after it; other kinds run on the current one, and what is kept passes by
            them.
    """

    dataflow: Union[str, Callable[..., Any]]
    memory: MemoryFlow | None
    kept: bool = False

    def load_dataflow(self) -> Callable[..., Any]:
        """Return the dataflow's function, importing its module."""
        if not isinstance(self.dataflow, str):
            return self.dataflow
        module, _, name = self.dataflow.partition(":")
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return function


BLOCK_KINDS: Registry[BlockKind] = Registry(
    "kind of block",
    group="nas.block_kinds",
    modules=("search_spaces.memory_flows", "search_spaces.dense_flows"),
)


def on_alive(run: Callable[..., Any], place: int) -> Callable[..., Any]:
    """Return ``run`` of ``(current, *kept)`` for a lone tensor too, beside which nothing is kept.

    Args:
        run: a dataflow or a memory flow of a kind that keeps tensors.
        place: which of its arguments they are.
    """

    def alone(*arguments: Any) -> Any:
        x = arguments[place]
        alive = x if isinstance(x, tuple) else (x,)
        return run(*arguments[:place], alive, *arguments[place + 1 :])

    return alone


def on_current(run: Callable[..., Any], place: int) -> Callable[..., Any]:
    """Return ``run`` for ``(current, *kept)`` too: it runs on the first, the others pass by.

    Args:
        run: a dataflow or a memory flow of one tensor.
        place: which of its arguments the tensor is.
    """

    def passing(*arguments: Any) -> Any:
        x = arguments[place]
        if not isinstance(x, tuple):
            return run(*arguments)
        current = run(*arguments[:place], x[0], *arguments[place + 1 :])
        return (current, *x[1:])

    return passing
