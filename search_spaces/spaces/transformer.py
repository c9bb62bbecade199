"""What the spaces of transformers share: blocks of attention and MLP, with norms before both."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from search_spaces.parameters import ascending, round_channels, whole
from search_spaces.plan import LayerPlan, Numbers, OperatorPlan
from search_spaces.planned import BlockColumn, LayerColumn, OperatorColumn
from search_spaces.space import Choice, Condition
from search_spaces.spaces.staged import Columns
from search_spaces.spaces.staged_parameters import bit_choices, bits_name

_ROLES = ("qkv", "project", "widen", "contract")


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
class TransformerColumns:
    """Blocks of a transformer over ``n`` architectures.

    Attributes:
        parameters: of the space.
        columns: values of the choices.
        tokens: of an input, (n,) or one number.
    """

    parameters: Any
    columns: Columns
    tokens: Numbers

    @cached_property
    def embed(self) -> np.ndarray:
        """Width of the embedding, (n,) int64."""
        return self.columns.value("embed").astype(np.int64)

    def norm(self, name: str, role: str, active: np.ndarray) -> OperatorColumn:
        """Return a layer norm of the tokens; ``active``: (n,) bool."""
        plan: OperatorPlan[Numbers] = OperatorPlan(
            name, role, "layer_norm", self.embed, self.tokens, parameters=2 * self.embed
        )
        return OperatorColumn(plan, active)

    def blocks(self, form: BlockForm) -> list[BlockColumn]:
        """Return all blocks of the deepest network."""
        return [self._block(b, form) for b in range(1, self.parameters.depths[-1] + 1)]

    def _block(self, b: int, form: BlockForm) -> BlockColumn:
        p, name, embed = self.parameters, f"b{b}", self.embed
        active = self.columns.value("depth") >= b
        heads = self.columns.value(f"{name}.heads").astype(np.int64)
        inner = heads * p.head_width
        wide = round_channels(embed * self.columns.value(f"{name}.mlp"), p.divisor)

        def layer(role: str, inputs: Any, outputs: Any, source: str) -> LayerColumn:
            weight, activation = (
                self.columns.value(bits_name(name, kind, role, p.granularity)).astype(np.int64)
                for kind in ("w", "a")
            )
            plan: LayerPlan[Numbers] = LayerPlan(
                f"{name}.{role}", role, inputs, outputs, 1, 1, 1, 1, 1, weight, activation,
                "gelu" if role == "widen" else "none", source, "linear", False, tokens=self.tokens,
            )  # fmt: skip
            return LayerColumn(plan, active)

        attention: OperatorPlan[Numbers] = OperatorPlan(
            f"{name}.{form.role}", form.role, form.attention, inner, self.tokens, heads,
            macs=2 * self.tokens**2 * inner, bits=form.bits,
        )  # fmt: skip
        return BlockColumn(
            name,
            form.kind,
            (
                layer("qkv", embed, 3 * inner, "none"),
                layer("project", inner, embed, "none"),
                layer("widen", embed, wide, "none"),
                layer("contract", wide, embed, "gelu"),
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


def transformer_choices(p: Any) -> list[Choice]:
    """Return the choices of embedding, depth and blocks of a space with parameters ``p``."""
    choices = [Choice("embed", p.embeds), Choice("depth", p.depths)]
    for b in range(1, p.depths[-1] + 1):
        deep_enough = frozenset(d for d in p.depths if d >= b)
        when = () if b <= p.depths[0] else (Condition("depth", deep_enough),)
        choices.append(Choice(f"b{b}.heads", p.heads, when))
        choices.append(Choice(f"b{b}.mlp", p.mlps, when))
        choices += bit_choices(f"b{b}", p, dict.fromkeys(_ROLES, when), when)
    return choices


def check_transformer(p: Any) -> None:
    """Raise :class:`InputError` for an embedding, depths, heads or MLPs that cannot be."""
    for name in ("embeds", "depths", "heads", "mlps"):
        ascending(name, getattr(p, name))
    for name in ("embeds", "depths", "heads"):
        for value in getattr(p, name):
            whole(name, value)
    whole("head_width", p.head_width)
