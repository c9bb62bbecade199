"""Whether code that a job names may run: a job from elsewhere is data until you trust it.

A space ``module:function`` is Python code, and looking at a job builds its space. On the command
line that is asked about once for each module, or said with ``--trust``; the answer is kept in
``$XDG_CONFIG_HOME/edge-nas/trusted.json``. Code that calls :func:`nas.job.check.load_job` itself
decides what it loads, as with ``import``, and is not asked.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from search_spaces.atomic import write_json_atomic
from search_spaces.errors import InputError

Ask = Callable[[str], bool]
"""Asks a person a question; False where there is nobody to ask."""


def _trust_file() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME")
    folder = Path(base) if base else Path(os.path.expanduser("~")) / ".config"
    return folder / "edge-nas" / "trusted.json"


class Trust:
    """What code jobs may run in this process.

    Args:
        everything: run whatever is named, without asking.
        remember: keep a yes, and take one that was given before.
        ask: puts the question.
        file: where answers are kept.
    """

    def __init__(
        self,
        *,
        everything: bool,
        remember: bool = False,
        ask: Ask = lambda question: False,
        file: Path | None = None,
    ) -> None:
        self._everything, self._remember, self._ask = everything, remember, ask
        self._file = _trust_file() if file is None else file

    def require(self, name: str) -> None:
        """Let the function ``name`` (``module:function``) run.

        Raises:
            InputError: nobody trusts it; the message names the file.
        """
        place = _place(name)
        # Another module of that name, in another folder, is other code.
        key = f"{Path(name.rpartition(':')[0]).name} {place}"
        if self._remember and key in self._known():
            return
        question = f"the job runs code of yours or of somebody else: {name}, of {place}"
        if not self._everything and not self._ask(question):
            raise InputError(
                f"{question}; look at it, then say --trust (once; it is remembered for that file)"
            )
        if self._remember:
            # A home that cannot be written to means being asked again, nothing else.
            with contextlib.suppress(OSError):
                write_json_atomic(self._file, sorted({*self._known(), key}))

    def _known(self) -> list[str]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return [str(item) for item in found] if isinstance(found, list) else []


_current = Trust(everything=True)


def set_trust(trust: Trust) -> None:
    """Let ``trust`` decide from now on, in this process."""
    global _current
    _current = trust


def require_trust(name: str) -> None:
    """Raise InputError where the code that a job calls ``name`` may not run."""
    _current.require(name)


MODULE_SPACE = "supernet.own_model.pretrained:module_space"
"""What ``space.name: module`` stands for: the network that ``model`` names."""

OTHERS_NETWORKS = ("torchvision.models:", "timm:")
"""Networks of these are nobody's own code."""


def require_trust_of_space(name: str, parameters: Mapping[str, object]) -> None:
    """Raise InputError where the code that a space runs may not: its own, or its model's."""
    if name != MODULE_SPACE:
        require_trust(name)
        return
    model = str(parameters.get("model", ""))
    if ":" in model and not model.startswith(OTHERS_NETWORKS):
        require_trust(model)


def _place(name: str) -> str:
    """Return where the module of ``name`` lies, without running any of it."""
    module = name.rpartition(":")[0]
    if module.endswith(".py"):
        path = Path(module).resolve()
        return str(path) if path.is_file() else f"{module} (not found)"
    if module.split(".")[0] in sys.builtin_module_names:
        return "Python itself"
    # As the import will look: what is installed first, then the current folder.
    folders = [folder for folder in sys.path if folder] + [os.getcwd()]
    spec = None
    for part in module.split("."):
        # Not importlib.util.find_spec, which runs the packages around a module.
        spec = importlib.machinery.PathFinder.find_spec(part, folders)
        if spec is None:
            return f"{module} (not found)"
        if spec.submodule_search_locations is None:
            return str(Path(spec.origin or module).resolve())
        folders = list(spec.submodule_search_locations)
    assert spec is not None, "a module has at least one name"
    return str(Path(spec.origin or folders[0]).resolve())
