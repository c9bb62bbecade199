"""Sub-adapters of a decoder: ranks of low-rank updates, and how much of each MLP is kept.

LoNAS (Muñoz et al., LREC-COLING 2024) lets the rank of an adapter vary together with the width of
the frozen layer it belongs to; Shears (Muñoz et al., NAACL 2024) varies ranks on a sparse model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces.errors import InputError
from search_spaces.parameters import ascending, whole
from search_spaces.space import Choice, SearchSpace


@dataclass(frozen=True)
class AdaptedSizes:
    """What the costs of an adapted decoder follow from.

    Attributes:
        width, inner: of the stream and of an MLP.
        queries, keys: channels of the queries, and of keys and values.
        blocks, vocabulary: how many.
        gated: whether an MLP has a gate.
    """

    width: int
    inner: int
    queries: int
    keys: int
    blocks: int
    vocabulary: int
    gated: bool


class AdapterSpace(SearchSpace):
    """Choices ``b1.rank`` and ``b1.inner`` of each block, from 1.

    Args:
        sizes: of the decoder.
        ranks: of the adapters of a block, ascending.
        shares: of the MLP's channels that a block keeps, ascending, the last 1.

    Raises:
        InputError: ranks or shares that cannot be.
    """

    def __init__(
        self,
        sizes: AdaptedSizes,
        *,
        ranks: Sequence[int] = (4, 8, 16),
        shares: Sequence[float] = (0.5, 0.75, 1.0),
    ) -> None:
        for name, values in (("ranks", tuple(ranks)), ("shares", tuple(shares))):
            ascending(name, values)
        for rank in ranks:
            whole("ranks", rank)
        least = min(sizes.width, sizes.queries, sizes.keys)
        if max(ranks) > least:
            raise InputError(f"ranks={list(ranks)}: a layer of {least} channels has no more ranks")
        if shares[-1] != 1:
            raise InputError(f"shares={list(shares)}: the last must be 1, the whole MLP")
        self.sizes = sizes
        inners = tuple(dict.fromkeys(max(1, round(share * sizes.inner)) for share in shares))
        choices = []
        for b in range(1, sizes.blocks + 1):
            choices += [Choice(f"b{b}.rank", tuple(ranks)), Choice(f"b{b}.inner", inners)]
        super().__init__("adapters", choices)

    def costs(self, genes: np.ndarray) -> dict[str, np.ndarray]:
        """Return costs of gene rows (n, choices), each (n,) float64.

        ``macs``: multiply-accumulates of the linear layers for one token, the adapters' and the
        layer to the vocabulary among them. ``parameters``: of the adapters.
        """
        genes, s = np.asarray(genes), self.sizes
        macs = np.full(len(genes), float(s.width * s.vocabulary))
        parameters = np.zeros(len(genes))
        for b in range(1, s.blocks + 1):
            rank, inner = (
                np.asarray(self.choices[j].options, dtype=float)[genes[:, j]]
                for j in (self.index[f"b{b}.rank"], self.index[f"b{b}.inner"])
            )
            ups = 2 if s.gated else 1
            attention = s.width * (2 * s.queries + 2 * s.keys)
            own = rank * (
                2 * (s.width + s.queries) + 2 * (s.width + s.keys)
                + (ups + 1) * (s.width + inner)
            )  # fmt: skip
            macs += attention + (ups + 1) * s.width * inner + own
            parameters += own
        return {"macs": macs, "parameters": parameters}
