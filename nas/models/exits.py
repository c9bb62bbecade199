"""An exit network's file, checked: it leaves where the network does and says the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nas.models.parity import (
    RELATIVE_TOLERANCE,
    UnusableModel,
    evaluate_outputs,
    relative_error,
    saturates,
)

if TYPE_CHECKING:
    from supernet.exits.network import ExitNetwork

AGREEMENT = 0.8
"""Share of the images whose class must be the network's, where weights are as they were trained: of
an untrained network roundings alone move one in eight, and a wrong file agrees by chance."""

LEFT_ELSEWHERE = 0.03
"""Share of the images that may leave at another exit, whose score is next to the threshold."""


@dataclass(frozen=True)
class ExitsCheck:
    """What a file of one image at a time gives, beside unoptimised execution and the network.

    Attributes:
        images: that were run.
        relative_error: of optimised execution to unoptimised, where both left at one exit.
        left_elsewhere: share of the images that left at another exit when optimised.
        agreement: share whose class is the network's when nothing is optimised.
    """

    images: int
    relative_error: float
    left_elsewhere: float
    agreement: float

    @property
    def problem(self) -> str | None:
        """What is wrong with the file here, in words; None if nothing is."""
        if self.left_elsewhere > max(LEFT_ELSEWHERE, 1.5 / self.images):
            return f"{self.left_elsewhere:.1%} of {self.images} images leave at another exit"
        if not self.relative_error <= RELATIVE_TOLERANCE:
            return (
                f"outputs differ by {self.relative_error:.3g} (relative; at most "
                f"{RELATIVE_TOLERANCE:g} is rounding)"
            )
        return None


@torch.no_grad()
def check_exits(network: ExitNetwork, path: Path, images: Tensor) -> ExitsCheck:
    """Run ``images`` (count, channels, height, width) one by one through the file at ``path``."""
    single = [image[None].numpy() for image in images]
    (logits, left), (plain, wanted) = (
        evaluate_outputs(path, single, optimise=optimise) for optimise in (True, False)
    )
    same = left.reshape(-1) == wanted.reshape(-1)
    classes = network(images)[0].argmax(1).numpy()
    return ExitsCheck(
        images=len(images),
        relative_error=relative_error([logits[same]], [plain[same]]) if same.any() else np.inf,
        left_elsewhere=float(1 - same.mean()),
        agreement=float((plain.argmax(1) == classes).mean()),
    )


def export_exits_checked(
    network: ExitNetwork,
    path: Path,
    images: Tensor,
    *,
    has_vnni: bool | None = None,
    **options: Any,
) -> tuple[float, ExitsCheck]:
    """Export an exit network for a device and check the file; return its KiB and the check.

    As :func:`nas.models.parity.export_checked` does for a network without exits: weight codes are
    reduced to 7 bits where 8-bit dot products of the device, or of this machine, would saturate.

    Args:
        network: with its gates.
        path: file to write.
        images: (count, channels, height, width), some tens, for the check.
        has_vnni: whether the device has 8-bit dot products that cannot saturate; by default
            whether this machine has.
        options: of :func:`supernet.exits.export.export_exits`.

    Raises:
        UnusableModel: the file fails the check even with reduced codes, or says something else
            than the network; it is removed.
    """
    from supernet.exits.export import export_exits

    reduce_range = saturates() if has_vnni is None else not has_vnni
    for reduced in (False, True):
        kib = export_exits(network, path, reduce_range=reduced, **options)
        check = check_exits(network, path, images)
        # Reduced codes are another network, whose difference is measured and not refused.
        if not reduced and check.agreement < AGREEMENT:
            Path(path).unlink(missing_ok=True)
            raise UnusableModel(
                f"{path} is not what it was made from: only {check.agreement:.1%} of "
                f"{check.images} images have the network's class"
            )
        if check.problem is None and (reduced or not reduce_range):
            return kib, check
    Path(path).unlink(missing_ok=True)
    raise UnusableModel(
        f"{path} is not usable here: with and without the runtime's optimisation {check.problem}: "
        "an integer kernel saturates or an optimisation is wrong"
    )
