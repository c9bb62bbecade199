"""Which networks of torchvision and timm go through every step, and whether any is silently wrong.

Random weights, batch norm statistics of a few random images: only structure counts here. The
steps: read (the network in normal form, which is what ``nas inspect`` shows), bits (the largest of
its bit space computes the same), PTQ (float twin equal), export (ONNX Runtime gives
what the network gives, in float and in codes). How far 8 bits are from float is told and is no
condition, as random weights say little of it. A network passes with all of them; one that is
refused says why; one whose outputs differ without an error is silently wrong. Run from the
repository, with timm installed; finished networks are kept, so it can be stopped and repeated::

    python -m experiments.own.networks
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from experiments.results_index import record_claim
from nas.models.file_check import FLOAT_TOLERANCE, file_problem
from search_spaces.atomic import write_json_atomic
from search_spaces.errors import NasError
from supernet.network import Supernet
from supernet.onnx.export import export_onnx
from supernet.own_model.wrap import bits_space
from supernet.ptq.quantize import quantize_post_training
from supernet.reading.compare import relative_difference
from supernet.reading.reader import read_network
from supernet.training.subnets import float_plan

COMMAND = "python -m experiments.own.networks"
RESULT = Path("experiments/results/own/networks.json")
TARGET = 55
PACKAGES = ("torch", "torchvision", "timm", "onnx", "onnxruntime")
IMAGES = 4
SMALL = 96
"""Side of the images of transformers that can be made for any."""
PTQ_ERROR = 0.3
"""Largest relative error of 8 bits that is close, for a network with random weights."""

TORCHVISION = (
    "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "mnasnet0_5", "regnet_x_400mf",
    "efficientnet_b0", "mobilenet_v2", "densenet121", "swin_t", "googlenet", "convnext_tiny",
    "resnet18", "inception_v3", "regnet_y_400mf", "vit_b_16", "resnext50_32x4d", "maxvit_t",
    "swin_v2_t", "vgg11_bn", "alexnet",
)  # fmt: skip
TIMM = (
    "resnet10t", "lcnet_050", "mobilenetv4_conv_small", "ghostnet_050", "mobilevit_xxs",
    "edgenext_xx_small", "convnext_atto", "convnextv2_atto", "repghostnet_050", "starnet_s1",
    "tinynet_e", "efficientvit_b0", "efficientvit_m0", "efficientnet_lite0", "fbnetc_100",
    "tf_mobilenetv3_small_100", "mixnet_s", "hardcorenas_a", "rexnet_100", "vit_tiny_patch16_224",
    "gmlp_ti16_224", "pit_ti_224", "pvt_v2_b0", "mobilevitv2_050", "repvit_m0_9", "levit_128s",
    "xcit_nano_12_p16_224", "coat_lite_tiny", "crossvit_tiny_240", "tiny_vit_5m_224", "fastvit_t8",
    "poolformer_s12", "resmlp_12_224", "efficientformer_l1", "ecaresnet26t", "botnet26t_256",
    "visformer_tiny", "nf_regnet_b0", "gernet_s", "repvgg_a0", "mobileone_s0", "skresnet18",
    "seresnet18", "ese_vovnet19b_dw", "hrnet_w18_small", "selecsls42b", "mambaout_femto", "dla34",
    "res2net50_26w_4s", "cspresnet50",
)  # fmt: skip
_FIXED = ("vit", "mlp", "coat", "former", "levit", "pit", "pvt", "botnet")


def make(source: str, name: str) -> tuple[nn.Module, int]:
    """Return a network with random weights, and the side of its images: small where it may be."""
    torch.manual_seed(0)
    if source == "torchvision":
        import torchvision

        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        network = torchvision.models.get_model(name, weights=None, **options)
        side = {"vit_b_16": 224, "maxvit_t": 224, "inception_v3": 128}.get(name, 64)
        return network, side
    import timm

    if any(k in name for k in _FIXED):
        # Made for smaller images, where they can be: only structure counts.
        try:
            network = timm.create_model(name, pretrained=False, img_size=SMALL)
            network.eval()(torch.zeros(1, 3, SMALL, SMALL))
            return network, SMALL
        except (TypeError, ValueError, RuntimeError, AssertionError):
            pass
    network = timm.create_model(name, pretrained=False)
    own = int(network.default_cfg["input_size"][-1])
    fixed = network.default_cfg.get("fixed_input_size") or any(k in name for k in _FIXED)
    return network, own if fixed else 96


@torch.no_grad()
def settle(network: nn.Module, images: Tensor) -> None:
    """Give batch norms the statistics of ``images``, so that signals neither vanish nor grow."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None
    network.eval()
    for norm in norms:
        norm.train()
    network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


@torch.no_grad()
def steps(network: nn.Module, images: Tensor, folder: Path) -> dict[str, Any]:
    """Return what each step found; a step that is refused has the reason and ends the row."""
    row: dict[str, Any] = {"passed": [], "silently_wrong": []}
    expected = network(images)

    def judge(step: str, error: float, allowed: float) -> None:
        row[f"{step}_error"] = error
        row["passed" if error <= allowed else "silently_wrong"].append(step)

    step = "read"
    try:
        read = read_network(network, images, fold=False)
        judge(step, relative_difference(read(images), expected), 1e-3)
        step = "ptq"
        floats = quantize_post_training(read, [images], (32, 32), steps=())
        judge("ptq_float", relative_difference(floats(images), expected), 1e-3)
        codes = quantize_post_training(read, [images], (8, 8), steps=())
        error = float((codes(images) - expected).norm() / expected.norm().clamp(min=1e-9))
        row["ptq_8_bits_error"] = error
        row["passed"].append("ptq")
        row["ptq_8_bits_close"] = error <= PTQ_ERROR
        step = "export"
        for name, quantised in (("float", floats), ("codes", codes)):
            path = folder / f"{name}.onnx"
            export_onnx(quantised, path)
            wrong = file_problem(quantised, path, images[:3])
            row["passed" if wrong is None else "silently_wrong"].append(f"export_{name}")
            if wrong is not None:
                row[f"export_{name}_problem"] = wrong
        step = "bits"
        space = bits_space(read, input_shape=tuple(images.shape[1:]))
        supernet: Supernet = Supernet(space)
        largest = float_plan(space.plan(space.largest()))
        found = supernet.evaluate(images, largest, space.pretrained_statistics())
        judge(step, relative_difference(found, expected), 1e-3)
        row["layers"] = len(list(space.plan(space.largest()).layers()))
        row["macs"] = int(space.plan(space.largest()).macs)
        row["free_widths"] = sum(not width.pinned for width in space.graph.free_widths())
        step = "wrap"
        extracted = supernet.extract(largest, space.pretrained_statistics())
        export_onnx(extracted, folder / "wrap.onnx")
        wrong = file_problem(extracted, folder / "wrap.onnx", images[:3])
        row["passed" if wrong is None else "silently_wrong"].append(step)
        if wrong is not None:
            row["wrap_problem"] = wrong
    except NasError as error:
        row["refused"] = {"step": step, "reason": str(error)[:400]}
    except Exception as error:  # a crash is a fault of ours: the table says so
        row["crashed"] = {"step": step, "error": f"{type(error).__name__}: {error}"[:400]}
    return row


def main() -> None:
    """Run every network that has no row yet, and record the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", default="0/1", help="every n-th network, from the k-th: k/n")
    parser.add_argument("--only", nargs="*", default=None)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    parts = RESULT.parent / "networks"
    parts.mkdir(parents=True, exist_ok=True)
    todo = [("torchvision", n) for n in TORCHVISION] + [("timm", n) for n in TIMM]
    first, count = map(int, arguments.part.split("/"))
    for source, name in todo[first::count]:
        path = parts / f"{source}-{name}.json"
        if path.exists() or (arguments.only and name not in arguments.only):
            continue
        begin, cpu = time.perf_counter(), time.process_time()
        network, side = make(source, name)
        images = torch.randn(IMAGES, 3, side, side, generator=torch.Generator().manual_seed(1))
        settle(network, images)
        with TemporaryDirectory() as folder:
            row = steps(network, images, Path(folder))
        row |= {"source": source, "name": name, "side": side}
        row |= {"seconds": time.perf_counter() - begin, "cpu_s": time.process_time() - cpu}
        write_json_atomic(path, row)
        print(name, row.get("refused") or row.get("crashed") or row["silently_wrong"] or "passes",
              f"{row['seconds']:.0f} s", flush=True)  # fmt: skip
    report(parts, len(todo))


def report(parts: Path, count: int) -> None:
    """Write the table of all rows so far, and the claims."""
    rows = [json.loads(path.read_text()) for path in sorted(parts.glob("*.json"))]
    passing = [
        row["name"] for row in rows
        if not any(row.get(key) for key in ("refused", "crashed", "silently_wrong"))
    ]  # fmt: skip
    wrong = [row["name"] for row in rows if row["silently_wrong"]]
    write_json_atomic(
        RESULT,
        {
            "command": COMMAND,
            "seed": 0,
            "machine": platform.processor() or platform.machine(),
            "load": os.getloadavg()[0],
            "versions": {name: version(name) for name in PACKAGES},
            "float_tolerance": FLOAT_TOLERANCE,
            "asked_for": count,
            "tried": len(rows),
            "passing": passing,
            "silently_wrong": wrong,
            "close_at_8_bits": sum(bool(row.get("ptq_8_bits_close")) for row in rows),
            "rows": rows,
        },
    )
    file = str(RESULT)
    record_claim(
        "own.networks_passing", len(passing), TARGET, len(passing) >= TARGET, file, COMMAND
    )
    record_claim("own.silently_wrong", len(wrong), 0, not wrong, file, COMMAND)
    print(f"{len(passing)} of {len(rows)} pass; silently wrong: {wrong or 'none'}")


if __name__ == "__main__":
    main()
