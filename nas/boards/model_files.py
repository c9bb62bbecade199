"""Model files to measure a device with, made without training anything."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from search_spaces.space import Arch

if TYPE_CHECKING:
    from search_spaces.planned import PlannedSpace


class UntrainedFiles:
    """Model files of architectures with random weights, which take as long as trained ones.

    Args:
        space: of the architectures.
        folder: where the files go; what is there is used again.
        integer: quantised files with the architecture's bits; otherwise float ones.
        seed: of the weights.
    """

    def __init__(
        self, space: PlannedSpace, folder: Path, *, integer: bool = False, seed: int = 0
    ) -> None:
        import torch

        from supernet.network import Supernet

        torch.manual_seed(seed)
        self._supernet = Supernet(space, zero_init_residual=False)
        self._folder, self._integer, self._seed = Path(folder), integer, seed
        self._folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, arch: Arch) -> Path:
        """Return the file of an architecture, exporting it if it is not there."""
        import torch

        from supernet.onnx.export import export_onnx
        from supernet.training.subnets import float_plan

        kind = "int8" if self._integer else "float"
        path = self._folder / f"{arch.id}-{kind}.onnx"
        if path.is_file():
            return path
        plan = self._supernet.plan(arch)
        plan = plan if self._integer else float_plan(plan)
        rng = np.random.default_rng(self._seed)
        images = torch.from_numpy(rng.standard_normal((4, *plan.input_shape))).float()
        # Sums of several threads come in another order: another file, to be measured anew.
        with torch.no_grad(), _one_thread():
            statistics = self._supernet.statistics(plan, [images])
        network = self._supernet.extract(plan, statistics).eval()
        # Some runtimes read no 2- and 4-bit tensors; the speed is the same.
        export_onnx(network, path, weight_storage="int8")
        return path


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
