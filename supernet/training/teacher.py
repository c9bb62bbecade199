"""A teacher that no longer changes, asked once for each image it can be shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class CountedViews(Protocol):
    """Training batches that know which of the images they can hold each one is."""

    @property
    def views(self) -> int | None:
        """How many different images there are; None where they are countless."""
        ...

    def views_of(self, epoch: int, index: int) -> Tensor | None:
        """Return the numbers of the images of a batch, (batch,) int64; None if countless."""
        ...


class RememberingTeacher:
    """The outputs of a network that is done with training, kept for when an image comes again.

    Small networks see each image tens of times, and the large one that teaches them costs more
    than they do; where augmentation only mirrors, it is asked twice for each image in all.
    Where every image is new, the network is asked every time (outputs for another crop of it
    teach worse, Beyer et al., CVPR 2022), and so it is where outputs are too many to be kept.

    Args:
        network: images (batch, channels, height, width) -> outputs (batch, units), in evaluation
            mode, so that an image's outputs do not depend on its batch.
        views: of the training batches.
        limit_bytes: memory that outputs may take.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        views: CountedViews,
        *,
        limit_bytes: int = 2**29,
    ) -> None:
        self._network = network
        self._views = views
        self._limit = limit_bytes
        self._too_many = False
        self._known: Tensor | None = None
        self._outputs: Tensor | None = None

    @property
    def remembers(self) -> bool:
        """Whether images come again, so that it is asked for each of them once only."""
        return self._views.views is not None and not self._too_many

    @torch.no_grad()
    def answer(self, images: Tensor) -> Tensor:
        """Return outputs (batch, units) float32 for images that do not come again."""
        return self._network(images).float()

    @torch.no_grad()
    def outputs(self, images: Tensor, epoch: int, index: int) -> Tensor:
        """Return outputs for the ``images`` of batch ``index`` of ``epoch``.

        Returns:
            (batch, units) float32, computed in the precision of the surrounding autocast.
        """
        numbers = self._views.views_of(epoch, index)
        if not self.remembers or numbers is None or len(numbers) != len(images):
            return self._network(images).float()
        if self._known is None:
            assert self._views.views is not None
            self._known = torch.zeros(self._views.views, dtype=torch.bool)
        new = ~self._known[numbers]
        if bool(new.any()):
            # In mixed precision it may answer in bfloat16; others may ask for the same in float32.
            found = self._network(images[new.to(images.device)]).float()
            if found[0].numel() * found.element_size() * len(self._known) > self._limit:
                self._too_many = True
                return self._network(images).float()
            if self._outputs is None:
                self._outputs = found.new_zeros(len(self._known), *found.shape[1:])
            self._outputs[numbers[new]] = found
            self._known[numbers[new]] = True
        assert self._outputs is not None
        return self._outputs[numbers]
