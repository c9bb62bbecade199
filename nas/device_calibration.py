"""A board met for the first time: ten architectures measured, twenty more foretold.

The predictor that a search would use learns the board from a few measurements it asks for
itself; then architectures it has not seen are measured, and what it said is held against them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search_spaces.errors import EnvironmentProblem, InputError
from search_spaces.seeds import derive_rng
from search_spaces.space import Arch
from search_spaces.table import LatencyTable

if TYPE_CHECKING:
    from devices.device import Device
    from devices.measurement import Measurement
    from devices.protocol import Protocol
    from devices.store import Store
    from predictors.registry import Adapted
    from search_spaces.planned import PlannedSpace

COVERAGE = 0.9
"""Share of the architectures whose latency the predicted interval should hold."""

POOL = 200
"""Random architectures that the predictor chooses the measured ones from."""

Files = Callable[[Arch], Path]
"""Gives an architecture's model file."""


@dataclass(frozen=True)
class Foretold:
    """One architecture that was predicted, then measured; milliseconds.

    ``low_ms`` and ``high_ms`` bound the predicted latency with the chance :data:`COVERAGE`.
    """

    arch: str
    predicted_ms: float
    low_ms: float
    high_ms: float
    measured_ms: float
    valid: bool

    @property
    def inside(self) -> bool:
        """Whether the measurement lies in the predicted interval."""
        return self.low_ms <= self.measured_ms <= self.high_ms


@dataclass(frozen=True)
class Calibration:
    """What a calibration found.

    Attributes:
        device: name.
        known: devices that the predictor learned from before.
        learned: (architecture, measured ms) of those that it asked for.
        foretold: the others.
        adapted: the predictor of this device.
    """

    device: str
    known: tuple[str, ...]
    learned: tuple[tuple[Arch, float], ...]
    foretold: tuple[Foretold, ...]
    adapted: Adapted

    def scores(self) -> dict[str, float]:
        """Return ``spearman``, ``mape`` and ``coverage`` (fractions) over ``foretold``."""
        from scipy.stats import spearmanr

        predicted = np.array([one.predicted_ms for one in self.foretold])
        measured = np.array([one.measured_ms for one in self.foretold])
        return {
            "spearman": float(spearmanr(predicted, measured).statistic),
            "mape": float(np.mean(np.abs(predicted / measured - 1))),
            "coverage": float(np.mean([one.inside for one in self.foretold])),
        }

    def to_json(self) -> dict[str, Any]:
        """Return everything but the predictor."""
        return {
            "device": self.device,
            "known": list(self.known),
            "learned": [{"arch": str(arch), "measured_ms": ms} for arch, ms in self.learned],
            "foretold": [asdict(one) | {"inside": one.inside} for one in self.foretold],
            "scores": self.scores(),
        }

    def table(self, space: PlannedSpace) -> LatencyTable:
        """Return all that was measured as a latency table with the device's column."""
        from_text = [(space.parse(one.arch), one.measured_ms) for one in self.foretold]
        pairs = [*self.learned, *from_text]
        values = np.array([ms for _, ms in pairs])
        return LatencyTable.from_archs(space, [arch for arch, _ in pairs], {self.device: values})


def calibrate(
    device: Device,
    space: PlannedSpace,
    files: Files,
    *,
    known: LatencyTable | None,
    measurements: int = 10,
    checks: int = 20,
    protocol: Protocol | None = None,
    store: Store | None = None,
    variant: str = "calibration",
    seed: int = 0,
    predictor: str = "transfer_gp",
    on_measured: Callable[[str, int, int, Measurement], None] = lambda what, i, n, m: None,
) -> Calibration:
    """Measure what the predictor asks for, adapt it, and hold it against other architectures.

    Args:
        known: latencies of other devices to learn from first; None for none.
        measurements: architectures to learn from. ``checks``: architectures to foretell.
        protocol, store, variant: as :meth:`devices.device.Device.measure` takes them.
        seed: of the choice of architectures.
        predictor: registered name.
        on_measured: told ("learn" or "check", index, count, measurement).

    Raises:
        InputError: fewer than 2 measurements or 3 checks, or the space is too small.
        EnvironmentProblem: the device cannot run a model.
    """
    from predictors.benchmark import make_predictor

    if measurements < 2 or checks < 3:
        raise InputError(
            f"calibration needs at least 2 measurements and 3 checks, not {measurements} and "
            f"{checks}"
        )
    rng = derive_rng(seed, "calibration")
    wanted = max(POOL, 2 * (measurements + checks))
    pool = list(dict.fromkeys([space.smallest(), space.largest(), *_random(space, rng, wanted)]))
    if len(pool) < measurements + checks:
        raise InputError(
            f"space {space.name} gave {len(pool)} architectures, fewer than {measurements + checks}"
        )
    table = known if known is not None else LatencyTable.from_archs(space, pool, {})
    learner = make_predictor(predictor, table, seed=seed).meta_fit(table)
    learned = learner.suggest(pool, measurements, rng)
    others = [arch for arch in pool if arch not in set(learned)]
    held = [others[i] for i in rng.permutation(len(others))[:checks]]

    def measured(archs: Sequence[Arch], what: str) -> list[Measurement]:
        found = device.measure(
            [files(arch) for arch in archs],
            archs=[str(arch) for arch in archs],
            space=space.name,
            variant=variant,
            protocol=protocol,
            store=store,
            on_result=lambda i, m: on_measured(what, i, len(archs), m),
        )
        for arch, one in zip(archs, found, strict=True):
            if not np.isfinite(one.latency_ms):
                raise EnvironmentProblem(f"{device.spec.name} cannot run {arch}: {one.detail}")
        return found

    lessons = [one.latency_ms for one in measured(learned, "learn")]
    adapted = learner.adapt(learned, lessons)
    # Before the others are measured, so that nothing of them can leak in.
    genes = space.genes(held)
    mean, _ = adapted.predict_genes(genes)
    low, high = adapted.interval_genes(genes, COVERAGE)
    found = measured(held, "check")
    return Calibration(
        device=device.spec.name,
        known=tuple(table.devices),
        learned=tuple(zip(learned, lessons, strict=True)),
        foretold=tuple(
            Foretold(str(arch), *map(float, (mean[i], low[i], high[i], one.latency_ms)), one.valid)
            for i, (arch, one) in enumerate(zip(held, found, strict=True))
        ),
        adapted=adapted,
    )


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

        from supernet.export import export_onnx
        from supernet.subnets import float_plan

        kind = "int8" if self._integer else "float"
        path = self._folder / f"{arch.id}-{kind}.onnx"
        if path.is_file():
            return path
        plan = self._supernet.plan(arch)
        plan = plan if self._integer else float_plan(plan)
        rng = np.random.default_rng(self._seed)
        images = torch.from_numpy(rng.standard_normal((4, *plan.input_shape))).float()
        with torch.no_grad():
            statistics = self._supernet.statistics(plan, [images])
        network = self._supernet.extract(plan, statistics).eval()
        # Some runtimes read no 2- and 4-bit tensors; the speed is the same.
        export_onnx(network, path, weight_storage="int8")
        return path


def _random(space: PlannedSpace, rng: np.random.Generator, count: int) -> list[Arch]:
    return [space.sample(rng) for _ in range(count)]
