"""Which layers of a job's models have zeros, told before anything is trained."""

import pytest

from nas.job.schema import Job
from nas.models.sparsity import ESTIMATE, patterns_of, require_sparsity, sparse_cost
from search_spaces import build_space
from search_spaces.errors import InputError


def job(**more):
    finetune = {"epochs": 1, **({"sparsity": more} if more else {})}
    return Job.model_validate({"name": "a", "data": {"name": "digits"}, "finetune": finetune})


@pytest.fixture(scope="module")
def space():
    return build_space("mobilenet", preset="8x8", input_channels=1)


def test_without_the_section_nothing_is_sparse(space):
    plan = space.plan(space.largest())
    assert patterns_of(job(), plan) == {} and sparse_cost(plan, {}) == {}
    require_sparsity(job(), space)


def test_an_estimate_is_told_where_something_is(space):
    plan = space.plan(space.largest())
    patterns = patterns_of(job(pattern="75%"), plan)
    assert sparse_cost(plan, patterns)[ESTIMATE] < plan.weights_kib


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"layers": {"depthwise": "2:4"}}, "depthwise cannot have the sparsity 2:4"),
        ({"layers": {"nothing": "2:4"}}, "no layer and no role is called 'nothing'"),
        ({"pattern": "3:29"}, "no layer of 'mobilenet' can have the pattern 3:29"),
    ],
)
def test_what_the_networks_cannot_have_is_refused_at_once(space, asked, why):
    with pytest.raises(InputError, match=f"finetune.sparsity: .*{why}"):
        require_sparsity(job(**asked), space)


def test_architectures_without_a_named_layer_are_no_mistake(space):
    layers = {layer.name for layer in space.plan(space.largest()).layers()}
    small = {layer.name for layer in space.plan(space.smallest()).layers()}
    deep = sorted(name for name in layers - small if "project" in name)[0]
    asked = job(layers={deep: "50%"})
    require_sparsity(asked, space)
    assert all(p.dense for p in patterns_of(asked, space.plan(space.smallest())).values())
