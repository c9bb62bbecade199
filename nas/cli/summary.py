"""What ``nas validate`` says of a job that is sound: its space, limits, and what they leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nas.job.sections.devices import lacking_here

if TYPE_CHECKING:
    from nas.job.schema import Job


def summary(job: Job) -> list[str]:
    """Return the lines that ``nas validate`` prints below its OK."""
    from nas.job.schema import job_space

    space = job_space(job)
    size = space.cardinality()
    constraints = ", ".join(map(_constraint_text, job.constraints())) or "none"
    lines = [
        f"space:       {space.name}, {size} architectures (about {size:.1e})"
        if size < 10**300
        else f"space:       {space.name}, about 10^{len(str(size)) - 1} architectures",
        f"data:        {job.data.name}",
        f"devices:     {', '.join(f'{d.name} ({d.simulator or d.runtime})' for d in job.devices)}",
        f"objectives:  {', '.join(str(goal.metric) for goal in job.objectives())}",
        f"constraints: {constraints}",
        f"evaluations: {job.search.evaluations}",
        f"output:      {job.run_folder()}",
    ]
    if job.inherits_only():
        lines.append(
            "warning: networks of the front keep weights of the supernet and are not trained on "
            "their own, which costs small ones points of accuracy. Give budget: {minutes: 25} "
            "instead of supernet.epochs, or finetune.epochs."
        )
    return [*lines, *_missing_here(job), *_out_of_reach(job, space)]


def _missing_here(job: Job) -> list[str]:
    """Tell which devices cannot be measured here; another machine may have what they need."""
    found = {device.name: lacking_here(device) for device in job.devices}
    return [
        f"warning: device {name} cannot be measured here: {reason}"
        for name, reason in found.items()
        if reason is not None
    ]


def _out_of_reach(job: Job, space: Any) -> list[str]:
    """Warn of a limit that the smallest, or the largest, architecture of the space misses."""
    from nas.fronts.costs import exact_costs

    constraints = job.constraints()
    known = exact_costs(
        space,
        [str(one.metric) for one in constraints],
        training=job.search.training.update(),
    )
    ends = known(space.genes([space.smallest(), space.largest()]))
    lines = []
    for constraint in constraints:
        values = ends.get(str(constraint.metric))
        if values is None:
            continue  # known only by measuring or evaluating
        if constraint.upper and constraint.bound < min(values):
            lines.append(
                f"warning: {_constraint_text(constraint)}, but the smallest architecture has "
                f"{min(values):.4g}; probably nothing fits. Raise it, or widen the space."
            )
        elif not constraint.upper and constraint.bound > max(values):
            lines.append(
                f"warning: {_constraint_text(constraint)}, but the largest architecture has "
                f"{max(values):.4g}; probably nothing fits. Lower it, or widen the space."
            )
    return lines


def _constraint_text(constraint: Any) -> str:
    return f"{constraint.metric} {'<=' if constraint.upper else '>='} {constraint.bound:g}"
