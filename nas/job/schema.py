"""The job: what one YAML file may say, with every default, and how it is checked.

:func:`load_job` finds all mistakes of a file at once, each at its line and column:
first the shape of the file (unknown keys, wrong types), then what the keys say about
each other and about this machine (a constraint on a device that does not exist, a
path that is not there, an unknown runtime).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    StrictStr,
    model_validator,
)

from devices.measuring.protocol import Protocol
from nas.fronts.budgets import CostBudget
from nas.fronts.metrics import METRICS, Constraint, Goal, Metric
from nas.fronts.spec import FrontSpec, job_fronts
from nas.job.paths import JobPath
from nas.job.registries import registry_for
from nas.job.sections.budget import BudgetConfig
from nas.job.sections.data import DataConfig
from nas.job.sections.devices import DeviceConfig
from nas.job.sections.execution import absolute_database
from nas.job.sections.export import ExportConfig
from nas.job.sections.finetune import FinetuneConfig
from nas.job.sections.latency import LatencyConfig
from nas.job.sections.protocol import ProtocolConfig
from nas.job.sections.search import SearchConfig
from nas.job.sections.space import SpaceConfig
from nas.job.sections.supernet import SupernetConfig
from nas.job.sections.tracking import TrackerConfig, named
from nas.job.trust import require_trust_of_space
from nas.job.values import Name, Positive, Section, Whole
from search_spaces.space import SearchSpace
from search_spaces.spaces.registry import build_space, takes_input_size


class Job(Section):
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
    """Where candidates are evaluated and winners trained: local, processes, ray, or one of a
    plug-in. With processes, one a core, winners train at once, each on a core of its own."""
    workers: Positive | None = None
    """Workers of the executor; null takes one for each core."""
    executor_options: dict[StrictStr, Any] = {}
    """Settings of the executor itself, such as the address of a Ray cluster."""
    study: Annotated[StrictStr, JobPath(absolute_database)] | None = None
    """Database URL (postgresql://...) of a study that several runs share; null is study.db in the
    run folder."""
    task: StrictStr = "image_classification"
    """image_classification, image_regression, image_embedding, multi_label_classification,
    signal_classification, signal_regression, signal_embedding, anomaly_detection,
    audio_classification, audio_embedding, object_detection, semantic_segmentation,
    language_modelling, sequence_to_sequence, or a task of a plug-in (entry-point group
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
    tracking: Annotated[
        list[TrackerConfig],
        BeforeValidator(named, json_schema_input_type=list[TrackerConfig | StrictStr]),
    ] = []
    """Tools in which the run is shown while it works: [tensorboard], or with their options
    [{name: wandb, options: {mode: offline}}]."""
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

    @model_validator(mode="after")
    def _know_metrics(self) -> Job:
        registry_for("task").names()  # knows the metrics of tasks once it is read
        return self

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

    def inherits_only(self) -> bool:
        """Return whether the front keeps the supernet's weights although nothing asks for that.

        ``finetune.epochs: 0`` asks for it.
        """
        return self.says_how_long() and self.budget is None and self.finetune.epochs is None

    def with_minutes(self, minutes: float) -> Job:
        """Return the job with a budget of ``minutes`` on the wall clock."""
        raw = self.model_dump(mode="json", exclude_unset=True)
        return Job.model_validate(raw | {"budget": {"minutes": minutes}})

    def with_space(self, overrides: Mapping[str, Any]) -> Job:
        """Return the job with other values of some parameters of its space."""
        # Lists, as a job that is read holds them.
        values = {k: list(v) if isinstance(v, tuple) else v for k, v in overrides.items()}
        return self.model_copy(update={"space": self.space.model_copy(update=values)})

    def trackers(self) -> list[TrackerConfig]:
        """Return the tools in which the run is shown; ``supernet.tensorboard`` is one of them."""
        found = list(self.tracking)
        if self.supernet.tensorboard and all(one.name != "tensorboard" for one in found):
            found.append(TrackerConfig(name="tensorboard"))
        return found

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

    def cost_budgets(self) -> list[CostBudget]:
        """Return the budgets that fronts are to serve; of ``latency_ms``, one on each device."""
        best = Goal(Metric(self.metric))
        found: list[CostBudget] = []
        for text, limits in self.search.budgets.items():
            if text in METRICS and METRICS.get(text).per_device:
                metrics = [Metric(text, device.name) for device in self.devices]
            else:
                metrics = [Metric.parse(text)]
            found += [
                CostBudget(m, limit, best, self._confidence(m))
                for m in metrics
                for limit in sorted(limits)
            ]
        return found

    def fronts(self) -> list[FrontSpec]:
        """Return the fronts that the job asks for, the joint one first."""
        return job_fronts(
            self.objectives(),
            self.constraints(),
            [device.name for device in self.devices],
            joint="joint" in self.search.fronts,
            per_device="per_device" in self.search.fronts,
            budgets=self.cost_budgets(),
        )

    def _confidence(self, metric: Metric) -> float | None:
        """Return the probability with which a bound of ``metric`` is to be kept, if it matters."""
        return self.search.confidence if metric.kind.per_device else None

    def measurement_protocol(self) -> Protocol:
        """Return the protocol that every device of the job is measured with."""
        return Protocol.from_json({**self.protocol.model_dump(), "seed": self.seed})

    def constraints(self) -> list[Constraint]:
        """Return every bound of the job; a quantity with both limits gives two."""
        found: list[Constraint] = []
        for metric, bound in self.search.constraints.limits():
            confidence = self._confidence(metric)
            if bound.min is not None:
                found.append(Constraint(metric, bound.min, upper=False, confidence=confidence))
            if bound.max is not None:
                found.append(Constraint(metric, bound.max, upper=True, confidence=confidence))
        return found


def job_schema() -> dict[str, Any]:
    """Return the JSON Schema of a job, for editors and other tools."""
    schema = Job.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Edge NAS job"
    return schema


def job_space(
    job: Job,
    *,
    input_channels: int | None = None,
    outputs: int | None = None,
    input_size: tuple[int, int] | None = None,
    data: Mapping[str, Any] | None = None,
) -> SearchSpace:
    """Build the job's search space.

    Args:
        job: a checked job.
        input_channels: of the data; the number of architectures does not depend on it.
        outputs: units of the last layer, from the task; likewise.
        input_size: height and width of the data; likewise.
        data: what else the task's data say of the space's parameters; likewise.

    Raises:
        InputError: a parameter of the space is unknown or has a value it cannot take; code that
            the job names and nobody trusts.
    """
    if ":" in job.space.name:
        require_trust_of_space(job.space.name, job.space.overrides)
    config = dict(job.space.overrides) | dict(data or {})
    if job.space.preset is not None:
        config["preset"] = job.space.preset
    if input_channels is not None:
        config["input_channels"] = input_channels
    if outputs is not None:
        config["outputs"] = outputs
    if input_size is not None and takes_input_size(job.space.name):
        config["input_size"] = input_size
    return build_space(job.space.name, generator_seed=job.seed, **config)
