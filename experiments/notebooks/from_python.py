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
# # From data to files, in Python
#
# Everything here is a function of `nas`; each does what a command does, with the same results. The job
# is tiny, so that the notebook runs in less than a minute and its front means nothing: leave out `supernet`,
# `search` and `protocol`, and give `budget: {minutes: 25}`, for one that does.

# %%
import nas
from nas import plots

# %% [markdown]
# ## A job
#
# A mapping of the keys that a job file holds (`nas.load_job` reads such a file). Every mistake is told
# at once, as `nas validate` tells it.

# %%
VALUES = {
    "name": "tiny",
    "threads": 1,
    "data": {"name": "digits", "validation": 0.2, "calibration": 128},
    "space": {
        "name": "mobilenet",
        "preset": "8x8-lean",
        "weight_bits": [4, 8],
        "activation_bits": [8],
    },
    "supernet": {"epochs": 1, "batch_size": 64},
    "search": {
        "objectives": ["accuracy", "latency_ms", "weights_kib"],
        "evaluations": 8,
        "initial": 6,
        "batch": 2,
        "latency_samples": 4,
        "front_size": 2,
    },
    "protocol": {
        "processes": 2,
        "runs": 10,
        "min_sample_ms": 0.1,
        "warmup_max_s": 0.5,
        "retries": 0,
    },
}
job = nas.make_job(VALUES)
try:
    nas.make_job({**VALUES, "devices": [{"name": "cpu", "runtime": "onnxruntimee"}]})
except nas.InputError as mistake:
    print(mistake)

# %% [markdown]
# ## How long it would take
#
# What `nas run --dry-run` prints.

# %%
print("\n".join(nas.estimate(job).lines()))

# %% [markdown]
# ## Run it
#
# Progress goes to standard error. A kernel that was interrupted goes on with `nas.resume(run)`, and
# while it runs `nas watch RUN` in a terminal shows it in a browser. A finished run is left as it is.

# %%
run = nas.run(job, "runs/tiny")
assert nas.resume(run) == run

# %% [markdown]
# ## What it found
#
# `results` holds everything that the report shows, typed: models of the front with their figures,
# evaluations, measurements. Plots take the folder of a run, or its results.

# %%
results = nas.load_results(run)
for model in results.front:
    latency = model.devices["cpu"].latency_ms
    print(
        f"{model.id}  {model.test_accuracy:.3f}  {latency:.4f} ms  {model.costs['weights_kib']:.1f} KiB"
    )

# %%
plots.front(run)

# %%
plots.training(run)

# %% [markdown]
# ## Against other runs
#
# Fronts of any runs against one reference point, such as those of other seeds
# (`nas.run(VALUES, "runs/second", seed=1)`); here the two that are stored beside this notebook.

# %%
STORED = {"60 KiB": "stored/relaxed", "20 KiB": "stored/tight"}
comparison = nas.compare(list(STORED.values()), objectives=["accuracy", "weights_kib"])
print("\n".join(comparison.lines()))

# %%
plots.fronts(STORED, cost="weights_kib")

# %% [markdown]
# ## Files for the device
#
# The knee of the front in two formats, with its model card; each is checked against the ONNX file.

# %%
for written in nas.export(run, "knee", "handover", formats=["onnx", "c"]):
    print(written.format, written.files[0], written.relative_error, written.note)

# %% [markdown]
# ## Measure them again
#
# Any model file, by the whole protocol or a quick one; `hub=`, `board=` and `token_file=` measure on a
# board instead of here.

# %%
card = next(model for model in results.front if model.knee)
(measured,) = nas.measure([f"handover/{card.id}.onnx"], protocol={"processes": 2, "runs": 10})
print(
    f"{measured.latency_ms:.4f} ms, 95 % interval {measured.low_ms:.4f} to {measured.high_ms:.4f}"
)

# %% [markdown]
# ## Tell others
#
# The report again, as one HTML file; and the run in a tool that you use: `nas.track(run, "wandb",
# mode="offline")`, `"mlflow"` with its `uri`, or `"tensorboard"`.

# %%
print(nas.write_report(run))
