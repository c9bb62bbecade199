"""Made-up tables of the kinds that people bring, with devices of several classes.

Each device times a network layer by layer: the larger of compute and memory time, and an
overhead a launch. Classes differ in how: processors run what they are given, graphics cards pay
for launches and leave small layers half idle, tensor processors pad channels to whole arrays and
are slow at what they were not made for, phones are noisy, glitch and report whole milliseconds.
Nothing here was fitted to the predictor; the tables stand in for published ones that are not
part of the project: FBNet's chains, once-for-all networks with a resolution, transformers
described by ten numbers, YOLO families, model collections with MACs declared, accelerators.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from search_spaces.seeds import derive_rng
from search_spaces.spaces.tokens import TokensSpace
from search_spaces.tables.table import LatencyTable

DENSE, DEPTHWISE, POOL, ATTENTION = range(4)
CLASSES = ("cpu", "gpu", "phone", "tpu", "fpga")


@dataclass(frozen=True)
class Layers:
    """What networks ask of a device; arrays are (networks, layers), 0 where there is no layer.

    Attributes:
        macs: millions of multiply-accumulates.
        memory: millions of values read and written.
        width: channels.
        kind: of :data:`DENSE` and the others, (layers,) or (networks, layers).
    """

    macs: np.ndarray
    memory: np.ndarray
    width: np.ndarray
    kind: np.ndarray


def device_ms(layers: Layers, kind: str, rng: np.random.Generator, *, noise: bool = True):
    """Milliseconds of every network on one random device of a class: (networks,)."""
    speed = np.exp(rng.normal({"cpu": 2.3, "gpu": 5.0, "phone": 1.8}.get(kind, 4.0), 0.6))
    bandwidth = np.exp(rng.normal({"cpu": 0.8, "gpu": 3.0, "phone": 0.2}.get(kind, 1.5), 0.5))
    launch = np.exp(rng.normal({"cpu": -4.0, "gpu": -2.3, "phone": -3.3}.get(kind, -4.5), 0.5))
    efficiency = np.exp(rng.normal([0.0, -1.0, -0.5, -0.5], 0.3))
    if kind == "tpu":
        efficiency = np.exp(rng.normal([0.0, -3.0, -2.0, -2.0], 0.4))
    if kind == "gpu":
        efficiency = np.exp(rng.normal([0.0, -2.0, -0.5, -0.3], 0.3))
    array = {"tpu": 64, "fpga": 16, "gpu": 32}.get(kind, 8)
    padded = np.ceil(np.maximum(layers.width, 1) / array) * array / np.maximum(layers.width, 1)
    rate = speed * efficiency[layers.kind]
    if kind == "gpu":  # small layers do not fill the machine
        rate = rate * layers.macs / (layers.macs + 20.0)
    present = layers.macs + layers.memory > 0
    compute = np.where(present, layers.macs * padded / np.maximum(rate, 1e-9), 0.0)
    per_kind = launch * np.exp(rng.normal(0, 0.4, 4))
    time = np.maximum(compute, layers.memory / bandwidth) + per_kind[layers.kind] * present
    ms = time.sum(axis=1) * (1 + 0.05 * rng.random())
    ms = ms + 0.1 * ms.mean() * rng.random()
    if not noise or kind in ("tpu", "fpga"):
        return ms
    n = len(ms)
    sigma = {"cpu": 0.015, "gpu": 0.02}.get(kind, np.exp(rng.uniform(np.log(0.01), np.log(0.06))))
    ms = ms * np.exp(rng.normal(0, sigma, n))
    if kind == "phone":
        slow = rng.random(n) < rng.choice([0.0, 0.01, 0.04])
        ms = np.where(slow, ms * rng.uniform(1.3, 4.0, n), ms)
        if rng.random() < 0.4:
            ms = ms * max(1.0, 30 / np.median(ms))  # such phones are slow enough for whole ms
            ms = np.maximum(np.round(ms), 1.0)
    return ms


def _table(
    texts: list[str],
    layers: Layers,
    classes: dict[str, str],
    seed: int,
    costs: dict[str, np.ndarray] | None = None,
) -> LatencyTable:
    """Rows in random order, a column a device named in ``classes``."""
    columns = {
        name: device_ms(layers, kind, derive_rng(seed, "device", name))
        for name, kind in classes.items()
    }
    space = TokensSpace.infer(texts)
    table = LatencyTable.from_archs(space, [space.parse(text) for text in texts], columns)
    return LatencyTable(table.space, table.genes, table.devices, table.values, {}, costs or {})


def devices_of(counts: dict[str, int]) -> dict[str, str]:
    """Names and classes: ``{"gpu": 2}`` -> ``gpu0``, ``gpu1``."""
    return {f"{kind}{i}": kind for kind, count in counts.items() for i in range(count)}


def fbnet_like(rows: int, classes: dict[str, str], *, seed: int = 0, whole: bool = False):
    """Chains of 22 blocks of nine kinds in seven stages; ``whole``: kinds as numbers 0..8."""
    rng = derive_rng(seed, "fbnet")
    names = ["k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip"]
    kernel = np.array([3, 3, 3, 3, 5, 5, 5, 5, 0])
    expand = np.array([1, 1, 3, 6, 1, 1, 3, 6, 0])
    groups = np.array([1, 2, 1, 1, 1, 2, 1, 1, 1])
    channels = np.repeat([16, 24, 32, 64, 112, 184, 352], [1, 4, 4, 4, 4, 4, 1])
    side = np.repeat([112, 56, 28, 14, 14, 7, 7], [1, 4, 4, 4, 4, 4, 1])
    genes = rng.integers(0, 9, (rows, 22))
    k, e, g = kernel[genes], expand[genes], groups[genes]
    hidden = e * channels
    area = side.astype(float) ** 2
    point = 2 * hidden * channels * area / g * 1e-6
    depth = hidden * k**2 * area * 1e-6
    layers = Layers(
        np.concatenate([point, depth], axis=1),
        np.concatenate([2 * (hidden + channels * (e > 0)) * area, 2 * hidden * area], axis=1)
        * 1e-6,
        np.concatenate([np.broadcast_to(channels, hidden.shape), hidden], axis=1),
        np.repeat([DENSE, DEPTHWISE], 22),
    )
    texts = [" ".join(str(t) if whole else names[t] for t in row) for row in genes]
    return _table(texts, layers, classes, seed)


def ofa_like(rows: int, classes: dict[str, str], *, seed: int = 0) -> LatencyTable:
    """Once-for-all MobileNetV3: a resolution, then five stages of two to four blocks."""
    rng = derive_rng(seed, "ofa")
    resolution = rng.choice([128, 144, 160, 176, 192, 208, 224], rows)
    depth = rng.integers(2, 5, (rows, 5))
    kernel = rng.choice([3, 5, 7], (rows, 20))
    expand = rng.choice([3, 4, 6], (rows, 20))
    there = (np.arange(4) < depth[:, :, None]).reshape(rows, 20)
    channels = np.repeat([24, 40, 80, 112, 160], 4)
    stride = np.repeat([4, 8, 16, 16, 32], 4)
    area = np.ceil(resolution[:, None] / stride) ** 2
    hidden = expand * channels * there
    layers = Layers(
        np.concatenate([2 * hidden * channels * area, hidden * kernel**2 * area], axis=1) * 1e-6,
        np.concatenate([2 * hidden * area, 2 * hidden * area], axis=1) * 1e-6,
        np.concatenate([np.broadcast_to(channels, hidden.shape), hidden], axis=1),
        np.repeat([DENSE, DEPTHWISE], 20),
    )
    texts = [
        f"r{r} " + " ".join(f"k{k}e{e}" if t else "none" for k, e, t in zip(*blocks, strict=True))
        for r, blocks in zip(resolution, zip(kernel, expand, there, strict=True), strict=True)
    ]
    return _table(texts, layers, classes, seed)


def transformers(rows: int, classes: dict[str, str], *, seed: int = 0) -> LatencyTable:
    """Decoders of translation models as ten numbers: widths, depths, means of heads and sizes."""
    rng = derive_rng(seed, "transformers")
    depth = rng.integers(1, 7, rows)
    width = rng.choice([512, 640], rows)
    encoder = rng.choice([512, 640], rows)
    there = np.arange(6) < depth[:, None]
    sizes = rng.choice([512, 1024, 2048, 3072], (rows, 6)) * there
    heads = rng.choice([4, 8], (rows, 6)) * there
    cross = rng.choice([4, 8], (rows, 6)) * there
    attend = rng.choice([1, 2, 3], (rows, 6)) * there
    steps = 30  # one token after another: launches count
    w = width[:, None]
    macs = [4 * w**2 * there, 2 * w * sizes, (w**2 * 2 + encoder[:, None] * w) * there]
    scores = [w * 30 * there + 40.0 * heads, w * 30 * attend + 40.0 * cross]
    layers = Layers(
        np.concatenate([*macs, *scores], axis=1) * steps * 1e-6,
        np.concatenate([*macs, *scores], axis=1) * 1e-6 * 8,
        np.concatenate([w * np.ones_like(m) for m in (*macs, *scores)], axis=1),
        np.repeat([DENSE, DENSE, DENSE, ATTENTION, ATTENTION], 6),
    )

    def mean(values: np.ndarray) -> np.ndarray:
        return values.sum(axis=1) / depth

    columns = [
        encoder,
        rng.integers(6, 7, rows),
        np.round(rng.uniform(1024, 3072, rows), 3),
        np.round(rng.uniform(4, 8, rows), 3),
        width,
        depth,
        np.round(mean(sizes), 3),
        np.round(mean(heads), 3),
        np.round(mean(cross), 3),
        np.round(mean(attend), 3),
    ]
    texts = [" ".join(f"{v:g}" for v in row) for row in zip(*columns, strict=True)]
    return _table(texts, layers, classes, seed)


def yolo_like(rows: int, classes: dict[str, str], *, seed: int = 0) -> LatencyTable:
    """Detectors: a family, a depth multiple, a width multiple, a resolution."""
    rng = derive_rng(seed, "yolo")
    families = ["yolov3", "yolov5", "yolov6", "yolov7", "yolov8", "yolox"]
    factor = np.exp(rng.normal(0, 0.35, (len(families), 4)))
    family = rng.integers(0, len(families), rows)
    depth = rng.choice([0.33, 0.5, 0.67, 1.0, 1.33], rows)
    width = rng.choice([0.25, 0.375, 0.5, 0.75, 1.0, 1.25], rows)
    resolution = rng.choice([256, 320, 416, 512, 640, 960, 1280], rows)
    channels = np.array([64, 128, 256, 512, 1024]) * width[:, None]
    area = (resolution[:, None] / np.array([2, 4, 8, 16, 32])) ** 2
    repeats = np.maximum(np.round(np.array([1, 3, 6, 9, 3]) * depth[:, None]), 1)
    dense = repeats * channels**2 * area * factor[family][:, :1]
    small = repeats * channels * 9 * area * factor[family][:, 1:2]
    layers = Layers(
        np.concatenate([9 * dense, small], axis=1) * 1e-6,
        np.concatenate([2 * repeats * channels * area, 2 * channels * area], axis=1) * 1e-6,
        np.concatenate([channels, channels], axis=1),
        np.repeat([DENSE, DEPTHWISE], 5),
    )
    texts = [
        f"{families[f]} d{d} w{w} r{r}"
        for f, d, w, r in zip(family, depth, width, resolution, strict=True)
    ]
    return _table(texts, layers, classes, seed)


def collection(rows: int, classes: dict[str, str], *, seed: int = 0) -> LatencyTable:
    """Published models by name with MACs and parameters declared; latency over four decades."""
    rng = derive_rng(seed, "collection")
    family = rng.integers(0, 14, rows)
    macs = np.exp(rng.normal(np.log(4000), 1.3, rows))
    share = np.clip(rng.beta(1, 3, 14)[family] + rng.normal(0, 0.05, rows), 0, 1)
    count = np.maximum(rng.integers(20, 120, 14)[family] * np.exp(rng.normal(0, 0.3, rows)), 8)
    spread = np.exp(rng.normal(0, 0.25, 14))[family]
    each = macs / count
    repeats = count[:, None] * np.array([0.25, 0.25, 0.5])
    per = each[:, None] * np.array([1.0, 1.0, 1.0])
    dense = (per * repeats) * (1 - share)[:, None]
    other = (per * repeats) * share[:, None] * 0.6
    layers = Layers(
        np.concatenate([dense, other], axis=1) * spread[:, None],
        np.concatenate([dense * 0.02, other * 0.15], axis=1)
        * np.exp(rng.normal(0, 0.2, (rows, 6))),
        np.full((rows, 6), 256.0),
        np.repeat([DENSE, DEPTHWISE], 3),
    )
    parameters = macs / np.exp(rng.normal(np.log(120), 0.6, rows)) * 1e6
    texts = [f"model{family[i]}_{i}" for i in range(rows)]
    return _table(texts, layers, classes, seed, {"macs": macs * 1e6, "parameters": parameters})


def accelerators(rows: int, classes: dict[str, str], *, seed: int = 0) -> LatencyTable:
    """Cells of convolutions of different widths with the MACs declared."""
    rng = derive_rng(seed, "accelerators")
    widths = rng.choice([16, 24, 32, 48, 64, 96, 128], (rows, 6))
    kinds = rng.integers(0, 4, (rows, 6))  # 1x1, 3x3, depthwise 5x5, pool
    area = np.array([32, 32, 16, 16, 8, 8]) ** 2
    before = np.concatenate([np.full((rows, 1), 16), widths[:, :-1]], axis=1)
    taps = np.array([1, 9, 25, 0])[kinds]
    dense = np.where(kinds < 2, taps * before * widths * area, 0)
    light = np.where(kinds >= 2, (taps + 9) * before * area, 0)
    point = np.where(kinds >= 2, before * widths * area, 0)
    layers = Layers(
        np.concatenate([dense + point, light], axis=1) * 1e-6,
        np.concatenate([(before + widths) * area, before * area * (light > 0)], axis=1) * 1e-6,
        np.concatenate([widths, before], axis=1),
        np.repeat([DENSE, DEPTHWISE], 6),
    )
    names = np.array(["c1", "c3", "d5", "p3"])
    texts = [
        " ".join(f"{names[k]}w{w}" for k, w in zip(*row, strict=True))
        for row in zip(kinds, widths, strict=True)
    ]
    macs = (dense + point + np.where(kinds == 2, light, 0)).sum(axis=1).astype(float)
    return _table(texts, layers, classes, seed, {"macs": macs})
