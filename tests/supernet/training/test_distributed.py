"""Two processes train as one does: same losses, same weights, within rounding."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from search_spaces.errors import InputError
from supernet.training import distributed

SCRIPT = """
import json, sys
import torch
from pathlib import Path
from torch.nn import functional as F
from nas.job.sections.data import DataConfig
from nas.data.splits import load_splits
from search_spaces import build_space
from supernet.training import distributed
from supernet.network import Supernet
from supernet.training.subnets import BitsStage, SandwichSampler
from supernet.training.train import Recipe, Trainer

torch.set_num_threads(1)
with distributed.process_group():
    splits = load_splits(DataConfig(name="digits"), 0)
    stages = [{"channels": 8, "stride": 1, "depths": [1, 2]}]
    space = build_space(
        "mobilenet", preset="8x8", stages=stages, stem_channels=4, head_channels=8,
        kernels=[3], input_channels=1, outputs=10,
    )
    # A module may draw its weights otherwise in each process; those of the first count.
    torch.manual_seed(distributed.rank())
    supernet = Supernet(space)
    trainer = Trainer(
        supernet,
        sampler=SandwichSampler(
            space, supernet.ranges,
            stages=[BitsStage(0.25, (8,)), BitsStage(0.5, (8, 4, 2))], random_subnets=1,
        ),
        batches=splits.training_batches(32, seed=0),
        loss=F.cross_entropy,
        distillation_loss=lambda a, b: F.cross_entropy(a, b.softmax(1)),
        recipe=Recipe(steps=8, learning_rate=0.005),
        checkpoint=Path(sys.argv[1]),
    )
    records = []
    trainer.on_step = records.append
    trainer.run()
    if distributed.rank() == 0:
        Path(sys.argv[2]).write_text(json.dumps([distributed.world_size(), records]))
"""


def run(processes: int, folder: Path) -> tuple[list[dict], dict[str, torch.Tensor]]:
    from supernet.training.checkpoint import load_checkpoint

    script, losses = folder / "train.py", folder / f"{processes}.json"
    script.write_text(SCRIPT)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
        launcher += ["--master-addr=127.0.0.1", f"--master-port={port}"]
    checkpoint = folder / f"{processes}.safetensors"
    done = subprocess.run(
        [*launcher, str(script), str(checkpoint), str(losses)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    world, records = json.loads(losses.read_text())
    assert world == processes
    return records, load_checkpoint(checkpoint)[0]


@pytest.mark.slow
def test_torchrun_with_two_processes_gives_the_losses_of_one(tmp_path):
    alone, weights = run(1, tmp_path)
    together, shared_weights = run(2, tmp_path)
    assert len(alone) == len(together) == 8
    for one, two in zip(alone, together, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=0.02)
        assert two["subnet_loss"] == pytest.approx(one["subnet_loss"], rel=0.02, abs=1e-6)
    # Before rounding of codes can differ, the two agree to float precision.
    assert together[0]["loss"] == pytest.approx(alone[0]["loss"], rel=1e-5)
    name = "model.layers.stem.weight"
    assert torch.allclose(weights[name], shared_weights[name], atol=0.02)


def test_alone_nothing_is_shared():
    assert distributed.world_size() == 1 and distributed.rank() == 0
    x = torch.arange(6.0)
    assert torch.equal(distributed.own_part(x), x)
    assert distributed.average_values([1.0, 2.0]) == [1.0, 2.0]
    with distributed.process_group():
        assert distributed.world_size() == 1


def test_a_batch_that_cannot_be_divided_is_refused(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 4)
    with pytest.raises(InputError, match=r"10 images .* 4 processes.*multiple of 4"):
        distributed.own_part(torch.zeros(10))
