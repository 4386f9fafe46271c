"""Import of released checkpoints: score_sde_pytorch, guided-diffusion, EDM, diffusers, NCSNv2."""

from .convert import fitting, import_checkpoint
from .presets import PRESETS, Preset
from .reading import Released, read_released
from .settings import published_likelihood, published_sampling

__all__ = [
    "PRESETS",
    "Preset",
    "Released",
    "fitting",
    "import_checkpoint",
    "published_likelihood",
    "published_sampling",
    "read_released",
]
