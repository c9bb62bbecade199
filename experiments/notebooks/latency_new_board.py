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
# # The latency predictor on a new board
#
# Ten measurements of a board nobody has seen, and predictions with intervals for every other
# architecture. The table that comes with the package knows sixteen devices: runtimes of one x86
# machine, and models of accelerators. One of them, `ncnn`, plays the new board here: nothing but the
# ten measurements below is read from its column, until the end, when all of it scores the predictions.

# %%
import numpy as np

from nas import plots
from predictors.pool import packaged_table
from predictors.transfer_gp.predictor import TransferGP

BOARD = "ncnn"
table = packaged_table("28x28")
known = [device for device in table.devices if device != BOARD]
print(len(table.archs), "architectures;", "known devices:", ", ".join(known))

# %% [markdown]
# ## Learn from the known devices
#
# Once; `nas latency fit` does the same on the command line and stores the result in one file.

# %%
predictor = TransferGP(table.space).meta_fit(table.select(known))

# %% [markdown]
# ## What to measure
#
# Architectures that are spread evenly over what the devices could disagree on.

# %%
measured_ms = table.column(BOARD)
candidates = np.flatnonzero(np.isfinite(measured_ms))
suggested = predictor.suggest_genes(table.genes[candidates], 10, np.random.default_rng(0))
rows = candidates[suggested]
for row in rows[:3]:
    print(str(table.archs[row])[:100], "...")

# %% [markdown]
# ## Measure
#
# Here the column answers. A real board runs `nas agent` and is measured through the hub:
#
# ```text
# nas device measure MODEL.onnx ... --hub URL --token-file FILE --device BOARD
# ```
#
# A CSV with the columns `arch` and `BOARD` is all that `nas latency adapt` wants of it.

# %%
ten_ms = measured_ms[rows]
print(np.round(ten_ms, 3))

# %% [markdown]
# ## Adapt
#
# A few milliseconds: no gradient steps, the posterior is in closed form.

# %%
board = predictor.adapt_genes(table.genes[rows], ten_ms)
rest = np.setdiff1d(candidates, rows)
mean_ms, _ = board.predict_genes(table.genes[rest])
low_ms, high_ms = board.interval_genes(table.genes[rest], 0.9)

# %% [markdown]
# ## How good is it?
#
# Only now the rest of the column is looked at.

# %%
truth_ms = measured_ms[rest]
inside = np.mean((low_ms <= truth_ms) & (truth_ms <= high_ms))
error = np.mean(np.abs(mean_ms / truth_ms - 1))
ranks = [np.argsort(np.argsort(values)) for values in (mean_ms, truth_ms)]
print(f"rank correlation {np.corrcoef(*ranks)[0, 1]:.3f}")
print(f"mean error {error:.1%}; {inside:.0%} inside the 90 % interval, of {len(rest)}")

# %%
plots.prediction(
    truth_ms,
    mean_ms,
    low_ms=np.maximum(low_ms, 1e-6),
    high_ms=high_ms,
    names=[str(row) for row in rest],
    title=f"{BOARD} from ten measurements, 90 % intervals",
)

# %% [markdown]
# Against what the ten measurements alone would give: ridge regression sees no other device.

# %%
from predictors.baselines import Ridge

alone = Ridge(table.space).meta_fit(table.select(known))
alone_ms, _ = alone.adapt_genes(table.genes[rows], ten_ms).predict_genes(table.genes[rest])
ranks = [np.argsort(np.argsort(values)) for values in (alone_ms, truth_ms)]
print(f"ridge on the ten alone: rank correlation {np.corrcoef(*ranks)[0, 1]:.3f}")

# %% [markdown]
# ## Which devices does it resemble?
#
# Devices that rank architectures alike lie close together. A new device far from all others is one
# the table helps little with: measure more of its architectures, and trust the intervals.

# %%
for name, value in sorted(predictor.resemblance(board).items(), key=lambda item: -item[1])[:5]:
    print(f"{name:<24}{value:6.3f}")

# %%
names, points = predictor.embedding({BOARD: board})
plots.device_map(names, points, highlighted=[BOARD])

# %% [markdown]
# ## Will it keep a budget?
#
# The probability that a latency is within the budget, rather than a yes or no. `search.confidence`
# of a job asks for so much of it. Measure the ones in between.

# %%
budget_ms = float(np.median(mean_ms))
probability = board.probability_within_genes(table.genes[rest], budget_ms)
for low, high in ((0.95, 1.01), (0.05, 0.95), (-0.01, 0.05)):
    chosen = (probability > low) & (probability <= high)
    held = np.mean(truth_ms[chosen] <= budget_ms) if chosen.any() else float("nan")
    print(
        f"P in ({max(low, 0):.2f}, {min(high, 1):.2f}]: {chosen.sum():3d} architectures, "
        f"{held:.0%} of them within {budget_ms:.3f} ms"
    )
