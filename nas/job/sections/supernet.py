"""Section ``supernet``: how the shared weights are trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    Field,
    StrictBool,
    StrictStr,
)

from nas.job.paths import JobPath, RelativePath, network_file, network_files
from nas.job.trust import OTHERS_NETWORKS, require_trust
from search_spaces.errors import InputError
from search_spaces.number_formats import NUMBER_FORMATS
from search_spaces.plan import FLOAT_BITS

if TYPE_CHECKING:
    from supernet.quantizers.registry import QuantizerScheme
from nas.job.findings import Finding, unknown_name
from nas.job.sections.space import SpaceConfig
from nas.job.values import AboveZero, Bits, NonNegative, Positive, Probability, Section, Whole

DEFAULT_EPOCHS = 8.0
"""Of the supernet, where a job gives neither epochs nor minutes."""


class BitsStage(Section):
    """From this point of the training on, these bit-widths are trained."""

    start: Annotated[float, Field(strict=True, ge=0, lt=1)]
    """Share of the training after which the stage begins."""
    bits: Annotated[list[Bits], Field(min_length=1)]
    """Bit-widths of weights and activations that take part; 32 is float."""


class QuantizersConfig(Section):
    """Which quantisers are trained: a name, or names by bit-width with ``default`` for the rest."""

    weights: StrictStr | dict[str | int, StrictStr] = "lsq"
    """lsq, lsq+, dorefa, fixed_point, twn or ttq (2 bits), binary (1 bit), attention, a number
    format for as many bits as it has (fp8_e4m3, fp8_e5m2, fp8_e3m4, fp6_e3m2, fp6_e2m3, hot2,
    fp4_e2m1, nf4, levels2, shift2, shift3, shift4), or a plug-in's."""
    activations: StrictStr | dict[str | int, StrictStr] = "lsq+"
    """lsq+, lsq, pact, dorefa, fixed_point, or a plug-in's."""
    per_channel: Literal["depthwise", "always", "never"] = "depthwise"
    """Which layers have a weight step for each output channel."""

    def weight_format(self, bits: int) -> str:
        """Return the number format that weights of ``bits`` have, "" for integers and floats."""
        names = {"default": self.weights} if isinstance(self.weights, str) else self.weights
        by_bits = {str(key): name for key, name in names.items()}
        name = by_bits.get(str(bits), by_bits.get("default", ""))
        if bits >= FLOAT_BITS or name not in NUMBER_FORMATS:
            return ""
        return name


class BitOddsConfig(Section):
    """How often a bit-width is drawn in training, against 1 for each of the others."""

    weights: dict[int, AboveZero] = {}
    """Bit-width of weights: odds, such as {2: 3.0}."""
    activations: dict[int, AboveZero] = {}
    """Bit-width of activations: odds."""


class FocusConfig(Section):
    """Random sub-networks near the front of an earlier run, to train more where it matters."""

    run: RelativePath
    """Folder of a finished run of the same space, relative to the job file."""
    share: Probability = 0.5
    """Probability with which a random sub-network is drawn near the front, at bits of its own."""
    change: Probability = 0.1
    """Probability with which each of its choices is redrawn; one changes at least."""


class TeacherConfig(Section):
    """A trained network to learn from, of the same inputs and outputs."""

    model: Annotated[StrictStr, JobPath(network_file)]
    """torchvision.models:NAME, timm:NAME, module:callable, file.py:callable, or an ONNX file,
    relative to the job file."""
    weights: RelativePath | None = None
    """Its state, a .safetensors file, relative to the job file; null takes what the callable
    returns."""
    arguments: dict[StrictStr, Any] = {}
    """For what makes the network, such as {num_classes: 10}."""


class SupernetConfig(Section):
    """How the shared weights are trained."""

    schedule: StrictStr = "sandwich"
    """Which sub-networks each step trains: sandwich (the largest, the smallest and random ones),
    taught (the largest first, which then teaches random ones of all sizes; the default of a job
    with a budget), progressive (shrinking, as Once-for-All), single_path (one at random), or a
    plug-in's."""
    quantizers: QuantizersConfig = QuantizersConfig()
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """Of convolutions and matrix products in training, that of winners too; quantisers and losses
    stay in float32. auto is bfloat16 where the processor, or the GPU, multiplies it."""
    epochs: NonNegative | None = None
    """Passes over the training images; 8 when minutes is not given either. 0 keeps the weights of a
    network that comes trained, or of init_from."""
    minutes: AboveZero | None = None
    """Time to train instead of epochs. The number of steps that fit is fixed at the start, from
    a measured step, and recorded, so that a resumed run takes the same steps."""
    batch_size: Positive = 128
    learning_rate: AboveZero | None = None
    """Peak of the schedule: linear warm-up, then cosine to zero. null is 0.005, and 0.001 for a
    network that comes trained."""
    weight_decay: NonNegative = 0.01
    """Of the shared weights, and of the front's networks where they share time; not applied to
    batch norm, biases and quantiser steps. With few examples 0.1 lets less be learnt by heart."""
    optimizer: Literal["adamw", "muon"] | None = None
    """Of weights that mix channels: muon makes each step of a matrix orthogonal (Jordan et al.,
    2024). null is muon without batch norm, as in transformers, and otherwise, or for a network that
    comes trained, adamw, which always trains the rest."""
    label_smoothing: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.0
    distillation: StrictBool | Literal["only"] = True
    """Smaller sub-networks learn from the largest one's outputs, or from the teacher's. only leaves
    the labels out: whatever is trained learns from the teacher alone."""
    teacher: TeacherConfig | None = None
    """A trained network that every sub-network learns from; null takes a network that comes
    trained as its own teacher, and otherwise what the schedule says."""
    random_subnets: Whole = 2
    """Sub-networks drawn at random in each step, beside the largest and the smallest."""
    warmup_epochs: NonNegative = 1.0
    """Passes in which only the largest network is trained, in float."""
    bits_schedule: list[BitsStage] | None = None
    """Stages of lower and lower bits; null takes the default for the space's bit-widths."""
    bit_odds: BitOddsConfig = BitOddsConfig()
    float_share: Probability = 0.0
    """Probability with which a sub-network is trained in float instead of at bits. What bits cost
    can only be told against a float that had as much training: with n bit-widths give 1/(n+1)."""
    focus: FocusConfig | None = None
    """Train more near the front of an earlier run; null draws from the whole space."""
    init_from: RelativePath | None = None
    """A .safetensors file with weights to start from; relative to the job file."""
    checkpoint_every_s: AboveZero = 60.0
    """Seconds between checkpoints."""
    compile: StrictBool = False
    """Run the warm-up through torch.compile; it needs a C++ compiler, and pays on GPUs."""
    tensorboard: StrictBool = False
    """The same as tracking: [tensorboard] of the job."""

    def passes(self) -> float | None:
        """Return how many epochs to train; None where ``minutes`` decides."""
        if self.minutes is not None:
            return None
        return DEFAULT_EPOCHS if self.epochs is None else self.epochs


def quantizer_scheme(config: SupernetConfig) -> QuantizerScheme:
    """Return the quantisers that a job asks for.

    Raises:
        InputError: one that is unknown, serves other tensors or cannot have the bits given.
    """
    from supernet.quantizers.registry import QuantizerScheme

    asked = config.quantizers
    return QuantizerScheme(asked.weights, asked.activations, asked.per_channel)


def check_supernet(supernet: SupernetConfig, folder: Path) -> Iterator[Finding]:
    """Yield what contradicts itself, files that are not there, and unknown names."""
    if supernet.epochs is not None and supernet.minutes is not None:
        yield ("supernet", "minutes"), "supernet.minutes: give either epochs or minutes, not both"
    if supernet.init_from is not None:
        path = folder / supernet.init_from
        at = ("supernet", "init_from")
        if not path.is_file():
            yield at, f"supernet.init_from: {path} does not exist"
        elif path.suffix != ".safetensors":
            yield at, f"supernet.init_from: {path} is not a .safetensors file"
    if supernet.focus is not None:
        path = folder / supernet.focus.run
        if not (path / "manifest.json").is_file():
            yield (
                ("supernet", "focus", "run"),
                f"supernet.focus.run: {path} is no run folder: it has no manifest.json",
            )
    if supernet.teacher is not None:
        yield from _check_teacher(supernet.teacher, folder)
    yield from unknown_name("supernet.schedule", ("supernet", "schedule"), supernet.schedule)
    if supernet.quantizers.model_fields_set:
        # Imports torch, so only where the defaults, which are known, are replaced.
        try:
            quantizer_scheme(supernet)
        except InputError as error:
            yield ("supernet", "quantizers"), f"supernet.quantizers: {error}"
    stages = supernet.bits_schedule or []
    for i in range(1, len(stages)):
        if stages[i].start <= stages[i - 1].start:
            yield (
                ("supernet", "bits_schedule", i, "start"),
                f"supernet.bits_schedule.{i}.start: {stages[i].start:g} must be greater than the "
                f"stage before it ({stages[i - 1].start:g})",
            )
    if stages and stages[0].start != 0:
        yield (
            ("supernet", "bits_schedule", 0, "start"),
            "supernet.bits_schedule.0.start: the first stage must start at 0",
        )


def _check_teacher(teacher: TeacherConfig, folder: Path) -> Iterator[Finding]:
    files = network_files(vars(teacher), folder)
    model, weights = str(files.get("model", teacher.model)), files.get("weights")
    place = model if model.endswith(".onnx") else model.rpartition(":")[0]
    if place.endswith((".onnx", ".py")) and not Path(place).is_file():
        yield ("supernet", "teacher", "model"), f"supernet.teacher.model: {place} is no file"
    if weights is not None and not Path(weights).is_file():
        yield ("supernet", "teacher", "weights"), f"supernet.teacher.weights: {weights} is no file"
    if ":" in model and not model.startswith(OTHERS_NETWORKS):
        try:
            require_trust(model)
        except InputError as error:
            yield ("supernet", "teacher", "model"), f"supernet.teacher.model: {error}"


def check_epochs(space: SpaceConfig, supernet: SupernetConfig) -> Iterator[Finding]:
    """No training at all leaves random weights, unless they come from elsewhere."""
    if supernet.epochs == 0 and supernet.init_from is None and ":" not in space.name:
        yield (
            ("supernet", "epochs"),
            f"supernet.epochs: 0 leaves the random weights of {space.name}; give epochs, "
            "supernet.init_from, or a network that comes trained (space.name: module)",
        )


def check_one_bit(space: SpaceConfig, supernet: SupernetConfig | None) -> Iterator[Finding]:
    """Weights of 1 bit have a quantiser of their own, which the default is not."""
    bits = space.overrides.get("weight_bits")
    quantizers = None if supernet is None else supernet.quantizers
    default = quantizers is None or "weights" not in quantizers.model_fields_set
    if isinstance(bits, (list, tuple)) and 1 in bits and default:
        yield (
            ("space", "weight_bits"),
            "space.weight_bits: weights of 1 bit need a quantiser that serves them; add "
            "supernet.quantizers.weights: {default: lsq, 1: binary}",
        )
