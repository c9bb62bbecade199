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
# # From a front to one model
#
# Compare runs, devices and limits, pick a model and export it. The two runs stored beside this
# notebook searched the same space on handwritten digits, one with at most 60 KiB of weights, one
# with at most 20 KiB. Put the folders of your own runs in `RUNS`; whatever `nas run` wrote will do.

# %%
from pathlib import Path

import pandas as pd

from nas import plots
from nas.models.hand_over import export_model
from nas.report import compare
from nas.report.results import load_results, metric_of

RUNS = {"60 KiB": Path("stored/relaxed"), "20 KiB": Path("stored/tight")}
run = RUNS["60 KiB"]
results = load_results(run)
print(results["command"])
print("objectives:", ", ".join(results["goals"]))

# %% [markdown]
# ## The front
#
# Each mark is a model that was exported and measured. Bars are 95 % intervals: across, of the
# latency; upwards, of the test accuracy, which has only so many images to rest on. The small dots are
# the evaluations of the search. Hover to read a model, click an entry of the legend to hide it.

# %%
plots.front(run)

# %% [markdown]
# ## Devices
#
# A latency says where it comes from: the CPU was measured, the accelerator is a model of hardware
# and therefore estimated. `front.csv` has one row for each model and device.

# %%
table = pd.read_csv(run / "front.csv")
table.pivot(index="id", columns="device", values=["latency_ms", "latency_source", "latency_valid"])

# %%
plots.devices(run)

# %% [markdown]
# Did the devices agree on which models are fast? If not, one front cannot serve both.

# %%
latencies = table.pivot(index="id", columns="device", values="latency_ms")
print("rank correlation of the devices:")
print(latencies.corr(method="spearman").round(2))

# %% [markdown]
# ## Two runs
#
# Fronts of different budgets in one figure, with the budgets; then how far they agree. A model on
# both fronts would be named, with the largest difference of its figures.

# %%
plots.fronts(RUNS, cost="weights_kib")

# %%
print(compare(*RUNS.values()))

# %% [markdown]
# Did either search still improve when it ended? Volumes are computed against one reference point.

# %%
plots.hypervolume(RUNS)

# %% [markdown]
# ## What made the difference
#
# The share of the variance of a metric that each kind of choice explains alone. Bars that do not
# pass the line are what chance gives.

# %%
plots.importance(run)

# %%
plots.parallel_coordinates(run)

# %% [markdown]
# ## Pick one
#
# State what you need as conditions on the table. Choose on the validation metric, which is the task's
# (accuracy, or an error that is to be small): choosing by the test set would make the test figure of
# the winner too good. The limit on latency is taken on the upper end of its interval, so that the
# promise does not hang on luck.

# %%
limit_kib, limit_ms = 20.0, 0.5
fits = table[
    (table.device == "cpu") & (table.weights_kib <= limit_kib) & (table.latency_high_ms <= limit_ms)
]
metric, best_last = metric_of(results)
picked = fits.sort_values(f"validation_{metric}", ascending=best_last).iloc[-1]
picked[["id", f"validation_{metric}", metric, "latency_ms", "weights_kib", "weight_bits_mean"]]

# %%
plots.architecture(run, picked.id)

# %%
plots.accuracy_by_class(run, picked.id)

# %% [markdown]
# A latency that broke the measurement protocol is marked invalid with its reasons. Measure the model
# again on a quiet machine before you promise the figure to anyone.

# %%
entry = next(entry for entry in results["front"] if entry["id"] == picked.id)
for device, found in entry["devices"].items():
    print(device, "valid" if found["valid"] else f"invalid: {', '.join(found['reasons'])}")

# %% [markdown]
# ## Export it
#
# The ONNX file comes with a model card (Markdown for people, JSON for programs). The same as
# `nas export RUN --pick ID`.

# %%
model = export_model(run, picked.id, Path("output") / "picked")
print(sorted(path.name for path in model.parent.iterdir()))

# %% [markdown]
# It runs in any ONNX Runtime, on images normalised as the card says.

# %%
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
given = session.get_inputs()[0]
shape = [size if isinstance(size, int) else 1 for size in given.shape]
(scores,) = session.run(None, {given.name: np.zeros(shape, np.float32)})
print(given.name, given.shape, "->", scores.shape)
