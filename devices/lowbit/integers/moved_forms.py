"""Forms of what moves floats, or takes the largest of them, before they are quantised.

Rounding does not ask where a number stands, nor does a function of one number; and the code of the
largest number is the largest code. So codes are made first, and moved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from devices.lowbit.fusions import Node, function_table
from devices.lowbit.integers.plan import MAXIMA, PERMUTING, VIEWS, Plan, flattens
from devices.lowbit.integers.steps import function_steps
from search_spaces.model_files import graph
from search_spaces.model_files.moves import move_entry


@dataclass(frozen=True)
class _Moved:
    """What a tensor is a function of, behind operations that move.

    Attributes:
        root: a layer's floats, or dequantised codes.
        function: of its numbers; None where they are only moved.
        entries: operations of a packed model, from first to last.
    """

    root: str
    function: Callable[[np.ndarray], np.ndarray] | None
    entries: list[dict[str, Any]]


def largest(plan: Plan, node: Node) -> list[Node] | None:
    """The largest of codes is a code; what reads it reads it dequantised."""
    codes, entries = plan.codes(node["inputs"][0]), _entries(plan, node)
    if codes is None or entries is None:
        return None
    if node["op"] == MAXIMA[0] and not plan.is_image(codes):
        return None  # A signal's are not stored as an image's.
    made = f"{node['output']}.codes"
    names = [f"{made}.{i}" for i in range(len(entries) - 1)] + [made]
    plan.grids |= dict.fromkeys(names, plan.grids[codes])
    nodes = [
        {**entry, "inputs": [source], "output": out}
        for entry, source, out in zip(entries, [codes, *names], names, strict=False)
    ]
    return [*nodes, {"op": "dequantize", "inputs": [made], "output": node["output"]}]


def same_codes(plan: Plan, node: Node) -> list[Node] | None:
    """Codes that were dequantised for nothing, on their own grid or another."""
    codes, out = plan.codes(node["inputs"][0]), node["output"]
    if codes is None:
        return None
    maker = plan.makers.get(codes, {"op": ""})
    if plan.grids[codes] == plan.grids[out] and maker["op"] in (
        "max_pool", "global_max_pool", "flatten",
    ):  # fmt: skip
        return [{**maker, "output": out}]
    return [{"op": "requantize", "inputs": [codes], "output": out}]


def moved_function(plan: Plan, node: Node) -> list[Node] | None:
    """A function of what was moved: its codes are moved."""
    out, found = node["output"], _walk(plan, node["inputs"][0])
    if found is None or plan.grids[out]["bits"] > 8:
        return None
    first, grid = f"{out}.first", plan.grids[out]
    function = found.function or (lambda x: x)
    if (codes := plan.codes(found.root)) is not None:
        table = function_table(plan.grids[codes], grid, function)
        made: Node = {"op": "table", "inputs": [codes], "output": first, "table": table}
    elif (steps := function_steps(function, grid)) is not None:
        made = {"op": "steps", "inputs": [found.root], "output": first, "steps": steps}
    else:
        return None
    return [made, *_moves(plan, first, found.entries, out)]


def moved_slopes(plan: Plan, node: Node) -> list[Node] | None:
    """A PReLU behind a pixel shuffle: each channel's slope is that of the ones it was made of."""
    maker, out = plan.makers.get(node["inputs"][0]), node["output"]
    if maker is None or maker["op"] != "PRelu" or plan.given(maker) != maker["inputs"][:1]:
        return None
    found = _walk(plan, maker["inputs"][0])
    (slopes,) = plan.constants(maker).values()
    if found is None or found.function is not None or slopes.shape[-2:] != (1, 1):
        return None
    slopes = slopes.astype(np.float32).ravel()
    for entry in found.entries[::-1]:
        if entry["op"] == "depth_to_space":
            spread = np.repeat if entry["mode"] == "CRD" else np.tile
            slopes = spread(slopes, entry["size"] ** 2)
        elif entry["op"] != "slice" or min(entry["axes"]) < 2:
            return None
    layer = plan.makers[found.root]
    if not plan.gives_floats(layer) or layer["weights"]["shape"][0] != slopes.size:
        return None
    first = f"{out}.first"
    made = {"op": "slopes", "inputs": [found.root], "output": first, "slopes": slopes}
    return [made, *_moves(plan, first, found.entries, out)]


def _moves(plan: Plan, source: str, entries: list[dict[str, Any]], out: str) -> list[Node]:
    names = [source, *(f"{out}.{i}" for i in range(len(entries) - 1)), out]
    plan.grids |= dict.fromkeys(names, plan.grids[out])
    return [
        {**entry, "inputs": [names[i]], "output": names[i + 1]} for i, entry in enumerate(entries)
    ]


def _walk(plan: Plan, name: str) -> _Moved | None:
    """Follow a tensor back over functions and moves; None where nothing moves."""
    function: Callable[[np.ndarray], np.ndarray] | None = None
    entries: list[dict[str, Any]] = []
    while True:
        maker, base = plan.makers.get(name), plan.base.get(name)
        if base is not None and base != name:
            function = _after(plan.composed(name, base), function)
            name = base
        elif base is not None and name not in plan.moved:
            break
        elif maker is None or (found := _entries(plan, maker)) is None:
            return None
        else:
            # A function may give its largest value for another number than the largest.
            if function is not None and maker["op"] not in PERMUTING:
                return None
            entries = [*found, *entries]
            name = maker["inputs"][0]
    layer = plan.makers[name]
    signal = _is_signal(layer) and any(entry["op"] == "global_max_pool" for entry in entries)
    return None if signal or not entries else _Moved(name, function, entries)


def _is_signal(layer: Node) -> bool:
    return len(layer.get("kernel", ())) == 1


def _after(
    first: Callable[[np.ndarray], np.ndarray], second: Callable[[np.ndarray], np.ndarray] | None
) -> Callable[[np.ndarray], np.ndarray]:
    return first if second is None else lambda x: second(first(x))


def _entries(plan: Plan, node: Node) -> list[dict[str, Any]] | None:
    """Return a move as operations of a packed model; None of another operator."""
    op, a, known = node["op"], node.get("attributes", {}), plan.constants(node)
    if op in PERMUTING:
        given = graph.Node(op, tuple(node["inputs"]), (node["output"],), a)
        entry = move_entry(given, known)
        return None if entry is None else [entry]
    flat: dict[str, Any] = {"op": "flatten", "axis": 1}
    if op == "flatten" or (op in VIEWS and flattens(node, known)):
        return [flat]
    if op == "MaxPool":
        form = plan.pool_form(node)
        return None if form is None else [{"op": "max_pool", **form}]
    if op not in MAXIMA:
        return None
    axes = a.get("axes", np.ravel(known.get("".join(node["inputs"][1:]), [])))
    if op == MAXIMA[1] and [int(i) for i in axes] != [2, 3]:
        return None
    keeps = op == MAXIMA[0] or a.get("keepdims", 1)
    return [{"op": "global_max_pool"}, *([] if keeps else [flat])]
