"""Text is the same with keys and values kept as with whole windows, and mistakes are told."""

import onnx
import pytest
import torch
from typer.testing import CliRunner

from nas.cli.main import app
from nas.data.text.tokens import ByteTokens
from nas.models.language.export_parts import export_part
from nas.models.language.generate import TextGenerator
from nas.models.language.parts import DECODE
from nas.models.language.step_file import step_path
from nas.models.parity import UnusableModel
from search_spaces.errors import InputError
from search_spaces.spaces.registry import build_space
from search_spaces.spaces.transformer import BRANCH_SCALE
from supernet.network import Supernet
from supernet.onnx.export import export_onnx
from supernet.testing import float_plan

LENGTH = 16


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    space = build_space("decoder", input_size=(1, LENGTH))
    supernet = Supernet(space)
    with torch.no_grad():
        # Of trained size, so that it shows what attention attends to.
        for name, parameter in supernet.named_parameters():
            if "project" in name and name.endswith(".weight"):
                parameter.div_(BRANCH_SCALE)
    return supernet.extract(float_plan(space.plan(space.largest())), {})


@pytest.fixture(scope="module")
def model(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "a1.onnx"
    notes = {"tokenizer": ByteTokens().to_text()}
    export_onnx(network, path, metadata=notes)
    windows = torch.randint(0, 256, (2, 1, 1, LENGTH)).float()
    export_part(network, step_path(path), DECODE, windows, metadata=notes)
    return path


def test_kept_keys_and_values_change_nothing(model, tmp_path):
    kept = TextGenerator(model)
    alone = tmp_path / "alone.onnx"
    alone.write_bytes(model.read_bytes())
    windows = TextGenerator(alone)
    assert kept.keeps and not windows.keeps and kept.length == LENGTH
    for prompt, temperature in (("ab", 0.0), ("a longer prompt than a window", 0.0), ("x", 1.0)):
        # More tokens than a window has, so that the caches begin anew.
        texts = [
            "".join(g.generate(prompt, 40, temperature=temperature, seed=3))
            for g in (kept, windows)
        ]
        assert texts[0] == texts[1] and len(texts[0].encode()) >= 10
    native = TextGenerator(model, runtime="lowbit")
    assert native.keeps
    expected = "".join(kept.generate("a prompt", 30, temperature=0))
    assert "".join(native.generate("a prompt", 30, temperature=0)) == expected
    first, second = ("".join(kept.generate("x", 30, seed=s)) for s in (0, 1))
    assert first != second == "".join(kept.generate("x", 30, seed=1))


def test_the_likeliest_token_is_that_of_the_network(model, network):
    text = "".join(TextGenerator(model).generate("In the", 1, temperature=0))
    window = torch.zeros(1, 1, 1, LENGTH)
    window[0, 0, 0, :6] = torch.tensor(list(b"In the")).float()
    with torch.no_grad():
        expected = int(network(window)[0, 5].argmax())
    assert text == bytes([expected]).decode("utf-8", errors="replace")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": "a", "count": 0}, "count is 0"),
        ({"prompt": "a", "temperature": -1.0}, "temperature is -1"),
        ({"prompt": "a", "most_likely": 0}, "most_likely is 0"),
    ],
)
def test_what_cannot_be_is_told(model, options, message):
    with pytest.raises(InputError, match=message):
        list(TextGenerator(model).generate(**options))


def test_files_that_make_no_text_are_told(model, network, tmp_path):
    with pytest.raises(InputError, match="no model file"):
        TextGenerator(tmp_path / "none.onnx")
    with pytest.raises(InputError, match="onnxruntime or lowbit, not in 'openvino'"):
        TextGenerator(model, runtime="openvino")
    alone = tmp_path / "alone.onnx"
    alone.write_bytes(model.read_bytes())
    with pytest.raises(InputError, match=r"no model file at .*alone-decode\.onnx"):
        TextGenerator(alone, runtime="lowbit")
    export_onnx(network, tmp_path / "silent.onnx")
    with pytest.raises(InputError, match="does not say what its tokens are"):
        TextGenerator(tmp_path / "silent.onnx")
    pytest.importorskip("tokenizers")
    from nas.data.text.tokens import BytePairs

    wrong = onnx.load(model)
    note = next(entry for entry in wrong.metadata_props if entry.key == "tokenizer")
    note.value = BytePairs.trained(["abab" * 9], 257).to_text()
    onnx.save(wrong, tmp_path / "wrong.onnx")
    with pytest.raises(InputError, match="its tokenizer has 257 tokens, and the network gives 256"):
        TextGenerator(tmp_path / "wrong.onnx")
    note.value = "words"
    onnx.save(wrong, tmp_path / "wrong.onnx")
    with pytest.raises(InputError, match="is no tokenizer"):
        TextGenerator(tmp_path / "wrong.onnx")


def test_a_step_that_computes_something_else_is_removed(network, tmp_path, monkeypatch):
    # Places that hold nothing yet are seen.
    monkeypatch.setattr("supernet.decoding.HIDDEN", 0.0)
    windows = torch.randint(0, 256, (2, 1, 1, LENGTH)).float()
    with pytest.raises(UnusableModel, match="a token at a time is not what a window at once is"):
        export_part(network, tmp_path / "step.onnx", DECODE, windows)
    assert not list(tmp_path.iterdir())


def test_the_command_goes_on_with_the_prompt(model):
    result = CliRunner().invoke(
        app, ["generate", str(model), "--prompt", "abc", "--tokens", "5", "--seed", "1"]
    )
    assert result.exit_code == 0 and result.stdout.startswith("abc")
    expected = "".join(TextGenerator(model).generate("abc", 5, seed=1))
    assert result.stdout == f"abc{expected}\n"


def test_the_file_of_a_step_alone_is_told(model):
    with pytest.raises(InputError, match=r"a1-decode\.onnx adds one token .* ID\.onnx without"):
        TextGenerator(step_path(model))


def test_what_is_no_model_is_bad_input_and_a_run_is_answered_with_its_models(model, tmp_path):
    card = tmp_path / "card.md"
    card.write_text("# a card")
    run = tmp_path / "run"
    (run / "models").mkdir(parents=True)
    for part in ("", "-decode"):
        (run / "models" / f"b2{part}.onnx").write_bytes(model.read_bytes())
    for given, told in (
        (card, "card.md"),
        (run, f"{run} is a folder; give a model file, such as {run}/models/b2.onnx"),
        (tmp_path / "gone.onnx", "no model file at"),
    ):
        done = CliRunner().invoke(app, ["generate", str(given), "--prompt", "a"])
        assert done.exit_code == 2 and told in done.stderr, done.stderr


def test_a_prompt_that_is_no_utf8_is_told_before_anything_is_printed(model):
    prompt = b"caf\xe9".decode("utf-8", "surrogateescape")
    done = CliRunner().invoke(app, ["generate", str(model), "--prompt", prompt])
    assert done.exit_code == 2 and not done.stdout
    assert "byte 0xE9 after 3 letters" in done.stderr
