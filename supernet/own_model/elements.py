"""Elements of sequences that may be left out of a module."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from search_spaces.errors import InputError
from supernet.own_model.traced import TracedModule, role_of


@dataclass(frozen=True)
class Element:
    """An element of a sequence that may be left out.

    Attributes:
        sequence, position: path of the ``nn.Sequential``, and place in it from 0.
        source, result: nodes whose values go in and come out.
        marker: role of one of its layers; the element is left out where that layer is.
    """

    sequence: str
    position: int
    source: fx.Node
    result: fx.Node
    marker: str


def find_elements(traced: TracedModule) -> list[Element]:
    """Return every element of the sequences whose depth varies.

    Raises:
        InputError: one that cannot be left out; the message says why.
    """
    return [
        _element(traced, sequence, position)
        for sequence, length in traced.lengths.items()
        for position in range(length)
    ]


def _element(traced: TracedModule, sequence: str, position: int) -> Element:
    place, name = (sequence, position), f"{sequence}.{position}"
    inside = [n for n in traced.graph.nodes if place in n.meta["scope"]]
    layers = [n for n in inside if n.target in traced.layers]
    if not layers:
        raise InputError(f"{name} has no layer; elements of a sequence of elastic depth need one")
    sources = {
        parent: None
        for n in inside
        for parent in traced.tensors(n)
        if place not in parent.meta["scope"] and not traced.is_constant(parent)
    }
    results = {n: None for n in inside if any(place not in u.meta["scope"] for u in n.users)}
    if len(sources) != 1 or len(results) != 1:
        raise InputError(f"{name}: an element that can be left out takes and gives one tensor")
    (source,), (result,) = sources, results
    return Element(sequence, position, source, result, role_of(layers[0]))
