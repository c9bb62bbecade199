"""Forms of what stays floats: means at the end, norms, and layers whose floats are cut apart."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from devices.lowbit.fusions import Node
from devices.lowbit.integers.moved_forms import largest
from devices.lowbit.integers.plan import (
    MAXIMA,
    MEANS,
    VIEWS,
    Form,
    Plan,
    flattened,
    flattens,
    is_layer,
)
from search_spaces.model_files.packed_model import Encoding, pack_codes


def _mean(plan: Plan, node: Node) -> list[Node] | None:
    plan.makers[node["output"]] = node
    found = plan.over_pixels(node["output"], MEANS)
    if found is None:
        return None
    (codes, flat), out = found, node["output"]
    made = f"{out}.map" if flat else out
    mean = {**node, "op": "global_average_pool", "inputs": [codes], "output": made}
    return [mean, *([flattened(made, out)] if flat else [])]


def _view(plan: Plan, node: Node) -> list[Node] | None:
    source = plan.makers.get(node["inputs"][0])
    known = plan.constants(node)
    if source is None or not flattens(node, known):
        return None
    if not plan.gives_floats(source) and source["op"] != "global_average_pool":
        return None
    return [flattened(node["inputs"][0], node["output"])]


def _norm(plan: Plan, node: Node) -> list[Node] | None:
    """A norm of images: of each channel, or of groups of them."""
    a, known = node.get("attributes", {}), plan.constants(node)
    given = node["inputs"]
    if len(known) != 2 or given[1] not in known or given[2] not in known:
        return None
    gain, bias = known[given[1]].ravel(), known[given[2]].ravel()
    groups = int(a.get("num_groups", gain.size))
    if "num_groups" in a and gain.size == groups:
        # Numbers of groups, or of as many channels: a layer tells.
        layer = plan.makers.get(given[0])
        if layer is None or not is_layer(layer):
            return None
        each = layer["weights"]["shape"][0] // groups
        gain, bias = np.repeat(gain, each), np.repeat(bias, each)
    if (found := _image_floats(plan, given[0])) is None:
        return None
    return [_of_channels(found, node, groups, gain, bias)]


def _image_floats(plan: Plan, name: str) -> tuple[str, float, bool] | None:
    """Return floats of images, their bound, and whether negative ones count as 0."""
    maker, positive = plan.makers.get(name), False
    if maker is not None and maker["op"] == "Relu":
        name, positive = maker["inputs"][0], True
        maker = plan.makers.get(name)
    if maker is None or len(maker.get("kernel", (0, 0))) != 2 or maker["op"] == "linear":
        return None
    found = plan.floats_of(name)
    return None if found is None else (*found, positive)


def _of_channels(
    found: tuple[str, float, bool], node: Node, groups: int, gain: np.ndarray, bias: np.ndarray
) -> Node:
    epsilon = float(node.get("attributes", {}).get("epsilon", 1e-5))
    entry = {"op": "norm", "inputs": [found[0]], "output": node["output"], "bound": found[1]}
    entry["positive"] = found[2]
    return {**entry, "groups": int(groups), "gain": gain, "bias": bias, "epsilon": epsilon}


def _group_norm(plan: Plan, node: Node) -> list[Node] | None:
    """A group norm as exporters write it: groups as channels of a signal, and back."""
    norm = plan.makers.get(node["inputs"][0])
    if norm is None or norm["op"] != "InstanceNormalization" or node["op"] != "Reshape":
        return None
    view, known = plan.makers.get(norm["inputs"][0]), plan.constants(norm)
    if view is None or view["op"] != "Reshape" or len(known) != 2:
        return None
    apart, back = (
        [int(n) for n in np.ravel(plan.constants(one).get(one["inputs"][1], ()))]
        for one in (view, node)
    )
    if len(apart) != 3 or apart[0] or apart[2] != -1 or len(back) != 4 or back[0]:
        return None
    groups, channels = apart[1], back[1]
    if groups < 1 or channels < 1 or channels % groups:
        return None
    numbers = [np.repeat(known[name].ravel(), channels // groups) for name in norm["inputs"][1:]]
    if (found := _image_floats(plan, view["inputs"][0])) is None or numbers[0].size != channels:
        return None
    return [{**_of_channels(found, norm, groups, *numbers), "output": node["output"]}]


def _affine(plan: Plan, node: Node) -> list[Node] | None:
    """A factor or a number added to each channel behind a norm: part of it."""
    given = plan.given(node)
    norm = plan.makers.get(given[0]) if len(given) == 1 else None
    if norm is None or norm["op"] != "norm":
        return None
    (number,) = plan.constants(node).values()
    gain, bias = norm["gain"], norm["bias"]
    if number.size not in (1, gain.size) or number.shape[-2:] not in ((1, 1), ()):
        return None
    number = number.ravel()
    if node["op"] == "Mul":
        gain, bias = gain * number, bias * number
    else:
        bias = bias + number
    return [{**norm, "output": node["output"], "gain": gain, "bias": bias}]


def _part(plan: Plan, node: Node) -> list[Node] | None:
    """Of a layer whose floats are only cut apart by channels, a layer for each part."""
    layer = plan.makers.get(node["inputs"][0])
    if layer is None or not plan.gives_floats(layer) or layer.get("groups") != 1:
        return None  # Of a linear layer, another axis may be cut.
    if layer["output"] == plan.model.graph["output"]:
        return None
    weights, count = layer["weights"], layer["weights"]["shape"][0]
    parts = [_channels(plan, user, count) for user in plan.readers[layer["output"]]]
    if None in parts or (places := _channels(plan, node, count)) is None:
        return None
    name, tensors = node["output"], plan.model.tensors
    encoding = Encoding(weights["bits"], weights["low"], weights["stride"])
    codes = plan.model.codes(weights)[places]
    plan.tensors[f"{name}.codes"] = pack_codes(codes, encoding)
    for key in ("scale", "bias"):
        plan.tensors[f"{name}.{key}"] = tensors[weights[key]][places]
    keys = {key: f"{name}.{key}" for key in ("codes", "scale", "bias")}
    cut = {**weights, **keys, "shape": list(codes.shape)}
    return [{**layer, "layer": name, "output": name, "weights": cut}]


def _channels(plan: Plan, node: Node, count: int) -> slice | None:
    """Return the channels of ``count`` that a Slice takes; None of another node."""
    known = plan.constants(node)
    numbers = [np.ravel(known.get(name, ())).tolist() for name in node["inputs"][1:]]
    if node["op"] != "Slice" or len(numbers) < 3 or [int(i) for i in numbers[2]] != [1]:
        return None
    step = int(numbers[3][0]) if len(numbers) > 3 and numbers[3] else 1
    begin, end, _ = slice(int(numbers[0][0]), int(numbers[1][0])).indices(count)
    return slice(begin, end) if step == 1 and begin < end else None


FLOAT_FORMS: Mapping[str, tuple[Form, ...]] = {
    **dict.fromkeys(MEANS, (_mean,)),
    **dict.fromkeys(VIEWS, (_view, _group_norm)),
    **dict.fromkeys(("MaxPool", *MAXIMA), (largest,)),
    "Slice": (_part,),
    "InstanceNormalization": (_norm,),
    "GroupNormalization": (_norm,),
    "Mul": (_affine,),
    "Add": (_affine,),
}
"""Of an operator, in the order in which they are tried."""
