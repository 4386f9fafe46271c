"""Inverse problems y = A(x) + n with score-based diffusion priors.

Names are loaded on first use, so that the command line answers --help without importing torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

_HOME = {
    "SDE": "sde",
    "VESDE": "sde",
    "VPSDE": "sde",
    "SubVPSDE": "sde",
    "CosineVPSDE": "sde",
    "KarrasSDE": "sde",
    "Prior": "prior",
    "SliceWise": "prior",
    "PatchWise": "patches",
    "GaussianPrior": "gaussian",
    "GaussianMixturePrior": "gaussian",
    "load_prior": "io.priors",
    "save_prior": "io.priors",
    "sample": "sampling",
    "encode": "likelihood",
    "log_likelihood": "likelihood",
    "bits_per_dim": "likelihood",
    "condition": "posterior",
    "guide": "posterior",
    "solve": "solver",
    "Reconstruction": "solver",
}
__all__ = [
    "SDE",
    "VESDE",
    "VPSDE",
    "CosineVPSDE",
    "GaussianMixturePrior",
    "GaussianPrior",
    "KarrasSDE",
    "PatchWise",
    "Prior",
    "Reconstruction",
    "SliceWise",
    "SubVPSDE",
    "__version__",
    "bits_per_dim",
    "condition",
    "encode",
    "guide",
    "load_prior",
    "log_likelihood",
    "sample",
    "save_prior",
    "solve",
]

if TYPE_CHECKING:
    from .gaussian import GaussianMixturePrior, GaussianPrior
    from .io.priors import load_prior, save_prior
    from .likelihood import bits_per_dim, encode, log_likelihood
    from .patches import PatchWise
    from .posterior import condition, guide
    from .prior import Prior, SliceWise
    from .sampling import sample
    from .sde import SDE, VESDE, VPSDE, CosineVPSDE, KarrasSDE, SubVPSDE
    from .solver import Reconstruction, solve


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'inverse_score' has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
