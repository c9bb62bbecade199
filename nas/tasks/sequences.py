"""One sequence into another: a word into its sounds, a number into words, a line into another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nas.data.text.pair_tokens import until_end
from nas.fronts.metrics import MetricKind
from nas.tasks.base import TASKS
from nas.tasks.data import expect
from nas.tasks.overlays import Drawing
from nas.tasks.scores import MeanScore, Score
from nas.tasks.symbols import SymbolTask

if TYPE_CHECKING:
    from torch import Tensor

    from nas.data.splits import DataSplits
    from nas.data.text.pair_tokens import PairTokens
    from nas.job.sections.data import DataConfig


@TASKS.register("sequence_to_sequence")
class SequenceToSequence(SymbolTask):
    """The target of a source, symbol by symbol: cross-entropy, word error rate.

    A word is what a line holds: the word error rate is the share of lines that are not answered
    exactly, as it is counted for grapheme-to-phoneme conversion (Yao & Zweig, Interspeech 2015,
    section 4). Answers are greedy: the likeliest symbol each time.

    Networks are given the target up to each symbol. Whether the greedy answer is right can be told
    from that: it is, exactly when every symbol is the likeliest after the right ones before it.
    The further metric ``token_error_rate`` (edits that make the answer right, over the symbols of
    the targets) needs the answers themselves; :meth:`answer` finds them.

    After the end a target goes on with ends, which are learnt at once; so a teacher, whose answers
    there are learnt from as well, has something to say there.

    Attributes:
        pairs: of the data, once they are loaded.
    """

    metric_name = "word_error_rate"
    higher_is_better = False
    metric_is_share = True
    answers = "sequences"
    further_metrics: ClassVar[dict[str, MetricKind]] = {
        "token_error_rate": MetricKind("", share=True)
    }

    pairs: PairTokens

    def load(self, config: DataConfig, seed: int) -> DataSplits:
        """See :meth:`Task.load`."""
        from nas.data.splits import load_splits

        splits = expect(load_splits(config, seed, kind="pairs"), "pairs", self)
        assert splits.pairs is not None, "a source of pairs says what their symbols are"
        self.pairs = splits.pairs
        return splits

    def outputs(self, splits: DataSplits) -> int:
        """Return the number of the target's symbols, its end among them."""
        return self.pairs.target.count

    def space_options(self, splits: DataSplits) -> dict[str, Any]:
        """Return the length of a source and the number of its symbols."""
        return {
            "source_length": self.pairs.source_length,
            "source_vocabulary": self.pairs.source.count,
        }

    def answer(self, network: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """Return the outputs that greedy answers lead to, (batch, target, symbols).

        The network is given its own answers in place of the target until they no longer change
        (Jacobi decoding: Santilli et al., ACL 2023, section 3.2): each round makes one more symbol
        right at least, mostly many.

        Args:
            network: (batch, 1, 1, source + target) -> (batch, target, symbols).
            inputs: of it; the answers begin as the targets that they hold.
        """
        import torch

        inputs = inputs.clone()
        outputs = network(inputs)
        length = outputs.shape[1]
        start = inputs.shape[-1] - length
        open_rows = torch.arange(len(inputs), device=inputs.device)
        for _ in range(length):
            told = outputs[open_rows].argmax(-1)
            given = inputs[open_rows, 0, 0, start + 1 :].round().long()
            # What is given counts up to the end alone, and what comes after an end is no answer.
            over = (told == 0).cumsum(1)[:, :-1] > 0
            changed = ((told[:, :-1] != given) & ~over).any(1)
            if not bool(changed.any()):
                break
            open_rows = open_rows[changed]
            inputs[open_rows, 0, 0, start + 1 :] = told[changed, :-1].to(inputs.dtype)
            outputs[open_rows] = network(inputs[open_rows])
        return outputs

    def terms(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return 1 for a wrong answer and 0 for a right one: (batch,)."""
        wrong = outputs.argmax(-1) != targets
        # Up to the end of the target, and with it.
        inside = (targets == 0).cumsum(1) - (targets == 0).long() == 0
        return (wrong & inside).any(1).float()

    def score(self) -> Score:
        """See :meth:`Task.score`."""
        return _SequenceScore(self)

    def drawing(self, output: np.ndarray, target: np.ndarray, classes: tuple[str, ...]) -> Drawing:
        """See :meth:`Task.drawing`: the answer, and the target where it is another."""
        told, right = (self.pairs.target.decode(n) for n in (output.argmax(-1), target))
        more = "" if told == right else f", but it is {right!r}"
        return Drawing(caption=f"→ {told!r}{more}")

    def output_text(self, splits: DataSplits) -> str:
        """See :meth:`Task.output_text`."""
        pairs = self.pairs
        return (
            f"(batch, {pairs.target_length}, {pairs.target.count}): after each symbol of the "
            "target that is given a value for each that may be next, before softmax; the first, "
            "number 0, is the end. The file's metadata `pairs` says what the numbers are. Two "
            "files that are called after this one answer a source symbol by symbol: the one "
            "ending in `-encode.onnx` reads it, the one ending in `-decode.onnx` gives the next "
            "symbol; `nas generate` does so."
        )


class _SequenceScore(MeanScore):
    """Wrong answers, and the edits that would make them right."""

    def __init__(self, task: SequenceToSequence) -> None:
        super().__init__(task)
        self._edits = self._symbols = 0

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """See :meth:`Score.add`; outputs: (batch, target, symbols); targets: (batch, target)."""
        super().add(outputs, targets)
        told = outputs.argmax(-1).cpu().numpy()
        for one, other in zip(told, targets.cpu().numpy(), strict=True):
            answer, wanted = until_end(one.tolist()), until_end(other.tolist())
            self._symbols += len(wanted)
            self._edits += 0 if answer == wanted else edits(answer, wanted)

    def values(self) -> dict[str, float]:
        """See :meth:`Score.values`."""
        return {**super().values(), "token_error_rate": self._edits / max(1, self._symbols)}


def edits(answer: Sequence[int], wanted: Sequence[int]) -> int:
    """Return how many symbols to insert, drop or change at least (Levenshtein's distance)."""
    row = list(range(len(wanted) + 1))
    for i, one in enumerate(answer, start=1):
        before, row[0] = row[0], i
        for j, other in enumerate(wanted, start=1):
            changed = before + (one != other)
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, changed)
    return row[-1]
