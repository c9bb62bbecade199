"""The next token of a text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from nas.data.text.tokens import decoded, printable
from nas.fronts.metrics import MetricKind
from nas.tasks.base import TASKS
from nas.tasks.data import expect
from nas.tasks.overlays import Drawing
from nas.tasks.scores import Score
from nas.tasks.symbols import SymbolTask

if TYPE_CHECKING:
    from torch import Tensor

    from nas.data.splits import DataSplits
    from nas.data.text.tokens import Tokens
    from nas.job.sections.data import DataConfig

_SHOWN = 60


@TASKS.register("language_modelling")
class LanguageModelling(SymbolTask):
    """The token that follows, after each token of a window: cross-entropy, bits per byte.

    Bits per byte are comparable between vocabularies: the bits that it takes to name all tokens,
    over the bytes that they stand for. Each window is judged from its first token on, of whose
    past a network knows nothing, so a longer window has fewer bits.

    Attributes:
        tokens: of the data, once they are loaded.
    """

    from_data = True
    metric_name = "bits_per_byte"
    metric_unit = "bits"
    higher_is_better = False
    answers = "tokens"
    further_metrics: ClassVar[dict[str, MetricKind]] = {
        "perplexity": MetricKind(""),
        "token_accuracy": MetricKind("", maximise=True, share=True),
    }

    tokens: Tokens

    def load(self, config: DataConfig, seed: int) -> DataSplits:
        """See :meth:`Task.load`."""
        from nas.data.splits import load_splits

        splits = expect(load_splits(config, seed, kind="tokens"), "tokens", self)
        assert splits.tokens is not None, "a source of tokens says what they stand for"
        self.tokens = splits.tokens
        return splits

    def outputs(self, splits: DataSplits) -> int:
        """Return the number of tokens in the vocabulary."""
        return len(self.tokens.spellings)

    def score(self) -> Score:
        """See :meth:`Task.score`."""
        return _LanguageScore(self.tokens)

    def drawing(self, output: np.ndarray, target: np.ndarray, classes: tuple[str, ...]) -> Drawing:
        """See :meth:`Task.drawing`: the end of the window, and what comes after it."""
        end = decoded(self.tokens, target[:-1])[-_SHOWN:]
        told, right = (
            printable(self.tokens.spellings[int(n)]) for n in (output[-1].argmax(), target[-1])
        )
        more = "" if told == right else f", but it is {right!r}"
        return Drawing(caption=f"… {end} → {told!r}{more}")

    def output_text(self, splits: DataSplits) -> str:
        """See :meth:`Task.output_text`."""
        length, count = splits.input_size[1], len(splits.classes)
        return (
            f"(batch, {length}, {count}): after each token a value for each token of the "
            "vocabulary, before softmax. Softmax of the row of the last token that is known gives "
            "the probabilities of the next; tokens that come after it change nothing, so a shorter "
            "text is filled up with anything. The file's metadata `tokenizer` says what the tokens "
            "are. The file that is called after this one and ends in `-decode.onnx` gives one more "
            "token from the keys and values of those before it; `nas generate` makes text with "
            "both."
        )


class _LanguageScore(Score):
    """Bits and bytes of all tokens."""

    def __init__(self, tokens: Tokens) -> None:
        self._bytes = np.array([len(spelling) for spelling in tokens.spellings])
        self._nats = 0.0
        self._tokens = self._right = self._length = 0

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """See :meth:`Score.add`. outputs: (batch, tokens, vocabulary); targets: (batch, tokens)."""
        from torch.nn import functional as F

        values, wanted = outputs.float().flatten(0, 1), targets.flatten()
        self._nats += float(F.cross_entropy(values, wanted, reduction="none").double().sum())
        self._right += int((values.argmax(-1) == wanted).sum())
        self._tokens += len(wanted)
        self._length += int(self._bytes[wanted.cpu().numpy()].sum())

    def values(self) -> dict[str, float]:
        """See :meth:`Score.values`."""
        if self._tokens == 0:
            raise ValueError("there is nothing to evaluate: the batches are empty")
        return {
            "bits_per_byte": self._nats / math.log(2) / self._length if self._length else math.nan,
            "perplexity": math.exp(min(700.0, self._nats / self._tokens)),
            "token_accuracy": self._right / self._tokens,
        }
