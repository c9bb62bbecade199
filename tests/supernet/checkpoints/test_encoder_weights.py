"""Encoders of others give what transformers gives, and damaged folders are told by name."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from search_spaces.errors import InputError
from supernet.checkpoints.encoder_weights import load_encoder
from supernet.checkpoints.weights import load_decoder

SIZES = {
    "vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 24,
}  # fmt: skip


def made(folder, kind, **changes):
    """Write a small random checkpoint by transformers and return its model."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = getattr(transformers, kind)(transformers.BertConfig(**{**SIZES, **changes}))
    with torch.no_grad():
        for parameter in model.parameters():
            # Norms and biases start as ones and zeros, which would hide a swapped name.
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model.eval()


def inputs_of():
    torch.manual_seed(1)
    tokens, types = torch.randint(0, 61, (3, 24)), torch.randint(0, 2, (3, 24))
    there = torch.arange(24) < torch.tensor([[24], [10], [1]])
    return tokens, there, types


@pytest.mark.parametrize(
    ("kind", "changes", "head"),
    [
        ("BertModel", {}, "none"),
        ("BertForMaskedLM", {}, "masked"),
        ("BertForMaskedLM", {"tie_word_embeddings": False, "hidden_act": "gelu_new"}, "masked"),
        ("BertForSequenceClassification", {"num_labels": 5, "hidden_act": "relu"}, "classes"),
        ("BertForPreTraining", {"layer_norm_eps": 1e-6}, "masked"),
    ],
)
def test_outputs_are_those_of_transformers(tmp_path, kind, changes, head):
    theirs = made(tmp_path, kind, **changes)
    ours = load_encoder(tmp_path)
    assert ours.head == head
    tokens, there, types = inputs_of()
    given = {"attention_mask": there.long(), "token_type_ids": types, "output_hidden_states": True}
    with torch.no_grad():
        expected = theirs(tokens, **given)
        hidden = ours.hidden(tokens, there, types)
        torch.testing.assert_close(hidden, expected.hidden_states[-1], atol=2e-5, rtol=1e-4)
        found = ours(tokens, there, types)
        if head == "none":
            torch.testing.assert_close(found, expected.last_hidden_state, atol=2e-5, rtol=1e-4)
            pooled = ours.pooled(found)
            torch.testing.assert_close(pooled, expected.pooler_output, atol=2e-5, rtol=1e-4)
            return
        logits = expected.prediction_logits if kind == "BertForPreTraining" else expected.logits
        torch.testing.assert_close(found, logits, atol=5e-5, rtol=1e-4)
        # Without a mask and types everything is there, and of the first segment.
        plain = theirs(tokens)
        logits = plain.prediction_logits if kind == "BertForPreTraining" else plain.logits
        torch.testing.assert_close(ours(tokens), logits, atol=5e-5, rtol=1e-4)


def test_names_of_classes_are_those_of_the_configuration(tmp_path):
    names = {0: "bad", 1: "good", 2: "neither"}
    made(tmp_path, "BertForSequenceClassification", id2label=names)
    assert load_encoder(tmp_path).config.labels == ("bad", "good", "neither")


def test_older_names_of_norms_and_places_are_read(tmp_path):
    made(tmp_path, "BertForMaskedLM")
    expected = load_encoder(tmp_path).state_dict()
    file = tmp_path / "model.safetensors"
    older = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in load_file(file).items()
    }
    places = {"bert.embeddings.position_ids": torch.arange(24)[None]}
    bias = {"cls.predictions.decoder.bias": older["cls.predictions.bias"].clone()}
    save_file({**older, **places, **bias}, file)
    again = load_encoder(tmp_path).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in expected.items())


def test_a_checkpoint_that_is_malformed_is_told_by_name(tmp_path):
    made(tmp_path, "BertForSequenceClassification", num_labels=3)
    config_path, file = tmp_path / "config.json", tmp_path / "model.safetensors"
    config, tensors = json.loads(config_path.read_text()), load_file(file)

    def refused(message, *, settings=None, weights=None, without=()):
        config_path.write_text(json.dumps({**config, **(settings or {})}))
        kept = {
            name: t for name, t in {**tensors, **(weights or {})}.items() if name not in without
        }
        save_file(kept, file)
        with pytest.raises(InputError, match=message):
            load_encoder(tmp_path)

    norm = "bert.embeddings.LayerNorm.weight"
    refused("model_type is 'electra'; of encoders bert", settings={"model_type": "electra"})
    refused("hidden_size 32 is not divided by num_attention", settings={"num_attention_heads": 5})
    refused("is_decoder is True, which cannot be read", settings={"is_decoder": True})
    refused(
        "position_embedding_type is 'relative_key'",
        settings={"position_embedding_type": "relative_key"},
    )
    refused("hidden_act is 'mish'", settings={"hidden_act": "mish"})
    refused("id2label does not number its names", settings={"id2label": {"1": "a", "2": "b"}})
    refused("id2label is no mapping", settings={"id2label": ["a"]})
    refused(r"classifier.weight has shape \[3, 32\]", settings={"id2label": {"0": "a", "1": "b"}})
    refused("no tensor bert.encoder.layer.2.attention", settings={"num_hidden_layers": 3})
    refused("16 tensors are no part of this model", settings={"num_hidden_layers": 1})
    refused(r"embedding.weight has shape \[61, 32\]", settings={"vocab_size": 60})
    refused(f"no tensor {norm}", without=(norm,))
    refused(
        "has a classifier, but no tensor bert.pooler",
        without=("bert.pooler.dense.weight", "bert.pooler.dense.bias"),
    )
    refused("1 tensors are no part", weights={"qa_outputs.weight": torch.zeros(2, 32)})
    refused(
        "norm.weight holds values that are not finite", weights={norm: torch.full((32,), torch.nan)}
    )
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(InputError, match="is damaged or no safetensors file"):
        load_encoder(tmp_path)
    with pytest.raises(InputError, match="gpt2 and llama can be read, and bert as an encoder"):
        load_decoder(tmp_path)
