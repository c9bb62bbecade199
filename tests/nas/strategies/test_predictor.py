import numpy as np
import pytest

from nas.fronts import pareto
from nas.fronts.coverage import worth
from nas.fronts.metrics import Constraint, Goal, Metric
from nas.strategies import STRATEGIES, Exact, PredictorStrategy, Problem
from nas.strategies.genes import enumerate_genes
from search_spaces.errors import InputError


def search(name, problem, evaluate, total, seed, **options):
    strategy = STRATEGIES.get(name)(problem, seed=seed, **options)
    points = np.empty((0, len(problem.goals)))
    while len(points) < total:
        archs = strategy.ask(10)
        objectives, constraints = evaluate(archs)
        strategy.tell(archs, objectives, constraints)
        points = np.vstack([points, objectives])
    return points


@pytest.mark.slow
def test_beats_nsga2_and_random_with_a_third_of_the_evaluations(build):
    reference = (0.0, 30.0)
    volumes = {"predictor": [], "evolution": [], "random": []}
    for seed in range(3):
        for name, total in (("predictor", 60), ("evolution", 180), ("random", 180)):
            problem, evaluate = build(stages=3, depth=4, budget=25.0)
            options = {"generations": 25, "population": 100} if name == "predictor" else {}
            points = search(name, problem, evaluate, total, seed, **options)
            volumes[name].append(pareto.hypervolume(points, reference))
    assert min(volumes["predictor"]) > max(volumes["evolution"])
    assert np.mean(volumes["evolution"]) > np.mean(volumes["random"])


@pytest.mark.slow
def test_reaches_the_enumerated_front(build):
    problem, evaluate = build(stages=2, depth=2)
    space = problem.space
    truth = evaluate(space.decode(enumerate_genes(space)))[0]
    reference = pareto.reference_point(truth)
    points = search("predictor", problem, evaluate, 80, 0, generations=100)
    ratio = pareto.hypervolume(points, reference) / pareto.hypervolume(truth, reference)
    assert ratio > 0.99


def small_half(problem, points, column):
    """Return the share of points in the lower half of a cost's range in its logarithm."""
    ends = problem.space.genes([problem.space.smallest(), problem.space.largest()])
    middle = np.log(problem.known_objectives(ends, [column])[:, column]).mean()
    return float((np.log(points[:, column]) < middle).mean())


@pytest.mark.parametrize("total", [24, 60])
def test_with_logarithms_small_ones_have_their_share(build, total):
    """Of budgets spread over orders of magnitude half are in the lower half of the logarithm."""
    shares = {}
    for log_costs in (False, True):
        problem, evaluate = build(stages=3, depth=3)
        column = [str(goal.metric) for goal in problem.goals].index("weights_kib")
        points = search(
            "predictor", problem, evaluate, total, 0, generations=25, population=100,
            log_costs=log_costs,
        )  # fmt: skip
        shares[log_costs] = small_half(problem, points, column)
    assert shares[True] > 1.3 * shares[False]
    assert shares[True] > 0.25


@pytest.mark.slow
def test_logarithms_offer_more_over_budgets_of_every_size(build):
    worths = {}
    for log_costs in (False, True):
        found = []
        for seed in range(3):
            problem, evaluate = build(stages=3, depth=4)
            points = search(
                "predictor", problem, evaluate, 60, seed, generations=25, population=100,
                log_costs=log_costs,
            )  # fmt: skip
            found.append(worth(-points[:, 0], points[:, 1:], np.arange(len(points)), -1.0))
        worths[log_costs] = np.mean(found)
    assert worths[True] > worths[False]


def test_a_learned_constraint_is_aimed_at_and_never_ends_the_search(build):
    problem, evaluate = build(stages=2, depth=3, goals=(Metric("weights_kib"),), minimum=0.9)
    points = search("predictor", problem, evaluate, 80, 0, generations=20, population=60)
    assert len(points) == 80
    strategy = PredictorStrategy(problem, generations=20, population=60)
    for _ in range(6):
        archs = strategy.ask(10)
        strategy.tell(archs, *evaluate(archs))
    late = evaluate(strategy.ask(10))[1]
    assert (late <= 0.02).mean() >= 0.7
    # Unreachable by any model: it goes on proposing the nearest ones.
    problem, evaluate = build(stages=2, depth=3, goals=(Metric("weights_kib"),), minimum=1.5)
    assert len(search("predictor", problem, evaluate, 50, 0, generations=5, population=40)) == 50


def test_a_full_batch_to_the_end_though_few_candidates_are_new(build, use_up):
    """A space that is not enumerated, and candidates that are nearly all known."""
    problem, evaluate = build(stages=2, depth=2, budget=6.0)
    use_up(PredictorStrategy(problem, initial=8, population=6, generations=1), evaluate)


def test_a_narrow_region_is_used_up_and_never_left(build):
    problem, evaluate = build(stages=1, depth=2, budget=7.0)
    genes = enumerate_genes(problem.space)
    region = int((problem.screen(genes, problem.screened()) <= 0).sum())
    strategy = PredictorStrategy(problem, initial=8)
    found = []
    while archs := strategy.ask(15):
        objectives, violations = evaluate(archs)
        assert (violations <= 0).all()
        strategy.tell(archs, objectives, violations)
        found += archs
    assert len(set(found)) == len(found) == region < len(genes)


def test_an_interrupted_search_replayed_from_the_record_goes_on_identically(build):
    record = {}

    def run(rounds):
        problem, evaluate = build(stages=2, depth=3, budget=14.0)
        strategy = PredictorStrategy(problem, initial=10, population=40, generations=5)
        asked, fresh = [], 0
        for _ in range(rounds):
            archs = strategy.ask(5)
            asked.append(archs)
            for arch in archs:
                if arch not in record:
                    objectives, constraints = evaluate([arch])
                    record[arch] = objectives[0], constraints[0]
                    fresh += 1
            strategy.tell(
                archs,
                np.array([record[a][0] for a in archs]),
                np.array([record[a][1] for a in archs]),
            )
        return asked, fresh

    first, _ = run(4)
    again, fresh = run(6)
    assert again[:4] == first
    assert fresh == 10


def test_every_metric_needs_a_surrogate(build):
    problem, _ = build()
    bare = Problem(problem.space, problem.goals, surrogates={})
    with pytest.raises(InputError, match="needs a surrogate for accuracy, weights_kib"):
        PredictorStrategy(bare)


def test_uncertain_candidates_are_explored(build):
    """With exploration alone, the batch is where the surrogate says it knows least."""
    base, _ = build(stages=2, depth=3)

    class Doubtful:
        exact = False

        def predict(self, genes):
            # Everything equal, doubt only about 8-bit first layers.
            return np.zeros(len(genes)), (genes[:, 2] == 3).astype(float)

    problem = Problem(
        base.space,
        [Goal(Metric("accuracy")), Goal(Metric("weights_kib"))],
        surrogates={"accuracy": Doubtful(), "weights_kib": base.surrogates["weights_kib"]},
    )

    def doubtful(explore):
        strategy = PredictorStrategy(
            problem, initial=4, population=100, generations=5, optimism=0.0, explore=explore
        )
        archs = strategy.ask(6)
        weights = base.surrogates["weights_kib"].predict(base.space.genes(archs))[0]
        strategy.tell(archs, np.column_stack([-np.linspace(0, 1, 6), weights]))
        return sum(a["s0.0.weight_bits"] == 8 for a in strategy.ask(5))

    assert doubtful(1.0) == 5
    assert doubtful(0.0) <= 1


def test_problem_refuses_what_does_not_belong(build):
    problem, _ = build()
    accuracy, macs = Metric("accuracy"), Metric("macs")
    with pytest.raises(InputError, match="at least one objective"):
        Problem(problem.space, [])
    with pytest.raises(InputError, match="more than once"):
        Problem(problem.space, [Goal(accuracy), Goal(accuracy)])
    with pytest.raises(InputError, match="neither objective nor constraint"):
        Problem(problem.space, [Goal(accuracy)], surrogates={"macs": Exact(np.sum)})
    twice = [Constraint(macs, 1.0), Constraint(macs, 2.0)]
    with pytest.raises(InputError, match="constraint 'macs max' is given more than once"):
        Problem(problem.space, [Goal(accuracy)], twice)


def test_a_surrogate_that_returns_nan_is_an_error(build):
    problem, _ = build(budget=20.0)
    broken = Exact(lambda genes: np.full(len(genes), np.nan))
    bad = Problem(
        problem.space,
        problem.goals,
        problem.constraints,
        {**problem.surrogates, "weights_kib": broken},
    )
    with pytest.raises(InputError, match="surrogate of weights_kib returned a value that is not"):
        PredictorStrategy(bad).ask(3)
