"""Which layers of a job's models have zeros, and what sparse storage would take: told, not used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search_spaces.errors import InputError
from search_spaces.sparsity import Sparsity, layer_sparsity, sparse_kib

if TYPE_CHECKING:
    from nas.job.schema import Job
    from search_spaces.plan import NetworkPlan
    from search_spaces.planned import PlannedSpace

ESTIMATE = "sparse_weights_kib"
"""Key of the estimate among the costs of a model."""


def patterns_of(job: Job, plan: NetworkPlan, *, strict: bool = False) -> dict[str, Sparsity]:
    """Return the pattern of each layer of an architecture, by name; empty where none is asked for.

    Args:
        job: with ``finetune.sparsity``.
        plan: of the architecture.
        strict: refuse layers that are named and cannot have their pattern; otherwise they stay
            dense, as layers of some widths do.

    Raises:
        InputError: as of ``strict``.
    """
    asked = job.finetune.sparsity
    if asked is None:
        return {}
    layers = list(plan.layers())
    formats = {
        layer.name: job.supernet.quantizers.weight_format(layer.weight_bits) for layer in layers
    }
    return layer_sparsity(layers, asked.default(), asked.named(), formats=formats, strict=strict)


def require_sparsity(job: Job, space: PlannedSpace) -> None:
    """Refuse a sparsity that a job's networks cannot have, before anything is trained.

    Raises:
        InputError: a layer that is named is not there or cannot be sparse, or no layer can.
    """
    if job.finetune.sparsity is None:
        return
    try:
        found = patterns_of(job, space.plan(space.largest()), strict=True)
    except InputError as error:
        raise InputError(f"finetune.sparsity: {error}") from None
    if all(pattern.dense for pattern in found.values()):
        raise InputError(
            f"finetune.sparsity: no layer of {space.name!r} can have the pattern "
            f"{job.finetune.sparsity.pattern}; give a share of zeros such as 50%"
        )


def sparse_cost(plan: NetworkPlan, patterns: dict[str, Sparsity]) -> dict[str, float]:
    """Return the estimate of sparse storage by :data:`ESTIMATE`, empty where nothing is sparse."""
    if all(pattern.dense for pattern in patterns.values()):
        return {}
    beside = 4 * sum(operator.parameters for operator in plan.operators()) / 1024
    return {ESTIMATE: sparse_kib(list(plan.layers()), patterns) + beside}
