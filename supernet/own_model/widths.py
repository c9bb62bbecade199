"""What is known about the widths of a module's tensors.

Channel counts that must be equal, because tensors are added or go through a depthwise convolution,
are found and form one *width*. Tensors that are joined along their channels keep their widths: what
reads them takes of each part as many channels as the part has. Where channels are convolved or
normalised in groups, whole groups are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import fx, nn

from search_spaces.errors import InputError
from supernet.own_model.elements import Element
from supernet.own_model.traced import TracedModule, role_of, source_of
from supernet.reading.capture import arguments, module_path
from supernet.reading.operations import kind_of, packet

_ALONG = (
    "max_pool1d", "avg_pool1d", "adaptive_avg_pool1d", "upsample_nearest1d", "upsample_linear1d",
)  # fmt: skip
"""Operations on each channel by itself, along the last axis."""


@dataclass
class Width:
    """A number of channels; several layers may share it.

    Attributes:
        size: channels of the module itself.
        layers: names of the layers whose outputs have it, and no other.
        pinned: why it cannot vary; empty if it can.
        unit: channels that are kept or left out together, because they are of one group.
    """

    size: int
    layers: list[str] = field(default_factory=list)
    pinned: str = ""
    unit: int = 1


@dataclass(frozen=True)
class Part:
    """Channels of a tensor that have one width: ``width x repeat`` places along the axis."""

    width: int
    repeat: int = 1


@dataclass(frozen=True)
class Track:
    """Where the channels of a tensor are, and the parts that lie there one after the other."""

    axis: int
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, axis: int, width: int, repeat: int = 1) -> Track:
        """Return the track of a tensor with one width."""
        return cls(axis, (Part(width, repeat),))

    @property
    def only(self) -> Part | None:
        """The part of a tensor that has one alone."""
        return self.parts[0] if len(self.parts) == 1 else None

    def repeated(self, times: int) -> Track:
        """Return the track where every channel takes ``times`` as many places."""
        return replace(
            self, parts=tuple(replace(part, repeat=part.repeat * times) for part in self.parts)
        )


class Widths:
    """The widths of a module.

    Args:
        traced: the module; some of its reshapes are changed so that they find the size of the
            channels themselves.
        elements: of its sequences, those that can be left out.

    Attributes:
        all: every width that was found; those that became one are known by the first of them.
    """

    def __init__(self, traced: TracedModule, elements: Sequence[Element]) -> None:
        self.traced = traced
        self.all: list[Width] = []
        self._parents: list[int] = []
        self._tracks: dict[fx.Node, Track] = {}
        self._track(elements)

    def output_width(self, node: fx.Node) -> int | None:
        """Return the index of the width of a node's channels, if they are tracked and have one."""
        parts = self.output_parts(node)
        return parts[0].width if len(parts) == 1 else None

    def output_parts(self, node: fx.Node) -> tuple[Part, ...]:
        """Return the widths of a node's channels, in order; none where they are not known."""
        track = self._tracks.get(node)
        if track is None:
            return ()
        return tuple(replace(part, width=self._root(part.width)) for part in track.parts)

    def input_parts(self, node: fx.Node) -> tuple[Part, ...]:
        """Return the widths of what goes into a layer, in order; none where they are not known."""
        track = self._tracks.get(node.meta["input"])
        if node.meta.get("own_inputs") or track is None:
            return ()
        return tuple(replace(part, width=self._root(part.width)) for part in track.parts)

    def value_axis(self, node: fx.Node) -> int | None:
        """Return the axis of a constant along which it has a number for each channel, if one."""
        track = self._tracks.get(node) if self.traced.is_value(node) else None
        return None if track is None else track.axis

    def tie(self, names: Sequence[str]) -> None:
        """Give the layers called ``names`` one width.

        Raises:
            InputError: their channels differ in number.
        """
        nodes = {self.traced.layers[role_of(node)]: node for node in self.traced.layer_nodes()}
        first, *others = (nodes[name] for name in names)
        for other in others:
            a, b = (self._root(self._tracks[node].parts[0].width) for node in (first, other))
            if self.all[a].size != self.all[b].size:
                raise InputError(
                    f"ties: {names[0]} has {self.all[a].size} output channels and "
                    f"{self.traced.layers[role_of(other)]} {self.all[b].size}; tie equal ones"
                )
            self._union(a, b)

    def free_widths(self) -> list[Width]:
        """Return every width that layers have, each once."""
        return [w for i, w in enumerate(self.all) if self._root(i) == i and w.layers]

    def _track(self, elements: Sequence[Element]) -> None:
        for node in self.traced.graph.nodes:
            track = self._track_node(node)
            if track is not None:
                self._tracks[node] = track
        for element in elements:
            source, result = (self._tracks.get(n) for n in (element.source, element.result))
            if source is not None and result is not None and source.axis == result.axis:
                if self._form(source) == self._form(result):
                    self._join(source, result)
                    continue
                if source.only is not None and result.only is not None:
                    continue
                self._pin(source, element.result, "enters an element of elastic depth")
            if result is not None:
                self._pin(result, element.result, "leaves an element of elastic depth")

    def _track_node(self, node: fx.Node) -> Track | None:
        name, kind, tensors = packet(node), kind_of(node), self.traced.tensors(node)
        if node.target in self.traced.layers:
            return self._track_layer(node)
        if node.op == "placeholder":
            width = self._new(self.traced.input_shape[0], "the channels of the image are given")
            return Track.of(1, width)
        tracks = [self._tracks[t] for t in tensors if t in self._tracks]
        if node.name in self.traced.sizes or not tensors:
            return None
        first = tracks[0] if tracks else None
        if node.target in self.traced.operators:
            return self._track_norm(node, first)
        if first is None:
            return None
        shape = [self.traced.shape(t, self.traced.input_shape[1]) for t in tensors]
        here = self.traced.own_shape(node)
        if kind.pointwise or self._kept_apart(node, first.axis, len(shape[0])):
            return first
        if kind.arithmetic or name == "prelu":
            return self._track_together(node, tensors, shape)
        if name == "pixel_shuffle":
            return self._track_shuffled(node, first)
        if name == "cat":
            axis = arguments(node)["dim"]
            if here is not None:
                if axis % len(here) != first.axis:
                    return self._track_together(node, tensors, shape)
                return self._track_joined(node, tensors, shape)
        if name in ("mean", "amax", "amin", "sum") and here is not None:
            given = arguments(node)
            dims = [d % len(shape[0]) for d in given.get("dim") or ()]
            if dims and first.axis not in dims:
                moved = 0 if given.get("keepdim") else sum(d < first.axis for d in dims)
                return replace(first, axis=first.axis - moved)
        if kind.reshaping and here is not None:
            before, a = shape[0], first.axis
            if here[: a + 1] == before[: a + 1]:
                self._free_axis(node, a)
                return first
            if here[:a] == before[:a] and len(here) == a + 1:
                self._free_axis(node, a)
                return first.repeated(math.prod(before[a + 1 :]))
        if name in ("permute", "transpose"):
            rank = len(shape[0])
            order = list(range(rank))
            given = arguments(node)
            if name == "transpose":
                i, j = given["dim0"] % rank, given["dim1"] % rank
                order[i], order[j] = order[j], order[i]
            else:
                order = [d % rank for d in given["dims"]]
            return replace(first, axis=order.index(first.axis))
        for track in tracks:
            self._pin(track, node)
        return None

    def _free_axis(self, node: fx.Node, axis: int) -> None:
        """Let a reshape find the size of the channels itself, which may be fewer."""
        if packet(node) != "reshape":
            return
        source, shape = node.args[0], list(node.args[1])  # type: ignore[arg-type]
        if not isinstance(shape[axis], int) or shape[axis] == -1:
            return
        before = self.traced.own_shape(source)  # type: ignore[arg-type]
        here = self.traced.own_shape(node)
        assert before is not None and here is not None
        if -1 not in shape:
            shape[axis] = -1
        elif len(here) == axis + 1 < len(before):
            node.target, node.args = torch.ops.aten.flatten.using_ints, (source, axis)
            return
        else:
            # Another size is the one to be found, as in view(-1, 8, 16).
            with node.graph.inserting_before(node):
                shape[axis] = node.graph.call_function(torch.ops.aten.sym_size.int, (source, axis))
            shape[axis].meta["scope"] = node.meta["scope"]
            self.traced.sizes.add(shape[axis].name)
        node.args = (source, shape)

    def _track_layer(self, node: fx.Node) -> Track:
        module = self.traced.modules[self.traced.layers[role_of(node)]]
        path = self.traced.layers[role_of(node)]
        source = source_of(node)
        node.meta["input"] = source
        track = self._tracks.get(source)
        if isinstance(module, nn.Linear):
            rank = len(self.traced.shape(source, self.traced.input_shape[1]))
            if track is not None and track.axis != rank - 1:
                self._pin(track, node)
                # What is multiplied along another axis has its own inputs here.
                node.meta["own_inputs"] = True
            return Track.of(rank - 1, self._new(module.out_features, layer=path))
        if track is not None and track.axis != 1:
            self._pin(track, node)
        if module.groups == 1:
            places = self._shuffled(node)
            width = self._new(module.out_channels // places, layer=path)
            return Track.of(1, width, places)
        unit = module.in_channels // module.groups
        times, rest = divmod(module.out_channels, module.in_channels)
        fitting = not rest and (times == 1 or unit == 1)
        if track is not None and fitting and self._in_groups(track, unit):
            if track.only is not None:
                self.all[self._root(track.only.width)].layers.append(path)
            return track.repeated(times)
        reason = f"{path} is a convolution in groups that the channels before it do not fill"
        if track is not None:
            self._pin(track, node, reason)
        return Track.of(1, self._new(module.out_channels, reason, layer=path))

    def _shuffled(self, node: fx.Node) -> int:
        """Return how many outputs of a layer a pixel shuffle makes one channel of; 1 without."""
        user = next(iter(node.users)) if len(node.users) == 1 else None
        if user is None or packet(user) != "pixel_shuffle":
            return 1
        return int(arguments(user)["upscale_factor"]) ** 2

    def _in_groups(self, track: Track, unit: int) -> bool:
        """Let channels vary by whole groups of ``unit``; False where groups hold several parts."""
        roots = [self.all[self._root(part.width)] for part in track.parts]
        repeated = any(part.repeat > 1 for part in track.parts)
        if unit > 1 and (repeated or any(width.size % unit for width in roots)):
            return False
        for width in roots:
            width.unit = math.lcm(width.unit, unit)
        return True

    def _kept_apart(self, node: fx.Node, axis: int, rank: int) -> bool:
        """Whether each channel of what an operation gives follows from that channel alone."""
        name, kind = packet(node), kind_of(node)
        if kind.spatial:
            return axis == rank - 3
        if name in _ALONG:
            return axis == rank - 2
        if name in ("slice", "softmax", "flip", "roll"):
            given = arguments(node)
            dims = given.get("dim", given.get("dims"))
            dims = [dims] if isinstance(dims, int) else list(dims or ())
            return bool(dims) and axis not in {d % rank for d in dims}
        if name in ("constant_pad_nd", "pad"):
            pads = arguments(node)["pad"]
            return axis < rank - len(pads) // 2 or not any(pads[2 * (rank - 1 - axis) :][:2])
        return False

    def _track_shuffled(self, node: fx.Node, track: Track) -> Track | None:
        """Return the channels that a pixel shuffle makes, each of several."""
        places = int(arguments(node)["upscale_factor"]) ** 2
        if track.axis == 1 and all(part.repeat % places == 0 for part in track.parts):
            parts = tuple(replace(part, repeat=part.repeat // places) for part in track.parts)
            return replace(track, parts=parts)
        self._pin(track, node)
        return None

    def _track_group_norm(self, node: fx.Node, track: Track) -> Track | None:
        norm = self.traced.modules[self.traced.operators[role_of(node)]]
        unit = 1 if norm.num_groups == 1 else norm.num_channels // norm.num_groups
        alone = track.only is not None and track.only.repeat == 1
        if alone and track.axis == 1 and self._in_groups(track, unit):
            return track
        self._pin(track, node)
        return None

    def _track_norm(self, node: fx.Node, track: Track | None) -> Track | None:
        if track is not None and self.traced.is_group_norm(node):
            return self._track_group_norm(node, track)
        if track is not None and not self.traced.is_value(node):
            rank = len(self.traced.shape(source_of(node), self.traced.input_shape[1]))
            if track.axis == rank - 1 and track.only is not None and track.only.repeat == 1:
                return track
            self._pin(track, node)
        return None

    def _track_together(
        self, node: fx.Node, tensors: Sequence[fx.Node], shapes: Sequence[tuple[int, ...]]
    ) -> Track | None:
        tensors, shapes = self._without_constants(node, tensors, shapes)
        tracks = [self._tracks.get(t) for t in tensors]
        known = [t for t in tracks if t is not None]
        alike = len({self._form(t) for t in known}) == 1
        if len(known) == len(tensors) and alike and len({len(s) for s in shapes}) == 1:
            for track in known[1:]:
                self._join(known[0], track)
            return known[0]
        for track in known:
            self._pin(track, node)
        return known[0] if alike else None

    def _without_constants(
        self, node: fx.Node, tensors: Sequence[fx.Node], shapes: Sequence[tuple[int, ...]]
    ) -> tuple[Sequence[fx.Node], Sequence[tuple[int, ...]]]:
        """Return what a node takes but for the constants that leave the channels free.

        Those are the same for all channels, or have a number for each, of which the first are kept.
        """
        moving = [t for t in tensors if not self.traced.is_value(t)]
        track = self._tracks.get(moving[0]) if len(moving) == 1 else None
        if track is None or len(moving) == len(tensors):
            return tensors, shapes
        rank = len(shapes[tensors.index(moving[0])])
        for value, shape in zip(tensors, shapes, strict=True):
            if value is moving[0]:
                continue
            # Shapes are held against each other from behind, but a PReLU's numbers are of axis 1.
            axis = 0 if packet(node) == "prelu" else track.axis - (rank - len(shape))
            if len(shape) > rank or (axis >= 0 and shape[axis] > 1 and len(value.users) > 1):
                return tensors, shapes
            if axis < 0 or shape[axis] == 1:
                continue
            only = track.only
            if only is None or shape[axis] != only.repeat * self.all[self._root(only.width)].size:
                return tensors, shapes
            self._tracks[value] = Track(axis, track.parts)
        return moving, [shapes[tensors.index(moving[0])]]

    def _track_joined(
        self, node: fx.Node, tensors: Sequence[fx.Node], shapes: Sequence[tuple[int, ...]]
    ) -> Track | None:
        """Return the parts of tensors that are joined along their channels, one after the other."""
        tracks = [self._tracks.get(t) for t in tensors]
        known = [t for t in tracks if t is not None]
        axis = known[0].axis
        if {t.axis for t in known} != {axis} or len({len(s) for s in shapes}) != 1:
            for track in known:
                self._pin(track, node)
            return None
        parts: list[Part] = []
        for each, shape in zip(tracks, shapes, strict=True):
            if each is None:
                # How many they are is known, and that nothing makes them fewer.
                parts.append(Part(self._new(shape[axis], "they are not followed")))
            else:
                parts += each.parts
        return Track(axis, tuple(parts))

    def _form(self, track: Track) -> tuple[object, ...]:
        """Return what two tensors must have alike so that they have the same widths."""
        sizes = [(part.repeat, self.all[self._root(part.width)].size) for part in track.parts]
        return (track.axis, *sizes)

    def _join(self, one: Track, other: Track) -> None:
        for a, b in zip(one.parts, other.parts, strict=True):
            self._union(a.width, b.width)

    def _new(self, size: int, pinned: str = "", *, layer: str = "") -> int:
        self.all.append(Width(size, [layer] if layer else [], pinned))
        self._parents.append(len(self._parents))
        return len(self.all) - 1

    def _root(self, width: int) -> int:
        while self._parents[width] != width:
            width = self._parents[width]
        return width

    def _union(self, a: int, b: int) -> None:
        a, b = self._root(a), self._root(b)
        if a == b:
            return
        first, second = sorted((a, b))
        self._parents[second] = first
        merged, gone = self.all[first], self.all[second]
        merged.layers += [name for name in gone.layers if name not in merged.layers]
        merged.pinned = merged.pinned or gone.pinned
        merged.unit = math.lcm(merged.unit, gone.unit)

    def _pin(self, track: Track, node: fx.Node, reason: str = "") -> None:
        told = reason or (
            "they are the network's outputs"
            if node.op == "output"
            else f"they go into {packet(node)!r} ({_where(node)}), which needs all of them"
        )
        for part in track.parts:
            width = self.all[self._root(part.width)]
            width.pinned = width.pinned or told


def _where(node: fx.Node) -> str:
    path = module_path(node)
    return f"{path} ({node.name})" if path else node.name
