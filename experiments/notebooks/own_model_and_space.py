# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own model and space
#
# Take an `nn.Module`, name which of its layers may vary, look at the space before anything is
# trained, run a job on it, and read the result. The network here is a small residual one; replace it
# by yours.

# %%
module_text = """
from torch import nn
from torch.nn import functional as F

from supernet.own_model.wrap import wrap


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        h = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(h)))


class Net(nn.Module):
    def __init__(self, channels, outputs):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        self.blocks = nn.Sequential(Block(16), Block(16), Block(16))
        self.classifier = nn.Linear(16, outputs)

    def forward(self, x):
        return self.classifier(self.blocks(self.stem(x)).mean((2, 3)))


def make_space(*, input_channels, outputs, weight_bits=(2, 4, 8), activation_bits=(4, 8)):
    return wrap(
        Net(input_channels, outputs),
        input_shape=(input_channels, 8, 8),
        name="notebook-net",
        widths={"stem.0": [0.5, 1.0], "blocks.*.conv1": [0.5, 0.75, 1.0]},
        depths={"blocks": [1, 2, 3]},
        weight_bits=weight_bits,
        activation_bits=activation_bits,
    )
"""

# %% [markdown]
# A job names the function as `module:function`, so it lives in a file.

# %%
import sys
from pathlib import Path

folder = Path("output") / "own-model"
folder.mkdir(parents=True, exist_ok=True)
(folder / "notebook_net.py").write_text(module_text)
sys.path.insert(0, str(folder))

import numpy as np
from notebook_net import make_space

from nas import plots

space = make_space(input_channels=1, outputs=10)
print(f"{space.cardinality():,} architectures")
for choice in space.choices[:8]:
    print(f"  {choice.name:<28}{choice.options}")

# %% [markdown]
# ## Look before you train
#
# Costs are exact and need no training. If no architecture fits your board, you learn it now.

# %%
genes = space.sample_genes(np.random.default_rng(0), 2000)
costs = space.costs(genes)
for name in ("macs", "weights_kib", "peak_memory_kib", "weight_bits_mean"):
    if name in costs:
        print(f"{name:<20}{costs[name].min():12.2f} to {costs[name].max():.2f}")
print(f"{np.mean(costs['weights_kib'] <= 8):.0%} of random architectures have at most 8 KiB")

# %%
smallest, largest = space.smallest(), space.largest()
for arch in (smallest, largest):
    plan = space.plan(arch)
    print(
        len(list(plan.layers())), "layers,", plan.macs, "MACs,", round(plan.weights_kib, 2), "KiB"
    )

# %% [markdown]
# ## Any variant is a network
#
# The supernet holds the largest weights of every layer; `extract` gives a plain module with the same
# outputs. Batch norm statistics belong to one variant at its bits, so they are computed from images.

# %%
import torch

from supernet.network import Supernet

torch.set_num_threads(1)
supernet = Supernet(space)
arch = space.sample(np.random.default_rng(1))
images = torch.randn(64, 1, 8, 8)
statistics = supernet.statistics(arch, [images])
network = supernet.extract(arch, statistics)
print("same outputs:", torch.equal(network(images), supernet.evaluate(images, arch, statistics)))

# %% [markdown]
# ## A job
#
# Training is so short here that the notebook runs in a minute; take twenty times the epochs and
# evaluations for figures that mean something.

# %%
(folder / "job.yaml").write_text("""\
name: notebook
threads: 1
data: {name: digits, validation: 0.2, calibration: 256}
space:
  name: notebook_net:make_space
supernet: {epochs: 2, warmup_epochs: 0.5, batch_size: 128}
search:
  objectives: [accuracy, latency_ms, weights_kib]
  constraints: {weights_kib: {max: 8}}
  evaluations: 9
  initial: 6
  batch: 3
  latency_samples: 3
  front_size: 2
protocol: {processes: 2, runs: 10, retries: 0}
""")

import nas
from nas.stages import pipeline

job = nas.load_job(folder / "job.yaml")
run = folder / "run"
if not (run / "results.json").exists():
    pipeline.run(job, run)

# %%
plots.front(run, cost="weights_kib", split="validation")

# %%
plots.architecture(run)

# %%
import pandas as pd

pd.read_csv(run / "front.csv")[
    ["id", "validation_accuracy", "latency_ms", "latency_valid", "weights_kib", "weight_bits_mean"]
]

# %% [markdown]
# `output/own-model/run/report.html` shows all of it. Layers that cannot vary, and what to do about
# them: see "Your own model" in the documentation.
