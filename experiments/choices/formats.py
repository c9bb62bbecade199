"""Number formats beside integers, after training, on one network a seed.

Codes against ``ml_dtypes``; INT8 against FP8 on a convolutional network as it is and with outliers
in its activations; formats of 4 to 6 bits beside integers of as many; shift weights beside ternary
ones, and OneBit's value vectors beside plain binary weights, both trained::

    python -m experiments.choices.formats [--seeds 3] [--epochs 5]

Seeds that the table holds are kept, so the default adds what is missing.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.choices import next_byte
from experiments.choices.material import (
    accuracy,
    by_seed,
    calibration,
    convolutions,
    fashion,
    keep,
    test_batches,
    train,
)
from experiments.choices.next_byte import NextByte, Text
from experiments.choices.references import REFERENCES
from experiments.results_index import record_claim
from search_spaces.number_formats import NUMBER_FORMATS
from supernet.ptq.quantize import quantize_post_training
from supernet.quantizers.registry import QUANTIZERS
from supernet.weight_only.onebit import OneBitLinear

COMMAND = "python -m experiments.choices.formats"
EIGHT = ("fp8_e4m3", "fp8_e5m2", "fp8_e3m4")
FEW = (6, "fp6_e2m3", "fp6_e3m2", "hot2", 4, "fp4_e2m1", "nf4", "bitmod4", "shift4", 3, "bitmod3",
       "shift3")  # fmt: skip
RATES = (3e-3, 1e-3)
"""Tried for each kind of one-bit weights; the validation images choose."""

TRAINED = (("twn", 2), ("ttq", 2), ("lsq", 2), ("shift2", 2), ("shift3", 3))
"""Weights that are trained at few bits: ternary ones, LSQ, and signed powers of two."""

STEPS, TRAINED_STEPS = 2000, 1000
"""Of the network that tells bytes, in float and then at few bits."""

OUTLIERS = 64.0
"""Of one channel in eight, how much larger it is made."""


def bit_exact() -> dict[str, int]:
    """Return, by format, how many of a million numbers and of all codes differ from ml_dtypes."""
    import ml_dtypes

    rng = np.random.default_rng(0)
    found = {}
    for name, other in REFERENCES.items():
        chosen, kind = NUMBER_FORMATS.get(name), getattr(ml_dtypes, other)
        size = np.exp(rng.uniform(-14, 13, 1_000_000))
        x = (size * rng.choice([-1, 1], len(size))).astype(np.float32)
        _, values, middles = chosen.ladder()
        x = np.concatenate([x, values, -values, middles, -middles]).astype(np.float32)
        x = np.clip(x, -chosen.largest(), chosen.largest())
        wrong = int((chosen.encode(x) != x.astype(kind).view(np.uint8)).sum())
        codes = np.arange(2**chosen.bits, dtype=np.uint8)
        theirs = codes.view(kind).astype(np.float32)
        finite = np.isfinite(theirs)
        wrong += int((chosen.decode(codes)[finite] != theirs[finite]).sum())
        wrong += int((np.isfinite(chosen.values()) != finite).sum())
        found[name] = wrong
    return found


def with_outliers(network: nn.Sequential, factor: float = OUTLIERS) -> nn.Sequential:
    """Return the same function with one activation channel in eight ``factor`` times larger."""
    found = copy.deepcopy(network)
    convolutions_ = [m for m in found if isinstance(m, nn.Conv2d)]
    norms = [m for m in found if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm, after in zip(norms, convolutions_[1:], strict=False):
            rows = torch.arange(0, norm.num_features, 8)
            norm.weight[rows] *= factor
            norm.bias[rows] *= factor
            after.weight[:, rows] /= factor
    return found


def post_training(network: nn.Sequential, splits: Any, tests: Any) -> dict[str, float]:
    """Return test accuracy by row of the table."""
    images = calibration(splits)
    rows: dict[str, float] = {"float": accuracy(network, tests)}
    outliers = with_outliers(network)

    def add(name: str, module: nn.Module, bits: Any, steps: Any = ("mse", "bias"), group: int = 0):
        quantised = quantize_post_training(
            module, images, bits, steps=steps, edge_bits=8, group=group
        )
        rows[name] = accuracy(quantised, tests)

    for kind, module in (("", network), ("outliers: ", outliers)):
        add(f"{kind}int8", module, (8, 8))
        add(f"{kind}int8, equalised", module, (8, 8), ("equalize", "mse", "bias"))
        for name in EIGHT:
            quantised = quantize_post_training(
                module, images, (name, name), steps=("mse", "bias"), edge_bits=None
            )
            rows[f"{kind}{name}"] = accuracy(quantised, tests)
    for number in FEW:
        told = f"int{number}" if isinstance(number, int) else number
        add(f"weights {told}", network, (number, 8))
        if isinstance(number, str):
            add(f"weights {told}, groups of 32", network, (number, 8), group=32)
    return rows


class TrainedWeights(nn.Module):
    """A convolution or linear layer whose weights are quantised while it is trained."""

    def __init__(self, layer: Any, name: str, bits: int) -> None:
        super().__init__()
        self.layer, self.bits = layer, bits
        kind = QUANTIZERS.get(name).weights
        assert kind is not None
        kernel = layer.weight.shape[-1] if layer.weight.dim() == 4 else 1
        self.quantizer = kind(
            [bits], [kernel], channels=len(layer.weight), count=layer.weight.numel()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Run the layer with its weights quantised."""
        weight = self.layer.weight
        shaped = weight if weight.dim() == 4 else weight[:, :, None, None]
        quantised = self.quantizer(shaped, self.bits, full=shaped).view_as(weight)
        if weight.dim() == 2:
            return F.linear(x, quantised, self.layer.bias)
        return F.conv2d(x, quantised, self.layer.bias, self.layer.stride, self.layer.padding)


def trained_weights(
    network: nn.Sequential, name: str, bits: int, splits: Any, tests: Any, seed: int, epochs: float
) -> float:
    """Return the test accuracy of a trained network that is trained on with few weight bits."""
    student = copy.deepcopy(network)
    inner = [i for i, m in enumerate(student) if isinstance(m, (nn.Conv2d, nn.Linear))][1:-1]
    for i in inner:
        student[i] = TrainedWeights(student[i], name, bits)
    train(student, splits, epochs=epochs, rate=0.02, seed=seed + 100, teacher=network,
          weight_decay=0.0)  # fmt: skip
    return accuracy(student, tests)


def best_of_rates(
    network: NextByte, make: Callable[[nn.Linear], nn.Module], source: Text, seed: int, steps: int
) -> tuple[NextByte, dict[str, float]]:
    """Return ``network`` trained on with other inner layers, at the rate that validates best."""
    found = []
    for rate in RATES:
        student = copy.deepcopy(network)
        for i in student.inner():
            student.body[i] = make(student.body[i])
        before = next_byte.accuracy(student, source, source.test)
        next_byte.fit(student, source, steps=steps, rate=rate, seed=seed + 100, teacher=network)
        validated = next_byte.accuracy(student, source, source.validation)
        found.append((validated, rate, before, student))
    _, rate, before, student = max(found, key=lambda one: one[0])
    return student, {"rate": rate, "not trained": before}


def few_bits(network: NextByte, source: Text, seed: int, steps: int) -> dict[str, float]:
    """Return test accuracies of weights of 2 and 3 bits, by kind."""
    rows = {"float": next_byte.accuracy(network, source, source.test)}
    for name, bits in TRAINED:
        student, told = best_of_rates(
            network, lambda layer, n=name, b=bits: TrainedWeights(layer, n, b), source, seed, steps
        )
        rows[f"{name}, {bits} bits, rate"] = told["rate"]
        rows[f"{name}, {bits} bits"] = next_byte.accuracy(student, source, source.test)
    return rows


def one_bit(network: NextByte, source: Text, seed: int, steps: int) -> dict[str, float]:
    """Return accuracies of plain binary weights and of OneBit's, and the latter's bits a weight."""
    rows = {"float": next_byte.accuracy(network, source, source.test)}
    for kind in ("binary", "onebit"):

        def made(layer: nn.Linear, kind: str = kind) -> nn.Module:
            return OneBitLinear(layer) if kind == "onebit" else TrainedWeights(layer, "binary", 1)

        student, told = best_of_rates(network, made, source, seed, steps)
        rows |= {f"{kind}, {what}": value for what, value in told.items()}
        if kind == "onebit":
            # What is told is that of the packed codes and vectors.
            packed = {i: student.body[i].grouped() for i in network.inner()}
            weights = sum(p.shape[0] * p.shape[1] for p in packed.values())
            vectors = sum(p.scales.nbytes + p.factor.nbytes for p in packed.values())
            rows["onebit, bits a weight"] = 1 + 8 * vectors / weights
            for i, p in packed.items():
                held = nn.Linear(*reversed(p.shape))
                held.weight.data = torch.from_numpy(p.dequantised())
                held.bias.data = torch.from_numpy(p.bias)
                student.body[i] = held
        rows[kind] = next_byte.accuracy(student, source, source.test)
    return rows


def one_seed(seed: int, epochs: float, trained_epochs: float) -> dict[str, Any]:
    """Return everything of one seed."""
    torch.manual_seed(seed)
    splits = fashion(seed)
    tests = test_batches(splits)
    network = convolutions()
    train(network, splits, epochs=epochs, rate=0.05, seed=seed)
    rows = post_training(network, splits, tests)
    trained = {
        f"{name}, {bits} bits": trained_weights(
            network, name, bits, splits, tests, seed, trained_epochs
        )
        for name, bits in TRAINED
    }
    source = next_byte.text(seed)
    torch.manual_seed(seed)
    linear = NextByte()
    next_byte.fit(linear, source, steps=STEPS, rate=2e-3, seed=seed)
    return {
        "post_training": rows,
        "trained_weights": trained,
        "few_bits": few_bits(linear, source, seed, TRAINED_STEPS),
        "one_bit": one_bit(linear, source, seed, TRAINED_STEPS),
    }


def main() -> None:
    """Fill the tables, seed by seed; finished seeds are kept."""
    parser = argparse.ArgumentParser(description=__doc__, prog=COMMAND)
    parser.add_argument("--seeds", type=int, default=3, help="from 0; known ones are kept")
    parser.add_argument("--epochs", type=float, default=5.0, help="of the float networks")
    parser.add_argument("--trained-epochs", type=float, default=1.5, help="with few weight bits")
    arguments = parser.parse_args()
    settings = {
        "epochs": arguments.epochs,
        "trained_epochs": arguments.trained_epochs,
        "steps": STEPS,
        "trained_steps": TRAINED_STEPS,
    }
    by_seed(
        "formats",
        settings,
        arguments.seeds,
        lambda seed: one_seed(seed, arguments.epochs, arguments.trained_epochs),
        write,
    )


def write(settings: dict[str, Any], seeds: dict[str, Any], started: float) -> None:
    """Write the file and the claims."""

    def mean(part: str, row: str) -> float:
        return float(np.mean([seed[part][row] for seed in seeds.values()]))

    wrong = bit_exact()
    means = {
        part: {row: round(mean(part, row), 3) for row in next(iter(seeds.values()))[part]}
        for part in ("post_training", "trained_weights", "few_bits", "one_bit")
    }
    file = keep(
        "formats",
        {
            "metric": "post_training, trained_weights: accuracy on the test pictures; few_bits, "
            "one_bit: on 10,000 windows of text that chose nothing; per cent",
            "network": "five 3x3 convolutions with batch norm, 17,000 weights, pictures of 14x14; "
            "few_bits and one_bit: the byte after sixteen, four linear layers 512 wide. First and "
            "last layer at 8 bits; trained ones: in float, as activations are",
            "settings": settings,
            "codes_that_differ_from_ml_dtypes": wrong,
            "means": means,
            "seeds": seeds,
        },
        COMMAND,
        started,
    )
    post = means["post_training"]
    fp8 = "fp8_e4m3"  # of the three, the one that the standard means for inference
    shift = {
        part: means[part]["shift2, 2 bits"]
        - max(means[part][f"{name}, 2 bits"] for name in ("twn", "ttq"))
        for part in ("few_bits", "trained_weights")
    }
    bits = means["one_bit"]["onebit, bits a weight"]
    claims = (
        ("formats.bit_exact", sum(wrong.values()), "0 codes differ", not any(wrong.values())),
        ("formats.int8_minus_fp8", post["int8"] - post[fp8], ">= 0 points", None),
        (
            "formats.fp8_minus_int8_outliers",
            post[f"outliers: {fp8}"] - post["outliers: int8"],
            ">= 0 points",
            None,
        ),
        (
            "shift.minus_ternary",
            shift["few_bits"],
            ">= 0.3 points",
            shift["few_bits"] >= 0.3,
        ),
        (
            "onebit.minus_binary",
            means["one_bit"]["onebit"] - means["one_bit"]["binary"],
            ">= 1 point at <= 1.1 bits a weight",
            means["one_bit"]["onebit"] - means["one_bit"]["binary"] >= 1 and bits <= 1.1,
        ),
    )
    for key, value, target, met in claims:
        value = round(value, 3)
        record_claim(key, value, target, value >= 0 if met is None else met, file, COMMAND)


if __name__ == "__main__":
    main()
