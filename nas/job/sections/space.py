"""Section ``space``: what may be searched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    StrictStr,
    field_validator,
)

from nas.data.sources import DATA_SOURCES
from nas.job.findings import Finding, unknown_name
from nas.job.paths import network_files
from nas.job.trust import MODULE_SPACE, require_trust_of_space
from search_spaces.errors import InputError, NasError
from search_spaces.planned import PlannedSpace
from search_spaces.spaces.registry import SPACES, build_space

if TYPE_CHECKING:
    from nas.job.sections.data import DataConfig

FROM_DATA = ("input_channels", "outputs", "source_length", "source_vocabulary")
"""Parameters of spaces that follow from the data."""


class SpaceConfig(BaseModel):
    """The search space: a name, a preset, and any parameter of that space to override."""

    model_config = ConfigDict(
        extra="allow", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    name: StrictStr = "mobilenet"
    """Registered name of the space; ``module`` for the network that ``model`` names, see the page
    on your own model."""
    preset: StrictStr | None = None
    """A named set of the space's parameters, such as 28x28; null takes the space's defaults."""

    @property
    def overrides(self) -> dict[str, Any]:
        """The parameters the job sets beyond the preset."""
        return dict(self.model_extra or {})

    @field_validator("name")
    @classmethod
    def _module(cls, name: str) -> str:
        return MODULE_SPACE if name == "module" else name

    def with_own_paths(self, folder: Path) -> SpaceConfig:
        """Return the section with the files of a network of the user's own made absolute."""
        if self.name != MODULE_SPACE:
            return self
        return self.model_copy(update=network_files(self.overrides, folder))


def check_space(space: SpaceConfig, folder: Path) -> Iterator[Finding]:
    """Yield an unknown space, and parameters that it does not take, each alone and together."""
    # A function of the user's own, "module:function", is not registered.
    own = ":" in space.name
    found = [] if own else list(unknown_name("space.name", ("space", "name"), space.name))
    yield from found
    if found:
        return
    if not own and not issubclass(SPACES.get(space.name), PlannedSpace):
        yield (
            ("space", "name"),
            f"space.name: the space {space.name!r} has no networks to train; it is one of latency "
            "tables (see nas latency)",
        )
        return
    config = dict(space.overrides)
    # A function of the user's own may call its parameters as it likes.
    taken = [key for key in FROM_DATA[: 2 if own else None] if key in config]
    if taken:
        yield ("space", taken[0]), f"space.{taken[0]}: follows from the data; leave it out"
        return
    base = {} if space.preset is None else {"preset": space.preset}
    if own:
        if space.name == MODULE_SPACE:
            config |= network_files(config, folder)
        message = _space_problem(space.name, {**base, **config}, whole=True)
        if message is not None:
            yield ("space", "name"), f"space: {message}"
        return
    # Each parameter alone first, so that every wrong one is told; then all of them together.
    trials = [base, *({**base, key: config[key]} for key in config)]
    for trial, key in zip(trials, ["preset", *config], strict=True):
        message = _space_problem(space.name, trial)
        if message is not None:
            yield ("space", key) if key != "preset" or base else ("space",), f"space: {message}"
            if key == "preset":
                return
            found.append((("space", key), message))
    if not found:
        message = _space_problem(space.name, {**base, **config}, whole=True)
        if message is not None:
            yield ("space",), f"space: {message}"


def check_signals(space: SpaceConfig, data: DataConfig, folder: Path) -> Iterator[Finding]:
    """Tell a network of images where the data are signals, before they are read."""
    if space.name != MODULE_SPACE or data.name not in DATA_SOURCES:
        return
    # Sources of others are asked no more than that they give arrays: a run sees what they hold.
    if not DATA_SOURCES.get(data.name).__module__.startswith("nas.data.signals."):
        return
    from supernet.own_model.pretrained import OF_IMAGES, takes_signals
    from supernet.own_model.sources import load_network

    config = network_files(dict(space.overrides), folder)
    try:
        require_trust_of_space(space.name, dict(space.overrides))
        network = load_network(config["model"], arguments=space.overrides.get("arguments"))
    except (NasError, KeyError, TypeError):
        return  # what is amiss with it has been told
    if not takes_signals(network):
        yield (
            ("space", "model"),
            f"space.model: the network takes images, and {data.name} holds signals; {OF_IMAGES}",
        )


def check_answers(name: str, task: Any, space: SpaceConfig) -> Iterator[Finding]:
    """Tell a space whose networks answer for something else than the task asks."""
    if ":" in space.name or space.name == MODULE_SPACE or space.name not in SPACES:
        return  # a module's outputs are known once it is made
    found: Any = SPACES.get(space.name)
    if not issubclass(found, PlannedSpace) or task.answers == found.ANSWERS:
        return
    fitting = [n for n in SPACES if getattr(SPACES.get(n), "ANSWERS", None) == task.answers]
    words = {"one": "once for a whole example", "cells": "for the cells of an image",
             "grid": "for every place of an image", "tokens": "for every token",
             "sequences": "with a sequence"}  # fmt: skip
    yield (
        ("space", "name"),
        f"space.name: networks of {space.name!r} answer {words.get(found.ANSWERS, found.ANSWERS)}, "
        f"and the task {name} needs answers {words.get(task.answers, task.answers)}; use "
        f"{', '.join(fitting) or 'a space of your own'}",
    )


def _space_problem(name: str, config: Mapping[str, Any], *, whole: bool = False) -> str | None:
    """Return what is wrong with parameters; of all together (``whole``) that they leave nothing."""
    try:
        if ":" in name:
            require_trust_of_space(name, config)
        space = build_space(name, **config)
        if whole and space.cardinality() == 1:
            return (
                "there is one architecture alone, and nothing to search; give more bits "
                "(weight_bits, activation_bits; edge_bits: null lets those of the first and the "
                "last layer vary) or more of what varies"
            )
    except InputError as error:
        return str(error)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        # A value of a shape the space never expected, such as a word for a list.
        return f"the parameters do not fit the space {name!r}: {error}"
    return None
