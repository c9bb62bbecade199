"""What becomes otherwise where a run's network came trained: its weights, its teacher, its pace."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from search_spaces.errors import InputError
from search_spaces.planned import PlannedSpace

if TYPE_CHECKING:
    from torch import Tensor

    from nas.data.splits import Batches
    from nas.job.sections.supernet import TeacherConfig
    from nas.record.run_folder import RunStore
    from search_spaces.plan import NetworkPlan
    from supernet.network import Supernet
    from supernet.own_model.wrap import ModuleSpace
    from supernet.training.teacher import RememberingTeacher

LEARNING_RATE = 1e-3
"""Peak for a network that comes trained, where the job gives none."""

SCRATCH_RATE = 5e-3
"""Peak for random weights, where the job gives none."""


def own_space(space: PlannedSpace) -> ModuleSpace | None:
    """Return ``space`` where it is one of a network of the user's own."""
    from supernet.own_model.wrap import ModuleSpace

    return space if isinstance(space, ModuleSpace) else None


def left_out(space: PlannedSpace) -> list[str]:
    """Return in words which layers that the job's patterns name keep their widths, in one line."""
    own = own_space(space)
    if own is None or not own.skipped:
        return []
    name, reason = next(iter(own.skipped.items()))
    count = len(own.skipped)
    more = "" if count == 1 else f" and {count - 1} more"
    return [
        f"widths of {name}{more} stay as they are ({name}: {reason}); nas inspect tells of every "
        "layer"
    ]


def learning_rate(given: float | None, *, trained: bool) -> float:
    """Return the peak learning rate of the shared weights."""
    if given is not None:
        return given
    return LEARNING_RATE if trained else SCRATCH_RATE


def came_trained(store: RunStore) -> bool:
    """Whether the network of a run came trained, as it was recorded when training began."""
    return bool((store.manifest().get("pretrained") or {}).get("trained"))


def fixed_teacher(
    config: TeacherConfig | None,
    space: PlannedSpace,
    batches: Batches,
    *,
    trained: bool,
    device: str = "cpu",
) -> RememberingTeacher | None:
    """Return a teacher that no training changes; None where the schedule's own is to teach.

    Args:
        config: a network that the job names; the space's own module where it names none.
        space: of the run.
        batches: training batches, for which it remembers its answers.
        trained: whether the space's own module came trained.
        device: where to compute.

    Raises:
        InputError: no such network, or one with other outputs than the space.
    """
    from supernet.training.teacher import RememberingTeacher

    if config is not None:
        network = named_teacher(config, space)
    else:
        own = own_space(space)
        if own is None or not trained:
            return None
        network = own.module
    return RememberingTeacher(on_images(network, space, device), batches)


def named_teacher(config: TeacherConfig, space: PlannedSpace) -> Any:
    """Return the network that a job names as teacher, in evaluation mode.

    Raises:
        InputError: no such network, or one that does not take the inputs of ``space`` or has other
            outputs.
    """
    import torch

    from nas.bits.named_network import load_source

    network = load_source(config.model, config.weights, arguments=config.arguments).eval()
    shape = (2, *space.plan(space.largest()).input_shape)
    try:
        with torch.no_grad():
            found = _called(network, torch.zeros(shape))
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"supernet.teacher: {config.model} does not take inputs {shape[1:]}: {error}"
        ) from error
    if tuple(found.shape) != (2, space.outputs):
        raise InputError(
            f"supernet.teacher: {config.model} returns {tuple(found.shape)} for a batch of 2; the "
            f"task has {space.outputs} outputs"
        )
    return network


def on_images(network: Any, space: PlannedSpace, device: str = "cpu") -> Callable[[Tensor], Tensor]:
    """Return ``network`` in evaluation mode, for images as the data has them.

    Returns:
        images (batch, channels, height, width) -> outputs; images are brought to the size of the
        largest network of ``space``.
    """
    from supernet.resolution import resize_images

    network = copy.deepcopy(network).eval().to(device) if device != "cpu" else network.eval()
    size = space.plan(space.largest()).input_size

    def outputs(images: Tensor) -> Tensor:
        return _called(network, resize_images(images.to(device), size))

    return outputs


def _called(network: Any, inputs: Tensor) -> Tensor:
    """Return outputs for inputs (batch, channels, height, width), of which signals are one high."""
    from supernet.own_model.pretrained import of_signals

    found: Tensor = network(inputs.flatten(2) if of_signals(network) else inputs)
    return found


def as_it_came(supernet: Supernet, plan: NetworkPlan) -> Supernet | None:
    """Return a supernet with the weights that a network came with, where ``plan`` is all of it.

    Sharing weights with smaller networks costs the largest something, and it need not: its own are
    known. None for any other plan, and for a space whose network did not come trained.
    """
    from supernet.elastic import InputQuantizer

    own = own_space(supernet.space)
    if own is None or not own.trained or not own.as_it_came(plan):
        return None
    found = copy.deepcopy(supernet)
    own.initialize(found)
    # Steps that training fitted to shared weights are none of its own: the first data give them.
    for part in found.modules():
        flags = getattr(part, "initialized", None)
        if flags is not None:
            flags.zero_()
    for part in found.modules():
        if isinstance(part, InputQuantizer):
            part.skip_unused()
    return found
