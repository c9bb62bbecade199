"""What the spaces of transformers share: blocks of attention and MLP, with norms before both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from search_spaces.errors import InputError
from search_spaces.parameters import ascending, round_channels, whole
from search_spaces.plan import FLOAT_BITS, LayerPlan, Numbers, OperatorPlan
from search_spaces.planned import BlockColumn, LayerColumn, OperatorColumn
from search_spaces.space import Choice, Condition
from search_spaces.spaces.presets import PresetSpace
from search_spaces.spaces.staged import Columns
from search_spaces.spaces.staged_parameters import bit_choices, bits_name, edges

LEAST_GROUP = 8
"""Fewest channels that share a scale, unless all do."""

BRANCH_SCALE = 0.1
"""What the last layers of a fresh network's branches are multiplied by; not 0, from which steps of
quantisers do not start."""

_ROLES = ("qkv", "project", "widen", "contract")
_LAST = ("project", "combine", "contract")


@dataclass(frozen=True)
class BlockForm:
    """What differs between the blocks of two spaces.

    Attributes:
        kind: of the block.
        attention: kind of the operator between projections.
        role: of that operator.
        points: of the block that are quantised beside the inputs of its layers.
        bits: of the factors of the attention's products; 0 for those of the streams.
    """

    kind: str
    attention: str
    role: str
    points: tuple[tuple[str, str], ...] = ()
    bits: int = 0


@dataclass(frozen=True)
class Stack:
    """Names of the choices of one stack of blocks, where a space has several.

    Attributes:
        prefix: of the choices of width and depth.
        block: of a block's name, before its number.
    """

    prefix: str = ""
    block: str = "b"


@dataclass(frozen=True)
class TransformerColumns:
    """Blocks of a transformer over ``n`` architectures.

    Attributes:
        parameters: of the space, or of one of its stacks.
        columns: values of the choices.
        tokens: of an input, (n,) or one number.
        stack: names of the choices.
    """

    parameters: Any
    columns: Columns
    tokens: Numbers
    stack: Stack = Stack()

    @cached_property
    def embed(self) -> np.ndarray:
        """Width of the embedding, (n,) int64."""
        return self.columns.numbers(f"{self.stack.prefix}embed")

    @cached_property
    def depth(self) -> np.ndarray:
        """Number of blocks, (n,) int64."""
        return self.columns.numbers(f"{self.stack.prefix}depth")

    def norm(self, name: str, role: str, active: np.ndarray) -> OperatorColumn:
        """Return a layer norm of the tokens; ``active``: (n,) bool."""
        plan: OperatorPlan[Numbers] = OperatorPlan(
            name, role, "layer_norm", self.embed, self.tokens, parameters=2 * self.embed
        )
        return OperatorColumn(plan, active)

    def table(self, name: str, entries: int) -> OperatorColumn:
        """Return an embedding of ``entries`` symbols with learned positions."""
        plan: OperatorPlan[Numbers] = OperatorPlan(
            name, "embed", "token_embedding", self.embed, self.tokens, entries=entries,
            parameters=(entries + self.tokens) * self.embed,
        )  # fmt: skip
        return OperatorColumn(plan, np.ones(len(self.embed), dtype=bool))

    def head(self, kind: str, outputs: int, tokens: Numbers = 1) -> BlockColumn:
        """Return the block of the last norm and the layer to ``outputs``, run on ``tokens``."""
        p, every = self.parameters, np.ones(len(self.embed), dtype=bool)
        classifier: LayerPlan[Numbers] = LayerPlan(
            "head.classifier", "classifier", self.embed, outputs, 1, 1, 1, 1, 1,
            *edges(p.weight_bits, p.activation_bits, p.edge_bits), "none", "none", "linear", False,
            tokens=tokens,
        )  # fmt: skip
        layers, norm = (LayerColumn(classifier, every),), self.norm("head.norm", "norm", every)
        return BlockColumn("head", kind, layers, every, ~every, (), (norm,))

    def blocks(self, form: BlockForm) -> list[BlockColumn]:
        """Return all blocks of the deepest network."""
        return [self._block(b, form) for b in range(1, self.parameters.depths[-1] + 1)]

    def layer(
        self,
        block: str,
        role: str,
        inputs: Numbers,
        outputs: Numbers,
        active: np.ndarray,
        *,
        source: str = "none",
        tokens: Numbers | None = None,
    ) -> LayerColumn:
        """Return a linear layer of a block at the bits that are chosen for it.

        Args:
            block: its name.
            role: of the layer.
            inputs, outputs: channels, (n,) or one number.
            active: (n,) bool.
            source: non-linearity before it.
            tokens: that it runs on; by default those of an input.
        """
        weight, inputs_bits = self.columns.bits(block, role, self.parameters.granularity)
        plan: LayerPlan[Numbers] = LayerPlan(
            f"{block}.{role}", role, inputs, outputs, 1, 1, 1, 1, 1, weight, inputs_bits,
            "gelu" if role == "widen" else "none", source, "linear", False,
            tokens=self.tokens if tokens is None else tokens,
            group=self._group(block, role, weight),
        )  # fmt: skip
        return LayerColumn(plan, active)

    def _group(self, block: str, role: str, weight_bits: np.ndarray) -> Numbers:
        """Return the channels that share a scale; 0, for all of them, where weights are float."""
        groups = groups_of(self.parameters)
        if groups == (0,):
            return 0
        chosen = self.columns.numbers(bits_name(block, "g", role, self.parameters.granularity))
        return np.where(weight_bits < FLOAT_BITS, chosen, 0)

    def mlp(self, block: str, active: np.ndarray) -> tuple[LayerColumn, LayerColumn]:
        """Return both layers of a block's MLP; ``active``: (n,) bool."""
        ratio = self.columns.value(f"{block}.mlp")
        wide = round_channels(self.embed * ratio, self.parameters.divisor)
        return (
            self.layer(block, "widen", self.embed, wide, active),
            self.layer(block, "contract", wide, self.embed, active, source="gelu"),
        )

    def _block(self, b: int, form: BlockForm) -> BlockColumn:
        name, embed = f"{self.stack.block}{b}", self.embed
        active = self.depth >= b
        heads = self.columns.numbers(f"{name}.heads")
        inner = heads * self.parameters.head_width
        attention: OperatorPlan[Numbers] = OperatorPlan(
            f"{name}.{form.role}", form.role, form.attention, inner, self.tokens, heads,
            macs=2 * self.tokens**2 * inner, bits=form.bits,
        )  # fmt: skip
        return BlockColumn(
            name,
            form.kind,
            (
                self.layer(name, "qkv", embed, 3 * inner, active),
                self.layer(name, "project", inner, embed, active),
                *self.mlp(name, active),
            ),
            active,
            active,
            form.points,
            (
                self.norm(f"{name}.norm1", "norm1", active),
                OperatorColumn(attention, active),
                self.norm(f"{name}.norm2", "norm2", active),
            ),
        )


class SequenceSpace(PresetSpace):
    """A space of networks whose inputs are numbers of ``length`` symbols, (1, 1, length)."""

    length: int

    def initialize(self, network: Any) -> None:
        """Let the branches of the fresh supernet ``network`` add little to what they are added to.

        Every depth so begins as nearly the same function, and few steps learn more (as with GPT-2's
        scaled branches, Radford et al., 2019, section 2.3, and ReZero, Bachlechner et al., UAI
        2021).
        """
        for extent in network.ranges.values():
            if extent.largest.role in _LAST:
                network.layer(extent.largest.name).weight.data.mul_(BRANCH_SCALE)

    def resolution_column(self, genes: np.ndarray) -> np.ndarray:
        """Symbols of the input for gene rows: (n,) int64, the same for all."""
        return np.full(len(np.asarray(genes)), self.length, np.int64)

    def height_column(self, genes: np.ndarray) -> np.ndarray:
        """Return 1 for every gene row, (n,) int64."""
        return np.ones(len(np.asarray(genes)), dtype=np.int64)


def transformer_choices(p: Any, stack: Stack = Stack()) -> list[Choice]:
    """Return the choices of embedding, depth and blocks of a space with parameters ``p``."""
    choices = [Choice(f"{stack.prefix}embed", p.embeds), Choice(f"{stack.prefix}depth", p.depths)]
    for b in range(1, p.depths[-1] + 1):
        name, when = f"{stack.block}{b}", reached(p.depths, b, stack)
        choices.append(Choice(f"{name}.heads", p.heads, when))
        choices.append(Choice(f"{name}.mlp", p.mlps, when))
        choices += bit_choices(name, p, dict.fromkeys(_ROLES, when), when)
        choices += _group_choices(name, p, when)
    return choices


def groups_of(p: Any) -> tuple[int, ...]:
    """Return the groups of channels that a space lets share a scale: (0,) where it has none."""
    found: tuple[int, ...] = getattr(p, "groups", (0,))
    return found


def _group_choices(name: str, p: Any, when: tuple[Condition, ...]) -> list[Choice]:
    if groups_of(p) == (0,):
        return []
    roles = ("",) if p.granularity == "block" else _ROLES
    quantised = frozenset(bits for bits in p.weight_bits if bits < FLOAT_BITS)
    choices = []
    for role in roles:
        # Float weights have no scale.
        bits = Condition(bits_name(name, "w", role, p.granularity), quantised)
        own = when if len(quantised) == len(p.weight_bits) else (*when, bits)
        choices.append(Choice(bits_name(name, "g", role, p.granularity), p.groups, own))
    return choices


def check_groups(p: Any) -> None:
    """Raise :class:`InputError` for groups of channels that cannot share a scale."""
    groups = p.groups
    if not isinstance(groups, tuple) or not groups or list(groups) != sorted(set(groups)):
        raise InputError(f"groups={groups!r} must be a list of ascending numbers, each once")
    for group in groups:
        whole("groups", group, least=0)
        if 0 < group < LEAST_GROUP:
            raise InputError(
                f"groups={list(groups)}: scales of {group} channels take more than their weights; "
                f"use groups of {LEAST_GROUP} and more, or 0 for a scale an output"
            )
    if groups == (0,):
        return
    if tuple(p.activation_bits) != (FLOAT_BITS,):
        raise InputError(
            f"groups={list(groups)} are of weights alone: kernels of integers take one scale an "
            "output. Set activation_bits: [32], or groups: [0]"
        )
    if (FLOAT_BITS in p.weight_bits and len(p.weight_bits) == 1) or max(
        (bits for bits in p.weight_bits if bits < FLOAT_BITS), default=0
    ) > 8:
        raise InputError(
            f"groups={list(groups)}: weights in groups have 1 to 8 bits, and weight_bits are "
            f"{list(p.weight_bits)}"
        )


def reached(depths: Sequence[int], b: int, stack: Stack = Stack()) -> tuple[Condition, ...]:
    """Return when block ``b`` (from 1) of a stack is there: always, or at some of its depths."""
    if b <= depths[0]:
        return ()
    return (Condition(f"{stack.prefix}depth", frozenset(d for d in depths if d >= b)),)


def check_transformer(p: Any) -> None:
    """Raise :class:`InputError` for an embedding, depths, heads or MLPs that cannot be."""
    for name in ("embeds", "depths", "heads", "mlps"):
        ascending(name, getattr(p, name))
    for name in ("embeds", "depths", "heads"):
        for value in getattr(p, name):
            whole(name, value)
    whole("head_width", p.head_width)
