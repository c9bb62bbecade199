"""The job: what one YAML file may say, with every default, and how it is checked.

:func:`load_job` finds all mistakes of a file at once, each at its line and column:
first the shape of the file (unknown keys, wrong types), then what the keys say about
each other and about this machine (a constraint on a device that does not exist, a
path that is not there, an unknown runtime).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import operator
import re
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictStr,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from devices.measuring.protocol import Protocol
from nas.fronts.metrics import METRICS, Constraint, Goal, Metric
from nas.job.trust import MODULE_SPACE, require_trust_of_space
from nas.job.yaml_source import YamlSource
from search_spaces.registry import Registry
from search_spaces.space import SearchSpace
from search_spaces.spaces.registry import build_space, takes_input_size

Whole = Annotated[int, Field(strict=True, ge=0)]
Positive = Annotated[int, Field(strict=True, ge=1)]
Real = Annotated[float, Field(strict=True)]
NonNegative = Annotated[float, Field(strict=True, ge=0)]
AboveZero = Annotated[float, Field(strict=True, gt=0)]
Share = Annotated[float, Field(strict=True, gt=0, lt=1)]
Probability = Annotated[float, Field(strict=True, ge=0, le=1)]
Name = Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
Bits = Annotated[int, Field(strict=True, ge=1, le=32)]


def _count_or_share(value: float) -> float:
    # 1.0 could be meant as everything or as one image, and neither is of any use.
    if not 0 < value < 1 and (value < 2 or value != int(value)):
        raise ValueError(
            "must be a share between 0 and 1, such as 0.1, or a whole number of images, at least 2"
        )
    return float(value) if value < 1 else int(value)


CountOrShare = Annotated[float, Field(strict=True), AfterValidator(_count_or_share)]


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


DEFAULT_EPOCHS = 8.0
"""Of the supernet, where a job gives neither epochs nor minutes."""


class AugmentConfig(_Section):
    """How training images are varied; calibration and evaluation images never are."""

    crop_padding: Whole | None = None
    """Pixels of zero padding before a random crop of the image's size; null takes the data set's
    own default."""
    scale: Annotated[float, Field(strict=True, gt=0, le=1)] | None = None
    """Smallest share of the image's area that a random crop takes before it is resized
    (Inception's crop, with aspect ratios 3/4 to 4/3); 1 crops nothing, null takes the data set's
    own default."""
    flip: StrictBool | None = None
    """Mirror half of the images left to right; null takes the data set's own default."""
    erase: Probability = 0.0
    """Probability that a random square of a quarter of the image's side is blanked; of a signal, a
    quarter of its length."""
    noise: NonNegative | None = None
    """Deviation of the noise added to inputs, in deviations of a channel; null takes the data
    set's own default, which is none for images."""
    gain: Probability | None = None
    """Largest relative change of an input's amplitude, such as 0.2; null as for noise."""


class NormalisationConfig(_Section):
    """How pixels become what the network is given: (pixels - mean) / deviation, by channel."""

    mean: Annotated[list[Real], Field(min_length=1)]
    """Of each channel, in the order of the network's channels; one entry is for all of them."""
    deviation: Annotated[list[AboveZero], Field(min_length=1)]
    """Of each channel, likewise."""
    range: Literal["unit", "bytes"] = "unit"
    """What mean and deviation are counted in: unit scales 8-bit pixels to 0..1 first (so -1..1 is a
    mean and a deviation of 0.5), bytes takes them as 0..255."""
    order: Literal["rgb", "bgr"] = "rgb"
    """Of the channels that the network takes."""


IMAGENET = NormalisationConfig(mean=[0.485, 0.456, 0.406], deviation=[0.229, 0.224, 0.225])
"""What the networks of torchvision, and most of timm, were trained with."""


class DataConfig(_Section):
    """Where the images or signals come from and how they are divided."""

    name: StrictStr
    """digits, fashion_mnist, cifar10, cifar100, image_folder, image_csv, signal_ts, signal_csv,
    signal_numpy, cylinder_bell_funnel, audio_folder, or a source of a plug-in."""
    path: StrictStr | None = None
    """Folder of the data; relative to the job file. Not needed for digits."""
    download: StrictBool = False
    """Let torchvision fetch the data set into path when it is not there."""
    image_size: Positive | None = None
    """Side in pixels after resizing; null keeps the data set's own (image_folder: 224)."""
    channels: Literal[1, 3] | None = None
    """Colour channels; null keeps the data set's own (image_folder: 3)."""
    train: Positive | None = None
    """Use at most so many training images, drawn by seed; null uses all."""
    validation: CountOrShare = 0.1
    """Images taken from the training set to guide the search: a share of it (below 1), or a
    number (2 and more)."""
    calibration: Positive = 1000
    """Training images (without augmentation) that recalibrate batch norm statistics."""
    test: Share = 0.2
    """Share of test images, for sources that have no test set of their own."""
    normalisation: Literal["imagenet"] | NormalisationConfig | None = None
    """What a network that comes trained was trained with: imagenet, or mean and deviation; null
    takes those of the training data."""
    augment: AugmentConfig = AugmentConfig()
    options: dict[StrictStr, Any] = {}
    """Settings of the source itself, such as {targets: [height, width]} of image_csv."""


class SpaceConfig(BaseModel):
    """The search space: a name, a preset, and any parameter of that space to override."""

    model_config = ConfigDict(
        extra="allow", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    name: StrictStr = "mobilenet"
    """Registered name of the space; ``module`` for the network that ``model`` names, see the page
    on your own model."""
    preset: StrictStr | None = None
    """A named set of the space's parameters, such as 28x28; null takes the space's defaults."""

    @property
    def overrides(self) -> dict[str, Any]:
        """The parameters the job sets beyond the preset."""
        return dict(self.model_extra or {})

    @field_validator("name")
    @classmethod
    def _module(cls, name: str) -> str:
        return MODULE_SPACE if name == "module" else name


class BitsStage(_Section):
    """From this point of the training on, these bit-widths are trained."""

    start: Annotated[float, Field(strict=True, ge=0, lt=1)]
    """Share of the training after which the stage begins."""
    bits: Annotated[list[Bits], Field(min_length=1)]
    """Bit-widths of weights and activations that take part; 32 is float."""


class QuantizersConfig(_Section):
    """Which quantisers are trained: a name, or names by bit-width with ``default`` for the rest."""

    weights: StrictStr | dict[str | int, StrictStr] = "lsq"
    """lsq, lsq+, dorefa, fixed_point, twn or ttq (2 bits), binary (1 bit), attention, or a
    plug-in's."""
    activations: StrictStr | dict[str | int, StrictStr] = "lsq+"
    """lsq+, lsq, pact, dorefa, fixed_point, or a plug-in's."""
    per_channel: Literal["depthwise", "always", "never"] = "depthwise"
    """Which layers have a weight step for each output channel."""


class BitOddsConfig(_Section):
    """How often a bit-width is drawn in training, against 1 for each of the others."""

    weights: dict[int, AboveZero] = {}
    """Bit-width of weights: odds, such as {2: 3.0}."""
    activations: dict[int, AboveZero] = {}
    """Bit-width of activations: odds."""


class FocusConfig(_Section):
    """Random sub-networks near the front of an earlier run, to train more where it matters."""

    run: StrictStr
    """Folder of a finished run of the same space, relative to the job file."""
    share: Probability = 0.5
    """Probability with which a random sub-network is drawn near the front, at bits of its own."""
    change: Probability = 0.1
    """Probability with which each of its choices is redrawn; one changes at least."""


class TeacherConfig(_Section):
    """A trained network to learn from, of the same inputs and outputs."""

    model: StrictStr
    """torchvision.models:NAME, timm:NAME, module:callable, file.py:callable, or an ONNX file,
    relative to the job file."""
    weights: StrictStr | None = None
    """Its state, a .safetensors file, relative to the job file; null takes what the callable
    returns."""
    arguments: dict[StrictStr, Any] = {}
    """For what makes the network, such as {num_classes: 10}."""


class SupernetConfig(_Section):
    """How the shared weights are trained."""

    schedule: StrictStr = "sandwich"
    """Which sub-networks each step trains: sandwich (the largest, the smallest and random ones),
    taught (the largest first, which then teaches random ones of all sizes; the default of a job
    with a budget), progressive (shrinking, as Once-for-All), single_path (one at random), or a
    plug-in's."""
    quantizers: QuantizersConfig = QuantizersConfig()
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of convolutions and matrix products in training; quantisers and losses stay in float32."""
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
    """Not applied to batch norm, biases and quantiser steps."""
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
    init_from: StrictStr | None = None
    """A .safetensors file with weights to start from; relative to the job file."""
    checkpoint_every_s: AboveZero = 60.0
    """Seconds between checkpoints."""
    compile: StrictBool = False
    """Run the warm-up through torch.compile; it needs a C++ compiler, and pays on GPUs."""
    tensorboard: StrictBool = False
    """Write losses to RUN/tensorboard; needs the extra track."""

    def passes(self) -> float | None:
        """Return how many epochs to train; None where ``minutes`` decides."""
        if self.minutes is not None:
            return None
        return DEFAULT_EPOCHS if self.epochs is None else self.epochs


class DeviceConfig(_Section):
    """One place where models are measured."""

    name: Name
    """Short name, used in constraints, in front.csv and in the report."""
    runtime: StrictStr = "onnxruntime"
    """Registered name of the runtime that executes the models."""
    threads: Positive = 1
    batch: Positive = 1
    """Images in one inference; latencies are for the whole batch."""
    options: dict[str, Any] = {}
    """Settings of the runtime itself."""
    hub: StrictStr | None = None
    """Address of the hub that a board dials into; null measures on this machine."""
    token_file: StrictStr | None = None
    """File with a token for the hub, relative to the job file."""
    device: Name | None = None
    """Name of the board at the hub; null takes the entry's name."""
    ca: StrictStr | None = None
    """Certificate (PEM) of the authority that signed the hub's, relative to the job file; null
    trusts the system's authorities."""
    cert: StrictStr | None = None
    """Certificate (PEM) to show to a hub that asks for one, relative to the job file."""
    key: StrictStr | None = None
    """Its key (PEM), relative to the job file."""
    simulator: Literal["roofline", "vela"] | None = None
    """A model of hardware that estimates instead of a device that measures; its latencies are
    labelled as estimates."""
    hardware: StrictStr | None = None
    """What the simulator simulates: a name it knows, or a description's path relative to the job
    file."""


class LatencyConfig(_Section):
    """How the latency of architectures that are not measured is predicted."""

    predictor: StrictStr = "transfer_gp"
    """Registered name of the predictor: transfer_gp, help, or a baseline."""
    known_devices: StrictStr | None = "packaged"
    """What it learns from before it meets the job's devices: a latency table (CSV or Parquet,
    relative to the job file) with architectures of the job's space, packaged for the tables that
    come with the package where they fit the space, or null for nothing."""


def _protocol_section() -> type[BaseModel]:
    """Return the section that sets :class:`devices.protocol.Protocol`, field by field.

    Types, defaults and descriptions are the dataclass's own, so the two cannot part. Its seed
    is the job's.
    """
    described = re.findall(
        r"^    (\w+): (.*(?:\n {8}.*)*)", inspect.getdoc(Protocol) or "", flags=re.MULTILINE
    )
    texts = {name: " ".join(text.split()) for name, text in described}
    hints = typing.get_type_hints(Protocol)
    sections: dict[str, Any] = {}
    for field in dataclasses.fields(Protocol):
        if field.name == "seed":
            continue
        kinds = [_YAML_TYPES[kind] for kind in _kinds(hints[field.name])]
        sections[field.name] = (
            functools.reduce(operator.or_, kinds),
            Field(default=field.default, description=texts.get(field.name)),
        )
    return create_model("ProtocolConfig", __base__=_Section, **sections)


def _kinds(hint: Any) -> list[Any]:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return [typing.get_origin(h) or h for h in (typing.get_args(hint) if union else (hint,))]


_YAML_TYPES: dict[Any, Any] = {
    int: Annotated[int, Field(strict=True)],
    float: Annotated[float, Field(strict=True)],
    bool: StrictBool,
    str: StrictStr,
    tuple: list[Whole],
    type(None): None,
}

if TYPE_CHECKING:
    ProtocolConfig = _Section
else:
    ProtocolConfig = _protocol_section()
"""How one latency is measured; a limit of null is not applied."""


class Bound(_Section):
    """Limits of one quantity, inclusive."""

    min: Real | None = None
    max: Real | None = None


UNKNOWN_KEYS = "unknown_keys"
"""Type of the error for keys of a section that no schema and no registry knows."""


def _only_known_keys(schema: dict[str, Any]) -> None:
    # An editor that knows only the built-in metrics points out typing errors.
    schema["additionalProperties"] = False


class ConstraintsConfig(_Section):
    """What a feasible architecture must satisfy. The metric of a task is bounded by its name."""

    latency_ms: dict[StrictStr, Bound] = {}
    """Median latency by device name, in milliseconds."""
    accuracy: Bound | None = None
    """Share of right answers on the search-validation images, 0 to 1; of another task, its metric
    by its name, such as rmse."""
    worst_class_accuracy: Bound | None = None
    """The same for the class with the lowest accuracy."""
    energy_mj: dict[StrictStr, Bound] = {}
    """Energy of one inference by device name, in millijoules, where the device measures it."""
    weight_bits_mean: Bound | None = None
    """Mean bits a weight."""
    activation_bits_mean: Bound | None = None
    """Mean bits an activation."""
    weights_kib: Bound | None = None
    """Packed weights, scales and biases, in KiB."""
    size_kib: Bound | None = None
    """The model file, in KiB."""
    peak_memory_kib: Bound | None = None
    """Largest sum of activations alive at once, at their bit-widths, in KiB."""
    flash_kib: Bound | None = None
    """Weights and layer descriptions as a microcontroller stores them, in KiB."""
    macs: Bound | None = None
    """Multiply-accumulate operations for one image."""
    bops: Bound | None = None
    """Bit operations for one image: MACs times weight bits times activation bits."""
    parameters: Bound | None = None
    """Number of weights and biases."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_only_known_keys)
    # By the name of a metric that another package registers.
    __pydantic_extra__: dict[str, Bound] = Field(init=False)

    @model_validator(mode="after")
    def _only_registered(self) -> ConstraintsConfig:
        if self.model_extra:
            registry_for("task").names()  # knows the metrics of tasks once it is read
        unknown = [name for name in self.model_extra or {} if name not in METRICS]
        if unknown:
            raise PydanticCustomError(UNKNOWN_KEYS, "unknown keys {names}", {"names": unknown})
        return self

    def limits(self) -> Iterator[tuple[Metric, Bound]]:
        """Yield each quantity that has limits, in the order of the schema."""
        for name in (*type(self).model_fields, *(self.model_extra or {})):
            limit = getattr(self, name)
            if isinstance(limit, Bound):
                yield Metric(name), limit
            elif limit is not None:
                yield from ((Metric(name, device), bound) for device, bound in limit.items())


class EarlyStoppingConfig(_Section):
    """Giving up on architectures that the first validation images show to be of no use."""

    images: Positive = 1000
    """Validation images after which an evaluation may stop."""
    risk: Annotated[float, Field(strict=True, gt=0, lt=0.5)] = 0.01
    """Largest probability of giving up on an architecture that belongs on a front."""


class SearchConfig(_Section):
    """How the front is looked for."""

    strategy: StrictStr = "predictor"
    """predictor, evolution, regularised_evolution, random, exhaustive, optuna_tpe, optuna_nsga2,
    optuna_nsga3, optuna_gp, or a strategy of a plug-in."""
    options: dict[StrictStr, Any] = {}
    """Settings of the strategy itself, such as {polish: 8} of predictor or {population: 60} of
    evolution; for Optuna's strategies the arguments of the sampler."""
    objectives: Annotated[list[StrictStr], Field(min_length=1)] = ["accuracy", "latency_ms"]
    """What is traded off: accuracy (of another task its metric by name, such as rmse; the default
    follows the task), worst_class_accuracy, latency_ms (one objective for each
    device) or latency_ms[DEVICE], energy_mj, peak_memory_kib, flash_kib, weights_kib, size_kib,
    weight_bits_mean, activation_bits_mean, macs, bops, parameters."""
    constraints: ConstraintsConfig = ConstraintsConfig()
    evaluations: Positive = 200
    """Real evaluations of accuracy on the search-validation images."""
    initial: Positive = 40
    """Evaluations before the predictor is first fitted."""
    batch: Positive = 20
    """Evaluations between two fits of the predictor."""
    latency_samples: Positive = 20
    """Architectures measured on each device before the search."""
    front_size: Positive = 16
    """Architectures that are verified, measured and exported at the end."""
    validation_images: Positive | None = None
    """Validation images of one evaluation; null uses all of them."""
    confidence: Annotated[float, Field(strict=True, gt=0.5, lt=1)] | None = None
    """Probability with which a predicted latency must keep its budget; null asks the mean to."""
    fronts: Annotated[list[Literal["joint", "per_device"]], Field(min_length=1)] = [
        "joint",
        "per_device",
    ]
    """With several devices: the front on which all budgets hold, one front for each device, or
    both. The fronts share every evaluation."""
    early_stopping: EarlyStoppingConfig | None = None
    """Give up early on hopeless architectures; null evaluates each on all images."""
    warm_start: StrictStr | None = None
    """Folder of an older run to go on from, relative to the job file. With the same training its
    supernet, evaluations and measurements are taken over; otherwise its front is evaluated
    first."""


class BudgetConfig(_Section):
    """The time of a whole run, which divides it between its stages."""

    minutes: AboveZero | None = None
    """Of the wall clock."""
    cpu_minutes: AboveZero | None = None
    """Of processors: those of the run and of every process it starts, added up."""
    supernet: Share = 0.3
    """Share of it for the shared weights and the teacher. Search and measurements take what they
    need, and the architectures of the front are trained in the rest."""
    teacher: Share = 0.5
    """Share of the supernet's time in which the largest network alone is trained, in float."""


class FinetuneConfig(_Section):
    """Training of each architecture of the front on its own, after the search."""

    epochs: NonNegative | None = None
    """Passes over the training images for each; 0 keeps the weights it inherits from the supernet.
    null shares what is left of the job's budget, and is 0 without one."""
    candidates: Annotated[float, Field(strict=True, ge=1, le=8)] = 1.5
    """Architectures begun for each place on the front where time is shared: those that are
    behind after a quarter of the training give up their places and their time."""
    learning_rate: AboveZero | None = None
    """Peak; null is 0.005 where time is shared and 0.0005 for a number of epochs."""
    batch_size: Positive = 128
    reconstruct: StrictBool = False
    """Before that, fit the weights of each architecture layer by layer to what the layers of the
    largest network give, by least squares on the calibration images; it needs no labels. Where it
    helps on the validation images, training goes on from there. Give a number of epochs with it,
    0 too."""
    distillation: StrictBool | Literal["only"] = True
    """Learn from the largest network's outputs, or the teacher's, beside the targets; only leaves
    the labels out."""


class ExportConfig(_Section):
    """The model files of the front."""

    format: Literal["onnx"] = "onnx"
    weights: Literal["packed", "int8"] = "packed"
    """packed stores weights of 2 to 4 bits as INT2 and INT4 tensors; int8 stores every code in
    a byte, for runtimes without the small types."""
    formats: Annotated[list[StrictStr], Field(min_length=1)] = ["onnx"]
    """What each model of the front is written in at the end, to RUN/export/ID: onnx, lowbit, c,
    litert, openvino, ncnn, mnn, executorch, or a format of a plug-in. The ONNX files are in
    RUN/models in any case."""


class Job(_Section):
    """One whole job; the same as one YAML file."""

    name: Name
    """Name of the job, and of its run folder unless output is given."""
    seed: Whole = 0
    """Every random choice of the run follows from it."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the supernet is trained and evaluated; auto takes a GPU if there is one."""
    threads: Positive | None = None
    """Processor threads for training and evaluation; null takes all cores."""
    executor: StrictStr = "local"
    """Where candidates are evaluated and fine-tuned: local, processes, ray, or one of a plug-in."""
    workers: Positive | None = None
    """Workers of the executor; null takes one for each core."""
    executor_options: dict[StrictStr, Any] = {}
    """Settings of the executor itself, such as the address of a Ray cluster."""
    study: StrictStr | None = None
    """Database URL (postgresql://...) of a study that several runs share; null is study.db in the
    run folder."""
    task: StrictStr = "image_classification"
    """image_classification, image_regression, multi_label_classification, signal_classification,
    signal_regression, audio_classification, or a task of a plug-in (entry-point group
    nas.tasks)."""
    data: DataConfig
    space: SpaceConfig = SpaceConfig()
    supernet: SupernetConfig = SupernetConfig()
    devices: Annotated[list[DeviceConfig], Field(min_length=1)] = [DeviceConfig(name="cpu")]
    """Where latency is measured; one front holds the values of all of them."""
    latency: LatencyConfig = LatencyConfig()
    protocol: ProtocolConfig = ProtocolConfig()
    """How one latency is measured; a limit of null is not applied."""
    search: SearchConfig = SearchConfig()
    budget: BudgetConfig | None = None
    """Time for the whole run. A job that says nothing of time, neither here nor in supernet and
    finetune, gets minutes by its amount of data, 25 at most; null trains the epochs that they
    give."""
    finetune: FinetuneConfig = FinetuneConfig()
    export: ExportConfig = ExportConfig()
    output: StrictStr | None = None
    """Run folder, relative to the folder in which nas is called; null is runs/NAME."""

    @model_validator(mode="before")
    @classmethod
    def _with_budget(cls, raw: Any) -> Any:
        """Let a job with a budget train as is best in little time, unless it says otherwise."""
        if not isinstance(raw, dict) or raw.get("budget") is None:
            return raw
        supernet = raw.get("supernet", {})
        if not isinstance(supernet, dict):
            return raw
        return {**raw, "supernet": {"schedule": "taught", **supernet}}

    def says_how_long(self) -> bool:
        """Return whether the job says anything of how long to train: a budget, passes or minutes.

        ``budget: null`` says that supernet and finetune keep to their numbers of epochs.
        """
        return (
            "budget" in self.model_fields_set
            or self.supernet.epochs is not None
            or self.supernet.minutes is not None
            or self.supernet.focus is not None
            or self.finetune.epochs is not None
        )

    def with_minutes(self, minutes: float) -> Job:
        """Return the job with a budget of ``minutes`` on the wall clock."""
        raw = self.model_dump(mode="json", exclude_unset=True)
        return Job.model_validate(raw | {"budget": {"minutes": minutes}})

    def run_folder(self) -> Path:
        """Return the run folder the job asks for."""
        return Path(self.output) if self.output is not None else Path("runs") / self.name

    def resolved(self) -> dict[str, Any]:
        """Return every key with its value, defaults included, as JSON-compatible data."""
        found = self.model_dump(mode="json")
        found["search"]["objectives"] = self._objective_names()
        return found

    def _objective_names(self) -> list[str]:
        if "objectives" in self.search.model_fields_set:
            return list(self.search.objectives)
        return [self.metric, "latency_ms"]

    @property
    def metric(self) -> str:
        """Name of the task's metric."""
        name: str = registry_for("task").get(self.task).metric_name
        return name

    def objectives(self) -> list[Goal]:
        """Return the objectives in order; a bare ``latency_ms`` becomes one for each device.

        A job that names none trades the task's metric off against latency.
        """
        found: list[Goal] = []
        for text in self._objective_names():
            if text in METRICS and METRICS.get(text).per_device:
                found.extend(Goal(Metric(text, device.name)) for device in self.devices)
            else:
                found.append(Goal(Metric.parse(text)))
        return list(dict.fromkeys(found))

    def measurement_protocol(self) -> Protocol:
        """Return the protocol that every device of the job is measured with."""
        return Protocol.from_json({**self.protocol.model_dump(), "seed": self.seed})

    def constraints(self) -> list[Constraint]:
        """Return every bound of the job; a quantity with both limits gives two."""
        found: list[Constraint] = []
        for metric, bound in self.search.constraints.limits():
            confidence = self.search.confidence if metric.kind.per_device else None
            if bound.min is not None:
                found.append(Constraint(metric, bound.min, upper=False, confidence=confidence))
            if bound.max is not None:
                found.append(Constraint(metric, bound.max, upper=True, confidence=confidence))
        return found


def load_job(path: str | Path, *, changes: Mapping[str, Any] | None = None) -> Job:
    """Read, check and return the job at ``path``.

    Args:
        path: a YAML file. Paths of data, weights and tokens inside it are relative to its
            folder and come back absolute.
        changes: top-level keys that override the file (``{"seed": 3}``).

    Raises:
        DiagnosticsError: anything is wrong; all mistakes of the file at once.
    """
    from nas.job.check import check_job

    return check_job(YamlSource.read(path), changes=changes or {})


def job_schema() -> dict[str, Any]:
    """Return the JSON Schema of a job, for editors and other tools."""
    schema = Job.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Edge NAS job"
    return schema


REGISTRIES: dict[str, tuple[str, str]] = {
    "task": ("nas.tasks", "TASKS"),
    "data.name": ("nas.data.sources", "DATA_SOURCES"),
    "space.name": ("search_spaces.spaces.registry", "SPACES"),
    "supernet.schedule": ("supernet.training.schedules", "SCHEDULES"),
    "search.strategy": ("nas.strategies", "STRATEGIES"),
    "executor": ("nas.executors", "EXECUTORS"),
    "latency.predictor": ("predictors.transfer_gp.predictor", "LATENCY_PREDICTORS"),
    "devices.runtime": ("devices.runtime", "RUNTIMES"),
    "export.formats": ("nas.models.formats.base", "FORMATS"),
}
"""Key of the job -> module and name of the registry that knows its values."""


def registry_for(key: str) -> Registry[Any]:
    """Return the registry of the names that ``key`` may hold."""
    module, name = REGISTRIES[key]
    if key == "devices.runtime":
        importlib.import_module("devices.runtimes")  # registers the built-in ones
    registry: Registry[Any] = getattr(importlib.import_module(module), name)
    return registry


def job_space(
    job: Job,
    *,
    input_channels: int | None = None,
    outputs: int | None = None,
    input_size: tuple[int, int] | None = None,
) -> SearchSpace:
    """Build the job's search space.

    Args:
        job: a checked job.
        input_channels: of the data; the number of architectures does not depend on it.
        outputs: units of the last layer, from the task; likewise.
        input_size: height and width of the data; likewise.

    Raises:
        InputError: a parameter of the space is unknown or has a value it cannot take; code that
            the job names and nobody trusts.
    """
    if ":" in job.space.name:
        require_trust_of_space(job.space.name, job.space.overrides)
    config = dict(job.space.overrides)
    if job.space.preset is not None:
        config["preset"] = job.space.preset
    if input_channels is not None:
        config["input_channels"] = input_channels
    if outputs is not None:
        config["outputs"] = outputs
    if input_size is not None and takes_input_size(job.space.name):
        config["input_size"] = input_size
    return build_space(job.space.name, generator_seed=job.seed, **config)
