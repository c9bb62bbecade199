"""Does an exported file compute what the network computes, and does it run on integers?"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.models.outputs import as_arrays, concatenated, relative_error, run_file
from search_spaces.errors import EnvironmentProblem, InputError, MissingExtraError
from search_spaces.model_files.graph import Graph, graph_of

if TYPE_CHECKING:
    import onnxruntime
    from torch import Tensor

    from nas.tasks import Task
    from supernet.onnx.export import ExportSummary
    from supernet.plain import PlainNetwork

RELATIVE_TOLERANCE = 0.05
"""Largest relative error between optimised and unoptimised execution.

Saturating 8-bit kernels err by 0.16 and more; a rounding that falls the other way, and what
it sets off in later layers, by less than 0.02.
"""

AGREEMENT = 0.9
"""Least share of equal predictions of a file and its network."""
OUTPUT_TOLERANCE = 0.3
"""Largest relative error of a file's outputs beside its network's.

Roundings that fall the other way reach .26 on untrained networks of 2 bits and stay under .1 on
trained ones; another network errs by more. A file that misses ``AGREEMENT`` widely is refused at
half of this."""

_PLUMBING = {
    "DequantizeLinear", "QuantizeLinear", "Transpose", "Reshape", "Flatten", "Squeeze",
    "Unsqueeze", "Identity", "Cast", "Clip", "Concat", "Split",
}  # fmt: skip


class UnusableModel(EnvironmentProblem):
    """One model's file does not load or does not compute what its network does.

    Other models may: this is the only problem for which a candidate is left out of a front. A
    missing runtime, a full disk or an interrupted import concerns all of them and ends the run.
    """


@dataclass(frozen=True)
class RuntimeCheck:
    """How ONNX Runtime executes a file.

    Attributes:
        relative_error: norm of the difference between optimised and unoptimised outputs,
            divided by the norm of the unoptimised ones.
        finite: whether all outputs are finite.
        operators: operator type -> count in the optimised graph.
        float_fallbacks: names of the operators of a quantised file that compute on floats:
            those without an integer kernel (softmax, layer norm), and those of which the
            runtime did not make one.
        problems: what is wrong, in words; empty for a sound file.
    """

    relative_error: float
    finite: bool
    operators: Mapping[str, int]
    float_fallbacks: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the file may be used."""
        return not self.problems


@dataclass(frozen=True)
class Parity:
    """An exported file against the PyTorch network it was made from, on the same images.

    Attributes:
        images: how many images.
        agreement: share of images with the same prediction; ``None`` for a task that decides
            nothing.
        reference_accuracy, accuracy: the task's metric of network and file; ``None`` without
            targets.
        max_logit_error: largest absolute difference of an output.
        relative_error: norm of the difference over the norm of the network's outputs.
        size_kib: size of the file.
        optimisation_error: see :attr:`RuntimeCheck.relative_error`.
        operators, float_fallbacks: see :class:`RuntimeCheck`.
        outputs: how many values the network gives for an image.
    """

    images: int
    agreement: float | None
    reference_accuracy: float | None
    accuracy: float | None
    max_logit_error: float
    relative_error: float
    size_kib: float
    optimisation_error: float
    operators: Mapping[str, int]
    float_fallbacks: tuple[str, ...]
    outputs: int = 2

    @property
    def problems(self) -> tuple[str, ...]:
        """Why the file is not the network it was made from, in words; empty for a sound one."""
        if not np.isfinite(self.relative_error):
            return ("outputs of the file or its network are not finite, or of other shapes",)
        # One output has one largest: then, and where nothing is decided, only the values tell.
        share = self.agreement if self.outputs > 1 else None
        wide = self.agreement is not None and self.agreement < AGREEMENT - 0.1
        most = OUTPUT_TOLERANCE / 2 if wide else OUTPUT_TOLERANCE
        if (share is not None and share >= AGREEMENT) or self.relative_error <= most:
            return ()
        told = "" if self.agreement is None else (
            f"the same prediction on {self.agreement:.0%} of {self.images} images and "
        )  # fmt: skip
        return (
            f"file and network give {told}outputs that differ by {self.relative_error:.3g} "
            "(relative): the file computes another network",
        )

    @property
    def accuracy_difference(self) -> float | None:
        """Metric of the file minus that of the network; ``None`` without targets."""
        if self.accuracy is None or self.reference_accuracy is None:
            return None
        return self.accuracy - self.reference_accuracy

    def to_json(self) -> dict[str, Any]:
        """Return all attributes and :attr:`accuracy_difference` as plain values."""
        return asdict(self) | {
            "accuracy_difference": self.accuracy_difference,
            "operators": dict(self.operators),
            "float_fallbacks": list(self.float_fallbacks),
        }


def evaluate_onnx(
    path: Path, batches: Iterable[np.ndarray | Tensor], *, optimise: bool = True, threads: int = 1
) -> np.ndarray:
    """Run a file in ONNX Runtime on the processor.

    Args:
        path: ONNX file with one input; of several outputs, the first is returned.
        batches: images (batch, channels, height, width), float32.
        optimise: whether the runtime may optimise the graph.
        threads: intra-operator threads.

    Returns:
        Outputs of all batches, (images, outputs) float32.

    Raises:
        EnvironmentProblem: the file does not load.
        InputError: there are no images.
    """
    return evaluate_outputs(path, batches, optimise=optimise, threads=threads)[0]


def evaluate_outputs(
    path: Path, batches: Iterable[np.ndarray | Tensor], *, optimise: bool = True, threads: int = 1
) -> list[np.ndarray]:
    """Run a file as :func:`evaluate_onnx` does, and return each of its outputs: (images, ...)."""
    session = open_session(path, optimise=optimise, threads=threads)
    outputs = [run_file(session, _array(batch)) for batch in batches]
    if not outputs:
        raise InputError(f"no images to run {path} on")
    return concatenated(outputs)


def check_optimised(
    path: Path, inputs: np.ndarray | Tensor, *, tolerance: float = RELATIVE_TOLERANCE
) -> RuntimeCheck:
    """Check that optimisation changes nothing but speed, and find what runs on floats.

    Without dot-product instructions (VNNI) optimised 8-bit kernels sum pairs of products in
    16 bits and saturate; unoptimised execution of the same file does not.

    Args:
        path: ONNX file.
        inputs: images (batch, channels, height, width).
        tolerance: largest relative error that passes; a network that answers noise of a
            ten-thousandth of its input with more (an untrained one, say) is allowed three
            times what it answers with, as it does the same to a rounding.
    """
    import onnx

    path = Path(path)
    images = _array(inputs)
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder) / "optimised.onnx"
        session = open_session(path, optimise=True, dump=dump)
        try:
            optimised = run_file(session, images)
        except Exception as failed:  # the runtime's exceptions share no base class of their own
            first = str(failed).splitlines()[0]
            raise UnusableModel(f"ONNX Runtime cannot run {path}: {first}") from failed
        dumped = onnx.load(dump, load_external_data=False)
        # Weights in a file beside the model stay there: the dump names that file.
        onnx.load_external_data_for_model(dumped, str(path.parent))
    plain = evaluate_outputs(path, [images], optimise=False)
    finite = all(bool(np.isfinite(output).all()) for output in (*optimised, *plain))
    error = relative_error(optimised, plain)
    problems = []
    if not finite:
        problems.append("outputs are not finite")
    elif error > max(tolerance, 3 * _sensitivity(path, images, plain, error > tolerance)):
        problems.append(
            f"optimised and unoptimised execution differ by {error:.3g} (relative; at most "
            f"{tolerance:g} is rounding): an integer kernel saturates or an optimisation is wrong"
        )
    return RuntimeCheck(
        relative_error=error,
        finite=finite,
        operators=dict(sorted(Counter(node.op_type for node in dumped.graph.node).items())),
        float_fallbacks=tuple(_float_fallbacks(graph_of(onnx.load(path)), graph_of(dumped))),
        problems=tuple(problems),
    )


def check_parity(
    network: PlainNetwork,
    path: Path,
    images: Tensor | Iterable[Any],
    labels: Tensor | np.ndarray | None = None,
    *,
    batch_size: int = 256,
    check: RuntimeCheck | None = None,
    task: Task | None = None,
) -> Parity:
    """Compare a file with the network it was made from.

    Args:
        network: the extracted network.
        path: the file.
        images: (images, channels, height, width) at the network's input size; or batches of
            them, or of ``(images, labels)``.
        labels: (images,) class numbers, where ``images`` is one tensor.
        batch_size: for one tensor of images.
        check: result of :func:`check_optimised` if it is known; done on the first batch
            otherwise.
        task: says what is decided and how good it is; by default one class an image.

    Raises:
        InputError: there are no images.
    """
    import torch

    path = Path(path)
    session = open_session(path, optimise=True)
    references: list[list[np.ndarray]] = []
    outputs: list[list[np.ndarray]] = []
    truths: list[np.ndarray] = []
    for x, y in _batches(images, labels, batch_size):
        x = torch.as_tensor(x)
        if check is None:
            check = check_optimised(path, x[:64])
        with torch.no_grad():
            references.append(as_arrays(network(x)))
        outputs.append(run_file(session, _array(x)))
        if y is not None:
            truths.append(np.asarray(y))
    if not outputs or check is None:
        raise InputError(f"no images to compare {path} with its network on")
    reference, output = concatenated(references), concatenated(outputs)
    # What several outputs decide together only a task knows, and tasks have one.
    decides = len(reference) == len(output) == 1
    accuracies: tuple[float | None, float | None] = (None, None)
    if truths and task is not None and decides:
        found = [_metric(task, (e[0] for e in each), truths) for each in (references, outputs)]
        accuracies = found[0], found[1]
    elif truths and decides:
        truth = np.concatenate(truths)
        accuracies = (
            float((reference[0].argmax(1) == truth).mean()),
            float((output[0].argmax(1) == truth).mean()),
        )
    error = relative_error(output, reference)
    pairs = zip(output, reference, strict=True) if np.isfinite(error) else ()
    return Parity(
        images=len(output[0]),
        agreement=_agreement(task, output[0], reference[0]) if decides else None,
        reference_accuracy=accuracies[0],
        accuracy=accuracies[1],
        max_logit_error=max((float(np.abs(o - r).max()) for o, r in pairs), default=np.inf),
        relative_error=error,
        size_kib=path.stat().st_size / 1024,
        optimisation_error=check.relative_error,
        operators=check.operators,
        float_fallbacks=check.float_fallbacks,
        outputs=int(output[0].shape[1]) if decides else 1,
    )


def _metric(task: Task, outputs: Iterable[np.ndarray], targets: Iterable[np.ndarray]) -> float:
    import torch

    score = task.score()
    for x, y in zip(outputs, targets, strict=True):
        score.add(torch.from_numpy(x), torch.from_numpy(y))
    return score.values()[task.metric_name]


def _agreement(task: Task | None, output: np.ndarray, reference: np.ndarray) -> float | None:
    import torch

    if task is None:
        return float((output.argmax(1) == reference.argmax(1)).mean())
    one, other = (task.decide(torch.from_numpy(each)) for each in (output, reference))
    return None if one is None or other is None else float((one == other).double().mean())


def saturates() -> bool:
    """Whether this machine wants weight codes of 7 bits: its 8-bit dot products can saturate."""
    from devices.device import device_fingerprint

    return not device_fingerprint()["has_vnni"]


def export_checked(
    network: PlainNetwork,
    path: Path,
    inputs: np.ndarray | Tensor,
    *,
    has_vnni: bool | None = None,
    **options: Any,
) -> tuple[ExportSummary, RuntimeCheck]:
    """Export for a device and check the file; weight codes are reduced where that is needed.

    Args:
        network: the extracted network.
        path: file to write.
        inputs: a few images for the check.
        has_vnni: whether the device has 8-bit dot products that cannot saturate, from its
            fingerprint; by default this machine's.
        options: of :func:`supernet.onnx.export.export_onnx`.

    Raises:
        UnusableModel: the file fails the check even with reduced codes, or computes
            something else than the network, at the layer that is named; the file is removed.
    """
    from nas.models.file_check import file_problem
    from supernet.onnx.export import export_onnx

    default = saturates() if has_vnni is None else not has_vnni
    reduce_range = bool(options.pop("reduce_range", default))
    for reduced in (False, True) if not reduce_range else (True,):
        summary = export_onnx(network, path, reduce_range=reduced, **options)
        check = check_optimised(path, inputs)
        if check.passed or not check.finite:
            break
    if check.passed and not reduced:
        # Reduced codes are another network, whose difference is measured and not refused.
        wrong = file_problem(network, Path(path), as_tensor(inputs))
        if wrong is not None:
            Path(path).unlink(missing_ok=True)
            raise UnusableModel(f"{path} is not what it was made from: {wrong}")
    if not check.passed:
        Path(path).unlink(missing_ok=True)
        raise UnusableModel(f"{path} is not usable here: {'; '.join(check.problems)}")
    return summary, check


def open_session(
    path: Path, *, optimise: bool, threads: int = 1, dump: Path | None = None
) -> onnxruntime.InferenceSession:
    """Load a file into ONNX Runtime on the processor.

    Args:
        path: ONNX file.
        optimise: whether the runtime may optimise the graph.
        threads: intra-operator threads.
        dump: where the runtime writes the graph it made of the file.

    Raises:
        EnvironmentProblem: the file does not load.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "search") from error
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    if dump is not None:
        options.optimized_model_filepath = str(dump)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions share no base class of their own
        raise UnusableModel(f"ONNX Runtime cannot load {path}: {error}") from error


def _float_fallbacks(graph: Graph, optimised: Graph) -> list[str]:
    """Return names of operators of a quantised file that compute on floats when it runs."""
    if not graph.rounds:
        return []

    def on_floats(name: str) -> bool:
        if name in optimised.inputs:
            return True
        node = optimised.makers.get(name)
        if node is None:
            return False  # a constant
        if node.op == "DequantizeLinear":
            return True
        if node.op.startswith(("QuantizeLinear", "QLinear")):
            return False
        if node.op.startswith(("QGemm", "MatMulInteger")):
            # With a scale for the output they give codes, without one floats.
            return node.op != "QGemm" or len(node.inputs) < 9 or not node.input(7)
        return on_floats(node.input(0))

    floats = {
        node.name
        for node in optimised.nodes
        if node.name
        and not node.op.startswith(("QLinear", "QGemm", "MatMulInteger"))
        and any(on_floats(name) for name in node.inputs if name)
    }
    # Fused and converted nodes get new names; what stays float keeps its name (with a suffix
    # where it was moved to another layout).
    return [
        node.name
        for node in graph.nodes
        if node.name
        and node.op not in _PLUMBING
        and any(
            other == node.name or other.startswith((f"{node.name}_token", f"{node.name}/"))
            for other in floats
        )
    ]


def _batches(images: Any, labels: Any, batch_size: int) -> Iterator[tuple[Any, Any]]:
    if hasattr(images, "shape"):
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            yield images[part], None if labels is None else labels[part]
        return
    if labels is not None:
        raise InputError("labels go with one tensor of images; give batches as (images, labels)")
    for batch in images:
        if isinstance(batch, (tuple, list)):
            some, targets = batch
            yield some, targets
        else:
            yield batch, None


def _sensitivity(
    path: Path, images: np.ndarray, plain: Sequence[np.ndarray], needed: bool
) -> float:
    """Return the relative change of unoptimised outputs when the input gets a little noise."""
    if not needed:
        return 0.0
    noise = np.random.default_rng(0).standard_normal(images.shape) * images.std() * 1e-4
    noisy = (images + noise).astype(np.float32)
    return relative_error(evaluate_outputs(path, [noisy], optimise=False), plain)


def as_tensor(images: Any) -> Tensor:
    """Return images of either kind as a tensor."""
    import torch

    return torch.as_tensor(images).float()


def _array(images: Any) -> np.ndarray:
    if hasattr(images, "detach"):
        images = images.detach().cpu().numpy()
    return np.ascontiguousarray(images, dtype=np.float32)
