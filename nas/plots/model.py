"""One model: its layers and its accuracy by class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.plots.style import BITS, BLUE, GREY, Run, entry_of, go, new_figure, results_of
from nas.report.results import metric_of
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def architecture(run: Run, model: str = "knee") -> Figure:
    """Draw a model of the front layer by layer: channels, kernel and bits.

    A bar is a layer, as long as its output channels, coloured by the bits of its weights.

    Args:
        model: id on the front, or ``knee``.

    Raises:
        InputError: no such model, or its layers were not recorded.
        MissingExtraError: plotly is not installed.
    """
    entry = entry_of(results_of(run), model)
    layers = [
        layer
        for block in (entry.get("plan") or {}).get("blocks") or []
        for layer in block.get("layers") or []
    ]
    if not layers:
        raise InputError(f"the layers of {entry['id']} were not recorded")
    names = [layer["name"] for layer in layers]
    figure = new_figure(
        f"Layers of {entry['id']}", "output channels", height=140 + 22 * len(layers)
    )
    for bits in sorted({layer.get("weight_bits") for layer in layers}, key=lambda b: b or 0):
        chosen = [layer for layer in layers if layer.get("weight_bits") == bits]
        figure.add_trace(
            go().Bar(
                x=[layer.get("out_channels") for layer in chosen],
                y=[layer["name"] for layer in chosen],
                orientation="h",
                name="float" if bits == 32 else f"{bits} bit",
                marker={"color": BITS.get(bits, GREY)},
                text=[_told(layer) for layer in chosen],
                textposition="auto",
                hovertemplate="%{y}<br>%{text}<br>%{x} output channels<extra></extra>",
            )
        )
    figure.update_yaxes(autorange="reversed", categoryorder="array", categoryarray=names)
    return figure


def accuracy_by_class(run: Run, model: str = "knee") -> Figure:
    """Draw the test accuracy of a model of the front for each class.

    Raises:
        InputError: no such model, or no accuracies by class were recorded.
        MissingExtraError: plotly is not installed.
    """
    results = results_of(run)
    entry = entry_of(results, model)
    found = entry.get("per_class") or {}
    if not found:
        raise InputError(f"the accuracies by class of {entry['id']} were not recorded")
    metric, _ = metric_of(results)
    figure = new_figure(
        f"Test {metric} by class, {entry['id']}", metric, height=140 + 24 * len(found)
    )
    figure.add_trace(
        go().Bar(
            x=list(found.values()), y=list(found), orientation="h", marker={"color": BLUE},
            hovertemplate="%{y}: %{x:.4f}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed", type="category")
    return figure


def _told(layer: dict[str, object]) -> str:
    kind = (
        "linear"
        if layer.get("kind") == "linear"
        else f"{layer.get('kernel')}×" + (f"{layer.get('kernel')}")
    )
    return f"{kind}, w{layer.get('weight_bits')} a{layer.get('activation_bits')}"
