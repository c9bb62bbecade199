"""What a job's latency predictor knows before it meets the job's own devices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nas.job.schema import Job
from search_spaces.errors import InputError
from search_spaces.planned import PlannedSpace
from search_spaces.tables.table import LatencyTable, read_table

if TYPE_CHECKING:
    from predictors.registry import LatencyPredictor

PACKAGED = "packaged"


def known_devices(job: Job, space: PlannedSpace) -> LatencyTable | None:
    """Return the table of known devices that the job asks for; None for none.

    The tables that come with the package hold a few networks only; where they do not fit the
    space, there is nothing to know.

    Raises:
        InputError: the job's own table cannot be read, or holds other architectures.
    """
    asked = job.latency.known_devices
    if asked is None:
        return None
    if asked == PACKAGED:
        from predictors.pool import default_pool

        return default_pool(space)
    table = read_table(Path(asked), space)
    if not table.devices:
        raise InputError(f"latency.known_devices: {asked} has no column of a device")
    return table


def require_enough_known(
    job: Job, predictor: LatencyPredictor, known: LatencyTable | None, space: PlannedSpace
) -> None:
    """Refuse a latency predictor that knows or will learn too little, before any training.

    Raises:
        InputError: it does.
    """
    table = known or LatencyTable.from_archs(space, [], {})
    try:
        predictor.check_use(table, job.search.latency_samples)
    except InputError as error:
        raise InputError(
            f"latency.predictor: {job.latency.predictor}: {error} "
            f"(search.latency_samples: {job.search.latency_samples}, latency.known_devices: "
            f"{job.latency.known_devices or 'null'}, which gives {len(table.devices)})"
        ) from error
