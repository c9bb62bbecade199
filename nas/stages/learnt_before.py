"""What weights to start from have learnt of the images that are to judge them.

Seeds divide a data set without a test set of its own, so weights of a run with another seed, or
of the same folder before pictures came to it, know most of the new test images by heart.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.data.images import FileImages
from nas.record.run_folder import RunStore
from nas.stages.opened_job import loaded
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from nas.data.splits import DataSplits
    from nas.job.schema import Job

_JUDGES = ("test", "validation")


def require_unseen(job: Job, splits: DataSplits, record: Mapping[str, Any]) -> list[str]:
    """Refuse weights to start from that have learnt from test images of this job.

    Args:
        job: of the new run.
        splits: its data.
        record: of the data, as a manifest has it.

    Returns:
        A warning for weights that have learnt from images which guide the search.

    Raises:
        InputError: the weights learnt from test images, or may have.
    """
    if job.supernet.init_from is None:
        return []
    weights = Path(job.supernet.init_from)
    warnings = []
    for store in _runs_behind(weights):
        older = store.manifest()
        for part in _JUDGES:
            seen = _seen(part, store, older["data"], splits, record)
            if seen == 0:
                continue
            how_many = "nobody can tell how many" if seen is None else str(seen)
            count = record["splits"][part]["images"]
            what = (
                f"supernet.init_from: the run {store.folder}, which {weights} comes from, learnt "
                f"from {how_many} of the {count} {part} examples of this job, since it divided "
                f"{record['origin']} otherwise (seed {older['data']['seed']} there, "
                f"{record['seed']} here) or the data there has changed"
            )
            if part == "test":
                raise InputError(
                    f"{what}; take over seed and data of that run's job, give the data a test set "
                    "of its own, or start afresh"
                )
            warnings.append(f"{what}; accuracies that guide the search are too high")
    return warnings


def _runs_behind(weights: Path) -> list[RunStore]:
    """Return the run that a file of weights lies in, and those which that one started from."""
    found: list[RunStore] = []
    while True:
        folder = next((f for f in weights.parents if (f / "manifest.json").is_file()), None)
        if folder is None or any(store.folder == folder for store in found):
            return found
        store = RunStore(folder)
        if "data" in store.manifest():
            found.append(store)
        further = store.manifest().get("job", {}).get("supernet", {}).get("init_from")
        if further is None:
            return found
        weights = Path(further)


def _seen(
    part: str,
    store: RunStore,
    older: Mapping[str, Any],
    splits: DataSplits,
    record: Mapping[str, Any],
) -> int | None:
    """Return how many examples of a set an older run learnt from; None if that cannot be told.

    Sets are compared by what the manifests say: the digest of a source, and of the numbers of the
    examples within it. The older division is made again only where those leave it open.
    """
    then, now = older["splits"], record["splits"]
    # Each run's own sets have nothing in common with what it learns from.
    if then[part] == now[part] or then["train"] == now["train"]:
        return 0
    if older["origin"] != record["origin"]:
        return 0
    own_source = now[part]["source_sha256"] != now["train"]["source_sha256"]
    if own_source and now[part]["source_sha256"] != then["train"]["source_sha256"]:
        return 0
    in_files = isinstance(splits.train.images, FileImages)
    if in_files and now[part]["source_sha256"] != then["train"]["source_sha256"]:
        return None
    _, again = loaded(store.job())
    if again.record()["splits"] != then and in_files:
        return None
    # The numbers are those of the same examples, though arrays may have another size or colours.
    mine = splits.validation.indices if part == "validation" else splits.test_indices
    return len(np.intersect1d(again.train.indices.numpy(), mine.numpy()))
