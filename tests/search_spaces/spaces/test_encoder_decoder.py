"""What varies in an encoder-decoder, and which values cannot be; its contract: test_planned."""

import numpy as np
import pytest

from search_spaces.errors import InputError
from search_spaces.spaces.registry import build_space

SIZES = {"source_length": 5, "source_vocabulary": 9, "outputs": 7, "input_size": (1, 11)}


def space(**changes):
    return build_space("encoder_decoder", **SIZES, **changes)


def values_of(made, **chosen):
    """Return the largest architecture with some values changed."""
    largest = made.largest()
    values = dict(largest.items) | chosen
    # Choices that the change switches on take their last option.
    for choice in made.choices:
        values.setdefault(choice.name, choice.options[-1])
    return made.arch(values)


def block(plan, name):
    return next(each for each in plan.blocks if each.name == name)


def tokens_of(plan, name):
    return {layer.role: layer.tokens for layer in block(plan, name).layers}


def test_a_decoder_layer_attends_to_as_many_encoder_layers_as_there_are():
    made = space(encoder_depths=(1, 2, 3), attends=(1, 2, 3))
    names = {choice.name for choice in made.choices}
    assert {"d1.attends", "d1.attends2", "d2.attends", "d2.attends2"} <= names
    three = values_of(made)
    assert three["d1.attends"] == 3 and "d1.attends2" not in three
    two = values_of(made, **{"encoder.depth": 2})
    assert two["d1.attends2"] == 2 and "d1.attends" not in two
    one = values_of(made, **{"encoder.depth": 1})
    assert "d1.attends" not in one and "d1.attends2" not in one
    for arch, layers in ((three, 3), (two, 2), (one, 1)):
        plan = made.plan(arch)
        assert tokens_of(plan, "d1")["memory"] == 5 * layers
        assert tokens_of(plan, "d1")["query"] == 6
        cross = next(o for o in block(plan, "d1").operators if o.role == "cross")
        assert cross.macs == 2 * 6 * 5 * layers * cross.channels
    fewer = values_of(made, **{"d1.attends": 1})
    assert tokens_of(made.plan(fewer), "d1")["memory"] == 5
    assert tokens_of(made.plan(fewer), "d2")["memory"] == 15


def test_widths_and_depths_of_both_stacks_are_their_own():
    made = space(encoder_embeds=(16, 32), decoder_embeds=(24, 40), decoder_depths=(1, 2, 3))
    arch = values_of(made, **{"encoder.embed": 16, "decoder.depth": 1, "d1.cross": 1})
    plan = made.plan(arch)
    assert [b.kind for b in plan.blocks] == [
        "embed_source", "encoder", "encoder", "embed_target", "cross_decoder", "sequence_head",
    ]  # fmt: skip
    layers = {layer.name: layer for layer in plan.layers()}
    assert layers["d1.memory"].in_channels == 16 and layers["d1.memory"].out_channels == 2 * 16
    assert layers["d1.query"].in_channels == 40 and layers["d1.combine"].out_channels == 40
    assert layers["head.classifier"].in_channels == 40 and plan.outputs == 7
    assert plan.input_shape == (1, 1, 11)


def test_more_encoder_layers_to_attend_to_take_more_memory_and_work():
    made = space()
    few, many = (values_of(made, **{"d1.attends": n, "d2.attends": n}) for n in (1, 2))
    costs = made.costs(made.genes([few, many]))
    assert costs["macs"][0] < costs["macs"][1]
    assert costs["parameters"][0] == costs["parameters"][1]
    assert np.isfinite(costs["peak_memory_kib"]).all()


def test_the_last_layers_outputs_are_kept_until_the_decoder_has_read_them():
    made = space(encoder_depths=(3,), attends=(1, 2, 3), decoder_depths=(1,), heads=(1,), mlps=(1,))
    one, three = (values_of(made, **{"d1.attends": n}) for n in (1, 3))
    peaks = made.costs(made.genes([one, three]))["peak_memory_kib"]
    # Two outputs of 5 x 48 floats more, at least.
    assert peaks[1] - peaks[0] >= 2 * 5 * 48 * 4 / 1024


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attends": (1, 4)}, "attends to the last 3 encoder layers at most"),
        ({"attends": (2, 3)}, "an encoder of 1 layers has no 2 to attend to"),
        ({"cross_heads": (0,)}, "cross_heads"),
        ({"encoder_depths": (2, 1)}, "encoder_depths.*ascending"),
        ({"decoder_embeds": ()}, "decoder_embeds.*at least one"),
        ({"source_vocabulary": 1}, "source_vocabulary=1 must be a whole number from 2"),
        ({"granularity": "word"}, "granularity='word'"),
        ({"attend": (1,)}, "did you mean 'attends'"),
        ({"edge_bits": 1}, "edge_bits=1"),
        ({"input_size": (1, 5)}, "a target after it, and the data is 1 x 1 x 5"),
        ({"input_size": (8, 8)}, "use the data source text_pairs"),
        ({"input_channels": 3}, "use the data source text_pairs"),
    ],
)
def test_what_cannot_be_is_told(changes, message):
    with pytest.raises(InputError, match=message):
        build_space("encoder_decoder", **{**SIZES, **changes})
