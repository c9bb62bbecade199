"""What a step of training keeps and needs at once, over many architectures.

A :class:`TrainingTape` records the same operations that tell the peak of inference
(:mod:`search_spaces.memory`) and goes through them backwards. Exact for the graph as it is written:

- a layer whose weights are updated keeps the input channels that they read, as codes, in whole
  bytes, as inference stores them;
- a non-linearity that gradients pass keeps a bit for each value (ReLU), unless a layer keeps the
  whole of its output, or its input (other non-linearities); products keep their factors where the
  gradient of the other is asked for, maxima the place in the window;
- a tensor that gradients reach has a gradient from the last operation that reads it to the one
  that makes it; sums pass theirs on in place, and accumulate in it;
- weights are updated layer by layer, as soon as their gradient is there, so one gradient of weights
  is alive at once (Lin et al., NeurIPS 2022, section 3.3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces.columns import LayerColumn
from search_spaces.memory import INPUTS, PLACES, SUM, UNKNOWN, Tape, Tensor

PLACE_BITS = 4
"""Which of the nine places of a window was largest."""

LINEAR = {"none", "stream"}
"""What stands in the place of a non-linearity where there is none."""

Shares = Callable[[LayerColumn], tuple[np.ndarray, np.ndarray]]
"""A layer -> share of its input channels whose weights are updated, (n,) float, and whether its
bias is, (n,) bool."""


@dataclass(frozen=True)
class StepMemory:
    """Bytes of a step, each (n,) float64; NaN where an operation's gradients are not known.

    Attributes:
        peak: the most that is alive at once, everything below included.
        kept: activations for gradients of weights and of products.
        masks: of non-linearities and maxima.
        gradients: of activations, the most at once.
        weight_gradients: of weights and biases, of the largest layer.
        optimizer: numbers that are kept between steps.
        weights: that are updated, as codes in memory that can be written, and their biases.
        kept_values: values among ``kept``, mask values among ``masks``: (n, 2).
    """

    peak: np.ndarray
    kept: np.ndarray
    masks: np.ndarray
    gradients: np.ndarray
    weight_gradients: np.ndarray
    optimizer: np.ndarray
    weights: np.ndarray
    kept_values: np.ndarray


@dataclass(frozen=True)
class _Step:
    """An operation: what it reads and what its gradients need."""

    inputs: tuple[Tensor, ...]
    time: int
    count: np.ndarray
    active: np.ndarray
    keeps: str
    activation: str
    layer: LayerColumn | None = None


class TrainingTape(Tape):
    """Records operations for a forward and a backward pass.

    Args:
        rows, stream_bits: as of :class:`search_spaces.memory.Tape`.
        shares: what is updated of each layer.
    """

    def __init__(self, rows: int, stream_bits: np.ndarray, shares: Shares) -> None:
        super().__init__(rows, stream_bits)
        self._shares = shares
        self._steps: list[_Step] = []
        self._width: list[np.ndarray] = []
        self._count: list[np.ndarray] = []

    def op(
        self,
        inputs: Sequence[Tensor],
        count: np.ndarray | int,
        bits: np.ndarray | int,
        active: np.ndarray | None = None,
        *,
        keeps: str = UNKNOWN,
        activation: str = "none",
        layer: LayerColumn | None = None,
    ) -> Tensor:
        """See :meth:`Tape.op`."""
        on = np.ones(self.rows, dtype=bool) if active is None else active
        time = len(self._sizes)
        found = super().op(inputs, count, bits, active)
        self._steps.append(
            _Step(tuple(inputs), time, self._count[time], on, keeps, activation, layer)
        )
        return found

    def _make(
        self,
        inputs: Sequence[Tensor],
        count: np.ndarray | int,
        bits: np.ndarray | int,
        active: np.ndarray,
    ) -> Tensor:
        wide = np.broadcast_to(np.asarray(bits, dtype=np.int64), (self.rows,))
        self._width.append(np.maximum(8, -(-wide // 8) * 8) // 8)
        self._count.append(np.broadcast_to(np.asarray(count, dtype=np.int64), (self.rows,)))
        return super()._make(inputs, count, bits, active)

    def step_memory(self, *, batch: int, gradient_bytes: int, states: int) -> StepMemory:
        """Return what a step takes, once everything is recorded.

        Args:
            batch: examples at once.
            gradient_bytes: of a gradient, and of a number of the optimiser.
            states: numbers of the optimiser for each weight.
        """
        return _Backward(self, batch, gradient_bytes, states).run()


class _Backward:
    """Goes back over a tape; times ``0..T-1`` are forward, ``T..2T-1`` backward."""

    def __init__(self, tape: TrainingTape, batch: int, gradient_bytes: int, states: int) -> None:
        self.tape, self.batch = tape, batch
        self.gradient_bytes, self.states = gradient_bytes, states
        self.rows, self.times = tape.rows, len(tape._sizes)
        self.row = np.arange(self.rows)
        self.counts = np.stack(tape._count).astype(np.float64)
        self.width = np.stack(tape._width).astype(np.float64)
        self.last = np.stack(tape._last)
        self.change = np.zeros((2 * self.times + 1, self.rows))
        self.gradients = np.zeros_like(self.change)
        self.kept, self.masks = np.zeros(self.rows), np.zeros(self.rows)
        self.values = np.zeros((self.rows, 2))
        self.unknown = np.zeros(self.rows, dtype=bool)
        self.weight_gradients, self.fixed, self.weights = (np.zeros(self.rows) for _ in range(3))
        self.needs = np.zeros((self.times, self.rows), dtype=bool)
        self.whole = np.zeros((self.times, self.rows), dtype=bool)
        self.ends = np.zeros((self.times, self.rows), dtype=np.int64)

    def run(self) -> StepMemory:
        """Return the bytes of everything."""
        steps = self.tape._steps
        updates = [self._updates(step) for step in steps]
        for step, (share, bias) in zip(steps, updates, strict=True):
            reached = self._reached(step)
            self.needs[step.time] = step.active & ((share > 0) | bias | reached.any(0))
        self._keep_inputs(steps, [share for share, _ in updates])
        self._keep_masks(steps)
        self._forward()
        self._activation_gradients(steps)
        for step, (share, bias) in zip(steps, updates, strict=True):
            self._update_weights(step, share, bias)
        peak = self.change.cumsum(0).max(0) + self.fixed + self.weights
        found = StepMemory(
            peak, self.kept, self.masks, self.gradients.cumsum(0).max(0), self.weight_gradients,
            self.fixed, self.weights, self.values,
        )  # fmt: skip
        for value in vars(found).values():
            value[self.unknown] = np.nan
        return found

    def _updates(self, step: _Step) -> tuple[np.ndarray, np.ndarray]:
        if step.layer is None:
            return np.zeros(self.rows), np.zeros(self.rows, dtype=bool)
        share, bias = self.tape._shares(step.layer)
        return share * step.active, bias & step.active

    def _reached(self, step: _Step) -> np.ndarray:
        """Return which inputs gradients go on to, (inputs, n) bool."""
        return np.stack([self.needs[x.storage, self.row] for x in step.inputs]) & step.active

    def _back(self, time: np.ndarray | int) -> np.ndarray:
        """Return when the operation that made a storage goes backwards."""
        return np.asarray(2 * self.times - 1 - time)

    # -------------------------------------------------------------------- what is kept

    def _keep_inputs(self, steps: Sequence[_Step], shares: Sequence[np.ndarray]) -> None:
        """Extend the lives of what gradients of weights and products read."""
        # Values that are kept already of each storage: those kept longest come first.
        held = np.zeros((self.times, self.rows))
        for step, share in zip(steps, shares, strict=True):
            reached = self._reached(step)
            wanted: list[np.ndarray] = []
            if step.layer is not None:
                layer = step.layer.layer
                channels = np.ceil(np.round(share * layer.in_channels, 6))
                read = np.where(step.active, step.inputs[0].count, 0)
                wanted = [read * channels / np.maximum(1, layer.in_channels)]
            elif step.keeps == INPUTS:
                others = reached[::-1] if len(step.inputs) == 2 else reached
                wanted = [other * x.count for other, x in zip(others, step.inputs, strict=True)]
            elif step.keeps == PLACES:
                values = np.where(reached[0], step.count, 0)
                self._mask(values, values * PLACE_BITS, step.time, self._back(step.time))
            elif step.keeps == UNKNOWN:
                self.unknown |= reached.any(0)
            for x, values in zip(step.inputs, wanted, strict=False):
                self._keep(x, values, held, self._back(step.time))

    def _keep(self, x: Tensor, values: np.ndarray, held: np.ndarray, until: np.ndarray) -> None:
        at = (x.storage, self.row)
        # Consumers come in the order of execution, so this one is asked for it no later.
        more = np.maximum(0, values - held[at])
        held[at] += more
        size = np.ceil(more * self.width[at]) * self.batch
        self.kept += size
        self.values[:, 0] += more * self.batch
        # From the last reader in the forward pass on; until then it is there anyway.
        self._alive(size, self.last[at] + 1, until)
        whole = (values > 0) & (held[at] >= self.counts[at])
        self.whole[at] |= whole
        self.ends[at] = np.where(more > 0, np.maximum(self.ends[at], until), self.ends[at])

    def _keep_masks(self, steps: Sequence[_Step]) -> None:
        """Keep what gradients of non-linearities need, once of each tensor."""
        done: dict[str, np.ndarray] = {}
        for step in steps:
            if step.activation not in LINEAR:
                made = np.full(self.rows, step.time)
                self._keep_mask(made, step.activation, step.active, done)
            if step.layer is None:
                continue
            # What a layer reads may differ by architecture.
            names = np.broadcast_to(np.asarray(step.layer.layer.source), (self.rows,))
            for name in sorted({*names.tolist()} - LINEAR):
                on = step.active & (names == name)
                self._keep_mask(step.inputs[0].storage, name, on, done)

    def _keep_mask(
        self, storage: np.ndarray, name: str, active: np.ndarray, done: dict[str, np.ndarray]
    ) -> None:
        at = (storage, self.row)
        seen = done.setdefault(name, np.zeros((self.times, self.rows), dtype=bool))
        on = active & self.needs[at] & ~seen[at]
        seen[at] |= on
        values = np.where(on, self.counts[at], 0)
        back = self._back(storage)
        if name != "relu":
            self._mask(values, 8 * values * self.width[at], storage, back)
            return
        # The sign of what is kept whole tells it, for as long as it is needed.
        told = self.whole[at]
        size = np.where(on & told, np.ceil(values * self.width[at]) * self.batch, 0)
        self._alive(size, self.ends[at] + 1, back)
        left = np.where(told, 0, values)
        self._mask(left, left, storage, back)

    def _mask(
        self, values: np.ndarray, bits: np.ndarray, born: np.ndarray | int, until: np.ndarray
    ) -> None:
        size = np.ceil(bits * self.batch / 8)
        self.masks += size
        self.values[:, 1] += values * self.batch
        self._alive(size, np.broadcast_to(np.asarray(born), (self.rows,)), until)

    # ------------------------------------------------------------------- what is alive

    def _alive(self, size: np.ndarray, born: np.ndarray, until: np.ndarray) -> None:
        """Add bytes that are alive at the times from ``born`` to ``until``, (n,) each."""
        size = np.where(until >= born, size, 0)
        self.change[np.minimum(born, 2 * self.times), self.row] += size
        self.change[np.minimum(until + 1, 2 * self.times), self.row] -= size

    def _forward(self) -> None:
        for time, size in enumerate(self.tape._sizes):
            self._alive(size * self.batch, np.full(self.rows, time), self.last[time])

    def _activation_gradients(self, steps: Sequence[_Step]) -> None:
        """Add the gradient of each tensor that gradients reach."""
        born = self._back(self.last)
        size = self.needs * self.counts * self.gradient_bytes * self.batch
        for step in steps:
            if step.keeps != SUM:
                continue
            reached = self._reached(step)
            taken = np.zeros(self.rows, dtype=bool)
            # What lives longest takes the sum's own gradient: the residual, which stands last.
            for k in range(len(step.inputs) - 1, -1, -1):
                x = step.inputs[k]
                at = (x.storage, self.row)
                equal = (x.count == step.count) & reached[k] & (self.last[at] == step.time)
                # The first takes it over; the others read it where it is.
                born[at] = np.where(equal & ~taken, born[at] + 1, born[at])
                size[at] = np.where(equal & taken, 0, size[at])
                taken |= equal
        for time in range(self.times):
            until = np.full(self.rows, int(self._back(time)))
            self._alive(size[time], born[time], until)
            alive = np.where(until >= born[time], size[time], 0)
            self.gradients[np.minimum(born[time], 2 * self.times), self.row] += alive
            self.gradients[until + 1, self.row] -= alive

    def _update_weights(self, step: _Step, share: np.ndarray, bias: np.ndarray) -> None:
        if step.layer is None:
            return
        layer = step.layer.layer
        channels = np.ceil(np.round(share * layer.in_channels, 6))
        weights = layer.weight_count * channels / np.maximum(1, layer.in_channels)
        biases = np.where(bias, layer.out_channels, 0)
        numbers = weights + biases
        gradient = numbers * self.gradient_bytes
        self.weight_gradients = np.maximum(self.weight_gradients, gradient)
        now = np.full(self.rows, int(self._back(step.time)))
        self._alive(gradient, now, now)
        self.fixed += numbers * self.states * self.gradient_bytes
        width = np.maximum(8, -(-np.asarray(layer.weight_bits) // 8) * 8) // 8
        self.weights += weights * width + 4 * biases
