"""What an architecture is: choices, validity, sampling, encoding, layer plans. No torch."""

from search_spaces.errors import EnvironmentProblem, InfeasibleError, InputError, NasError
from search_spaces.plan import FLOAT_BITS, BlockPlan, LayerPlan, NetworkPlan
from search_spaces.space import Arch, Choice, Condition, SearchSpace
from search_spaces.spaces import autoencoder as _autoencoder  # noqa: F401  (registers the space)
from search_spaces.spaces import decoder as _decoder  # noqa: F401  (registers the space)
from search_spaces.spaces import dense as _dense  # noqa: F401  (registers the spaces)
from search_spaces.spaces import (  # noqa: F401  (registers the space)
    encoder_decoder as _encoder_decoder,
)
from search_spaces.spaces import hybrid as _hybrid  # noqa: F401  (registers the space)
from search_spaces.spaces import mobilenet as _mobilenet  # noqa: F401  (registers the space)
from search_spaces.spaces import nasbench201 as _nasbench201  # noqa: F401  (registers the space)
from search_spaces.spaces import resnet as _resnet  # noqa: F401  (registers the space)
from search_spaces.spaces import signal as _signal  # noqa: F401  (registers the space)
from search_spaces.spaces import tokens as _tokens  # noqa: F401  (registers the space)
from search_spaces.spaces import vit as _vit  # noqa: F401  (registers the space)
from search_spaces.spaces.registry import SPACES, build_space

__all__ = [
    "FLOAT_BITS",
    "SPACES",
    "Arch",
    "BlockPlan",
    "Choice",
    "Condition",
    "EnvironmentProblem",
    "InfeasibleError",
    "InputError",
    "LayerPlan",
    "NasError",
    "NetworkPlan",
    "SearchSpace",
    "build_space",
]
