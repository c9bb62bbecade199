"""A job's supernet and training schedule, built from its ``supernet`` section."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devices.device import computes_bfloat16
from nas.job.sections.supernet import SupernetConfig, quantizer_scheme
from nas.record.run_folder import RunStore
from search_spaces.errors import InputError
from search_spaces.planned import PlannedSpace
from search_spaces.seeds import derive_seed
from search_spaces.space import Arch
from search_spaces.terminal import quoted

if TYPE_CHECKING:
    from nas.job.schema import Job
    from supernet.network import Supernet
    from supernet.training.optimizers import OptimizerName, Precision
    from supernet.training.subnets import BitsStage, StagedSchedule


def make_supernet(space: PlannedSpace, config: SupernetConfig) -> Supernet:
    """Return a fresh supernet of ``space`` with the job's quantisers.

    Raises:
        InputError: no quantiser serves a bit-width of the space.
    """
    from supernet.network import Supernet

    return Supernet(space, quantizers=quantizer_scheme(config))


def anew(job: Job, supernet: Supernet, *, trained: bool) -> Supernet | None:
    """Return random weights for ``supernet``, the same each time, where networks may begin anew.

    What begins with what it knows of a part of the examples ends worse on others than what begins
    with nothing (Ash and Adams, On Warm-Starting Neural Network Training, NeurIPS 2020). Of 100
    unseen outlines of leaves (OSULeaf's training set; 75 to train on, 25 more at last) 83 were told
    after two parts with a teacher, 87 by labels alone, and 89 in as much time from random weights,
    by labels alone, on all 100.

    Args:
        job: of the run.
        supernet: trained.
        trained: whether it came so.

    Returns:
        None where weights or zeros were given, and without batch norm, whose networks learn slowly.
    """
    import torch

    kept = trained or job.supernet.init_from is not None or job.finetune.sparsity is not None
    if kept or not supernet.batch_normalised():
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(job.seed, "refit"))
        return make_supernet(supernet.space, job.supernet)


def optimizer_of(supernet: Supernet, config: SupernetConfig, *, trained: bool) -> OptimizerName:
    """Return what trains the shared weights that mix channels: as asked, or what suits.

    After 150 steps on letters sub-networks of a transformer named 30 % rightly by Muon and 13 by
    AdamW; of a space with batch norm the largest gained two points and the others none.
    """
    if config.optimizer is not None:
        return config.optimizer
    return "adamw" if trained or supernet.batch_normalised() else "muon"


def precision_of(config: SupernetConfig, accelerator: str) -> Precision:
    """Return what training computes in: as asked, or bfloat16 where that is no emulation.

    Args:
        config: of the job.
        accelerator: ``cpu`` or ``cuda``.
    """
    if config.precision != "auto":
        return config.precision
    return "bfloat16" if _multiplies_bfloat16(accelerator) else "float32"


def emulated_precision(config: SupernetConfig, accelerator: str) -> list[str]:
    """Return a warning where a job asks for bfloat16 of a processor that only emulates it."""
    if config.precision != "bfloat16" or _multiplies_bfloat16(accelerator):
        return []
    return [
        "supernet.precision: bfloat16 is emulated by this processor, and training takes several "
        "times as long; give precision: auto, which is float32 here"
    ]


def _multiplies_bfloat16(accelerator: str) -> bool:
    if accelerator == "cpu":
        return computes_bfloat16()
    import torch

    return torch.cuda.is_bf16_supported()


def focus_archs(config: SupernetConfig, space: PlannedSpace) -> list[Arch]:
    """Return the front of the run that the training of a job is to focus on; none without one.

    Raises:
        InputError: no run there, one that is not finished, or one of another space.
    """
    if config.focus is None:
        return []
    store = RunStore.open(Path(config.focus.run))
    if not store.results.exists():
        raise InputError(
            f"supernet.focus: the run in {store.folder} has no front yet; finish it with "
            f"'nas resume {quoted(store.folder)}' first"
        )
    front = json.loads(store.results.read_text(encoding="utf-8"))["front"]
    try:
        return [space.parse(entry["arch"]) for entry in front]
    except InputError as error:
        raise InputError(
            f"supernet.focus: the run in {store.folder} searched another space: {error}"
        ) from error


def make_schedule(
    supernet: Supernet,
    config: SupernetConfig,
    stages: Sequence[BitsStage],
    *,
    seed: int,
    focus: Sequence[Arch] = (),
) -> StagedSchedule:
    """Return the job's training schedule over the bit-widths of ``stages``.

    Args:
        supernet: to be trained.
        config: of the job.
        stages: which bit-widths are trained when.
        seed: of the job.
        focus: see :func:`focus_archs`.

    Raises:
        InputError: odds for a bit-width that no stage trains.
    """
    from supernet.training.schedules import SCHEDULES
    from supernet.training.subnets import BitOdds, Focus

    # Left out where the job does not set them, so that schedules of others need not know them.
    asked: dict[str, Any] = {}
    if config.bit_odds.weights or config.bit_odds.activations:
        asked["bit_odds"] = BitOdds(config.bit_odds.weights, config.bit_odds.activations)
    if config.float_share > 0:
        asked["float_share"] = config.float_share
    if config.focus is not None:
        asked["focus"] = Focus(tuple(focus), config.focus.share, config.focus.change)
    return SCHEDULES.get(config.schedule)(
        supernet.space,
        supernet.ranges,
        stages=stages,
        random_subnets=config.random_subnets,
        seed=seed,
        **asked,
    )
