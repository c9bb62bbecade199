"""A run folder whose supernet was never trained, for studies that do not mind."""

from __future__ import annotations

from nas.job.schema import Job
from nas.record.run_folder import RunStore
from search_spaces import build_space

STAGES = [
    {"channels": 8, "stride": 1, "depths": [1, 2]},
    {"channels": 16, "stride": 2, "depths": [1, 2]},
]
SPACE = {
    "name": "mobilenet",
    "preset": "8x8",
    "stages": STAGES,
    "stem_channels": 4,
    "head_channels": 8,
    "exits": [1],
}


def run_of(folder, space, **more):
    """A run whose supernet was never trained: the study does not mind."""
    import torch

    from supernet.network import Supernet
    from supernet.training.checkpoint import save_checkpoint

    job = Job.model_validate(
        {
            "name": "tiny",
            "data": {"name": "digits", "calibration": 64},
            "space": space,
            "devices": [{"name": "npu", "simulator": "roofline", "hardware": "bitfusion-16x32"}],
            **more,
        }
    )
    store = RunStore.create(folder, {"job": job.resolved()})
    store.checkpoint.parent.mkdir()
    torch.manual_seed(0)
    keys = {key: value for key, value in space.items() if key != "name"}
    supernet = Supernet(build_space("mobilenet", input_channels=1, outputs=10, **keys))
    tensors = {f"model.{name}": value for name, value in supernet.state_dict().items()}
    save_checkpoint(store.checkpoint, tensors, {"step": 1, "recipe": {"steps": 1}})
    return folder
