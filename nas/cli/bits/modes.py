"""Which options of ``nas bits`` go together: what is given is used, or refused."""

from __future__ import annotations

from typing import Any

import typer

from search_spaces.errors import InputError

_LANGUAGE = frozenset(
    {"model", "budget", "output", "text", "labelled", "method", "weight_bits", "group"}
)
_NETWORK = frozenset({"model", "budget", "output", "weights", "argument", "pick", "seed"})
_NETWORK |= {"data", "data_path", "image_size", "normalisation", "images", "count"}
_NETWORK |= {"weight_bits", "activation_bits", "edge_bits", "adaround"}
_BOARD = frozenset({"runtime", "option", "hub", "token_file", "ca", "protocol"})
_FURTHER = {
    "--ranks": frozenset({"ranks", "metric"}),
    "--sparsity": frozenset({"sparsity", "metric"}),
    "--design": frozenset({"design", "metric"}),
    "--device": frozenset({"device", "metric", "group"}) | _BOARD,
    "": frozenset({"metric", "group", "layer_latencies", "hardware"}),
}


def given(context: typer.Context, name: str) -> bool:
    """Return whether the parameter ``name`` was written on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def mode(values: dict[str, Any], language: bool) -> str:
    """Return which kind of ``nas bits`` a call is: of ``--text``, ``--ranks``, ... or neither."""
    if language:
        return "--text"
    names = ("ranks", "sparsity", "design", "device")
    chosen = [f"--{name}" for name in names if values[name] is not None]
    for beside in ("--ranks", "--sparsity"):
        if "--design" in chosen and beside in chosen:
            raise InputError(f"--design goes without {beside}; choose one")
    if len(chosen) > 1 and "--design" in chosen:
        raise InputError("give one of --device and --design: each says latency_ms")
    return chosen[0] if chosen else ""


def check_mode(context: typer.Context, *, language: bool) -> None:
    """Refuse options that were given and that this kind of call would not look at.

    Args:
        context: of the call.
        language: whether the model is a folder of a language model.

    Raises:
        InputError: such options, all of them at once.
    """
    kind = mode(context.params, language)
    takes = _LANGUAGE if language else _NETWORK | _FURTHER[kind]
    unused = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name and parameter.name not in takes and given(context, parameter.name)
    ]
    if not unused:
        return
    names = ", ".join(unused)
    if language:
        raise InputError(
            f"{names}: not used with --text, where bits are found by weights alone; leave it out"
        )
    if kind:
        raise InputError(f"{kind} goes without {names}; leave it out")
    rules = ["--method is of a language model, with --text"] if "--method" in unused else []
    if set(unused) - {"--method"}:
        rules.append("what is of a board or its runtime needs --device")
    raise InputError(f"{names}: not used here; {', '.join(rules)}")
