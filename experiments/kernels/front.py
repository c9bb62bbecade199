"""Does latency in the low-bit runtime order by bits? From a run of experiments/low_bits.yaml.

    nas run experiments/low_bits.yaml --output RUN
    python -m experiments.kernels.front RUN

The job's network with all its searched layers at each pair of bits, exported from the run's
supernet, and the models of the run's front are timed in turn in one process. Writes them with the
front and records the rank correlation of latency and bit operations over the uniform pairs; as it
is one network, the order of its bit operations is the order of its bits.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from search_spaces.atomic import write_json_atomic

RESULTS = Path(__file__).parents[1] / "results" / "kernels"
TARGET = 0.8
ROUNDS = 200


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    options = parser.parse_args()
    from experiments.kernels.bench import machine
    from experiments.results_index import record_claim

    manifest = json.loads((options.run / "manifest.json").read_text(encoding="utf-8"))
    parameters = manifest["job"]["devices"][0]["options"]
    with tempfile.TemporaryDirectory() as folder:
        uniform = uniform_models(options.run, manifest, Path(folder))
        # A run that has not ended has no front yet; its supernet is enough for the uniform bits.
        path = options.run / "front.csv"
        found = front(path) if path.is_file() else []
        files = {row["id"]: options.run / "models" / f"{row['id']}.onnx" for row in found}
        ms = timed({k: path for k, (path, _) in uniform.items()} | files, parameters)
    rows = [{"bits": k, **costs, **ms[k]} for k, (_, costs) in uniform.items()]
    command = "nas run experiments/low_bits.yaml && python -m experiments.kernels.front RUN"
    document = {
        "machine": machine(),
        "command": command,
        "job": manifest["job"],
        "runtime_parameters": parameters,
        "spearman_latency_bops": rank_correlation(rows),
        "uniform": sorted(rows, key=lambda row: row["median_ms"]),
        "front": [row | {"interleaved": ms[row["id"]]} for row in found],
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_json_atomic(RESULTS / "low_bits_front.json", document)
    value = document["spearman_latency_bops"]
    record_claim(
        "kernel.front_orders_by_bits",
        value,
        TARGET,
        value >= TARGET,
        "experiments/results/kernels/low_bits_front.json",
        command,
    )
    print(f"Spearman of latency and bits {value}: {document['uniform']}")
    return 0


def uniform_models(
    run: Path, manifest: dict[str, Any], folder: Path
) -> dict[str, tuple[Path, dict[str, float]]]:
    """Return file and costs of the network at each pair of bits, by name (``w2a4``)."""
    from nas.job.schema import Job
    from nas.record.run_folder import RunStore
    from nas.stages.opened_job import RunContext
    from search_spaces.bits import set_bits
    from supernet.onnx.export import export_onnx

    context = RunContext.of(Job.model_validate(manifest["job"]), threads=1)
    supernet = context.evaluator(RunStore.open(run)).supernet
    space, splits = context.space, context.splits
    x, _ = next(splits.evaluation_batches(splits.calibration, batch_size=256))
    made = {}
    for w in manifest["job"]["space"]["weight_bits"]:
        for a in manifest["job"]["space"]["activation_bits"]:
            genes = set_bits(space, space.genes([space.largest()]), w, a)
            plan = space.plan(space.decode(genes)[0])
            network = supernet.extract(plan, supernet.statistics(plan, [x])).eval()
            path = folder / f"w{w}a{a}.onnx"
            export_onnx(network, path)
            made[path.stem] = (path, {"bops": plan.bops, "weights_kib": plan.weights_kib})
    return made


def timed(files: dict[str, Path], parameters: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Time the models in turn in the low-bit runtime: quartiles in ms."""
    import numpy as np

    from devices.runtime import make_runtime, random_inputs
    from experiments.kernels.contenders import interleave

    runtime = make_runtime("lowbit", parameters)
    runs = {}
    for name, path in files.items():
        session = runtime.load(path)
        runs[name] = session.bind(*random_inputs(session.inputs, 0))
    times = interleave(runs, ROUNDS)
    return {
        name: dict(
            zip(
                ("q1_ms", "median_ms", "q3_ms"),
                (round(float(q), 5) for q in np.percentile(v, (25, 50, 75))),
                strict=True,
            )
        )
        for name, v in times.items()
    }


def rank_correlation(rows: list[dict[str, Any]]) -> float:
    """Return Spearman's coefficient of median latency and bit operations."""
    from scipy.stats import spearmanr

    pairs = [[row["median_ms"] for row in rows], [row["bops"] for row in rows]]
    return round(float(spearmanr(*pairs)[0]), 3)


def front(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a front: accuracy on the test set, latency, bits and sizes."""
    names = (
        "id", "accuracy", "latency_ms", "latency_low_ms", "latency_high_ms",
        "weight_bits_mean", "activation_bits_mean", "weights_kib", "size_kib",
    )  # fmt: skip
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{n: row[n] if n == "id" else float(row[n]) for n in names} for row in rows]


if __name__ == "__main__":
    sys.exit(main())
