"""Whether a family's networks can be trained, quantised and compared, before any time is spent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from nas.studies.value.members import PTQ_STEPS
from search_spaces.errors import InputError
from supernet.own_model.sources import their_code
from supernet.ptq.quantize import quantize_post_training

if TYPE_CHECKING:
    from nas.studies.value.family import Member, Request

_IMAGES = 8


def probe_members(members: Iterable[Member], request: Request, *, answers: str = "one") -> None:
    """Run and quantise each member, untrained, on noise.

    Args:
        members: of the family.
        request: what they were asked to take and give.
        answers: of the task, see :class:`nas.tasks.Task`; of ``one`` the outputs are counted.

    Raises:
        InputError: a member that does not take the images, gives something else than was asked,
            has no weights to train, or cannot be quantised; told with its name.
    """
    for member in members:
        try:
            _probe(member, request, counted=answers == "one")
        except InputError as error:
            raise InputError(f"member {member.name}: {error}") from error


def _probe(member: Member, request: Request, *, counted: bool) -> None:
    shape = (_IMAGES, request.input_channels, *request.input_size)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    module = member.make().eval()
    with torch.no_grad(), their_code(f"on images {list(shape)} it"):
        outputs = module(images)
    if counted:
        wanted = [_IMAGES, request.outputs]
        given = (
            str(list(outputs.shape))
            if isinstance(outputs, torch.Tensor)
            else f"a {type(outputs).__name__}"
        )
        if given != str(wanted):
            raise InputError(
                f"on images {list(shape)} it gives {given}, and {wanted} is needed: "
                "request.outputs values an image"
            )
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise InputError("it has no weights to train")
    quantize_post_training(module, [images], (8, 8), steps=PTQ_STEPS)
