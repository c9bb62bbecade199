"""Networks by name: of torchvision, of timm, of a module or a file of your own."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from search_spaces.errors import InputError, MissingExtraError


def load_network(
    name: str, *, weights: Path | None = None, arguments: Mapping[str, Any] | None = None
) -> nn.Module:
    """Return the network called ``name``, in evaluation mode.

    Args:
        name: ``torchvision.models:resnet18``, ``timm:NAME``, ``package.module:callable``, or
            ``file.py:callable``; a callable makes the network.
        weights: a .safetensors file with its state; the network's own otherwise.
        arguments: for what makes the network.

    Raises:
        InputError: no such network, or weights that do not fit it.
        MissingExtraError: timm is asked for and not installed.
    """
    options = dict(arguments or {})
    if name.startswith("timm:"):
        network = _timm(name.removeprefix("timm:"), options)
    else:
        network = _made(name, options)
    if weights is not None:
        _load(network, Path(weights))
    return network.eval()


def _timm(name: str, options: dict[str, Any]) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError("timm", "timm") from error
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('_')[0]}*")[:5]
        raise InputError(f"timm has no model {name!r} (near it: {', '.join(near) or 'none'})")
    network = timm.create_model(name, **{"pretrained": False, **options})
    assert isinstance(network, nn.Module)
    return network


def _made(name: str, options: dict[str, Any]) -> nn.Module:
    place, separator, attribute = name.rpartition(":")
    if not separator:
        raise InputError(
            f"{name!r} names no network: use module:callable, file.py:callable or timm:NAME"
        )
    module = _file(Path(place)) if place.endswith(".py") else _import(place)
    found = getattr(module, attribute, None)
    if found is None:
        raise InputError(f"{place} has no {attribute!r}")
    network = found if isinstance(found, nn.Module) else found(**options)
    if not isinstance(network, nn.Module):
        raise InputError(f"{name} returns a {type(network).__name__}, not a torch.nn.Module")
    return network


def _import(name: str) -> Any:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
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
    spec.loader.exec_module(module)
    return module


def _load(network: nn.Module, path: Path) -> None:
    from supernet.training.checkpoint import load_checkpoint

    tensors, _ = load_checkpoint(path)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(f"{path} does not fit the network: {error}") from error
