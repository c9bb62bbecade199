"""Bits for the layers of a language model: within budgets, no worse than uniform, read back."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from nas.bits.language import bits_per_byte, language_bits, read_windows
from nas.bits.weights_alone import linear_layers, with_weights, write_weight_bits
from nas.cli.main import app
from search_spaces.errors import InfeasibleError, InputError
from search_spaces.model_files.grouped import load_grouped
from supernet.checkpoints.config import read_config
from supernet.checkpoints.decoder import CheckpointDecoder
from supernet.checkpoints.weights import load_decoder

CONFIG = {
    "model_type": "llama", "vocab_size": 256, "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 32,
    "tie_word_embeddings": False,
}  # fmt: skip
LINES = "".join(f"{n} green bottles hanging on the wall.\n" for n in range(200))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint in Llama's names, trained a little, and a text."""
    folder = tmp_path_factory.mktemp("llama")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "text.txt").write_text(LINES)
    torch.manual_seed(0)
    model = CheckpointDecoder(read_config(folder))
    rows = torch.tensor(list(LINES.encode()))[: 33 * 200].view(-1, 33)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(40):
        values = model(rows[:, :-1])
        loss = torch.nn.functional.cross_entropy(values.flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    parts = {"query": "self_attn.q_proj", "key": "self_attn.k_proj", "value": "self_attn.v_proj",
             "output": "self_attn.o_proj", "gate": "mlp.gate_proj", "up": "mlp.up_proj",
             "down": "mlp.down_proj", "norm1": "input_layernorm",
             "norm2": "post_attention_layernorm"}  # fmt: skip
    names = {"embedding.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight",
             "head.weight": "lm_head.weight"}  # fmt: skip
    tensors = {}
    for name, value in model.state_dict().items():
        if name.startswith("blocks."):
            _, block, part, kind = name.split(".")
            names[name] = f"model.layers.{block}.{parts[part]}.{kind}"
        tensors[names[name]] = value.contiguous()
    save_file(tensors, folder / "model.safetensors")
    return folder


def windows(folder):
    return read_windows(folder / "text.txt", folder, vocabulary=256, most=32, windows=8)


@pytest.mark.parametrize("method", ["nearest", "gptq"])
def test_the_bits_keep_the_budget_and_beat_uniform_ones(folder, method):
    model, text = load_decoder(folder), windows(folder)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = language_bits(model, text, {"weights_kib": "92%"}, method=method)
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())
    assert result.best.optimal and result.best.costs["weights_kib"] <= result.budgets["weights_kib"]
    for other in result.others:
        assert result.best.sensitivity <= other.sensitivity + 1e-9
    options = {option.weight_bits for option in result.best.options}
    assert options <= {2, 3, 4} and len(options) > 1
    # More bits hurt less, and what is told of the chosen bits is true of the layers.
    for hurt in result.table.sensitivity:
        assert hurt[-1] <= hurt[0]
    judged = bits_per_byte(with_weights(model, result.weights), text)
    assert result.judged[result.best.method] == pytest.approx(judged)
    assert result.judged["float"] < judged + 0.05


def test_what_is_written_is_read_back(folder, tmp_path):
    from safetensors import safe_open

    model = load_decoder(folder)
    result = language_bits(model, windows(folder), {"weight_bits_mean": 3.0})
    path = write_weight_bits(result, tmp_path / "out", about={"source": "here"})
    told = json.loads(path.read_text())
    assert told["source"] == "here" and set(told["best"]["layers"]) == set(linear_layers(model))
    with safe_open(tmp_path / "out" / "layers.safetensors", "numpy") as file:
        entries = json.loads(file.metadata()["layers"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, grouped in result.weights.items():
        again = load_grouped(tensors, entries[name])
        np.testing.assert_array_equal(again.dequantised(), grouped.dequantised())


def test_what_cannot_be_is_told_before_any_work(folder, tmp_path):
    model, text = load_decoder(folder), windows(folder)
    with pytest.raises(InputError, match=r"layer blocks\.0\.query: groups of 64 do not divide 32"):
        language_bits(model, text, {"weights_kib": "92%"}, group=64)
    with pytest.raises(InputError, match="no method 'best'"):
        language_bits(model, text, {"weights_kib": "92%"}, method="best")
    with pytest.raises(InfeasibleError):
        language_bits(model, text, {"weight_bits_mean": 1.0})
    with pytest.raises(InputError, match="256 tokens do not fit a model of 100"):
        read_windows(folder / "text.txt", folder, vocabulary=100, most=32)
    (tmp_path / "short.txt").write_text("short")
    with pytest.raises(InputError, match="5 tokens are no two windows of 32"):
        read_windows(tmp_path / "short.txt", folder, vocabulary=256, most=32)


def test_the_command_writes_and_tells(folder, tmp_path):
    options = ["--text", str(folder / "text.txt"), "--budget", "weights_kib=92%", "--group", "32"]
    out = ["--output", str(tmp_path / "bits")]
    result = CliRunner().invoke(app, ["bits", str(folder), *options, *out])
    assert result.exit_code == 0, result.output
    assert "bits per byte" in result.output and (tmp_path / "bits" / "bits.json").is_file()
    missing = CliRunner().invoke(app, ["bits", str(folder), "--budget", "weights_kib=92%", *out])
    assert missing.exit_code == 2


def test_options_that_weights_alone_do_not_need_are_refused(folder):
    given = ["bits", str(folder), "--text", "text.txt", "--budget", "weights_kib=92%"]
    more = ["--ranks", "0.5", "--metric", "kl", "--activation-bits", "4", "--no-adaround"]
    result = CliRunner().invoke(app, [*given, *more])
    assert result.exit_code == 2
    told = "--activation-bits, --metric, --ranks, --adaround: not used with --text"
    assert told in result.output
    few = CliRunner().invoke(app, [*given, "--weight-bits", "2,8"])
    assert "--weight-bits 2,8: of a language model give some of 2, 3, 4" in few.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ranks", "0.5", "--group", "32"], "--ranks goes without --group"),
        (["--ranks", "0.5", "--device", "lowbit"], "--ranks goes without --device"),
        (["--design", "a.json", "--group", "32"], "--design goes without --group"),
        (["--design", "a.json", "--ranks", "0.5"], "--design goes without --ranks"),
        (["--device", "lowbit", "--hardware", "x"], "--device goes without --hardware"),
        (["--method", "gptq"], "--method is of a language model"),
        (["--protocol", "processes=2"], "needs --device"),
    ],
)
def test_options_that_do_not_go_together_are_told_before_any_work(options, message):
    result = CliRunner().invoke(app, ["bits", "no:network", "--budget", "bops=50%", *options])
    assert result.exit_code == 2 and message in result.output
