"""Bits for the layers of an encoder: masked words or labelled lines; folders that do not fit."""

import json

import pytest
import torch
from typer.testing import CliRunner

from nas.bits.encoder import encoder_bits, quality
from nas.bits.encoder_text import WordPieces, read_labelled, read_masked
from nas.bits.weights_alone import linear_layers, with_weights
from nas.cli.main import app
from search_spaces.errors import InputError
from supernet.checkpoints.encoder_weights import load_encoder

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

LETTERS = "abcdefghij"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{c}" for c in LETTERS)]
SIZES = {
    "vocab_size": len(WORDS), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 64, "max_position_embeddings": 20,
}  # fmt: skip
TEXT = "abc def ghi jab cde fgh " * 60


def write(folder, kind, **changes):
    """Write a small checkpoint with a tokenizer, a text and labelled lines."""
    torch.manual_seed(0)
    model = getattr(transformers, kind)(transformers.BertConfig(**{**SIZES, **changes}))
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "text.txt").write_text(TEXT)
    lines = [f"{'abc' * (1 + n % 3)}\t{('up', 'down', 'same')[n % 3]}\n" for n in range(60)]
    (folder / "lines.tsv").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """An encoder that tells masked words, trained a little by transformers."""
    folder = write(tmp_path_factory.mktemp("masked"), "BertForMaskedLM")
    model = transformers.BertForMaskedLM.from_pretrained(folder)
    texts, _ = read_masked(folder / "text.txt", folder, load_encoder(folder).config)
    wanted = texts.wanted.where(texts.wanted >= 0, torch.tensor(-100))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        model(texts.tokens, labels=wanted).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    names = {0: "up", 1: "down", 2: "same"}
    return write(
        tmp_path_factory.mktemp("classes"), "BertForSequenceClassification", id2label=names
    )


def test_the_loss_of_masked_words_is_that_of_transformers(masked):
    ours, theirs = load_encoder(masked), transformers.BertForMaskedLM.from_pretrained(masked).eval()
    words = WordPieces(masked, ours.config.vocabulary)
    for texts in read_masked(masked / "text.txt", masked, ours.config, windows=4):
        # Some words of each window stand under a mask, and no token that begins or ends it.
        hidden = texts.tokens == words.mask
        assert torch.equal(hidden, texts.wanted >= 0) and hidden.any(1).all()
        assert (texts.tokens[:, 0] == words.first).all() and not hidden[:, [0, -1]].any()
        wanted = texts.wanted.where(hidden, torch.tensor(-100))
        with torch.no_grad():
            expected = float(theirs(texts.tokens, labels=wanted).loss)
        assert quality(ours, texts) == pytest.approx(expected, rel=1e-4)
    assert quality(ours, texts) < 2.5


@pytest.mark.parametrize("method", ["nearest", "gptq"])
def test_the_bits_keep_the_budget_and_beat_uniform_ones(masked, method):
    model = load_encoder(masked)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = read_masked(masked / "text.txt", masked, model.config, windows=4)
    result = encoder_bits(model, *data, {"weight_bits_mean": 3.0}, method=method)
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())
    assert result.best.optimal and result.metric == "masked_loss"
    assert result.best.costs["weight_bits_mean"] <= 3.0 + 1e-9
    for other in result.others:
        assert result.best.sensitivity <= other.sensitivity + 1e-9
    assert {"transform", "words", "blocks.1.down"} <= set(result.table.layers)
    judged = quality(with_weights(model, result.weights), data[1])
    assert result.judged[result.best.method] == pytest.approx(judged)


def test_a_classifier_is_judged_by_its_right_answers(classifier):
    model = load_encoder(classifier)
    texts, held_out = read_labelled(classifier / "lines.tsv", classifier, model.config)
    assert len(texts.tokens) == 30 == len(held_out.tokens)
    # Shorter lines are filled up, and what fills them is not seen.
    lengths = texts.there.sum(1)
    assert set(lengths.tolist()) == {5, 8, 11} and texts.tokens.shape[1] == 11
    assert ((lengths - 5) // 3 == texts.wanted).all()
    whole = model(texts.tokens, texts.there)
    alone = torch.cat(
        [model(t[None, :n]) for t, n in zip(texts.tokens, lengths.tolist(), strict=True)]
    )
    torch.testing.assert_close(whole, alone, atol=1e-5, rtol=1e-4)
    result = encoder_bits(model, texts, held_out, {"weights_kib": "92%"})
    assert result.metric == "accuracy" and 0 <= result.judged["float"] <= 1
    assert {"pool", "classifier"} <= set(result.table.layers) == set(linear_layers(model))


def test_labels_may_be_numbers(classifier):
    config = load_encoder(classifier).config
    path = classifier / "numbers.tsv"
    path.write_text("abc\t0\nabcabc\t1\n")
    texts, held_out = read_labelled(path, classifier, config)
    assert sorted([*texts.wanted.tolist(), *held_out.wanted.tolist()]) == [0, 1]


def test_the_command_writes_and_tells(masked, classifier, tmp_path):
    for folder, option, told in (
        (masked, ["--text", str(masked / "text.txt")], "nats for a masked word"),
        (classifier, ["--labelled", str(classifier / "lines.tsv")], "of the texts right"),
    ):
        out = tmp_path / folder.name
        given = ["bits", str(folder), *option, "--budget", "weights_kib=92%", "--output", str(out)]
        result = CliRunner().invoke(app, [*given, "--group", "32"])
        assert result.exit_code == 0, result.output
        assert told in result.output
        written = json.loads((out / "bits.json").read_text())
        assert written["source"] == str(folder) and (out / "layers.safetensors").is_file()


def test_data_that_do_not_fit_the_head_are_told(masked, classifier, tmp_path):
    def refused(folder, message, *options):
        given = ["bits", str(folder), "--budget", "weights_kib=92%", *map(str, options)]
        result = CliRunner().invoke(app, given)
        assert result.exit_code == 2 and message in result.output.replace("\n", " "), result.output

    refused(masked, "tells masked words; give the text", "--labelled", masked / "lines.tsv")
    refused(classifier, "has a classifier; give texts and labels", "--text", masked / "text.txt")
    refused(masked, "give one of --text and --labelled", "--text", "a", "--labelled", "b")
    refused(masked, "--metric: not used with --text", "--text", "a", "--metric", "kl")
    bare = write(tmp_path, "BertModel")
    refused(bare, "neither a head for masked words nor a classifier", "--text", "a")


def test_lines_and_tokenizers_that_do_not_fit_are_told(masked, classifier, tmp_path):
    config = load_encoder(classifier).config
    path = tmp_path / "lines.tsv"
    for text, message in (
        ("abc\tup\nabc\tleft\n", r"lines\.tsv:2: 'left' is no class of the model"),
        ("abc\tup\nabc up\n", r"lines\.tsv:2: 1 cells are no pair"),
        ("abc\tup\n", "one line is too few"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_labelled(path, classifier, config)
    path.write_text("abc def\n")
    with pytest.raises(InputError, match="6 tokens are no two windows of 18"):
        read_masked(path, masked, config)
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(InputError, match=r"neither tokenizer\.json nor vocab\.txt"):
        WordPieces(folder, 99)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    with pytest.raises(InputError, match="the tokenizer has 25 tokens, and the model 9"):
        WordPieces(folder, 9)
    (folder / "special_tokens_map.json").write_text('{"mask_token": {"content": "<mask>"}}')
    with pytest.raises(InputError, match=r"no token '<mask>' \(mask_token\)"):
        WordPieces(folder, 99)
    (folder / "special_tokens_map.json").write_text("[]")
    with pytest.raises(InputError, match="holds no mapping"):
        WordPieces(folder, 99)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"tokenizer\.json is no tokenizer"):
        WordPieces(folder, 99)


def test_a_folder_of_words_alone_has_a_tokenizer(masked):
    pieces = [WORDS[n] for n in WordPieces(masked, len(WORDS)).numbers("ABC fgz")]
    assert pieces == ["a", "##b", "##c", "[UNK]"]
