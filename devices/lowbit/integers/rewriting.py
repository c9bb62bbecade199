"""Float operations between integers, as operations on integers.

A packed model leaves to floats what stands between a layer's sums and the next quantiser. Much of
it has an exact integer form: a function of a number is a staircase or, of codes, a table; a maximum
of codes is a code; a mean over fewer values at the border is the window's sum times a number of the
place. :func:`on_integers` finds these forms. The low-bit runtime and the C projects both read what
it returns, and so compute the same.

Operations beside those of the format, with arguments of the modules of this folder:

- ``table``: each code through ``table``, (256,) uint8.
- ``steps``: each of a layer's floats through ``steps``, to codes.
- ``values``: the floats that codes of an image are.
- ``slopes``: PReLU of floats with ``slopes`` (channels,) float32, to codes.
- ``gate``: the product of two tensors, ``operands`` of ``gates``, to codes.
- ``resample``: an image, read as ``operand``, with other rows and columns, to codes: ``axes`` of
  ``resampling``, or None of one that stays; ``positive`` where a ReLU follows.
- ``norm``: of floats no larger than ``bound``, in ``groups`` of channels, with
  ``epsilon``, ``gain`` and ``bias`` (channels,) of ``norms``, to floats; negative floats count as 0
  where ``positive``.
- ``global_max_pool``: of codes, to codes of the same grid.
- ``average_pool`` with ``counting``, the attributes of ONNX's AveragePool that say what is counted,
  and ``shares``, numbers of the places that the means are multiplied by, or None; see
  :func:`devices.lowbit.image_ops.pool_shares`.
- ``global_average_pool`` whose output has no grid: floats.
"""

from __future__ import annotations

from dataclasses import replace

from devices.lowbit.integers.code_forms import CODE_FORMS
from devices.lowbit.integers.float_forms import FLOAT_FORMS
from devices.lowbit.integers.plan import Plan
from search_spaces.model_files.packed_model import PackedModel


def on_integers(model: PackedModel) -> PackedModel:
    """Return a model that computes the same with fewer operations on floats."""
    plan = Plan(model)
    for given in model.nodes():
        if (node := plan.without_copies(given)) is None:
            continue
        forms = FLOAT_FORMS.get(node["op"], ())
        if node["op"] == "quantize" and node["output"] not in plan.kept:
            forms = CODE_FORMS
        made = next((found for form in forms if (found := form(plan, node)) is not None), [node])
        for one in made:
            plan.append(one)
    graph = {**model.graph, "nodes": plan.used(), "grids": plan.grids}
    return replace(model, graph=graph, tensors={**model.tensors, **plan.tensors})
