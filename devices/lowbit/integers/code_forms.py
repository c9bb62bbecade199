"""Forms of what ends in codes: what stands between floats and the quantiser that follows them."""

from __future__ import annotations

import numpy as np

from devices.lowbit.fusions import Node, function_table
from devices.lowbit.integers.gates import CODES
from devices.lowbit.integers.moved_forms import moved_function, moved_slopes, same_codes
from devices.lowbit.integers.plan import MEANS, Form, Plan, flattened
from devices.lowbit.integers.resampling import matrix_taps
from devices.lowbit.integers.steps import function_steps


def _mean(plan: Plan, node: Node) -> list[Node] | None:
    found = plan.over_pixels(node["inputs"][0], MEANS)
    if found is None:
        return None
    (codes, flat), out = found, node["output"]
    made = f"{out}.map" if flat else out
    plan.grids[made] = plan.grids[out]
    mean = {"op": "global_average_pool", "inputs": [codes], "output": made}
    return [mean, *([flattened(made, out)] if flat else [])]


def _pool(plan: Plan, node: Node) -> list[Node] | None:
    pool, shares = plan.makers.get(node["inputs"][0]), None
    if pool is not None and pool["op"] == "Mul" and len(given := plan.given(pool)) == 1:
        (shares,) = plan.constants(pool).values()
        if shares.ndim not in (2, 4) or shares.size != np.prod(shares.shape[-2:]):
            return None
        pool = plan.makers.get(given[0])
    if pool is None or pool["op"] != "AveragePool" or (form := plan.pool_form(pool)) is None:
        return None
    if (codes := plan.codes(pool["inputs"][0])) is None:
        return None
    if shares is not None:
        shares = shares.astype(np.float32).reshape(shares.shape[-2:])
    entry = {"op": "average_pool", "inputs": [codes], "output": node["output"]}
    return [{**entry, **form, "shares": shares}]


def _slopes(plan: Plan, node: Node) -> list[Node] | None:
    maker = plan.makers.get(node["inputs"][0])
    if maker is None or maker["op"] != "PRelu" or plan.given(maker) != maker["inputs"][:1]:
        return None
    (slopes,) = plan.constants(maker).values()
    layer = plan.makers.get(maker["inputs"][0])
    if layer is not None and layer["op"] == "linear" and plan.gives_floats(layer):
        fits, source = slopes.shape[-1:] == (layer["weights"]["shape"][0],), layer["output"]
    else:
        found = plan.floats_of(maker["inputs"][0])
        norm = layer is not None and layer["op"] == "norm"
        fits, source = slopes.shape[-2:] == (1, 1), found[0] if found else ""
        source = maker["inputs"][0] if norm else source
    if not source or not fits or slopes.size == 1 or slopes.size != max(slopes.shape):
        return None
    entry = {"op": "slopes", "inputs": [source], "output": node["output"]}
    return [{**entry, "slopes": slopes.astype(np.float32).ravel()}]


def _function(plan: Plan, node: Node) -> list[Node] | None:
    source, out = node["inputs"][0], node["output"]
    base = plan.base.get(source)
    if base is None or base in plan.moved or plan.grids[out]["bits"] > 8:
        return None
    function = plan.composed(source, base)
    if (codes := plan.codes(base)) is not None:
        if plan.grids[codes]["bits"] > 8:
            return None
        table = function_table(plan.grids[codes], plan.grids[out], function)
        return [{"op": "table", "inputs": [codes], "output": out, "table": table}]
    steps = function_steps(function, plan.grids[out])
    if steps is None:
        return None
    return [{"op": "steps", "inputs": [base], "output": out, "steps": steps}]


def _gate(plan: Plan, node: Node) -> list[Node] | None:
    """A product, of which one side at least is a function, or a layer's floats."""
    maker, out = plan.makers.get(node["inputs"][0]), node["output"]
    if maker is None or maker["op"] != "Mul" or len(plan.given(maker)) != 2:
        return None
    read = [plan.operand(name) for name in maker["inputs"]]
    if read[0] is None or read[1] is None:
        return None
    sources, operands = zip(*read, strict=True)
    if all(operand.kind == CODES for operand in operands):
        return None  # Kernels of their own have these.
    entry = {"op": "gate", "inputs": list(sources), "output": out}
    return [{**entry, "operands": operands}]


def _resample(plan: Plan, node: Node) -> list[Node] | None:
    """Products with matrices of neighbours' weights: enlarged images."""
    name, out = node["inputs"][0], node["output"]
    maker, matrices = plan.makers.get(name), dict[int, np.ndarray]()
    positive = maker is not None and maker["op"] == "Relu"
    if maker is not None and positive:
        name = maker["inputs"][0]
    while (found := _matrix(plan, plan.makers.get(name), matrices)) is not None:
        name = found
    read = plan.operand(name) if matrices else None
    if read is None or not plan.is_image(read[0]):
        return None
    axes = [matrix_taps(matrices[axis]) if axis in matrices else None for axis in (2, 3)]
    if sum(taps is not None for taps in axes) < len(matrices):
        return None
    entry = {"op": "resample", "inputs": [read[0]], "output": out, "operand": read[1]}
    return [{**entry, "axes": axes, "positive": positive}]


def _matrix(plan: Plan, node: Node | None, matrices: dict[int, np.ndarray]) -> str | None:
    """Put the matrix of a product along an axis of images into ``matrices``; None of others."""
    if node is None or node["op"] not in ("MatMul", "linear"):
        return None
    if node["op"] == "linear":
        weights, stored = node["weights"], plan.model.tensors
        if "weight" not in weights or np.any(stored[weights["bias"]]) or 3 in matrices:
            return None
        matrices[3] = stored[weights["weight"]]
        return str(node["inputs"][0])
    given, known = plan.given(node), plan.constants(node)
    axis = 2 if given == node["inputs"][1:] else 3
    if len(given) != 1 or axis in matrices:
        return None
    (matrix,) = known.values()
    if matrix.ndim != 2:
        return None
    matrices[axis] = matrix if axis == 2 else matrix.T
    return given[0]


CODE_FORMS: tuple[Form, ...] = (
    same_codes, _mean, _pool, _slopes, _function, moved_slopes, moved_function, _gate, _resample,
)  # fmt: skip
"""Of a quantiser, in the order in which they are tried."""
