"""Captured operations as layers: convolutions, linear layers, batch and layer norms.

What is identity in evaluation mode vanishes, what depends on weights alone becomes a constant
(standardised weights, position biases looked up in a table), convolutions of signals become
convolutions of images one pixel high, and a batch norm that follows no layer becomes a depthwise
convolution of one pixel, or a factor and a term where its channels are no axis of images. Where
norms are not folded, that convolution changes nothing, and the norm follows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from supernet.reading.capture import arguments, attribute, module_path, put
from supernet.reading.operations import alike, kind_of, packet, same_size
from supernet.reading.writes import spell_out_writes

aten = torch.ops.aten

STATISTICS = "_statistics"
"""Behind the path of a batch norm that a convolution has taken: what the norm itself is called."""


@torch.no_grad()
def normalise(module: fx.GraphModule, *, fold: bool) -> None:
    """Bring a captured graph into normal form, in place.

    Args:
        module: of :func:`supernet.reading.capture.capture`.
        fold: fold batch norms into the layers before them, rather than leave those that follow
            a convolution of images.
    """
    spell_out_writes(module.graph)
    _erase_identities(module.graph)
    for node in module.graph.nodes:
        # Without the copies before it, a view may find its values elsewhere in memory.
        if node.target in (aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default
        _spell_out_sizes(node)
        _with_input(node)
    _fold_constants(module)
    names = _Names(module)
    for node in list(module.graph.nodes):
        make = _LAYERS.get(packet(node))
        if make is not None and isinstance(node.target, torch._ops.OpOverload):
            make(module, node, names)
    module.graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
    _signals_to_images(module)
    for node in list(module.graph.nodes):
        if isinstance(layer_of(module, node), nn.BatchNorm2d):
            _place_norm(module, node, fold=fold)
    module.delete_all_unused_submodules()
    module.graph.lint()
    module.recompile()


def layer_of(module: fx.GraphModule, node: Any) -> nn.Module | None:
    """Return the layer that a node calls, None for other nodes."""
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return None
    return module.get_submodule(str(node.target))


class _Names:
    """Gives every layer the path of the module it was, numbered if it was called before."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self.used: set[str] = set()

    def take(self, node: fx.Node, weight: Any, kind: str) -> str:
        """Return a free name for the layer that a node calls with ``weight``, and take it."""
        path = module_path(node)
        if isinstance(weight, fx.Node) and weight.op == "get_attr" and not _is_folded(weight):
            owner, _, last = str(weight.target).rpartition(".")
            stem = last.removesuffix("weight").rstrip("_")
            path = f"{owner}.{stem}".strip(".") if stem else owner
        path = path or kind
        constant = isinstance(_attribute_or_none(self.module, path), Tensor)
        if constant or self._holds_others(path, node, weight):
            path = f"{path}_{kind}"  # The name of a constant, or of what holds others.
        name, count = path, 1
        while name in self.used:
            count += 1
            name = f"{path}_call{count}"
        self.used.add(name)
        return name

    def _holds_others(self, path: str, node: fx.Node, weight: Any) -> bool:
        """Whether what is called ``path`` holds layers or tensors of others than ``node``."""
        own = [f"{path}.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
        # A layer that is called twice finds its weights in the first.
        kept = not (isinstance(weight, fx.Node) and _is_folded(weight))
        return any(
            other.op in ("get_attr", "call_module")
            and str(other.target).startswith(f"{path}.")
            and set(other.users) != {node}
            and not (kept and str(other.target) in own)
            for other in self.module.graph.nodes
        )


def _is_folded(node: fx.Node) -> bool:
    return str(node.target).startswith("folded_")


def _erase_identities(graph: fx.Graph) -> None:
    for node in list(graph.nodes):
        kind = kind_of(node)
        if not kind.identity and not kind.neutral:
            continue
        source = node.args[0]
        same = isinstance(source, fx.Node) and alike(source, node)
        if isinstance(source, fx.Node) and (kind.identity or same):
            node.replace_all_uses_with(source)
            graph.erase_node(node)


def _fold_constants(module: fx.GraphModule) -> None:
    """Compute what depends on no input."""
    values: dict[fx.Node, Any] = {}
    graph = module.graph
    for node in graph.nodes:
        if node.op == "get_attr":
            values[node] = attribute(module, str(node.target))
        elif (made := _made_of_sizes(node)) is not None:
            values[node] = made
        elif node.op == "call_function" and all(n in values for n in node.all_input_nodes):
            if "rand" in packet(node) or packet(node) in ("bernoulli", "multinomial"):
                continue
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
            values[node] = node.target(*args, **kwargs)
    for node in list(graph.nodes):
        if node.op != "call_function" or node not in values:
            continue
        if not any(user not in values for user in node.users):
            continue
        value = values[node]
        if not isinstance(value, Tensor):
            if isinstance(value, (int, float, bool)):
                for user in list(node.users):
                    if user not in values:
                        _replace_by_number(user, node, value)
            continue
        name = f"folded_{node.name}"
        put(module, name, value.detach().clone())
        with graph.inserting_before(node):
            constant = graph.get_attr(name)
        constant.meta = dict(node.meta)
        for user in list(node.users):
            if user not in values:
                user.replace_input_with(node, constant)
    graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))


def _spell_out_sizes(node: fx.Node) -> None:
    """Turn ``reshape_as`` and the like into calls that name the sizes, one of which may vary."""
    name, value = packet(node), node.meta.get("val")
    if name not in ("reshape_as", "view_as", "expand_as") or not isinstance(value, Tensor):
        return
    sizes = [size if isinstance(size, int) else -1 for size in value.shape]
    source = node.args[0]
    if name == "expand_as":
        own = source.meta.get("val") if isinstance(source, fx.Node) else None
        if not isinstance(own, Tensor) or own.dim() != len(sizes):
            return
        kept = [same_size(a, b) for a, b in zip(own.shape, value.shape, strict=True)]
        if any(size == -1 and not same for size, same in zip(sizes, kept, strict=True)):
            return
        node.target = aten.expand.default
        node.args = (source, [-1 if k else s for s, k in zip(sizes, kept, strict=True)])
    elif sizes.count(-1) <= 1:
        node.target, node.args = aten.reshape.default, (source, sizes)


def _with_input(node: fx.Node) -> None:
    """Turn ``zeros`` and the like of a size that may vary into calls on the network's input.

    A call on no tensor is nothing that the batch, or a quantiser, could be followed through.
    """
    name = packet(node)
    overload = {"zeros": aten.new_zeros, "ones": aten.new_ones, "full": aten.new_full}.get(name)
    sizes: Any = node.args[0] if node.args else None
    if overload is None or not isinstance(sizes, (list, tuple)):
        return
    if all(isinstance(size, int) for size in sizes):
        return
    source = next(other for other in node.graph.nodes if other.op == "placeholder")
    kept = {key: value for key, value in node.kwargs.items() if key == "dtype"}
    node.target = overload.default
    node.args, node.kwargs = (source, *node.args), kept


def _made_of_sizes(node: fx.Node) -> Tensor | None:
    """Return what a node makes of the sizes and the type of its input, where they never vary."""
    name, value = packet(node), node.meta.get("val")
    if not kind_of(node).created or not isinstance(value, Tensor):
        return None
    if not all(isinstance(size, int) for size in value.shape):
        return None
    filler = 1 if "ones" in name else 0
    if "full" in name:
        filler = arguments(node)["fill_value"]
        if isinstance(filler, fx.Node):
            return None
    return torch.full(tuple(value.shape), filler, dtype=value.dtype)


def _replace_by_number(user: fx.Node, node: fx.Node, value: float) -> None:
    user.args = fx.node.map_arg(user.args, lambda n: value if n is node else n)
    user.kwargs = fx.node.map_arg(user.kwargs, lambda n: value if n is node else n)


def _attribute_or_none(module: nn.Module, path: str) -> Any:
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part, None)
    return found


def _tensor(module: fx.GraphModule, node: Any) -> Tensor | None:
    """Return the constant that a node is; None for other nodes and None."""
    if isinstance(node, fx.Node) and node.op == "get_attr":
        found = attribute(module, str(node.target))
        return found if isinstance(found, Tensor) else None
    return None


def _constant_or_absent(module: fx.GraphModule, *nodes: Any) -> bool:
    return all(node is None or _tensor(module, node) is not None for node in nodes)


def _swap(module: fx.GraphModule, node: fx.Node, path: str, layer: nn.Module, source: Any) -> None:
    put(module, path, layer.eval())
    with module.graph.inserting_before(node):
        call = module.graph.call_module(path, (source,))
    call.meta = dict(node.meta)
    node.replace_all_uses_with(call)
    module.graph.erase_node(node)


def _load(layer: nn.Module, weight: Tensor | None, bias: Tensor | None) -> None:
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            setattr(layer, name, nn.Parameter(value.detach().clone().float()))


def _convolution(module: fx.GraphModule, node: fx.Node, names: _Names) -> None:
    given = arguments(node)
    weight, bias = _tensor(module, given["weight"]), given["bias"]
    if weight is None or not _constant_or_absent(module, bias):
        return  # Of tensors that depend on the input: an operation like any other.
    rank = weight.dim() - 2
    kind: Any = nn.Conv1d if rank == 1 else nn.Conv2d
    source = given["input"]
    if _dimensions(source) != rank + 2:
        return
    dilation = _spread(given["dilation"], rank)
    padding = given["padding"]
    if isinstance(padding, str):
        total = [
            d * (k - 1) if padding == "same" else 0
            for d, k in zip(dilation, weight.shape[2:], strict=True)
        ]
        if any(t % 2 for t in total):
            pads = [side for t in reversed(total) for side in (t // 2, t - t // 2)]
            with module.graph.inserting_before(node):
                source = module.graph.call_function(
                    aten.constant_pad_nd.default, (source, pads, 0.0)
                )
            source.meta = {"nn_module_stack": node.meta.get("nn_module_stack")}
            total = [0] * rank
        padding = [t // 2 for t in total]
    layer = kind(
        weight.shape[1] * given["groups"],
        weight.shape[0],
        tuple(weight.shape[2:]),
        tuple(_spread(given["stride"], rank)),
        tuple(_spread(padding, rank)),
        tuple(dilation),
        given["groups"],
        bias=bias is not None,
    )
    _load(layer, weight, _tensor(module, bias))
    _swap(module, node, names.take(node, given["weight"], "conv"), layer, source)


def _dimensions(node: Any) -> int:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value.dim() if isinstance(value, Tensor) else -1


def _spread(value: Any, rank: int) -> list[int]:
    values = list(value) if isinstance(value, Sequence) else [value]
    return [int(v) for v in (values * rank if len(values) == 1 else values)]


def _linear(module: fx.GraphModule, node: fx.Node, names: _Names) -> None:
    given = arguments(node)
    weight = _tensor(module, given["weight"])
    if weight is None or weight.dim() != 2 or not _constant_or_absent(module, given["bias"]):
        return
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=given["bias"] is not None)
    _load(layer, weight, _tensor(module, given["bias"]))
    _swap(module, node, names.take(node, given["weight"], "linear"), layer, given["input"])


def _product(module: fx.GraphModule, node: fx.Node, names: _Names) -> None:
    """Turn a product with a constant matrix into a linear layer; other files write them so."""
    given = arguments(node)
    added = "mat1" in given  # addmm: the bias is the first argument
    source = given["mat1"] if added else given["self"]
    matrix = given["mat2"] if "mat2" in given else given["other"]
    weight = _tensor(module, matrix)
    if weight is None or weight.dim() != 2 or _tensor(module, source) is not None:
        return
    if _dimensions(source) < 2 or (added and (given["beta"], given["alpha"]) != (1, 1)):
        return
    outputs = weight.shape[1]
    bias = _tensor(module, given["self"]) if added else None
    if added and (bias is None or tuple(bias.shape) != (outputs,)):
        return
    after = next(iter(node.users)) if len(node.users) == 1 and not added else None
    term = _term(module, after, node, outputs)
    layer = nn.Linear(weight.shape[0], outputs, bias=bias is not None or term is not None)
    _load(layer, weight.t(), bias if term is None else term)
    path = names.take(node, matrix, "linear")
    if after is not None and term is not None:
        after.replace_all_uses_with(node)
        module.graph.erase_node(after)
    _swap(module, node, path, layer, source)


def _term(module: fx.GraphModule, node: Any, product: fx.Node, outputs: int) -> Tensor | None:
    """Return the bias that a node adds to ``product``; None where it does something else."""
    if not isinstance(node, fx.Node) or packet(node) != "add" or node.kwargs.get("alpha", 1) != 1:
        return None
    others = [n for n in node.args if n is not product]
    found = _tensor(module, others[0]) if len(others) == 1 else None
    return found if found is not None and tuple(found.shape) == (outputs,) else None


def _batch_norm(module: fx.GraphModule, node: fx.Node, names: _Names) -> None:
    given = arguments(node)
    keys = ("weight", "bias", "running_mean", "running_var")
    training = bool(given.get("training"))
    values = [_tensor(module, given[key]) for key in keys]
    if training or values[2] is None or values[3] is None:
        return  # Normalises by the batch: an operation like any other.
    if not _constant_or_absent(module, *(given[key] for key in keys)):
        return
    norm = nn.BatchNorm2d(len(values[2]), eps=given["eps"])
    _load(norm, values[0], values[1])
    norm.running_mean, norm.running_var = values[2].clone().float(), values[3].clone().float()
    path = names.take(node, given["weight"], "norm")
    result = node
    if packet(node) == "_native_batch_norm_legit_no_training":
        items = [user for user in node.users if user.args[1] == 0]
        if len(items) != len(node.users):
            return
        for item in items:
            item.replace_all_uses_with(node)
            module.graph.erase_node(item)
        value = node.meta.get("val")
        node.meta["val"] = value[0] if isinstance(value, (tuple, list)) else value
    _swap(module, result, path, norm, given["input"])


def _layer_norm(module: fx.GraphModule, node: fx.Node, names: _Names) -> None:
    given = arguments(node)
    weight, bias = _tensor(module, given["weight"]), _tensor(module, given["bias"])
    if len(given["normalized_shape"]) != 1 or not _constant_or_absent(
        module, given["weight"], given["bias"]
    ):
        return
    size = int(given["normalized_shape"][0])
    layer = nn.LayerNorm(size, eps=given["eps"])
    _load(layer, weight, bias)
    _swap(module, node, names.take(node, given["weight"], "norm"), layer, given["input"])


_LAYERS = {
    "conv1d": _convolution,
    "conv2d": _convolution,
    "linear": _linear,
    "matmul": _product,
    "mm": _product,
    "addmm": _product,
    "batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "layer_norm": _layer_norm,
}


def _signals_to_images(module: fx.GraphModule) -> None:
    """Turn convolutions of signals (batch, channels, samples) into ones of images."""
    graph = module.graph
    for node in list(graph.nodes):
        conv = layer_of(module, node)
        if not isinstance(conv, nn.Conv1d):
            continue
        image = nn.Conv2d(
            conv.in_channels, conv.out_channels, (1, conv.kernel_size[0]), (1, conv.stride[0]),
            (0, int(conv.padding[0])), (1, conv.dilation[0]), conv.groups,
            bias=conv.bias is not None,
        )  # fmt: skip
        _load(image, conv.weight.unsqueeze(2), conv.bias)
        put(module, str(node.target), image.eval())
        follower = next(iter(node.users)) if len(node.users) == 1 else None
        last = follower if isinstance(layer_of(module, follower), nn.BatchNorm2d) else node
        assert last is not None
        with graph.inserting_before(node):
            high = graph.call_function(aten.unsqueeze.default, (node.args[0], 2))
        node.args = (high,)
        with graph.inserting_after(last):
            flat = graph.call_function(aten.squeeze.dim, (last, 2))
        last.replace_all_uses_with(flat, lambda user, flat=flat: user is not flat)
        for added in (high, flat):
            added.meta = {"nn_module_stack": node.meta.get("nn_module_stack")}
        flat.meta["val"] = last.meta.get("val")
        for inner in {node, last}:
            inner.meta.pop("val", None)
            inner.meta["is_image"] = True


def affine_of(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return the gain and shift of each channel, both (channels,)."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None and variance is not None
    gain = norm.weight.detach() * torch.rsqrt(variance + norm.eps)
    return gain, norm.bias.detach() - mean * gain


def _place_norm(module: fx.GraphModule, node: fx.Node, *, fold: bool) -> None:
    norm = layer_of(module, node)
    assert isinstance(norm, nn.BatchNorm2d)
    before = node.args[0]
    layer = layer_of(module, before)
    alone = isinstance(before, fx.Node) and len(before.users) == 1
    rank = 4 if node.meta.get("is_image") else _dimensions(node)
    behind_conv = isinstance(layer, nn.Conv2d) and alone and rank == 4
    behind_linear = isinstance(layer, nn.Linear) and alone and rank == 2
    if behind_conv and not fold:
        return
    gain, shift = affine_of(norm)
    if behind_conv or behind_linear:
        assert isinstance(layer, (nn.Conv2d, nn.Linear))
        old = torch.zeros_like(shift) if layer.bias is None else layer.bias.detach()
        column = gain.view(-1, *[1] * (layer.weight.dim() - 1))
        layer.weight = nn.Parameter(layer.weight.detach() * column)
        layer.bias = nn.Parameter(shift + old * gain)
        assert isinstance(before, fx.Node)
        node.replace_all_uses_with(before)
        module.graph.erase_node(node)
        return
    if rank == 4:
        pixel = nn.Conv2d(len(gain), len(gain), 1, groups=len(gain), bias=fold)
        path = str(node.target)
        if fold:
            _load(pixel, gain.view(-1, 1, 1, 1), shift)
        else:
            _load(pixel, torch.ones(len(gain), 1, 1, 1), None)
            put(module, f"{path}{STATISTICS}", norm)
            with module.graph.inserting_after(node):
                after = module.graph.call_module(f"{path}{STATISTICS}", (node,))
            after.meta = dict(node.meta)
            node.replace_all_uses_with(after, lambda user: user is not after)
        put(module, path, pixel.eval())
        return
    shape = [-1, *[1] * (rank - 2)]
    path = str(node.target)
    put(module, f"{path}.gain", gain.view(shape))
    put(module, f"{path}.shift", shift.view(shape))
    graph = module.graph
    with graph.inserting_before(node):
        factor, term = graph.get_attr(f"{path}.gain"), graph.get_attr(f"{path}.shift")
        scaled = graph.call_function(aten.mul.Tensor, (before, factor))
        moved = graph.call_function(aten.add.Tensor, (scaled, term))
    for added in (factor, term, scaled, moved):
        added.meta = dict(node.meta)
    node.replace_all_uses_with(moved)
    graph.erase_node(node)
