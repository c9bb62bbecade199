import pytest
import torch
from torch.nn import functional as F

from search_spaces import build_space
from search_spaces.errors import InputError
from search_spaces.sparsity import layer_sparsity, parse_sparsity
from supernet.narrow import narrowed
from supernet.network import Supernet
from supernet.quantizers.registry import QuantizerScheme
from supernet.sparsity.training import prune
from supernet.training.finetune import finetune
from tests.supernet.sparsity.patterns import obeys


class Batches:
    def __len__(self):
        return 4

    def epoch(self, epoch, *, start=0):
        for index in range(start, len(self)):
            generator = torch.Generator().manual_seed(index)
            x = torch.randn(16, 1, 8, 8, generator=generator)
            yield x, (x[..., :4].sum((1, 2, 3)) > x[..., 4:].sum((1, 2, 3))).long()


def make(quantizers=None, **options):
    torch.manual_seed(0)
    space = build_space("mobilenet", preset="8x8", input_channels=1, outputs=2, **options)
    return Supernet(space, quantizers=quantizers)


def layers_of(network, plan):
    statistics = network.statistics(plan, [x for x, _ in Batches().epoch(0)])
    return {layer.layer.name: layer.op.weight for layer in network.extract(plan, statistics)
            .plain_layers()}  # fmt: skip


@pytest.mark.parametrize("text", ["2:4", "75%"])
@pytest.mark.parametrize("smallest", [False, True])
def test_pruned_weights_stay_zero_while_the_others_learn(text, smallest):
    supernet = make()
    space = supernet.space
    plan = supernet.plan(space.smallest() if smallest else space.largest())
    patterns = layer_sparsity(list(plan.layers()), parse_sparsity(text))
    begun = narrowed(supernet, plan)
    prune(begun, plan, patterns)
    own = finetune(
        supernet, plan, batches=Batches(), loss=F.cross_entropy, epochs=2, learning_rate=0.01,
        patterns=patterns,
    )  # fmt: skip
    after = layers_of(own, plan)
    sparse = [name for name, pattern in patterns.items() if not pattern.dense]
    assert sparse
    for name in sparse:
        assert obeys(after[name], patterns[name]), name
        held = begun.layer(name).weight == 0
        assert not own.layer(name).weight[held].any()
        assert not torch.equal(begun.layer(name).weight, own.layer(name).weight)


def test_shared_weights_are_left_alone():
    supernet = make()
    plan = supernet.plan(supernet.space.largest())
    before = {n: p.clone() for n, p in supernet.named_parameters()}
    patterns = layer_sparsity(list(plan.layers()), parse_sparsity("50%"))
    finetune(
        supernet, plan, batches=Batches(), loss=F.cross_entropy, epochs=0.25,
        learning_rate=0.01, patterns=patterns,
    )  # fmt: skip
    for name, value in supernet.named_parameters():
        if "log_step" not in name and "offset" not in name:
            assert torch.equal(value, before[name]), name


def test_weights_of_several_architectures_are_refused():
    supernet = make()
    plan = supernet.plan(supernet.space.smallest())
    patterns = layer_sparsity(list(plan.layers()), parse_sparsity("50%"))
    with pytest.raises(InputError, match="share"):
        prune(supernet, plan, patterns)


def test_quantisers_without_a_zero_are_refused():
    supernet = make(QuantizerScheme({"default": "lsq", 4: "shift4"}), weight_bits=(4,))
    plan = supernet.plan(supernet.space.largest())
    patterns = layer_sparsity(list(plan.layers()), parse_sparsity("50%"))
    with pytest.raises(InputError, match="zero weights codes that are not zero"):
        prune(narrowed(supernet, plan), plan, patterns)
