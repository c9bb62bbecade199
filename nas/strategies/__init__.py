"""Search strategies: ``ask`` for architectures, ``tell`` what they are worth."""

from nas.strategies.base import STRATEGIES, Strategy
from nas.strategies.evolution import EvolutionStrategy
from nas.strategies.feasible import find_feasible
from nas.strategies.predictor import PredictorStrategy
from nas.strategies.problem import Judged, Problem
from nas.strategies.random import ExhaustiveStrategy, RandomStrategy
from nas.strategies.regularised import RegularisedEvolutionStrategy
from nas.strategies.samplers import (
    OptunaGPStrategy,
    OptunaNSGA2Strategy,
    OptunaNSGA3Strategy,
    OptunaStrategy,
    TPEStrategy,
)
from nas.strategies.surrogates import Exact, Learned, Supplied, Surrogate, cost_surrogates

__all__ = [
    "STRATEGIES",
    "EvolutionStrategy",
    "Exact",
    "ExhaustiveStrategy",
    "Judged",
    "Learned",
    "OptunaGPStrategy",
    "OptunaNSGA2Strategy",
    "OptunaNSGA3Strategy",
    "OptunaStrategy",
    "PredictorStrategy",
    "Problem",
    "RandomStrategy",
    "RegularisedEvolutionStrategy",
    "Strategy",
    "Supplied",
    "Surrogate",
    "TPEStrategy",
    "cost_surrogates",
    "find_feasible",
]
