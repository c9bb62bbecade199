"""The tensors of a checkpoint of BERT's shape, by the names that its makers gave them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from search_spaces.errors import InputError
from supernet.checkpoints.encoder import CheckpointEncoder, Head
from supernet.checkpoints.encoder_config import EncoderConfig, read_encoder_config
from supernet.checkpoints.weights import Wanted, fill, read_tensors

_NEXT_SENTENCE = "cls.seq_relationship"
"""A head of pre-training that says whether one text follows another; nothing here asks it."""


def load_encoder(folder: Path) -> CheckpointEncoder:
    """Return the encoder of a folder with ``config.json`` and ``*.safetensors``.

    Its head is the one that the checkpoint has: for the words of masked places, for classes, or
    none. Nothing is downloaded, and nothing of the folder is run.

    Raises:
        InputError: a file that is missing or damaged; a model of another shape; tensors that are
            missing, too many, of another shape or not finite. Messages name the tensor.
    """
    folder = Path(folder)
    config = read_encoder_config(folder)
    wanted = Wanted(folder, read_tensors(folder))
    head: Head = (
        "masked"
        if wanted.has("cls.predictions.transform.dense.weight")
        else "classes"
        if wanted.has("classifier.weight")
        else "none"
    )
    at = "bert." if wanted.has("bert.embeddings.word_embeddings.weight") else ""
    pooled = wanted.has(f"{at}pooler.dense.weight")
    if head == "classes" and not pooled:
        raise InputError(
            f"{folder}: the checkpoint has a classifier, but no tensor {at}pooler.dense.weight "
            "that it reads from"
        )
    state = dict(_tensors(config, wanted, at, head, pooled))
    for kind in ("weight", "bias"):
        if wanted.has(f"{_NEXT_SENTENCE}.{kind}"):
            wanted(f"{_NEXT_SENTENCE}.{kind}")
    wanted.refuse_rest()
    model = CheckpointEncoder(config, head=head, pooled=pooled)
    fill(model, state, folder)
    return model.eval()


def _tensors(
    config: EncoderConfig, wanted: Wanted, at: str, head: Head, pooled: bool
) -> Iterator[tuple[str, Tensor]]:
    embeddings = f"{at}embeddings"
    words = wanted(f"{embeddings}.word_embeddings.weight")
    yield "embedding.weight", words
    yield "positions.weight", wanted(f"{embeddings}.position_embeddings.weight")
    yield "types.weight", wanted(f"{embeddings}.token_type_embeddings.weight")
    yield from _norm("norm", f"{embeddings}.LayerNorm", wanted)
    layers = (
        ("query", "attention.self.query"),
        ("key", "attention.self.key"),
        ("value", "attention.self.value"),
        ("output", "attention.output.dense"),
        ("up", "intermediate.dense"),
        ("down", "output.dense"),
    )
    for i in range(config.layers):
        here, there = f"{at}encoder.layer.{i}", f"blocks.{i}"
        for ours, theirs in layers:
            yield from _linear(f"{there}.{ours}", f"{here}.{theirs}", wanted)
        yield from _norm(f"{there}.norm1", f"{here}.attention.output.LayerNorm", wanted)
        yield from _norm(f"{there}.norm2", f"{here}.output.LayerNorm", wanted)
    if pooled:
        yield from _linear("pool", f"{at}pooler.dense", wanted)
    if head == "classes":
        yield from _linear("classifier", "classifier", wanted)
    elif head == "masked":
        yield from _linear("transform", "cls.predictions.transform.dense", wanted)
        yield from _norm("transform_norm", "cls.predictions.transform.LayerNorm", wanted)
        untied = wanted.has("cls.predictions.decoder.weight")
        yield "words.weight", wanted("cls.predictions.decoder.weight") if untied else words.clone()
        bias = wanted("cls.predictions.bias", "cls.predictions.decoder.bias")
        if wanted.has("cls.predictions.decoder.bias"):
            # The same tensor under both names.
            bias = wanted("cls.predictions.decoder.bias")
        yield "words.bias", bias


def _linear(ours: str, theirs: str, wanted: Wanted) -> Iterator[tuple[str, Tensor]]:
    for kind in ("weight", "bias"):
        yield f"{ours}.{kind}", wanted(f"{theirs}.{kind}")


def _norm(ours: str, theirs: str, wanted: Wanted) -> Iterator[tuple[str, Tensor]]:
    # Files converted from TensorFlow call scale and shift by Greek letters.
    for kind, older in (("weight", "gamma"), ("bias", "beta")):
        yield f"{ours}.{kind}", wanted(f"{theirs}.{kind}", f"{theirs}.{older}")
