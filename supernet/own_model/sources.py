"""Networks by name: of torchvision, of timm, of a module or a file of your own."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from search_spaces.errors import EnvironmentProblem, InputError, MissingExtraError
from supernet.own_model.vectors import flattening, vector_length
from supernet.reading.capture import refuse_scripts


def load_network(
    name: str, *, weights: Path | None = None, arguments: Mapping[str, Any] | None = None
) -> nn.Module:
    """Return the network called ``name``, in evaluation mode; one of vectors flattens its inputs.

    What torch.compile and nn.DataParallel put around a network is taken off, and weights of
    another precision become float32.

    Args:
        name: ``torchvision.models:resnet18``, ``timm:NAME``, ``package.module:callable``, or
            ``file.py:callable``; a callable makes the network.
        weights: a .safetensors file with its state; the network's own otherwise.
        arguments: for what makes the network.

    Raises:
        InputError: no such network, one of several inputs, arguments or weights that do not fit it,
            or code that raises.
        MissingExtraError: timm is asked for and not installed.
    """
    options = dict(arguments or {})
    if name.startswith("timm:"):
        network = _timm(name.removeprefix("timm:"), options)
    else:
        network = _made(name, options)
    network = _unwrapped(network)
    if any(p.is_floating_point() and p.dtype != torch.float32 for p in network.parameters()):
        network = network.float()
    _expect_one_input(name, network)
    if weights is not None:
        _load(network, Path(weights))
    network.eval()
    return flattening(network) if vector_length(network) else network


_WRAPPERS = ("_orig_mod", "module")
"""Name of a network in what torch.compile and nn.DataParallel put around it."""


def _unwrapped(network: nn.Module) -> nn.Module:
    compiled = getattr(network, "_orig_mod", None)
    if isinstance(compiled, nn.Module):
        return _unwrapped(compiled)
    return _unwrapped(network.module) if isinstance(network, nn.DataParallel) else network


def _expect_one_input(name: str, network: nn.Module) -> None:
    refuse_scripts(network, name)
    needed = [
        parameter.name
        for parameter in inspect.signature(network.forward).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if len(needed) > 1:
        raise InputError(
            f"{name}: its forward needs {len(needed)} inputs ({', '.join(needed)}), and networks "
            "of one are read; wrap it in a module that takes one tensor apart"
        )


def _timm(name: str, options: dict[str, Any]) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError("timm", "timm") from error
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('_')[0]}*")[:5]
        raise InputError(f"timm has no model {name!r} (near it: {', '.join(near) or 'none'})")
    with their_code(f"timm:{name}"):
        network = timm.create_model(name, **{"pretrained": False, **options})
    assert isinstance(network, nn.Module)
    return network


_ONNX = (
    "; an ONNX file can teach (--teacher, supernet.teacher) and be quantised (nas bits), but its "
    "widths and depths are not searched: give the torch module that it was made of"
)


def _made(name: str, options: dict[str, Any]) -> nn.Module:
    place, separator, attribute = name.rpartition(":")
    if not separator:
        raise InputError(
            f"{name!r} names no network: use module:callable, file.py:callable or timm:NAME"
            + _ONNX * name.endswith(".onnx")
        )
    module = _file(Path(place)) if place.endswith(".py") else _import(place)
    found = getattr(module, attribute, None)
    if found is None:
        raise InputError(f"{place} has no {attribute!r}")
    network = found
    if not isinstance(found, nn.Module):
        if not callable(found):
            raise InputError(f"{name} is a {type(found).__name__}, and makes no network")
        _check_arguments(name, found, options)
        with their_code(name):
            network = found(**options)
    if not isinstance(network, nn.Module):
        raise InputError(f"{name} returns a {type(network).__name__}, not a torch.nn.Module")
    return network


def _import(name: str) -> Any:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    with their_code(name):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise InputError(f"module {name!r} cannot be imported: {error}") from error


def _file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise InputError(f"there is no file {path} with Python code")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    with their_code(str(path)):
        spec.loader.exec_module(module)
    return module


def _check_arguments(name: str, make: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuse arguments that what makes the network does not take, and one that it lacks."""
    try:
        signature = inspect.signature(make)
    except ValueError:
        return  # Written in C: the call says it.
    try:
        signature.bind(**options)
    except TypeError as error:
        told = ", ".join(map(str, signature.parameters.values())) or "nothing"
        raise InputError(
            f"{name}: {error}; it takes {told}, each given as an argument NAME=VALUE"
        ) from None


@contextmanager
def their_code(name: str) -> Iterator[None]:
    """Tell what code of the user raises with the line that raised it, as a mistake of theirs."""
    try:
        yield
    except (InputError, EnvironmentProblem):
        raise
    except Exception as error:  # whatever their code raises
        frames = traceback.extract_tb(error.__traceback__)
        # Below this frame, its caller's and those that import are theirs, and of what they call.
        ours = (__file__, frames[1].filename) if len(frames) > 1 else (__file__,)
        called = [f for f in frames if f.filename not in ours and "importlib" not in f.filename]
        theirs = [f for f in called if "site-packages" not in f.filename] or called
        place = f" ({theirs[-1].filename}:{theirs[-1].lineno})" if theirs else ""
        told = str(error).strip().splitlines()
        reason = f": {told[0]}" if told else ""
        raise InputError(f"{name} raises {type(error).__name__}{reason}{place}") from error


def _load(network: nn.Module, path: Path) -> None:
    from supernet.training.checkpoint import load_checkpoint

    tensors, _ = load_checkpoint(path)
    own = network.state_dict()
    for wrapper in _WRAPPERS:
        # Saved from within a wrapper, every name begins with it.
        inside = {key.removeprefix(f"{wrapper}."): value for key, value in tensors.items()}
        if inside.keys() == own.keys():
            tensors = inside
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(f"{path} does not fit the network: {error}") from error
