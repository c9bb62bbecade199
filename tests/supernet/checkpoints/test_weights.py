"""Checkpoints of others give the logits that transformers gives, and damaged ones are told."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from search_spaces.errors import InputError
from supernet.checkpoints.weights import load_decoder


def made(folder, family, **changes):
    """Write a small random checkpoint by transformers and return its model."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if family == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=61, n_positions=24, n_embd=32, n_layer=2, n_head=4, **changes
        )
        model = transformers.GPT2LMHeadModel(config)
    else:
        sizes = {
            "vocab_size": 61, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 24,
        }  # fmt: skip
        config = transformers.LlamaConfig(**{**sizes, **changes})
        model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            # Norms and biases start as ones and zeros, which would hide a swapped name.
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("gpt2", {}),
        ("gpt2", {"n_inner": 48, "activation_function": "gelu", "tie_word_embeddings": False}),
        ("llama", {}),
        ("llama", {"num_key_value_heads": 4, "tie_word_embeddings": True, "rope_theta": 500.0}),
        ("llama", {"head_dim": 16, "attention_bias": True, "mlp_bias": True}),
    ],
)
def test_logits_are_those_of_transformers(tmp_path, family, changes):
    theirs = made(tmp_path, family, **changes)
    ours = load_decoder(tmp_path)
    tokens = torch.randint(0, 61, (3, 24))
    with torch.no_grad():
        expected = theirs(tokens).logits
        torch.testing.assert_close(ours(tokens), expected, atol=2e-5, rtol=1e-4)
        as_floats = ours(tokens[:, None, None].float())
    torch.testing.assert_close(as_floats, expected, atol=2e-5, rtol=1e-4)


def test_parts_of_a_checkpoint_are_read_by_their_index(tmp_path):
    made(tmp_path, "llama")
    whole = load_decoder(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, own in parts.items():
        save_file({name: tensors[name] for name in own}, tmp_path / file)
    (tmp_path / "model.safetensors").unlink()
    index = {name: file for file, own in parts.items() for name in own}
    place = tmp_path / "model.safetensors.index.json"
    place.write_text(json.dumps({"weight_map": index}))
    again = load_decoder(tmp_path)
    assert all(
        torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True)
    )
    place.write_text(json.dumps({"weight_map": {"x": "../elsewhere.safetensors"}}))
    with pytest.raises(InputError, match="which lies elsewhere"):
        load_decoder(tmp_path)
    place.write_text(json.dumps({"weights": []}))
    with pytest.raises(InputError, match="is no index of a checkpoint"):
        load_decoder(tmp_path)


def test_a_checkpoint_that_is_malformed_is_told_by_name(tmp_path):
    made(tmp_path, "gpt2")
    config_path, file = tmp_path / "config.json", tmp_path / "model.safetensors"
    config, tensors = json.loads(config_path.read_text()), load_file(file)

    def refused(message, *, settings=None, weights=None):
        config_path.write_text(json.dumps({**config, **(settings or {})}))
        save_file({**tensors, **(weights or {})}, file)
        with pytest.raises(InputError, match=message):
            load_decoder(tmp_path)

    norm = "transformer.h.0.ln_1.weight"
    refused("model_type is 'mamba'; gpt2 and llama", settings={"model_type": "mamba"})
    refused("n_embd 32 is not divided by n_head 5", settings={"n_head": 5})
    refused("n_layer is 0; it must be a whole number", settings={"n_layer": 0})
    refused("activation_function is 'mish'", settings={"activation_function": "mish"})
    refused("scale_attn_weights is False", settings={"scale_attn_weights": False})
    refused("no tensor transformer.h.2.ln_1.weight", settings={"n_layer": 3})
    refused("12 tensors are no part of this model", settings={"n_layer": 1})
    refused(r"embedding.weight has shape \[61, 32\]", settings={"vocab_size": 60})
    refused("1 tensors are no part", weights={"score.weight": torch.zeros(2, 32)})
    refused(
        "norm1.weight holds values that are not finite", weights={norm: tensors[norm] * torch.nan}
    )
    refused(
        "is torch.int64; weights must be floats", weights={norm: torch.zeros(32, dtype=torch.int64)}
    )
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(InputError, match="is damaged or no safetensors file"):
        load_decoder(tmp_path)
    file.unlink()
    with pytest.raises(InputError, match=r"model\.safetensors is not there"):
        load_decoder(tmp_path)
    config_path.write_text("{")
    with pytest.raises(InputError, match="is no JSON"):
        load_decoder(tmp_path)
    config_path.unlink()
    with pytest.raises(InputError, match=r"config\.json cannot be read"):
        load_decoder(tmp_path)


def test_rotary_positions_of_another_kind_are_told(tmp_path):
    made(tmp_path, "llama")
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["rope_parameters"] = {"rope_type": "yarn", "factor": 4.0}
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match="rotary positions of type 'yarn'"):
        load_decoder(tmp_path)
    config["rope_parameters"] = None
    config["num_key_value_heads"] = 3
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match="4 heads cannot share 3 heads"):
        load_decoder(tmp_path)
