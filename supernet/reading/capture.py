"""A module captured by ``torch.export``: what it computes in evaluation mode, as ATen calls.

One spelling for every operation: functions, methods, modules, in-place forms and aliases of
arguments (``axis=``) all arrive as the same overload with its arguments in the schema's order.
Subclasses of layers are captured by what their forward does and not by what they are called.
"""

from __future__ import annotations

import copy
import io
import logging
import operator
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import Tensor, fx, nn

from search_spaces.errors import InputError
from supernet.reading.operations import kind_of, packet

_NOTHING = (
    "_assert_async", "_assert_scalar", "_assert_tensor_metadata", "_check",
    "_functional_assert_async", "sym_constrain_range", "sym_constrain_range_for_size",
)  # fmt: skip
"""Operations without a result."""

_INPLACE_VALUES = {operator.iadd: operator.add, operator.imul: operator.mul}


class NotCaptured(InputError):
    """``torch.export`` cannot capture the module; the message says why and what to do."""


def capture(
    module: nn.Module, inputs: Sequence[Tensor], *, dynamic: Sequence[int] = (0,)
) -> fx.GraphModule:
    """Return what ``module`` computes in evaluation mode as a graph of ATen operations.

    Args:
        module: left as it is.
        inputs: example tensors; of at least two images, since a dimension of one is a constant.
        dynamic: dimensions of every input that may have another size later.

    Returns:
        a graph module whose inputs are ``placeholder`` nodes, whose parameters and buffers are
        ``get_attr`` nodes under their names in ``module``, and whose operations are overloads
        of ``torch.ops.aten`` without side effects.

    Raises:
        NotCaptured: the module's control flow depends on values, or it fixes a dynamic size.
    """
    refuse_scripts(module)
    own = copy.deepcopy(module).cpu().eval()
    for parameter in own.parameters():
        parameter.requires_grad_(False)
    shapes = tuple(dict.fromkeys(dynamic, torch.export.Dim.DYNAMIC) for _ in inputs)
    try:
        with torch.no_grad(), _plain_attention(), _quietly():
            program = torch.export.export(
                own, tuple(inputs), dynamic_shapes=_per_argument(own, shapes), strict=False
            )
            first = _first_names(own)
            graph = _plain(program, first)
            if graph is None:
                graph = _plain(program.run_decompositions({}), first)
    except InputError:
        raise
    except Exception as error:  # torch.export raises whatever the module's forward raises
        if "is not a known type" in str(error):
            raise NotCaptured(
                f"{type(module).__name__} returns something else than tensors (torch.export: "
                f"{_first_lines(error).split('. ')[0]}); return a tensor, or tensors in a tuple, "
                "list or dict"
            ) from error
        raise NotCaptured(
            f"{type(module).__name__} cannot be captured by torch.export: {_first_lines(error)}; "
            "its forward must not depend on values of tensors or on a fixed batch size"
            + _of_hooks(own)
        ) from error
    if graph is None:
        raise NotCaptured(f"{type(module).__name__} changes tensors in place through views")
    return graph


def refuse_scripts(module: nn.Module, name: str = "") -> None:
    """Refuse TorchScript, whole or within ``module``.

    Raises:
        NotCaptured: the message names what is TorchScript.
    """
    for path, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise NotCaptured(
                f"{path or name or 'the module'} is TorchScript, which is not read; give the "
                "module that it was made of, or an ONNX file of it"
            )


def arguments(node: fx.Node) -> dict[str, Any]:
    """Return the arguments of an ATen call by name, defaults included."""
    schema = node.target._schema  # type: ignore[union-attr]
    found = {}
    for place, argument in enumerate(schema.arguments):
        if place < len(node.args):
            found[argument.name] = node.args[place]
        else:
            found[argument.name] = node.kwargs.get(argument.name, argument.default_value)
    return found


def module_path(node: fx.Node) -> str:
    """Return the path of the innermost module that a captured node belongs to."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [entry[0] for entry in stack.values()]
    return str(paths[-1]) if paths else ""


def _per_argument(module: nn.Module, shapes: tuple[Any, ...]) -> tuple[Any, ...]:
    import inspect

    names = inspect.signature(module.forward).parameters.values()
    starred = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in names)
    if starred and not any(p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for p in names):
        return (shapes,)
    return shapes


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Keep attention apart: its fused form for inference has no parts to quantise."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep to ourselves what torch tells its own developers: copies of recurrent weights, dumps.

    What goes wrong is an exception, and told.
    """
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.filterwarnings("ignore", message="The tensor attribute")
            yield
    finally:
        logging.disable(before)


def _first_names(module: nn.Module) -> dict[str, str]:
    """Return, for each parameter's name, the first that it has where layers share it."""
    seen: dict[int, str] = {}
    return {
        name: seen.setdefault(id(parameter), name)
        for name, parameter in module.named_parameters(remove_duplicate=False)
    }


def _plain(program: Any, first: Mapping[str, str]) -> fx.GraphModule | None:
    """Return the graph with its state as attributes; None if in-place calls reach views."""
    signature = program.graph_signature
    if signature.buffers_to_mutate:
        name = next(iter(signature.buffers_to_mutate.values()))
        raise NotCaptured(f"the module changes its buffer {name!r} in evaluation mode")
    for output in signature.output_specs:
        number = getattr(output.arg, "value", None)
        if number is not None:
            raise NotCaptured(f"the module returns {number!r} beside tensors; return tensors alone")
    state = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    values = {**program.state_dict, **program.constants}
    root, graph = nn.Module(), fx.Graph()
    nodes: dict[fx.Node, Any] = {}
    wanted = set(signature.user_outputs)
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in state:
            if not node.users:
                continue
            name = first.get(state[node.name], state[node.name])
            put(root, name, values[state[node.name]])
            nodes[node] = graph.get_attr(name)
        elif node.op == "placeholder" and node.name not in signature.user_inputs:
            raise NotCaptured(f"the module uses an object that is no tensor ({node.name})")
        elif node.op == "placeholder":
            nodes[node] = graph.placeholder(node.name)
        elif node.op == "output":
            # None among the results, as of a head that only trains, is no result.
            results = [a for a in node.args[0] if isinstance(a, fx.Node) and a.name in wanted]
            mapped = tuple(nodes[result] for result in results)
            graph.output(mapped[0] if len(mapped) == 1 else mapped)
        else:
            _copy(graph, program.graph_module, node, nodes)
        if isinstance(nodes.get(node), fx.Node) and "val" in node.meta:
            nodes[node].meta["val"] = node.meta["val"]
    if not _without_in_place(graph):
        return None
    graph.lint()
    return fx.GraphModule(root, graph)


_REGIONS = {"wrap_with_autocast": 4, "wrap_with_set_grad_enabled": 1}
"""Parts of a forward under a setting that changes nothing here -> place of their graph."""


def _copy(graph: fx.Graph, owner: nn.Module, node: fx.Node, nodes: dict[fx.Node, Any]) -> None:
    """Add what a node of a captured graph computes; several results are kept as a tuple."""
    name = packet(node)
    if name in _NOTHING:
        return
    if node.op == "get_attr":
        if all(packet(user) in _REGIONS for user in node.users):
            return
        # A submodule of control flow, such as that of torch.cond.
        raise NotCaptured(f"the module's forward has control flow ({node.target})")
    if name in _REGIONS:
        nodes[node] = _region(graph, owner, node, nodes)
        return
    source: Any = node.args[0] if node.args else None
    if name == "getitem" and isinstance(nodes.get(source), tuple):
        index: Any = node.args[1]
        nodes[node] = nodes[source][index]
        return
    nodes[node] = graph.node_copy(node, nodes.__getitem__)
    nodes[node].meta = {
        key: node.meta[key] for key in ("val", "nn_module_stack") if key in node.meta
    }


def _region(
    graph: fx.Graph, owner: nn.Module, node: fx.Node, nodes: dict[fx.Node, Any]
) -> tuple[Any, ...]:
    """Add the nodes of a part of the forward, and return those of its results."""
    place = _REGIONS[packet(node)]
    if packet(node) == "wrap_with_autocast" and node.args[2]:
        raise NotCaptured(
            "the module computes in another precision by torch.autocast in its forward; turn it "
            "off there"
        )
    part = getattr(owner, str(getattr(node.args[place], "target", "")))
    given = iter(node.args[place + 1 :])
    inside: dict[fx.Node, Any] = {}
    for own in part.graph.nodes:
        if own.op == "placeholder":
            argument: Any = next(given)
            inside[own] = nodes[argument] if isinstance(argument, fx.Node) else argument
        elif own.op == "output":
            return tuple(
                inside[result] if isinstance(result, fx.Node) else result for result in own.args[0]
            )
        else:
            _copy(graph, part, own, inside)
    raise AssertionError("a captured graph ends with its output")


def _without_in_place(graph: fx.Graph) -> bool:
    """Replace in-place calls by those that return a new tensor; False where that is not enough."""
    order = {node: place for place, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None or not schema.is_mutable:
            continue
        changed = node.args[0]
        views = [user for user in changed.users if user is not node and _is_view(user)]
        if not isinstance(changed, fx.Node) or _is_view(changed) or views:
            return False
        if changed.op != "call_function":
            return False
        overloads = getattr(torch.ops.aten, packet(node).removesuffix("_"), None)
        functional = getattr(overloads, node.target._overloadname, None)
        if functional is None:
            return False
        for user in list(changed.users):
            if user is not node and order[user] > order[node]:
                user.replace_input_with(changed, node)
        node.target = functional
    return True


def _is_view(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    if schema is None or schema.is_mutable:
        return False
    # A contiguous tensor stays itself, so reshape and the like may give views.
    return any(r.alias_info is not None for r in schema.returns) or kind_of(node).aliasing


def attribute(root: nn.Module, path: str) -> Any:
    """Return what lies at the dotted ``path`` of ``root``."""
    found: Any = root
    for part in path.split("."):
        found = getattr(found, part)
    return found


def put(root: nn.Module, path: str, value: Tensor | nn.Module) -> None:
    """Put a tensor or module at the dotted ``path`` of ``root``, making what lies between."""
    *parents, last = path.split(".")
    for part in parents:
        if not isinstance(getattr(root, part, None), nn.Module):
            root.add_module(part, nn.Module())
        root = getattr(root, part)
    if isinstance(value, nn.Module):
        root.add_module(last, value)
        return
    if last in root._parameters or last in root._buffers:
        delattr(root, last)
    if isinstance(value, nn.Parameter):
        root.register_parameter(last, value)
    else:
        root.register_buffer(last, value)


def _of_hooks(module: nn.Module) -> str:
    """Return what to add where hooks may be the reason: a copy of a module calls the same ones."""
    hooked = [path for path, part in module.named_modules() if part._forward_hooks]
    if not hooked:
        return ""
    return (
        f"; {hooked[0] or 'it'} has a hook, and what a hook keeps elsewhere is not seen by a copy: "
        "return it from the forward"
    )


def _first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:3])
    if not text or isinstance(error, (KeyError, AttributeError)):
        text = f"{type(error).__name__} {text}".strip()
    return text if len(text) <= 400 else f"{text[:400]} ..."
