"""A packed model as a network of native layers.

Codes stay in native buffers, channels last. What the format leaves to floats runs in NumPy between
native layers; a convolutional network of the built-in spaces has none of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from devices.lowbit.library import Native
from devices.lowbit.lowering import Lowering
from devices.lowbit.tuning import choose_kernels
from search_spaces.model_files.packed_model import PackedModel


class LowBitNetwork:
    """A packed model, ready to run.

    Args:
        model: from :func:`search_spaces.model_files.packed_model.read_packed_model`.
        batch: images of an inference.
        threads: of the native layers.
        rounds: timings of each kernel when a layer's kernel is chosen; 0 takes the first that
            fits, without timing.

    Raises:
        InputError: the graph holds an operation or a shape that this runtime does not run.
        EnvironmentProblem: the kernels cannot be compiled.
    """

    def __init__(
        self, model: PackedModel, *, batch: int = 1, threads: int = 1, rounds: int = 5
    ) -> None:
        self.batch = batch
        self.native = Native(threads)
        built = Lowering(model, self.native, batch=batch, rounds=rounds)
        #: Names of the native layers, in order.
        self.names = built.names
        #: Operations that run in floats.
        self.float_operations = built.float_operations
        #: The input, float32 (batch, channels, height, width).
        self.input = built.input
        #: Further inputs, float32 (batch, ...), in their order.
        self.others = built.others
        #: (name of a tensor) -> its floats after the last run, to look inside.
        self.tensor = built.array
        self._steps = built.steps
        self._result = built.result(model.graph["output"])
        # The kernels have what they need of the weights: a mapped file goes back to the system.
        self.model = built.model = replace(model, tensors={})
        self.native.trim()

    def run(self, images: np.ndarray, *others: np.ndarray) -> np.ndarray:
        """Run once; ``images`` float32 (batch, channels, height, width).

        Returns:
            float32 (batch, outputs), valid until the next run.
        """
        for target, given in zip((self.input, *self.others), (images, *others), strict=True):
            np.copyto(target, given)
        return self.execute()

    def execute(self) -> np.ndarray:
        """Run on what :attr:`input` holds."""
        for step in self._steps:
            if callable(step):
                step()
            else:
                self.native.run(*step)
        return self._result()

    @property
    def runner(self) -> Callable[[], object]:
        """A call for the clock: :meth:`execute` without Python between native layers."""
        if len(self._steps) == 1 and not callable(self._steps[0]):
            return self.native.runner()
        return self.execute

    def choose_kernels(self, rounds: int) -> None:
        """Choose the kernel of each layer by timing, see :mod:`devices.lowbit.tuning`."""
        choose_kernels(self.native, range(self.native.layers), rounds)

    def profile(self, rounds: int = 20) -> list[dict[str, Any]]:
        """Return name, kernel and mean ms of each native layer."""
        times = self.native.profile(rounds)
        return [
            {"layer": name, "kernel": (self.native.kernels(i) or ("",))[0], "ms": float(times[i])}
            for i, name in enumerate(self.names)
        ]
