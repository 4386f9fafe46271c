"""Applications: a prior and an operator become a sampler in the data's own units.

`recipes.mri(prior, mask)(kspace)`, likewise ct, inpainting, colorization, class_conditional,
deblurring, super_resolution, compressed_sensing and interpolation; `volume` holds a scan's slices
together; `load` makes one from YAML; `recipes.run` reconstructs files.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .class_conditional import class_conditional
    from .colorization import colorization
    from .compressed_sensing import compressed_sensing
    from .ct import ct
    from .deblurring import deblurring
    from .inpainting import inpainting
    from .interpolation import interpolation
    from .load import load
    from .mri import mri
    from .super_resolution import super_resolution
    from .volume import volume

__all__ = [
    "class_conditional",
    "colorization",
    "compressed_sensing",
    "ct",
    "deblurring",
    "inpainting",
    "interpolation",
    "load",
    "mri",
    "super_resolution",
    "volume",
]


def __getattr__(name: str) -> Any:
    """Each name is loaded on first use: the table of `recipes.run` must not import torch."""
    if name not in __all__:
        raise AttributeError(f"module 'recipes' has no attribute {name!r}")
    import_module(f"{__name__}.{name}")
    return globals()[name]


class _Package(ModuleType):
    """Each name is a function here; its module is reached as `from recipes.NAME import ...`."""

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing a submodule would put the module in its function's place.
        if name in __all__ and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
