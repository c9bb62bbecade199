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
# # Bits for a network you have
#
# A trained float network, and a budget: which layers can do with few bits? The sensitivity of every
# layer at every bit-width is measured on calibration images; an integer programme then finds the
# allocation that hurts least and proves it. No training; `nas bits` does the same on the command line.

# %% [markdown]
# ## The network
#
# Yours would come with its weights. This one learns the digits of scikit-learn in a few seconds.

# %%
import torch
from sklearn.datasets import load_digits
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
data = load_digits()
images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16  # (1797, 1, 8, 8)
labels = torch.tensor(data.target)
order = torch.randperm(len(images))
train, validation = order[:1400], order[1400:]


def stage(inputs, outputs, stride):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


network = nn.Sequential(
    stage(1, 16, 1), stage(16, 24, 2), stage(24, 32, 1), stage(32, 48, 2),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10),
)  # fmt: skip
optimiser = torch.optim.AdamW(network.parameters(), 5e-3)
for _ in range(8):
    for batch in train[torch.randperm(len(train))].split(100):
        loss = nn.functional.cross_entropy(network(images[batch]), labels[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
network.eval()


def accuracy(module):
    with torch.no_grad():
        found = module(images[validation]).argmax(1)
    return (found == labels[validation]).float().mean().item()


print(f"float: {accuracy(network):.4f}")

# %% [markdown]
# ## Allocate
#
# The budget is a share of what 8 bits everywhere cost, or a number of KiB. The first and the last layer
# keep 8 bits by default, which is what most published results do.

# %%
from nas.bits.search import allocate_bits

calibration = list(images[train[:256]].split(64))
result = allocate_bits(
    network, calibration, {"weights_kib": "45%"}, weight_bits=(2, 3, 4, 8), adaround=False
)
best = result.best
print("proven optimal:", best.optimal, "in", round(best.seconds, 2), "s")
for name, option in zip(result.table.layers, best.options, strict=True):
    print(f"  {name:<8} {option}")

# %%
from nas import plots

others = {other.method: other.options for other in result.others}
plots.bit_allocation(result.table.layers, {best.method: best.options, **others})

# %% [markdown]
# ## What does a smaller budget cost?
#
# Every point is a proven optimum. A steep step tells where to stop.

# %%
plots.budget_curve(result.table, "weights_kib", points=10, marked=result.others)

# %% [markdown]
# ## Is it true of the accuracy?
#
# Sensitivities are a stand-in. The quantised network is evaluated, and beside it the same budget spent
# by the simpler methods.

# %%
from nas.bits.search import STEPS, assignment
from supernet.ptq.quantize import quantize_post_training

rows = [("float", None, accuracy(network)), (best.method, best, accuracy(result.network))]
for other in result.others:
    quantised = quantize_post_training(
        network, calibration, assignment(result.table, other), steps=STEPS, seed=0
    )
    rows.append((other.method, other, accuracy(quantised)))
for method, allocation, value in rows:
    kib = "" if allocation is None else f"{allocation.costs['weights_kib']:8.2f} KiB"
    print(f"{method:<24}{value:.4f}{kib}")

# %% [markdown]
# ## Export
#
# The file is compared with the network before it is handed over.

# %%
from pathlib import Path

from nas.bits.search import write_bits

written = write_bits(result, Path("output") / "bits", images[validation[:64]])
print(sorted(path.name for path in written.parent.iterdir()))

# %%
import onnxruntime

session = onnxruntime.InferenceSession(
    written.parent / "model.onnx", providers=["CPUExecutionProvider"]
)
name = session.get_inputs()[0].name
(scores,) = session.run(None, {name: images[validation].numpy()})
agreement = (torch.tensor(scores).argmax(1) == labels[validation]).float().mean()
print(f"the file in ONNX Runtime: {agreement:.4f}")
